"""The loss contract, over every distiller that exists.

``tests/distillation/test_NAME.py`` of each method gives ``naive(distiller, batch, student, teacher)``: the same terms,
written out in float64 from the formula; ``MINIMUM``: the terms whose value is known where the student equals the
teacher, with that value; and ``make()``, a distiller, if defaults alone will not do.
"""

import importlib
from copy import deepcopy
from pathlib import Path
from types import ModuleType
from typing import Literal

import pytest
import torch
from lightning import seed_everything

from kdrec.data.sampling import Batch
from kdrec.distillation.base import Distiller, Teacher
from kdrec.models.base import Recommender
from kdrec.models.bpr import BPR
from kdrec.training.distillation import DistillationModule
from kdrec.training.ranking import RankingModule
from tests.discovery import subclasses
from tests.generated import GeneratedDataModule, generate, quiet_trainer

TRAIN = generate(num_users=12, num_items=18)
DISTILLERS = subclasses("distillation", Distiller)
every_distiller = pytest.mark.parametrize("method", DISTILLERS, ids=lambda method: method.__name__)


def model(width: int, seed: int) -> BPR:
    torch.manual_seed(seed)
    recommender = BPR(width, init_std=1.0)
    recommender.bind(TRAIN)
    return recommender


def triples(seed: int = 0, size: int = 20) -> Batch:
    generator = torch.Generator().manual_seed(seed)
    users = torch.randint(0, TRAIN.num_users, (size,), generator=generator)
    items = torch.randint(0, TRAIN.num_items, (size, 3), generator=generator)
    return Batch(users, items[:, 0], items[:, 1:])


def bound(method: type[Distiller], student: Recommender, teacher: Teacher) -> Distiller:
    torch.manual_seed(7)
    distiller = made(method)
    distiller.bind(student, teacher, TRAIN)
    distiller.on_epoch_start(0.0)
    return distiller


def made(method: type[Distiller]) -> Distiller:
    tests = of_tests(method)
    return tests.make() if hasattr(tests, "make") else method()  # type: ignore[call-arg]


def of_tests(method: type[Distiller]) -> ModuleType:
    return importlib.import_module(f"tests.distillation.test_{method.__module__.rpartition('.')[2]}")


def test_there_are_distillers() -> None:
    assert "FTD" in {method.__name__ for method in DISTILLERS}


@every_distiller
def test_terms_are_finite_scalars_with_speaking_names(method: type[Distiller]) -> None:
    student, teacher = model(4, 0), Teacher(model(9, 1))
    terms = bound(method, student, teacher)(triples(), student, teacher)
    assert terms
    for name, term in terms.items():
        assert name.isidentifier()
        assert name != "base", "train/base is the ranking loss"
        assert term.dim() == 0
        assert torch.isfinite(term)


@every_distiller
def test_equals_the_naive_form(method: type[Distiller]) -> None:
    student, teacher = model(4, 0), Teacher(model(9, 1))
    distiller = bound(method, student, teacher)
    torch.manual_seed(3)
    terms = distiller(triples(), student, teacher)
    torch.manual_seed(3)
    expected = of_tests(method).naive(distiller, triples(), student, teacher)
    assert {name: float(term) for name, term in terms.items()} == pytest.approx(
        {name: float(term) for name, term in expected.items()}, rel=1e-5
    )


@every_distiller
def test_every_term_moves_the_student_and_none_the_teacher(method: type[Distiller]) -> None:
    student, teacher = model(4, 0), Teacher(model(9, 1))
    before = deepcopy(teacher.recommender.state_dict())
    distiller = bound(method, student, teacher)
    for name in distiller(triples(), student, teacher):
        student.zero_grad()
        distiller(triples(), student, teacher)[name].backward()
        assert any(p.grad is not None and p.grad.abs().sum() > 0 for p in student.parameters()), name
    assert all(p.grad is None for p in teacher.recommender.parameters())
    assert all(torch.equal(before[name], value) for name, value in teacher.recommender.state_dict().items())


