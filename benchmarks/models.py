"""What each model costs on MovieLens-100k: time to be bound to the data, of an epoch and of an evaluation, and memory.

    python benchmarks/models.py

A line for each config of ``configs/`` that trains a model alone on this data set, found there. Each is a ``kdrec fit``
in a process of its own and a temporary folder, with sampling, checkpoints and validation, without logger and progress
bar. An epoch is timed from its start to the next one's, less validation: the median of the epochs after a first one
that is not counted; what has nothing to train is bound alone, and its one epoch is idle. An evaluation ranks the whole
catalogue for every user. Members of an ensemble are the models of the lines above it. MiB are those of the model as it
is deployed, and of the whole process at its largest, torch and Lightning (which come first) included. Needs the data
set (see data/README.md) in data/ or $KDREC_DATA, or fetches it.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any
from unittest import mock

import yaml
from published import clock
from stopwatch import kdrec, memory

from kdrec.models import checkpoint
from kdrec.training.ranking import RankingModule

CONFIGS = Path(__file__).resolve().parent.parent / "configs"


def arguments_of(config: Path) -> dict[str, Any]:
    """Return what a config says of its module."""
    return yaml.safe_load(config.read_text())["model"]["init_args"]


def found() -> list[Path]:
    """Return the configs to measure, ensembles last."""
    every = {path: yaml.safe_load(path.read_text()) for path in sorted(CONFIGS.glob("*.yaml"))}
    ours = [
        path
        for path, said in every.items()
        if said["model"]["class_path"] == "RankingModule" and said["data"]["class_path"] == "MovieLens100K"
    ]
    return sorted(ours, key=lambda path: "checkpoints" in arguments_of(path)["recommender"].get("init_args", {}))


def best_of(config: Path) -> Path:
    """Return the checkpoint of a config's fit in this folder."""
    return next(Path("checkpoints", config.stem).glob("*/best.ckpt")).resolve()


def measure(config: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Train by the command line, in this process and folder."""
    members = arguments_of(config)["recommender"].get("init_args", {}).get("checkpoints")
    idle = yaml.safe_load(config.read_text())["trainer"]["max_epochs"] == 1
    more: list[object] = ["--trainer.max_epochs", 1 if idle else options.repeats + 1]
    more += ["--trainer.check_val_every_n_epoch", 1, "--checkpoint.every_n_epochs", 1]
    if members:
        made = [str(best_of(Path(member))) for member in members]
        more += ["--model.init_args.recommender.init_args.checkpoints", json.dumps(made)]
    bind, seconds = RankingModule.configure_model, []

    def timed(self: RankingModule) -> None:
        start = clock()
        bind(self)
        seconds.append(clock() - start)

    with mock.patch.object(RankingModule, "configure_model", timed):
        watch = kdrec(
            "fit", "--config", config, "--data.init_args.root", options.root, "--trainer.accelerator", "cpu",
            "--trainer.logger", "false", "--trainer.enable_progress_bar", "false", *more,
        )  # fmt: skip
    peak, model = memory(peak=True), checkpoint.restore(best_of(config))
    return {
        "model": type(model).__name__,
        "parameters": model.num_parameters(),
        "bytes": model.num_bytes(),
        "bind": seconds[0],
        "epoch": statistics.median(watch.epochs if idle else watch.epochs[1:]),
        "evaluation": statistics.median(watch.evaluations),
        "peak": peak,
        "before": watch.before,
    }


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=3, help="counted epochs of each fit; the median counts")
    parser.add_argument("--root", type=Path, default=Path("data"), help="folder of the data sets")
    parser.add_argument("--one", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    options.root = options.root.resolve()
    if options.one:
        print(json.dumps(measure(options.one, options)))
        return
    if "KDREC_DATA" in os.environ:
        os.environ["KDREC_DATA"] = str(Path(os.environ["KDREC_DATA"]).resolve())
    kept = ("--repeats", str(options.repeats), "--root", str(options.root))
    print("| config | model | parameters | MiB | bind, s | epoch, s | evaluation, s | peak, MiB (before) |")
    print("|---|---|--:|--:|--:|--:|--:|--:|")
    with tempfile.TemporaryDirectory() as folder:
        for config in found():
            command = [sys.executable, __file__, "--one", str(config), *kept]
            done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
            if done.returncode:
                sys.exit(f"{config}: {done.stderr}")
            row = json.loads(done.stdout.splitlines()[-1])
            print(
                f"| {config.stem} | {row['model']} | {row['parameters']:,} | {row['bytes'] / 2**20:.2f} | "
                f"{row['bind']:.2f} | {row['epoch']:.2f} | {row['evaluation']:.2f} | "
                f"{row['peak']:.0f} ({row['before']:.0f}) |",
                flush=True,
            )


if __name__ == "__main__":
    main()
