from pathlib import Path

import lightning as L
import pytest
import torch
from lightning import seed_everything
from lightning.pytorch.utilities.exceptions import SIGTERMException

from kdrec.models import checkpoint
from kdrec.models.bpr import BPR
from kdrec.training.callbacks import LastCheckpoint
from kdrec.training.ranking import RankingModule
from tests.generated import GeneratedDataModule, quiet_trainer


def train(folder: Path, epochs: int, seconds: float, resume: bool = False) -> tuple[RankingModule, list[int]]:
    """Return a module trained up to that epoch, and the epochs of last.ckpt as each epoch's end found it."""
    seed_everything(3, verbose=False)
    found = []

    class Look(RankingModule):
        def on_train_epoch_start(self) -> None:
            super().on_train_epoch_start()
            if (folder / "last.ckpt").exists():
                found.append(checkpoint.read(folder / "last.ckpt")["kdrec"]["epochs"])

    module = Look(BPR(4), cutoffs=(3,))
    trainer = quiet_trainer(
        max_epochs=epochs, enable_checkpointing=True, callbacks=[LastCheckpoint(folder, seconds)]
    )  # fmt: skip
    path = folder / "last.ckpt" if resume else None
    trainer.fit(module, datamodule=GeneratedDataModule(batch_size=64), ckpt_path=path, weights_only=True)
    return module, [*found, checkpoint.read(folder / "last.ckpt")["kdrec"]["epochs"]]


@pytest.mark.parametrize(("seconds", "epochs"), [(0.0, [1, 2, 3, 4]), (3600.0, [1, 1, 1, 4])])
def test_the_last_checkpoint_is_renewed_when_it_is_time_and_at_the_end(
    tmp_path: Path, seconds: float, epochs: list[int]
) -> None:
    assert train(tmp_path, 4, seconds)[1] == epochs


@pytest.mark.parametrize("seconds", [0.0, 3600.0])
def test_a_finished_training_goes_on_as_if_it_had_never_ended(tmp_path: Path, seconds: float) -> None:
    """The file that the training's end wrote is as good as one that an epoch's end wrote."""
    whole, _ = train(tmp_path / "whole", 5, seconds)
    train(tmp_path / "parts", 3, seconds)
    resumed, epochs = train(tmp_path / "parts", 5, seconds, resume=True)
    assert epochs[0] == 3
    assert epochs[-1] == 5
    assert torch.equal(whole.recommender.users.weight, resumed.recommender.users.weight)


def test_a_signal_keeps_the_epoch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def end(self: LastCheckpoint, trainer: L.Trainer, module: L.LightningModule) -> None:
        trainer._signal_connector.received_sigterm = trainer.current_epoch == 2
        kept(self, trainer, module)

    kept = LastCheckpoint.on_train_epoch_end
    monkeypatch.setattr(LastCheckpoint, "on_train_epoch_end", end)
    with pytest.raises(SIGTERMException):
        train(tmp_path, 10, 3600.0)
    assert checkpoint.read(tmp_path / "last.ckpt")["kdrec"]["epochs"] == 3
