import pytest
import torch
from torch import Tensor

from kdrec.data.sampling import Batch
from kdrec.distillation.base import Teacher
from kdrec.distillation.ir_rrd import IRRRD
from kdrec.errors import InputError
from kdrec.models.base import Recommender
from kdrec.models.bpr import BPR
from tests.distillation.test_rrd import naive as of_users
from tests.distillation.test_rrd import of_lists
from tests.generated import generate

MINIMUM: dict[str, float] = {}


def naive(distiller: IRRRD, batch: Batch, student: Recommender, teacher: Teacher) -> dict[str, Tensor]:
    """METHODS 3.7, last sentence."""
    items = torch.tensor(sorted(set(batch.positives.tolist())))
    scores = student.score_all(torch.arange(student.num_users)).detach().T[items]
    total = of_lists(scores, distiller.users, items)
    [users] = of_users(distiller, batch, student, teacher).values()
    return {"ir_rrd_users": users, "ir_rrd_items": distiller.weight * total}


def test_items_list_the_users_to_whom_the_teacher_would_give_them() -> None:
    train = generate(num_users=30, num_items=20)
    teacher = BPR(9, init_std=1.0)
    teacher.bind(train)
    distiller = IRRRD(num_interesting_users=3, list_length=5, num_interesting=5)
    distiller.bind(teacher, Teacher(teacher), train)
    scores = teacher.score_all(torch.arange(30)).detach()
    scores[torch.from_numpy(train.users.copy()), torch.from_numpy(train.items.copy())] = -torch.inf
    best = scores.T.argsort(dim=1, descending=True)
    assert torch.equal(distiller.users.interesting, best[:, :3])
    forbidden = torch.zeros(20, 30, dtype=torch.bool).scatter_(1, best[:, :5], True) | scores.T.isneginf()
    assert not forbidden.gather(1, distiller.users.uninteresting).any()


def test_bad_options() -> None:
    with pytest.raises(InputError, match="num_interesting_users is 600"):
        IRRRD(num_interesting_users=600)
