from typing import Any

import pytest
import torch
from torch import Tensor, nn

from kdrec.data.sampling import Batch
from kdrec.distillation.base import Teacher
from kdrec.distillation.de import DE
from kdrec.distillation.fitnet import FitNet
from kdrec.errors import InputError
from kdrec.models.base import Recommender
from kdrec.models.bpr import BPR

MINIMUM: dict[str, float] = {}  # the projectors do not know the teacher at first


def naive(distiller: FitNet, batch: Batch, student: Recommender, teacher: Teacher) -> dict[str, Any]:
    """METHODS 3.3 in float64, entity by entity, weighed as 3.4."""
    total = torch.zeros((), dtype=torch.float64)
    for factor, side, given in (
        (1, "user", batch.users),
        (0.5, "item", batch.positives),
        (0.5, "item", batch.negatives),
    ):
        layers = [layer for layer in getattr(distiller, f"{side}s").modules() if isinstance(layer, nn.Linear)]
        for entity in sorted(set(given.flatten().tolist())):
            vector, target = (
                getattr(model, f"{side}_vectors")(torch.tensor([entity]))[0].double() for model in (student, teacher)
            )
            for number, layer in enumerate(layers):
                vector = layer.weight.double() @ (vector if number == 0 else vector.relu()) + layer.bias.double()
            total = total + factor * (target - vector).square().sum()
    return {"fitnet": distiller.weight * total}


def setting(projector: Any = "perceptron", widths: tuple[int, int] = (3, 6)) -> tuple[FitNet, Batch, BPR, Teacher]:
    torch.manual_seed(0)
    student, model = BPR(widths[0], init_std=1.0), BPR(widths[1], init_std=1.0)
    for recommender in (student, model):
        recommender.build(9, 14)
    teacher = Teacher(model)
    distiller = FitNet(weight=0.7, projector=projector)
    distiller.bind(student, teacher, None)  # type: ignore[arg-type]
    generator = torch.Generator().manual_seed(1)
    users, items = torch.randint(0, 9, (12,), generator=generator), torch.randint(0, 14, (12, 3), generator=generator)
    return distiller, Batch(users, items[:, 0], items[:, 1:]), student, teacher


@pytest.mark.parametrize("projector", ["perceptron", "linear"])
def test_values_and_gradients_equal_the_naive_form(projector: str) -> None:
    distiller, batch, student, teacher = setting(projector)
    fast, slow = distiller(batch, student, teacher)["fitnet"], naive(distiller, batch, student, teacher)["fitnet"]
    assert fast.item() == pytest.approx(slow.item(), rel=1e-5)
    parameters = [*student.parameters(), *distiller.parameters()]
    for one, other in zip(torch.autograd.grad(fast, parameters), torch.autograd.grad(slow, parameters), strict=True):
        torch.testing.assert_close(one, other.float(), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("widths", [(3, 6), (4, 4)])
def test_is_de_with_one_expert(widths: tuple[int, int]) -> None:
    distiller, batch, student, teacher = setting(widths=widths)
    other = DE(weight=0.7, num_experts=1)
    other.bind(student, teacher, None)  # type: ignore[arg-type]
    for ours, theirs in ((distiller.users, other.users), (distiller.items, other.items)):
        assert isinstance(ours, nn.Sequential)
        first, _, second = ours
        with torch.no_grad():
            for to, values in (
                (theirs.first, first.weight), (theirs.first_bias, first.bias), (theirs.second, second.weight.T),
                (theirs.second_bias, second.bias),
            ):  # fmt: skip
                to[0].copy_(values)
    ours, theirs = distiller(batch, student, teacher)["fitnet"], other(batch, student, teacher)["de"]
    torch.testing.assert_close(ours, theirs)
    gradients = [torch.autograd.grad(loss, list(student.parameters())) for loss in (ours, theirs)]
    for one, another in zip(*gradients, strict=True):
        torch.testing.assert_close(one, another)


def test_a_batch_by_hand() -> None:
    # the projector doubles: user 2 * 1 against 5: 9; items 2 * 1 against 2, 3, 4: 0, 1, 4. Positives {0, 1}, negatives
    # {1, 2}: 9 + .5 * (0 + 1) + .5 * (1 + 4) = 12; item 1 is in both halves, what comes twice in one counts once.
    student, model = BPR(1), BPR(1)
    for recommender in (student, model):
        recommender.build(1, 3)
        recommender.users.weight.data.fill_(1.0)
        recommender.items.weight.data.fill_(1.0)
    model.users.weight.data.fill_(5.0)
    model.items.weight.data.copy_(torch.tensor([[2.0], [3.0], [4.0]]))
    distiller, teacher = FitNet(weight=0.5, projector="linear"), Teacher(model)
    distiller.bind(student, teacher, None)  # type: ignore[arg-type]
    for side in (distiller.users, distiller.items):
        nn.init.constant_(side.weight, 2.0)  # type: ignore[arg-type]
        nn.init.zeros_(side.bias)  # type: ignore[arg-type]
    batch = Batch(torch.zeros(3, dtype=torch.int64), torch.tensor([0, 1, 1]), torch.tensor([[1], [2], [2]]))
    assert distiller(batch, student, teacher)["fitnet"].item() == pytest.approx(6.0)


def test_projectors_learn() -> None:
    distiller, batch, student, teacher = setting()
    distiller(batch, student, teacher)["fitnet"].backward()
    assert all(isinstance(p.grad, Tensor) and p.grad.abs().sum() > 0 for p in distiller.parameters())


def test_bad_options() -> None:
    with pytest.raises(InputError, match="FitNet: projector is 'mlp'; it must be one of 'perceptron', 'linear'"):
        FitNet(projector="mlp")  # type: ignore[arg-type]
