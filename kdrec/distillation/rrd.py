"""Relaxed Ranking Distillation."""

import math
from typing import Literal

import torch
from torch import Tensor

from kdrec.data.interactions import Interactions
from kdrec.data.sampling import Batch
from kdrec.distillation.base import Distiller, Teacher, require_choice
from kdrec.distillation.lists import ListSampler, pool_length, top_lists
from kdrec.distillation.ranks import unique_over_ranks
from kdrec.errors import InputError
from kdrec.models.base import Recommender


def relaxed_ranking(interesting: Tensor, uninteresting: Tensor) -> Tensor:
    """Return how unlikely the scores make it that the interesting stand in their order, above all uninteresting ones.

    -sum_k [ s_k - log( sum_{j >= k} exp s_j + sum_l exp s_l ) ], the relaxed Plackett-Luce likelihood; the order among
    the uninteresting does not matter.

    Args:
        interesting: (B, K) scores in the wanted order.
        uninteresting: (B, L) scores.

    Returns:
        Scalar, at least 0, **summed** over rows and ranks.

    References:
        Kang et al., DE-RRD: A Knowledge Distillation Framework for Recommender System, CIKM 2020, eq. 9.

    Example:
        >>> zeros = torch.zeros(1, 2)  # 1/4 for the first place, 1/3 for the second
        >>> round(relaxed_ranking(zeros, zeros).exp().item(), 4)
        12.0
    """
    below = torch.logsumexp(uninteresting, dim=1, keepdim=True)
    rest = torch.logcumsumexp(interesting.flip(1), dim=1).flip(1)
    return (torch.logaddexp(rest, below) - interesting).sum()


class RRD(Distiller):
    """Make the student rank the teacher's best items in the teacher's order, above items that the teacher ranks low.

    For every user of a batch, once: some interesting items in the teacher's order, and uninteresting ones drawn
    uniformly outside the teacher's list and the user's training items. Both are drawn anew for all users as an epoch
    starts, which costs less than drawing at every step.

    Args:
        weight: Factor of the loss; it is a sum over users and ranks, and 1e-3 belongs to batches of 1024.
        num_interesting: Items in the teacher's order.
        num_uninteresting: Items below them.
        list_length: Of the teacher's list: what is outside of it is uninteresting.
        sampling: "none" takes the first items of the list, as the authors later advise; "rank" draws them from all of
            it, with p proportional to exp(-rank / temperature), as published.
        temperature: Of the draw, in ranks.

    Raises:
        InputError: If a number is out of its range.

    References:
        Kang et al., DE-RRD: A Knowledge Distillation Framework for Recommender System, CIKM 2020, sec. 4.2.
    """

    reads_vectors = False
    interesting: Tensor
    uninteresting: Tensor

    def __init__(
        self,
        weight: float = 1e-3,
        num_interesting: int = 40,
        num_uninteresting: int = 40,
        list_length: int = 500,
        sampling: Literal["none", "rank"] = "none",
        temperature: float = 10.0,
    ) -> None:
        super().__init__(weight)
        require_choice(self, "sampling", sampling, ("none", "rank"))
        if not 1 <= num_interesting <= list_length or num_uninteresting < 1:
            raise InputError(
                f"{type(self).__name__}: num_interesting is {num_interesting}, num_uninteresting {num_uninteresting} "
                f"and list_length {list_length}; take 1 at least, and a list that is as long as what is taken from it."
            )
        if not 0 < temperature < math.inf:
            raise InputError(f"{type(self).__name__}: temperature is {temperature}; it must be above 0.")
        self.num_interesting = num_interesting
        self.num_uninteresting = num_uninteresting
        self.list_length = list_length
        self.sampling = sampling
        self.temperature = temperature

    def bind(self, student: Recommender, teacher: Teacher, train: Interactions) -> None:
        """As `Distiller.bind`: reads the teacher's lists."""
        length = pool_length(train, self.list_length)
        self._sampler = ListSampler(top_lists(teacher, train, length).members, train)
        self._draw()

    def on_epoch_start(self, progress: float) -> None:
        """As `Distiller.on_epoch_start`: draws items anew for all users."""
        self._draw()

    def _draw(self) -> None:
        number = min(self.num_interesting, self._sampler.lists.shape[1])
        chosen = self._sampler.interesting(number, self.temperature if self.sampling == "rank" else None)
        others = self._sampler.uninteresting(self.num_uninteresting)
        device = self.interesting.device if hasattr(self, "interesting") else chosen.device
        self.register_buffer("interesting", chosen.to(device), persistent=False)
        self.register_buffer("uninteresting", others.to(device), persistent=False)

    def forward(self, batch: Batch, student: Recommender, teacher: Teacher) -> dict[str, Tensor]:
        """As `Distiller.forward`; one term, ``rrd``."""
        users = unique_over_ranks(batch.users)
        items = torch.cat((self.interesting.index_select(0, users), self.uninteresting.index_select(0, users)), dim=1)
        scores = student.score(users, items)
        number = self.interesting.shape[1]
        return {"rrd": self.weight * relaxed_ranking(scores[:, :number], scores[:, number:])}
