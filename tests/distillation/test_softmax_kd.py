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
from tests.generated import generate

MINIMUM: dict[str, float] = {}


def naive(distiller: SoftmaxKD, batch: Batch, student: Recommender, teacher: Teacher) -> dict[str, Tensor]:
    """METHODS 3.12's baseline, pair by pair, in float64."""
    from tests.contracts.test_distillers import TRAIN

    total = torch.zeros((), dtype=torch.float64)
    for user in batch.users.tolist():
        ours, theirs = (m.score_all(torch.tensor([user]))[0].double() for m in (student, teacher.recommender))
        unseen = [item for item in range(TRAIN.num_items) if item not in TRAIN.items[TRAIN.users == user]]
        best = sorted(unseen, key=lambda item: -theirs[item].item())[: distiller.items.shape[1]]
        q = torch.exp(theirs[best] / distiller.temperature)
        p = torch.exp(ours / distiller.temperature)
        whole = p[best if distiller.over == "list" else unseen].sum()
        total = total - (q / q.sum() * torch.log(p[best] / whole)).sum()
    return {"softmax_kd": distiller.weight * total}


@pytest.mark.parametrize("temperature", [1.0, 2.5])
@pytest.mark.parametrize("over", ["list", "catalogue"])
def test_equals_the_naive_form_in_both_forms(over: str, temperature: float) -> None:
    from tests.contracts.test_distillers import TRAIN, model, triples

    student, teacher = model(4, 0), Teacher(model(9, 1))
    distiller = SoftmaxKD(over=over, temperature=temperature)  # type: ignore[arg-type]
    distiller.bind(student, teacher, TRAIN)
    [value] = distiller(triples(), student, teacher).values()
    [expected] = naive(distiller, triples(), student, teacher).values()
    assert value.item() == pytest.approx(expected.item(), rel=1e-5)
    value.backward()
    assert all(torch.isfinite(parameter.grad).all() for parameter in student.parameters())  # type: ignore[arg-type]


def test_one_user_by_hand() -> None:
    # the two listed items: teacher 2 : 1, student 1 : 3
    train = generate(num_users=4, num_items=20).subset(torch.tensor([], dtype=torch.int64).numpy())
    teacher, student = BPR(1), BPR(1)
    for model, scores in ((teacher, [2.0, 1.0]), (student, [1.0, 3.0])):
        model.bind(train)
        model.users.weight.data.fill_(1.0)
        model.items.weight.data.fill_(-50.0)
        model.items.weight.data[:2, 0] = torch.tensor(scores).log()
    distiller = SoftmaxKD(weight=1.0, num_items=2)
    distiller.bind(student, Teacher(teacher), train)
    batch = Batch(torch.tensor([0]), torch.tensor([5]), torch.tensor([[6]]))
    [value] = distiller(batch, student, Teacher(teacher)).values()
    assert value.item() == pytest.approx(-2 / 3 * math.log(1 / 4) - 1 / 3 * math.log(3 / 4), rel=1e-5)


@pytest.mark.parametrize("options", [{"num_items": 1}, {"temperature": 0.0}, {"over": "all"}, {"weight": -1.0}])
def test_bad_options(options: dict[str, object]) -> None:
    with pytest.raises(InputError, match=f"SoftmaxKD: {next(iter(options))} is"):
        SoftmaxKD(**options)  # type: ignore[arg-type]
