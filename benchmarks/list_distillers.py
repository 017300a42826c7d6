"""What methods of lists cost: epochs of a BPR of width 20 with each of them, against epochs of the same BPR alone.

    python benchmarks/list_distillers.py --teacher checkpoints/kdd21_teacher/RUN/last.ckpt

Epochs are those of ``kdrec fit`` on configs/kdd21*.yaml, in this process and a temporary folder, with sampling,
checkpoints and logger, without the progress bar: from an epoch's start to the next one's, less validation. Medians of
epochs after a first one that is not counted; BPR alone is timed before and after each method, since machines have
moods. Where a line says histories, both have batches of whole histories, of about 500 users, so that each user's list
is scored once an epoch. Wanted: at most twice the time of BPR alone. The teacher's lists are made first and timed
apart: once for each teacher, then they are read. With --written-out, RRD's epochs are timed in its plain form too:
every entry of the lists looked up, and a loss of logarithms with autograd's gradient. Needs the split (see
data/README.md) in data/ or $KDREC_DATA.
"""

import argparse
import contextlib
import os
import statistics
import tempfile
from collections.abc import Iterator
from pathlib import Path
from unittest import mock

import torch
from published import clock
from stopwatch import Watch, kdrec
from torch import Tensor

from kdrec.data.files import InteractionFiles
from kdrec.distillation import rrd
from kdrec.distillation.base import Teacher
from kdrec.distillation.lists import top_lists
from kdrec.models.base import DotProductRecommender

CONFIGS = Path(__file__).resolve().parent.parent / "configs"
CATALOGUE = ("--model.init_args.distiller.init_args.over", "catalogue")
RANK = ("--model.init_args.distiller.init_args.sampling", "rank")
HISTORIES = ("--data.init_args.samples", "histories", "--data.init_args.batch_size", 11264)
METHODS: dict[str, tuple[str, tuple[str, ...], tuple[object, ...]]] = {  # config, its options, those of both
    "RRD": ("kdd21_rrd", (), ()),
    "RRD, sampling by rank": ("kdd21_rrd", RANK, ()),
    "SoftmaxKD": ("kdd21_softmax_kd", (), ()),
    "SoftmaxKD over the catalogue": ("kdd21_softmax_kd", CATALOGUE, ()),
    "IR-RRD": ("kdd21_ir_rrd", (), ()),
    "IR-RRD, sampling by rank": ("kdd21_ir_rrd", RANK, ()),
    "RRD, histories": ("kdd21_rrd", (), HISTORIES),
    "SoftmaxKD, histories": ("kdd21_softmax_kd", (), HISTORIES),
    "SoftmaxKD over the catalogue, histories": ("kdd21_softmax_kd", CATALOGUE, HISTORIES),
    "IR-RRD, histories": ("kdd21_ir_rrd", (), HISTORIES),
}


def written_out(interesting: Tensor, uninteresting: Tensor) -> Tensor:
    """RRD's loss as its formula stands, by sums of exponentials that cannot overflow."""
    rest = torch.logcumsumexp(interesting.flip(1), dim=1).flip(1)
    return (torch.logaddexp(rest, torch.logsumexp(uninteresting, dim=1, keepdim=True)) - interesting).sum()


@contextlib.contextmanager
def plain() -> Iterator[None]:
    """Let all lists be looked up entry by entry, and RRD's loss have autograd's gradient."""
    with (
        mock.patch.object(DotProductRecommender, "_makes_whole_tables", return_value=False),
        mock.patch.object(rrd, "relaxed_ranking", written_out),
    ):
        yield


class Bench:
    """Data, threads and teacher."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.root = Path("data").resolve()
        self.repeats = options.repeats
        self.trainer = ("--trainer.accelerator", options.accelerator, "--trainer.devices", 1)
        self.trainer += ("--trainer.enable_progress_bar", "false")
        self.teacher = Path(options.teacher).resolve() if options.teacher else None

    def fit(self, config: str, epochs: int, *more: object) -> Watch:
        """Train by the command line."""
        distilled = () if config in ("kdd21", "kdd21_teacher") else ("--model.init_args.teacher", self.teacher)
        options = ("--data.init_args.root", self.root, "--trainer.max_epochs", epochs, *self.trainer, *more)
        return kdrec("fit", "--config", CONFIGS / f"{config}.yaml", *distilled, *options)

    def report_lists(self) -> None:
        """Make the lists of both sides without a cache, and time that."""
        data = InteractionFiles("citeulike-kdd21", "train.tsv", "valid.tsv", "test.tsv", root=str(self.root))
        teacher = Teacher(Teacher.load(str(self.teacher), data.split.train).recommender)
        seconds = []
        for side in ("users", "items"):
            start = clock()
            top_lists(teacher, data.split.train, 500, side)  # type: ignore[arg-type]
            seconds.append(clock() - start)
        print(f"Lists of 500 items for each user {seconds[0]:.1f} s, of 500 users for each item {seconds[1]:.1f} s\n")

    def report(self, name: str, config: str, options: tuple[str, ...], data: tuple[object, ...]) -> None:
        """Print a line of the table."""
        alone, ours = [], []
        for one in ("before", "after"):
            alone += self.fit("kdd21", self.repeats + 1, *data).epochs[1:]
            if one == "before":
                ours = self.fit(config, self.repeats + 1, *options, *data).epochs[1:]
        base, method = statistics.median(alone), statistics.median(ours)
        print(f"{name:<40} {base:>11.3f} s {method:>11.3f} s {method / base:>8.2f} x", flush=True)


def main() -> None:
    """Measure in a temporary folder."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5, help="counted epochs of each fit; the median counts")
    parser.add_argument("--teacher", help="checkpoint of width 200; default: one of two epochs, trained first")
    parser.add_argument("--accelerator", default="cpu", help="as --trainer.accelerator of kdrec fit")
    parser.add_argument("--written-out", action="store_true", help="time RRD's plain form too")
    options = parser.parse_args()
    if "KDREC_DATA" in os.environ:
        os.environ["KDREC_DATA"] = str(Path(os.environ["KDREC_DATA"]).resolve())
    bench = Bench(options)
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        if bench.teacher is None:
            bench.fit("kdd21_teacher", 2)
            bench.teacher = next(Path("checkpoints").glob("*/*/last.ckpt")).resolve()
        print(
            f"torch {torch.__version__}, {options.accelerator}, {torch.get_num_threads()} threads, "
            f"load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores; medians of {bench.repeats} epochs"
        )
        bench.report_lists()
        print(f"{'':<40} {'BPR alone':>13} {'with it':>13} {'ratio':>10}")
        for name, said in METHODS.items():
            bench.report(name, *said)
        if options.written_out:
            with plain():
                bench.report("RRD written out", *METHODS["RRD"])


if __name__ == "__main__":
    main()
