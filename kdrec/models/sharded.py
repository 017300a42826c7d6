"""Tables whose rows are divided over the processes that train a model together."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, distributed, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional

from kdrec.errors import InputError

_AT_ONCE = 1 << 16  # rows of each process that travel together to the first one


class ShardedEmbedding(nn.Embedding):
    """One process's part of a table: of N processes, process r holds the rows r, r + N, r + 2N, ...

    In training a lookup is made by all processes together: each says which rows it wants, and gets them from those who
    hold them; the gradients go back on the same way, and are averaged over the processes as DDP does it. So each must
    look up as often as the others and in the same order, be it nothing. In evaluation nothing travels, and a process
    sees its own rows alone.

    Args:
        table: The whole one, whose rows are copied.
    """

    def __init__(self, table: nn.Embedding) -> None:
        part = own_rows(table.weight.detach())
        super().__init__(len(part), table.embedding_dim, sparse=table.sparse, _weight=part)
        self.num_embeddings = table.num_embeddings

    @property
    def num_elsewhere(self) -> int:
        """How many of the table's numbers lie in other processes."""
        return (self.num_embeddings - len(self.weight)) * self.embedding_dim

    def forward(self, rows: Tensor) -> Tensor:
        """Look up: (...) int64 -> (..., embedding_dim)."""
        if self.training:
            return self.from_all(rows)
        ranks, rank = distributed.get_world_size(), distributed.get_rank()
        if (rows % ranks != rank).any():
            raise InputError(
                f"The rows of this model's tables are divided over {ranks} processes, and one was asked for what "
                f"another one holds; load a checkpoint of the model, which is whole."
            )
        return super().forward(rows // ranks)

    def from_all(self, rows: Tensor) -> Tensor:
        """As `forward` in training."""
        ranks, height = distributed.get_world_size(), len(self.weight)
        keys, places = torch.unique(rows % ranks * height + rows // ranks, return_inverse=True)  # grouped by who has it
        wanted = torch.bincount(keys // height, minlength=ranks)
        given = torch.empty_like(wanted)
        distributed.all_to_all_single(given, wanted)
        theirs, ours = wanted.tolist(), given.tolist()
        asked = _exchange(keys % height, ours, theirs)
        vectors = functional.embedding(asked, self.weight, sparse=self.sparse)
        return functional.embedding(places, _Exchange.apply(vectors, theirs, ours))


def whole(table: nn.Embedding) -> Tensor:
    """Return all rows of a table, sharded or not: (num_embeddings, embedding_dim); all processes must ask together.

    A table that gives sparse gradients gives one here too.
    """
    if isinstance(table, ShardedEmbedding):
        return table.from_all(torch.arange(table.num_embeddings, device=table.weight.device))
    if table.sparse and torch.is_grad_enabled():
        return table(torch.arange(table.num_embeddings, device=table.weight.device))
    return table.weight


def takes_all_rows(table: nn.Embedding, rows: Tensor) -> bool:
    """Whether more rows are asked for than a table has, so that what is made of them is better made of all, once.

    Not of a table that gives sparse gradients, whose optimizer moves what was looked up.
    """
    return rows.numel() > table.num_embeddings and not table.sparse


def own_rows(table: Tensor) -> Tensor:
    """Copy this process's rows: (n, ...) -> (ceil(n / N), ...), the last one 0 where others have one more."""
    ranks, rank = distributed.get_world_size(), distributed.get_rank()
    own = table[rank::ranks]
    part = table.new_zeros(-(-len(table) // ranks), *table.shape[1:])
    part[: len(own)] = own
    return part


def gathered(part: Tensor, num_rows: int) -> Tensor:
    """Put all processes' rows together again in the first one, on the CPU, some at a time.

    Args:
        part: What `own_rows` returned.
        num_rows: Of the whole.

    Returns:
        The whole in the first process; in any other one its part, as it was given.
    """
    ranks, is_first = distributed.get_world_size(), distributed.get_rank() == 0
    table = part.new_empty(len(part), ranks, *part.shape[1:], device="cpu") if is_first else None
    for start in range(0, len(part), _AT_ONCE):
        some = part[start : start + _AT_ONCE].contiguous()
        parts = [torch.empty_like(some) for _ in range(ranks)] if is_first else None
        distributed.gather(some, parts)
        if table is not None and parts is not None:
            for rank, theirs in enumerate(parts):
                table[start : start + _AT_ONCE, rank] = theirs
    return part if table is None else table.flatten(0, 1)[:num_rows]


def _exchange(rows: Tensor, got: Sequence[int], sent: Sequence[int]) -> Tensor:
    """Send rows, sorted by whom they are for; returns what was got, sorted by whom it is from."""
    result = rows.new_empty(sum(got), *rows.shape[1:])
    distributed.all_to_all_single(result, rows.contiguous(), list(got), list(sent))
    return result


class _Exchange(torch.autograd.Function):
    """`_exchange` with its gradient."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, got: Sequence[int], sent: Sequence[int]) -> Tensor:
        ctx.got, ctx.sent = got, sent
        return _exchange(rows, got, sent)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        return _exchange(gradient, ctx.sent, ctx.got) / distributed.get_world_size(), None, None
