"""Distillation Experts."""

import torch
from torch import Tensor

from kdrec.data.interactions import Interactions
from kdrec.data.sampling import Batch
from kdrec.distillation.assignment import GroupAssignment, cooled, expert_width, require_temperatures
from kdrec.distillation.base import Distiller, Teacher, vector_widths
from kdrec.distillation.ranks import own_rows, union_over_ranks
from kdrec.errors import InputError
from kdrec.models.base import Recommender


class DE(Distiller):
    """Let experts find the teacher's vectors in the student's; which expert serves an entity is learned too.

    The loss is users + 0.5 * (positives + negatives), each the sum over its unique entities of
    |e^t - sum_k z_k f_k(e^s)|^2. Users and items have experts of their own. An item that is both a positive and a
    negative of the batch counts in both halves, each with noise of its own. It is the group assignment of `HTD`, whose
    items all count once in full.

    Args:
        weight: Factor of the loss; it is a sum, and the published 0.01 belongs to batches of 1024.
        num_experts: Experts on each side: perceptrons ds -> (ds + dt) // 2 -> dt, with ds // 2 where ds = dt.
        first_temperature: Of the selection in the first epoch, at least 1e-30, below which shares are no numbers.
        last_temperature: What it nears: epoch e of E (counted from 0) has first * (last / first) ** (e / E).

    Raises:
        InputError: If an option is out of its range.

    References:
        Kang et al., DE-RRD: A Knowledge Distillation Framework for Recommender System, CIKM 2020, sec. 4.1.
    """

    anneals = True

    def __init__(
        self,
        weight: float = 0.01,
        num_experts: int = 30,
        first_temperature: float = 1.0,
        last_temperature: float = 1e-10,
    ) -> None:
        super().__init__(weight)
        if num_experts < 1:
            raise InputError(f"DE: num_experts is {num_experts}; it must be at least 1.")
        require_temperatures(self, first_temperature, last_temperature)
        self.num_experts = num_experts
        self.first_temperature = first_temperature
        self.last_temperature = last_temperature
        self.temperature = first_temperature

    def bind(self, student: Recommender, teacher: Teacher, train: Interactions) -> None:
        """As `Distiller.bind`: builds selectors and experts of both sides."""
        widths = vector_widths(student, teacher)
        self.users = GroupAssignment(*widths, self.num_experts, expert_width(*widths))
        self.items = GroupAssignment(*widths, self.num_experts, expert_width(*widths))

    def on_epoch_start(self, progress: float) -> None:
        """As `Distiller.on_epoch_start`: lowers the temperature."""
        self.temperature = cooled(self.first_temperature, self.last_temperature, progress)

    def figures(self, teacher: Teacher) -> dict[str, float]:
        """As `Distiller.figures`: the temperature and, for each side, experts in use and the largest one's share."""
        result = {"de_temperature": self.temperature}
        for name, side, vectors in (
            ("users", self.users, teacher.user_vectors()),
            ("items", self.items, teacher.item_vectors()),
        ):
            result[f"de_{name}_experts"], result[f"de_{name}_largest"] = side.use(vectors)
        return result

    def forward(self, batch: Batch, student: Recommender, teacher: Teacher) -> dict[str, Tensor]:
        """As `Distiller.forward`; one term, ``de``."""
        users = union_over_ranks(torch.unique(batch.users))
        ours, theirs = student.user_vectors(users), teacher.user_vectors(users)
        loss, _ = self.users(ours, theirs, self.temperature, own_rows(len(users)))
        for side in (batch.positives, batch.negatives):
            items = union_over_ranks(torch.unique(side))
            ours, theirs = student.item_vectors(items), teacher.item_vectors(items)
            half, _ = self.items(ours, theirs, self.temperature, own_rows(len(items)))
            loss = loss + 0.5 * half
        return {"de": self.weight * loss}
