"""The distillation contract: a frozen teacher, and a method that turns it into named loss terms."""

import math
import warnings
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor, nn

from kdrec.data.interactions import Interactions
from kdrec.data.sampling import Batch
from kdrec.distillation.ranks import union_over_ranks
from kdrec.errors import InputError
from kdrec.models import checkpoint
from kdrec.models.base import Recommender


class Teacher:
    """A frozen model read from a checkpoint, whose vectors are computed once.

    It is no nn.Module on purpose: it can stand as an attribute of a module and yet never be in that module's
    state_dict, optimizer or checkpoint, nor be switched to training mode.

    Args:
        recommender: The model; it is put into evaluation mode and its gradients are switched off.
        path: Where it was read from; for the student's record.
        digest: SHA-256 of that file.
    """

    def __init__(self, recommender: Recommender, path: str = "", digest: str = "") -> None:
        self.recommender = recommender.eval().requires_grad_(False)
        self.path = path
        self.digest = digest
        self._vectors: tuple[Tensor, Tensor] | None = None

    @classmethod
    def load(cls, path: str | Path, train: Interactions) -> "Teacher":
        """Read a teacher and make sure that it learned from the very data that the student will learn from.

        Raises:
            InputError: If the file is no good checkpoint, or its model was made on other pairs or other ids.
        """
        return cls(checkpoint.load_for(path, train, "teacher"), str(path), checkpoint.digest(path))

    def to(self, device: torch.device) -> "Teacher":
        """Move to a device; returns itself."""
        self.recommender.to(device)
        if self._vectors is not None:
            self._vectors = (self._vectors[0].to(device), self._vectors[1].to(device))
        return self

    def user_vectors(self, users: Tensor | None = None) -> Tensor:
        """Return the vectors of users (B,) as (B, dt), or of all users."""
        table = self._tables()[0]
        return table if users is None else table.index_select(0, users)  # many times faster than indexing, on a CPU

    def item_vectors(self, items: Tensor | None = None) -> Tensor:
        """Return the vectors of items (B,) as (B, dt), or of all items."""
        table = self._tables()[1]
        return table if items is None else table.index_select(0, items)

    @torch.no_grad()
    def _tables(self) -> tuple[Tensor, Tensor]:
        if self._vectors is None:
            model = self.recommender
            self._vectors = (
                model.user_vectors(torch.arange(model.num_users, device=model.device)),
                model.item_vectors(torch.arange(model.num_items, device=model.device)),
            )
        return self._vectors


class Distiller(nn.Module, ABC):
    """A distillation method: what it adds to the student's ranking loss, as named terms.

    Parameters it registers (experts, projectors) are trained beside the student and are never exported with it. What it
    remembers from one epoch to the next is a persistent buffer, or made anew as an epoch starts, by torch's generator:
    then a training that was killed goes on as if nothing had happened.

    Args:
        weight: Factor of the method's loss. Losses are sums over a batch, so a weight belongs to a batch size.

    Attributes:
        reads_vectors: Whether it reads the vectors of users and items; a method of scores or lists does not.
        anneals: Whether it must know for how long the training goes on.

    Raises:
        InputError: If the weight is negative or infinite.
    """

    reads_vectors: ClassVar[bool] = True
    anneals: bool = False

    def __init__(self, weight: float) -> None:
        super().__init__()
        if not 0 <= weight < math.inf:
            raise InputError(f"{type(self).__name__}: weight is {weight}; it must be a number and not negative.")
        self.weight = weight

    def require_models(self, student: Recommender, teacher: Teacher) -> None:
        """Raise InputError if the method reads vectors and one of the models has none."""
        for role, model in (("student", student), ("teacher", teacher.recommender)):
            if self.reads_vectors and not model.has_vectors:
                raise InputError(
                    f"{type(self).__name__} compares vectors and the {role}, {type(model).__name__}, has none; choose "
                    f"another {role}, or a distiller that reads scores or lists."
                )

    def bind(self, student: Recommender, teacher: Teacher, train: Interactions) -> None:
        """Build what the method trains, now that student, teacher and data are known."""

    def on_epoch_start(self, progress: float) -> None:
        """Anneal or resample.

        Args:
            progress: Share of the training that is done, in [0, 1).
        """

    def figures(self, teacher: Teacher) -> dict[str, float]:
        """Return what is worth a curve beside the terms: name -> number, logged once an epoch as ``train/NAME``."""
        return {}

    @abstractmethod
    def forward(self, batch: Batch, student: Recommender, teacher: Teacher) -> dict[str, Tensor]:
        """Return the terms to add to the loss: name -> scalar, weight included. Each is logged as ``train/NAME``."""


def require_choice(distiller: Distiller, option: str, given: str, known: Sequence[str]) -> None:
    """Raise InputError if an option is none of those that are known."""
    if given not in known:
        raise InputError(
            f"{type(distiller).__name__}: {option} is {given!r}; it must be one of {', '.join(map(repr, known))}."
        )


def vector_widths(student: Recommender, teacher: Teacher) -> tuple[int, int]:
    """Return the widths ds and dt of the two models' vectors."""
    with torch.no_grad():
        ours = student.user_vectors(torch.zeros(1, dtype=torch.int64, device=student.device))
    return ours.shape[1], teacher.user_vectors().shape[1]


def warn_of_zero_vectors(student: Recommender, teacher: Teacher) -> None:
    """Warn of entities whose vectors are all zero: their cosines are 0 whatever a method does, and teach nothing."""
    users = torch.arange(student.num_users, device=student.device)
    items = torch.arange(student.num_items, device=student.device)
    with torch.no_grad():
        ours = student.user_vectors(users), student.item_vectors(items)
    for whose, kind, vectors in (
        ("student", "users", ours[0]),
        ("student", "items", ours[1]),
        ("teacher", "users", teacher.user_vectors()),
        ("teacher", "items", teacher.item_vectors()),
    ):
        if zeros := int((vectors == 0).all(1).sum()):
            warnings.warn(
                f"The {whose}'s vectors of {zeros} of {len(vectors)} {kind} are all zero, so their cosines with others "
                f"mean nothing; begin with other weights, or leave these {kind} out.",
                stacklevel=2,
            )


def batch_entities(batch: Batch, negatives: bool = True) -> tuple[Tensor, Tensor]:
    """Return the unique users (b_u,) and the unique items (b_i,) of a batch: positives, and negatives if wanted."""
    items = torch.cat((batch.positives, batch.negatives.flatten())) if negatives else batch.positives
    return torch.unique(batch.users), torch.unique(items)


def entities_in_scope(scope: str, over_ranks: bool, batch: Batch, student: Recommender) -> tuple[Tensor, Tensor]:
    """Return the users and items that a topology is of, ascending.

    Args:
        scope: "batch" takes the batch, "positives" leaves its negatives out, "all" takes the whole catalogue.
        over_ranks: Take the batches of all processes together; the result is then the same on each.
        batch: This process's.
        student: Knows how large the catalogue is.
    """
    if scope == "all":
        device = batch.users.device
        return torch.arange(student.num_users, device=device), torch.arange(student.num_items, device=device)
    users, items = batch_entities(batch, negatives=scope == "batch")
    return (union_over_ranks(users), union_over_ranks(items)) if over_ranks else (users, items)
