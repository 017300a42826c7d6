"""Studies made by hand: nothing is trained, and every number is known beforehand."""

import csv
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from kdrec.studies.plan import TEACHER, Cell, Study
from kdrec.studies.results import PER_USER, Result, folder_of

METRIC = "recall@5"


def cell(method: str, student: str = "", seed: int = 0) -> Cell:
    """Return a cell; FTD and HTD need a teacher, and "FTD of wide" needs that one of several."""
    needs_teacher = method.partition(" of ")[0] in ("FTD", "HTD")
    return Cell(method, student, seed, ("--config", f"{method}.yaml"), needs_teacher, method.partition(" of ")[2])


def study_of(cells: Sequence[Cell], **changes: Any) -> Study:
    """Return the study of some cells, with methods and students in the order in which they occur."""
    learners = [cell for cell in cells if cell.method != TEACHER]
    parts = {
        "name": "hand",
        "metric": METRIC,
        "checkpoint": "best",
        "methods": tuple(dict.fromkeys(cell.method for cell in learners)),
        "students": tuple(dict.fromkeys(cell.student for cell in learners)),
        "cells": tuple(cells),
    }
    return Study(**parts | changes)  # type: ignore[arg-type]


def finish(output: Path, cell: Cell, users: Sequence[float], parameters: int = 100, **changes: Any) -> Result:
    """Write a cell's users.csv and return its result.

    Args:
        output: Folder of the study.
        cell: What is finished.
        users: recall@5 of each user; ndcg@5 is half of it, and recall@10 is 1.
        parameters: In the model.
        changes: To the result.
    """
    rows = [{"recall@5": value, "ndcg@5": value / 2, "recall@10": 1.0} for value in users]
    folder = folder_of(output, cell)
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / PER_USER, "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["user", *rows[0]])
        writer.writerows([f"u{number}", *row.values()] for number, row in enumerate(rows))
    parts = {
        "identity": "1" * 64,
        "protocol": "hand-written, full ranking",
        "parameters": parameters,
        "bytes": 2**13 * parameters,  # so that a table that multiplied parameters by 4 would be found out
        "seconds": 2.0,
        "epochs": 3,
        "best_epoch": 2,
        "threads": 1,
        "checkpoint": "best.ckpt",
        "metrics": {name: statistics.fmean(row[name] for row in rows) for name in rows[0]},
        "curve": [(1, 0.25), (2, 0.5), (3, 0.375)],
        "curve_metric": METRIC,
    }
    return Result(**parts | changes)  # type: ignore[arg-type]
