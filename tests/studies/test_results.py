"""What is kept of a cell, and what is not taken for one."""

import csv
import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from lightning.pytorch.loggers import TensorBoardLogger

from kdrec.errors import InputError
from kdrec.models.bpr import BPR
from kdrec.studies.results import (
    as_rows,
    finished,
    folder_of,
    learning_curve,
    mean_metrics,
    read_result,
    read_users,
    validated,
    write_result,
)
from kdrec.training.ranking import RankingModule
from tests.generated import GeneratedDataModule, quiet_trainer
from tests.studies.handmade import cell, finish, study_of

TEACHER, ALONE, FTD = cell("teacher"), cell("alone", "20"), cell("FTD", "20", 3)


def test_a_result_comes_back_as_it_was(tmp_path: Path) -> None:
    result = finish(tmp_path, ALONE, [0.1, 0.2, 0.4])
    folder = folder_of(tmp_path, ALONE)
    assert folder == tmp_path / "cells" / "alone-20-seed0"
    assert read_result(folder) is None
    write_result(folder, result)
    assert read_result(folder) == result
    assert sorted(file.name for file in folder.iterdir()) == ["result.json", "users.csv"]
    empty = replace(result, curve=[], metrics={"recall@5": 1 / 3})
    write_result(folder, empty)
    assert read_result(folder) == empty


def test_a_metric_without_a_value_comes_back_too(tmp_path: Path) -> None:
    write_result(tmp_path, finish(tmp_path, ALONE, [1.0], metrics={"recall_tail@5": math.nan}))
    again = read_result(tmp_path)
    assert again is not None
    assert math.isnan(again.metrics["recall_tail@5"])


def test_results_of_before_the_curve_had_a_metric_are_read(tmp_path: Path) -> None:
    result = finish(tmp_path, ALONE, [1.0])
    write_result(tmp_path, result)
    said = json.loads((tmp_path / "result.json").read_text())
    del said["curve_metric"]
    (tmp_path / "result.json").write_text(json.dumps(said))
    assert read_result(tmp_path) == replace(result, curve_metric="")


