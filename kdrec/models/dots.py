"""Scores of lists, fast on a CPU: each of some entities is scored against a list of others of its own."""

from typing import Any

import torch
from torch import Tensor
from torch.amp import custom_bwd, custom_fwd
from torch.autograd.function import once_differentiable
from torch.nn import functional

_HALF = 1 << 15  # of the numbers that two bytes hold


def list_dots(owners: Tensor, table: Tensor, lists: Tensor) -> Tensor:
    """Score lists by dot products, with no row of the table looked up for the gradient.

    A lookup's gradient is found row by row of the lists, which takes ten times as long as the scores. Here the entries
    of the lists are sorted by the row they name, and each row's part is summed up at once.

    Args:
        owners: (B, d), whose lists they are.
        table: (N, d), what the lists are of.
        lists: (B, L) int64 rows of the table.

    Returns:
        (B, L), ``owners[b] @ table[lists[b, l]]``.
    """
    return _ListDots.apply(owners, table, lists)


class _ListDots(torch.autograd.Function):
    """The dot products with their gradients."""

    @staticmethod
    @custom_fwd(device_type="cpu", cast_inputs=torch.float32)
    def forward(ctx: Any, owners: Tensor, table: Tensor, lists: Tensor) -> Tensor:
        ctx.save_for_backward(owners, table, lists)
        rows = table.index_select(0, lists.flatten()).view(*lists.shape, table.shape[1])
        return torch.bmm(owners.unsqueeze(1), rows.mT).squeeze(1)

    @staticmethod
    @custom_bwd(device_type="cpu")
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        owners, table, lists = ctx.saved_tensors
        to_owners = to_table = None
        if ctx.needs_input_grad[0]:
            to_owners = functional.embedding_bag(lists, table, per_sample_weights=gradient.contiguous(), mode="sum")
        if ctx.needs_input_grad[1]:
            entries = lists.flatten().int()  # half as much to move
            # numbers are sorted byte by byte: two bytes take half as long as four
            order = ((entries - _HALF).short() if len(table) <= 2 * _HALF else entries).argsort()
            counts = torch.bincount(entries, minlength=len(table))
            offsets = functional.pad(counts.cumsum(0, dtype=torch.int32), (1, 0))
            owner_of = torch.arange(len(lists), dtype=torch.int32).repeat_interleave(lists.shape[1])
            to_table = functional.embedding_bag(
                owner_of.index_select(0, order),
                owners,
                offsets,
                per_sample_weights=gradient.flatten().index_select(0, order),
                mode="sum",
                include_last_offset=True,
            )
        return to_owners, to_table, None
