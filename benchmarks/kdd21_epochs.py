"""Whole epochs of the KDD'21 CiteULike runs: the published form, kdrec as a user runs it, and the machine's limit.

    python benchmarks/kdd21_epochs.py

kdrec's epochs are those of ``kdrec fit`` on configs/kdd21*.yaml, in this process and a temporary folder, with sampling,
checkpoints and logger, without the progress bar: from an epoch's start to the next one's, less validation. The
published form is that of benchmarks/published.py, in the same process, on the same threads, and the limit that of
benchmarks/limits.py. Medians of epochs after a first one that is not counted, in one run, the published ones before and
after kdrec's. The memory of HTD's training is that of a fresh process. Needs the split (see data/README.md) in data/ or
$KDREC_DATA.
"""

import argparse
import contextlib
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from itertools import pairwise
from pathlib import Path

import published
import torch
from limits import Machine, Step, evaluation, share_used
from published import clock
from stopwatch import Watch, kdrec, memory
from torch import Tensor

from kdrec.data.files import InteractionFiles
from kdrec.distillation.base import Teacher, batch_entities
from kdrec.distillation.htd import HTD
from kdrec.models.bpr import BPR

CONFIGS = Path(__file__).resolve().parent.parent / "configs"
SCHEDULE = (0, 5, 8, 10, 13, 20, 50, 100)  # epochs of 100 at whose temperature, 10 ** (-epoch / 10), HTD is timed
WIDE, NARROW = 200, 20


class Bench:
    """Data, device and teacher, and the trainings of both sides."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.root = Path("data").resolve()
        self.teacher = Path(options.teacher).resolve() if options.teacher else None
        self.trainer = ("--trainer.accelerator", options.accelerator, "--trainer.devices", 1)
        self.trainer += ("--trainer.enable_progress_bar", "false")
        gpu = options.accelerator in ("auto", "gpu", "cuda") and torch.cuda.is_available()
        self.device = torch.device("cuda" if gpu else "cpu")

    def fit(self, config: str, epochs: int, *more: object) -> Watch:
        """Train by the command line."""
        distilled = ("--model.init_args.teacher", self.teacher) if config in ("kdd21_ftd", "kdd21_htd") else ()
        options = ("--data.init_args.root", self.root, "--trainer.max_epochs", epochs, *self.trainer, *more)
        return kdrec("fit", "--config", CONFIGS / f"{config}.yaml", *distilled, *options)

    def fit_htd(self, temperature: float, epochs: int) -> Watch:
        """Train by HTD at one temperature."""
        key = "--model.init_args.distiller.init_args"
        fixed = (f"{key}.first_temperature", temperature, f"{key}.last_temperature", temperature)
        return self.fit("kdd21_htd", epochs, *fixed)

    def load(self) -> None:
        """Read data and teacher for the published side, and count a batch's entities."""
        data = InteractionFiles("citeulike-kdd21", "train.tsv", "valid.tsv", "test.tsv", root=str(self.root))
        self.split, loader = data.split, data.train_dataloader()
        self.vectors = Teacher.load(str(self.teacher), self.split.train).to(self.device)
        self.steps = len(loader)
        counts = [[len(side) for side in batch_entities(batch)] for batch in loader]
        self.users, self.items = (statistics.fmean(column) for column in zip(*counts, strict=True))

    def published(
        self, dim: int, term: published.Term | None = None, distiller: HTD | None = None
    ) -> tuple[published.Training, Step]:
        """Return a training in the published form, warm, and the counts of its step without distillation."""
        torch.manual_seed(0)
        training = published.Training(self.split.train, dim, self.device, term, distiller)
        training.epoch(steps=2)
        parameters = sum(weights.numel() for group in training.optimizer.param_groups for weights in group["params"])
        return training, Step(self.users, self.items, dim, parameters)

    def distiller(self, temperature: float) -> HTD:
        """Return a fresh HTD, for its weights."""
        torch.manual_seed(0)
        distiller, student = HTD(first_temperature=temperature), BPR(NARROW)
        student.build(1, 1)
        distiller.bind(student.to(self.device), self.vectors, self.split.train)
        return distiller.to(self.device)

    def ftd(self, users: Tensor, items: Tensor, student: BPR) -> Tensor:
        """Return FTD's published term."""
        theirs = torch.cat((self.vectors.user_vectors(users), self.vectors.item_vectors(items)))
        return 1e-3 * published.ftd(torch.cat((student.users(users), student.items(items))), theirs)

    def htd(self, distiller: HTD, users: Tensor, items: Tensor, student: BPR) -> Tensor:
        """Return HTD's published term."""
        theirs = self.vectors.user_vectors(users), self.vectors.item_vectors(items)
        return published.htd(distiller, (student.users(users), student.items(items)), theirs)


def line(name: str, slow: Iterable[float], fast: Iterable[float], limit: float) -> tuple[float, float]:
    """Print a line of the table; return the medians."""
    theirs, ours = statistics.median(slow), statistics.median(fast)
    last = f"{limit:>9.3f} s {ours / limit:>11.1f} x"
    print(f"{name:<26} {theirs:>9.2f} s {ours:>9.2f} s {theirs / ours:>8.1f} x {last}", flush=True)
    return theirs, ours


