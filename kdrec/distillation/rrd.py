"""Relaxed Ranking Distillation."""

import math
from collections.abc import Callable
from typing import Any, Literal

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from kdrec.data.interactions import Interactions
from kdrec.data.sampling import Batch
from kdrec.distillation.base import Distiller, Teacher, require_choice
from kdrec.distillation.lists import ListSampler, top_lists
from kdrec.distillation.ranks import unique_over_ranks
from kdrec.errors import InputError
from kdrec.models.base import Recommender

_DEPTH = 600.0  # below a row's highest score; exp(-600) is a float64 number, and so are sums and reciprocals of such
_DEPTH_32 = 80.0  # the same of float32


def relaxed_ranking(scores: Tensor, num_interesting: int) -> Tensor:
    """Return how unlikely the scores make it that the interesting stand in their order, above all uninteresting ones.

    -sum_k [ s_k - log( sum_{j >= k} exp s_j + sum_l exp s_l ) ], the relaxed Plackett-Luce likelihood; the order among
    the uninteresting does not matter. The gradient is found together with the value: several times as fast as
    `torch.logcumsumexp` and its gradient. Exponentials are taken below a row's highest score, in float64 where a score
    is so far below it that float32 could not hold them; a score that is more than 600 below counts as 600 below.

    Args:
        scores: (B, K + L): K interesting ones in the wanted order, then L uninteresting ones; -inf behind the last of
            either where there are fewer.
        num_interesting: K, at least 1 and less than K + L.

    Returns:
        Scalar, at least 0, **summed** over rows and ranks.

    Raises:
        InputError: If there is no such table, or no interesting or uninteresting column.

    References:
        Kang et al., DE-RRD: A Knowledge Distillation Framework for Recommender System, CIKM 2020, eq. 9.

    Example:
        >>> zeros = torch.zeros(1, 4)  # 1/4 for the first place, 1/3 for the second
        >>> round(relaxed_ranking(zeros, 2).exp().item(), 4)
        12.0
    """
    if scores.dim() != 2 or not 1 <= num_interesting < scores.shape[1]:
        raise InputError(
            f"relaxed_ranking: scores {tuple(scores.shape)} must be a table with a row for each list, whose first "
            f"columns (num_interesting, here {num_interesting}) are interesting and the rest not."
        )
    return _RelaxedRanking.apply(scores, num_interesting)


