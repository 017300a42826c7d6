"""`kdrec study` as a user types it: a real study on generated data, and a stand-in for fits where order matters."""

import contextlib
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml
from filelock import FileLock

from kdrec.cli.commands.study import _Display, _duration
from kdrec.cli.main import main
from kdrec.models import checkpoint
from kdrec.studies.runner import Progress
from tests.cli.test_engine import rows
from tests.commandline import ROOT, STUDENT, TEACHER, Kdrec, Outcome
from tests.standin import StandIn, children, has_ended
from tests.studies.handmade import cell, finish, study_of

PYTHON = sys.executable
JOBS = str(min(2, os.cpu_count() or 1))
STUDY: dict[str, Any] = {
    "metric": "recall@5",
    "teacher": "teacher.yaml",
    "methods": {"alone": "teacher.yaml", "FTD": "student.yaml"},
    "grid": [{"students": [{"embedding_dim": 3}], "seeds": [1]}],
    "options": {"trainer.max_epochs": 2},
}
CELLS = ["teacher-seed1", "alone-3-seed1", "FTD-3-seed1"]
COMMANDS = [f"{command}-{cell}" for cell in CELLS for command in ("fit", "test")]
CELLS_AT = Path("studies/study/cells")


def write(**changes: object) -> None:
    Path("study.yaml").write_text(yaml.safe_dump({**STUDY, **changes}, sort_keys=False))


def snapshot(folder: Path) -> dict[str, tuple[float, bytes]]:
    """Return every file's time and content, but the lock's."""
    files = (path for path in folder.rglob("*") if path.is_file() and path.name != ".lock")
    return {str(path): (path.stat().st_mtime, path.read_bytes()) for path in files}


@dataclass
class Studied:
    """A study that was killed in its middle and then finished by the same command."""

    place: Path
    killed: subprocess.Popen[str]
    orphans: list[int]
    kept: dict[str, tuple[float, bytes]]
    code: int
    out: str


@pytest.fixture(scope="module")
def studied(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Studied]:
    place = tmp_path_factory.mktemp("studied")
    with pytest.MonkeyPatch.context() as patch, contextlib.chdir(place):
        patch.setenv("PYTHONPATH", str(ROOT))
        patch.delenv("KDREC_DATA", raising=False)
        Path("teacher.yaml").write_text(yaml.safe_dump(TEACHER))
        Path("student.yaml").write_text(yaml.safe_dump(STUDENT))
        write()
        args = ["study", "study.yaml", "--jobs", JOBS]
        command = [sys.executable, "-m", "kdrec", *args]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        while process.poll() is None and not list(CELLS_AT.glob("*/result.json")):
            time.sleep(0.05)
        orphans: list[int] = []
        while process.poll() is None and sys.platform == "linux" and not orphans:
            orphans = children(process.pid)
        process.kill()
        process.wait()
        kept = {path: made for path, made in snapshot(CELLS_AT).items() if (Path(path).parent / "result.json").exists()}
        until = time.monotonic() + 120
        while not all(map(has_ended, orphans)) and time.monotonic() < until:
            time.sleep(0.05)
        with contextlib.redirect_stdout(io.StringIO()) as out:
            code = main(args)
        yield Studied(place, process, orphans, kept, code, out.getvalue())


@pytest.fixture
def copied(kdrec: Kdrec, studied: Studied, workplace: Path) -> Kdrec:
    """Run commands in a copy of the finished study."""
    shutil.copytree(studied.place, workplace, dirs_exist_ok=True)
    return kdrec


@pytest.fixture
def standin(workplace: Path, monkeypatch: pytest.MonkeyPatch) -> StandIn:
    """Fits and tests are stood in for; the study itself is real."""
    made = StandIn(workplace / "standin")
    monkeypatch.setattr(sys, "executable", str(made.program))
    monkeypatch.setattr("kdrec.studies.runner._POLL_SECONDS", 0.01)
    write()
    return made


@pytest.fixture
def nothing_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*args: object, **_: object) -> None:
        raise AssertionError(f"started {args}")

    monkeypatch.setattr(subprocess, "Popen", fail)


# The real one


