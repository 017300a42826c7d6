import shutil
from pathlib import Path

import pytest
import torch
import yaml
from torch import Tensor

from kdrec.data.sampling import Batch
from kdrec.distillation.base import Distiller, Teacher
from kdrec.distillation.fitnet import FitNet
from kdrec.distillation.ftd import FTD
from kdrec.distillation.htd import HTD
from kdrec.distillation.rrd import RRD
from kdrec.distillation.sum import Sum
from kdrec.errors import InputError
from kdrec.models.base import Recommender
from kdrec.models.bpr import BPR
from tests.commandline import Kdrec
from tests.contracts.test_distillers import TRAIN, triples
from tests.contracts.test_distillers import model as bpr
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


@pytest.mark.parametrize(
    ("parts", "complaint"),
    [
        ([], "distillers is empty"),
        ([FTD(), FTD(0.1)], "holds FTD twice"),
        ([Sum([FTD(), RRD()]), HTD(), Sum([RRD()])], "holds RRD twice"),
    ],
)
def test_bad_parts(parts: list[Distiller], complaint: str) -> None:
    with pytest.raises(InputError, match=complaint):
        Sum(parts)


class Renamed(FTD):
    """Another kind, with a term of the same name."""


def test_terms_of_one_name_are_refused_and_never_lost() -> None:
    student, teacher = bpr(4, 0), Teacher(bpr(9, 1))
    with pytest.raises(InputError, match="Renamed gives a term ftd, as another does"):
        Sum([FTD(), Renamed()])(triples(), student, teacher)


def test_sums_within_a_sum_give_all_terms() -> None:
    student, teacher = bpr(4, 0), Teacher(bpr(9, 1))
    both = Sum([Sum([FTD()]), Sum([RRD(), FitNet()])])
    both.bind(student, teacher, TRAIN)
    assert list(both(triples(), student, teacher)) == ["ftd", "rrd", "fitnet"]


def test_only_what_anneals_must_know_the_length_of_the_training() -> None:
    assert not Sum([FTD(), RRD()]).anneals
    assert Sum([FTD(), HTD()]).anneals
    assert Sum([Sum([HTD()]), FTD()]).anneals


# On the command line

PARTS = [
    {"class_path": "FitNet", "init_args": {"weight": 0.05}},
    {"class_path": "SoftmaxKD", "init_args": {"num_items": 5}},
]


@pytest.fixture
def typed(kdrec: Kdrec) -> Kdrec:
    """A teacher's checkpoint and the config of its student, taught by a sum whose parts have short names."""
    assert kdrec("fit", "--config", "teacher.yaml").code == 0
    config = yaml.safe_load(Path("student.yaml").read_text())
    config["model"]["init_args"]["distiller"] = {"class_path": "Sum", "init_args": {"distillers": PARTS}}
    Path("student.yaml").write_text(yaml.safe_dump(config))
    return kdrec


def test_a_sum_is_printed_with_all_options(typed: Kdrec) -> None:
    done = typed("fit", "--config", "student.yaml", "--print_config")
    assert done.code == 0, done.error
    first, second = yaml.safe_load(done.out)["model"]["init_args"]["distiller"]["init_args"]["distillers"]
    assert first == {
        "class_path": "kdrec.distillation.fitnet.FitNet",
        "init_args": {"weight": 0.05, "projector": "perceptron"},
    }
    assert second["init_args"]["num_items"] == 5
    assert second["init_args"]["over"] == "list"


def test_a_sum_resumes_from_its_checkpoint_and_config(typed: Kdrec) -> None:
    whole = typed("fit", "--config", "student.yaml", "--name", "whole", "--trainer.max_epochs", 4)
    assert whole.code == 0, whole.error
    assert typed("fit", "--config", "student.yaml", "--name", "half", "--trainer.max_epochs", 2).code == 0
    [last] = Path().glob("checkpoints/half/*/last.ckpt")
    done = typed("fit", "--config", last.parent / "config.yaml", "--ckpt_path", last, "--trainer.max_epochs", 4)
    assert done.code == 0, done.error
    [other] = Path().glob("checkpoints/whole/*/last.ckpt")
    resumed, straight = (torch.load(path, weights_only=True) for path in (last, other))
    assert {name.split(".")[2] for name in resumed["distiller"]} == {"0"}, "FitNet's projectors; SoftmaxKD has nothing"
    for part in ("state_dict", "distiller"):
        assert resumed[part].keys() == straight[part].keys()
        for name, value in straight[part].items():
            assert torch.equal(resumed[part][name], value), name


def test_a_tested_sum_needs_no_teacher(typed: Kdrec) -> None:
    assert typed("fit", "--config", "student.yaml").code == 0
    for path in Path().glob("checkpoints/teacher/*/*"):
        path.unlink() if path.is_file() else shutil.rmtree(path)
    done = typed("test", "--config", "student.yaml")
    assert done.code == 0, done.error


@pytest.mark.parametrize(
    ("parts", "complaint"),
    [
        ([], "Sum: distillers is empty; give one at least."),
        ([{"class_path": "FTD"}, {"class_path": "FTD"}], "Sum: distillers holds FTD twice, whose terms would share"),
        ([{"class_path": "RRDD"}], "there is no class 'RRDD'; did you mean 'RRD'?"),
        ([{"class_path": "RRD", "init_args": {"wieght": 1.0}}], "has no option 'wieght'; did you mean 'weight'?"),
        ([{"class_path": "RRD", "init_args": {"num_interesting": 0}}], "RRD: num_interesting is 0"),
        ([{"class_path": "BPR"}], "BPR is no class that can stand there"),
        (3, "distillers"),
    ],
    ids=["none", "twice", "class", "option", "range", "model", "number"],
)
def test_a_bad_sum_ends_in_one_sentence(parts: object, complaint: str, typed: Kdrec) -> None:
    done = typed("fit", "--config", "student.yaml", "--model.init_args.distiller.init_args.distillers", parts)
    assert complaint in done.sentence
