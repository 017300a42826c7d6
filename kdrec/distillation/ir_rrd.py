"""Item-side ranking besides the users'."""

from typing import Literal

from torch import Tensor

from kdrec.data.interactions import Interactions
from kdrec.data.sampling import Batch
from kdrec.distillation.base import Teacher
from kdrec.distillation.lists import ListSampler, top_lists
from kdrec.distillation.ranks import unique_over_ranks
from kdrec.distillation.rrd import RRD, Drawn
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
        super().bind(student, teacher, train)
        sampler = ListSampler(top_lists(teacher, train, self.list_length, "items").members, train, "items")
        self.users = Drawn(sampler, self.num_interesting_users, self.num_uninteresting_users, self._draw_at)

    def on_epoch_start(self, progress: float) -> None:
        """As `Distiller.on_epoch_start`: draws items anew for all users, and users for all items."""
        super().on_epoch_start(progress)
        self.users.redraw()

    def forward(self, batch: Batch, student: Recommender, teacher: Teacher) -> dict[str, Tensor]:
        """As `Distiller.forward`; terms ``ir_rrd_users`` and ``ir_rrd_items``."""
        of_users = self.items.loss(unique_over_ranks(batch.users), student.score)
        of_items = self.users.loss(unique_over_ranks(batch.positives), student.score_users)
        return {"ir_rrd_users": self.weight * of_users, "ir_rrd_items": self.weight * of_items}
