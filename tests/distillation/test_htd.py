import math
from typing import Any

import pytest
import torch
from torch import Tensor

from kdrec.data.sampling import Batch
from kdrec.distillation import topology
from kdrec.distillation.assignment import gumbel_shares
from kdrec.distillation.base import Teacher, batch_entities
from kdrec.distillation.htd import HTD
from kdrec.distillation.topology import grouped_distance, normalise, prototypes
from kdrec.errors import InputError
from kdrec.models.base import Recommender
from kdrec.models.bpr import BPR

MINIMUM = {"htd_entity": 0.0, "htd_group": 0.0}  # the experts of the assignment do not know the teacher at first


def cosine(a: Tensor, b: Tensor) -> Tensor:
    lengths = a.norm() * b.norm()
    return (a * b).sum() / lengths if lengths > 0 else a.sum() * 0


def naive(distiller: HTD, batch: Batch, student: Recommender, teacher: Teacher) -> dict[str, Any]:
    """METHODS 3.2 in float64, entity by entity; draws the same noise, users before items."""
    entities = batch_entities(batch)
    if distiller.scope == "positives":
        entities = entities[0], torch.tensor(sorted(set(batch.positives.tolist())))
    if distiller.scope == "all":
        entities = torch.arange(student.num_users), torch.arange(student.num_items)
    ours = [table.double() for table in (student.user_vectors(entities[0]), student.item_vectors(entities[1]))]
    theirs = [teacher.user_vectors(entities[0]).double(), teacher.item_vectors(entities[1]).double()]
    assignment, groups = torch.zeros((), dtype=torch.float64), []
    for side, (part, s_rows, t_rows) in enumerate(zip((distiller.users, distiller.items), ours, theirs, strict=True)):
        noise = -torch.log(-torch.log(torch.rand(len(t_rows), distiller.num_groups))).double()
        for row, (s, t) in enumerate(zip(s_rows, t_rows, strict=True)):
            logits = part.selector.weight.double() @ t + part.selector.bias.double()
            chances = logits.softmax(0)
            z = ((torch.log(chances + 1e-10) + noise[row]) / distiller.temperature).softmax(0)
            guess = torch.zeros_like(t)
            for k in range(distiller.num_groups):
                hidden = (part.first[k].double() @ s + part.first_bias[k].double()).relu()
                guess = guess + z[k] * (hidden @ part.second[k].double() + part.second_bias[k].double())
            assignment = assignment + (t - guess).square().sum()
            groups.append(side * distiller.num_groups + int(logits.argmax()))
    s, t = torch.cat(ours), torch.cat(theirs)
    reference = distiller.mode == "reference"
    entity = group = torch.zeros((), dtype=torch.float64)
    for i in range(len(groups)):
        for j in range(len(groups)):
            truth = cosine(t[i], t[j])
            if groups[i] == groups[j] and (truth > 0 or not reference):
                entity = entity + (truth - cosine(s[i], s[j])).square()
    members = {k: [i for i, g in enumerate(groups) if g == k] for k in sorted(set(groups))}
    means = {
        k: (t[rows].mean(0), s[rows].mean(0).detach() if reference else s[rows].mean(0)) for k, rows in members.items()
    }
    for k, (teacher_mean, student_mean) in means.items():
        if distiller.group_level == "Group(P,P)":
            for other_teacher, other_student in means.values():
                difference = cosine(teacher_mean, other_teacher) - cosine(student_mean, other_student)
                group = group + difference.square()
            continue
        for j in range(len(groups)):
            if reference or groups[j] != k:
                group = group + (cosine(teacher_mean, t[j]) - cosine(student_mean, s[j])).square()
    topology = distiller.weight * distiller.gamma
    return {
        "htd_entity": topology * entity,
        "htd_group": topology * group,
        "htd_assignment": distiller.weight * (1 - distiller.gamma) * assignment,
    }


def setting(**options: Any) -> tuple[HTD, Batch, BPR, Teacher]:
    torch.manual_seed(0)
    student, model = BPR(3, init_std=1.0), BPR(6, init_std=1.0)
    for recommender in (student, model):
        recommender.build(9, 14)
    teacher = Teacher(model)
    distiller = HTD(weight=0.7, gamma=0.4, num_groups=4, **options)
    distiller.bind(student, teacher, None)  # type: ignore[arg-type]
    generator = torch.Generator().manual_seed(1)
    users, items = torch.randint(0, 9, (12,), generator=generator), torch.randint(0, 14, (12, 2), generator=generator)
    return distiller, Batch(users, items[:, 0], items[:, 1:]), student, teacher


@pytest.mark.parametrize("temperature", [1.0, 0.2, 0.03, 1e-10])
@pytest.mark.parametrize(
    "options",
    [
        {"mode": "reference"},
        {"mode": "paper"},
        {"mode": "paper", "group_level": "Group(P,P)"},
        {"mode": "paper", "scope": "all"},
        {"scope": "positives"},
    ],
    ids=["reference", "paper", "prototypes", "all", "positives"],
)
def test_values_and_gradients_equal_the_naive_form(options: dict[str, Any], temperature: float) -> None:
    distiller, batch, student, teacher = setting(**options)
    distiller.temperature = temperature
    parameters = [*student.parameters(), *distiller.parameters()]
    results = []
    for form in (distiller, lambda *args: naive(distiller, *args)):
        torch.manual_seed(5)
        terms = form(batch, student, teacher)
        gradients = torch.autograd.grad(sum(terms.values()), parameters, allow_unused=True)
        results.append((terms, gradients))
    (fast, fast_gradients), (slow, slow_gradients) = results
    for name, value in slow.items():
        assert fast[name].item() == pytest.approx(value.item(), rel=1e-4), name
    for one, other in zip(fast_gradients, slow_gradients, strict=True):
        if other is not None:
            assert one is not None
            torch.testing.assert_close(one, other.float(), rtol=1e-3, atol=1e-4)


