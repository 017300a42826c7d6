"""What the tables say of results whose every number was made by hand."""

import math
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from rich.console import Console
from scipy import stats

from kdrec.errors import InputError
from kdrec.studies.plan import TEACHER, Cell, Study
from kdrec.studies.results import Result
from kdrec.studies.tables import markdown, significance, summary_table, write_tables
from tests.studies.handmade import cell, finish, study_of

Results = dict[Cell, Result]
USERS = {
    ("teacher", "", 0): [1.0, 1.0, 0.0, 1.0],
    ("teacher", "", 1): [1.0, 0.5, 0.5, 1.0],
    ("alone", "2", 0): [0.0, 0.0, 1.0, 0.0],  # mean 0.25
    ("alone", "2", 1): [0.0, 0.5, 0.5, 0.0],  # mean 0.25
    ("alone", "4", 0): [0.5, 0.0, 0.5, 0.0],
    ("alone", "4", 1): [0.5, 0.5, 0.0, 0.5],
    ("FTD", "2", 0): [0.5, 1.0, 1.0, 0.5],  # mean 0.75
    ("FTD", "2", 1): [0.5, 0.5, 0.5, 0.5],  # mean 0.5
    ("FTD", "4", 0): [1.0, 0.5, 0.5, 0.5],
    ("HTD", "2", 0): [1.0, 1.0, 1.0, 0.5],
}
SIZES = {"": 1600, "2": 200, "4": 400}


def make(output: Path, chosen: Sequence[tuple[str, str, int]] = (*USERS,)) -> tuple[Study, Results]:
    """Return the whole study and the results of some of its cells."""
    cells = {key: cell(*key) for key in USERS}
    results = {cells[key]: finish(output, cells[key], USERS[key], SIZES[key[1]]) for key in chosen}
    return study_of([*cells.values()]), results


def parse(text: str) -> list[list[list[str]]]:
    """Return the Markdown tables of a text as rows of cells; fails the test if one is not well-formed."""
    found: list[list[list[str]]] = [[]]
    for line in text.splitlines():
        if line.startswith("|"):
            assert line.endswith(" |")
            found[-1].append([part.strip() for part in re.split(r"(?<!\\)\|", line)[1:-1]])
        elif found[-1]:
            found.append([])
    tables = [table for table in found if table]
    for header, rule, *rows in tables:
        assert all(re.fullmatch("---|--:", mark) for mark in rule)
        assert all(len(row) == len(header) for row in [rule, *rows])
    return tables


def test_the_metric_by_size_and_method(tmp_path: Path) -> None:
    by_size = parse(markdown(*make(tmp_path), tmp_path))[0]
    assert by_size == [
        ["student", "parameters", "MiB", "alone", "FTD", "HTD"],
        ["---", "--:", "--:", "--:", "--:", "--:"],
        ["teacher", "1,600", "12.50", "0.7500 ± 0.0000 (2)", "", ""],
        ["2", "200", "1.56 (12.5%)", "0.2500 ± 0.0000 (2)", "0.6250 ± 0.1768 (2)", "0.8750 (1)"],  # 0.125 * sqrt(2)
        ["4", "400", "3.12 (25.0%)", "0.3125 ± 0.0884 (2)", "0.6250 (1)", "-"],
    ]


def test_the_other_metrics(tmp_path: Path) -> None:
    study, results = make(tmp_path)
    for method, size, seed, seconds in (("FTD", "2", 0, 1.0), ("FTD", "2", 1, 3.0), ("FTD", "4", 0, 5.5)):
        timed = cell(method, size, seed)
        results[timed] = replace(results[timed], seconds=seconds)
    more = parse(markdown(study, results, tmp_path))[1]
    assert more[0] == ["method", "student", "recall@10", "recall@5", "ndcg@5", "val recall@5", "seconds", "epochs"]
    assert [row[:2] for row in more[2:]] == [
        *(["teacher", ""], ["alone", "2"], ["alone", "4"], ["FTD", "2"], ["FTD", "4"], ["HTD", "2"])
    ]
    assert more[5] == ["FTD", "2", "1.0000", "0.6250", "0.3125", "0.5000", "2", "3"]