class _RelaxedRanking(torch.autograd.Function):
    """With Z_k = sum_{j >= k} exp s_j + sum_l exp s_l, the gradient by s_k is exp(s_k) sum_{j <= k} 1 / Z_j - 1."""

    @staticmethod
    def forward(ctx: Any, scores: Tensor, num_interesting: int) -> Tensor:
        highest = scores.amax(1, keepdim=True)
        depths, there = scores - highest, None
        # a GPU would have to be waited for
        if scores.is_cuda or scores.dtype.itemsize < 4 or (len(scores) and not depths.amin() > -_DEPTH_32):
            there = scores > -torch.inf
            highest = highest.double().clamp_(min=torch.finfo(torch.float64).min)  # where nothing is there at all
            depths = (scores.double() - highest).clamp_(min=-_DEPTH)
        gradient = depths.exp()
        above, below = gradient[:, :num_interesting], gradient[:, num_interesting:]
        sums = above.flip(1).cumsum(1).flip(1).add_(below.sum(1, keepdim=True))
        shares, losses = sums.reciprocal(), sums.log().sub_(depths[:, :num_interesting])
        if there is not None:
            shares.mul_(there[:, :num_interesting])
            losses.mul_(there[:, :num_interesting])
        shares.cumsum_(1)
        above.mul_(shares).sub_(1)
        below.mul_(shares[:, -1:])
        if there is not None:
            gradient.mul_(there)
        ctx.save_for_backward(gradient.to(scores.dtype))
        return losses.sum().to(scores.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        (to_scores,) = ctx.saved_tensors
        return to_scores * gradient, None


class Drawn:
    """What is interesting and uninteresting to everybody until the next draw.

    It is no buffer on purpose: DDP would send buffers to all processes at every step.

    Args:
        sampler: Draws.
        num_interesting: Partners in the teacher's order.
        num_uninteresting: Partners below them.
        temperature: As of `ListSampler.interesting`.
    """

    def __init__(
        self, sampler: ListSampler, num_interesting: int, num_uninteresting: int, temperature: float | None
    ) -> None:
        self._sampler = sampler
        self._numbers = min(num_interesting, sampler.lists.shape[1]), num_uninteresting
        self._temperature = temperature
        self.redraw()

    def redraw(self) -> None:
        """Draw anew."""
        interesting = self._sampler.interesting(self._numbers[0], self._temperature)
        self.partners = torch.cat((interesting, self._sampler.uninteresting(self._numbers[1])), dim=1)
        self._all_there = bool((self.partners >= 0).all())

    @property
    def interesting(self) -> Tensor:
        """(n, K) int64 in the teacher's order; -1 behind the last where there are fewer."""
        return self.partners[:, : self._numbers[0]]

    @property
    def uninteresting(self) -> Tensor:
        """(n, L) int64; -1 where nobody is left."""
        return self.partners[:, self._numbers[0] :]

    def loss(self, owners: Tensor, score: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
        """Return `relaxed_ranking` of the partners of some.

        Args:
            owners: (B,) int64.
            score: Of owners (B,) and lists of partners (B, K + L), such as `Recommender.score`.
        """
        self.partners = self.partners.to(owners.device)
        partners = self.partners.index_select(0, owners)
        if self._all_there:
            return relaxed_ranking(score(owners, partners), self._numbers[0])
        scores = score(owners, partners.clamp(min=0)).masked_fill(partners < 0, -torch.inf)
        return relaxed_ranking(scores, self._numbers[0])


class RRD(Distiller):
    """Make the student rank the teacher's best items in the teacher's order, above items that the teacher ranks low.

    For every user of a batch, once: some interesting items in the teacher's order, and uninteresting ones drawn
    uniformly, with replacement, outside the teacher's list and the user's training items. Both are drawn anew for all
    users as an epoch starts, as published; to draw at every step would take longer than the step itself. A user who has
    left fewer items than a list needs has a shorter one, of half of them.

    Args:
        weight: Factor of the loss; it is a sum over users and ranks, and 1e-3 belongs to batches of 1024.
        num_interesting: Items in the teacher's order.
        num_uninteresting: Items below them.
        list_length: Of the teacher's list: what is outside of it is uninteresting.
        sampling: "none" takes the first items of the list, as the authors later advise; "rank" draws them from all of
            it, with p proportional to exp(-rank / temperature), as published.
        temperature: Of the draw, in ranks; at least 1e-30.

    Raises:
        InputError: If a number is out of its range.

    References:
        Kang et al., DE-RRD: A Knowledge Distillation Framework for Recommender System, CIKM 2020, sec. 4.2.
    """

    reads_vectors = False

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
        if not 1e-30 <= temperature < math.inf:
            raise InputError(f"{type(self).__name__}: temperature is {temperature}; it must be at least 1e-30.")
        self.num_interesting = num_interesting
        self.num_uninteresting = num_uninteresting
        self.list_length = list_length
        self.sampling = sampling
        self.temperature = temperature

    def bind(self, student: Recommender, teacher: Teacher, train: Interactions) -> None:
        """As `Distiller.bind`: reads the teacher's lists."""
        sampler = ListSampler(top_lists(teacher, train, self.list_length).members, train)
        self.items = Drawn(sampler, self.num_interesting, self.num_uninteresting, self._draw_at)

    @property
    def _draw_at(self) -> float | None:
        """The temperature, if anything is drawn by rank."""
        return self.temperature if self.sampling == "rank" else None

    def on_epoch_start(self, progress: float) -> None:
        """As `Distiller.on_epoch_start`: draws items anew for all users."""
        self.items.redraw()

    def forward(self, batch: Batch, student: Recommender, teacher: Teacher) -> dict[str, Tensor]:
        """As `Distiller.forward`; one term, ``rrd``."""
        return {"rrd": self.weight * self.items.loss(unique_over_ranks(batch.users), student.score)}
