"""Group assignment: which group an entity belongs to, and the experts that make groups mean something."""

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from kdrec.errors import InputError

_RESOLUTION = 1e-7  # a share below this does not change a float32 sum
_DENSE_ABOVE = 0.5  # share of (entity, expert) pairs above which all are computed, by large products
_ROWS = 128  # entities at once where all experts are computed
_Gradients = tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]


class GroupAssignment(nn.Module):
    """Sort the entities of one side into groups by the teacher's view, and let an expert per group meet the teacher.

    Args:
        student_dim: ds.
        teacher_dim: dt.
        num_groups: K groups, each with an expert perceptron ds -> hidden -> dt.
        hidden_dim: Of the experts; (ds + dt) // 2 if it is left out.

    References:
        Kang et al., Topology Distillation for Recommender System, KDD 2021, sec. 4.2 (group assignment).
    """

    def __init__(self, student_dim: int, teacher_dim: int, num_groups: int, hidden_dim: int | None = None) -> None:
        super().__init__()
        hidden = hidden_dim or (student_dim + teacher_dim) // 2
        self.selector = nn.Linear(teacher_dim, num_groups)
        self.first = nn.Parameter(torch.empty(num_groups, hidden, student_dim))
        self.first_bias = nn.Parameter(torch.empty(num_groups, hidden))
        self.second = nn.Parameter(torch.empty(num_groups, hidden, teacher_dim))
        self.second_bias = nn.Parameter(torch.empty(num_groups, teacher_dim))
        for parts, inputs in (
            ((self.first, self.first_bias), student_dim),
            ((self.second, self.second_bias), hidden),
        ):
            for part in parts:
                nn.init.uniform_(part, -1 / math.sqrt(inputs), 1 / math.sqrt(inputs))

    def groups(self, teacher: Tensor) -> Tensor:
        """Return each entity's group: (n, dt) -> (n,) int64; no noise, no gradient."""
        with torch.no_grad():
            return self.selector(teacher).argmax(1)

    def use(self, teacher: Tensor) -> tuple[float, float]:
        """Return how many groups have members among (n, dt), and the largest one's share of them."""
        sizes = torch.bincount(self.groups(teacher), minlength=self.selector.out_features)
        return float((sizes > 0).sum()), float(sizes.max() / sizes.sum())

    def forward(
        self, student: Tensor, teacher: Tensor, temperature: float, own: slice = slice(None)
    ) -> tuple[Tensor, Tensor]:
        """Return the sum over entities of |e^t - sum_k z_k f_k(e^s)|^2, and each entity's group (n,).

        Experts are evaluated only where their share z_k is above float resolution. On a GPU, how often each is needed
        is read once, which waits for the device.

        Args:
            student: (n, ds).
            teacher: (n, dt); constant.
            temperature: Of the shares, above 0.
            own: The entities to sum over, where processes share them. All get their noise, so that generators in one
                state give the noise of one process.

        Side effects: draws Gumbel noise from torch's generator.
        """
        logits = self.selector(teacher)
        shares = gumbel_shares(logits, temperature)
        loss = _AssignmentLoss.apply(
            student[own], teacher[own], shares[own], self.first, self.first_bias, self.second, self.second_bias
        )
        return loss, logits.detach().argmax(1)


def gumbel_shares(logits: Tensor, temperature: float) -> Tensor:
    """Draw how much of each group every entity takes: (n, K) -> (n, K), rows sum to 1, one-hot as temperature -> 0."""
    chances = functional.softmax(logits, dim=1)
    noise = torch.rand_like(chances).clamp_(min=1e-30).log_().neg_().log_().neg_()
    return functional.softmax((torch.log(chances + 1e-10) + noise) / temperature, dim=1)


