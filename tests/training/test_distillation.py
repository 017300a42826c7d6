import warnings
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Literal

import pytest
import torch
from lightning import seed_everything
from lightning.pytorch.plugins import MixedPrecision
from torch import Tensor, nn
from torch.amp import GradScaler

from kdrec.data.interactions import Interactions
from kdrec.data.sampling import Batch
from kdrec.data.splits import Split
from kdrec.distillation.base import Distiller, Teacher
from kdrec.distillation.ftd import FTD
from kdrec.distillation.htd import HTD
from kdrec.distillation.rrd import RRD
from kdrec.distillation.sum import Sum
from kdrec.errors import InputError
from kdrec.models import checkpoint
from kdrec.models.base import Recommender
from kdrec.models.bpr import BPR
from kdrec.models.quantized_bpr import QuantizedBPR
from kdrec.training.distillation import DistillationModule
from kdrec.training.ranking import RankingModule
from tests.generated import GeneratedDataModule, quiet_trainer

CUTOFFS = (5, 10)


class Hint(Distiller):
    """A method that trains a part of its own: |teacher's user vectors - W student's|^2."""

    def __init__(self) -> None:
        super().__init__(0.5)
        self.progress: list[float] = []

    def bind(self, student: Recommender, teacher: Teacher, train: Interactions) -> None:
        self.projector = nn.Linear(4, teacher.user_vectors().shape[1], bias=False)

    def on_epoch_start(self, progress: float) -> None:
        self.progress.append(progress)

    def forward(self, batch: Batch, student: Recommender, teacher: Teacher) -> dict[str, Tensor]:
        gap = teacher.user_vectors(batch.users) - self.projector(student.user_vectors(batch.users))
        return {"hint": self.weight * gap.square().sum()}


@pytest.fixture(scope="module")
def teacher_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    seed_everything(0, verbose=False)
    trainer = quiet_trainer(max_epochs=3)
    trainer.fit(RankingModule(BPR(16, init_std=0.5), cutoffs=CUTOFFS), datamodule=GeneratedDataModule())
    path = tmp_path_factory.mktemp("teacher") / "best.ckpt"
    trainer.save_checkpoint(path)
    return path


def distilled(teacher_file: Path, distiller: Distiller, epochs: int = 2, **options: object) -> DistillationModule:
    seed_everything(1, verbose=False)
    module = DistillationModule(BPR(4, init_std=0.1), str(teacher_file), distiller, cutoffs=CUTOFFS, **options)  # type: ignore[arg-type]
    quiet_trainer(max_epochs=epochs).fit(module, datamodule=GeneratedDataModule())
    return module


@pytest.mark.parametrize("make", [FTD, HTD, Hint, lambda: FTD(scope="all")], ids=["FTD", "HTD", "Hint", "FTD-all"])
def test_the_teacher_is_bit_identical_after_fit(teacher_file: Path, make: Callable[[], Distiller]) -> None:
    before = deepcopy(checkpoint.restore(teacher_file).state_dict())
    teacher = distilled(teacher_file, make()).teacher
    assert teacher is not None
    assert not teacher.recommender.training
    assert all(torch.equal(before[name], value) for name, value in teacher.recommender.state_dict().items())


def test_the_teacher_is_in_neither_state_nor_optimizer(teacher_file: Path) -> None:
    module = distilled(teacher_file, FTD())
    assert {name.split(".")[0] for name in module.state_dict()} == {"recommender"}
    optimized = {id(p) for group in module.optimizers().param_groups for p in group["params"]}  # type: ignore[union-attr]
    assert optimized == {id(p) for p in module.recommender.parameters()}


def test_the_loss_is_base_plus_terms(teacher_file: Path) -> None:
    module = distilled(teacher_file, FTD(weight=0.01))
    batch = next(iter(GeneratedDataModule().train_dataloader()))
    terms = module.terms(batch)
    assert list(terms) == ["base", "ftd"]
    alone = RankingModule(module.recommender, cutoffs=CUTOFFS).terms(batch)["base"]
    torch.testing.assert_close(terms["base"], alone)
    assert module.teacher is not None
    torch.testing.assert_close(terms["ftd"], module.distiller(batch, module.recommender, module.teacher)["ftd"])


