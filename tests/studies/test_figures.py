"""Figures of results made by hand: what is drawn, and that nothing warns."""

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from matplotlib.figure import Figure

from kdrec.errors import InputError
from kdrec.studies.figures import draw
from kdrec.studies.plan import Cell
from kdrec.studies.results import Result
from tests.studies.handmade import cell, finish, study_of

TEACHERS = [cell("teacher"), cell("teacher", seed=1)]
STUDENTS = [cell(method, size, seed) for method in ("alone", "FTD") for size in ("2", "4") for seed in (0, 1)]
SIZES = {"": 2**20, "2": 2**17, "4": 2**18, "8": 2**19}


@pytest.fixture(autouse=True)
def _warnings_are_errors(recwarn: pytest.WarningsRecorder) -> Any:
    yield
    # what another test of this process left open is collected at any time
    assert not [warning for warning in recwarn.list if warning.category is not ResourceWarning]


@pytest.fixture
def figures(monkeypatch: pytest.MonkeyPatch) -> dict[str, Figure]:
    """What is saved, by file name."""
    saved: dict[str, Figure] = {}
    original = Figure.savefig

    def save(self: Figure, path: Path) -> None:
        saved[path.name] = self
        original(self, path)

    monkeypatch.setattr(Figure, "savefig", save)
    return saved


def finish_all(output: Path, cells: list[Cell], **changes: Any) -> dict[Cell, Result]:
    """Return results in which the quality is seed + the width / 8."""
    return {
        c: finish(output, c, [c.seed + int(c.student or 8) / 8], SIZES[c.student], **changes) for c in cells
    }  # fmt: skip


def check(output: Path, written: list[Path], names: list[str]) -> None:
    assert written == [output / name for name in names]
    for path in written:
        content = path.read_bytes()
        assert content.startswith(b"\x89PNG\r\n")
        assert len(content) > 5000


def test_quality_against_size(tmp_path: Path, figures: dict[str, Figure]) -> None:
    cells = [*TEACHERS, *STUDENTS]
    check(tmp_path, draw(study_of(cells), finish_all(tmp_path, cells), tmp_path), ["size.png", "curves.png"])
    [axes] = figures["size.png"].axes
    assert axes.get_ylabel() == "test recall@5"
    assert "MiB" in axes.get_xlabel()
    lines = {drawn.get_label(): drawn.lines[0] for drawn in axes.containers}
    assert [*lines] == ["alone", "FTD"]
    assert lines["FTD"].get_xdata().tolist() == [1024.0, 2048.0]  # 2**17 and 2**18 numbers of 2**13 bytes
    assert lines["FTD"].get_ydata().tolist() == [0.75, 1.0]  # the means of 0.25 and 1.25, of 0.5 and 1.5
    bars = axes.containers[1].lines[2][0].get_segments()
    assert [bar[1][1] - bar[0][1] for bar in bars] == pytest.approx([2**0.5, 2**0.5])  # twice the standard deviation
    [level] = [line for line in axes.lines if line.get_linestyle() == "--"]
    assert level.get_ydata() == [1.5, 1.5]
    assert [text.get_text() for text in axes.texts] == ["teacher, 8192.0 MiB"]


def test_learning_curves(tmp_path: Path, figures: dict[str, Figure]) -> None:
    cells = [*TEACHERS, *STUDENTS]
    results = finish_all(tmp_path, cells)
    short = cell("FTD", "4", 1)
    results[short] = replace(results[short], curve=[(1, 0.75), (2, 1.0)])  # stopped early
    draw(study_of(cells), results, tmp_path)
    first, second = figures["curves.png"].axes
    assert (first.get_title(), second.get_title()) == ("student 2", "student 4")
    assert [line.get_label() for line in second.lines] == ["alone", "FTD", "teacher"]
    assert second.lines[0].get_xydata().tolist() == [[1, 0.25], [2, 0.5], [3, 0.375]]
    assert second.lines[1].get_xydata().tolist() == [[1, 0.5], [2, 0.75]]  # epochs that both seeds have
    assert [text.get_text() for text in first.get_legend().get_texts()] == ["alone", "FTD", "teacher"]
    assert figures["curves.png"].get_supylabel() == "validation recall@5"


def test_a_method_has_one_colour_everywhere_and_stands_in_the_legend(
    tmp_path: Path, figures: dict[str, Figure]
) -> None:
    cells = [cell("alone", "2"), cell("FTD", "4"), cell("alone", "4"), cell("HTD", "8")]
    draw(study_of(cells), finish_all(tmp_path, cells), tmp_path)
    panels = figures["curves.png"].axes
    colours = {(line.get_label(), line.get_color()) for panel in panels for line in panel.lines}
    assert colours == {("alone", "C0"), ("FTD", "C1"), ("HTD", "C2")}
    assert {text.get_text() for text in panels[0].get_legend().get_texts()} == {"alone", "FTD", "HTD"}
    assert {drawn.lines[0].get_color() for drawn in figures["size.png"].axes[0].containers} == {"C0", "C1", "C2"}