@every_distiller
def test_inputs_are_not_changed(method: type[Distiller]) -> None:
    student, teacher = model(4, 0), Teacher(model(9, 1))
    batch, weights = triples(), deepcopy(student.state_dict())
    bound(method, student, teacher)(batch, student, teacher)
    assert all(torch.equal(a, b) for a, b in zip(batch, triples(), strict=True))
    assert all(torch.equal(weights[name], value) for name, value in student.state_dict().items())


@every_distiller
def test_the_order_of_rows_does_not_matter(method: type[Distiller]) -> None:
    student, teacher = model(4, 0), Teacher(model(9, 1))
    batch = triples()
    order = torch.randperm(len(batch.users), generator=torch.Generator().manual_seed(3))
    shuffled = Batch(*(part[order] for part in batch))
    one = bound(method, student, teacher)(batch, student, teacher)
    other = bound(method, student, teacher)(shuffled, student, teacher)
    assert {k: v.item() for k, v in one.items()} == pytest.approx({k: v.item() for k, v in other.items()}, rel=1e-5)


@every_distiller
def test_seeded_twice_the_same(method: type[Distiller]) -> None:
    values = []
    for _ in range(2):
        student, teacher = model(4, 0), Teacher(model(9, 1))
        terms = bound(method, student, teacher)(triples(), student, teacher)
        values.append({name: term.item() for name, term in terms.items()})
    assert values[0] == values[1]


@every_distiller
def test_one_entity_and_zero_vectors_stay_finite(method: type[Distiller]) -> None:
    student, teacher = model(4, 0), Teacher(model(9, 1))
    for table in (student.users, student.items):
        table.weight.data.zero_()
    distiller = bound(method, student, teacher)
    for batch in (triples(), Batch(torch.tensor([0]), torch.tensor([0]), torch.tensor([[0]]))):
        student.zero_grad()
        torch.stack([*distiller(batch, student, teacher).values()]).sum().backward()
        for parameter in student.parameters():
            assert parameter.grad is None or torch.isfinite(parameter.grad).all()


@every_distiller
def test_an_empty_batch_stays_finite(method: type[Distiller]) -> None:
    student, teacher = model(4, 0), Teacher(model(9, 1))
    nothing = torch.empty(0, dtype=torch.int64)
    terms = bound(method, student, teacher)(Batch(nothing, nothing, nothing.view(0, 1)), student, teacher)
    assert all(torch.isfinite(term) for term in terms.values())


@every_distiller
def test_student_equal_to_teacher_is_not_worse_than_another(method: type[Distiller]) -> None:
    teacher = Teacher(model(9, 1))
    same, other = model(9, 1), model(9, 2)
    at_best, elsewhere = (bound(method, student, teacher)(triples(), student, teacher) for student in (same, other))
    for name, least in of_tests(method).MINIMUM.items():
        assert at_best[name].item() == pytest.approx(least, abs=1e-6)
        assert at_best[name] < elsewhere[name]


@pytest.fixture(scope="module")
def teacher_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    trainer = quiet_trainer(max_epochs=1)
    trainer.fit(RankingModule(BPR(8, init_std=0.5), cutoffs=(5,)), datamodule=GeneratedDataModule())
    path = tmp_path_factory.mktemp("teacher") / "last.ckpt"
    trainer.save_checkpoint(path)
    return path


@every_distiller
@pytest.mark.parametrize("precision", ["64-true", "bf16-true"])
def test_whole_trainings_in_other_types(
    method: type[Distiller], precision: Literal["64-true", "bf16-true"], teacher_file: Path
) -> None:
    """The teacher's weights are float32; it is compared in the type of the student."""
    seed_everything(0, verbose=False)
    module = DistillationModule(BPR(4, init_std=0.5), str(teacher_file), made(method), cutoffs=(5,))
    trainer = quiet_trainer(max_epochs=2, precision=precision)
    trainer.fit(module, datamodule=GeneratedDataModule())
    wanted = torch.float64 if precision == "64-true" else torch.bfloat16
    assert {parameter.dtype for parameter in module.parameters()} == {wanted}
    assert all(parameter.isfinite().all() for parameter in module.parameters())
