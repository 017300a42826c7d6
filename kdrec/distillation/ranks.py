"""What the processes of one training do together; with one process nothing is sent and nothing changes.

The loss is a sum over processes, and gradients are summed too, so a term is exact over all processes if their parts of
it add up to it. All collectives run in a loss's forward pass: in the backward pass DDP's own are under way.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, distributed


def num_ranks() -> int:
    """Return how many processes train together."""
    return distributed.get_world_size() if distributed.is_available() and distributed.is_initialized() else 1


def rank() -> int:
    """Return which of them this one is, from 0."""
    return distributed.get_rank() if num_ranks() > 1 else 0


def own_rows(count: int) -> slice:
    """Return which of ``count`` rows that all processes know are this one's: adjacent, and as many as the others'."""
    return slice(count * rank() // num_ranks(), count * (rank() + 1) // num_ranks())


def union_over_ranks(ids: Tensor) -> Tensor:
    """Return what any process holds, once: the same on all of them.

    Args:
        ids: (n,) int64, ascending, different, not negative; n may differ between processes.

    Returns:
        (m,) int64, ascending and different.
    """
    if num_ranks() == 1:
        return ids
    longest = torch.tensor(len(ids), device=ids.device)
    distributed.all_reduce(longest, distributed.ReduceOp.MAX)
    padded = torch.nn.functional.pad(ids, (0, int(longest) - len(ids)), value=-1)
    parts = [torch.empty_like(padded) for _ in range(num_ranks())]
    distributed.all_gather(parts, padded)
    union = torch.unique(torch.cat(parts))
    return union[torch.searchsorted(union, 0) :]


def unique_over_ranks(ids: Tensor) -> Tensor:
    """Return this process's part of the different ids that any process holds, so that each is summed over once.

    Args:
        ids: (n,) int64, not negative, in any order.
    """
    union = union_over_ranks(torch.unique(ids))
    return union[own_rows(len(union))]


def sum_over_ranks(tensors: Sequence[Tensor]) -> list[Tensor]:
    """Add up tensors of one dtype over all processes, element by element, in one message; gradients do not follow."""
    if num_ranks() == 1:
        return list(tensors)
    flat = torch.cat([tensor.flatten() for tensor in tensors])
    distributed.all_reduce(flat)
    sizes = [tensor.numel() for tensor in tensors]
    return [part.view(tensor.shape) for part, tensor in zip(flat.split(sizes), tensors, strict=True)]
