"""What is kept of a cell: a folder with checkpoints, every user's test metrics, and result.json when all is done."""

import contextlib
import csv
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from kdrec.documents import read_json
from kdrec.errors import InputError
from kdrec.studies.plan import Cell, Study

RESULT = "result.json"
TABLE = "results.csv"
PER_USER = "users.csv"


@dataclass(frozen=True)
class Result:
    """A finished cell.

    Attributes:
        identity: Digest of all that decides the result; a cell whose digest differs is another cell.
        protocol: Data set, split and kind of ranking.
        parameters: Numbers in the model.
        bytes: Of the deployed model.
        seconds: The fit alone, without its teacher.
        epochs: Trained.
        best_epoch: The best on validation.
        threads: That the fit was given.
        checkpoint: What was tested, relative to the cell's folder.
        metrics: Test metrics, means over users.
        curve: (epoch, the study's metric on validation).
        curve_metric: What the metric of the curve was; the study may have moved on to another.
    """

    identity: str
    protocol: str
    parameters: int
    bytes: int
    seconds: float
    epochs: int
    best_epoch: int
    threads: int
    checkpoint: str
    metrics: dict[str, float]
    curve: list[tuple[int, float]]
    curve_metric: str = ""


def folder_of(output: Path, cell: Cell) -> Path:
    """Return where a cell's files are."""
    return output / "cells" / cell.name


def read_result(folder: Path) -> Result | None:
    """Return what is known of a cell, or None if it is not finished."""
    try:
        said = read_json(folder / RESULT)
        return Result(**said | {"curve": [(epoch, value) for epoch, value in said["curve"]]})
    except (OSError, ValueError, TypeError, KeyError):
        return None


def write_result(folder: Path, result: Result) -> None:
    """Write result.json atomically: its presence means that the cell is finished."""
    temporary = folder / f".{RESULT}.tmp"
    temporary.write_text(json.dumps(asdict(result), indent=1) + "\n")
    temporary.replace(folder / RESULT)


def finished(study: Study, identities: Mapping[Cell, str], output: Path) -> dict[Cell, Result]:
    """Return the finished cells of a study.

    Raises:
        InputError: If the folder holds the tables of another study, or a finished cell of that name which was made
            otherwise.
    """
    with contextlib.suppress(OSError, KeyError), open(output / TABLE, newline="") as file:
        others = {row["study"] for row in csv.DictReader(file)} - {study.name}
        if others:
            raise InputError(
                f"{output} holds the results of the study {others.pop()!r}, and this one is {study.name!r}; "
                f"name another folder with --output."
            )
    found = {}
    for cell in study.cells:
        folder = folder_of(output, cell)
        if (result := read_result(folder)) is None:
            continue
        if result.identity != identities[cell]:
            raise InputError(
                f"{folder} holds the finished cell {cell.label!r} of another study or of other configs; name another "
                f"folder with --output, or remove that one."
            )
        found[cell] = result
    return found


def read_users(path: Path, metric: str) -> tuple[list[str], np.ndarray]:
    """Return (user ids, the metric of each) of a file that ``kdrec test --per_user`` wrote.

    Raises:
        InputError: If the file has no such metric.
    """
    with open(path, newline="") as file:
        rows = list(csv.DictReader(file))
    if not rows or metric not in rows[0]:
        known = ", ".join(name for name in (rows[0] if rows else {}) if name != "user")
        raise InputError(f"{path} has no metric {metric!r}; choose the study's metric among {known}.")
    return [row["user"] for row in rows], np.array([float(row[metric] or "nan") for row in rows])


def mean_metrics(path: Path) -> dict[str, float]:
    """Return the mean over users of every metric in a per-user file; users without a value are left out."""
    with open(path, newline="") as file:
        header, *rows = csv.reader(file)
    values = np.array([[float(value or "nan") for value in row[1:]] for row in rows])
    with np.errstate(invalid="ignore"):  # 0 / 0 where no user has a value
        means = np.nansum(values, axis=0) / np.count_nonzero(~np.isnan(values), axis=0)
    return dict(zip(header[1:], means.tolist(), strict=True))


def learning_curve(logs: Path, metric: str) -> list[tuple[int, float]]:
    """Read (epoch, value) of a validation metric from a run's TensorBoard files; empty if there are none."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator  # slow to import

    if not logs.is_dir():  # a config may turn the logger off
        return []
    events = EventAccumulator(str(logs), size_guidance={"scalars": 0})
    events.Reload()
    if not {"epoch", f"val/{metric}"} <= set(events.Tags()["scalars"]):
        return []
    epochs = {event.step: int(event.value) + 1 for event in events.Scalars("epoch")}
    return [(epochs[event.step], float(event.value)) for event in events.Scalars(f"val/{metric}")]


def validated(study: Study, result: Result) -> float | None:
    """Return the study's metric on validation at the epoch that was tested; None if it was not logged."""
    epoch = result.best_epoch if study.checkpoint == "best" else result.epochs
    return dict(result.curve).get(epoch) if result.curve_metric == study.metric else None


def as_rows(study: Study, results: Mapping[Cell, Result]) -> list[dict[str, Any]]:
    """Flatten finished cells, in the study's order, for results.csv."""
    return [
        {
            "study": study.name,
            "method": cell.method,
            "student": cell.student,
            "seed": cell.seed,
            "parameters": (result := results[cell]).parameters,
            "mib": round(result.bytes / 2**20, 4),
            "epochs": result.epochs,
            "best_epoch": result.best_epoch,
            "tested": study.checkpoint,
            "seconds": result.seconds,
            "threads": result.threads,
            "protocol": result.protocol,
            f"val/{study.metric}": validated(study, result),
            **{f"test/{name}": value for name, value in result.metrics.items()},
        }
        for cell in study.cells
        if cell in results
    ]
