"""How do the topology terms grow with the number of entities?

    python benchmarks/topology_growth.py

Forward and backward of FTD's term and of HTD's entity level (even groups), in kdrec's forms and in the published ones,
which hold b x b tables and so end at --tables entities (10,000 need about 4 GiB). Medians, in one run, same threads.
The growth is the exponent between a size and the one before it: 1 is a cost per entity, 2 a cost per pair. Prints a
table and draws it, time against entities, both axes logarithmic. Needs matplotlib: python -m pip install '.[study]'.
"""

import argparse
import importlib
import math
import os
import resource
import statistics
import sys
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import published
import torch
from published import clock
from torch import Tensor

from kdrec.distillation.topology import grouped_distance, normalise, topology_distance

SIZES = (1_000, 3_000, 10_000, 30_000, 100_000)
STUDENT_DIM, TEACHER_DIM, GROUPS = 20, 200, 60  # 30 groups of users and 30 of items
Term = Callable[[Tensor, Tensor, Tensor], Tensor]  # student and teacher vectors, and groups -> scalar
Times = dict[int, float]  # entities -> seconds


def ftd(student: Tensor, teacher: Tensor, groups: Tensor) -> Tensor:
    """Compare all pairs."""
    return topology_distance(normalise(student), normalise(teacher))


def reference(student: Tensor, teacher: Tensor, groups: Tensor) -> Tensor:
    """Compare the pairs of one group whose teacher's cosine is above 0: as many tables as groups, cut into rows."""
    return grouped_distance(normalise(student), normalise(teacher), groups, GROUPS, positive_only=True)


def paper(student: Tensor, teacher: Tensor, groups: Tensor) -> Tensor:
    """Compare all pairs of one group: tables of small groups, products of large ones."""
    return grouped_distance(normalise(student), normalise(teacher), groups, GROUPS)


TERMS: dict[str, tuple[Term, Term]] = {  # kdrec's form, and the published one
    "FTD": (ftd, lambda student, teacher, groups: published.ftd(student, teacher)),
    "HTD, mode reference": (reference, lambda *inputs: published.entity_level(*inputs, positive_only=True)),
    "HTD, mode paper": (paper, lambda *inputs: published.entity_level(*inputs, positive_only=False)),
}


def seconds(term: Term, entities: int, repeats: int, device: torch.device) -> float:
    """Return the median time of value and gradient."""
    torch.manual_seed(0)
    student = torch.randn(entities, STUDENT_DIM, device=device, requires_grad=True)
    teacher = torch.randn(entities, TEACHER_DIM, device=device)
    groups = torch.randperm(entities, device=device) % GROUPS
    times = []
    for _ in range(repeats + 1):
        start = clock()
        torch.autograd.grad(term(student, teacher, groups), student)
        times.append(clock() - start)
    return statistics.median(times[1:])


def growth(times: Times) -> dict[int, float]:
    """Return the exponent between each size and the one before it."""
    return {b: math.log(times[b] / times[a]) / math.log(b / a) for a, b in pairwise(times)}


def show(name: str, ours: Times, theirs: Times) -> None:
    """Print the lines of a term."""
    our_growth, their_growth = growth(ours), growth(theirs)
    for size, time in ours.items():
        line = (
            f"{name:<20} {size:>8,} {time * 1e3:>10.2f} ms {time / size * 1e6:>8.2f} us {_exponent(our_growth, size)}"
        )
        if size in theirs:
            line += f"{theirs[size] * 1e3:>12.1f} ms {_exponent(their_growth, size)} {theirs[size] / time:>9.0f} x"
        print(line, flush=True)
        name = ""


def _exponent(exponents: dict[int, float], size: int) -> str:
    return f"{exponents[size]:>7.2f}" if size in exponents else f"{'':>7}"


def draw(results: dict[str, tuple[Times, Times]], title: str, path: Path) -> None:
    """Plot time against entities: kdrec's forms with lines, the published ones dashed."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.2, 4.8), layout="constrained")
    axes = figure.subplots()
    for (name, (ours, theirs)), colour in zip(results.items(), ("#0072b2", "#d55e00", "#009e73"), strict=True):
        axes.loglog(list(ours), list(ours.values()), "o-", color=colour, label=f"{name}, kdrec")
        axes.loglog(
            list(theirs), list(theirs.values()), "s--", color=colour, markersize=4, mfc="white", label=f"{name}, b x b"
        )
    sizes = list(next(iter(results.values()))[0])
    low, high, base = min(sizes), max(sizes), min(min(ours.values()) for ours, _ in results.values()) / 2
    for power in (1, 2):
        top = base * (high / low) ** power
        axes.loglog([low, high], [base, top], ":", color="0.6", linewidth=1)
        axes.annotate(
            "$b$" if power == 1 else "$b^2$", (high, top), color="0.4", xytext=(3, -3), textcoords="offset points"
        )
    axes.set(xlabel="entities b", ylabel="seconds, forward and backward", title=title)
    axes.grid(which="major", color="0.9")
    axes.legend(frameon=False, fontsize=8, handlelength=3.5)
    figure.savefig(path, dpi=150)


def main() -> None:
    """Measure, print, draw."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5, help="repetitions of each form; the median counts")
    parser.add_argument("--largest", type=int, default=max(SIZES), help="entities at most")
    parser.add_argument("--tables", type=int, default=10_000, help="entities at most of the published forms")
    parser.add_argument("--figure", type=Path, default=Path("topology_growth.png"), help="file to draw into")
    parser.add_argument("--accelerator", choices=("auto", "cpu"), default="auto")
    options = parser.parse_args()
    try:
        importlib.import_module("matplotlib")
    except ImportError:
        sys.exit("There is no matplotlib, which the figure needs; install it with python -m pip install '.[study]'.")
    gpu = options.accelerator == "auto" and torch.cuda.is_available()
    device = torch.device("cuda" if gpu else "cpu")
    sizes = [size for size in SIZES if size <= options.largest]
    print(
        f"torch {torch.__version__}, {device}, {torch.get_num_threads()} threads, load {os.getloadavg()[0]:.1f} on "
        f"{os.cpu_count()} cores; widths {STUDENT_DIM}/{TEACHER_DIM}, {GROUPS} even groups"
    )
    measured = {
        name: {size: seconds(term, size, options.repeats, device) for size in sizes}
        for name, (term, _) in TERMS.items()
    }
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    results = {}
    titles = f"{'entities':>8} {'kdrec':>13} {'an entity':>11} {'growth':>7} {'b x b':>14} {'growth':>7} {'ratio':>11}"
    print(f"{'':<20} {titles}")
    for name, (_, tables) in TERMS.items():
        theirs = {size: seconds(tables, size, options.repeats, device) for size in sizes if size <= options.tables}
        results[name] = (measured[name], theirs)
        show(name, *results[name])
    print(
        f"kdrec's forms: whole process at most {peak:.2f} GiB; one b x b table of {sizes[-1]:,} entities: "
        f"{sizes[-1] ** 2 * 4 / 2**30:.1f} GiB"
    )
    draw(results, f"Topology terms, widths {STUDENT_DIM}/{TEACHER_DIM}, {device}", options.figure)
    print(f"Drawn: {options.figure}")


if __name__ == "__main__":
    main()