def test_the_seconds_are_a_median_which_one_bad_hour_does_not_move(tmp_path: Path) -> None:
    results = {c: finish(tmp_path, c, [1.0], seconds=s) for s in (1.0, 2.0, 999.0) for c in [cell("a", seed=int(s))]}
    assert parse(markdown(study_of([*results]), results, tmp_path))[1][2][-2:] == ["2", "3"]


def test_the_heading_says_what_was_measured(tmp_path: Path) -> None:
    study, results = make(tmp_path, [("alone", "2", 0), ("alone", "2", 1), ("FTD", "4", 0)])
    said = "hand-written, full ranking; test recall@5; best epoch on validation; 3 of 10 cells. Mean ± standard"
    assert said in markdown(study, results, tmp_path)
    assert "; last epoch; 3 of 10" in markdown(replace(study, checkpoint="last"), results, tmp_path)
    assert markdown(study, results, tmp_path).startswith("# hand\n\n")


def test_every_pair_is_compared_the_later_method_first_and_the_teacher_second(tmp_path: Path) -> None:
    found = significance(*make(tmp_path), tmp_path)
    assert [(student, c.first, c.second) for student, c in found] == [
        ("2", "HTD", "FTD"),
        ("2", "HTD", "alone"),
        ("2", "HTD", "teacher"),
        ("2", "FTD", "alone"),
        ("2", "FTD", "teacher"),
        ("2", "alone", "teacher"),
        ("4", "FTD", "alone"),
        ("4", "FTD", "teacher"),
        ("4", "alone", "teacher"),
    ]
    means = {key[:2]: np.mean([USERS[other] for other in USERS if other[:2] == key[:2]], axis=0) for key in USERS}
    by_hand = []
    for student, c in found:
        first, second = means[c.first, student], means[c.second, "" if c.second == "teacher" else student]
        test = stats.ttest_rel(first, second)
        assert c.difference == pytest.approx((first - second).mean())
        assert (c.low, c.high) == pytest.approx(tuple(test.confidence_interval(0.95)))
        assert c.num_users == 4
        by_hand.append(test.pvalue)
    assert [c.p for _, c in found] == pytest.approx(by_hand)
    smallest = min(range(9), key=by_hand.__getitem__)
    assert found[smallest][1].corrected_p == pytest.approx(min(1, 9 * by_hand[smallest]))  # Holm over all nine


def test_significance_as_it_is_written(tmp_path: Path) -> None:
    study, results = make(tmp_path)
    text = markdown(study, results, tmp_path)
    assert "p by Holm's correction for the 9 comparisons." in text
    table = parse(text)[2]
    assert table[0] == ["student", "first", "second", "first - second", "95 % interval", "p, corrected", "users"]
    assert len(table) == 2 + 9
    _, c = significance(study, results, tmp_path)[3]
    assert table[5] == [
        *("2", "FTD", "alone", "+0.3750", f"{c.low:+.4f} .. {c.high:+.4f}", f"{c.corrected_p:.2g}", "4")
    ]


def test_other_users_are_refused_and_not_compared(tmp_path: Path) -> None:
    study, results = make(tmp_path)
    path = tmp_path / "cells" / "FTD-4-seed0" / "users.csv"
    path.write_text(path.read_text().replace("u3", "u9"))
    with pytest.raises(InputError, match=r"FTD-4-seed0 was tested on other users than the cells before it\."):
        significance(study, results, tmp_path)


def test_results_csv_is_read_by_pandas(tmp_path: Path) -> None:
    study, results = make(tmp_path)
    written = write_tables(study, results, tmp_path)
    assert written == [tmp_path / "results.csv", tmp_path / "table.md"]
    frame = pd.read_csv(tmp_path / "results.csv", keep_default_na=False)
    assert len(frame) == 10
    assert frame["method"].tolist() == [key[0] for key in USERS]
    assert frame["student"].astype(str).tolist() == [key[1] for key in USERS]
    assert frame["test/recall@5"].tolist() == pytest.approx([np.mean(users) for users in USERS.values()])
    assert (tmp_path / "table.md").read_text(encoding="utf-8") == markdown(study, results, tmp_path)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["cells", "results.csv", "table.md"]


