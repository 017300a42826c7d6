"""Item-side ranking besides the users'."""

from typing import Literal

import torch
from torch import Tensor

from kdrec.data.interactions import Interactions
from kdrec.data.sampling import Batch
from kdrec.distillation.base import Teacher
from kdrec.distillation.lists import ListSampler, pool_length, top_lists
from kdrec.distillation.ranks import unique_over_ranks
from kdrec.distillation.rrd import RRD, relaxed_ranking
from kdrec.errors import InputError
from kdrec.models.base import Recommender


class IRRRD(RRD):
    """IR-RRD: the loss of `RRD` on the users' lists of items, and the same on the items' lists of users.

    For every item that is a positive of the batch, once: the users whom the teacher gives it the highest scores for, in
    that order, above users drawn uniformly outside the item's list and its training pairs.

    Args:
        weight: Factor of both losses; they are sums over users, items and ranks.
        num_interesting: Items in the teacher's order.
        num_uninteresting: Items below them.
        list_length: Of the teacher's lists, on both sides: what is outside of one is uninteresting.
        sampling: "none" takes the first of a list; "rank" draws from the whole list, with p proportional to
            exp(-rank / temperature).
        temperature: Of the draw, in ranks.
        num_interesting_users: Users in the teacher's order, for an item.
        num_uninteresting_users: Users below them.

    Raises:
        InputError: If a number is out of its range.

    References:
        Kang et al., Item-side Ranking Regularized Distillation for Recommender System, Information Sciences 2021.
    """

    interesting_users: Tensor
    uninteresting_users: Tensor

    def __init__(
        self,
        weight: float = 5e-4,
        num_interesting: int = 40,
        num_uninteresting: int = 40,
        list_length: int = 500,
        sampling: Literal["none", "rank"] = "none",
        temperature: float = 10.0,
        num_interesting_users: int = 20,
        num_uninteresting_users: int = 20,
    ) -> None:
        super().__init__(weight, num_interesting, num_uninteresting, list_length, sampling, temperature)
        if not 1 <= num_interesting_users <= list_length or num_uninteresting_users < 1:
            raise InputError(
                f"IRRRD: num_interesting_users is {num_interesting_users}, num_uninteresting_users "
                f"{num_uninteresting_users} and list_length {list_length}; take 1 at least, and a list that is as long "
                f"as what is taken from it."
            )
        self.num_interesting_users = num_interesting_users
        self.num_uninteresting_users = num_uninteresting_users

    def bind(self, student: Recommender, teacher: Teacher, train: Interactions) -> None:
        """As `Distiller.bind`: reads the teacher's lists of both sides."""
        length = pool_length(train, self.list_length, "items")
        self._user_sampler = ListSampler(top_lists(teacher, train, length, "items").members, train, "items")
        super().bind(student, teacher, train)

    def _draw(self) -> None:
        super()._draw()
        number = min(self.num_interesting_users, self._user_sampler.lists.shape[1])
        temperature = self.temperature if self.sampling == "rank" else None
        chosen = self._user_sampler.interesting(number, temperature)
        others = self._user_sampler.uninteresting(self.num_uninteresting_users)
        self.register_buffer("interesting_users", chosen.to(self.interesting.device), persistent=False)
        self.register_buffer("uninteresting_users", others.to(self.interesting.device), persistent=False)

    def forward(self, batch: Batch, student: Recommender, teacher: Teacher) -> dict[str, Tensor]:
        """As `Distiller.forward`; terms ``ir_rrd_users`` and ``ir_rrd_items``."""
        items = unique_over_ranks(batch.positives)
        users = torch.cat(
            (self.interesting_users.index_select(0, items), self.uninteresting_users.index_select(0, items)), dim=1
        )
        scores = student.score(users.flatten(), items.repeat_interleave(users.shape[1])).view(users.shape)
        number = self.interesting_users.shape[1]
        of_items = relaxed_ranking(scores[:, :number], scores[:, number:])
        [of_users] = super().forward(batch, student, teacher).values()
        return {"ir_rrd_users": of_users, "ir_rrd_items": self.weight * of_items}
