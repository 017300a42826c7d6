"""Callbacks that any Lightning trainer can use with kdrec's modules."""

import csv
import math
import time
from pathlib import Path
from typing import Any, TextIO

import lightning as L
from lightning.pytorch.callbacks import Callback, ModelCheckpoint

from kdrec.errors import InputError
from kdrec.training.ranking import RankingModule


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


class TopItemsWriter(Callback):
    """Write each user's best items to a CSV file while predictions are made, under raw ids and titles.

    The file appears whole, when all users are done, or not at all.

    Args:
        path: The file; its folder is made.

    Raises:
        InputError: If it exists, cannot be written, or more than one process predicts.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._temporary = self.path.with_name(f".{self.path.name}.part")
        self._file: TextIO | None = None
        self._num_users = 0

    def on_predict_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Open a temporary file beside the target."""
        if trainer.world_size > 1:
            raise InputError("kdrec predict runs in one process; leave out --trainer.devices.")
        if self.path.exists():
            raise InputError(f"{self.path} exists already; name another file with --output.")
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._file = open(self._temporary, "w", newline="", encoding="utf-8")  # noqa: SIM115 - open over many batches
        except OSError as error:
            raise InputError(f"{self.path} cannot be written ({error.strerror}); name another with --output.") from None
        csv.writer(self._file).writerow(["user", "rank", "item", "title", "score"])

    def on_predict_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:  # fmt: skip
        """Append the batch."""
        assert isinstance(pl_module, RankingModule)
        assert self._file is not None
        train = pl_module.train_data
        titles = train.item_ids if train.item_titles is None else train.item_titles
        users, items, scores = (tensor.tolist() for tensor in outputs)
        csv.writer(self._file).writerows(
            [train.user_ids[user], rank, train.item_ids[item], titles[item], f"{score:.6g}"]
            for user, listed, given in zip(users, items, scores, strict=True)
            for rank, (item, score) in enumerate(zip(listed, given, strict=True), start=1)
            if item >= 0
        )
        self._num_users += len(users)

    def on_predict_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Put the file in its place."""
        assert self._file is not None
        self._file.close()
        self._temporary.replace(self.path)
        print(f"{self._num_users} users written to {self.path}")

    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        """Leave nothing half-written."""
        if self._file is not None:
            self._file.close()
            self._temporary.unlink(missing_ok=True)
