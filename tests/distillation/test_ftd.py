import math

import pytest
import torch
from torch import Tensor

from kdrec.data.sampling import Batch
from kdrec.distillation.base import Teacher
from kdrec.distillation.ftd import FTD
from kdrec.models.base import Recommender
from kdrec.models.bpr import BPR

MINIMUM = {"ftd": 0.0}


def naive(distiller: FTD, batch: Batch, student: Recommender, teacher: Teacher) -> dict[str, float]:
    """METHODS 3.1 in float64, pair by pair."""
    users, items = sorted(set(batch.users.tolist())), sorted(set(batch.positives.tolist()))
    if distiller.scope == "batch":
        items = sorted({*items, *batch.negatives.flatten().tolist()})
    if distiller.scope == "all":
        users, items = list(range(student.num_users)), list(range(student.num_items))

    def rows(model: Recommender) -> list[Tensor]:
        tables = model.user_vectors(torch.tensor(users)), model.item_vectors(torch.tensor(items))
        return [row.double() for table in tables for row in table.detach()]

    def cosine(a: Tensor, b: Tensor) -> float:
        lengths = math.sqrt((a * a).sum()) * math.sqrt((b * b).sum())
        return float((a * b).sum()) / lengths if lengths else 0.0

    ours, theirs = rows(student), rows(teacher.recommender)
    n = range(len(ours))
    total = sum((cosine(theirs[i], theirs[j]) - cosine(ours[i], ours[j])) ** 2 for i in n for j in n)
    return {"ftd": distiller.weight * total}


@pytest.mark.parametrize(("scope", "pairs"), [("batch", 4), ("all", 4), ("positives", 0)])
def test_a_batch_of_two_by_hand(scope: str, pairs: int) -> None:
    # one user, two items; teacher: user parallel to item 0, at right angles to item 1; student: all parallel.
    # pairs that differ: (user, item 1) and (item 0, item 1), cosine 1 against 0, in both orders: 4 * 1^2.
    # item 1 is a negative, so none of them counts among positives.
    student, model = BPR(1), BPR(2)
    for recommender in (student, model):
        recommender.build(1, 2)
    student.users.weight.data.fill_(2.0)
    student.items.weight.data.fill_(3.0)
    model.users.weight.data.copy_(torch.tensor([[5.0, 0.0]]))
    model.items.weight.data.copy_(torch.tensor([[1.0, 0.0], [0.0, 7.0]]))
    batch = Batch(torch.tensor([0]), torch.tensor([0]), torch.tensor([[1]]))
    terms = FTD(weight=0.5, scope=scope)(batch, student, Teacher(model))  # type: ignore[arg-type]
    assert terms["ftd"].item() == pytest.approx(0.5 * pairs, rel=1e-6)


def test_scope_all_sees_entities_outside_the_batch() -> None:
    student, model = BPR(3), BPR(5)
    for recommender in (student, model):
        recommender.build(6, 7)
    batch = Batch(torch.tensor([0]), torch.tensor([0]), torch.tensor([[1]]))
    FTD(scope="all")(batch, student, Teacher(model))["ftd"].backward()
    assert (student.users.weight.grad.abs().sum(1) > 0).all()  # type: ignore[union-attr]
    assert (student.items.weight.grad.abs().sum(1) > 0).all()  # type: ignore[union-attr]


def test_scope_all_prepares_the_teacher_once_and_anew_after_bind() -> None:
    student, first, second = BPR(2), BPR(2), BPR(2)
    for recommender in (student, first, second):
        recommender.build(3, 4)
    batch = Batch(torch.tensor([0]), torch.tensor([0]), torch.tensor([[1]]))
    distiller = FTD(scope="all")
    before = distiller(batch, student, Teacher(first))["ftd"]
    distiller.bind(student, Teacher(second), None)  # type: ignore[arg-type]
    assert distiller(batch, student, Teacher(second))["ftd"] != before
