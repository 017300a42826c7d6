import pytest
import torch
from torch import Tensor

from kdrec.models import base
from kdrec.models.base import Recommender
from kdrec.models.bpr import BPR
from kdrec.models.dots import list_dots


def looked_up(owners: Tensor, table: Tensor, lists: Tensor) -> Tensor:
    return (owners.unsqueeze(1) * table[lists]).sum(-1)


def setting(num_owners: int, length: int, num_rows: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    torch.manual_seed(0)
    owners = torch.randn(num_owners, 3, dtype=torch.float64, requires_grad=True)
    table = torch.randn(num_rows, 3, dtype=torch.float64, requires_grad=True)
    lists = torch.randint(0, num_rows, (num_owners, length))
    return owners, table, lists, torch.randn(num_owners, length, dtype=torch.float64)


@pytest.mark.parametrize("sizes", [(4, 6, 9), (1, 1, 1), (5, 30, 3), (2, 3, 50), (0, 4, 5)], ids=str)
def test_values_and_gradients_are_those_of_lookups(sizes: tuple[int, int, int]) -> None:
    owners, table, lists, weights = setting(*sizes)
    fast, slow = (form(owners, table, lists) for form in (list_dots, looked_up))
    torch.testing.assert_close(fast, slow)
    gradients = [torch.autograd.grad((form * weights).sum(), (owners, table)) for form in (fast, slow)]
    torch.testing.assert_close(*gradients)


def test_one_side_alone_may_learn() -> None:
    owners, table, lists, _ = setting(4, 6, 9)
    for learns, rests in ((owners, table), (table, owners)):
        sides = [side if side is learns else side.detach() for side in (owners, table)]
        (list_dots(*sides, lists).square().sum()).backward()  # type: ignore[call-arg, arg-type]
        assert learns.grad is not None
        assert rests.grad is None
        learns.grad = None


def test_an_autocast_leaves_it_in_whole_precision() -> None:
    owners, table, lists, _ = setting(4, 6, 9)
    with torch.autocast("cpu", torch.bfloat16):
        scores = list_dots(owners.float(), table.float(), lists)
    assert scores.dtype == torch.float32
    scores.sum().backward()
    torch.testing.assert_close(scores, looked_up(owners, table, lists).float())


def model(width: int = 4) -> BPR:
    torch.manual_seed(1)
    recommender = BPR(width, init_std=1.0)
    recommender.build(9, 14)
    return recommender


@pytest.mark.parametrize("side", ["items", "users"])
def test_long_lists_of_a_model_are_scored_at_once(side: str, monkeypatch: pytest.MonkeyPatch) -> None:
    fast, slow = model(), model()
    generator = torch.Generator().manual_seed(0)
    users, items = (torch.randint(0, number, (7,), generator=generator) for number in (9, 14))
    many = torch.randint(0, 14 if side == "items" else 9, (7, 20), generator=generator)
    calls: list[tuple[int, ...]] = []

    def spy(*args: Tensor) -> Tensor:
        calls.append(tuple(args[2].shape))
        return list_dots(*args)

    monkeypatch.setattr(base, "list_dots", spy)
    ours = fast.score(users, many) if side == "items" else fast.score_users(items, many)
    assert calls == [(7, 20)]
    theirs = (
        torch.stack([slow.score(users, many[:, place]) for place in range(20)], dim=1)
        if side == "items"
        else Recommender.score_users(slow, items, many)
    )
    torch.testing.assert_close(ours, theirs)
    for scores in (ours, theirs):
        scores.square().sum().backward()
    for one, other in zip(fast.parameters(), slow.parameters(), strict=True):
        torch.testing.assert_close(one.grad, other.grad)
    calls.clear()
    fast.score(users, many[:, :15])
    fast.score(users[:1], many[:1, :14])
    assert not calls, "short lists, and few of them, are looked up"


def test_sparse_tables_are_looked_up_so_that_only_those_rows_have_gradients() -> None:
    recommender = model()
    recommender.items.sparse = recommender.users.sparse = True
    recommender.score(torch.tensor([0]), torch.full((1, 30), 3)).sum().backward()
    recommender.score_users(torch.tensor([3]), torch.full((1, 30), 2)).sum().backward()
    assert recommender.items.weight.grad is not None
    assert recommender.items.weight.grad.coalesce().indices().tolist() == [[3]]
    assert recommender.users.weight.grad is not None
    assert recommender.users.weight.grad.coalesce().indices().tolist() == [[0, 2]]
