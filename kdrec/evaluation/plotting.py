"""What all figures share: matplotlib if it is there, markers, and an axis for sizes."""

from collections.abc import Iterable
from typing import TYPE_CHECKING

from kdrec.errors import InputError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MARKERS = "osD^vPX*"
_CLOSEST_TICKS = 0.07  # of the axis, so that their labels do not touch


def new_figure(width: float, height: float) -> "Figure":
    """Return an empty figure.

    Args:
        width: Inches.
        height: Inches.

    Raises:
        InputError: If matplotlib is missing.
    """
    try:
        from matplotlib.figure import Figure  # heavy, and an extra
    except ImportError:
        raise InputError("Figures need matplotlib; install the extra: python -m pip install '.[study]'.") from None
    return Figure(figsize=(width, height), dpi=150, layout="constrained")


def log_axis(axes: "Axes", values: Iterable[float], label: str) -> None:
    """Make the horizontal axis logarithmic, with ticks at the values drawn that are not too close for their labels."""
    axes.set_xscale("log")
    ticks: list[float] = []
    known = sorted(set(values))
    for value in known:
        if not ticks or value / ticks[-1] > (known[-1] / known[0]) ** _CLOSEST_TICKS:
            ticks.append(value)
    axes.set_xticks(ticks, [f"{value:.3g}" for value in ticks])
    axes.minorticks_off()
    axes.set_xlabel(label)
