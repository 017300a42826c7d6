import math

import pytest
import torch
from torch import Tensor

from kdrec.data.sampling import Batch
from kdrec.distillation.base import Teacher
from kdrec.distillation.softmax_kd import SoftmaxKD
from kdrec.errors import InputError
from kdrec.models.base import Recommender
from kdrec.models.bpr import BPR
from kdrec.models.ncf import NCF
from tests.contracts.test_distillers import TRAIN, model, triples
from tests.generated import generate

MINIMUM: dict[str, float] = {}


def naive(distiller: SoftmaxKD, batch: Batch, student: Recommender, teacher: Teacher) -> dict[str, Tensor]:
    """METHODS 3.12's baseline, pair by pair, in float64."""
    total = torch.zeros((), dtype=torch.float64)
    for user in batch.users.tolist():
        ours, theirs = (m.score_all(torch.tensor([user]))[0].double() for m in (student, teacher.recommender))
        unseen = [item for item in range(TRAIN.num_items) if item not in TRAIN.items[TRAIN.users == user]]
        best = sorted(unseen, key=lambda item: -theirs[item].item())[: distiller.items.shape[1]]
        soft = torch.exp(theirs[best] / distiller.temperature)
        seen = [item for item in range(TRAIN.num_items) if item not in unseen]
        p = torch.exp(ours / distiller.temperature)
        compared = best if distiller.over == "list" else unseen
        total = total - (1 - distiller.hard_share) * (soft / soft.sum() * torch.log(p[best] / p[compared].sum())).sum()
        total = total - distiller.hard_share * torch.log(p[seen] / p.sum()).mean()
    return {"softmax_kd": distiller.weight * total}


@pytest.mark.parametrize("temperature", [1.0, 2.5])
@pytest.mark.parametrize(("over", "hard_share"), [("list", 0.0), ("catalogue", 0.0), ("catalogue", 0.3)])
def test_equals_the_naive_form_in_all_forms(
    over: str, hard_share: float, temperature: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    student, teacher = model(4, 0), Teacher(model(9, 1))
    distiller = SoftmaxKD(over=over, temperature=temperature, hard_share=hard_share)  # type: ignore[arg-type]
    distiller.bind(student, teacher, TRAIN)
    [value] = distiller(triples(), student, teacher).values()
    [expected] = naive(distiller, triples(), student, teacher).values()
    assert value.item() == pytest.approx(expected.item(), rel=1e-5)
    value.backward()
    gradients = [parameter.grad for parameter in student.parameters()]
    monkeypatch.setattr("kdrec.distillation.softmax_kd.DotProductRecommender", NCF)  # so that the general form is taken
    student.zero_grad()
    [slow] = distiller(triples(), student, teacher).values()
    slow.backward()
    torch.testing.assert_close(slow, value)
    for fast, parameter in zip(gradients, student.parameters(), strict=True):
        torch.testing.assert_close(fast, parameter.grad)


def test_one_user_by_hand() -> None:
    # the two listed items: teacher 2 : 1, student 1 : 3
    train = generate(num_users=4, num_items=20).subset(torch.tensor([], dtype=torch.int64).numpy())
    teacher, student = BPR(1), BPR(1)
    for one, scores in ((teacher, [2.0, 1.0]), (student, [1.0, 3.0])):
        one.bind(train)
        one.users.weight.data.fill_(1.0)
        one.items.weight.data.fill_(-50.0)
        one.items.weight.data[:2, 0] = torch.tensor(scores).log()
    distiller = SoftmaxKD(weight=1.0, num_items=2)
    distiller.bind(student, Teacher(teacher), train)
    batch = Batch(torch.tensor([0]), torch.tensor([5]), torch.tensor([[6]]))
    [value] = distiller(batch, student, Teacher(teacher)).values()
    assert value.item() == pytest.approx(-2 / 3 * math.log(1 / 4) - 1 / 3 * math.log(3 / 4), rel=1e-5)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_students_of_half_precision(dtype: torch.dtype) -> None:
    student, teacher = model(4, 0), Teacher(model(9, 1))
    distiller = SoftmaxKD()
    distiller.bind(student, teacher, TRAIN)
    [whole] = distiller(triples(), student, teacher).values()
    [half] = distiller(triples(), student.to(dtype), teacher).values()
    assert half.item() == pytest.approx(whole.item(), rel=0.01)


@pytest.mark.parametrize(
    "options",
    [
        {"num_items": 1},
        {"temperature": 0.0},
        {"over": "all"},
        {"weight": -1.0},
        {"hard_share": 0.5},
        {"hard_share": 1.0, "over": "catalogue"},
    ],
)
def test_bad_options(options: dict[str, object]) -> None:
    with pytest.raises(InputError, match=f"SoftmaxKD: {next(iter(options))} is"):
        SoftmaxKD(**options)  # type: ignore[arg-type]
