"""Full Topology Distillation."""

from typing import Literal

import torch
from torch import Tensor

from kdrec.data.interactions import Interactions
from kdrec.data.sampling import Batch
from kdrec.distillation.base import Distiller, Teacher, batch_entities, num_ranks, require_choice, warn_of_zero_vectors
from kdrec.distillation.topology import gram_square, normalise, topology_distance
from kdrec.models.base import Recommender


class FTD(Distiller):
    """Make all pairwise cosines among users and items in the student equal the teacher's.

    The loss is the sum of (A^t_ij - A^s_ij)^2 over all pairs of entities, users and items together, A = cosine.

    Args:
        weight: Factor of the loss. It is a sum over pairs: the published 1e-3 belongs to batches of 1024, and the
            sum over the whole catalogue is larger by the square of the ratio of entities.
        scope: "batch" compares the unique users and items of the batch, as published; "positives" leaves its negatives
            out, so that neither cost nor sum grows with their number; "all" compares the whole catalogue at every
            step, which the factored form makes affordable.

    References:
        Kang et al., Topology Distillation for Recommender System, KDD 2021, sec. 4.1.
    """

    def __init__(self, weight: float = 1e-3, scope: Literal["batch", "positives", "all"] = "batch") -> None:
        super().__init__(weight)
        require_choice(self, "scope", scope, ("batch", "positives", "all"))
        self.scope = scope
        self._teacher: Tensor | None = None
        self._whole_square: Tensor | None = None

    def bind(self, student: Recommender, teacher: Teacher, train: Interactions) -> None:
        """As `Distiller.bind`; the teacher's part is computed once, at the first step."""
        self._teacher = self._whole_square = None
        warn_of_zero_vectors(student, teacher)

    def forward(self, batch: Batch, student: Recommender, teacher: Teacher) -> dict[str, Tensor]:
        """As `Distiller.forward`; one term, ``ftd``."""
        if self._teacher is None:
            self._teacher = normalise(torch.cat((teacher.user_vectors(), teacher.item_vectors())))
        weight = self.weight
        if self.scope != "all":
            users, items = batch_entities(batch, negatives=self.scope == "batch")
            target = self._teacher.index_select(0, torch.cat((users, items + student.num_users)))
            square = gram_square(target)
        else:
            users = torch.arange(student.num_users, device=student.device)
            items = torch.arange(student.num_items, device=student.device)
            target, square = self._teacher, self._square_of_all(self._teacher)
            weight /= num_ranks()  # every rank adds the same pairs, and the loss sums over ranks
        vectors = normalise(torch.cat((student.user_vectors(users), student.item_vectors(items))))
        return {"ftd": weight * topology_distance(vectors, target, square)}

    def _square_of_all(self, table: Tensor) -> Tensor:
        if self._whole_square is None:
            self._whole_square = gram_square(table)
        return self._whole_square