def test_a_cold_assignment_takes_one_expert_and_a_warm_one_many() -> None:
    torch.manual_seed(0)
    logits = torch.randn(50, 7)
    assert (gumbel_shares(logits, 1e-10).max(1).values == 1).all()
    assert (gumbel_shares(logits, 1.0) > 1e-3).sum(1).float().mean() > 3
    torch.testing.assert_close(gumbel_shares(logits, 0.3).sum(1), torch.ones(50))


def test_entity_level_by_hand() -> None:
    # group 0 = rows 0 and 1: teacher at right angles (0), student parallel (1): 2 ordered pairs * 1. Row 2 is alone.
    teacher = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 0.0]])
    student, groups = torch.ones(3, 1), torch.tensor([0, 0, 1])
    assert grouped_distance(student, teacher, groups, 2).item() == 2.0
    assert grouped_distance(student, teacher, groups, 2, positive_only=True).item() == 0.0  # cosine 0 is not above 0


@pytest.mark.parametrize("positive_only", [True, False])
@pytest.mark.parametrize("groups", [torch.arange(30) % 6, torch.zeros(30, dtype=torch.int64), torch.arange(30) // 25])
def test_blocks_equal_the_masked_table(groups: Tensor, positive_only: bool) -> None:
    generator = torch.Generator().manual_seed(0)
    student, teacher = (normalise(torch.randn(30, d, generator=generator, dtype=torch.float64)) for d in (4, 9))
    theirs, ours = teacher @ teacher.T, student @ student.T
    mask = groups.unsqueeze(0) == groups.unsqueeze(1)
    if positive_only:
        mask = mask & (theirs > 0)
    expected = ((theirs - ours) ** 2 * mask).sum()
    torch.testing.assert_close(grouped_distance(student, teacher, groups, 8, positive_only), expected)


@pytest.mark.parametrize("positive_only", [True, False])
@pytest.mark.parametrize("rows", [1, 7, 100])
def test_large_groups_are_cut_and_their_tables_halved(
    monkeypatch: pytest.MonkeyPatch, positive_only: bool, rows: int
) -> None:
    monkeypatch.setattr(topology, "_ROWS", rows)
    generator = torch.Generator().manual_seed(0)
    student, teacher = (normalise(torch.randn(60, d, generator=generator, dtype=torch.float64)) for d in (20, 40))
    groups = torch.randint(0, 3, (60,), generator=generator) // 2
    student.requires_grad_()
    theirs, mask = teacher @ teacher.T, groups.unsqueeze(0) == groups.unsqueeze(1)
    expected = ((theirs - student @ student.T) ** 2 * (mask & (theirs > 0) if positive_only else mask)).sum()
    fast = grouped_distance(student, teacher, groups, 3, positive_only)
    torch.testing.assert_close(fast, expected)
    torch.testing.assert_close(*(torch.autograd.grad(value, student)[0] for value in (fast, expected)))


def test_a_prototype_is_the_mean_and_zero_without_members() -> None:
    rows = torch.tensor([[1.0, 2.0], [3.0, 6.0], [5.0, 0.0]])
    assert prototypes(rows, torch.tensor([1, 1, 2]), 3).tolist() == [[0.0, 0.0], [2.0, 4.0], [5.0, 0.0]]


def test_the_temperature_falls_geometrically() -> None:
    distiller = HTD(first_temperature=1.0, last_temperature=1e-10)
    seen = []
    for progress in (0.0, 0.1, 0.5):
        distiller.on_epoch_start(progress)
        seen.append(math.log10(distiller.temperature))
    assert seen == pytest.approx([0, -1, -5])


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"gamma": 1.5}, "gamma is 1.5"),
        ({"num_groups": 0}, "num_groups is 0"),
        ({"last_temperature": 0.0}, "must be at least 1e-30"),
        ({"last_temperature": 1e-40}, "must be at least 1e-30"),
        ({"first_temperature": math.nan}, "must be at least 1e-30"),
        ({"mode": "published"}, "mode is 'published'; it must be one of 'reference', 'paper'"),
        ({"scope": "catalogue"}, "scope is 'catalogue'"),
        ({"group_level": "P"}, "group_level is 'P'"),
        ({"weight": math.nan}, "weight is nan"),
        ({"weight": math.inf}, "weight is inf"),
        ({"group_level": "Group(P,P)"}, "no gradient in mode reference"),
        ({"weight": -1.0}, "weight is -1.0"),
    ],
)
def test_bad_options(options: dict[str, Any], complaint: str) -> None:
    with pytest.raises(InputError, match=complaint):
        HTD(**options)
