"""Topology kernels: how two embeddings of the same entities agree on all pairwise similarities.

The topology of n entities is their n x n table of cosines. No kernel here builds that table.
"""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from kdrec.distillation.ranks import num_ranks, rank, sum_over_ranks
from kdrec.errors import InputError

_ROWS = 128  # of a table at once
_COLUMNS = 40  # of a product V'V at once
_EPSILON = 1e-8  # below this length a vector counts as zero, and its cosine with anything is 0


def normalise(vectors: Tensor) -> Tensor:
    """Scale rows to length 1; zero rows stay zero. (n, d) -> (n, d)."""
    return functional.normalize(vectors, dim=-1, eps=_EPSILON)


def topology_distance(
    student: Tensor, teacher: Tensor, teacher_square: Tensor | None = None, over_ranks: bool = False
) -> Tensor:
    """Sum the squared differences of the two topologies over all n * n pairs, exactly, in O(n d) memory.

    For unit rows S and T, ``|SS' - TT'|^2 = |S'S|^2 + |T'T|^2 - 2 |S'T|^2`` in Frobenius norms: three small products
    stand for two n x n tables. The value is a difference of large numbers, so the norms are summed in float64; the
    gradient, ``4 (S S'S - T T'S)``, is written out and needs the two products again, but no table either.

    Args:
        student: (n, ds) unit or zero rows, as `normalise` makes them.
        teacher: (n, dt) unit or zero rows; constant.
        teacher_square: ``|T'T|^2`` if it is known already (`gram_square`).
        over_ranks: The rows are this process's part of the entities, and the pairs are those of all processes' entities
            together. Only the sums of the products travel.

    Returns:
        Scalar in [0, n^2], **summed** over ordered pairs, the diagonal included, in the student's dtype. Over ranks,
        every process gets its equal part of that, and the whole sum's gradient by its own rows.

    Raises:
        InputError: If the shapes do not belong together.

    References:
        Kang et al., Topology Distillation for Recommender System, KDD 2021, eq. 3; the factored form is kdrec's.

    Example:
        >>> student = torch.tensor([[1.0], [1.0]])  # cosines [[1, 1], [1, 1]]
        >>> teacher = torch.tensor([[1.0, 0.0], [0.0, 1.0]])  # cosines [[1, 0], [0, 1]]
        >>> topology_distance(student, teacher).item()
        2.0
    """
    if student.dim() != 2 or teacher.dim() != 2 or len(student) != len(teacher):
        raise InputError(
            f"topology_distance: student {tuple(student.shape)} and teacher {tuple(teacher.shape)} must be two "
            f"tables with one row for each entity, in the same order."
        )
    if teacher_square is None:
        teacher_square = gram_square(teacher, over_ranks)
    return _TopologyDistance.apply(student, teacher, teacher_square, over_ranks)


def gram_square(vectors: Tensor, over_ranks: bool = False) -> Tensor:
    """Return ``|V'V|^2``, the sum of squared dot products over all pairs of rows, in float64.

    Args:
        vectors: (n, d).
        over_ranks: The rows are this process's part, and the pairs are those of all processes' rows together.
    """
    starts = range(0, vectors.shape[1], _COLUMNS)  # what lies left of a block is known by symmetry
    blocks = [vectors[:, first : first + _COLUMNS].T @ vectors[:, first:] for first in starts]
    total = torch.zeros((), dtype=torch.float64, device=vectors.device)
    for block in sum_over_ranks(blocks) if over_ranks else blocks:
        square = block.double().square_()
        total += 2 * square.sum() - square[:, : len(block)].sum()
    return total


class _TopologyDistance(torch.autograd.Function):
    """The factored distance with its gradient written out."""

    @staticmethod
    def forward(ctx: Any, student: Tensor, teacher: Tensor, teacher_square: Tensor, over_ranks: bool) -> Tensor:
        value, gradient = _factored(student, teacher, teacher_square, over_ranks)
        ctx.save_for_backward(gradient)
        return (value.clamp_(min=0) / (num_ranks() if over_ranks else 1)).to(student.dtype)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None, None]:
        return ctx.saved_tensors[0] * gradient, None, None, None


