import sys

import pytest

from kdrec.errors import InputError
from kdrec.evaluation.plotting import log_axis, new_figure


@pytest.mark.parametrize(
    ("values", "ticks"),
    [
        ([4.0, 1.0, 4.0, 2.0], ["1", "2", "4"]),
        ([1.0, 1.05, 4.0], ["1", "4"]),  # too close for two labels
        ([3.0], ["3"]),
        ([3.0, 3.0], ["3"]),
    ],
)
def test_ticks_at_the_values(values: list[float], ticks: list[str]) -> None:
    axes = new_figure(4, 3).add_subplot()
    axes.plot(values, values)
    log_axis(axes, values, "MiB")
    assert [text.get_text() for text in axes.get_xticklabels()] == ticks
    assert (axes.get_xscale(), axes.get_xlabel()) == ("log", "MiB")
    assert not axes.xaxis.get_minorticklocs().size


def test_without_matplotlib(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(InputError, match=r"need matplotlib; install the extra: python -m pip install '\.\[study\]'"):
        new_figure(4, 3)
