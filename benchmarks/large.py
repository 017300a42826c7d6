"""How do time and memory grow from 10,000 users, 10,000 items and 1 million pairs to a hundred times as many?

    python benchmarks/large.py

Generates each catalogue (popularity by a power law, planted clusters of users and items) as a Parquet file, and, in a
process of its own, reads and cuts it, trains BPR of width 32 with LazyAdam, alone and with FTD (scope batch) from an
untrained teacher of width 64, ranks the whole catalogue for a sample of users, and writes and reads a checkpoint, all
by kdrec's own modules. Prints the time of each stage, its rate, and the process's peak while it ran, and how the time a
row (pair, user, MiB) grew. Times are those of the processor, one thread, so that other programs disturb little. A
training takes at most --steps steps, and the epoch is extrapolated from these. Needs Linux, pyarrow, and at full size
2 GB of disk for the file and as much for the checkpoint: python -m pip install '.[parquet]'.
"""

import argparse
import gc
import json
import logging
import os
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import torch
from stopwatch import memory

from kdrec.data.files import InteractionFiles
from kdrec.data.splits import LeaveOneOut
from kdrec.distillation.base import Teacher
from kdrec.distillation.ftd import FTD
from kdrec.models import checkpoint
from kdrec.models.bpr import BPR
from kdrec.training.distillation import DistillationModule
from kdrec.training.optimizers import LazyAdam
from kdrec.training.ranking import RankingModule

SHARES = (0.01, 0.1, 1.0)
USERS, ITEMS = 1_000_000, 1_000_000  # of the share 1
DRAWN = 150  # pairs of a user on average, of which some come twice and are dropped
CLUSTER, LOYALTY, HEAD = 1000, 0.7, 1000  # items of a cluster; share of pairs in the own one; where the power law bends
TOGETHER = 2_000  # users that are generated together
WIDTH, TEACHER_WIDTH = 32, 64
WARM = 50  # steps that are not counted
NAME, FILE = "large", "log.parquet"


def generate(share: float, folder: Path) -> int:
    """Write the pairs of a share, a block of users after the other and in any order inside; returns how many."""
    import pyarrow as pa
    from pyarrow import parquet

    num_users, num_items = int(USERS * share), int(ITEMS * share)
    num_clusters, chance = num_items // CLUSTER, np.random.default_rng(0)
    schema = pa.schema([("user_id", pa.int64()), ("item_id", pa.int64()), ("time", pa.int64())])
    written = 0
    (folder / NAME).mkdir(parents=True, exist_ok=True)
    with parquet.ParquetWriter(folder / NAME / FILE, schema) as writer:
        for start in range(0, num_users, TOGETHER):
            users = np.arange(start, min(start + TOGETHER, num_users))
            lengths = 5 + chance.exponential(DRAWN, len(users)).astype(np.int64)
            users = np.repeat(users, lengths)
            # the density of a rank r falls as 1 / (HEAD + r)
            ranks = HEAD * ((1 + num_items / HEAD) ** chance.random(len(users)) - 1)
            items = np.minimum(ranks.astype(np.int64), num_items - 1)
            loyal = chance.random(len(users)) < LOYALTY
            items[loyal] += (users % num_clusters - items % num_clusters)[loyal]
            keys = chance.permutation(np.unique(users * num_items + items))
            users, items = np.divmod(keys, num_items)
            columns = (
                users * 7 + 1_000_003,  # raw ids have gaps
                items * 2_654_435_761 % 2**32,  # and are in no order: an odd factor makes none of them equal
                chance.integers(1_500_000_000, 1_700_000_000, len(keys)),
            )
            writer.write_table(pa.table([pa.array(column) for column in columns], schema=schema))
            written += len(keys)
    return written


class Book:
    """Stages and what they took: name -> (seconds, number of rows, their kind, peak in MiB)."""

    def __init__(self) -> None:
        self.stages: dict[str, tuple[float, float, str, float]] = {}

    @contextmanager
    def stage(self, name: str, rows: str) -> Iterator[dict[str, float]]:
        """Time a stage and note its peak; the block says under "rows" how many it worked on."""
        gc.collect()
        Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
        found: dict[str, float] = {}
        start = time.process_time()
        yield found
        seconds = found.get("seconds", time.process_time() - start)
        self.stages[name] = (seconds, found["rows"], rows, memory(peak=True))
        print(f"# {name}: {seconds:.2f} s", file=sys.stderr, flush=True)


class Stopwatch(L.Callback):
    """Time the steps after the first ones."""

    steps, start, seconds = 0, 0.0, 0.0

    def on_train_batch_start(self, *_: object) -> None:
        """Begin behind the first steps."""
        if self.steps == WARM:
            self.start = time.process_time()
        self.steps += 1

    def on_train_batch_end(self, *_: object) -> None:
        """Take the time so far."""
        self.seconds = time.process_time() - self.start


def fit(module: RankingModule, data: InteractionFiles, steps: int, found: dict[str, float]) -> L.Trainer:
    """Train for some steps; the time is extrapolated to an epoch."""
    watch = Stopwatch()
    trainer = _trainer(limit_train_batches=steps, limit_val_batches=0, callbacks=[watch])
    trainer.fit(module, datamodule=data)
    pairs = (watch.steps - WARM) * data.batch_size
    found["rows"] = len(data.split.train)
    found["seconds"] = watch.seconds / pairs * found["rows"]
    return trainer


