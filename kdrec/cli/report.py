"""What a run says at its end: tables for people, and the same facts for machines."""

import contextlib
import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import lightning as L
from lightning.pytorch.loggers import TensorBoardLogger
from rich import box
from rich.table import Table

from kdrec.cli import runs
from kdrec.cli.console import show
from kdrec.documents import replacing
from kdrec.errors import InputError
from kdrec.evaluation.clicks import CLICK_METRICS
from kdrec.evaluation.metrics import LOGGED_METRICS
from kdrec.models import checkpoint as files
from kdrec.models.base import Recommender
from kdrec.training.distillation import DistillationModule
from kdrec.training.ranking import RankingModule

_SHOWN = ("recall@10", "ndcg@10", "recall@20", "ndcg@20")


@dataclass(frozen=True)
class Row:
    """One model of a fit's table; ``metrics`` are named as logged, ``epochs`` and ``seconds`` are ready to print."""

    name: str
    parameters: int
    bytes: int
    metrics: Mapping[str, float]
    epochs: str = "-"
    seconds: str = "-"


def after_fit(name: str, trainer: L.Trainer, module: RankingModule, config: Mapping[str, Any], seconds: float) -> None:
    """Print the table of a finished fit, and write run.json and the logger's hyper-parameters.

    Args:
        name: Of the run.
        trainer: After its fit. If it kept no best checkpoint (fast_dev_run, or too few epochs to validate), only the
            place of the last one is said.
        module: What it trained.
        config: The resolved config, plain.
        seconds: How long the fit took, without the teacher's.
    """
    best = runs.shown(getattr(trainer.checkpoint_callback, "best_model_path", ""))
    if not best.is_file():
        last = runs.shown(Path(getattr(trainer.checkpoint_callback, "dirpath", None) or "", "last.ckpt"))
        if last.is_file():
            show(f"\nNo epoch was validated, so there is no best one; the last of {trainer.current_epoch} is {last}")
        return
    section = files.read(best)["kdrec"]
    record = {
        "config_sha256": runs.config_digest(config),
        "data_digest": section["data_digest"],
        "protocol": section["protocol"],
        "metrics": section["metrics"],
        "best_epoch": section["epochs"],
        "epochs": trainer.current_epoch,
        "seconds": round(seconds, 1),
    }
    runs.write_record(best.parent, record)
    rows = [_row(name, module.recommender, section["metrics"], record)]
    if isinstance(module, DistillationModule) and module.teacher is not None:
        source = Path(module.teacher.path)
        told = files.read(source)["kdrec"]["metrics"]
        title, record = f"teacher {source.parent.parent.name}", runs.read_record(source.parent)
        rows.insert(0, _row(title, module.teacher.recommender, told, record))
    logs = None
    if isinstance(trainer.logger, TensorBoardLogger):
        logs = Path(trainer.logger.log_dir)
        final = {f"val_best/{m}": section["metrics"].get(f"val/{m}", float("nan")) for m in _SHOWN}
        trainer.logger.log_hyperparams(hyper_parameters(config), final, trainer.global_step)
        trainer.logger.save()
    show(f"\n{section['protocol']}", fit_table(rows), _next_steps(best, logs))


def after_ranking(checkpoint: Path, trainer: L.Trainer, module: RankingModule, stage: str) -> None:
    """Print the metrics of a finished validation or test.

    Args:
        checkpoint: What was ranked.
        trainer: After its run.
        module: What it ran.
        stage: "val" or "test", the prefix of the metrics.
    """
    logged = trainer.callback_metrics.items()
    metrics = {key.removeprefix(f"{stage}/"): float(value) for key, value in logged if key.startswith(f"{stage}/")}
    what = "Test" if stage == "test" else "Validation"
    num_users = len(module.metric(stage).per_user[0])
    show(metrics_table(metrics, f"{what} of {checkpoint}\n{module.protocol}, {num_users:,} users"))
    if module.num_candidates is not None:
        show("Ranked among sampled items: these numbers say little and compare with no full ranking.")


def require_place(path: Path) -> None:
    """Raise InputError if a file cannot be put there."""
    if path.is_dir() or not path.absolute().parent.is_dir():
        raise InputError(f"{path} cannot be written (it is a folder, or its folder is not there); name another file.")