def _factored(
    student: Tensor, teacher: Tensor, teacher_square: Tensor, over_ranks: bool = False
) -> tuple[Tensor, Tensor]:
    """Return distance (float64) and gradient (n, ds): four small products, nothing n x n."""
    products = [student.T @ student, teacher.T @ student]  # (ds, ds) and (dt, ds)
    own, cross = sum_over_ranks(products) if over_ranks else products
    value = own.double().square().sum() + teacher_square - 2 * cross.double().square().sum()
    return value, torch.addmm(student @ own, teacher, cross, alpha=-1).mul_(4)


def grouped_distance(
    student: Tensor,
    teacher: Tensor,
    groups: Tensor,
    num_groups: int,
    positive_only: bool = False,
    over_ranks: bool = False,
) -> Tensor:
    """Sum the squared differences of the two topologies over the pairs of one group only.

    Entities are sorted by group, so that each group is a slice: n * n / num_groups pairs where groups are even, and
    never a masked n x n table. If all pairs count, a group larger than the widths costs O(n d^2) by the factored form
    of `topology_distance`. The gradient is found together with the value, some rows of a group at a time. On a GPU, the
    sizes of the groups are read once, which waits for the device.

    Args:
        student: (n, ds) unit or zero rows.
        teacher: (n, dt) unit or zero rows; constant.
        groups: (n,) int64 in ``[0, num_groups)``.
        num_groups: How many there may be.
        positive_only: Count a pair only where the teacher's cosine is above 0.
        over_ranks: All processes hold the same rows, and each sums over groups of its own.

    Returns:
        Scalar, **summed** over ordered pairs, the diagonal included.

    References:
        Kang et al., Topology Distillation for Recommender System, KDD 2021, eq. 8 (entity level).
    """
    if over_ranks:
        own = torch.nonzero(groups % num_ranks() == rank()).squeeze(1)
        student, teacher, groups = (table.index_select(0, own) for table in (student, teacher, groups))
    order = groups.argsort(stable=True)
    sizes = torch.bincount(groups, minlength=num_groups).tolist()
    ours, theirs = student.index_select(0, order), teacher.index_select(0, order)
    return _GroupedDistance.apply(ours, theirs, sizes, positive_only)


class _GroupedDistance(torch.autograd.Function):
    """Value and gradient of the distance within slices."""

    @staticmethod
    def forward(ctx: Any, student: Tensor, teacher: Tensor, sizes: list[int], positive_only: bool) -> Tensor:
        gradient = torch.zeros_like(student)
        value = torch.zeros((), dtype=torch.float64, device=student.device)
        sizes = [size for size in sizes if size]
        for s, t, out in zip(student.split(sizes), teacher.split(sizes), gradient.split(sizes), strict=True):
            if positive_only or len(s) < s.shape[1] + t.shape[1]:
                value += _tabulated(s, t, out, positive_only)
            else:
                distance, slope = _factored(s, t, gram_square(t))
                value += distance
                out.copy_(slope)
        ctx.save_for_backward(gradient)
        return value.to(student.dtype)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None, None]:
        return ctx.saved_tensors[0] * gradient, None, None, None


def _tabulated(student: Tensor, teacher: Tensor, gradient: Tensor, positive_only: bool) -> Tensor:
    """Return the distance (float64) by some rows of both tables at a time, and add up the gradient.

    The rows begin at the diagonal: what lies before it is known by symmetry.
    """
    value = torch.zeros((), dtype=torch.float64, device=student.device)
    for first in range(0, len(student), _ROWS):
        s, t = student[first:], teacher[first:]
        rows = min(_ROWS, len(s))
        truth = t[:rows] @ t.T
        difference = torch.addmm(truth, s[:rows], s.T, beta=-1)
        if positive_only:
            difference *= torch.gt(truth, 0, out=truth)  # as numbers, since a product with booleans is slow
        value += torch.dot(difference.view(-1), difference.view(-1))
        gradient[first : first + rows].addmm_(difference, s, alpha=4)
        if len(s) > rows:  # the pairs before the diagonal
            beyond = difference[:, rows:]
            value += beyond.square().sum()
            gradient[first + rows :].addmm_(beyond.T, s[:rows], alpha=4)
    return value


def prototypes(vectors: Tensor, groups: Tensor, num_groups: int) -> Tensor:
    """Average the rows of each group: (n, d) -> (num_groups, d); zero where a group has no member."""
    sums = vectors.new_zeros(num_groups, vectors.shape[1]).index_add(0, groups, vectors)
    return sums / torch.bincount(groups, minlength=num_groups).clamp(min=1).unsqueeze(1)
