import math
from typing import Any

import pytest
import torch
from torch import Tensor

from kdrec.data.sampling import Batch
from kdrec.distillation.assignment import expert_width
from kdrec.distillation.base import Teacher
from kdrec.distillation.de import DE
from kdrec.errors import InputError
from kdrec.models.base import Recommender
from kdrec.models.bpr import BPR

MINIMUM: dict[str, float] = {}  # the experts do not know the teacher at first


def naive(distiller: DE, batch: Batch, student: Recommender, teacher: Teacher) -> dict[str, Any]:
    """METHODS 3.4 in float64, entity by entity; draws the same noise: users, positives, negatives."""
    total = torch.zeros((), dtype=torch.float64)
    for factor, side, given in (
        (1, "user", batch.users),
        (0.5, "item", batch.positives),
        (0.5, "item", batch.negatives),
    ):
        entities = torch.tensor(sorted(set(given.flatten().tolist())))
        part = getattr(distiller, f"{side}s")
        ours, theirs = (getattr(model, f"{side}_vectors")(entities).double() for model in (student, teacher))
        noise = -torch.log(-torch.log(torch.rand(len(entities), distiller.num_experts))).double()
        for row, (s, t) in enumerate(zip(ours, theirs, strict=True)):
            chances = (part.selector.weight.double() @ t + part.selector.bias.double()).softmax(0)
            z = ((torch.log(chances + 1e-10) + noise[row]) / distiller.temperature).softmax(0)
            guess = torch.zeros_like(t)
            for k in range(distiller.num_experts):
                hidden = (part.first[k].double() @ s + part.first_bias[k].double()).relu()
                guess = guess + z[k] * (hidden @ part.second[k].double() + part.second_bias[k].double())
            total = total + factor * (t - guess).square().sum()
    return {"de": distiller.weight * total}


def setting(**options: Any) -> tuple[DE, Batch, BPR, Teacher]:
    torch.manual_seed(0)
    student, model = BPR(3, init_std=1.0), BPR(6, init_std=1.0)
    for recommender in (student, model):
        recommender.build(9, 14)
    teacher = Teacher(model)
    distiller = DE(weight=0.7, num_experts=4, **options)
    distiller.bind(student, teacher, None)  # type: ignore[arg-type]
    generator = torch.Generator().manual_seed(1)
    users, items = torch.randint(0, 9, (12,), generator=generator), torch.randint(0, 14, (12, 3), generator=generator)
    return distiller, Batch(users, items[:, 0], items[:, 1:]), student, teacher


@pytest.mark.parametrize("temperature", [1.0, 0.03, 1e-10])
def test_values_and_gradients_equal_the_naive_form(temperature: float) -> None:
    distiller, batch, student, teacher = setting()
    distiller.temperature = temperature
    parameters = [*student.parameters(), *distiller.parameters()]
    results = []
    for form in (distiller, lambda *args: naive(distiller, *args)):
        torch.manual_seed(5)
        term = form(batch, student, teacher)["de"]
        results.append((term, torch.autograd.grad(term, parameters)))
    (fast, fast_gradients), (slow, slow_gradients) = results
    assert fast.item() == pytest.approx(slow.item(), rel=1e-5)
    for one, other in zip(fast_gradients, slow_gradients, strict=True):
        torch.testing.assert_close(one, other.float(), rtol=1e-3, atol=1e-4)


def zero_experts(distiller: DE) -> None:
    with torch.no_grad():
        for parameter in distiller.parameters():
            parameter.zero_()


def test_a_batch_by_hand() -> None:
    # experts say 0, so an entity costs |e^t|^2: user 4; items 1, 9, 25. Positives {0, 1}, negatives {1, 2}:
    # 4 + .5 * (1 + 9) + .5 * (9 + 25) = 26; item 1 is in both halves, and what comes twice in one counts once.
    student, model = BPR(2), BPR(1)
    for recommender in (student, model):
        recommender.build(1, 3)
    model.users.weight.data.fill_(2.0)
    model.items.weight.data.copy_(torch.tensor([[1.0], [3.0], [5.0]]))
    distiller, teacher = DE(weight=0.5), Teacher(model)
    distiller.bind(student, teacher, None)  # type: ignore[arg-type]
    zero_experts(distiller)
    batch = Batch(torch.zeros(3, dtype=torch.int64), torch.tensor([0, 1, 1]), torch.tensor([[1], [2], [2]]))
    assert distiller(batch, student, teacher)["de"].item() == pytest.approx(13.0)


@pytest.mark.parametrize(("widths", "hidden"), [((20, 200), 110), ((200, 200), 100), ((1, 1), 1), ((200, 20), 110)])
def test_the_width_of_experts(widths: tuple[int, int], hidden: int) -> None:
    assert expert_width(*widths) == hidden
    student, model = BPR(widths[0]), BPR(widths[1])
    for recommender in (student, model):
        recommender.build(2, 2)
    distiller = DE(num_experts=2)
    distiller.bind(student, Teacher(model), None)  # type: ignore[arg-type]
    for side in (distiller.users, distiller.items):
        assert side.first.shape == (2, hidden, widths[0])
        assert side.second.shape == (2, hidden, widths[1])


def test_the_temperature_falls_geometrically_and_is_logged() -> None:
    distiller, _, _, teacher = setting(last_temperature=1e-4)
    distiller.on_epoch_start(0.5)
    figures = distiller.figures(teacher)
    assert math.log10(figures["de_temperature"]) == pytest.approx(-2)
    assert set(figures) == {
        "de_temperature", "de_users_experts", "de_users_largest", "de_items_experts", "de_items_largest"
    }  # fmt: skip
    assert 1 <= figures["de_users_experts"] <= 4
    assert 1 / 4 <= figures["de_items_largest"] <= 1


def test_selectors_and_experts_learn() -> None:
    distiller, batch, student, teacher = setting()
    distiller(batch, student, teacher)["de"].backward()
    assert all(isinstance(p.grad, Tensor) and p.grad.abs().sum() > 0 for p in distiller.parameters())


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"num_experts": 0}, "DE: num_experts is 0"),
        ({"first_temperature": 0.0}, "DE: temperatures 0.0 and 1e-10 must be at least 1e-30"),
        ({"weight": math.nan}, "weight is nan"),
    ],
)
def test_bad_options(options: dict[str, Any], complaint: str) -> None:
    with pytest.raises(InputError, match=complaint):
        DE(**options)
