"""How much cheaper is FTD's factored form than the published table of all pairs, and is it the same?

    python benchmarks/ftd_kernel.py

Prints the error against the table in float64, the ratio of times (medians, forward and backward, one run, same
threads), and the peak memory of a fresh process at 100,000 entities.
"""

import argparse
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable

import torch
from torch import Tensor

from kdrec.distillation.topology import normalise, topology_distance


def by_table(student: Tensor, teacher: Tensor) -> Tensor:
    """FTD as published: both tables of cosines, then the sum of squared differences."""
    return (teacher @ teacher.T - student @ student.T).square().sum()


def entities(n: int, student_dim: int, teacher_dim: int) -> tuple[Tensor, Tensor]:
    """Draw raw vectors in float64."""
    torch.manual_seed(0)
    return torch.randn(n, student_dim, dtype=torch.float64), torch.randn(n, teacher_dim, dtype=torch.float64)


def value_and_gradient(
    distance: Callable[[Tensor, Tensor], Tensor], vectors: Tensor, teacher: Tensor
) -> tuple[Tensor, Tensor]:
    """Differentiate through the normalisation, as a training step does."""
    vectors = vectors.clone().requires_grad_()
    value = distance(normalise(vectors), normalise(teacher))
    (gradient,) = torch.autograd.grad(value, vectors)
    return value, gradient


def median_seconds(work: Callable[[], object], repeats: int) -> float:
    """Time a piece of work."""
    work()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def compare(n: int, student_dim: int, teacher_dim: int, repeats: int) -> None:
    """Print one line of errors and times."""
    vectors, teacher = entities(n, student_dim, teacher_dim)
    exact, exact_gradient = value_and_gradient(by_table, vectors, teacher)
    single = vectors.float(), teacher.float()
    value, gradient = value_and_gradient(topology_distance, *single)
    value_error = abs(value.item() / exact.item() - 1)
    gradient_error = ((gradient.double() - exact_gradient).norm() / exact_gradient.norm()).item()
    slow = median_seconds(lambda: value_and_gradient(by_table, *single), repeats)
    fast = median_seconds(lambda: value_and_gradient(topology_distance, *single), repeats * 4)
    print(
        f"{n:>8,} {student_dim:>4}/{teacher_dim:<4} {value_error:>12.1e} {gradient_error:>15.1e} "
        f"{slow * 1e3:>10.1f} ms {fast * 1e3:>10.2f} ms {slow / fast:>8.1f} x"
    )


def large(n: int) -> None:
    """Run one step at a size whose table would not fit, and print the process's peak memory."""
    vectors, teacher = (table.float() for table in entities(n, 20, 200))
    start = time.perf_counter()
    value_and_gradient(topology_distance, vectors, teacher)
    seconds = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    table = n * n * 4 / 2**30
    print(f"{n:,} entities, 20/200: {seconds:.2f} s, whole process at most {peak:.2f} GiB; one table: {table:.0f} GiB")


def main() -> None:
    """Run all comparisons."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=10, help="repetitions of the slow form; the median counts")
    parser.add_argument("--large", type=int, help="run only the memory question, at this many entities")
    options = parser.parse_args()
    if options.large:
        large(options.large)
        return
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads; errors against the table in float64")
    print("entities  widths  value error  gradient error        table      factored     ratio")
    for n, student_dim, teacher_dim in ((1000, 20, 200), (3000, 20, 200), (3000, 100, 200), (3000, 200, 200)):
        compare(n, student_dim, teacher_dim, options.repeats)
    subprocess.run([sys.executable, __file__, "--large", "100000"], check=True)


if __name__ == "__main__":
    main()