def test_every_cell_is_finished_and_shown(studied: Studied) -> None:
    assert studied.code == 0
    at = studied.place / "studies" / "study"
    frame = pd.read_csv(at / "results.csv")
    assert frame["method"].tolist() == ["teacher", "alone", "FTD"]
    assert frame["parameters"].tolist() == [16 * 70, 3 * 70, 3 * 70]
    assert (frame["epochs"] == 2).all()
    assert (frame["seed"] == 1).all()
    assert set(frame["protocol"]) == {"generated/leave-one-out-time-min3, full ranking"}
    for name in ("size.png", "curves.png"):
        assert (at / name).read_bytes().startswith(b"\x89PNG")
    for file in ("results.csv", "table.md", "size.png", "curves.png"):
        assert f"written     studies/study/{file}" in studied.out
    for name in CELLS:
        said = json.loads((at / "cells" / name / "result.json").read_text())
        assert [epoch for epoch, _ in said["curve"]] == [1, 2]
        config = yaml.safe_load((at / "cells" / name / "config.yaml").read_text())
        assert config["seed_everything"] == 1
    mean, alone = (f"{frame['test/recall@5'][n]:.4f} (1)" for n in (0, 1))
    assert f"| teacher | 1,120 | 0.00 | {mean} |  |" in (at / "table.md").read_text()
    assert alone in studied.out
    assert "study: test recall@5" in studied.out
    assert "[3/3] " in studied.out  # cells that run side by side end in any order
    assert f"/3] FTD 3 seed 1: recall@5 {frame['test/recall@5'][2]:.4f} in " in studied.out


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere children outlive their parent")
def test_a_killed_study_leaves_no_children(studied: Studied) -> None:
    assert studied.killed.returncode == -signal.SIGKILL
    assert studied.orphans
    assert all(map(has_ended, studied.orphans))


def test_a_killed_study_keeps_what_was_finished(studied: Studied) -> None:
    assert studied.kept
    assert len({Path(path).parent for path in studied.kept}) < 3
    now = snapshot(studied.place / CELLS_AT)
    for path, made in studied.kept.items():
        assert now[str(studied.place / path)] == made


def test_the_student_learned_from_the_studys_teacher(studied: Studied) -> None:
    at = studied.place / CELLS_AT
    section = checkpoint.read(at / "FTD-3-seed1" / "best.ckpt")["kdrec"]
    teacher = at / "teacher-seed1" / "best.ckpt"
    assert section["teacher"]["sha256"] == checkpoint.digest(teacher)
    assert not (studied.place / "checkpoints").exists()


@pytest.mark.parametrize("name", CELLS)
def test_the_numbers_are_those_of_kdrec_test(copied: Kdrec, name: str) -> None:
    frame = pd.read_csv("studies/study/results.csv").set_index("method")
    row = frame.loc[name.partition("-")[0]]
    config = "student.yaml" if name.startswith("FTD") else "teacher.yaml"
    wide = [] if name.startswith("teacher") else ["--model.init_args.recommender.init_args.embedding_dim", "3"]
    if config == "student.yaml":
        wide = ["--model.init_args.student.init_args.embedding_dim", "3"]
    done = copied("test", "--config", config, *wide, "--ckpt_path", str(CELLS_AT / name / "best.ckpt"))
    assert done.code == 0, done.error
    printed = rows(done.out)
    for metric in ("recall", "precision", "ndcg", "mrr", "map", "hit_rate", "recall_head", "recall_tail"):
        assert printed[metric] == [f"{row[f'test/{metric}@{k}']:.4f}" for k in (5, 10)], metric


@pytest.mark.usefixtures("nothing_starts")
def test_a_second_run_starts_nothing_and_says_the_same(copied: Kdrec) -> None:
    before = snapshot(Path("studies"))
    done = copied("study", "study.yaml")
    assert done.code == 0, done.error
    after = snapshot(Path("studies"))
    assert {path: content for path, (_, content) in after.items()} == {path: made[1] for path, made in before.items()}
    assert {path for path in after if after[path][0] != before[path][0]} == {
        f"studies/study/{name}" for name in ("results.csv", "table.md", "size.png", "curves.png")
    }
    assert "study: test recall@5" in done.out


@pytest.mark.usefixtures("nothing_starts")
def test_a_list_says_what_is_finished(copied: Kdrec) -> None:
    (CELLS_AT / "alone-3-seed1" / "result.json").unlink()
    before = snapshot(Path("studies"))
    done = copied("study", "study.yaml", "--list")
    assert done.code == 0, done.error
    said = [line.split() for line in done.out.splitlines()]
    assert said[0][:4] == ["teacher", "seed", "1", "recall@5"]
    assert said[0][5:] == [f"{json.loads((CELLS_AT / CELLS[0] / 'result.json').read_text())['seconds']:.0f}", "s"]
    assert said[1] == ["alone", "3", "seed", "1", "-"]
    assert said[3] == ["2", "of", "3", "cells", "are", "finished."]
    assert snapshot(Path("studies")) == before


