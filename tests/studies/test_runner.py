"""In which order cells run, what becomes of those that fail, and that nothing is left running."""

import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from kdrec.studies.plan import Cell, Study
from kdrec.studies.results import Result, finished, folder_of, read_result, write_result
from kdrec.studies.runner import Progress, Runner
from tests.standin import PARAMETERS, StandIn, has_ended
from tests.studies.handmade import cell, finish, study_of

OUTPUT = Path("place/out")
TEACHER, ALONE, FTD = cell("teacher"), cell("alone", "2"), cell("FTD", "2")
STUDY = study_of([TEACHER, ALONE, FTD])
SEEDS = study_of([cell(*key) for key in (
    ("teacher", "", 0), ("teacher", "", 1), ("alone", "2", 0), ("alone", "2", 1), ("FTD", "2", 0), ("FTD", "2", 1),
)])  # fmt: skip


@pytest.fixture
def standin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> StandIn:
    made = StandIn(tmp_path / "standin")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "executable", str(made.program))
    monkeypatch.setattr("kdrec.studies.runner._POLL_SECONDS", 0.01)
    return made


def identities(study: Study) -> dict[Cell, str]:
    return {cell: f"{number}" * 64 for number, cell in enumerate(study.cells)}


def work(
    study: Study, jobs: int = 1, results: dict[Cell, Result] | None = None, show: Callable[[Progress], Any] = id
) -> Runner:
    runner = Runner(study, identities(study), OUTPUT, jobs, show)
    runner.run(results or {})
    return runner


def log(cell: Cell) -> list[str]:
    return (folder_of(OUTPUT, cell) / "log.txt").read_text().splitlines()


def test_every_cell_is_fitted_and_tested_after_its_teacher(standin: StandIn) -> None:
    runner = work(STUDY)
    assert standin.started == [
        f"{command}-{cell}"
        for cell in ("teacher-seed0", "alone-2-seed0", "FTD-2-seed0")
        for command in ("fit", "test")
    ]  # fmt: skip
    assert list(runner.results) == list(STUDY.cells)
    assert not runner.failures
    threads = os.cpu_count() or 1
    assert runner.results[ALONE] == Result(
        identity="1" * 64,
        protocol="a stand-in, full ranking",
        parameters=PARAMETERS,
        bytes=4 * PARAMETERS,
        seconds=1.5,
        epochs=4,
        best_epoch=3,
        threads=threads,
        checkpoint="best.ckpt",
        metrics={
            "recall@5": pytest.approx(1.75 / 3),
            "ndcg@5": pytest.approx(0.875 / 3),
            "recall@10": pytest.approx(2.5 / 3),
            "ndcg@10": pytest.approx(1.75 / 3),
        },
        curve=[],
        curve_metric="recall@5",
    )
    assert {call[2] for call in standin.calls if call[0] == "start"} == {str(threads)}
    assert finished(STUDY, identities(STUDY), OUTPUT) == runner.results


@pytest.mark.parametrize("checkpoint", ["best", "last"])
def test_the_commands_stand_in_the_log(standin: StandIn, checkpoint: str) -> None:
    runner = work(study_of(STUDY.cells, checkpoint=checkpoint))
    at = "place/out/cells"
    assert log(FTD) == [
        f"$ kdrec fit --config FTD.yaml --name {runner.name} --checkpoint.dirpath {at}/FTD-2-seed0 "
        f"--model.init_args.teacher {at}/teacher-seed0/{checkpoint}.ckpt --trainer.enable_progress_bar false",
        "standing in for fit-FTD-2-seed0",
        f"$ kdrec test --config {at}/FTD-2-seed0/config.yaml --ckpt_path {at}/FTD-2-seed0/{checkpoint}.ckpt "
        f"--per_user {at}/FTD-2-seed0/users.csv --trainer.enable_progress_bar false",
        "standing in for test-FTD-2-seed0",
    ]
    assert "--model.init_args.teacher" not in log(ALONE)[0]
    assert runner.results[FTD].checkpoint == f"{checkpoint}.ckpt"


def test_what_is_finished_is_not_run_again(standin: StandIn) -> None:
    first = work(STUDY)
    standin.forget()
    again = work(STUDY, results=first.results)
    assert not standin.calls
    assert again.results == first.results
    some = work(STUDY, results={cell: first.results[cell] for cell in (TEACHER, ALONE)})
    assert standin.started == ["fit-FTD-2-seed0", "test-FTD-2-seed0"]
    assert some.results == first.results