def test_weight_zero_is_training_alone(teacher_file: Path) -> None:
    student = distilled(teacher_file, FTD(weight=0.0)).recommender
    seed_everything(1, verbose=False)
    alone = RankingModule(BPR(4, init_std=0.1), cutoffs=CUTOFFS)
    quiet_trainer(max_epochs=2).fit(alone, datamodule=GeneratedDataModule())
    for name, value in alone.recommender.state_dict().items():
        torch.testing.assert_close(student.state_dict()[name], value)


def test_distillation_brings_the_topologies_together(teacher_file: Path) -> None:
    def distance(module: DistillationModule) -> float:
        assert module.teacher is not None
        batch = next(iter(GeneratedDataModule().train_dataloader()))
        return FTD(1.0, "all")(batch, module.recommender, module.teacher)["ftd"].item()

    def fast(parameters: object) -> torch.optim.Optimizer:
        return torch.optim.Adam(parameters, lr=0.02)  # type: ignore[arg-type]

    with_term, without = (distilled(teacher_file, FTD(weight), epochs=30, optimizer=fast) for weight in (1.0, 0.0))
    assert distance(with_term) < 0.7 * distance(without)


def test_a_distillers_own_weights_are_trained_and_kept_apart(teacher_file: Path, tmp_path: Path) -> None:
    module = distilled(teacher_file, Hint())
    module.trainer.save_checkpoint(tmp_path / "student.ckpt")
    content = checkpoint.read(tmp_path / "student.ckpt")
    assert {name.split(".")[0] for name in content["state_dict"]} == {"recommender"}
    assert list(content["distiller"]) == ["distiller.projector.weight"]
    assert content["kdrec"]["teacher"] == {"path": str(teacher_file), "sha256": checkpoint.digest(teacher_file)}
    assert checkpoint.restore(tmp_path / "student.ckpt").num_parameters() == 4 * (30 + 40)


def test_resume_restores_the_distillers_weights(teacher_file: Path, tmp_path: Path) -> None:
    first = distilled(teacher_file, Hint(), epochs=2)
    first.trainer.save_checkpoint(tmp_path / "half.ckpt")
    resumed = DistillationModule(BPR(4, init_std=0.1), str(teacher_file), Hint(), cutoffs=CUTOFFS)
    quiet_trainer(max_epochs=5).fit(
        resumed, datamodule=GeneratedDataModule(), ckpt_path=tmp_path / "half.ckpt", weights_only=True
    )
    whole = distilled(teacher_file, Hint(), epochs=5)
    for name, value in whole.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name]), name


def test_the_distiller_hears_how_far_the_training_is(teacher_file: Path) -> None:
    distiller = Hint()
    distilled(teacher_file, distiller, epochs=4)
    assert distiller.progress == [0.0, 0.25, 0.5, 0.75]


def test_the_distillers_figures_are_logged(teacher_file: Path) -> None:
    logged = distilled(
        teacher_file, HTD(num_groups=3, first_temperature=1.0, last_temperature=0.01)
    ).trainer.callback_metrics
    assert logged["train/htd_temperature"].item() == pytest.approx(0.1)  # half of the way at the second of two epochs
    assert 1 <= logged["train/htd_users_groups"].item() <= 3
    assert 1 / 3 <= logged["train/htd_items_largest"].item() <= 1
    assert {"train/htd_entity", "train/htd_group", "train/htd_assignment"} <= set(logged)


def test_a_student_is_tested_without_its_teacher(teacher_file: Path, tmp_path: Path) -> None:
    module = distilled(teacher_file, Hint())
    module.trainer.save_checkpoint(tmp_path / "student.ckpt")
    [after_fit] = module.trainer.test(module, datamodule=GeneratedDataModule(), verbose=False)
    fresh = RankingModule(BPR(4, init_std=0.1), cutoffs=CUTOFFS)
    [from_file] = quiet_trainer().test(
        fresh, datamodule=GeneratedDataModule(), ckpt_path=tmp_path / "student.ckpt", weights_only=True, verbose=False
    )
    assert from_file == after_fit
    again = DistillationModule(BPR(4, init_std=0.1), "a teacher that is gone", Hint(), cutoffs=CUTOFFS)
    [by_its_own_module] = quiet_trainer().test(
        again, datamodule=GeneratedDataModule(), ckpt_path=tmp_path / "student.ckpt", weights_only=True, verbose=False
    )
    assert by_its_own_module == after_fit


