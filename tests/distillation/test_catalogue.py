import pytest
import torch
from torch import Tensor

from kdrec.distillation.catalogue import catalogue_cross_entropy


def random_case(num_users: int, num_items: int, dtype: torch.dtype) -> tuple[list[Tensor], Tensor, Tensor, Tensor]:
    """Return vectors of users and items, weights, targets' chances, and a mask of hidden pairs that are no targets."""
    generator = torch.Generator().manual_seed(4)
    users, items = (torch.randn(n, 5, dtype=dtype, generator=generator) for n in (num_users, num_items))
    weights = torch.rand(num_users, dtype=dtype, generator=generator)
    hidden = torch.rand(num_users, num_items, generator=generator) < 0.2
    wanted = (torch.rand(num_users, num_items, generator=generator) < 0.3) & ~hidden
    wanted[:, 0], hidden[:, 0] = True, False
    chances = torch.rand(num_users, num_items, dtype=dtype, generator=generator) * wanted
    return [users, items], weights, chances / chances.sum(1, keepdim=True), hidden


@pytest.mark.parametrize("num_users", [1, 31, 32, 33, 100])
def test_equals_the_whole_table_with_its_gradients(num_users: int) -> None:
    vectors, weights, chances, hidden = random_case(num_users, 17, torch.float64)
    fast, slow = ([tensor.clone().requires_grad_() for tensor in vectors] for _ in range(2))
    rows, columns = chances.nonzero(as_tuple=True)
    targets = rows, columns, chances[rows, columns]
    value = catalogue_cross_entropy(*fast, weights, targets, hidden.nonzero(as_tuple=True))  # type: ignore[arg-type]
    scores = slow[0] @ slow[1].T
    of_all = torch.logsumexp(scores.masked_fill(hidden, -torch.inf), 1)
    expected = (weights * (of_all - (chances * scores).sum(1))).sum()
    torch.testing.assert_close(value, expected)
    (3 * value).backward()
    (3 * expected).backward()
    for ours, theirs in zip(fast, slow, strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad)


def test_half_precision_beside_whole_chances() -> None:
    vectors, weights, chances, hidden = random_case(40, 17, torch.float32)
    rows, columns = chances.nonzero(as_tuple=True)
    found = []
    for dtype in (torch.float32, torch.bfloat16):
        cast = [tensor.detach().to(dtype, copy=True).requires_grad_() for tensor in vectors]
        targets = rows, columns, chances[rows, columns]
        value = catalogue_cross_entropy(*cast, weights.to(dtype), targets, hidden.nonzero(as_tuple=True))  # type: ignore[arg-type]
        value.backward()
        found.append((value, cast[0].grad))
        assert value.dtype == dtype
    for ours, theirs in zip(*found, strict=True):
        torch.testing.assert_close(ours.float(), theirs.float(), rtol=0.05, atol=0.05)  # type: ignore[union-attr]


def test_large_scores_stay_finite() -> None:
    vectors, weights, chances, hidden = random_case(3, 17, torch.float32)
    vectors = [(100 * tensor).requires_grad_() for tensor in vectors]
    rows, columns = chances.nonzero(as_tuple=True)
    targets = rows, columns, chances[rows, columns]
    catalogue_cross_entropy(*vectors, weights, targets, hidden.nonzero(as_tuple=True)).backward()  # type: ignore[arg-type]
    assert all(torch.isfinite(tensor.grad).all() for tensor in vectors)  # type: ignore[arg-type]
