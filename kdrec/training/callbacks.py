"""Callbacks that any Lightning trainer can use with kdrec's modules."""

import math
import time
from pathlib import Path
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import ModelCheckpoint


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
