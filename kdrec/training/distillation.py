"""Train a student by the same ranking loss plus whatever a distiller takes from a teacher."""

import warnings
from collections.abc import Callable, Sequence
from typing import Any

import torch
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from torch import Tensor

from kdrec.data.sampling import Batch
from kdrec.distillation.base import Distiller, Teacher
from kdrec.errors import InputError
from kdrec.models import losses
from kdrec.models.base import Recommender
from kdrec.training.ranking import RankingModule

_DISTILLER = "distiller."


class DistillationModule(RankingModule):
    """Train a student with a teacher at its side.

    The loss is the base ranking loss of `RankingModule` plus the distiller's terms. The teacher is frozen and is never
    part of this module's state, optimizer or checkpoint; only its path and digest are kept. What a distiller trains
    for itself is saved beside the model's weights, not among them.

    Args:
        student: The architecture to train.
        teacher: A checkpoint, or (on the command line) the config that makes it, which is then trained first, once.
        distiller: The distillation method.
        loss: Function of positive scores (B,) and negative scores (B, N); kdrec.models.losses has bpr, bce and softmax.
        optimizer: Optimizer class and its options.
        lr_scheduler: Learning-rate schedule, advanced every epoch.
        cutoffs: The k of every metric@k.
        num_candidates: Leave it out to rank the whole catalogue. A number ranks each held-out item among that many
            sampled ones instead, which is fit only for comparison with tables made so.
    """

    def __init__(
        self,
        student: Recommender,
        teacher: str,
        distiller: Distiller,
        loss: Callable[[Tensor, Tensor], Tensor] = losses.bpr,
        optimizer: OptimizerCallable = lambda parameters: torch.optim.Adam(parameters, lr=1e-3, fused=True),
        lr_scheduler: LRSchedulerCallable | None = None,
        cutoffs: Sequence[int] = (5, 10, 20, 50),
        num_candidates: int | None = None,
    ) -> None:
        super().__init__(student, loss, optimizer, lr_scheduler, cutoffs, num_candidates)
        self.teacher_path = teacher
        self.teacher: Teacher | None = None
        self.distiller = distiller

    def build(self) -> None:
        """Size the student, load the teacher and let the distiller build what it trains, once."""
        super().build()
        if self.teacher is None and self.trainer.state.fn == "fit":
            self.teacher = Teacher.load(self.teacher_path, self.train_data)
            self.distiller.require_models(self.recommender, self.teacher)
            self._warn_of_nothing_to_learn()
            self.distiller.bind(self.recommender, self.teacher, self.train_data)

    def _warn_of_nothing_to_learn(self) -> None:
        """Warn where a setting makes the distillation meaningless."""
        assert self.teacher is not None
        for part in self.distiller.modules():
            if isinstance(part, Distiller) and part.weight == 0:
                warnings.warn(
                    f"{type(part).__name__} has the weight 0, so the student learns nothing by it; train it without a "
                    f"teacher, or give a weight.",
                    stacklevel=2,
                )
        teacher, student = self.teacher.recommender, self.recommender
        theirs, ours = teacher.num_parameters(), student.num_parameters()
        if theirs < ours and teacher.num_bytes() < student.num_bytes():
            warnings.warn(
                f"The teacher has {theirs:,} parameters and the student {ours:,}, so the student has little to learn "
                f"from it; give a larger teacher, or a smaller student.",
                stacklevel=2,
            )

    def on_fit_start(self) -> None:
        """Bring the teacher to the student's device.

        Raises:
            InputError: If the distiller anneals over a training whose length is not known.
        """
        assert self.teacher is not None
        if self.distiller.anneals and (self.trainer.max_epochs or 0) < 0:
            raise InputError(
                f"{type(self.distiller).__name__} anneals over the training, and trainer.max_epochs is "
                f"{self.trainer.max_epochs}; give the number of epochs."
            )
        self.teacher.to(self.device)

    def on_train_epoch_start(self) -> None:
        """Tell the distiller how far the training is."""
        super().on_train_epoch_start()
        self.distiller.on_epoch_start(self.current_epoch / max(1, self.trainer.max_epochs or 1))

    def on_train_epoch_end(self) -> None:
        """As `RankingModule.on_train_epoch_end`, with the distiller's figures."""
        super().on_train_epoch_end()
        assert self.teacher is not None
        self.log_epoch(self.distiller.figures(self.teacher))

    def terms(self, batch: Batch) -> dict[str, Tensor]:
        """As `RankingModule.terms`, with the distiller's terms beside the base loss."""
        assert self.teacher is not None
        with torch.autocast(self.device.type, enabled=False):  # the terms are small differences of large numbers
            added = self.distiller(batch, self.recommender, self.teacher)
        return super().terms(batch) | added

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """As `RankingModule.on_save_checkpoint`; the distiller's own weights move out of the model's."""
        super().on_save_checkpoint(checkpoint)
        weights = checkpoint["state_dict"]
        own = [name for name in weights if name.startswith(_DISTILLER)]
        checkpoint["distiller"] = {name: weights.pop(name) for name in own}
        if self.teacher is not None:
            checkpoint["kdrec"]["teacher"] = {"path": self.teacher.path, "sha256": self.teacher.digest}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """As `RankingModule.on_load_checkpoint`; the distiller's weights move back, if it is there to train."""
        super().on_load_checkpoint(checkpoint)
        if self.teacher is not None:
            checkpoint["state_dict"].update(checkpoint.get("distiller", {}))