@pytest.mark.usefixtures("nothing_starts")
def test_another_metric_needs_no_new_fits(copied: Kdrec) -> None:
    write(metric="ndcg@10")
    assert copied("study", "study.yaml").code == 0
    assert "test ndcg@10" in Path("studies/study/table.md").read_text()


@pytest.mark.usefixtures("nothing_starts")
def test_what_decides_nothing_may_change(copied: Kdrec) -> None:
    write(options={**STUDY["options"], "data.init_args.root": "elsewhere", "trainer.enable_model_summary": False})
    assert copied("study", "study.yaml", "--list").out.endswith("3 of 3 cells are finished.\n")


@pytest.mark.usefixtures("nothing_starts")
@pytest.mark.parametrize(
    ("changes", "first"),
    [
        ({"options": {"trainer.max_epochs": 3}}, "teacher seed 1"),
        ({"checkpoint": "last"}, "teacher seed 1"),
        ({"methods": {**STUDY["methods"], "alone": {"config": "teacher.yaml", "options": {"trainer.max_epochs": 3}}}},
         "alone 3 seed 1"),
    ],
    ids=["epochs", "checkpoint", "method"],
)  # fmt: skip
def test_a_cell_made_by_other_configs_is_refused(copied: Kdrec, changes: dict[str, object], first: str) -> None:
    before = snapshot(Path("studies"))
    write(**changes)
    said = copied("study", "study.yaml").sentence
    folder = CELLS_AT / first.replace(" seed ", "-seed").replace(" ", "-")
    assert said.startswith(f"{folder} holds the finished cell {first!r} of another study or of other configs; name")
    assert copied("study", "study.yaml", "--list").sentence == said
    assert snapshot(Path("studies")) == before


@pytest.mark.usefixtures("nothing_starts")
def test_a_student_is_another_if_its_teacher_is(copied: Kdrec) -> None:
    write(teacher={"config": "teacher.yaml", "options": {"trainer.max_epochs": 3}})
    shutil.rmtree(CELLS_AT / "teacher-seed1")
    assert "holds the finished cell 'FTD 3 seed 1' of another study" in copied("study", "study.yaml").sentence


# Work, with a stand-in for the fits


def test_a_grown_grid_runs_only_what_is_new(copied: Kdrec, standin: StandIn) -> None:
    shutil.copy(CELLS_AT / "teacher-seed1" / "users.csv", standin.folder)
    before = snapshot(CELLS_AT)
    write(grid=[*STUDY["grid"], {"students": [{"embedding_dim": 3}], "seeds": [0], "methods": ["FTD"]}])
    done = copied("study", "study.yaml")
    assert done.code == 0, done.error
    assert standin.started == ["fit-teacher-seed0", "test-teacher-seed0", "fit-FTD-3-seed0", "test-FTD-3-seed0"]
    after = snapshot(CELLS_AT)
    assert {path: after[path] for path in before} == before
    assert len(pd.read_csv("studies/study/results.csv")) == 5
    assert "(2)" in done.out


@pytest.mark.parametrize("damage", ["interrupted", "cut off"])
def test_a_cell_without_a_whole_result_starts_anew(copied: Kdrec, standin: StandIn, damage: str) -> None:
    shutil.copy(CELLS_AT / "teacher-seed1" / "users.csv", standin.folder)
    path = CELLS_AT / "FTD-3-seed1" / "result.json"
    if damage == "interrupted":
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[:50])
    done = copied("study", "study.yaml")
    assert done.code == 0, done.error
    assert standin.started == ["fit-FTD-3-seed1", "test-FTD-3-seed1"]
    assert sorted(file.name for file in path.parent.iterdir()) == [
        *("best.ckpt", "last.ckpt", "log.txt", "result.json", "run.json", "users.csv")
    ]


def test_results_go_where_they_are_wanted(kdrec: Kdrec, standin: StandIn) -> None:
    done = kdrec("study", "study.yaml", "--output", "else/where", "--jobs", "1")
    assert done.code == 0, done.error
    assert standin.started == COMMANDS
    assert Path("else/where/table.md").is_file()
    assert not Path("studies").exists()
    lines = done.out.splitlines()
    assert lines[0].startswith("[1/3] teacher seed 1: recall@5 0.5833 in 2 s, about ")
    assert lines[2] == "[3/3] FTD 3 seed 1: recall@5 0.5833 in 2 s, about 0 s left"
    assert not done.error
    standin.forget()
    assert kdrec("study", "study.yaml", "--output", "else/where").code == 0
    assert not standin.calls


