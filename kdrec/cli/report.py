"""What a run says at its end: tables for people."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from kdrec.evaluation.metrics import METRICS

_SHOWN = ("recall@10", "ndcg@10", "recall@20", "ndcg@20")


def metrics_table(metrics: Mapping[str, float], title: str) -> Table:
    """Lay out ``name@k`` values with a row for each metric and a column for each cutoff.

    Args:
        metrics: Values by name, without the stage's prefix.
        title: Above the table.
    """
    cutoffs = sorted({int(name.partition("@")[2]) for name in metrics if "@" in name})
    table = Table(title=title, box=box.SIMPLE_HEAD, title_justify="left")
    table.add_column("metric")
    for k in cutoffs:
        table.add_column(f"@{k}", justify="right")
    for name in (*METRICS, "recall_head", "recall_tail", "coverage"):
        table.add_row(name, *(_number(metrics.get(f"{name}@{k}")) for k in cutoffs))
    return table


def fit_table(rows: Iterable[tuple[str, Mapping[str, Any]]]) -> Table:
    """Lay out models side by side, and below them what share of the first the last one keeps.

    Args:
        rows: (what it is, its facts): parameters, metrics (with ``val/`` names), epochs, seconds.
    """
    rows = list(rows)
    table = Table(title="Validation, best epoch", box=box.SIMPLE_HEAD, title_justify="left")
    table.add_column("model")
    for column in ("parameters", "MiB", *_SHOWN, "epochs", "seconds"):
        table.add_column(column, justify="right")
    for name, facts in rows:
        table.add_row(
            name,
            f"{facts['parameters']:,}",
            f"{facts['parameters'] * 4 / 2**20:.2f}",
            *(_number(facts["metrics"].get(f"val/{metric}")) for metric in _SHOWN),
            facts.get("epochs", "-"),
            facts.get("seconds", "-"),
        )
    if len(rows) > 1:
        (_, teacher), (_, student) = rows[0], rows[-1]
        table.add_section()
        kept = [_share(student["metrics"].get(f"val/{m}"), teacher["metrics"].get(f"val/{m}")) for m in _SHOWN]
        size = _share(student["parameters"], teacher["parameters"])
        table.add_row("student / teacher", size, size, *kept, "", "")
    return table


def show(*parts: Any) -> None:
    """Print tables and lines; wide enough for the tables where the output is no terminal."""
    console = Console(highlight=False, soft_wrap=True)
    if not console.is_terminal:
        console.width = 140
    for part in parts:
        console.print(part, markup=False)


def next_steps(checkpoint: Path, logs: Path | None, config: Path | None) -> str:
    """Say where everything is and what to type now."""
    lines = [f"checkpoint  {checkpoint}"]
    if config:
        lines.append(f"config      {config}")
    if logs:
        lines.append(f"logs        {logs}   (tensorboard --logdir {logs.parts[0] if not logs.is_absolute() else logs})")
    lines.append(f"next        kdrec test --ckpt_path {checkpoint}")
    return "\n".join(lines)


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"


def _share(part: float | None, whole: float | None) -> str:
    return "-" if part is None or not whole else f"{part / whole:.1%}"