def test_configs_with_other_cutoffs_share_a_file(tmp_path: Path) -> None:
    study, results = make(tmp_path)
    wider = cell("FTD", "4", 0)
    results[wider] = replace(results[wider], metrics={**results[wider].metrics, "recall@20": 0.9})
    narrower = cell("teacher")
    results[narrower] = replace(results[narrower], metrics={"recall@5": 0.75})
    write_tables(study, results, tmp_path)
    frame = pd.read_csv(tmp_path / "results.csv")
    assert frame["test/recall@20"].dropna().tolist() == [0.9]
    assert frame["test/ndcg@5"].isna().sum() == 1
    assert parse((tmp_path / "table.md").read_text())[1][0] == [
        "method",
        "student",
        "recall@5",
        "val recall@5",
        "seconds",
        "epochs",
    ]


def test_the_order_of_finishing_is_of_no_account(tmp_path: Path) -> None:
    study, results = make(tmp_path)
    backwards = dict(reversed(results.items()))
    rows = [row[0] for row in parse(markdown(study, backwards, tmp_path))[0]]
    assert rows == ["student", "---", "teacher", "2", "4"]
    assert markdown(study, results, tmp_path) == markdown(study, backwards, tmp_path)


@pytest.mark.parametrize(
    ("chosen", "pairs"),
    [
        ([("teacher", "", 0)], 0),
        ([("alone", "2", 0)], 0),
        ([("alone", "2", 1), ("FTD", "4", 0)], 0),
        ([("alone", "2", 1), ("teacher", "", 0)], 1),
        ([("alone", "4", 0), ("FTD", "4", 0)], 1),
        ([key for key in USERS if key[0] != "FTD"], 4),
    ],
    ids=["teacher", "one cell", "no pair", "with teacher", "without teacher", "a method without cells"],
)
def test_a_part_of_a_study_is_shown(tmp_path: Path, chosen: list[tuple[str, str, int]], pairs: int) -> None:
    study, results = make(tmp_path, chosen)
    write_tables(study, results, tmp_path)
    tables = parse((tmp_path / "table.md").read_text())
    assert len(tables) == (3 if pairs else 2)
    assert len(tables[2]) - 2 == pairs if pairs else "Significance" not in (tmp_path / "table.md").read_text()
    assert tables[0][0] == ["student", "parameters", "MiB", "alone", "FTD", "HTD"]
    assert [row[0] for row in tables[0][2:]] == [
        *(["teacher"] if any(key[0] == "teacher" for key in chosen) else []),
        *(size for size in ("2", "4") if any(key[1] == size for key in chosen)),
    ]
    assert len(pd.read_csv(tmp_path / "results.csv")) == len(chosen)


def test_without_a_teacher_there_are_no_shares(tmp_path: Path) -> None:
    study, results = make(tmp_path, [key for key in USERS if key[0] != "teacher"])
    rows = parse(markdown(study, results, tmp_path))[0][2:]
    assert [row[:2] for row in rows] == [["2", "200"], ["4", "400"]]


def test_students_without_options(tmp_path: Path) -> None:
    cells = [cell("teacher"), cell("alone"), cell("FTD"), cell("alone", "2")]
    sizes = [10, 20, 20, 40]
    results = {c: finish(tmp_path, c, [n / 4, 1.0], sizes[n]) for n, c in enumerate(cells)}
    study = study_of(cells)
    assert study.students == ("", "2")
    text = markdown(study, results, tmp_path)
    assert parse(text)[0][2:] == [
        ["teacher", "10", "0.08", "0.5000 (1)", ""],
        ["", "20", "0.16 (200.0%)", "0.6250 (1)", "0.7500 (1)"],
        ["2", "40", "0.31 (400.0%)", "0.8750 (1)", "-"],
    ]
    pairs = [(student, c.first, c.second) for student, c in significance(study, results, tmp_path)]
    assert pairs == [("", "FTD", "alone"), ("", "FTD", "teacher"), ("", "alone", "teacher"), ("2", "alone", "teacher")]