def report_times(bench: Bench, repeats: int, steps: int) -> None:
    """Print the table row by row, then the estimate of a whole run of HTD."""
    machine, given = Machine(bench.device), bench.teacher
    if not given:
        bench.fit("kdd21_teacher", repeats + 1)
        bench.teacher = next(Path("checkpoints").glob("*/*/last.ckpt")).resolve()
    bench.load()
    bandwidth = f"{machine.bandwidth(1 << 29) / 1e9:.0f} GB/s in 512 MiB, {machine.bandwidth(10 << 20) / 1e9:.0f} in 10"
    print(
        f"torch {torch.__version__}, {bench.device}, {torch.get_num_threads()} threads, "
        f"load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores; {machine.rate / 1e9:.0f} GFLOP/s; {bandwidth}\n"
        f"Epochs of {bench.steps} steps with {bench.users:.0f} users and {bench.items:.0f} items; "
        f"medians of {repeats}; published HTD from {steps} steps before and after, scaled\n\n"
        f"{'':<26} {'published':>11} {'kdrec':>11} {'ratio':>10} {'limit':>11} {'kdrec/limit':>13}"
    )

    def row(
        name: str, fit: Callable[[], Watch], training: published.Training, step: Step, part: int | None = None
    ) -> tuple[float, float]:
        slow = [training.epoch(part) for _ in range(1 if part else repeats)]
        ours = fit()
        slow += [training.epoch(part) for _ in range(1 if part else repeats)]  # on both sides: machines have moods
        limit = bench.steps * machine.seconds(step.numbers, step.operations, step.size)
        return line(name, slow, ours.epochs[1:], limit)

    row("BPR 200", partial(bench.fit, "kdd21_teacher", repeats + 1), *bench.published(WIDE))
    narrow, step = bench.published(NARROW)
    row("BPR 20", partial(bench.fit, "kdd21", repeats + 1), narrow, step)
    training, step = bench.published(NARROW, bench.ftd)
    row("FTD 20", partial(bench.fit, "kdd21_ftd", repeats + 1), training, step.ftd(WIDE))
    at = []
    for epoch in SCHEDULE:
        temperature = 10 ** (-epoch / 10)
        distiller = bench.distiller(temperature)
        training, step = bench.published(NARROW, partial(bench.htd, distiller), distiller)
        step.htd(WIDE, distiller.num_groups, share_used(temperature, distiller.num_groups))
        fit = partial(bench.fit_htd, temperature, repeats + 1)
        at.append(row(f"HTD 20, temperature {temperature:.1g}", fit, training, step, steps))
    watch = bench.fit("kdd21", repeats + 1, "--name", "evaluated", "--trainer.check_val_every_n_epoch", 1)
    ranked = ("test", "--ckpt_path", next(Path("checkpoints").glob("evaluated/*/last.ckpt")), *bench.trainer)
    tests = [kdrec(*ranked).evaluations[0] for _ in range(repeats)]
    both = [valid + test for valid, test in zip(watch.evaluations[1:], tests, strict=True)]
    slow = []
    for _ in range(repeats):
        start = clock()
        published.evaluate(narrow.model, bench.split, narrow.seen, bench.device)
        slow.append(clock() - start)
    train = bench.split.train
    line("evaluation, valid + test", slow, both, evaluation(machine, train.num_users, train.num_items, NARROW, 256))
    theirs, ours = (over_schedule(column) for column in zip(*at, strict=True))
    print(
        f"\nHTD 20, the training of a run of 100 epochs: {theirs:,.0f} s published, {ours:,.0f} s kdrec, "
        f"{theirs / ours:.1f} x. An estimate: epochs are timed\nwith the temperature held at that of epochs "
        f"{', '.join(map(str, SCHEDULE))}, and the lines between these points integrated.\n"
        f"What HTD costs depends on how even its groups are, so on the teacher: "
        f"{'it was given' if given else f'here one of {repeats + 1} epochs'}. Limits are for even groups."
    )


def over_schedule(seconds: Sequence[float]) -> float:
    """Integrate an epoch's seconds over 100 epochs, linear between those of `SCHEDULE`."""
    points = pairwise(zip(SCHEDULE, seconds, strict=True))
    return sum((end - begin) * (first + last) / 2 for (begin, first), (end, last) in points)


def report_memory(bench: Bench) -> None:
    """Train one epoch by HTD at temperature 1, which needs most, and say by how much the process grew."""
    watch = bench.fit_htd(1.0, 1)
    print(
        f"Memory of HTD 20 at temperature 1, in a fresh process: {watch.before:.0f} MiB after its imports;\nabove that "
        f"{watch.loaded - watch.before:.0f} MiB with data, teacher and model loaded, and "
        f"{memory(peak=True) - watch.before:.0f} MiB at the peak (wanted: at most 300)"
    )


def main() -> None:
    """Measure in a temporary folder."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=3, help="counted epochs of each row; the median counts")
    parser.add_argument("--steps", type=int, default=20, help="of an epoch of published HTD, scaled to a whole one")
    parser.add_argument("--teacher", help="checkpoint of width 200; default: one of a few epochs, trained first")
    parser.add_argument("--accelerator", default="auto", help="as --trainer.accelerator of kdrec fit")
    parser.add_argument("--memory", action="store_true", help="only the memory of HTD; needs --teacher")
    options = parser.parse_args()
    if "KDREC_DATA" in os.environ:
        os.environ["KDREC_DATA"] = str(Path(os.environ["KDREC_DATA"]).resolve())
    bench, script = Bench(options), Path(__file__).resolve()
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        if options.memory:
            report_memory(bench)
            return
        report_times(bench, options.repeats, options.steps)
        again = ["--memory", "--teacher", str(bench.teacher), "--accelerator", options.accelerator]
        sys.stdout.flush()
        subprocess.run([sys.executable, str(script), *again], check=True)


if __name__ == "__main__":
    main()
