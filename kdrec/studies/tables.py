"""A study in tables: results.csv for machines, table.md for people, and a summary for the terminal."""

import csv
import io
import itertools
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from rich import box
from rich.table import Table

from kdrec.errors import InputError
from kdrec.evaluation.significance import Comparison, compare
from kdrec.evaluation.tables import COMPARED, comparison_cells, markdown_table
from kdrec.studies.plan import TEACHER, Cell, Study
from kdrec.studies.results import PER_USER, TABLE, Result, as_rows, folder_of, read_users, validated

Results = Mapping[Cell, Result]

_SIZE = ("student", "parameters", "MiB")
_SIDE_BY_SIDE = 8  # methods that a page is wide enough for


def write_tables(study: Study, results: Results, output: Path) -> list[Path]:
    """Write results.csv and table.md, each atomically.

    Args:
        study: The plan.
        results: Its finished cells; there may be fewer than the plan has.
        output: Folder of the study.

    Returns:
        What was written.
    """
    rows = as_rows(study, results)
    text = io.StringIO(newline="")
    columns = dict.fromkeys(name for row in rows for name in row)  # configs may differ in their cutoffs
    writer = csv.DictWriter(text, list(columns), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    contents = {TABLE: text.getvalue(), "table.md": markdown(study, results, output)}
    for name, content in contents.items():
        temporary = output / f".{name}.tmp"
        temporary.write_text(content, encoding="utf-8")
        temporary.replace(output / name)
    return [output / name for name in contents]


def markdown(study: Study, results: Results, output: Path) -> str:
    """Return the study as Markdown: the metric by size and method, what else was measured, and significance."""
    protocols = sorted({result.protocol for result in results.values()})
    tested = "last epoch" if study.checkpoint == "last" else "best epoch on validation"
    parts = [
        f"# {study.name}",
        f"{' / '.join(protocols)}; test {study.metric}; {tested}; {len(results)} of {len(study.cells)} cells. "
        f"Mean ± standard deviation over seeds (number of seeds).",
        _by_size(study, results),
        "## More metrics\n\n" + _more(study, results),
    ]
    comparisons = significance(study, results, output)
    if comparisons:
        parts.append(
            f"## Significance\n\nPaired t test over the users, whose values are averaged over seeds; 95 % intervals, "
            f"p by Holm's correction for the {len(comparisons)} comparisons.\n\n"
            + markdown_table(
                ["student", *COMPARED],
                [[student, *comparison_cells(comparison)] for student, comparison in comparisons],
                num_texts=3,
            )
        )
    return "\n\n".join(parts) + "\n"


def significance(study: Study, results: Results, output: Path) -> list[tuple[str, Comparison]]:
    """Compare every two methods of each student, and each with the teacher: (student, comparison).

    Where there are several teachers, what learned of one is not compared with what learned of another. All pairs are
    corrected together.
    """
    values: dict[str, np.ndarray] = {}
    pairs: list[tuple[str, str]] = []
    users: list[str] | None = None
    for method, student in _groups(study, results):
        rows = []
        for cell in results:
            if (cell.method, cell.student) == (method, student):
                ids, row = read_users(folder_of(output, cell) / PER_USER, study.metric)
                if users is not None and ids != users:
                    raise InputError(f"{folder_of(output, cell)} was tested on other users than the cells before it.")
                users = ids
                rows.append(row)
        key = f"{TEACHER} {student}".strip() + "\n" if method == TEACHER else f"{method}\n{student}"
        values[key] = np.stack(rows)
    for student in study.students:
        source = {cell.method: cell.teacher for cell in study.cells if cell.needs_teacher}
        names = {f"{method}\n{student}": source.get(method) for method in reversed(study.methods)}
        teachers = {f"{TEACHER} {teacher}".strip() + "\n": teacher for teacher in study.teachers}
        names |= teachers
        pairs += [
            (first, second)
            for first, second in itertools.combinations([name for name in names if name in values], 2)
            if first not in teachers and (names[first] == names[second] or None in (names[first], names[second]))
        ]
    return [
        (
            c.first.partition("\n")[2],
            Comparison(**vars(c) | {"first": c.first.partition("\n")[0], "second": c.second.partition("\n")[0]}),
        )
        for c in (compare(values, pairs) if pairs else [])
    ]


def summary_table(study: Study, results: Results) -> Table:
    """Lay out the metric by student and method for the terminal."""
    table = Table(title=f"{study.name}: test {study.metric}", box=box.SIMPLE_HEAD, title_justify="left")
    columns, rows, num_texts = _main_table(study, results)
    for number, name in enumerate(columns):
        table.add_column(name, justify="left" if number < num_texts else "right")
    for row in rows:
        table.add_row(*row)
    return table


def _by_size(study: Study, results: Results) -> str:
    return markdown_table(*_main_table(study, results))


def _main_table(study: Study, results: Results) -> tuple[list[str], list[list[str]], int]:
    """Return (columns, rows, columns of text): methods side by side, or, if they are many, one below the other."""
    if len(study.methods) <= _SIDE_BY_SIDE:
        return [*_SIZE, *study.methods], _size_rows(study, results), 1
    rows = []
    for method, student in _groups(study, results):
        some = [result for cell, result in results.items() if (cell.method, cell.student) == (method, student)]
        size = f"{some[0].bytes / 2**20:.2f}"
        rows.append([method, student, f"{some[0].parameters:,}", size, _spread(some, study.metric)])
    return ["method", *_SIZE, study.metric], rows, 2


def _size_rows(study: Study, results: Results) -> list[list[str]]:
    """Return a row for each teacher and student: label, parameters, MiB deployed, the metric by method."""
    rows = []
    teachers: list[Result] = []
    for name in study.teachers:
        teachers = [r for cell, r in results.items() if (cell.method, cell.student) == (TEACHER, name)]
        if teachers:
            cells = [_spread(teachers, study.metric), *[""] * (len(study.methods) - 1)]
            label = f"{TEACHER} {name}".strip()
            rows.append([label, f"{teachers[0].parameters:,}", f"{teachers[0].bytes / 2**20:.2f}", *cells])
    students = {cell: result for cell, result in results.items() if cell.method != TEACHER}
    sizes = dict.fromkeys((cell.student, students[cell].bytes) for cell in study.cells if cell in students)
    for student, size in sizes:  # methods may make different sizes of one student
        some = {cell: result for cell, result in students.items() if (cell.student, result.bytes) == (student, size)}
        by_method = [[result for cell, result in some.items() if cell.method == method] for method in study.methods]
        share = f" ({size / teachers[0].bytes:.1%})" if teachers and len(study.teachers) == 1 else ""
        parameters = next(iter(some.values())).parameters
        told = [student, f"{parameters:,}", f"{size / 2**20:.2f}{share}"]
        rows.append([*told, *(_spread(found, study.metric) for found in by_method)])
    return rows


def _more(study: Study, results: Results) -> str:
    """Return every method and student with the usual metrics and the seconds of a fit."""
    cutoff = study.metric.partition("@")[2]
    shown = ["recall@10", "ndcg@10", f"recall@{cutoff}", f"ndcg@{cutoff}"]
    shown += [f"recall_head@{cutoff}", f"recall_tail@{cutoff}"]
    shown = [name for name in dict.fromkeys(shown) if all(name in result.metrics for result in results.values())]
    rows = []
    for method, student in _groups(study, results):
        some = [result for cell, result in results.items() if (cell.method, cell.student) == (method, student)]
        means = [f"{statistics.fmean(result.metrics[name] for result in some):.4f}" for name in shown]
        means.append(_mean_validated(study, some))
        seconds = statistics.median(result.seconds for result in some)
        rows.append([method, student, *means, f"{seconds:.0f}", f"{some[0].epochs}"])
    header = ["method", "student", *shown, f"val {study.metric}", "seconds", "epochs"]
    return markdown_table(header, rows, num_texts=2)


def _mean_validated(study: Study, results: Sequence[Result]) -> str:
    values = [value for result in results if (value := validated(study, result)) is not None]
    return f"{statistics.fmean(values):.4f}" if len(values) == len(results) else "-"


def _groups(study: Study, results: Results) -> list[tuple[str, str]]:
    """Return the (method, student) of the finished cells, in the study's order."""
    return list(dict.fromkeys((cell.method, cell.student) for cell in study.cells if cell in results))


def _spread(results: Sequence[Result], metric: str) -> str:
    """Write mean, standard deviation and number of seeds."""
    values = [result.metrics[metric] for result in results]
    if not values:
        return "-"
    deviation = f" ± {statistics.stdev(values):.4f}" if len(values) > 1 else ""
    return f"{statistics.fmean(values):.4f}{deviation} ({len(values)})"