def expert_width(student_dim: int, teacher_dim: int) -> int:
    """Return the hidden width that DE gives its experts: between ds and dt, or half of them where they are equal."""
    return max(1, student_dim // 2) if student_dim == teacher_dim else (student_dim + teacher_dim) // 2


def require_temperatures(method: object, first: float, last: float) -> None:
    """Raise InputError if a method's first or last temperature gives shares that are no numbers."""
    if not all(1e-30 <= temperature < math.inf for temperature in (first, last)):
        raise InputError(f"{type(method).__name__}: temperatures {first} and {last} must be at least 1e-30.")


def cooled(first: float, last: float, progress: float) -> float:
    """Return the temperature after a share of the training: it falls geometrically from first to last."""
    return first * (last / first) ** progress


class _AssignmentLoss(torch.autograd.Function):
    """The loss with its gradients, which are found together with it: what lies between is never kept."""

    @staticmethod
    def forward(
        ctx: Any, student: Tensor, teacher: Tensor, shares: Tensor, first: Tensor, first_bias: Tensor, second: Tensor,
        second_bias: Tensor,
    ) -> Tensor:  # fmt: skip
        experts, rows = torch.nonzero(shares.T > _RESOLUTION, as_tuple=True)
        if len(rows) > _DENSE_ABOVE * shares.numel():
            residual, gradients = _by_all_experts(student, teacher, shares, first, first_bias, second, second_bias)
        else:
            residual, gradients = _by_used_experts(
                student, teacher, shares, first, first_bias, second, second_bias, experts, rows
            )
        ctx.gradients = gradients
        return torch.dot(residual.view(-1), residual.view(-1))

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        gradients, ctx.gradients = ctx.gradients, None  # they are used up: autograd may keep them as they are
        to_student, *others = (half.mul_(2 * gradient) for half in gradients)
        return to_student, None, *others


def _by_used_experts(
    student: Tensor, teacher: Tensor, shares: Tensor, first: Tensor, first_bias: Tensor, second: Tensor,
    second_bias: Tensor, experts: Tensor, rows: Tensor,
) -> tuple[Tensor, _Gradients]:  # fmt: skip
    """Give each expert only the entities that take something of it.

    Args:
        experts: (pairs,) ascending.
        rows: (pairs,) the entity of each pair.

    Returns:
        (residual (n, dt), half the gradients of its square sum by student, shares, first, first bias, second and second
        bias). Shares without a pair get 0.
    """
    sizes = torch.bincount(experts, minlength=len(first)).tolist()
    entities = student.index_select(0, rows)
    hidden = _each(entities, sizes, first.mT, first_bias).relu_()
    output = _each(hidden, sizes, second, second_bias)
    if len(rows) == len(student):  # each takes all of one expert, and there the shares' softmax is flat
        residual = outer = output.sub_(teacher.index_select(0, rows))
        to_shares = torch.zeros_like(shares)
    else:
        share = shares[rows, experts].unsqueeze(1)
        residual = (-teacher).index_add_(0, rows, output * share)
        outer = residual.index_select(0, rows)
        to_shares = torch.zeros_like(shares).index_put_((rows, experts), output.mul_(outer).sum(1))
        outer.mul_(share)
    to_first, to_second = torch.empty_like(first), torch.empty_like(second)
    for h, o, out in zip(hidden.split(sizes), outer.split(sizes), to_second, strict=True):
        torch.mm(h.T, o, out=out)
    inner = _each(outer, sizes, second.mT).mul_(hidden.sign_())
    for x, i, out in zip(entities.split(sizes), inner.split(sizes), to_first, strict=True):
        torch.mm(i.T, x, out=out)
    to_student = torch.zeros_like(student).index_add_(0, rows, _each(inner, sizes, first))
    to_first_bias = torch.zeros_like(first_bias).index_add_(0, experts, inner)
    to_second_bias = torch.zeros_like(second_bias).index_add_(0, experts, outer)
    return residual, (to_student, to_shares, to_first, to_first_bias, to_second, to_second_bias)


def _each(table: Tensor, sizes: list[int], weights: Tensor, bias: Tensor | None = None) -> Tensor:
    """Multiply successive slices (size_k, n) of a table with weights (K, n, m), add bias (K, m): -> (pairs, m)."""
    result = table.new_empty(len(table), weights.shape[2])
    parts = zip(table.split(sizes), weights, result.split(sizes), strict=True)
    if bias is None:
        for part, weight, out in parts:
            torch.mm(part, weight, out=out)
    else:
        for (part, weight, out), offset in zip(parts, bias, strict=True):
            torch.addmm(offset, part, weight, out=out)
    return result


def _by_all_experts(
    student: Tensor, teacher: Tensor, shares: Tensor, first: Tensor, first_bias: Tensor, second: Tensor,
    second_bias: Tensor,
) -> tuple[Tensor, _Gradients]:  # fmt: skip
    """Scale the stacked hidden layers (n, K h) by the shares and multiply once with the stacked second layers.

    Returns:
        As `_by_used_experts`.
    """
    num_groups, hidden_dim = first_bias.shape
    stacked_first, stacked_second = first.flatten(0, 1), second.flatten(0, 1)
    residual, to_student, to_shares = torch.empty_like(teacher), torch.empty_like(student), torch.empty_like(shares)
    to_first, to_second = torch.zeros_like(stacked_first), torch.zeros_like(stacked_second)
    to_first_bias = torch.zeros_like(first_bias).flatten()
    tables = (student, teacher, shares, residual, to_student, to_shares)
    for x, t, z, out_residual, out_student, out_shares in zip(*(table.split(_ROWS) for table in tables), strict=True):
        hidden = torch.addmm(first_bias.flatten(), x, stacked_first.T).relu_()
        weights = z.repeat_interleave(hidden_dim, 1)
        scaled = hidden * weights
        outer = torch.addmm(torch.addmm(-t, z, second_bias), scaled, stacked_second)
        out_residual.copy_(outer)
        inner = outer @ stacked_second.T
        torch.sum((inner * hidden).view(-1, num_groups, hidden_dim), 2, out=out_shares)
        inner.mul_(hidden.sign_().mul_(weights))
        torch.mm(inner, stacked_first, out=out_student)
        to_first.addmm_(inner.T, x)
        to_first_bias.add_(inner.sum(0))
        to_second.addmm_(scaled.T, outer)
    return residual, (
        to_student,
        to_shares.addmm_(residual, second_bias.T),
        to_first.view_as(first),
        to_first_bias.view_as(first_bias),
        to_second.view_as(second),
        shares.T @ residual,
    )
