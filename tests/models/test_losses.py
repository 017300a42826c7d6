import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from kdrec.models import losses

LOSSES = [losses.bpr, losses.bce, losses.softmax]
Loss = Callable[[Tensor, Tensor], Tensor]


def log_sigmoid(x: float) -> float:
    return -math.log1p(math.exp(-x)) if x >= 0 else x - math.log1p(math.exp(x))


def naive(loss: Loss, positives: list[float], negatives: list[list[float]]) -> float:
    """Follow the formulas of the docstrings, one number at a time."""
    total = 0.0
    for positive, row in zip(positives, negatives, strict=True):
        if loss is losses.bpr:
            total += sum(-log_sigmoid(positive - negative) for negative in row) / len(row)
        elif loss is losses.bce:
            total += -log_sigmoid(positive) - sum(log_sigmoid(-negative) for negative in row)
        else:
            total += -math.log(math.exp(positive) / (math.exp(positive) + sum(math.exp(other) for other in row)))
    return total


def scores(batch: int = 6, num_negatives: int = 3, scale: float = 3.0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(batch + num_negatives)
    return (
        scale * torch.randn(batch, dtype=torch.float64, generator=generator),
        scale * torch.randn(batch, num_negatives, dtype=torch.float64, generator=generator),
    )


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("num_negatives", [1, 2, 7])
def test_against_loops(loss: Loss, num_negatives: int) -> None:
    positives, negatives = scores(num_negatives=num_negatives)
    value = loss(positives, negatives)
    assert value.shape == ()
    assert value.item() == pytest.approx(naive(loss, positives.tolist(), negatives.tolist()), rel=1e-13)


def test_by_hand() -> None:
    positives, negatives = (
        torch.tensor([0.0], dtype=torch.float64),
        torch.tensor([[math.log(3), 0.0]], dtype=torch.float64),
    )
    # bpr: sigmoid(-log 3) = 1/4, sigmoid(0) = 1/2: (log 4 + log 2) / 2
    assert losses.bpr(positives, negatives).item() == pytest.approx(math.log(8) / 2, rel=1e-14)
    # bce: log 2 for the positive; 1 - sigmoid(log 3) = 1/4 and 1 - sigmoid(0) = 1/2: log 2 + log 4 + log 2
    assert losses.bce(positives, negatives).item() == pytest.approx(math.log(16), rel=1e-14)
    # softmax: 1 / (1 + 3 + 1)
    assert losses.softmax(positives, negatives).item() == pytest.approx(math.log(5), rel=1e-14)


@pytest.mark.parametrize("loss", LOSSES)
def test_gradient(loss: Loss) -> None:
    positives, negatives = (part.requires_grad_() for part in scores(4, 3))
    assert torch.autograd.gradcheck(loss, (positives, negatives))


@pytest.mark.parametrize("loss", LOSSES)
def test_gradient_pulls_apart(loss: Loss) -> None:
    positives, negatives = (part.requires_grad_() for part in scores())
    loss(positives, negatives).backward()
    assert positives.grad is not None
    assert negatives.grad is not None
    assert (positives.grad < 0).all()
    assert (negatives.grad > 0).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("loss", LOSSES)
def test_extreme_scores(loss: Loss, dtype: torch.dtype) -> None:
    positives = torch.tensor([1e4, -1e4, 1e4, -1e4], dtype=dtype, requires_grad=True)
    negatives = torch.tensor([[1e4, -1e4], [1e4, -1e4], [-1e4, -1e4], [1e4, 1e4]], dtype=dtype, requires_grad=True)
    value = loss(positives, negatives)
    value.backward()
    assert value.isfinite()
    assert positives.grad is not None
    assert negatives.grad is not None
    assert positives.grad.isfinite().all()
    assert negatives.grad.isfinite().all()
    # bpr by row: margins (0, 2e4), (-2e4, 0), (2e4, 2e4), (-2e4, -2e4):
    #     log 2 / 2 + (2e4 + log 2) / 2 + 0 + 2e4 = 3e4 + log 2
    # bce: positives 0 + 1e4 + 0 + 1e4; negatives at 1e4 cost 1e4 each, of which there are 4: 6e4
    # softmax: log 2, then 2e4 + log(1 + 2 e^-2e4 ..) = 2e4, then 0, then 2e4 + log 2: 4e4 + 2 log 2
    expected = {"bpr": 3e4 + math.log(2), "bce": 6e4, "softmax": 4e4 + 2 * math.log(2)}
    assert value.item() == pytest.approx(expected[loss.__name__], rel=1e-6)  # type: ignore[attr-defined]


@pytest.mark.parametrize("loss", LOSSES)
def test_sum_over_the_batch(loss: Loss) -> None:
    positives, negatives = scores()
    once, twice = loss(positives, negatives), loss(positives.repeat(2), negatives.repeat(2, 1))
    assert twice.item() == pytest.approx(2 * once.item(), rel=1e-14)
    parts = loss(positives[:2], negatives[:2]) + loss(positives[2:], negatives[2:])
    assert parts.item() == pytest.approx(once.item(), rel=1e-14)


def test_more_of_the_same_negative() -> None:
    """The mean over negatives does not change, the sum over them doubles; the softmax has one more competitor."""
    positives, negatives = torch.zeros(1, dtype=torch.float64), torch.zeros(1, 1, dtype=torch.float64)
    doubled = negatives.repeat(1, 2)
    assert losses.bpr(positives, doubled).item() == pytest.approx(losses.bpr(positives, negatives).item())
    assert losses.bce(positives, doubled).item() == pytest.approx(1.5 * losses.bce(positives, negatives).item())
    assert losses.softmax(positives, doubled).item() == pytest.approx(math.log(3))


@pytest.mark.parametrize("loss", LOSSES)
def test_best_is_zero(loss: Loss) -> None:
    assert loss(torch.full((3,), 500.0), torch.full((3, 2), -500.0)).item() == 0


@pytest.mark.parametrize("loss", LOSSES)
def test_empty_part_of_a_batch(loss: Loss) -> None:
    positives, negatives = torch.zeros(0, requires_grad=True), torch.zeros(0, 2, requires_grad=True)
    value = loss(positives, negatives)
    value.backward()
    assert value.item() == 0


@pytest.mark.parametrize("loss", LOSSES)
def test_inputs_stay(loss: Loss) -> None:
    positives, negatives = scores()
    copies = positives.clone(), negatives.clone()
    loss(positives, negatives)
    assert torch.equal(positives, copies[0])
    assert torch.equal(negatives, copies[1])
