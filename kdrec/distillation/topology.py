"""Topology kernels: how two embeddings of the same entities agree on all pairwise similarities.

The topology of n entities is their n x n table of cosines. No kernel here builds that table.
"""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from kdrec.errors import InputError

_EPSILON = 1e-8  # below this length a vector counts as zero, and its cosine with anything is 0


def normalise(vectors: Tensor) -> Tensor:
    """Scale rows to length 1; zero rows stay zero. (n, d) -> (n, d)."""
    return functional.normalize(vectors, dim=-1, eps=_EPSILON)


def topology_distance(student: Tensor, teacher: Tensor, teacher_square: Tensor | None = None) -> Tensor:
    """Sum the squared differences of the two topologies over all n * n pairs, exactly, in O(n d) memory.

    For unit rows S and T, ``|SS' - TT'|^2 = |S'S|^2 + |T'T|^2 - 2 |S'T|^2`` in Frobenius norms: three small products
    stand for two n x n tables. The value is a difference of large numbers, so the norms are summed in float64; the
    gradient, ``4 (S S'S - T T'S)``, is written out and needs the two products again, but no table either.

    Args:
        student: (n, ds) unit or zero rows, as `normalise` makes them.
        teacher: (n, dt) unit or zero rows; constant.
        teacher_square: ``|T'T|^2`` if it is known already (`gram_square`).

    Returns:
        Scalar in [0, n^2], **summed** over ordered pairs, the diagonal included, in the student's dtype.

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
        teacher_square = gram_square(teacher)
    return _TopologyDistance.apply(student, teacher, teacher_square)


def gram_square(vectors: Tensor) -> Tensor:
    """Return ``|V'V|^2``, the sum of squared dot products over all pairs of rows, in float64."""
    return (vectors.T @ vectors).double().square().sum()


class _TopologyDistance(torch.autograd.Function):
    """The factored distance with its gradient written out: five small products, nothing n x n."""

    @staticmethod
    def forward(ctx: Any, student: Tensor, teacher: Tensor, teacher_square: Tensor) -> Tensor:
        own = student.T @ student  # (ds, ds)
        cross = teacher.T @ student  # (dt, ds)
        ctx.save_for_backward(student, teacher, own, cross)
        value = own.double().square().sum() + teacher_square - 2 * cross.double().square().sum()
        return value.clamp_(min=0).to(student.dtype)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        student, teacher, own, cross = ctx.saved_tensors
        return torch.addmm(student @ own, teacher, cross, alpha=-1).mul_(4 * gradient), None, None


def group_blocks(groups: Tensor, num_groups: int) -> Tensor:
    """List the members of each group: (n,) group of each entity -> (num_groups, m) entities, ``n`` where there is none.

    ``m`` is the size of the largest group. ``table`` with a zero row appended, indexed by the result, gives the groups'
    rows as one batch of equal blocks. On a GPU, reading ``m`` waits for the device once.

    Example:
        >>> group_blocks(torch.tensor([1, 0, 1]), 3).tolist()
        [[1, 3], [0, 2], [3, 3]]
    """
    counts = torch.bincount(groups, minlength=num_groups)
    order = groups.argsort(stable=True)
    place = torch.arange(len(groups), device=groups.device) - (counts.cumsum(0) - counts)[groups[order]]
    blocks = groups.new_full((num_groups, int(counts.max()) if len(groups) else 0), len(groups))
    blocks[groups[order], place] = order
    return blocks


def grouped_distance(
    student: Tensor, teacher: Tensor, groups: Tensor, num_groups: int, positive_only: bool = False
) -> Tensor:
    """Sum the squared differences of the two topologies over the pairs of one group only.

    Groups are compared block by block, n * n / num_groups numbers where they are even; where one group holds nearly
    all, by the n * n table.

    Args:
        student: (n, ds) unit or zero rows.
        teacher: (n, dt) unit or zero rows; constant.
        groups: (n,) int64 in ``[0, num_groups)``.
        num_groups: How many there may be.
        positive_only: Count a pair only where the teacher's cosine is above 0.

    Returns:
        Scalar, **summed** over ordered pairs, the diagonal included.

    References:
        Kang et al., Topology Distillation for Recommender System, KDD 2021, eq. 8 (entity level).
    """
    blocks = group_blocks(groups, num_groups)
    if blocks.numel() * blocks.shape[1] <= len(groups) ** 2:
        s, t = (torch.cat((rows, rows.new_zeros(1, rows.shape[1])))[blocks] for rows in (student, teacher))
        ours, theirs = torch.bmm(s, s.mT), torch.bmm(t, t.mT)
        together = None
    else:
        ours, theirs = student @ student.T, teacher @ teacher.T
        together = groups.unsqueeze(0) == groups.unsqueeze(1)
    square = (theirs - ours).square()
    if positive_only:
        square = square * (theirs > 0)
    return (square if together is None else square * together).sum()


def prototypes(vectors: Tensor, groups: Tensor, num_groups: int) -> Tensor:
    """Average the rows of each group: (n, d) -> (num_groups, d); zero where a group has no member."""
    sums = vectors.new_zeros(num_groups, vectors.shape[1]).index_add(0, groups, vectors)
    return sums / torch.bincount(groups, minlength=num_groups).clamp(min=1).unsqueeze(1)