def test_cells_that_fail_are_named_and_the_others_finish(kdrec: Kdrec, standin: StandIn) -> None:
    standin.let("fail", "fit-teacher-seed1")
    done = kdrec("study", "study.yaml")
    log = CELLS_AT / "teacher-seed1" / "log.txt"
    assert done.sentence == (
        f"2 of 3 cells failed, first 'teacher seed 1': `kdrec fit` ended with code 3; see {log}; mend that and repeat "
        f"the command: what is finished is kept."
    )
    assert f"[0/3] teacher seed 1 failed: `kdrec fit` ended with code 3; see {log}" in done.out
    assert "standing in for fit-teacher-seed1" in log.read_text()
    assert pd.read_csv("studies/study/results.csv")["method"].tolist() == ["alone"]
    standin.forget()
    assert kdrec("study", "study.yaml").code == 0
    assert standin.started == ["fit-teacher-seed1", "test-teacher-seed1", "fit-FTD-3-seed1", "test-FTD-3-seed1"]


def test_if_all_cells_fail_there_is_nothing_to_show(kdrec: Kdrec, standin: StandIn) -> None:
    standin.let("fail", "fit-teacher-seed1", "fit-alone-3-seed1")
    assert "3 of 3 cells failed" in kdrec("study", "study.yaml").sentence
    assert not Path("studies/study/results.csv").exists()


def test_what_fails_when_it_runs_is_explained_in_the_log(kdrec: Kdrec) -> None:
    """A real fit, with an option that only the data can refuse."""
    Path("study.yaml").write_text(
        yaml.safe_dump(
            {"metric": "recall@5", "methods": {"alone": "teacher.yaml"}, "grid": [{}]}
            | {"options": {"model.init_args.cutoffs": [5, 5000]}}
        )
    )
    log = CELLS_AT / "alone-seed0" / "log.txt"
    assert f"'alone seed 0': `kdrec fit` ended with code 2; see {log}; mend" in kdrec("study", "study.yaml").sentence
    assert "The cutoff 5000 does not fit a catalogue of 40 items" in log.read_text()


def test_two_studies_in_one_folder(kdrec: Kdrec, standin: StandIn) -> None:
    Path("studies/study").mkdir(parents=True)
    with FileLock("studies/study/.lock"):
        said = kdrec("study", "study.yaml").sentence
        assert said == "Another kdrec study is at work in studies/study; wait for it or name another --output."
        assert not standin.calls
        assert kdrec("study", "study.yaml", "--list").out.endswith("0 of 3 cells are finished.\n")
        assert kdrec("study", "study.yaml", "--output", "other").code == 0
    assert kdrec("study", "study.yaml").code == 0


def test_the_tables_of_another_study_stay(kdrec: Kdrec, standin: StandIn) -> None:
    assert kdrec("study", "study.yaml").code == 0
    before = snapshot(Path("studies/study"))
    write(name="other", grid=[{"seeds": [7]}])
    said = kdrec("study", "study.yaml", "--output", "studies/study").sentence
    assert said == (
        "studies/study holds the results of the study 'study', and this one is 'other'; "
        "name another folder with --output."
    )
    assert snapshot(Path("studies/study")) == before


