"""The least time a step can take on this machine: what it must move and multiply, over what the machine can do.

Counts are of kdrec's own forms and leave out all that is small. Nothing is counted for Python, for starting operations
or for element-wise work in caches, so a measured time is above its limit, and how far says what could be won.
"""

from collections.abc import Callable

import torch
from published import BATCH, clock

from kdrec.distillation.assignment import gumbel_shares

FLOAT = 4  # bytes


class Machine:
    """What the machine can do, measured: multiply matrices, and move numbers.

    Attributes:
        rate: Floating-point operations a second, in a product of 2000 x 2000 matrices.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        a, b = torch.randn(2, 2000, 2000, device=device)
        self.rate = 2 * 2000**3 / _fastest(lambda: a @ b)
        self._bandwidths: dict[int, float] = {}

    def bandwidth(self, size: int) -> float:
        """Return bytes a second, read plus written, in arrays of ``size`` bytes together: caches help small ones."""
        if size not in self._bandwidths:
            a, b = torch.ones(2, size // FLOAT // 2, device=self.device)
            in_place = 2 * size / _fastest(lambda: a.mul_(1.0), lambda: b.mul_(1.0))  # all of it read and written
            copied = size / _fastest(lambda: b.copy_(a))  # one half read, the other written
            self._bandwidths[size] = max(in_place, copied)
        return self._bandwidths[size]

    def seconds(self, numbers: float, operations: float, size: int) -> float:
        """Return the least time: what moves and what multiplies are different parts of a step, so the times add."""
        return numbers * FLOAT / self.bandwidth(size) + operations / self.rate


def _fastest(*works: Callable[[], object]) -> float:
    """Return the seconds of the fastest turn of some works, one after the other; tried for a second."""
    at_once = 10 if torch.cuda.is_available() else 1  # on a GPU, so that starting and waiting do not count
    times: list[float] = []
    end = clock() + 1
    while len(times) < 3 or clock() < end:
        start = clock()
        for work in works * at_once:
            work()
        times.append((clock() - start) / at_once)
    return min(times)


class Step:
    """Numbers that a training step must move, and its floating-point operations.

    Args:
        users: Unique users of a batch.
        items: Unique items.
        dim: Width of the model that is trained.
        parameters: All weights that are trained, those of the distiller too.
    """

    def __init__(self, users: float, items: float, dim: int, parameters: int) -> None:
        self.users, self.items, self.entities, self.dim = users, items, users + items, dim
        self.size = 4 * parameters * FLOAT  # bytes of weights, gradient and two moments
        self.numbers = 8.0 * parameters  # gradient made; all four read; weights and moments written
        self.numbers += 9 * BATCH * dim  # three rows a sample: read, then read and written in the gradient
        self.operations = 0.0

    def ftd(self, teacher_dim: int) -> "Step":
        """Add FTD in the factored form."""
        b, ds, dt = self.entities, self.dim, teacher_dim
        self.numbers += 3 * b * dt + 5 * b * ds  # teacher: gathered, read; student: also normalised; its gradient
        self.operations += 2 * b * (ds * ds + ds * dt + dt * dt)  # value: S'S, T'S, and T'T
        self.operations += 2 * b * (ds * ds + ds * dt)  # gradient: S S'S - T T'S
        return self

    def htd(self, teacher_dim: int, num_groups: int, used: float) -> "Step":
        """Add HTD in kdrec's form, as if groups were even, which is cheapest.

        Args:
            teacher_dim: dt.
            num_groups: On each side.
            used: Share of all pairs of entity and expert whose expert is evaluated.
        """
        b, ds, dt, hidden = self.entities, self.dim, teacher_dim, (self.dim + teacher_dim) // 2
        inside = (self.users**2 + self.items**2) / num_groups  # pairs of entities of one group
        self.numbers += 3 * b * dt + 5 * b * ds
        # experts: value, gradient of the input, gradient of the weights
        self.operations += 3 * 2 * used * b * num_groups * hidden * (ds + dt)
        self.operations += inside * (dt + ds) + 2 * inside * ds  # entity level: half of both tables, and the gradient
        self.operations += 2 * 2 * num_groups * b * (dt + ds + ds)  # group level: prototypes against entities
        self.operations += 4 * 2 * b * num_groups * dt  # selector and second biases: value and gradient
        return self


def share_used(temperature: float, num_groups: int) -> float:
    """Return the share of pairs of entity and expert whose part float32 can see, with an even selector."""
    torch.manual_seed(0)
    return (gumbel_shares(torch.zeros(2000, num_groups), temperature) > 1e-7).double().mean().item()


def evaluation(machine: Machine, users: int, items: int, dim: int, chunk: int) -> float:
    """Return the least seconds to rank all items for all users twice, for validation and for test."""
    operations = 2 * users * items * dim
    numbers = 2 * users * items  # scores are written and read once
    return 2 * machine.seconds(numbers, operations, chunk * items * FLOAT)
