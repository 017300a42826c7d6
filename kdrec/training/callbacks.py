"""Callbacks that any Lightning trainer can use with kdrec's modules."""

import math
import time
from pathlib import Path
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint
from lightning.pytorch.callbacks.early_stopping import EarlyStoppingReason


class BestCheckpoint(ModelCheckpoint):
    """Lightning's ``ModelCheckpoint``, which a resumed training finds again in a folder that was moved."""

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take the best so far from a checkpoint, by the files that lie in this run's folder now."""

        def moved(path: str) -> str:
            return str(Path(self.dirpath or "", Path(path).name)) if path else ""

        if Path(moved(state_dict["best_model_path"])).is_file():
            paths = ("best_model_path", "kth_best_model_path", "last_model_path")
            state_dict = state_dict | {name: moved(state_dict[name]) for name in paths}
            state_dict["best_k_models"] = {moved(path): score for path, score in state_dict["best_k_models"].items()}
            state_dict["dirpath"] = self.dirpath
        super().load_state_dict(state_dict)


class PatientStopping(EarlyStopping):
    """Lightning's ``EarlyStopping``, which stands by its decision when the training was killed before it was obeyed.

    A larger patience than the checkpoint's takes the decision back, and the training goes on.
    """

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take all from a checkpoint but the patience."""
        patience = self.patience
        super().load_state_dict(state_dict)
        if patience > self.patience:
            self.stopping_reason = EarlyStoppingReason.NOT_STOPPED
        self.patience = patience

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Stop before the first step, if that was decided."""
        if self.stopping_reason is not EarlyStoppingReason.NOT_STOPPED:
            trainer.should_stop = True


class LastCheckpoint(ModelCheckpoint):
    """Keep the last finished epoch as last.ckpt; Lightning's ``save_last`` keeps it only when an epoch was the best.

    Writing a file can take longer than a short epoch, so between the first epoch and the last the file is renewed only
    when the one before is some seconds old: so much is lost at most, and the epoch that was cut off.

    Args:
        folder: Where.
        seconds: Least time between two files.
    """

    def __init__(self, folder: str | Path, seconds: float = 10.0) -> None:
        super().__init__(folder, "last", save_on_train_epoch_end=True, enable_version_counter=False)
        self.seconds = seconds
        self._saved_at = -math.inf
        self._began_at = time.monotonic()

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Leave the file of a resumed training as it is until there is more to save."""
        super().on_train_start(trainer, pl_module)
        self._last_global_step_saved = trainer.global_step

    def on_save_checkpoint(self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        """Say how long the training has taken, with what it took before it was resumed."""
        checkpoint["seconds"] = time.monotonic() - self._began_at

    def on_load_checkpoint(self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        """Take the time that was spent before."""
        self._began_at = time.monotonic() - checkpoint.get("seconds", 0.0)

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Save if it is time, or if a signal ends the training here; the first process decides for all."""
        due = time.monotonic() - self._saved_at >= self.seconds or trainer.received_sigterm
        if trainer.strategy.broadcast(due):
            super().on_train_epoch_end(trainer, pl_module)
            self._saved_at = time.monotonic()

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Save the last epoch, unless it is saved already."""
        super().on_train_epoch_end(trainer, pl_module)

    def state_dict(self) -> dict[str, Any]:
        """Return nothing: the file's place is all there is to know, so no later trainer has to bring this callback."""
        return {}
