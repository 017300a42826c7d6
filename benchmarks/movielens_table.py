"""The README's table: teacher, student alone and student with FTD on MovieLens-100k, over seeds.

    python benchmarks/movielens_table.py

Trains every config of ``configs/`` once a seed through the command line, tests its best checkpoint (chosen on
validation), and prints mean and standard deviation as Markdown. A student's teacher is the one of its own seed. Fits
that are finished are not run again: their folders carry the seed and a digest of the config file.
"""

import argparse
import csv
import hashlib
import logging
import statistics
import subprocess
import sys
import tempfile
import warnings
from pathlib import Path

import lightning as L
import yaml

from kdrec.cli import runs
from kdrec.data.movielens import MovieLens100K
from kdrec.models import checkpoint
from kdrec.models.popularity import Popularity
from kdrec.training.ranking import RankingModule

SHOWN = ("recall@10", "ndcg@10", "recall@20", "ndcg@20", "recall@50")
MODELS = (("NCF", "ncf"), ("BPR", "bpr"))
ROLES = (("teacher", "_teacher"), ("student alone", ""), ("student with FTD", "_ftd"))


def fit(config: Path, seed: int, teacher: Path | None, options: list[str]) -> Path:
    """Return the best checkpoint of a config and seed, training it if that is not done yet."""
    identity = [yaml.safe_load(config.read_text()), checkpoint.digest(teacher) if teacher else "", *options]
    name = f"table-{config.stem}-seed{seed}-{hashlib.sha256(repr(identity).encode()).hexdigest()[:8]}"
    if not list(runs.CHECKPOINTS.glob(f"{name}/*/{runs.RECORD}")):
        command = [sys.executable, "-m", "kdrec", "fit", "--config", str(config), "--seed_everything", str(seed)]
        command += ["--name", name, *(["--model.init_args.teacher", str(teacher)] if teacher else []), *options]
        print(f"seed {seed}: {config}", file=sys.stderr, flush=True)
        subprocess.run([*command, "--trainer.enable_progress_bar", "false"], check=True, stdout=subprocess.DEVNULL)
    return runs.newest_checkpoint(name)


def test(path: Path) -> dict[str, float]:
    """Return the test metrics of a checkpoint, by the command that a user types."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "users.csv")
        command = [sys.executable, "-m", "kdrec", "test", "--ckpt_path", str(path), "--per_user", str(file)]
        subprocess.run([*command, "--trainer.enable_progress_bar", "false"], check=True, stdout=subprocess.DEVNULL)
        with open(file, newline="") as lines:
            users = list(csv.DictReader(lines))
    return {name: statistics.fmean(float(user[name]) for user in users) for name in SHOWN}


def popularity() -> dict[str, float]:
    """Return the test metrics of the most popular items, which have no parameters and no seed."""
    trainer = L.Trainer(accelerator="cpu", logger=False, enable_progress_bar=False)
    [metrics] = trainer.test(RankingModule(Popularity()), datamodule=MovieLens100K(), verbose=False)
    return {name: metrics[f"test/{name}"] for name in SHOWN}


def row(name: str, parameters: int, results: list[dict[str, float]]) -> str:
    """Format one model's line."""
    cells = []
    for metric in SHOWN:
        values = [result[metric] for result in results]
        spread = f" ± {statistics.stdev(values):.4f}" if len(values) > 1 else ""
        cells.append(f"{statistics.fmean(values):.4f}{spread}")
    return f"| {name} | {parameters:,} | " + " | ".join(cells) + " |"


def main() -> None:
    """Train, test, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--options", nargs=argparse.REMAINDER, default=[], help="passed on to every kdrec fit")
    options = parser.parse_args()
    warnings.filterwarnings("ignore")
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    lines = [row("Popularity", 0, [popularity()])]
    for label, stem in MODELS:
        results: dict[str, list[dict[str, float]]] = {role: [] for role, _ in ROLES}
        sizes = {}
        for seed in options.seeds:
            teacher = None
            for role, suffix in ROLES:
                config = Path(f"configs/{stem}{suffix}.yaml")
                best = fit(config, seed, teacher if suffix == "_ftd" else None, options.options)
                teacher = best if suffix == "_teacher" else teacher
                results[role].append(test(best))
                sizes[role] = checkpoint.restore(best).num_parameters()
        lines += [row(f"{label} {role}", sizes[role], results[role]) for role, _ in ROLES]
    print(f"MovieLens-100k, protocol ml100k-loo, full ranking, test; seeds {options.seeds}")
    print("| model | parameters | " + " | ".join(SHOWN) + " |\n|---|--:|" + "--:|" * len(SHOWN))
    print("\n".join(lines))


if __name__ == "__main__":
    main()
