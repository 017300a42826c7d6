"""A report of models side by side: tables for the terminal, Markdown, and CSV with a row for each model."""

import csv
import io
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import fields
from typing import Any

from rich import box
from rich.table import Table
from rich.text import Text

from kdrec.deploy.compare import Model, Report
from kdrec.evaluation.metrics import LOGGED_METRICS
from kdrec.evaluation.significance import Comparison
from kdrec.evaluation.tables import COMPARED, comparison_cells, markdown_table

_COLUMNS = 5  # models that stand side by side on 140 characters
_MIB = 2**20
STAGES = {"val": "validation", "test": "test"}

Row = tuple[str, list[str]]


def tables(report: Report) -> list[Table]:
    """Lay out a report for the terminal: models are columns, the reference first in every table."""
    reference, *others = report.models
    starts = range(0, max(len(others), 1), _COLUMNS - 1)
    laid = []
    for start in starts:
        shown = [reference, *others[start : start + _COLUMNS - 1]]
        table = _empty(_heading(report), "" if start + _COLUMNS - 1 < len(others) else _caption(report))
        table.add_column("")
        for model in shown:
            table.add_column(Text(model.name), justify="right", overflow="fold")
        for section in _sections(report, shown):
            for name, cells in section:
                table.add_row(name, *cells)
            table.add_section()
        laid.append(table)
    if report.pairs:
        table = _empty(f"Differences in {STAGES[report.stage]} {report.metric}", _test_of(report))
        for place, name in enumerate(COMPARED):
            table.add_column(name, justify="left" if place < 2 else "right", overflow="fold")
        for pair in report.pairs:
            table.add_row(*map(Text, comparison_cells(pair)))
        laid.append(table)
    return laid


def markdown(report: Report) -> str:
    """Return a report as Markdown, the models as columns of one table."""
    rows = [[name, *cells] for section in _sections(report, report.models) for name, cells in section]
    models = markdown_table(["", *(model.name for model in report.models)], rows, num_texts=1)
    parts = [f"# {_heading(report)}", models, _caption(report)]
    if report.pairs:
        compared = markdown_table(COMPARED, [comparison_cells(pair) for pair in report.pairs], num_texts=2)
        parts += [f"## Differences in {STAGES[report.stage]} {report.metric}", compared, _test_of(report)]
    return "\n\n".join(parts) + "\n"


def models_csv(report: Report) -> str:
    """Return a row for each model, with all that was measured of it and its difference from the reference."""
    against = {pair.first: pair for pair in report.pairs if pair.second == report.reference.name}
    rows = []
    for model in report.models:
        row: dict[str, Any] = {
            "model": model.name,
            "file": model.path,
            "protocol": report.protocol,
            "users": report.num_users,
            "parameters": model.parameters,
            "bytes_of_model": model.bytes_of_model,
            "bytes_on_disk": model.bytes_on_disk,
        }
        if model.latency:
            row |= {
                "latency_p50_ms": model.latency.p50,
                "latency_p99_ms": model.latency.p99,
                "users_per_second": model.latency.users_per_second,
            }
        row |= {f"{report.stage}/{name}": value for name, value in model.metrics.items()}
        row |= {"reference": report.reference.name, f"overlap@{report.listed}": model.overlap}
        row |= {
            "compared": report.metric,
            "kept": _ratio(_metric(report.metric)(model), _metric(report.metric)(report.reference)),
        }
        pair = against.get(model.name)
        for key in ("difference", "low", "high", "p", "corrected_p"):
            row[key] = getattr(pair, key) if pair else None
        rows.append(row)
    return _csv(list(rows[0]), rows)


def pairs_csv(report: Report) -> str:
    """Return a row for each two models: the difference in the metric, its interval and p values."""
    rows = [{"metric": f"{report.stage}/{report.metric}", **vars(pair)} for pair in report.pairs]
    return _csv(["metric", *(field.name for field in fields(Comparison))], rows)


def _sections(report: Report, models: Sequence[Model]) -> Iterator[list[Row]]:
    """Lay out rows of (name, a cell for each model) in sections; behind a value is its share of the reference's."""

    def row(name: str, value: Callable[[Model], float], written: str, shares: bool = True) -> Row:
        whole = value(report.reference)
        cells = [_written(value(model), written) for model in models]
        if shares:
            cells = [
                cell if model is report.reference else f"{cell} {_written(_ratio(value(model), whole), '{:.1%}'):>6}"
                for model, cell in zip(models, cells, strict=True)
            ]
        return name, cells

    yield [
        row("parameters", lambda model: model.parameters, "{:,}"),
        row("MiB of the model", lambda model: model.bytes_of_model / _MIB, "{:.3f}"),
        row("MiB on disk", lambda model: model.bytes_on_disk / _MIB, "{:.3f}"),
    ]
    if report.measured:
        yield [
            row("ms a user, p50", lambda model: _latency(model, "p50"), "{:.3f}"),
            row("ms a user, p99", lambda model: _latency(model, "p99"), "{:.3f}"),
            row("users a second", lambda model: _latency(model, "users_per_second"), "{:,.0f}"),
        ]
    for metric in LOGGED_METRICS:
        names = [name for name in report.reference.metrics if name.partition("@")[0] == metric]
        yield [row(name, _metric(name), "{:.4f}") for name in names]
    yield [row(f"shared top {report.listed}", lambda model: model.overlap, "{:.1%}", shares=False)]


def _metric(name: str) -> Callable[[Model], float]:
    return lambda model: model.metrics[name]


def _latency(model: Model, name: str) -> float:
    return getattr(model.latency, name)


def _heading(report: Report) -> str:
    return f"{report.protocol}: {STAGES[report.stage]} of {report.num_users:,} users"


def _caption(report: Report) -> str:
    """Say what the numbers are, in lines of one sentence."""
    shares = f"Behind each number its share of {report.reference.name}'s." if len(report.models) > 1 else ""
    disk = "On disk is all of the file or folder: ids and titles too, and in a checkpoint the optimizer's state."
    held = "The bytes of an export are those of its files; onnxruntime holds its items as floats once it is loaded."
    return "\n".join(filter(None, (shares, disk, held, report.measured)))


def _test_of(report: Report) -> str:
    return (
        f"Means over users; 95 % intervals by the bootstrap over users.\n"
        f"p of the paired t test, by Holm's correction for the {len(report.pairs)} comparisons."
    )


def _empty(title: str, caption: str) -> Table:
    return Table(title=title, caption=caption, box=box.SIMPLE_HEAD, title_justify="left", caption_justify="left")


def _ratio(part: float, whole: float) -> float:
    return part / whole if whole else math.nan


def _written(value: float, how: str) -> str:
    return "-" if math.isnan(value) else how.format(value)


def _csv(columns: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> str:
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()
