"""A report of models side by side in figures: quality against size, and against latency."""

from collections.abc import Sequence
from pathlib import Path

from kdrec.deploy.compare import Report
from kdrec.deploy.tables import STAGES
from kdrec.evaluation.plotting import MARKERS, log_axis, new_figure


def draw(report: Report, folder: Path) -> None:
    """Draw size.png and, if latencies were measured, latency.png.

    Args:
        report: The models.
        folder: Where to; it is there.

    Raises:
        InputError: If matplotlib is missing.
    """
    sizes = [model.bytes_of_model / 2**20 for model in report.models]
    _draw(report, sizes, "size of the deployed model, MiB", folder / "size.png")
    latencies = [model.latency.p50 for model in report.models if model.latency]
    if latencies:
        label = "median latency of one user's list, ms (1 CPU thread)"
        _draw(report, latencies, label, folder / "latency.png")


def _draw(report: Report, places: Sequence[float], label: str, path: Path) -> None:
    """Draw a point for each model, and a level at the reference's quality."""
    figure = new_figure(6.4, 4.4)
    axes = figure.add_subplot()
    for number, (model, place) in enumerate(zip(report.models, places, strict=True)):
        axes.plot(
            [place], [model.metrics[report.metric]], label=model.name, color=f"C{number}", linestyle="none",
            marker=MARKERS[number % len(MARKERS)], markersize=7,
        )  # fmt: skip
    axes.axhline(report.reference.metrics[report.metric], color="0.6", linestyle="--", linewidth=1, zorder=0)
    log_axis(axes, places, label)
    axes.set_ylabel(f"{STAGES[report.stage]} {report.metric}")
    axes.grid(alpha=0.3)
    axes.legend(frameon=False)
    figure.savefig(path)