def test_the_legend_of_many_methods_stands_beside_the_axes_and_tells_them_apart(
    tmp_path: Path, figures: dict[str, Figure]
) -> None:
    cells = [cell(f"method {number}", "2") for number in range(20)]
    draw(study_of(cells), finish_all(tmp_path, cells), tmp_path)
    for figure in figures.values():
        [axes] = figure.axes
        figure.draw_without_rendering()
        legend, whole = axes.get_legend().get_window_extent(), figure.bbox
        assert legend.x0 >= axes.get_window_extent().x1
        assert whole.x0 <= legend.x0 < legend.x1 <= whole.x1
        assert whole.y0 <= legend.y0 < legend.y1 <= whole.y1
    lines = figures["curves.png"].axes[0].lines
    assert len({(line.get_color(), line.get_linestyle()) for line in lines}) == 20


@pytest.mark.parametrize("number", [1, 4, 5, 9])
def test_any_number_of_students(tmp_path: Path, figures: dict[str, Figure], number: int) -> None:
    cells = [cell("alone", str(2 * n)) for n in range(1, number + 1)]
    results = {c: finish(tmp_path, c, [0.5], 100 * int(c.student)) for c in cells}
    check(tmp_path, draw(study_of(cells), results, tmp_path), ["size.png", "curves.png"])
    assert figures["curves.png"].axes[0].get_subplotspec().get_gridspec().ncols == min(number, 4)
    shown = [panel for panel in figures["curves.png"].axes if panel.axison]
    assert [panel.get_title() for panel in shown] == [f"student {2 * n}" for n in range(1, number + 1)]


def test_without_a_teacher_and_with_one_cell(tmp_path: Path, figures: dict[str, Figure]) -> None:
    results = finish_all(tmp_path, [cell("alone", "2", 1)])
    check(tmp_path, draw(study_of(STUDENTS), results, tmp_path), ["size.png", "curves.png"])
    [axes] = figures["size.png"].axes
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["alone"]
    assert not axes.texts
    assert len(figures["curves.png"].axes) == 1


def test_teachers_alone_are_nothing_to_draw(tmp_path: Path) -> None:
    study = study_of([*TEACHERS, cell("alone"), *STUDENTS])
    assert draw(study, finish_all(tmp_path, TEACHERS), tmp_path) == []
    assert not list(tmp_path.glob("*.png"))


def test_a_student_of_which_only_the_teacher_is_there_gets_no_panel(tmp_path: Path, figures: dict[str, Figure]) -> None:
    study = study_of([*TEACHERS, cell("alone"), *STUDENTS])
    draw(study, finish_all(tmp_path, [*TEACHERS, STUDENTS[0]]), tmp_path)
    assert [panel.get_title() for panel in figures["curves.png"].axes] == ["student 2"]


def test_students_without_options(tmp_path: Path, figures: dict[str, Figure]) -> None:
    cells = [*TEACHERS, cell("alone"), cell("FTD")]
    check(tmp_path, draw(study_of(cells), finish_all(tmp_path, cells), tmp_path), ["size.png", "curves.png"])
    [axes] = figures["curves.png"].axes
    assert axes.get_title() == "student"
    assert [line.get_label() for line in axes.lines] == ["alone", "FTD", "teacher"]


def test_without_logs_there_are_no_curves(tmp_path: Path) -> None:
    results = finish_all(tmp_path, STUDENTS, curve=[])
    check(tmp_path, draw(study_of(STUDENTS), results, tmp_path), ["size.png"])
    teachers = finish_all(tmp_path, TEACHERS)
    check(tmp_path, draw(study_of([*TEACHERS, *STUDENTS]), teachers | results, tmp_path), ["size.png"])


def test_a_first_student_without_curves_does_not_hide_the_legend(tmp_path: Path, figures: dict[str, Figure]) -> None:
    results = finish_all(tmp_path, STUDENTS)
    results |= {c: replace(result, curve=[]) for c, result in results.items() if c.student == "2"}
    draw(study_of(STUDENTS), results, tmp_path)
    assert len(figures["curves.png"].axes[0].get_legend().get_texts()) == 2


def test_curves_of_another_metric_are_not_passed_off_as_this_ones(tmp_path: Path) -> None:
    results = finish_all(tmp_path, STUDENTS)
    check(tmp_path, draw(study_of(STUDENTS, metric="ndcg@5"), results, tmp_path), ["size.png"])
    older = {c: replace(result, curve_metric="") for c, result in results.items()}
    check(tmp_path, draw(study_of(STUDENTS, metric="ndcg@5"), older, tmp_path), ["size.png", "curves.png"])


def test_without_matplotlib_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(InputError, match=r"Figures need matplotlib; install the extra: .*'\.\[study\]'\."):
        draw(study_of(STUDENTS), finish_all(tmp_path, STUDENTS), tmp_path)
