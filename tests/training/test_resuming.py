import os
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from lightning import seed_everything
from lightning.pytorch.callbacks import Callback, ModelCheckpoint
from torch import nn

from kdrec.errors import InputError
from kdrec.models import checkpoint
from kdrec.models.bpr import BPR
from kdrec.models.ncf import NCF
from kdrec.training.callbacks import LastCheckpoint, PatientStopping
from kdrec.training.optimizers import LazyAdam
from kdrec.training.ranking import RankingModule
from kdrec.training.resuming import WholeFiles
from tests.generated import GeneratedDataModule, quiet_trainer


def fit(folder: Path, path: Path | None = None, lazy: bool = False, **options: Any) -> RankingModule:
    """Train, with 3 batches an epoch; last.ckpt is of the last epoch, killed.ckpt what was last.ckpt in the third."""

    class Copy(Callback):
        def on_train_batch_end(self, trainer: L.Trainer, module: L.LightningModule, *_: Any) -> None:
            if trainer.current_epoch == 2:
                (folder / "killed.ckpt").write_bytes((folder / "last.ckpt").read_bytes())

    seed_everything(7, verbose=False)
    make = LazyAdam if lazy else torch.optim.Adam
    module = RankingModule(NCF(8), optimizer=lambda p: make(p, lr=0.02), cutoffs=(3,))
    callbacks = [PatientStopping("val/ndcg@3", patience=9, mode="max"), LastCheckpoint(folder, 0.0), Copy()]
    trainer = quiet_trainer(enable_checkpointing=True, callbacks=callbacks, **options)
    trainer.fit(module, datamodule=GeneratedDataModule(batch_size=90), ckpt_path=path, weights_only=True)
    return module


@pytest.mark.parametrize(
    "options",
    [
        {"max_epochs": 5},
        {"max_epochs": 5, "lazy": True},
        {"max_epochs": 5, "accumulate_grad_batches": 2},
        {"max_epochs": 5, "precision": "bf16-mixed"},
        {"max_epochs": 9, "max_steps": 15},
        {"max_epochs": 9, "max_steps": 14},
    ],
    ids=["dropout", "LazyAdam", "accumulation", "bf16", "steps", "steps that end within an epoch"],
)
def test_a_resumed_training_ends_as_one_that_was_not_killed(tmp_path: Path, options: dict[str, Any]) -> None:
    whole = fit(tmp_path, **options)
    resumed = fit(tmp_path, tmp_path / "killed.ckpt", **options)
    progress = whole.trainer.fit_loop.state_dict()
    assert progress == resumed.trainer.fit_loop.state_dict()
    assert progress["epoch_progress"]["total"]["completed"] == 5
    for name, value in whole.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name]), name


def test_more_epochs_and_more_steps_go_on(tmp_path: Path) -> None:
    whole = fit(tmp_path, max_epochs=5)
    for few, more in (({"max_epochs": 3}, {"max_epochs": 5}), ({"max_steps": 9}, {"max_steps": 15})):
        fit(tmp_path, **few)
        resumed = fit(tmp_path, tmp_path / "last.ckpt", **more)
        assert (resumed.trainer.current_epoch, resumed.trainer.global_step) == (5, 15)
        for name, value in whole.state_dict().items():
            assert torch.equal(value, resumed.state_dict()[name]), name


def test_random_numbers_are_restored_once(tmp_path: Path) -> None:
    fit(tmp_path, max_epochs=1)
    module = fit(tmp_path, tmp_path / "last.ckpt", max_epochs=2)
    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(1)
    module.on_train_start()
    assert torch.equal(torch.rand(3), expected)


def test_a_checkpoint_within_an_epoch_is_refused(tmp_path: Path) -> None:
    seed_everything(7, verbose=False)
    module = RankingModule(BPR(4), cutoffs=(3,))
    keep = ModelCheckpoint(tmp_path, "{step}", every_n_train_steps=1, save_top_k=-1, auto_insert_metric_name=False)
    trainer = quiet_trainer(max_epochs=1, enable_checkpointing=True, callbacks=[keep])
    trainer.fit(module, datamodule=GeneratedDataModule(batch_size=90))
    with pytest.raises(InputError, match="was written within epoch 1, after 1 batches, and a training goes on from"):
        quiet_trainer(max_epochs=2).fit(
            module, datamodule=GeneratedDataModule(batch_size=90), ckpt_path=tmp_path / "1.ckpt", weights_only=True
        )
    assert quiet_trainer().test(  # to be tested it is good enough
        module,
        datamodule=GeneratedDataModule(),
        ckpt_path=tmp_path / "1.ckpt",
        weights_only=True,
        verbose=False,
    )


def test_a_checkpoint_of_weights_alone_is_refused(tmp_path: Path) -> None:
    module = fit(tmp_path, max_epochs=1)
    module.trainer.save_checkpoint(tmp_path / "weights.ckpt", weights_only=True)
    with pytest.raises(InputError, match="holds a model without the state of its training"):
        fit(tmp_path, tmp_path / "weights.ckpt", max_epochs=2)


def test_another_seed_is_said(tmp_path: Path) -> None:
    fit(tmp_path, max_epochs=1)
    content = checkpoint.read(tmp_path / "last.ckpt")
    content["kdrec"]["seed"] = 8
    torch.save(content, tmp_path / "other.ckpt")
    with pytest.warns(UserWarning, match="goes on with the seed 7 and was begun with 8"):
        fit(tmp_path, tmp_path / "other.ckpt", max_epochs=2)


class Interrupted:
    """Something that cannot be written."""

    def __init__(self, error: type[BaseException]) -> None:
        self.error = error

    def __reduce__(self) -> str:
        raise self.error


def test_a_file_is_replaced_only_by_a_whole_one(tmp_path: Path) -> None:
    path = tmp_path / "new folder" / "last.ckpt"
    WholeFiles().save_checkpoint({"number": 1}, path)
    with pytest.raises(KeyboardInterrupt):
        WholeFiles().save_checkpoint({"number": 2, "more": Interrupted(KeyboardInterrupt)}, path)
    assert torch.load(path, weights_only=True) == {"number": 1}
    WholeFiles().save_checkpoint({"number": 3}, str(path))
    assert torch.load(path, weights_only=True) == {"number": 3}
    assert os.listdir(path.parent) == ["last.ckpt"]


def test_a_full_disk_is_said_and_the_file_before_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "last.ckpt"
    WholeFiles().save_checkpoint({"number": 1}, path)
    (tmp_path / ".last.ckpt.part").symlink_to("/dev/full")
    with pytest.raises(InputError, match=r"last\.ckpt cannot be written \(No space left on device\)"):
        WholeFiles().save_checkpoint({"weights": nn.Linear(200, 200).state_dict()}, path)
    assert torch.load(path, weights_only=True) == {"number": 1}
    assert os.listdir(tmp_path) == ["last.ckpt"]