def write_per_user(path: Path, module: RankingModule, stage: str) -> None:
    """Write every user's metrics to a CSV file, under raw user ids; what stood there stays until all is written.

    Raises:
        InputError: If the file cannot be written.
    """
    metric = module.metric(stage)
    ids = module.train_data.user_ids
    users, values = (tensor.tolist() for tensor in metric.per_user)
    is_device = path.exists() and not path.is_file()  # such as /dev/stdout, in whose place no file can be put
    place = contextlib.nullcontext(path) if is_device else replacing(path.resolve())
    try:
        with place as part, open(part, "w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(["user", *metric.names])
            writer.writerows([ids[user], *row] for user, row in zip(users, values, strict=True))
    except OSError as error:
        raise InputError(f"{path} cannot be written ({error.strerror}); name another file with --per_user.") from None
    show(f"per user    {path}")


def metrics_table(metrics: Mapping[str, float], title: str) -> Table:
    """Lay out ``name@k`` values with a row for each metric and a column for each cutoff, and AUC and log-loss below.

    Args:
        metrics: Values by name, without the stage's prefix.
        title: Above the table.
    """
    cutoffs = sorted({int(name.partition("@")[2]) for name in metrics if "@" in name})
    table = Table(title=title, box=box.SIMPLE_HEAD, title_justify="left")
    table.add_column("metric")
    for k in cutoffs:
        table.add_column(f"@{k}", justify="right")
    for name in LOGGED_METRICS:
        table.add_row(name, *(_number(metrics.get(f"{name}@{k}")) for k in cutoffs))
    if clicks := ", ".join(f"{name} {metrics[name]:.4f}" for name in CLICK_METRICS if name in metrics):
        table.caption, table.caption_justify = f"{clicks}: held-out items against as many sampled ones", "left"
    return table


def fit_table(rows: Sequence[Row]) -> Table:
    """Lay out models side by side, the teacher first, and below them what the student keeps of it."""
    table = Table(title="Validation, best epoch", box=box.SIMPLE_HEAD, title_justify="left")
    table.add_column("model")
    for column in ("parameters", "MiB", *_SHOWN, "epochs", "seconds"):
        table.add_column(column, justify="right")
    for row in rows:
        table.add_row(
            row.name,
            f"{row.parameters:,}",
            f"{row.bytes / 2**20:.2f}",
            *(_number(row.metrics.get(f"val/{metric}")) for metric in _SHOWN),
            row.epochs,
            row.seconds,
        )
    if len(rows) > 1:
        teacher, student = rows[0], rows[-1]
        table.add_section()
        kept = [_share(student.metrics.get(f"val/{m}"), teacher.metrics.get(f"val/{m}")) for m in _SHOWN]
        sizes = _share(student.parameters, teacher.parameters), _share(student.bytes, teacher.bytes)
        table.add_row("student / teacher", *sizes, *kept, "", "")
    return table


def hyper_parameters(config: Mapping[str, Any]) -> dict[str, Any]:
    """Flatten what decides a run into short names for TensorBoard's HPARAMS tab.

    Example:
        >>> student = {"class_path": "kdrec.models.bpr.BPR", "init_args": {"embedding_dim": 8}}
        >>> model = {"class_path": "m.RankingModule", "init_args": {"recommender": student, "num_candidates": None}}
        >>> data = {"class_path": "kdrec.data.movielens.MovieLens100K", "init_args": {"batch_size": 64}}
        >>> for item in hyper_parameters({"seed_everything": 0, "model": model, "data": data}).items():
        ...     print(item)
        ('seed', 0)
        ('recommender', 'BPR')
        ('recommender.embedding_dim', 8)
        ('data', 'MovieLens100K')
        ('data.batch_size', 64)
    """
    flat: dict[str, Any] = {}

    def add(name: str, value: Any) -> None:
        if isinstance(value, Mapping):
            flat[name] = str(value["class_path"]).rpartition(".")[2]
            for option, part in (value.get("init_args") or {}).items():
                if option not in ("root", "eval_batch_size"):  # no part in the result
                    add(f"{name}.{option}", part)
        elif value is not None:
            flat[name] = value if isinstance(value, str | int | float) else str(value)

    add("seed", config["seed_everything"])
    for option, part in config["model"]["init_args"].items():
        add(option, part)
    add("data", config["data"])
    return flat


def _row(name: str, model: Recommender, metrics: Mapping[str, float], record: Mapping[str, Any]) -> Row:
    """Describe a model by its metrics and by its run.json, if it has one."""
    row = Row(name, model.num_parameters(), model.num_bytes(), metrics)
    if not record:
        return row
    return replace(row, epochs=f"{record['best_epoch']} of {record['epochs']}", seconds=f"{record['seconds']:.0f}")


def _next_steps(checkpoint: Path, logs: Path | None) -> str:
    """Say where everything is and what to type now."""
    lines = [f"checkpoint  {checkpoint}", f"config      {checkpoint.parent / 'config.yaml'}"]
    if logs:
        lines.append(f"logs        {logs}   (tensorboard --logdir {runs.LOGS})")
    lines.append(f"next        kdrec test --ckpt_path {checkpoint}")
    return "\n".join(lines)


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"


def _share(part: float | None, whole: float | None) -> str:
    return "-" if part is None or not whole else f"{part / whole:.1%}"
