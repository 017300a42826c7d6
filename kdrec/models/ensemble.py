"""Several recommenders that vote: the classic teacher of a small student."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from kdrec.data.interactions import Interactions
from kdrec.errors import InputError
from kdrec.models import checkpoint
from kdrec.models.base import Recommender


class Ensemble(Recommender):
    """Average what trained recommenders say of each item; nothing more is trained.

    Its checkpoint holds its members whole, so it needs none of the files that it was made of.

    Args:
        checkpoints: Of the members, all made on the same training data; on the command line also the configs that make
            them, which are then trained first, once.
        by: What is averaged over the members. "scores": each member's scores, standardised over a user's catalogue to
            mean 0 and variance 1. "ranks": the item's place in each member's list of the whole catalogue, as the number
            of items below it (an item of the same score counts half).
        members: What a checkpoint rebuilds the ensemble from; leave it out.

    References:
        Bell and Koren, Lessons from the Netflix Prize Challenge, SIGKDD Explorations 2007; Hinton et al., Distilling
        the Knowledge in a Neural Network, 2015, for an ensemble as teacher.
    """

    has_vectors = False
    models: nn.ModuleList

    def __init__(
        self,
        checkpoints: list[str],
        by: Literal["scores", "ranks"] = "scores",
        members: list[Recommender] | None = None,
    ) -> None:
        super().__init__()
        if not checkpoints and not members:
            raise InputError("Ensemble: checkpoints is empty; name at least one, or the config that makes it.")
        if by not in ("scores", "ranks"):
            raise InputError(f"Ensemble: by is {by!r}; it must be 'scores' or 'ranks'.")
        self.checkpoints = checkpoints
        self.by = by
        self.models = nn.ModuleList(members or [])

    @property
    def members(self) -> list[Recommender] | None:
        """The models, once they are there."""
        return list(self.models) or None  # type: ignore[arg-type]

    def load(self, paths: Sequence[str | Path], train: Interactions) -> None:
        """Take the members from checkpoints.

        Args:
            paths: As many as there shall be members.
            train: What they must have learned from.

        Raises:
            InputError: If a file is no good checkpoint, or was made on other data.
        """
        self.models = nn.ModuleList(checkpoint.load_for(path, train, "member") for path in paths)

    def bind(self, train: Interactions) -> None:
        """As `Recommender.bind`; takes the members from the checkpoints, if `load` did not."""
        if not self.members:
            self.load(self.checkpoints, train)
        if not all(member.is_built for member in self.members or []):
            raise InputError("Ensemble: there is a member that was never trained; give checkpoints and no members.")
        super().bind(train)

    def build(self, num_users: int, num_items: int) -> None:
        """As `Recommender.build`; builds members that are not, to be filled from a checkpoint."""
        super().build(num_users, num_items)
        for member in self.members or []:
            if not member.is_built:
                member.build(num_users, num_items)
            if (member.num_users, member.num_items) != (num_users, num_items):
                raise InputError(
                    f"Ensemble: a {type(member).__name__} knows {member.num_users} users and {member.num_items} items, "
                    f"and the data has {num_users} and {num_items}; take members made on the same data."
                )
        self.models.train(self.training).requires_grad_(False)

    def require_sound(self) -> None:
        """As `Recommender.require_sound`."""
        if not self.members:
            raise ValueError("it has no members")
        for member in self.members:
            member.require_sound()

    def encode_catalogue(self) -> tuple[Any, ...]:
        """As `Recommender.encode_catalogue`, of each member."""
        return tuple(member.encode_catalogue() for member in self.members or [])

    def score_all(self, users: Tensor, catalogue: tuple[Any, ...] | None = None) -> Tensor:
        """As `Recommender.score_all`."""
        parts = self.encode_catalogue() if catalogue is None else catalogue
        vote = standardised if self.by == "scores" else ranks
        votes = [vote(member.score_all(users, part)) for member, part in zip(self.members or [], parts, strict=True)]
        return torch.stack(votes).mean(0)

    def num_bytes(self) -> int:
        """As `Recommender.num_bytes`."""
        return sum(member.num_bytes() for member in self.members or [])


def standardised(scores: Tensor) -> Tensor:
    """Shift and scale each row to mean 0 and variance 1; a row of equal scores stays one.

    Args:
        scores: (B, num_items).
    """
    centred = scores - scores.mean(1, keepdim=True)
    return centred / centred.square().mean(1, keepdim=True).sqrt().clamp(min=torch.finfo(scores.dtype).tiny)


def ranks(scores: Tensor) -> Tensor:
    """Count, for each item, the items of its row with a lower score, and half of those with the same, but itself.

    Args:
        scores: (B, num_items).

    Returns:
        (B, num_items) floats in [0, num_items - 1].

    Example:
        >>> ranks(torch.tensor([[0.5, 0.9, 0.5, 0.1]])).tolist()
        [[1.5, 3.0, 1.5, 0.0]]
    """
    scores = scores.contiguous()
    ordered = scores.sort(1).values
    below = torch.searchsorted(ordered, scores)
    return (below + torch.searchsorted(ordered, scores, right=True) - 1).to(scores.dtype) / 2