def test_what_is_not_whole_is_not_finished(tmp_path: Path) -> None:
    assert read_result(tmp_path / "nowhere") is None
    write_result(tmp_path, finish(tmp_path, ALONE, [1.0]))
    path = tmp_path / "result.json"
    whole = path.read_bytes()
    said = json.loads(whole)
    lacking = json.dumps({key: value for key, value in said.items() if key != "metrics"}).encode()
    uncurved = json.dumps({key: value for key, value in said.items() if key != "curve"}).encode()
    more = json.dumps({**said, "more": 1}).encode()
    for content in (b"", whole[: len(whole) // 2], b"[1]", b"null", b"5", b"\xff\xfe", lacking, uncurved, more):
        path.write_bytes(content)
        assert read_result(tmp_path) is None, content
    path.unlink()
    path.mkdir()
    assert read_result(tmp_path) is None


def test_finished_cells_are_found_in_the_studys_order(tmp_path: Path) -> None:
    study = study_of([TEACHER, ALONE, FTD])
    identities = {cell: f"{number}" * 64 for number, cell in enumerate(study.cells)}
    assert finished(study, identities, tmp_path) == {}
    for made in (FTD, TEACHER):
        write_result(folder_of(tmp_path, made), finish(tmp_path, made, [1.0], identity=identities[made]))
    folder_of(tmp_path, ALONE).mkdir()  # interrupted
    found = finished(study, identities, tmp_path)
    assert list(found) == [TEACHER, FTD]
    assert found[FTD].identity == "2" * 64


def test_a_cell_that_was_made_otherwise_is_refused(tmp_path: Path) -> None:
    study = study_of([TEACHER, ALONE, FTD])
    write_result(folder_of(tmp_path, FTD), finish(tmp_path, FTD, [1.0], identity="2" * 64))
    with pytest.raises(InputError) as caught:
        finished(study, dict.fromkeys(study.cells, "3" * 64), tmp_path)
    assert str(caught.value) == (
        f"{folder_of(tmp_path, FTD)} holds the finished cell 'FTD 20 seed 3' of another study or of other configs; "
        f"name another folder with --output, or remove that one."
    )


ODD = 'user,recall@5,recall_tail@5,ndcg@5\n"a,b",0.1,nan,0.25\nu#1,0.2,,0.5\n007,0.4,0.3,0.125\n"say ""x""",0,nan,1\n'


def test_means_leave_out_users_without_a_value(tmp_path: Path) -> None:
    path = tmp_path / "users.csv"
    path.write_text(ODD)
    assert mean_metrics(path) == {
        "recall@5": pytest.approx((0.1 + 0.2 + 0.4 + 0.0) / 4, rel=1e-15),
        "recall_tail@5": 0.3,
        "ndcg@5": pytest.approx(1.875 / 4, rel=1e-15),
    }


def test_a_metric_that_no_user_has_is_nan_and_a_single_user_is_enough(
    tmp_path: Path, recwarn: pytest.WarningsRecorder
) -> None:
    path = tmp_path / "users.csv"
    path.write_text("user,recall@5,recall_tail@5\nu1,1,\n")
    means = mean_metrics(path)
    assert means["recall@5"] == 1.0
    assert isinstance(means["recall@5"], float)
    assert math.isnan(means["recall_tail@5"])
    assert not recwarn.list


def test_the_means_are_those_of_the_written_digits(tmp_path: Path) -> None:
    path, values = tmp_path / "users.csv", np.random.default_rng(0).random(500)
    with open(path, "w", newline="") as file:
        csv.writer(file).writerows([["user", "recall@5"], *([f"u{n}", value] for n, value in enumerate(values))])
    assert mean_metrics(path)["recall@5"] == pytest.approx(values.mean(), rel=1e-15)
    assert (read_users(path, "recall@5")[1] == values).all()


def test_users_keep_their_ids_and_order(tmp_path: Path) -> None:
    path = tmp_path / "users.csv"
    path.write_text(ODD)
    ids, values = read_users(path, "recall_tail@5")
    assert ids == ["a,b", "u#1", "007", 'say "x"']
    np.testing.assert_array_equal(values, [np.nan, np.nan, 0.3, np.nan])
    assert read_users(path, "ndcg@5")[1].tolist() == [0.25, 0.5, 0.125, 1.0]


@pytest.mark.parametrize("content", ["user,recall@5,ndcg@5\nu1,0,1\n", "", "user\n"])
def test_a_metric_that_the_file_lacks(tmp_path: Path, content: str) -> None:
    path = tmp_path / "users.csv"
    path.write_text(content)
    with pytest.raises(
        InputError, match=r"users\.csv has no metric 'recall@7'; choose the study's metric among"
    ) as caught:
        read_users(path, "recall@7")
    assert str(caught.value).endswith("recall@5, ndcg@5." if "ndcg" in content else "among .")


def test_a_curve_is_read_from_a_real_run(tmp_path: Path) -> None:
    logger = TensorBoardLogger(str(tmp_path), name="", version="run", default_hp_metric=False)
    trainer = quiet_trainer(max_epochs=5, check_val_every_n_epoch=2, num_sanity_val_steps=1, logger=logger)
    module = RankingModule(BPR(4, init_std=1.0), cutoffs=(5,))
    trainer.fit(module, datamodule=GeneratedDataModule())
    logger.save()
    curve = learning_curve(tmp_path / "run", "recall@5")
    assert [epoch for epoch, _ in curve] == [2, 4]
    assert curve[-1][1] == pytest.approx(float(trainer.callback_metrics["val/recall@5"]), rel=1e-6)
    assert curve[0][1] > 0
    assert learning_curve(tmp_path / "run", "recall@50") == []


def test_no_logs_no_curve(tmp_path: Path) -> None:
    assert learning_curve(tmp_path / "nowhere", "recall@5") == []


def test_rows_follow_the_study_and_say_everything(tmp_path: Path) -> None:
    study = study_of([TEACHER, ALONE, FTD], checkpoint="last")
    results = {FTD: finish(tmp_path, FTD, [0.5, 1.0]), TEACHER: finish(tmp_path, TEACHER, [1.0], 2**20)}
    first, second = as_rows(study, results)
    assert first == {
        "study": "hand",
        "method": "teacher",
        "student": "",
        "seed": 0,
        "parameters": 2**20,
        "mib": 8192.0,
        "epochs": 3,
        "best_epoch": 2,
        "tested": "last",
        "seconds": 2.0,
        "threads": 1,
        "protocol": "hand-written, full ranking",
        "val/recall@5": 0.375,
        "test/recall@5": 1.0,
        "test/ndcg@5": 0.5,
        "test/recall@10": 1.0,
    }
    assert (second["method"], second["student"], second["seed"], second["test/recall@5"]) == ("FTD", "20", 3, 0.75)


def test_what_was_validated_is_that_of_the_tested_epoch(tmp_path: Path) -> None:
    result = finish(tmp_path, ALONE, [1.0])
    assert validated(study_of([ALONE]), result) == 0.5
    assert validated(study_of([ALONE], checkpoint="last"), result) == 0.375
    assert validated(study_of([ALONE], metric="ndcg@5"), result) is None
    assert validated(study_of([ALONE]), replace(result, curve=[])) is None
