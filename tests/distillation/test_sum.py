import pytest
from torch import Tensor

from kdrec.data.sampling import Batch
from kdrec.distillation.base import Teacher
from kdrec.distillation.ftd import FTD
from kdrec.distillation.htd import HTD
from kdrec.distillation.rrd import RRD
from kdrec.distillation.sum import Sum
from kdrec.errors import InputError
from kdrec.models.base import Recommender
from kdrec.models.bpr import BPR
from tests.distillation import test_ftd, test_rrd
from tests.distillation.test_base import Vectorless

MINIMUM = {"ftd": 0.0}


def make() -> Sum:
    return Sum([FTD(), RRD()])


def naive(distiller: Sum, batch: Batch, student: Recommender, teacher: Teacher) -> dict[str, Tensor | float]:
    ftd, rrd = distiller.distillers
    assert isinstance(ftd, FTD)
    assert isinstance(rrd, RRD)
    return {**test_ftd.naive(ftd, batch, student, teacher), **test_rrd.naive(rrd, batch, student, teacher)}


def test_every_part_is_told_of_the_training_and_says_its_figures() -> None:
    parts = HTD(), FTD()
    both = Sum([*parts])
    student, teacher = BPR(2), BPR(3)
    for model in (student, teacher):
        model.build(5, 6)
    both.bind(student, Teacher(teacher), None)  # type: ignore[arg-type]
    both.on_epoch_start(0.5)
    assert parts[0].temperature == pytest.approx(1e-5)
    assert both.figures(Teacher(teacher))["htd_temperature"] == parts[0].temperature
    assert {name.partition(".")[0] for name in both.state_dict()} == {"distillers"}


def test_a_part_that_reads_vectors_needs_them() -> None:
    models = Vectorless(2), BPR(3)
    for model in models:
        model.build(3, 4)
    with pytest.raises(InputError, match="FTD compares vectors and the student, Vectorless, has none"):
        make().require_models(models[0], Teacher(models[1]))
    Sum([RRD()]).require_models(models[0], Teacher(models[1]))


@pytest.mark.parametrize(("parts", "complaint"), [([], "distillers is empty"), ([FTD(), FTD(0.1)], "holds FTD twice")])
def test_bad_parts(parts: list[FTD], complaint: str) -> None:
    with pytest.raises(InputError, match=complaint):
        Sum(parts)  # type: ignore[arg-type]
