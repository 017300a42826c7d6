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
