"""Softmax distillation: the teacher's list as a distribution over items."""

import math
from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from kdrec.data.interactions import Interactions
from kdrec.data.sampling import Batch
from kdrec.distillation.base import Distiller, Teacher, require_choice
from kdrec.distillation.catalogue import catalogue_cross_entropy
from kdrec.distillation.lists import top_lists
from kdrec.errors import InputError
from kdrec.evaluation.ranking import PairIndex
from kdrec.models.base import DotProductRecommender, Recommender

_NOTHING = -1e9  # a score whose share of a softmax is 0, and whose product with 0 is a number


class SoftmaxKD(Distiller):
    """Make the student's distribution over items that of the teacher over the teacher's best items.

    For every pair of a batch: the cross-entropy -sum_i q_i log p_i of its user, where q is the softmax of the teacher's
    scores over the first items of its list, and p the student's softmax, over these items or the whole catalogue. So a
    user counts as often as in the ranking loss, and is computed once a batch; with ``samples: histories`` of the data
    module once an epoch.

    Args:
        weight: Factor of the loss; it is a sum over the pairs of a batch.
        num_items: Of the teacher's list, which holds no training items.
        temperature: Both models' scores are divided by it.
        over: "list" compares the items of the list with each other only. "catalogue" compares them with all items, so
            the student learns too what the teacher left out; a step then scores the catalogue for the batch's users.
        hard_share: With "catalogue": share of the loss, in [0, 1), that is the cross-entropy with the hard targets, the
            user's training items in equal parts, which p then competes for with all items. The rest is that with the
            teacher's soft targets, where the training items are left out of p.

    Raises:
        InputError: If an option is out of its range.

    References:
        Hinton, Vinyals and Dean, Distilling the Knowledge in a Neural Network, 2015, sec. 2; over a teacher's top list
        as the baseline of RCE-KD (2025).
    """

    reads_vectors = False

    def __init__(
        self,
        weight: float = 1e-2,
        num_items: int = 50,
        temperature: float = 1.0,
        over: Literal["list", "catalogue"] = "list",
        hard_share: float = 0.0,
    ) -> None:
        super().__init__(weight)
        require_choice(self, "over", over, ("list", "catalogue"))
        if num_items < 2:
            raise InputError(f"SoftmaxKD: num_items is {num_items}; it must be at least 2.")
        if not 0 < temperature < math.inf:
            raise InputError(f"SoftmaxKD: temperature is {temperature}; it must be above 0.")
        if not 0 <= hard_share < 1 or (hard_share and over == "list"):
            raise InputError(
                f"SoftmaxKD: hard_share is {hard_share}; it must be at least 0 and below 1, and 0 unless over is "
                f"'catalogue'."
            )
        self.num_items = num_items
        self.temperature = temperature
        self.over = over
        self.hard_share = hard_share

    def bind(self, student: Recommender, teacher: Teacher, train: Interactions) -> None:
        """As `Distiller.bind`: reads the teacher's lists."""
        members, scores = top_lists(teacher, train, self.num_items)
        # no buffers: DDP would send them to all processes at every step
        self.items, self.targets = members.long(), torch.softmax(scores / self.temperature, dim=1)
        self._own = PairIndex(train)

    def forward(self, batch: Batch, student: Recommender, teacher: Teacher) -> dict[str, Tensor]:
        """As `Distiller.forward`; one term, ``softmax_kd``."""
        users, counts = torch.unique(batch.users, return_counts=True)
        self.items, self.targets = self.items.to(users.device), self.targets.to(users.device)
        items, targets = self.items.index_select(0, users), self.targets.index_select(0, users)
        known = items.clamp(min=0)  # -1 is no item, and its target is 0
        if self.over == "list":
            scores = student.score(users, known) / self.temperature
            scores = scores.to(torch.promote_types(scores.dtype, targets.dtype))  # half of it does not hold _NOTHING
            scores = scores.masked_fill(items < 0, _NOTHING)
            loss = (counts * cross_entropy(scores, targets, reduction="none")).sum()
        else:
            loss = self._over_catalogue(student, users, counts, known, targets)
        return {"softmax_kd": self.weight * loss}

    def _over_catalogue(
        self, student: Recommender, users: Tensor, counts: Tensor, items: Tensor, targets: Tensor
    ) -> Tensor:
        own = self._own.to(users.device).of(users)
        rows = torch.arange(len(users), device=users.device).repeat_interleave(items.shape[1])
        cases: list[tuple[float, tuple[Tensor, Tensor, Tensor], tuple[Tensor, Tensor]]]
        cases = [(1 - self.hard_share, (rows, items.flatten(), targets.flatten()), own)]
        if self.hard_share:
            equal = torch.bincount(own[0], minlength=len(users))[own[0]].reciprocal()
            cases.append((self.hard_share, (*own, equal), (own[0][:0], own[1][:0])))
        if isinstance(student, DotProductRecommender):
            vectors, catalogue = student.user_vectors(users) / self.temperature, student.encode_catalogue()
            weights = counts.to(vectors.dtype)
            parts = [
                share * catalogue_cross_entropy(vectors, catalogue, weights, wanted, hidden)
                for share, wanted, hidden in cases
            ]
            return torch.stack(parts).sum()
        whole, loss = student.score_all(users) / self.temperature, counts.new_zeros((), dtype=torch.float32)
        for share, (at, columns, chances), hidden in cases:
            of_all = torch.logsumexp(whole.index_put(hidden, whole.new_full((), -torch.inf)), dim=1)
            loss = loss + share * ((counts * of_all).sum() - (counts[at] * chances * whole[at, columns]).sum())
        return loss
