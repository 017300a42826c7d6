import itertools
import math

import pytest
import torch
from torch import Tensor

from kdrec.data.sampling import Batch
from kdrec.distillation import lists
from kdrec.distillation.base import Teacher
from kdrec.distillation.rrd import RRD, Drawn, relaxed_ranking
from kdrec.errors import InputError
from kdrec.models.base import Recommender
from kdrec.models.bpr import BPR
from tests.generated import generate

MINIMUM: dict[str, float] = {}


def written_out(interesting: Tensor, uninteresting: Tensor) -> Tensor:
    """METHODS 3.7: a product of chances, each with its own sum, in float64; -inf stands where there is none."""
    total = torch.zeros((), dtype=torch.float64)
    for row, others in zip(interesting.double(), uninteresting.double(), strict=True):
        row, others = row[row > -torch.inf], others[others > -torch.inf]
        for k in range(len(row)):
            total = total - torch.log(row[k].exp() / (row[k:].exp().sum() + others.exp().sum()))
    return total


def of_lists(scores: Tensor, drawn: Drawn, owners: Tensor) -> Tensor:
    """`written_out` of drawn partners' scores, of which -1 are none."""
    parts = (drawn.interesting[owners], drawn.uninteresting[owners])
    return written_out(*(scores.gather(1, p.clamp(min=0)).masked_fill(p < 0, -torch.inf) for p in parts))


def naive(distiller: RRD, batch: Batch, student: Recommender, teacher: Teacher) -> dict[str, Tensor]:
    users = torch.tensor(sorted(set(batch.users.tolist())))
    return {"rrd": distiller.weight * of_lists(student.score_all(users).detach(), distiller.items, users)}


def test_the_loss_and_its_gradient_are_those_written_out() -> None:
    torch.manual_seed(0)
    scores = torch.randn(5, 10, dtype=torch.float64, requires_grad=True)
    value, expected = relaxed_ranking(scores, 7), written_out(scores[:, :7], scores[:, 7:])
    torch.testing.assert_close(value, expected)
    torch.testing.assert_close(*(torch.autograd.grad(form, scores)[0] for form in (value, expected)))


def test_two_and_one_by_hand() -> None:
    # e^s = 2, 3 and 5: first place 2 / (2 + 3 + 5), second 3 / (3 + 5)
    loss = relaxed_ranking(torch.tensor([[2.0, 3.0, 5.0]]).log(), 2)
    assert loss.item() == pytest.approx(-math.log(2 / 10 * 3 / 8))


def by_logarithms(interesting: Tensor, uninteresting: Tensor) -> Tensor:
    """The same without any exponential that could overflow or vanish."""
    rest = torch.logcumsumexp(interesting.flip(1), dim=1).flip(1)
    return (torch.logaddexp(rest, torch.logsumexp(uninteresting, dim=1, keepdim=True)) - interesting).sum()