def test_what_another_study_finished_in_the_meantime_is_not_run_again(
    kdrec: Kdrec, standin: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Results are looked up after the lock is had, not before."""
    assert kdrec("study", "study.yaml").code == 0
    standin.forget()
    hidden = {path: path.with_suffix(".hidden") for path in CELLS_AT.glob("*/result.json")}
    for path, other in hidden.items():
        path.rename(other)
    acquire = FileLock.acquire

    def appear(self: FileLock, *args: Any, **options: Any) -> Any:
        for path, other in hidden.items():
            other.rename(path)
        return acquire(self, *args, **options)

    monkeypatch.setattr(FileLock, "acquire", appear)
    assert kdrec("study", "study.yaml").code == 0
    assert not standin.calls


def test_a_place_that_is_none(kdrec: Kdrec, standin: StandIn) -> None:
    Path("file").touch()
    said = kdrec("study", "study.yaml", "--output", "file/x").sentence
    assert said == "file/x cannot be written (Not a directory); name another with --output."
    assert not standin.calls


def test_ctrl_c_is_one_message(standin: StandIn) -> None:
    standin.let("endless", "test-alone-3-seed1")
    program = "import sys; sys.executable = sys.argv.pop(1); from kdrec.cli.main import main; sys.exit(main())"
    command = [PYTHON, "-c", program, str(standin.program), "study", "study.yaml"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    while process.poll() is None and "test-alone-3-seed1" not in standin.started:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, error = process.communicate(timeout=300)
    assert process.returncode == 130, error
    assert error == "\nStopped. 1 of 3 cells are finished and kept in studies/study; the same command goes on.\n"
    [started] = [call for call in standin.calls if call[1] == "test-alone-3-seed1"]
    assert has_ended(int(started[3]))


# What is refused before anything is done


def refused(kdrec: Kdrec, *args: str) -> str:
    """Return the one sentence that refuses a command, which leaves nothing behind."""
    before = sorted(Path().rglob("*"))
    said = kdrec("study", *args).sentence
    assert sorted(Path().rglob("*")) == before
    assert said.endswith((".", "?"))
    return said


@pytest.mark.usefixtures("nothing_starts")
@pytest.mark.parametrize(
    ("args", "complaint"),
    [
        ([], "kdrec study needs a study file, such as one in configs/studies; see kdrec study --help."),
        (["--list"], "kdrec study needs a study file"),
        (["study.yaml", "--job", "2"], "There is no option '--job' of kdrec study; see kdrec study --help."),
        (["--nope"], "There is no option '--nope' of kdrec study"),
        (["study.yaml", "other.yaml"], "There is no option 'other.yaml' of kdrec study"),
        (["study.yaml", "--jobs", "0"], "--jobs is 0; this machine can share itself out to 1.."),
        (["study.yaml", "--jobs", "-1"], "--jobs is -1; this machine can share itself out to 1.."),
        (["study.yaml", "--jobs", str((os.cpu_count() or 1) + 1)], f" share itself out to 1..{os.cpu_count()} "),
        (["study.yaml", "--jobs", "two"], "Argument --jobs: invalid int value: 'two'; see kdrec study"),
        (["study.yaml", "--jobs"], "Argument --jobs: expected one argument; see kdrec study --help."),
        (["nowhere.yaml"], "The study nowhere.yaml cannot be read (No such file or directory); see configs/studies."),
        (["."], "The study . cannot be read (Is a directory)"),
    ],
)  # fmt: skip
def test_bad_options(kdrec: Kdrec, args: list[str], complaint: str) -> None:
    write()
    assert complaint in refused(kdrec, *args)


@pytest.mark.usefixtures("nothing_starts")
@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"gird": []}, "study.yaml: The file has no key 'gird'; did you mean 'grid'?"),
        ({"methods": {"alone": "nowhere.yaml"}}, "study.yaml: methods.alone: there is no config nowhere.yaml below"),
        ({"metric": "recall@7"}, "The study's metric 'recall@7' is not among those of teacher.yaml: recall, precision, "
                                 "ndcg, mrr, map, hit_rate, recall_head, recall_tail at [5, 10]."),
        ({"metric": "recal@5"}, "The study's metric 'recal@5' is not among those of teacher.yaml"),
        ({"metric": "recall"}, "The study's metric 'recall' is not among those"),
        ({"metric": "coverage@5"}, "The study's metric 'coverage@5' is not among those"),
        ({"metric": None}, "The study's metric 'None' is not among those"),
        ({"options": {"trainer.max_epoch": 1}}, "There is no option 'trainer.max_epoch'; did you mean 'trainer.max"),
        ({"options": {"trainer.max_epochs": "two"}}, "--config teacher.yaml: trainer.max_epochs: found two where int"),
        ({"options": {"nope": 1}}, "The cell 'teacher seed 1' of the study study: --config teacher.yaml: There is no "),
        ({"options": {"help": ""}}, "of the study study: --config teacher.yaml: --help cannot stand there; leave"),
        ({"grid": [{"students": [{"embeding_dim": 3}]}]}, "BPR (model.recommender) has no option 'embeding_dim'; did"),
        ({"methods": {**STUDY["methods"], "alone": {"config": "teacher.yaml", "options": {"data.init_args.seed": 5}}}},
         "The cell 'alone 3 seed 1' (teacher.yaml) has other data than 'teacher seed 1'; give all configs of a study"),
        ({"teacher": None}, "study.yaml: teacher must map config, options to values, and is empty."),
        ({"methods": {"alone": {"config": "teacher.yaml", "options": {"model.init_args.cutoffs": [10]}}}},
         "The study's metric 'recall@5' is not among those of teacher.yaml: "),
    ],
)  # fmt: skip
def test_bad_studies(kdrec: Kdrec, changes: dict[str, object], complaint: str) -> None:
    write(**changes)
    assert complaint in refused(kdrec, "study.yaml")


@pytest.mark.usefixtures("nothing_starts")
def test_other_data_for_another_seed_is_other_data(kdrec: Kdrec) -> None:
    other = {"config": "teacher.yaml", "options": {"data.init_args.num_items": 50}}
    grid = [{"methods": ["a"], "seeds": [0]}, {"methods": ["b"], "seeds": [1]}]
    Path("study.yaml").write_text(
        yaml.safe_dump({"metric": "recall@5", "methods": {"a": "teacher.yaml", "b": other}, "grid": grid})
    )
    assert "The cell 'b seed 1' (teacher.yaml) has other data than 'a seed 0'" in refused(kdrec, "study.yaml")


def test_where_the_data_lie_and_its_batches_make_no_other_data(kdrec: Kdrec, standin: StandIn) -> None:
    free = {"root": "elsewhere", "batch_size": 64, "num_negatives": 2, "eval_batch_size": 5}
    options = {f"data.init_args.{key}": value for key, value in free.items()}
    write(methods={**STUDY["methods"], "alone": {"config": "teacher.yaml", "options": options}})
    assert kdrec("study", "study.yaml", "--list").code == 0


@pytest.mark.usefixtures("nothing_starts")
def test_extras_that_are_missing_are_named_before_anything_runs(kdrec: Kdrec, monkeypatch: pytest.MonkeyPatch) -> None:
    write()
    monkeypatch.setattr("kdrec.cli.commands.study.find_spec", lambda name: None)
    said = refused(kdrec, "study.yaml")
    assert said == "A study needs scipy and matplotlib; install the extra: python -m pip install '.[study]'."
    assert kdrec("study", "study.yaml", "--list").code == 0


def test_help_teaches_without_torch(workplace: Path) -> None:
    program = (
        "import sys; from kdrec.cli.main import main; code = main(['study', '--help']);"
        "assert not {'torch', 'lightning', 'pandas', 'numpy', 'yaml'} & set(sys.modules); sys.exit(code)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    for text in ("--jobs", "--output", "--list", "kdrec study configs/studies/kdd21.yaml", "starts anew"):
        assert text in done.stdout
    assert not done.stderr


# What is shown meanwhile


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(0, "0 s"), (41.6, "42 s"), (99.4, "99 s"), (100, "2 min"), (3600, "60 min"), (5940, "99 min"),
     (6000, "1 h 40 min"), (12 * 3600 + 60, "12 h 1 min")],
)  # fmt: skip
def test_durations(seconds: float, said: str) -> None:
    assert _duration(seconds) == said


def shown(
    progress: Progress, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, terminal: bool
) -> Outcome:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: terminal, raising=False)
    monkeypatch.setattr(os, "get_terminal_size", lambda *_: os.terminal_size((40, 20)))
    _Display(study_of([cell("alone", "3")]))(progress)
    return Outcome(0, *capsys.readouterr())


@pytest.mark.parametrize("terminal", [True, False])
def test_progress(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, terminal: bool
) -> None:
    running = {"alone 3 seed 0": 7.0, "FTD 3 seed 0": 200.0}
    live = shown(Progress(1, 4, running, 90.0), capsys, monkeypatch, terminal)
    assert live.error == ("\r\033[K1 of 4 cells, 0 s, about 90 s left: alo" if terminal else "")  # 39 of 40 columns
    assert live.out == ""
    clear = "\r\033[K" if terminal else ""
    result = finish(tmp_path, cell("alone", "3"), [0.5], seconds=130.0)
    done = shown(Progress(2, 4, {}, None, (cell("alone", "3"), result)), capsys, monkeypatch, terminal)
    assert done.out == "[2/4] alone 3 seed 0: recall@5 0.5000 in 2 min\n"  # no control codes where a file may be
    assert done.error == clear
    failed = shown(Progress(2, 4, {}, 5.0, failed=(cell("FTD", "3"), "why")), capsys, monkeypatch, terminal)
    assert failed.out == "[2/4] FTD 3 seed 0 failed: why\n"
    assert failed.error == clear
