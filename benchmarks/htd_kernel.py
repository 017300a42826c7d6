"""How much cheaper is HTD by blocks and by the experts in use than its published form?

    python benchmarks/htd_kernel.py

Forward and backward of one step's loss at the sizes of CiteULike batches (717 users, 1,925 items, widths 20 and 200,
30 groups a side), mode reference, at several temperatures. The published form evaluates every expert for every entity,
stacks their outputs in a (b, dt, K) tensor, and masks b x b tables. Medians, in one run, same threads.
"""

import argparse
import statistics
import time
from collections.abc import Callable

import published
import torch
from torch import Tensor

from kdrec.data.sampling import Batch
from kdrec.distillation.base import Teacher
from kdrec.distillation.htd import HTD
from kdrec.models.bpr import BPR


def median_seconds(work: Callable[[], Tensor], repeats: int) -> float:
    """Time forward and backward."""
    work().backward()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        work().backward()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def main() -> None:
    """Compare both forms."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=7, help="repetitions of each form; the median counts")
    options = parser.parse_args()
    torch.manual_seed(0)
    student, model = BPR(20, init_std=1.0), BPR(200, init_std=1.0)
    for recommender in (student, model):
        recommender.build(717, 1925)
    teacher = Teacher(model)
    distiller = HTD(scope="all")
    distiller.bind(student, teacher, None)  # type: ignore[arg-type]
    nothing = torch.empty(0, dtype=torch.int64)
    batch = Batch(nothing, nothing, nothing.view(0, 1))
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads; one step, forward and backward")
    print("temperature   value error   published       kdrec     ratio")
    for temperature in (1.0, 0.1, 0.01, 1e-10):
        distiller.temperature = temperature

        def fast() -> Tensor:
            return torch.stack(list(distiller(batch, student, teacher).values())).sum()

        def slow() -> Tensor:
            ours, theirs = (
                (student.users.weight, student.items.weight),
                (teacher.user_vectors(), teacher.item_vectors()),
            )
            return published.htd(distiller, ours, theirs)

        values = []
        for form in (fast, slow):
            torch.manual_seed(1)
            values.append(form().item())
        slow_time = median_seconds(slow, options.repeats)
        fast_time = median_seconds(fast, options.repeats)
        print(
            f"{temperature:>11g} {abs(values[0] / values[1] - 1):>13.1e} {slow_time * 1e3:>8.0f} ms "
            f"{fast_time * 1e3:>8.1f} ms {slow_time / fast_time:>7.1f} x"
        )


if __name__ == "__main__":
    main()
