"""What tables and figures say of a report whose every number was made by hand."""

import csv
import io
import math
from dataclasses import replace
from pathlib import Path

import pytest
from matplotlib.figure import Figure
from rich.console import Console

from kdrec.deploy.compare import Model, Report
from kdrec.deploy.figures import draw
from kdrec.deploy.latency import Latency
from kdrec.deploy.tables import markdown, models_csv, pairs_csv, tables
from kdrec.evaluation.significance import Comparison

PAIR = Comparison("student", "teacher", -0.125, -0.25, -0.0625, 0.01, 0.03, 1234)


def model(name: str, size: int, quality: float, time: float) -> Model:
    metrics = {"recall@5": quality / 2, "recall@10": quality, "recall_tail@10": math.nan, "coverage@10": 0.25}
    return Model(name, Path(f"{name}.ckpt"), size, size * 4, size * 12, metrics, quality, Latency(time, 2 * time, 50))


TEACHER, STUDENT = model("teacher", 2**20, 0.5, 4.0), model("student", 2**17, 0.375, 0.5)
REPORT = Report(
    "toy/time, full ranking", "test", 1234, "recall@10", 10, [TEACHER, STUDENT], [PAIR], "Latency: 1 thread."
)  # fmt: skip


def printed(report: Report) -> str:
    console = Console(width=140, file=io.StringIO(), highlight=False)
    for table in tables(report):
        console.print(table)
    return console.file.getvalue()  # type: ignore[attr-defined]


def cells(text: str) -> dict[str, list[str]]:
    """Return the rows of a printed table: what begins a row -> its other words."""
    lines = [line.split("  ") for line in text.splitlines()]
    return {words[0]: words[1:] for line in lines if (words := [word.strip() for word in line if word.strip()])}


def test_the_table_of_the_terminal() -> None:
    found = cells(printed(REPORT))
    assert found["teacher"] == ["student"]  # the reference stands first
    assert found["parameters"] == ["1,048,576", "131,072", "12.5%"]
    assert found["MiB of the model"] == ["4.000", "0.500", "12.5%"]
    assert found["MiB on disk"] == ["12.000", "1.500", "12.5%"]
    assert found["ms a user, p50"] == ["4.000", "0.500", "12.5%"]
    assert found["ms a user, p99"] == ["8.000", "1.000", "12.5%"]
    assert found["users a second"] == ["50", "50 100.0%"]
    assert found["recall@5"] == ["0.2500", "0.1875", "75.0%"]
    assert found["recall_tail@10"] == ["-", "-", "-"]
    assert found["shared top 10"] == ["50.0%", "37.5%"]
    assert found["Latency: 1 thread."] == []
    assert found["student"] == ["teacher", "-0.1250", "-0.2500 .. -0.0625", "0.03", "1,234"]


@pytest.mark.parametrize("number", [1, 2, 4, 5, 6, 9, 10])
def test_any_number_of_models_fits(number: int) -> None:
    models = [replace(TEACHER, name=f"a-model-of-seed-{place:02}") for place in range(number)]
    text = printed(replace(REPORT, models=models, pairs=[]))
    assert max(map(len, text.splitlines())) <= 140
    for place in range(1, number):
        assert text.count(f"a-model-of-seed-{place:02}") == 1  # not broken into two lines
    heads = [line for line in text.splitlines() if "seed-00" in line and "Behind" not in line]
    assert len(heads) == len(tables(replace(REPORT, models=models, pairs=[]))) == max(1, math.ceil((number - 1) / 4))


def test_without_latencies() -> None:
    models = [replace(one, latency=None) for one in REPORT.models]
    report = replace(REPORT, models=models, measured="")
    assert "users a second" not in printed(report) + markdown(report)
    assert "latency" not in models_csv(report)


def test_markdown_says_the_same() -> None:
    text = markdown(replace(REPORT, models=[TEACHER, replace(STUDENT, name="a|b")]))
    assert "|  | teacher | a\\|b |\n| --- | --: | --: |\n| parameters | 1,048,576 | 131,072  12.5% |" in text
    assert "| recall@10 | 0.5000 | 0.3750  75.0% |" in text
    assert "# toy/time, full ranking: test of 1,234 users" in text
    assert "| student | teacher | -0.1250 | -0.2500 .. -0.0625 | 0.03 | 1,234 |" in text


def test_csv_keeps_whole_numbers() -> None:
    teacher, student = csv.DictReader(io.StringIO(models_csv(REPORT)))
    assert teacher["reference"] == student["reference"] == "teacher"
    assert (student["model"], student["bytes_of_model"], student["bytes_on_disk"]) == ("student", "524288", "1572864")
    assert (student["test/recall@10"], student["overlap@10"], student["kept"]) == ("0.375", "0.375", "0.75")
    assert (student["latency_p50_ms"], student["latency_p99_ms"], student["users_per_second"]) == ("0.5", "1.0", "50")
    assert [student[key] for key in ("difference", "low", "high", "corrected_p")] == [
        "-0.125", "-0.25", "-0.0625", "0.03",
    ]  # fmt: skip
    assert teacher["difference"] == ""
    [pair] = csv.DictReader(io.StringIO(pairs_csv(REPORT)))
    assert (pair["metric"], pair["first"], pair["num_users"]) == ("test/recall@10", "student", "1234")
    assert pairs_csv(replace(REPORT, pairs=[])) == pairs_csv(REPORT).splitlines(keepends=True)[0]


def test_figures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    saved: dict[str, Figure] = {}
    original = Figure.savefig

    def save(self: Figure, path: Path) -> None:
        saved[path.name] = self
        original(self, path)

    monkeypatch.setattr(Figure, "savefig", save)
    draw(REPORT, tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"size.png", "latency.png"}
    for name, places in (("size.png", [4.0, 0.5]), ("latency.png", [4.0, 0.5])):
        [axes] = saved[name].axes
        points = {line.get_label(): line.get_xydata()[0].tolist() for line in axes.lines[:-1]}
        assert points == {"teacher": [places[0], 0.5], "student": [places[1], 0.375]}
        assert axes.lines[-1].get_ydata() == [0.5, 0.5]
        assert axes.get_ylabel() == "test recall@10"
        assert [text.get_text() for text in axes.get_xticklabels()] == ["0.5", "4"]
    assert saved["latency.png"].axes[0].get_xlabel().endswith("ms (1 CPU thread)")
    assert saved["size.png"].axes[0].get_xlabel().endswith("MiB")


def test_no_figure_of_latencies_that_were_not_measured(tmp_path: Path) -> None:
    draw(replace(REPORT, models=[replace(TEACHER, latency=None)]), tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["size.png"]