@pytest.mark.parametrize("spread", [1.0, 10.0, 30.0, 100.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_scores_far_apart(spread: float, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    scores = (spread * torch.randn(20, 13, dtype=dtype)).requires_grad_()
    exact = scores.double()
    fast, slow = relaxed_ranking(scores, 8), by_logarithms(exact[:, :8], exact[:, 8:])
    torch.testing.assert_close(fast, slow.to(dtype))
    gradients = [torch.autograd.grad(form, scores)[0] for form in (fast, slow)]
    torch.testing.assert_close(*gradients, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_scores_of_half_precision_lose_no_more_by_sums(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    scores = (8 * torch.randn(4, 60)).to(dtype).requires_grad_()
    fast, slow = (relaxed_ranking(kind, 40) for kind in (scores, scores.double()))
    torch.testing.assert_close(fast, slow.to(dtype), rtol=0, atol=0)
    gradients = [torch.autograd.grad(form, scores)[0] for form in (fast, slow)]
    torch.testing.assert_close(*gradients, rtol=0, atol=0)


def test_very_large_scores_stay_finite_and_point_the_right_way() -> None:
    scores = torch.tensor([[500.0, -5e30, 9e5, 0.0]], requires_grad=True)
    loss = relaxed_ranking(scores, 2)
    assert loss.item() == pytest.approx(1200.0)  # each counts as 600 below
    loss.backward()
    assert scores.grad is not None
    assert scores.grad.tolist()[0][:3] == [-1.0, -1.0, 2.0]


def test_what_is_not_there_neither_counts_nor_moves() -> None:
    none = -torch.inf
    interesting = torch.tensor([[1.0, 2.0, none], [3.0, none, none], [none, none, none], [none, none, none]])
    uninteresting = torch.tensor([[0.0, none], [none, none], [1.0, 2.0], [none, none]])
    scores = torch.cat((interesting, uninteresting), 1).double().requires_grad_()
    alone = torch.tensor([[1.0, 2.0, 0.0]], dtype=torch.float64, requires_grad=True)
    # the second list has nothing below it, so its one item is certainly first
    loss, expected = relaxed_ranking(scores, 3), written_out(alone[:, :2], alone[:, 2:])
    torch.testing.assert_close(loss, expected)
    gradient, of_alone = (torch.autograd.grad(form, leaf)[0] for form, leaf in ((loss, scores), (expected, alone)))
    assert not gradient[scores == none].any()
    assert not gradient[1:].any()
    torch.testing.assert_close(gradient[:1, [0, 1, 3]], of_alone)


def test_no_number_stays_none() -> None:
    assert relaxed_ranking(torch.tensor([[torch.nan, 1.0, 0.0]]), 2).isnan()


@pytest.mark.parametrize(("shape", "number"), [((3,), 1), ((2, 3), 0), ((2, 3), 3), ((2, 3, 4), 1)])
def test_wrong_shapes(shape: tuple[int, ...], number: int) -> None:
    with pytest.raises(InputError, match=rf"scores .* must be a table .* here {number}\)"):
        relaxed_ranking(torch.zeros(shape), number)


def bound(**options: object) -> tuple[RRD, BPR]:
    train = generate(num_users=12, num_items=60)
    teacher, student = BPR(9, init_std=1.0), BPR(4, init_std=1.0)
    for model in (teacher, student):
        model.bind(train)
    distiller = RRD(**options)  # type: ignore[arg-type]
    distiller.bind(student, Teacher(teacher), train)
    scores = teacher.score_all(torch.arange(12)).detach()
    scores[torch.from_numpy(train.users.copy()), torch.from_numpy(train.items.copy())] = -torch.inf
    distiller.best = scores.argsort(dim=1, descending=True)  # type: ignore[assignment]
    return distiller, teacher


def test_without_sampling_the_first_of_the_list_are_taken() -> None:
    distiller, _ = bound(num_interesting=5, list_length=8)
    assert torch.equal(distiller.items.interesting, distiller.best[:, :5])


@pytest.mark.parametrize("near", [lists._NEAR, 0.0], ids=["all near", "most far"])
def test_by_rank_another_part_of_the_list_is_drawn_every_epoch_in_the_teachers_order(
    near: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lists, "_NEAR", near)
    torch.manual_seed(0)
    distiller, _ = bound(num_interesting=4, list_length=10, sampling="rank", temperature=3.0)
    rank = torch.full((12, 60), -1).scatter_(1, distiller.best, torch.arange(60).expand(12, -1))
    counts = torch.zeros(10)
    for _ in range(500):
        distiller.on_epoch_start(0.5)
        ranks = rank.gather(1, distiller.items.interesting)
        assert (ranks.diff() > 0).all(), "in order, none twice"
        assert ranks.max() < 10
        counts += torch.bincount(ranks.flatten(), minlength=10)
    expected = chances_without_replacement(10, 4, 3.0)
    torch.testing.assert_close(counts / (500 * 12), expected, atol=0.015, rtol=0)


def chances_without_replacement(length: int, number: int, temperature: float) -> Tensor:
    """How often each rank is among those drawn one after the other, each by its share of what is left."""
    orders = torch.tensor(list(itertools.permutations(range(length), number)))
    weights = torch.exp(-torch.arange(1.0, length + 1) / temperature)
    taken = weights[orders]
    chances = (taken / (weights.sum() - taken.cumsum(1) + taken)).prod(1, keepdim=True).expand(orders.shape)
    return torch.zeros(length).index_add(0, orders.flatten(), chances.flatten())


def test_the_uninteresting_are_neither_listed_nor_touched_and_change_every_epoch() -> None:
    distiller, _ = bound(num_interesting=5, num_uninteresting=30, list_length=8)
    outside = distiller.best[:, 8 : 60 - max(generate(12, 60).user_counts)]
    before = distiller.items.uninteresting
    seen = torch.zeros(12, 60, dtype=torch.bool)
    for _ in range(60):
        distiller.on_epoch_start(0.5)
        seen.scatter_(1, distiller.items.uninteresting, True)
    assert not torch.equal(before, distiller.items.uninteresting)
    listed = torch.zeros(12, 60, dtype=torch.bool).scatter_(1, distiller.best[:, :8], True)
    touched = torch.zeros(12, 60, dtype=torch.bool)
    train = generate(12, 60)
    touched[torch.from_numpy(train.users.copy()), torch.from_numpy(train.items.copy())] = True
    assert torch.equal(seen, ~(listed | touched)), "all others have their turn"
    assert seen.gather(1, outside).all()


def test_every_user_of_a_batch_counts_once() -> None:
    distiller, student = bound(num_interesting=5, list_length=8)
    once = Batch(torch.tensor([3, 5]), torch.tensor([0, 0]), torch.tensor([[1], [1]]))
    twice = Batch(torch.tensor([3, 5, 3]), torch.tensor([0, 0, 2]), torch.tensor([[1], [1], [1]]))
    one, other = (distiller(batch, student, Teacher(student))["rrd"].item() for batch in (once, twice))
    assert one == pytest.approx(other)


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"num_interesting": 0}, "num_interesting is 0"),
        ({"num_uninteresting": 0}, "num_uninteresting 0"),
        ({"num_interesting": 9, "list_length": 8}, "list_length 8"),
        ({"sampling": "ranks"}, "sampling is 'ranks'; it must be one of 'none', 'rank'"),
        ({"temperature": 0.0}, "temperature is 0.0"),
        ({"weight": -1.0}, "weight is -1.0"),
    ],
)
def test_bad_options(options: dict[str, object], complaint: str) -> None:
    with pytest.raises(InputError, match=complaint):
        RRD(**options)  # type: ignore[arg-type]


@pytest.mark.parametrize("sampling", ["none", "rank"])
def test_lists_are_drawn_on_the_cpu_whatever_the_default_device_is(sampling: str) -> None:
    train = generate(num_users=12, num_items=60)
    teacher = BPR(9)
    teacher.bind(train)
    with torch.device("meta"):  # Lightning builds models on the device where they will be
        distiller = RRD(list_length=50, sampling=sampling)  # type: ignore[arg-type]
        distiller.bind(teacher, Teacher(teacher), train)
    assert (distiller.items.interesting.device.type, distiller.items.uninteresting.device.type) == ("cpu", "cpu")
