"""A study in figures: quality against size, and learning curves."""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kdrec.evaluation.plotting import MARKERS, log_axis, new_figure
from kdrec.studies.plan import TEACHER, Cell, Study
from kdrec.studies.results import Result

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_FEW = 8  # methods; the legend of more stands beside the axes
_LEGEND = 2.4  # inches that it takes there, and each of its lines:
_LINE = 0.2
_STYLES = ("-", ":", "-.")  # there are but ten colours


def draw(study: Study, results: Mapping[Cell, Result], output: Path) -> list[Path]:
    """Draw the figures of the finished cells.

    Args:
        study: The plan.
        results: Its finished cells.
        output: Folder of the study.

    Returns:
        What was written: size.png, and curves.png if validation was logged.

    Raises:
        InputError: If matplotlib is missing.
    """
    results = {  # the study may have moved on to another metric than a cell was watched by
        cell: result if result.curve_metric in ("", study.metric) else replace(result, curve=[])
        for cell, result in results.items()
    }
    drawn = [cell for cell in results if cell.method != TEACHER]
    students = [student for student in study.students if any(cell.student == student for cell in drawn)]
    written = []
    beside, least = (_LEGEND, _LINE * (len(study.methods) + 2)) if len(study.methods) > _FEW else (0, 0)
    if drawn:
        figure = new_figure(6.4 + beside, max(4.4, least))
        _draw_sizes(figure.add_subplot(), study, results)
        figure.savefig(output / "size.png")
        written.append(output / "size.png")
    if any(results[cell].curve for cell in drawn):
        columns = min(len(students), 4)
        rows = -(-len(students) // columns)
        figure = new_figure(1 + 3.2 * columns + beside, max(0.6 + 2.8 * rows, least))
        axes = figure.subplots(rows, columns, squeeze=False, sharex=True, sharey=True)
        for place, student in enumerate(students):
            _draw_curves(axes[place // columns][place % columns], study, results, student)
        for place in range(len(students), rows * columns):
            axes[place // columns][place % columns].set_axis_off()
        figure.supxlabel("epoch", fontsize="medium")
        figure.supylabel(f"validation {study.metric}", fontsize="medium")
        panels = [panel.get_legend_handles_labels() for panel in axes.flat]  # a method may be in some panels only
        shown = {label: handle for handles, labels in panels for handle, label in zip(handles, labels, strict=True)}
        _add_legend(axes[0][-1 if beside else 0], [*shown.values()], [*shown], "small")
        figure.savefig(output / "curves.png")
        written.append(output / "curves.png")
    return written


def _draw_sizes(axes: "Axes", study: Study, results: Mapping[Cell, Result]) -> None:
    """Draw the metric against the size of the model, with a bar of one standard deviation over seeds."""
    for number, method in enumerate(study.methods):
        points = []
        for student in study.students:
            some = [result for cell, result in results.items() if (cell.method, cell.student) == (method, student)]
            if some:
                values = [result.metrics[study.metric] for result in some]
                deviation = statistics.stdev(values) if len(values) > 1 else 0.0
                points.append((some[0].bytes / 2**20, statistics.fmean(values), deviation))
        if points:
            sizes, means, deviations = zip(*sorted(points), strict=True)
            axes.errorbar(
                sizes, means, deviations, label=method, color=f"C{number}", marker=MARKERS[number % len(MARKERS)],
                markersize=5, capsize=3,
            )  # fmt: skip
    for name in study.teachers:
        teachers = [r for cell, r in results.items() if (cell.method, cell.student) == (TEACHER, name)]
        if not teachers:
            continue
        mean = statistics.fmean(result.metrics[study.metric] for result in teachers)
        told = f"{TEACHER} {name}".strip() + f", {teachers[0].bytes / 2**20:.1f} MiB"
        axes.axhline(mean, color="0.6", linestyle="--", linewidth=1, zorder=0)
        axes.text(0.02, mean, told, transform=axes.get_yaxis_transform(), va="bottom", color="0.4")
    log_axis(axes, (r.bytes / 2**20 for r in results.values()), "size of the deployed model, MiB")
    axes.set_ylabel(f"test {study.metric}")
    axes.grid(alpha=0.3)
    _add_legend(axes, *axes.get_legend_handles_labels(), "medium")


def _add_legend(axes: "Axes", handles: Sequence[Any], labels: Sequence[str], size: str) -> None:
    if len(labels) > _FEW:
        axes.legend(handles, labels, frameon=False, fontsize="small", loc="upper left", bbox_to_anchor=(1, 1))
    else:
        axes.legend(handles, labels, frameon=False, fontsize=size)


def _draw_curves(axes: "Axes", study: Study, results: Mapping[Cell, Result], student: str) -> None:
    """Draw the validation metric over the epochs, the mean over seeds, for each method of a student."""
    lines = [(method, student) for method in study.methods] + [(TEACHER, name) for name in study.teachers]
    for number, (method, of) in enumerate(lines):
        curves = [dict(r.curve) for c, r in results.items() if (c.method, c.student) == (method, of) and r.curve]
        if not curves:
            continue
        epochs = sorted(set.intersection(*(set(curve) for curve in curves)))
        means = [statistics.fmean(curve[epoch] for curve in curves) for epoch in epochs]
        style: dict[str, Any] = {"color": f"C{number}", "linestyle": _STYLES[number // 10 % len(_STYLES)]}
        if method == TEACHER:
            style = {"color": "0.6", "linestyle": "--"}
        label = method if method != TEACHER else f"{TEACHER} {of}".strip()
        axes.plot(epochs, means, label=label, linewidth=1.4, **style)
    axes.set_title(f"student {student}" if student else "student", fontsize="medium")
    axes.grid(alpha=0.3)