def test_an_interrupted_cell_starts_anew(standin: StandIn) -> None:
    logs = Path("logs") / Runner(STUDY, {}, OUTPUT, 1, id).name
    for folder in (folder_of(OUTPUT, ALONE), logs / "alone-2-seed0"):
        folder.mkdir(parents=True)
        (folder / "stale").touch()
    (logs / "TIME").mkdir()
    work(STUDY)
    assert not list(Path().rglob("stale"))
    assert (logs / "TIME").is_dir()


def test_two_outputs_share_no_logs(standin: StandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    places = ("a/run", "b/run", "studies/b/run", ".", "/", "studies/other")
    names = [Runner(STUDY, {}, Path(place), 1, id).name for place in places]
    assert [name.rpartition("-")[0] for name in names] == ["run", "run", "run", Path.cwd().name, "hand", ""]
    assert len(set(names)) == 6
    assert names[-1] == "other"


@pytest.mark.parametrize("jobs", [1, 2])
def test_as_many_cells_are_at_work_as_there_are_jobs(standin: StandIn, jobs: int) -> None:
    standin.let("held", *(f"fit-{cell.name}" for cell in SEEDS.cells))
    runner = work(SEEDS, jobs, show=lambda _: len(standin.started) >= jobs and standin.release())
    at_work = most = 0
    for call in standin.calls:
        at_work += 1 if call[0] == "start" else -1
        most = max(most, at_work)
    assert most == jobs
    threads = max(1, (os.cpu_count() or 1) // jobs)
    assert {call[2] for call in standin.calls if call[0] == "start"} == {str(threads)}
    assert {result.threads for result in runner.results.values()} == {threads}
    assert list(runner.results) == list(SEEDS.cells)


def test_a_student_waits_for_its_teacher_and_others_do_not(standin: StandIn) -> None:
    standin.let("held", "test-teacher-seed0")
    study = study_of([TEACHER, FTD, ALONE])
    shown: list[Progress] = []

    def show(progress: Progress) -> None:
        shown.append(progress)
        if progress.finished and progress.finished[0] == ALONE:
            standin.release()

    runner = work(study, 2, show=show)
    calls = [call[:2] for call in standin.calls]
    assert calls.index(["end", "test-teacher-seed0"]) < calls.index(["start", "fit-FTD-2-seed0"])
    assert calls.index(["start", "fit-alone-2-seed0"]) < calls.index(["end", "test-teacher-seed0"])
    assert [progress.finished[0] for progress in shown if progress.finished] == [ALONE, TEACHER, FTD]
    assert list(runner.results) == [TEACHER, FTD, ALONE]  # the study's order, whoever was first


def test_a_cell_that_fails_stops_no_other(standin: StandIn) -> None:
    standin.let("fail", "fit-teacher-seed0", "test-alone-2-seed1")
    shown: list[Progress] = []
    runner = work(SEEDS, show=shown.append)
    failures = {cell.label: reason for cell, reason in runner.failures.items()}
    at = "place/out/cells"
    assert failures == {
        "teacher seed 0": f"`kdrec fit` ended with code 3; see {at}/teacher-seed0/log.txt",
        "alone 2 seed 1": f"`kdrec test` ended with code 3; see {at}/alone-2-seed1/log.txt",
        "FTD 2 seed 0": "its teacher failed (teacher seed 0)",
    }
    assert [cell.label for cell in runner.results] == ["teacher seed 1", "alone 2 seed 0", "FTD 2 seed 1"]
    assert "fit-FTD-2-seed0" not in standin.started
    assert "test-teacher-seed0" not in standin.started
    told = {progress.failed[0].label: progress.failed[1] for progress in shown if progress.failed}
    assert told == failures
    standin.forget()
    assert len(work(SEEDS, results=runner.results).results) == 6
    assert sorted({name.partition("-")[2] for name in standin.started}) == [
        *("FTD-2-seed0", "alone-2-seed1", "teacher-seed0")
    ]


def test_a_cell_that_leaves_no_result_stops_no_other(standin: StandIn) -> None:
    standin.let("lost", "fit-alone-2-seed0")
    runner = work(STUDY)
    assert list(runner.results) == [TEACHER, FTD]
    [reason] = runner.failures.values()
    assert reason.startswith("it left no result (")
    assert "run.json" in reason
    assert reason.endswith("; see place/out/cells/alone-2-seed0/log.txt")
    standin.forget()
    (standin.folder / "model.ckpt").write_text("damaged")
    runner = work(STUDY)
    assert not runner.results
    assert "place/out/cells/alone-2-seed0/best.ckpt cannot be read as a checkpoint" in runner.failures[ALONE]
    assert "`kdrec fit`); see place" in runner.failures[ALONE]
    assert read_result(folder_of(OUTPUT, ALONE)) is None


@pytest.mark.parametrize("behaviour", ["endless", "deaf"])
def test_an_interruption_leaves_nothing_running(
    standin: StandIn, behaviour: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kdrec.studies.runner._GRACE_SECONDS", 0.5)
    standin.let(behaviour, "fit-teacher-seed1", "test-alone-2-seed0")

    def stop(progress: Progress) -> None:
        if {"fit-teacher-seed1", "test-alone-2-seed0"} <= {*standin.started}:
            time.sleep(0.2)  # until a deaf one has put its fingers in its ears
            raise KeyboardInterrupt

    runner = Runner(SEEDS, identities(SEEDS), OUTPUT, 2, stop)
    with pytest.raises(KeyboardInterrupt):
        runner.run({})
    processes = {call[1]: int(call[3]) for call in standin.calls if call[0] == "start"}
    assert has_ended(processes["fit-teacher-seed1"])
    assert has_ended(processes["test-alone-2-seed0"])
    assert [cell.label for cell in finished(SEEDS, identities(SEEDS), OUTPUT)] == ["teacher seed 0"]
    assert list(runner.results) == [TEACHER]


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel's doing")
def test_children_ask_to_die_with_their_parent(standin: StandIn) -> None:
    standin.let("endless", "fit-teacher-seed0")
    parent = os.fork()
    if not parent:
        try:
            work(STUDY)
        finally:
            os._exit(1)
    while not standin.started:
        time.sleep(0.01)
    os.kill(parent, signal.SIGKILL)
    os.waitpid(parent, 0)
    [[_, _, _, process]] = standin.calls
    until = time.monotonic() + 60
    while not has_ended(int(process)) and time.monotonic() < until:
        time.sleep(0.01)
    assert has_ended(int(process))


@pytest.mark.parametrize("jobs", [1, 2])
def test_the_time_left_is_that_of_the_nearest_of_kin(standin: StandIn, jobs: int) -> None:
    done = [cell("alone", "2", 0), cell("alone", "4", 0), cell("FTD", "2", 0), cell("FTD", "2", 1)]
    waiting = [cell("alone", "2", 1), Cell("FTD", "4", 0, ()), Cell("HTD", "2", 0, ())]
    seconds = [1000.0, 3000.0, 400.0, 600.0]
    results = {c: finish(OUTPUT, c, [1.0], seconds=s) for c, s in zip(done, seconds, strict=True)}
    shown: list[Progress] = []
    work(study_of([*done, *waiting]), jobs, results, shown.append)
    assert (shown[0].done, shown[0].total) == (4, 7)
    expected = (1000 + 500 + 1250) / jobs  # the same student, the same method, any
    assert shown[0].left == pytest.approx(expected, abs=60)
    assert list(shown[0].running) == [c.label for c in waiting[:jobs]]
    assert shown[-1].left == 0
    assert shown[-1].done == 7


def test_at_first_the_time_left_is_unknown(standin: StandIn) -> None:
    shown: list[Progress] = []
    work(study_of([ALONE]), show=shown.append)
    assert shown[0].left is None
    assert shown[0].running.keys() == {"alone 2 seed 0"}
    assert 0 <= shown[0].running["alone 2 seed 0"] < 60


def test_the_clock_of_a_cell_that_takes_longer_than_its_kin_stops_at_zero(standin: StandIn) -> None:
    standin.let("held", "fit-alone-2-seed0")
    done = cell("alone", "2", 1)
    left: list[float | None] = []

    def show(progress: Progress) -> None:
        left.append(progress.left)
        if progress.running.get("alone 2 seed 0", 0) > 0.05:
            standin.release()

    work(study_of([ALONE, done]), 1, {done: finish(OUTPUT, done, [1.0], seconds=0.01)}, show)
    assert min(value for value in left if value is not None) == 0


def test_a_result_that_was_cut_off_is_made_anew(standin: StandIn) -> None:
    write_result_of = folder_of(OUTPUT, ALONE)
    write_result(write_result_of, finish(OUTPUT, ALONE, [1.0], identity="1" * 64))
    path = write_result_of / "result.json"
    path.write_bytes(path.read_bytes()[:100])
    work(STUDY, results=finished(STUDY, identities(STUDY), OUTPUT))
    assert "fit-alone-2-seed0" in standin.started
    assert ALONE in finished(STUDY, identities(STUDY), OUTPUT)
