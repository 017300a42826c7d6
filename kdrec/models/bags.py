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
    own = torch.cat((counts.new_zeros(1), counts.cumsum(0)))
    shifts = torch.repeat_interleave(starts - own[:-1], counts)
    return own, shifts + torch.arange(shifts.shape[0], device=rows.device)  # len() cannot be exported