def test_a_missing_teacher_is_said(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"There is no checkpoint .*nowhere\.ckpt"):
        distilled(tmp_path / "nowhere.ckpt", FTD())


@pytest.mark.parametrize("precision", ["bf16-mixed", "16-mixed"])
@pytest.mark.parametrize(
    "distiller", [FTD(0.1), HTD(0.1, num_groups=3), HTD(0.1, num_groups=3, first_temperature=1e-6)]
)
def test_mixed_precision_leaves_the_terms_in_float32(
    teacher_file: Path, distiller: Distiller, precision: Literal["bf16-mixed", "16-mixed"]
) -> None:
    # its first steps overflow, are left out, and end no training
    scaler = GradScaler("cpu", init_scale=2.0**127) if precision == "16-mixed" else None
    seed_everything(1, verbose=False)
    module = DistillationModule(BPR(4, init_std=0.1), str(teacher_file), distiller, cutoffs=CUTOFFS)
    seen: set[torch.dtype] = set()

    def spy(batch: Batch, student: Recommender, teacher: Teacher) -> dict[str, Tensor]:
        terms = type(distiller).forward(distiller, batch, student, teacher)
        seen.update(term.dtype for term in terms.values())
        assert not torch.is_autocast_enabled("cpu")
        return terms

    distiller.forward = spy  # type: ignore[method-assign]
    trainer = quiet_trainer(max_epochs=3, plugins=[MixedPrecision(precision, "cpu", scaler)])
    trainer.fit(module, datamodule=GeneratedDataModule(batch_size=64))
    assert seen == {torch.float32}
    assert scaler is None or scaler.get_scale() < 2.0**127


def test_who_anneals_must_know_for_how_long(teacher_file: Path) -> None:
    module = DistillationModule(BPR(4), str(teacher_file), HTD(num_groups=3), cutoffs=CUTOFFS)
    with pytest.raises(InputError, match=r"HTD anneals over the training, and trainer\.max_epochs is -1"):
        quiet_trainer(max_epochs=-1, max_steps=3).fit(module, datamodule=GeneratedDataModule())
    for distiller in (FTD(), RRD(), Sum([RRD(), FTD()])):
        module = DistillationModule(BPR(4), str(teacher_file), distiller, cutoffs=CUTOFFS)
        quiet_trainer(max_epochs=-1, max_steps=3).fit(module, datamodule=GeneratedDataModule())


def settings_said(student: Recommender, teacher_file: Path, distiller: Distiller) -> list[str]:
    """Return what is warned of as a distillation begins."""
    module = DistillationModule(student, str(teacher_file), distiller, cutoffs=CUTOFFS)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        quiet_trainer(max_epochs=1).fit(module, datamodule=GeneratedDataModule())
    return [str(warning.message) for warning in caught if "kdrec" in warning.filename]


def test_a_meaningless_distillation_is_warned_of(teacher_file: Path) -> None:
    assert settings_said(BPR(4), teacher_file, Sum([FTD(), HTD(num_groups=3)])) == []
    [said] = settings_said(BPR(4), teacher_file, Sum([FTD(), HTD(weight=0.0, num_groups=3)]))
    assert said.startswith("HTD has the weight 0, so the student learns nothing by it")
    [said] = settings_said(BPR(17), teacher_file, FTD())
    assert said.startswith("The teacher has 1,120 parameters and the student 1,190, so")
    assert settings_said(BPR(16), teacher_file, FTD()) == []
    assert settings_said(QuantizedBPR(24), teacher_file, FTD()) == []  # more numbers, and fewer bytes
    said, also = settings_said(BPR(4, init_std=0.0), teacher_file, FTD())
    assert said.startswith("The student's vectors of 30 of 30 users are all zero, so their cosines with others mean no")
    assert "of 40 of 40 items" in also


def test_zero_vectors_of_a_teacher_are_warned_of(split: Split) -> None:
    student, teacher = BPR(2), BPR(4)
    for model in (student, teacher):
        model.bind(split.train)
    teacher.items.weight.data[[3, 5]] = 0
    for distiller in (FTD(), HTD(num_groups=2)):
        with pytest.warns(UserWarning, match="The teacher's vectors of 2 of 40 items are all zero") as caught:
            distiller.bind(student, Teacher(teacher), split.train)
        assert len(caught) == 1
