"""What does each process hold, and how long does a step take, when the rows of the tables are divided?

    python benchmarks/sharding.py [--rows 300000] [--processes 2] [--steps 40]

BPR of width 64 is trained on random pairs of --rows users and as many items, by DDP and by RowSharding, started by
torchrun: batches of 1,024 a process, by Adam and by LazyAdam. Printed are what the first process holds of the tables'
weights, gradients and moments, how far the whole process grew from before the model to the last step, and at most, the
time of a step, and the largest difference of a weight between DDP and RowSharding at the end. CPU, gloo.
"""

import argparse
import logging
import os
import subprocess
import sys
import tempfile
import time
import warnings
from functools import partial
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import torch
from lightning.pytorch.cli import OptimizerCallable
from stopwatch import memory
from torch import Tensor

from kdrec.data.base import InteractionDataModule
from kdrec.data.interactions import Interactions
from kdrec.data.splits import LeaveOneOut
from kdrec.models.bpr import BPR
from kdrec.training.optimizers import LazyAdam
from kdrec.training.ranking import RankingModule
from kdrec.training.sharding import RowSharding

WIDTH, PAIRS = 64, 4  # pairs of a user
WARM = 5  # steps that are not counted
OPTIMIZERS: dict[str, OptimizerCallable] = {"Adam": partial(torch.optim.Adam, fused=True), "LazyAdam": LazyAdam}


class Synthetic(InteractionDataModule):
    """Random pairs."""

    name = "synthetic"

    def __init__(self, rows: int) -> None:
        super().__init__(splitter=LeaveOneOut("time", num_users=1000))
        self.rows = rows

    def load(self) -> Interactions:
        """Draw them."""
        users = np.repeat(np.arange(self.rows), PAIRS)
        items = (np.random.default_rng(0).integers(self.rows, size=self.rows)[:, None] + np.arange(PAIRS)) % self.rows
        names = np.arange(self.rows)
        return Interactions(users, items.ravel(), names, names, timestamps=np.arange(len(users)))


class Watch(L.Callback):
    """Note sizes and times."""

    def __init__(self) -> None:
        self.left: dict[str, Any] = {}
        self.before = self.began = 0.0

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Note the size without a model, but with the data and the sampler."""
        self.before = memory(peak=False)

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, *args: Any) -> None:
        """Begin to count, or note what is held."""
        if args[2] == WARM:
            self.began = time.perf_counter()
        [optimizer] = trainer.optimizers
        held = [value for weight in pl_module.parameters() for value in (weight, weight.grad) if value is not None]
        held += [value for state in optimizer.state.values() for value in state.values() if isinstance(value, Tensor)]
        self.left["tables"] = sum(_bytes(value) for value in held) / 2**20
        self.left["grown"] = max(self.left.get("grown", 0), memory(peak=False) - self.before)

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Note the rest."""
        steps = trainer.global_step - WARM - 1
        self.left["step"] = (time.perf_counter() - self.began) / steps * 1000
        self.left["peak"] = memory(peak=True) - self.before


def _bytes(value: Tensor) -> int:
    if value.is_sparse:
        return _bytes(value._indices()) + _bytes(value._values())
    return value.numel() * value.element_size()


def work(file: Path, rows: int, steps: int, optimizer: str, sharded: bool) -> None:
    """Do what torchrun starts."""
    L.seed_everything(0, verbose=False)
    watch = Watch()
    trainer = L.Trainer(
        accelerator="cpu", devices=int(os.environ["WORLD_SIZE"]), strategy=RowSharding() if sharded else "ddp",
        max_epochs=1, limit_train_batches=steps, limit_val_batches=0, num_sanity_val_steps=0, logger=False,
        callbacks=[watch], enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
    )  # fmt: skip
    trainer.fit(RankingModule(BPR(WIDTH), optimizer=OPTIMIZERS[optimizer]), datamodule=Synthetic(rows))
    weights = trainer.strategy.lightning_module_state_dict()
    if os.environ["RANK"] == "0":
        torch.save(watch.left | {"weights": weights}, file)


def main() -> None:
    """Start them and print the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", type=int, default=300_000)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--file", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--optimizer", choices=OPTIMIZERS, help=argparse.SUPPRESS)
    parser.add_argument("--sharded", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    if options.file:
        return work(options.file, options.rows, options.steps, options.optimizer, options.sharded)
    print(f"{'':24}{'tables, MiB':>14}{'grown, MiB':>14}{'at most':>14}{'a step, ms':>14}{'weight':>14}")
    for optimizer in OPTIMIZERS:
        ddp: dict[str, Tensor] = {}
        for name, flags in (("DDP", []), ("RowSharding", ["--sharded"])):
            with tempfile.TemporaryDirectory() as folder:
                file = Path(folder, "left.pt")
                torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node"]
                sizes = ["--rows", str(options.rows), "--steps", str(options.steps)]
                command = [*torchrun, str(options.processes), __file__, *sizes, "--file", str(file), *flags]
                environment = {**os.environ, "OMP_NUM_THREADS": "1"}
                subprocess.run(
                    [*command, "--optimizer", optimizer], check=True, env=environment, stderr=subprocess.DEVNULL
                )
                left = torch.load(file)
            weights = left.pop("weights")
            ddp = ddp or weights
            far = max(float((value - ddp[key]).abs().max()) for key, value in weights.items())
            numbers = "".join(f"{left[key]:>14.0f}" for key in ("tables", "grown", "peak", "step"))
            print(f"{name + ' ' + optimizer:24}{numbers}{far:>14.0e}")
    return None


if __name__ == "__main__":
    main()