def test_sizes_of_one_student_have_rows_of_their_own(tmp_path: Path) -> None:
    cells = [cell("alone", "2"), cell("FTD", "2"), cell("HTD", "2")]
    results = {c: finish(tmp_path, c, [n / 4, 1.0], bytes=2**20 * (1 + n % 2)) for n, c in enumerate(cells)}
    assert parse(markdown(study_of(cells), results, tmp_path))[0][2:] == [
        ["2", "100", "1.00", "0.5000 (1)", "-", "0.7500 (1)"],
        ["2", "100", "2.00", "-", "0.6250 (1)", "-"],
    ]


def test_names_cannot_break_a_table(tmp_path: Path) -> None:
    cells = [cell("a|b", "x|y"), cell("c", "x|y")]
    results = {c: finish(tmp_path, c, [n / 4, 1.0]) for n, c in enumerate(cells)}
    tables = parse(markdown(study_of(cells), results, tmp_path))
    assert tables[0][0][3:] == [r"a\|b", "c"]
    assert tables[2][2][:3] == [r"x\|y", "c", r"a\|b"]


def test_users_without_a_value_are_left_out(tmp_path: Path) -> None:
    cells = [cell("alone", "2"), cell("FTD", "2")]
    results = {
        cells[0]: finish(tmp_path, cells[0], [0.0, 0.5, math.nan, 0.0]),
        cells[1]: finish(tmp_path, cells[1], [0.5, 0.5, 1.0, 0.25]),
    }
    [(_, found)] = significance(study_of(cells), results, tmp_path)
    assert (found.num_users, found.difference) == (3, 0.25)


def test_the_terminals_table(tmp_path: Path) -> None:
    table = summary_table(*make(tmp_path))
    console = Console(width=140, record=True)
    console.print(table)
    said = [line for line in console.export_text().splitlines() if line.strip()]
    assert said[0].strip() == "hand: test recall@5"
    assert said[1].split() == ["student", "parameters", "MiB", "alone", "FTD", "HTD"]
    [row] = [line.split() for line in said if line.strip().startswith("2 ")]
    assert " ".join(row) == "2 200 1.56 (12.5%) 0.2500 ± 0.0000 (2) 0.6250 ± 0.1768 (2) 0.8750 (1)"


def of_two_teachers(folder: Path) -> tuple[Study, dict[Cell, Result]]:
    """Two teachers of different size, and two students of each."""
    cells = [cell(TEACHER, "wide"), cell(TEACHER, "old")]
    cells += [cell(method, "2") for method in ("alone", "FTD of wide", "FTD of old", "HTD of old")]
    results = {c: finish(folder, c, [n / 4, 1.0], 100 * (n + 1)) for n, c in enumerate(cells)}
    return study_of(cells), results


def test_each_teacher_has_a_row_and_is_compared(tmp_path: Path) -> None:
    study, results = of_two_teachers(tmp_path)
    tables = parse(markdown(study, results, tmp_path))
    assert [row[0] for row in tables[0][2:]] == ["teacher wide", "teacher old", "2", "2", "2", "2"]
    assert "%" not in tables[0][4][2], "of which teacher would it be a share?"
    assert [(c.first, c.second) for _, c in significance(study, results, tmp_path)] == [
        ("HTD of old", "FTD of old"),
        ("HTD of old", "alone"),
        ("HTD of old", "teacher old"),
        ("FTD of old", "alone"),
        ("FTD of old", "teacher old"),
        ("FTD of wide", "alone"),
        ("FTD of wide", "teacher wide"),
        ("alone", "teacher wide"),
        ("alone", "teacher old"),
    ]


def test_many_methods_stand_one_below_the_other(tmp_path: Path) -> None:
    cells = [cell(f"method {number}", "2") for number in range(9)]
    results = {c: finish(tmp_path, c, [n / 10, 1.0]) for n, c in enumerate(cells)}
    tables = parse(markdown(study_of(cells), results, tmp_path))
    assert tables[0][0] == ["method", "student", "parameters", "MiB", "recall@5"]
    assert [row[0] for row in tables[0][2:]] == [c.method for c in cells]
