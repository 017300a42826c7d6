"""What every architecture and every distiller promises of a training: it is repeatable, and it survives a kill."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import pytest
import torch
from lightning import seed_everything
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.strategies import SingleDeviceStrategy

from kdrec.data.interactions import Interactions
from kdrec.data.splits import Split
from kdrec.distillation.base import Distiller
from kdrec.models.base import Recommender
from kdrec.models.bpr import BPR
from kdrec.training.callbacks import LastCheckpoint
from kdrec.training.distillation import DistillationModule
from kdrec.training.ranking import RankingModule
from tests.contracts.test_distillers import every_distiller, of_tests
from tests.contracts.test_recommenders import TRAIN, every_model, made
from tests.generated import GeneratedDataModule, quiet_trainer


@pytest.fixture(autouse=True)
def _no_lasting_switch() -> Iterator[None]:
    yield
    torch.use_deterministic_algorithms(False)


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> str:
    seed_everything(0, verbose=False)
    trainer = quiet_trainer(max_epochs=1)
    trainer.fit(RankingModule(BPR(9, init_std=0.5), cutoffs=(3,)), datamodule=GeneratedDataModule())
    path = tmp_path_factory.mktemp("teacher") / "best.ckpt"
    trainer.save_checkpoint(path)
    return str(path)


class ContractData(GeneratedDataModule):
    """The data that the architectures' contract binds models to, as members of an ensemble must be."""

    def cut(self, interactions: Interactions) -> Split:
        held_out = TRAIN.subset(np.arange(len(TRAIN)) < 3)
        return Split(TRAIN, held_out, held_out)


def fit(module: RankingModule, data: GeneratedDataModule, folder: Path, path: Path | None = None) -> dict[str, Any]:
    """Train by deterministic algorithms; killed.ckpt is what last.ckpt was in the third epoch. Returns the state."""

    class Copy(Callback):
        def on_train_batch_end(self, trainer: L.Trainer, module: L.LightningModule, *_: Any) -> None:
            if trainer.current_epoch == 2 and path is None:
                (folder / "killed.ckpt").write_bytes((folder / "last.ckpt").read_bytes())

    seed_everything(4, verbose=False)
    keep = {"enable_checkpointing": True, "callbacks": [LastCheckpoint(folder, 0.0), Copy()]}
    trainer = quiet_trainer(max_epochs=4, deterministic=True, **keep)
    trainer.fit(module, datamodule=data, ckpt_path=path, weights_only=True)
    assert torch.are_deterministic_algorithms_enabled()
    return {**module.state_dict(), "moments": trainer.optimizers[0].state_dict()}


def assert_same(one: Any, other: Any) -> None:
    """Fail if two nests of tensors and plain values differ in a bit."""
    if isinstance(one, dict):
        assert one.keys() == other.keys()
        for key in one:
            assert_same(one[key], other[key])
    else:
        assert torch.equal(one, other) if isinstance(one, torch.Tensor) else one == other


@every_model
def test_an_architecture_is_repeatable_and_survives_a_kill(architecture: type[Recommender], tmp_path: Path) -> None:
    def module() -> RankingModule:
        seed_everything(4, verbose=False)
        return RankingModule(made(architecture), cutoffs=(3,))

    data = ContractData(batch_size=len(TRAIN) // 2)
    whole = fit(module(), data, tmp_path)
    assert_same(whole, fit(module(), data, tmp_path))
    assert_same(whole, fit(module(), data, tmp_path, tmp_path / "killed.ckpt"))


def taught(method: type[Distiller], teacher: str) -> RankingModule:
    """Return a student of width 4 before the training."""
    tests = of_tests(method)
    distiller = tests.make() if hasattr(tests, "make") else method()  # type: ignore[call-arg]
    return DistillationModule(BPR(4), teacher, distiller, cutoffs=(3,))


@every_distiller
def test_a_distiller_is_repeatable_and_survives_a_kill(method: type[Distiller], tmp_path: Path, teacher: str) -> None:
    def module() -> RankingModule:
        seed_everything(4, verbose=False)
        return taught(method, teacher)

    data = GeneratedDataModule(batch_size=90)
    whole = fit(module(), data, tmp_path)
    assert_same(whole, fit(module(), data, tmp_path))
    assert_same(whole, fit(module(), data, tmp_path, tmp_path / "killed.ckpt"))


class Elsewhere(SingleDeviceStrategy):
    """Training on a device whose tensors hold no numbers, until the model is moved."""

    def __init__(self) -> None:
        super().__init__("cpu")

    @contextmanager
    def tensor_init_context(self, empty_init: bool | None = None) -> Iterator[None]:
        with torch.device("meta"):
            yield


def start(module: RankingModule, data: GeneratedDataModule, **options: Any) -> dict[str, Any]:
    """Return the state in which a training starts."""
    seed_everything(4, verbose=False)
    quiet_trainer(max_epochs=0, **options).fit(module, datamodule=data)
    return module.state_dict()


@every_model
def test_an_architecture_starts_alike_on_every_device(architecture: type[Recommender]) -> None:
    data = ContractData()
    here = start(RankingModule(made(architecture), cutoffs=(3,)), data)
    assert_same(here, start(RankingModule(made(architecture), cutoffs=(3,)), data, strategy=Elsewhere()))


@every_distiller
def test_a_distiller_starts_alike_on_every_device(method: type[Distiller], teacher: str) -> None:
    data = GeneratedDataModule()
    here = start(taught(method, teacher), data)
    assert_same(here, start(taught(method, teacher), data, strategy=Elsewhere()))
