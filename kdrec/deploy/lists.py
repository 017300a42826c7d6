"""The k best items of a row of scores, with a row's seen items hidden."""

import torch
from torch import Tensor

from kdrec.evaluation.ranking import top_k


def best_unseen(scores: Tensor, seen: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Return (items, scores), both (B, k), best first; item -1 and score -inf where fewer are left.

    Args:
        scores: (B, num_items).
        seen: (B, S) int64, filled up with -1.
        k: At most num_items.

    Example:
        >>> best_unseen(torch.tensor([[3.0, 1.0, 2.0]]), torch.tensor([[0, -1]]), 3)
        (tensor([[ 2,  1, -1]]), tensor([[2., 1., -inf]]))
    """
    penalties = torch.zeros_like(seen, dtype=scores.dtype).masked_fill(seen >= 0, -torch.inf)
    values, items = top_k(scores.scatter_add(1, seen.clamp(min=0), penalties), k)
    return items.masked_fill(values == -torch.inf, -1), values
