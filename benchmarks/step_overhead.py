"""What does the loop around the mathematics cost a training step?

    python benchmarks/step_overhead.py

The same steps (same batches, loss, optimizer) are run by Lightning's trainer with kdrec's loader and logging, and by a
bare loop over batches in a list. The difference of the median times of a step is the overhead. Generated data of the
size of MovieLens-100k; CPU.
"""

import argparse
import logging
import statistics
import tempfile
import time
import warnings

import lightning as L
import numpy as np
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import TensorBoardLogger

from kdrec.data.base import InteractionDataModule
from kdrec.data.interactions import Interactions
from kdrec.distillation.base import Teacher
from kdrec.distillation.ftd import FTD
from kdrec.models.bpr import BPR
from kdrec.training.distillation import DistillationModule
from kdrec.training.ranking import RankingModule


class Synthetic(InteractionDataModule):
    """100,000 random pairs of 943 users and 1,682 items."""

    name = "synthetic"

    def load(self) -> Interactions:
        """Draw them."""
        keys = np.random.default_rng(0).choice(943 * 1682, size=100_000, replace=False)
        users, items = np.divmod(keys, 1682)
        return Interactions(users, items, np.arange(943).astype(str), np.arange(1682).astype(str), np.arange(len(keys)))


class Stopwatch(L.Callback):
    """Note the time at which each step begins."""

    def __init__(self) -> None:
        self.starts: list[float] = []

    def on_train_batch_start(self, *_: object) -> None:
        """Note it."""
        self.starts.append(time.perf_counter())


def build(with_teacher: bool, data: Synthetic) -> RankingModule:
    """Return a student of width 20, alone or with FTD from a teacher of width 200."""
    torch.manual_seed(0)
    if not with_teacher:
        return RankingModule(BPR(20))
    teacher = BPR(200)
    teacher.bind(data.split.train)
    module = DistillationModule(BPR(20), "", FTD())
    module.teacher = Teacher(teacher)
    return module


def trainer_step(with_teacher: bool, folder: str) -> float:
    """Return the median seconds from one step's start to the next one's, in a fit as the command line runs it."""
    data, watch = Synthetic(), Stopwatch()
    trainer = L.Trainer(
        max_epochs=4, accelerator="cpu", devices=1, enable_model_summary=False, limit_val_batches=0,
        num_sanity_val_steps=0, logger=TensorBoardLogger(folder), callbacks=[watch, ModelCheckpoint(folder)],
    )  # fmt: skip
    trainer.fit(build(with_teacher, data), datamodule=data)
    return statistics.median(np.diff(watch.starts))


def bare_step(with_teacher: bool) -> float:
    """Return the median seconds of a step in a loop that does nothing else."""
    data = Synthetic()
    module = build(with_teacher, data)
    module.recommender.bind(data.split.train)
    optimizer = module.configure_optimizers()
    times = []
    for _ in range(4):
        for batch in list(data.train_dataloader()):
            start = time.perf_counter()
            optimizer.zero_grad()
            torch.stack(list(module.terms(batch).values())).sum().backward()
            optimizer.step()
            times.append(time.perf_counter() - start)
    return statistics.median(times)


def main() -> None:
    """Compare both loops, turn by turn."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5, help="turns of each loop; the median counts")
    parser.add_argument("--threads", type=int, default=1, help="of torch; with more, other programs disturb more")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    warnings.filterwarnings("ignore")
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, batch 1,024; milliseconds a step, medians")
    print("                       bare loop   trainer   overhead (median of the turns)")
    with tempfile.TemporaryDirectory() as folder:
        for with_teacher, name in ((False, "BPR 20"), (True, "BPR 20 + FTD of 200")):
            turns = [
                (bare_step(with_teacher) * 1e3, trainer_step(with_teacher, folder) * 1e3)
                for _ in range(options.repeats)
            ]
            bare, whole = (statistics.median(column) for column in zip(*turns, strict=True))
            overhead = statistics.median(whole - bare for bare, whole in turns)
            print(f"{name:<22} {bare:>9.2f} {whole:>9.2f} {overhead:>10.2f}")


if __name__ == "__main__":
    main()
