"""Full Topology Distillation."""

from typing import Literal

import torch
from torch import Tensor

from kdrec.data.interactions import Interactions
from kdrec.data.sampling import Batch
from kdrec.distillation.base import Distiller, Teacher, entities_in_scope, require_choice, warn_of_zero_vectors
from kdrec.distillation.ranks import own_rows
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
        topology_scope: Of several processes. With "rank" each compares its own batch. With "global" the pairs are those
            of all batches together, so that N processes with batches of B do what one does with a batch of N * B; small
            products travel, never rows. The whole catalogue is shared out in either case.

    References:
        Kang et al., Topology Distillation for Recommender System, KDD 2021, sec. 4.1.
    """

    def __init__(
        self,
        weight: float = 1e-3,
        scope: Literal["batch", "positives", "all"] = "batch",
        topology_scope: Literal["rank", "global"] = "rank",
    ) -> None:
        super().__init__(weight)
        require_choice(self, "scope", scope, ("batch", "positives", "all"))
        require_choice(self, "topology_scope", topology_scope, ("rank", "global"))
        self.scope = scope
        self.topology_scope = topology_scope
        self._teacher: Tensor | None = None
        self._whole: tuple[Tensor, Tensor] | None = None

    def bind(self, student: Recommender, teacher: Teacher, train: Interactions) -> None:
        """As `Distiller.bind`; the teacher's part is computed once, at the first step."""
        self._teacher = self._whole = None
        warn_of_zero_vectors(student, teacher)

    def forward(self, batch: Batch, student: Recommender, teacher: Teacher) -> dict[str, Tensor]:
        """As `Distiller.forward`; one term, ``ftd``."""
        over_ranks = self.scope == "all" or self.topology_scope == "global"
        users, items = entities_in_scope(self.scope, over_ranks, batch, student)
        if over_ranks:
            users, items = users[own_rows(len(users))], items[own_rows(len(items))]
        target, square = self._target(teacher, users, items)
        vectors = normalise(torch.cat((student.user_vectors(users), student.item_vectors(items))))
        return {"ftd": self.weight * topology_distance(vectors, target, square, over_ranks)}

    def _target(self, teacher: Teacher, users: Tensor, items: Tensor) -> tuple[Tensor, Tensor | None]:
        """Return the teacher's unit rows of the entities and, if it is always the same, their `gram_square`."""
        if self.scope == "all":
            if self._whole is None:
                rows = normalise(torch.cat((teacher.user_vectors(users), teacher.item_vectors(items))))
                self._whole = rows, gram_square(rows, over_ranks=True)
            return self._whole
        if self._teacher is None:
            self._teacher = normalise(torch.cat((teacher.user_vectors(), teacher.item_vectors())))
        return self._teacher.index_select(0, torch.cat((users, items + len(teacher.user_vectors())))), None
