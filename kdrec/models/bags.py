"""Lists of different lengths as two tensors: all of them one behind the other, and where each starts."""

import torch
from torch import Tensor


def places_of(offsets: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
    """Find some of the lists.

    Args:
        offsets: (n + 1,) int64; list r stands at ``offsets[r]`` up to ``offsets[r + 1]``.
        rows: (B,) int64, the lists that are wanted.

    Returns:
        (offsets (B + 1,), places (m,)): those of the wanted lists alone, and where their members stand among all.

    Example:
        >>> places_of(torch.tensor([0, 2, 2, 5]), torch.tensor([2, 1, 0]))
        (tensor([0, 3, 3, 5]), tensor([2, 3, 4, 0, 1]))
    """
    starts, counts = offsets[rows], offsets.diff()[rows]
    return torch.cat((counts.new_zeros(1), counts.cumsum(0))), spans(starts, counts)


def spans(starts: Tensor, counts: Tensor) -> Tensor:
    """Return the indices ``starts[b] + 0, 1, ... counts[b] - 1`` of all rows, one row behind the other.

    Args:
        starts: (B,) int64.
        counts: (B,) int64.

    Returns:
        (counts.sum(),) int64.

    Example:
        >>> spans(torch.tensor([7, 1, 4]), torch.tensor([2, 0, 3])).tolist()
        [7, 8, 4, 5, 6]
    """
    shifts = torch.repeat_interleave(starts - counts.cumsum(0) + counts, counts)
    return shifts + torch.arange(shifts.shape[0], device=starts.device)  # len() cannot be exported


def are_lists(offsets: Tensor, items: Tensor, num_users: int, num_items: int) -> bool:
    """Whether these can be a list of items for each user: offsets (num_users + 1,), items (n,)."""
    return (
        len(offsets) == num_users + 1
        and (int(offsets[0]), int(offsets[-1])) == (0, len(items))
        and bool((offsets.diff() >= 0).all() and ((items >= 0) & (items < num_items)).all())
    )
