"""Cross-entropy with a softmax over the whole catalogue, for models that score by dot products."""

from typing import Any

import torch
from torch import Tensor

_ROWS = 32  # users whose scores of the whole catalogue stand in memory together


def catalogue_cross_entropy(
    users: Tensor, items: Tensor, weights: Tensor, targets: tuple[Tensor, Tensor, Tensor], hidden: tuple[Tensor, Tensor]
) -> Tensor:
    """Sum the cross-entropies between target distributions and softmaxes over all items that are not hidden.

    The scores are made for some users at a time, and what the gradient needs of them is multiplied out at once, so
    nothing of the size users x items is ever kept: memory is O(b d + I d) where autograd would keep O(b I).

    Args:
        users: (b, d) vectors.
        items: (I, d) vectors.
        weights: (b,) factor of each user's cross-entropy; constant.
        targets: (rows, columns, chances), each (n,): rows ascending, the chances of a row sum to 1; constant.
        hidden: (rows, columns), each (m,), rows ascending: pairs that are left out of the softmax.

    Returns:
        Scalar, at least 0, **summed** over users: sum_u w_u (log sum_i exp s_ui - sum_i q_ui s_ui), s = <u, v>.

    Example:
        >>> ones, none = torch.ones(1), torch.empty(0, dtype=torch.int64)
        >>> third = catalogue_cross_entropy(  # three equal scores, all chance on the first
        ...     torch.zeros(1, 2), torch.zeros(3, 2), ones, (none.new_zeros(1), none.new_zeros(1), ones), (none, none)
        ... )
        >>> round(third.exp().item(), 4)
        3.0
    """
    return _CatalogueCrossEntropy.apply(users, items, weights, *targets, *hidden)


class _CatalogueCrossEntropy(torch.autograd.Function):
    """The value with its gradients, which are found together with it."""

    @staticmethod
    def forward(
        ctx: Any, users: Tensor, items: Tensor, weights: Tensor, rows: Tensor, columns: Tensor, chances: Tensor,
        hidden_rows: Tensor, hidden_columns: Tensor,
    ) -> Tensor:  # fmt: skip
        value = torch.zeros((), dtype=torch.float64, device=users.device)
        to_users, to_items = torch.empty_like(users), torch.zeros_like(items)
        starts = torch.arange(0, len(users) + _ROWS, _ROWS, device=rows.device)
        ends, hidden_ends = (torch.searchsorted(r, starts).tolist() for r in (rows, hidden_rows))
        for block, first in enumerate(range(0, len(users), _ROWS)):
            some, out, factor = (part[first : first + _ROWS] for part in (users, to_users, weights))
            here = slice(ends[block], ends[block + 1])
            at = rows[here] - first, columns[here]
            away = slice(hidden_ends[block], hidden_ends[block + 1])
            scores = some @ items.T
            wanted = scores[at]
            scores[hidden_rows[away] - first, hidden_columns[away]] = -torch.inf
            largest = scores.amax(1, keepdim=True)
            shares = scores.sub_(largest).exp_()
            total = shares.sum(1, keepdim=True)
            value += torch.dot(factor, (total.log() + largest).squeeze(1))
            weighted = chances[here].to(factor.dtype) * factor[at[0]]
            value -= torch.dot(weighted, wanted)
            shares.mul_(factor.unsqueeze(1) / total)
            shares.index_put_(at, -weighted, accumulate=True)  # the gradient by the scores
            torch.mm(shares, items, out=out)
            to_items.addmm_(shares.T, some)
        ctx.gradients = to_users, to_items
        return value.to(users.dtype)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        (to_users, to_items), ctx.gradients = ctx.gradients, None  # they are used up: autograd may keep them
        return to_users.mul_(gradient), to_items.mul_(gradient), *[None] * 6
