"""How far from one process do several end, that train together with the same batches?

    python benchmarks/processes.py [--processes 2 4] [--steps 20]

Each training is run in one process with batches of 1,024 and, started by torchrun, in N with batches of 1,024 / N: 20
steps of Adam on generated data of the size of MovieLens-100k, a teacher of width 200 and a student of width 20 with the
methods' own weights. Printed are the largest relative difference of a step's loss, the largest difference of a
gradient of the first step relative to its table's largest, the largest difference of a weight at the end, and the
metrics that differ in the four digits that are printed. Adam makes steps of one size of gradients of any size, those
that are nothing but rounding too; so the weights' difference is printed again for a training in float64. CPU, gloo.
"""

import argparse
import logging
import os
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import torch
from torch import Tensor

from kdrec.data.base import InteractionDataModule
from kdrec.data.interactions import Interactions
from kdrec.distillation.base import Distiller, Teacher
from kdrec.distillation.de import DE
from kdrec.distillation.ftd import FTD
from kdrec.distillation.htd import HTD
from kdrec.distillation.rrd import RRD
from kdrec.models.bpr import BPR
from kdrec.training.distillation import DistillationModule

BATCH = 1024
METHODS: dict[str, Callable[[], Distiller]] = {
    "FTD": lambda: FTD(topology_scope="global"),
    "FTD, scope all": lambda: FTD(1e-5, "all"),
    "HTD": lambda: HTD(topology_scope="global"),
    "HTD, paper": lambda: HTD(mode="paper", topology_scope="global"),
    "HTD, cold": lambda: HTD(first_temperature=1e-6, topology_scope="global"),
    "DE": DE,
    "RRD": RRD,
}
Left = dict[str, Any]


class Synthetic(InteractionDataModule):
    """100,000 random pairs of 943 users and 1,682 items."""

    name = "synthetic"

    def load(self) -> Interactions:
        """Draw them."""
        keys = np.random.default_rng(0).choice(943 * 1682, size=100_000, replace=False)
        users, items = np.divmod(keys, 1682)
        return Interactions(users, items, np.arange(943), np.arange(1682), timestamps=np.arange(100_000))


class Module(DistillationModule):
    """A distillation whose teacher is made here, and which notes losses and first gradients."""

    def __init__(self, distiller: Distiller, dtype: torch.dtype) -> None:
        super().__init__(BPR(20), "", distiller)
        self.teachers_dtype = dtype
        self.losses: list[float] = []
        self.gradients: dict[str, Tensor] = {}

    def configure_model(self) -> None:
        """As `DistillationModule.configure_model`."""
        if self.teacher is None:
            wide = BPR(200, init_std=1.0)
            wide.bind(self.train_data)
            self.teacher = Teacher(wide.to(self.teachers_dtype))
            super().configure_model()
            self.distiller.bind(self.recommender, self.teacher, self.train_data)

    def on_after_backward(self) -> None:
        """Note the gradients."""
        if not self.gradients:
            parts = self.named_parameters()
            self.gradients = {name: part.grad.clone() for name, part in parts if part.grad is not None}

    def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Note the loss over all processes."""
        self.losses.append(float(self.trainer.strategy.reduce(outputs["loss"].detach().clone(), reduce_op="mean")))


def train(distiller: Distiller, processes: int, steps: int, dtype: torch.dtype) -> Left:
    """Train and return what is compared."""
    L.seed_everything(0, verbose=False)
    trainer = L.Trainer(
        accelerator="cpu", devices=processes, strategy="ddp" if processes > 1 else "auto", max_epochs=1,
        precision="64-true" if dtype is torch.float64 else "32-true", limit_train_batches=steps, logger=False,
        num_sanity_val_steps=0, enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
    )  # fmt: skip
    module = Module(distiller, dtype)
    trainer.fit(module, datamodule=Synthetic(batch_size=BATCH // processes))
    metrics = {name: f"{float(value):.4f}" for name, value in trainer.callback_metrics.items() if "val/" in name}
    weights = {name: value.clone() for name, value in module.state_dict().items()}
    return {"losses": module.losses, "gradients": module.gradients, "weights": weights, "metrics": metrics}


def train_all(processes: int, steps: int) -> dict[str, list[Left]]:
    """Train by each method, in float32 and in float64."""
    kinds = torch.float32, torch.float64
    return {name: [train(make(), processes, steps, dtype) for dtype in kinds] for name, make in METHODS.items()}


def work(file: Path, steps: int) -> None:
    """Do what torchrun starts."""
    left = train_all(int(os.environ["WORLD_SIZE"]), steps)
    if os.environ["RANK"] == "0":
        torch.save(left, file)


def largest(one: dict[str, Tensor], other: dict[str, Tensor], relative: bool = False) -> float:
    """Return the largest difference of two tensors' numbers, if wanted relative to the largest of the tensor's."""
    return max(
        float((value - other[name]).abs().max() / (value.abs().max() if relative else 1)) for name, value in one.items()
    )


def main() -> None:
    """Start them and print the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--processes", type=int, nargs="+", default=[2, 4])
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--file", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    if options.file:
        return work(options.file, options.steps)
    alone = train_all(1, options.steps)
    print(f"{'':16}{'processes':>10}{'loss':>10}{'gradient':>10}{'weight':>10}{'metrics':>10}{'float64':>10}")
    for processes in options.processes:
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder, "left.pt")
            torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node"]
            command = [*torchrun, str(processes), __file__, "--steps", str(options.steps), "--file", str(file)]
            subprocess.run(command, check=True, env={**os.environ, "OMP_NUM_THREADS": "1"}, stderr=subprocess.DEVNULL)
            several = torch.load(file)
        for name, (one, one_in_double) in alone.items():
            together, in_double = several[name]
            loss = max(abs(a / b - 1) for a, b in zip(together["losses"], one["losses"], strict=True))
            gradient = largest(one["gradients"], together["gradients"], relative=True)
            weight = largest(one["weights"], together["weights"])
            metrics = sum(value != together["metrics"][metric] for metric, value in one["metrics"].items())
            exact = largest(one_in_double["weights"], in_double["weights"])
            print(f"{name:16}{processes:>10}{loss:>10.0e}{gradient:>10.0e}{weight:>10.0e}{metrics:>10}{exact:>10.0e}")
    return None


if __name__ == "__main__":
    main()