def _trainer(**options: Any) -> L.Trainer:
    silent = dict.fromkeys(("logger", "enable_progress_bar", "enable_checkpointing", "enable_model_summary"), False)
    return L.Trainer(max_epochs=1, accelerator="cpu", devices=1, num_sanity_val_steps=0, **silent, **options)


def measure(share: float, folder: Path, steps: int, users: int) -> Book:
    """Run all stages of a share on what `generate` wrote."""
    book, path = Book(), folder / "model.ckpt"
    with book.stage("generate", "rows") as found:
        found["rows"] = generate(share, folder)
    splitter = LeaveOneOut("time", num_users=users)
    data = InteractionFiles(NAME, FILE, time_column="time", root=str(folder), splitter=splitter, eval_batch_size=128)
    with book.stage("read", "rows") as found:
        data.prepare_data()
        found["rows"] = float(book.stages["generate"][1])
    with book.stage("cut", "rows") as found:
        found["rows"] = sum(len(part) for part in (data.split.train, data.split.valid, data.split.test))
    with book.stage("index", "rows") as found:
        data.split.train.digest  # noqa: B018 - the same order serves digest, sampler and evaluation
        found["rows"] = len(data.split.train)
    with book.stage("shuffle", "rows") as found:
        batches = iter(data.train_dataloader())
        next(batches)
        found["rows"] = len(data.split.train)
    with book.stage("draw", "pairs") as found:
        drawn = min(1000, len(data.split.train) // data.batch_size - 1)
        found["rows"] = sum(len(batch.users) for batch in islice(batches, drawn))
    del batches
    torch.manual_seed(0)
    module = RankingModule(BPR(WIDTH), optimizer=LazyAdam)
    with book.stage("BPR epoch", "pairs") as found:
        trainer = fit(module, data, steps, found)
    with book.stage("save", "MiB") as found:
        trainer.save_checkpoint(path)
        found["rows"] = path.stat().st_size / 2**20
    with book.stage("save again", "MiB") as found:
        trainer.save_checkpoint(path)
        found["rows"] = path.stat().st_size / 2**20
    with book.stage("rank", "users") as found:
        _trainer().validate(module, data, verbose=False)
        found["rows"] = len(module.metric("val").per_user[0])
    del module, trainer
    teacher = BPR(TEACHER_WIDTH)
    teacher.bind(data.split.train)
    student = DistillationModule(BPR(WIDTH), "", FTD(), optimizer=LazyAdam)
    student.teacher = Teacher(teacher)
    with book.stage("FTD epoch", "pairs") as found:
        fit(student, data, steps, found)
    del student, teacher, data
    with book.stage("reload", "MiB") as found:
        checkpoint.restore(path)
        found["rows"] = path.stat().st_size / 2**20
    return book


def show(books: dict[float, dict[str, Any]], users: int) -> None:
    """Print the table."""
    shares = list(books)
    print(f"{'':<12}" + "".join(f"{f'{share:.0%} of the size':>44}" for share in shares))
    print(f"{'stage':<12}" + f"{'seconds':>12}{'rate':>20}{'peak':>12}" * len(shares) + f"{'growth a row':>16}")
    for name, (*_, kind, _) in books[shares[0]].items():
        line = f"{name:<12}"
        for share in shares:
            seconds, rows, _, peak = books[share][name]
            line += f"{seconds:>10.2f} s{rows / seconds:>12,.0f} {kind + '/s':<7}{peak:>8,.0f} MiB"
        small, large = (books[share][name][0] / books[share][name][1] for share in (shares[0], shares[-1]))
        print(line + f"{large / small:>14.2f} x")
    print(f"largest{max(stage[3] for stage in books[shares[-1]].values()):>10,.0f} MiB; ranked: {users:,} users")


def main() -> None:
    """Run the sizes, each in a process of its own."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--share", type=float, nargs="+", default=SHARES, help="of the full size; default: all three")
    parser.add_argument("--steps", type=int, default=1000, help="of a training, at most; the epoch is extrapolated")
    parser.add_argument("--users", type=int, default=1000, help="that are ranked")
    parser.add_argument("--folder", type=Path, help="where the files lie for a while; default: a temporary one")
    parser.add_argument("--measure", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    warnings.filterwarnings("ignore")
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    torch.set_num_threads(1)
    if options.measure:
        print(json.dumps(measure(options.share[0], options.folder, options.steps, options.users).stages))
        return
    print(
        f"torch {torch.__version__}, CPU, 1 thread, load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores; batch "
        f"1,024, width {WIDTH} (teacher {TEACHER_WIDTH}); trainings of {options.steps:,} steps, extrapolated"
    )
    books = {}
    for share in options.share:
        start = time.perf_counter()
        with tempfile.TemporaryDirectory(dir=options.folder) as folder:
            more = ("--steps", str(options.steps), "--users", str(options.users), "--folder", folder, "--measure")
            done = subprocess.run(
                [sys.executable, __file__, "--share", str(share), *more], check=True, stdout=subprocess.PIPE, text=True
            )
        books[share] = json.loads(done.stdout)
        pairs = books[share]["read"][1]
        print(f"{share:.0%}: {pairs:,.0f} pairs, {time.perf_counter() - start:,.0f} s by the clock", flush=True)
    show(books, options.users)


if __name__ == "__main__":
    main()
