"""Softmax distillation: the teacher's list as a distribution over items."""

import math
from typing import Literal

import torch
from torch import Tensor

from kdrec.data.interactions import Interactions
from kdrec.data.sampling import Batch
from kdrec.distillation.base import Distiller, Teacher, require_choice
from kdrec.distillation.lists import top_lists
from kdrec.errors import InputError
from kdrec.evaluation.ranking import PairIndex
from kdrec.models.base import Recommender


class SoftmaxKD(Distiller):
    """Make the student's distribution over items that of the teacher over the teacher's best items.

    For every pair of a batch: the cross-entropy -sum_k q_k log p_k of its user, where q is the softmax of the teacher's
    scores over the first items of its list, and p the student's softmax, over these items or the whole catalogue. So a
    user counts as often as in the ranking loss, and is computed once a batch; with ``samples: histories`` of the data
    module once an epoch.

    Args:
        weight: Factor of the loss; it is a sum over the pairs of a batch.
        num_items: Of the teacher's list, which holds no training items.
        temperature: Both models' scores are divided by it.
        over: "list" compares the items of the list with each other only. "catalogue" compares them with all that the
            user has not touched, so the student learns too what the teacher left out; a step then scores the catalogue
            for the users of the batch.

    Raises:
        InputError: If a number is out of its range.

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
    ) -> None:
        super().__init__(weight)
        require_choice(self, "over", over, ("list", "catalogue"))
        if num_items < 2:
            raise InputError(f"SoftmaxKD: num_items is {num_items}; it must be at least 2.")
        if not 0 < temperature < math.inf:
            raise InputError(f"SoftmaxKD: temperature is {temperature}; it must be above 0.")
        self.num_items = num_items
        self.temperature = temperature
        self.over = over

    def bind(self, student: Recommender, teacher: Teacher, train: Interactions) -> None:
        """As `Distiller.bind`: reads the teacher's lists."""
        members, scores = top_lists(teacher, train, self.num_items)
        # no buffers: DDP would send them to all processes at every step
        self.items, self.targets = members.long(), torch.softmax(scores / self.temperature, dim=1)
        self._hidden = PairIndex(train)

    def forward(self, batch: Batch, student: Recommender, teacher: Teacher) -> dict[str, Tensor]:
        """As `Distiller.forward`; one term, ``softmax_kd``."""
        users, counts = torch.unique(batch.users, return_counts=True)
        self.items, self.targets = self.items.to(users.device), self.targets.to(users.device)
        items, targets = self.items.index_select(0, users), self.targets.index_select(0, users)
        known = items.clamp(min=0)  # -1 is no item, and its target is 0
        if self.over == "list":
            scores = student.score(users, known) / self.temperature
            of_all = torch.logsumexp(scores.masked_fill(items < 0, -torch.inf), dim=1)
        else:
            whole = student.score_all(users) / self.temperature
            scores = whole.gather(1, known)
            seen = self._hidden.to(whole.device).of(users)
            of_all = torch.logsumexp(whole.index_put(seen, whole.new_full((), -torch.inf)), dim=1)
        return {"softmax_kd": self.weight * (counts * (of_all - (targets * scores).sum(1))).sum()}
