"""The commands as a user types them, on generated data."""

import copy
import csv
import errno
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from kdrec.models import checkpoint
from tests.commandline import STUDENT, TEACHER, Kdrec
from tests.standin import children, has_ended


def only(pattern: str) -> Path:
    """Return the one file that a pattern finds below the current folder."""
    [found] = Path().glob(pattern)
    return found


def rows(table: str) -> dict[str, list[str]]:
    """Return a printed table: first word of a row -> its numbers."""
    found = (re.split(r"\s{2,}", line.strip()) for line in table.splitlines())
    return {words[0]: words[1:] for words in found if len(words) > 1 and re.fullmatch(r"[\d.,%]+|-", words[-1])}


@pytest.fixture
def fitted(kdrec: Kdrec) -> Kdrec:
    done = kdrec("fit", "--config", "teacher.yaml")
    assert done.code == 0, done.error
    return kdrec


def test_a_teachers_config_is_trained_once_and_then_reused(kdrec: Kdrec) -> None:
    first = kdrec("fit", "--config", "student.yaml")
    assert first.code == 0, first.error
    assert "teacher.yaml has no finished run with this config and data, so it is trained first" in first.out
    made = only("checkpoints/teacher/*/best.ckpt")
    second = kdrec("fit", "--config", "student.yaml", "--name", "again")
    assert f"was trained already with this config and data: {made}" in second.out
    assert only("checkpoints/teacher/*/best.ckpt") == made
    section = checkpoint.read(only("checkpoints/again/*/best.ckpt"))["kdrec"]
    assert section["teacher"] == {"path": str(made), "sha256": checkpoint.digest(made)}


def test_a_changed_teacher_config_is_trained_anew(fitted: Kdrec) -> None:
    changed = yaml.safe_load(Path("teacher.yaml").read_text())
    changed["model"]["init_args"]["recommender"]["init_args"]["embedding_dim"] = 17
    Path("teacher.yaml").write_text(yaml.safe_dump(changed))
    assert "so it is trained first" in fitted("fit", "--config", "student.yaml").out
    assert len(list(Path().glob("checkpoints/teacher/*"))) == 2


def test_the_table_tells_the_truth(fitted: Kdrec) -> None:
    teacher = only("checkpoints/teacher/*/best.ckpt")
    done = fitted("fit", "--config", "student.yaml", "--model.init_args.teacher", str(teacher))
    best = only("checkpoints/student/*/best.ckpt")
    theirs, ours = checkpoint.read(teacher)["kdrec"], checkpoint.read(best)["kdrec"]
    table = rows(done.out)
    shown = [f"{ours['metrics'][f'val/{name}@10']:.4f}" for name in ("recall", "ndcg")]
    assert table["student"][:4] == ["140", "0.00", *shown]  # 2 * (30 + 40) parameters
    share = ours["metrics"]["val/ndcg@10"] / theirs["metrics"]["val/ndcg@10"]
    assert f"{share:.1%}" in done.out
    assert "12.5%" in done.out  # 2 of 16 wide
    assert f"kdrec test --ckpt_path {best}" in done.out
    assert f"{ours['epochs']} of 3" in done.out
    assert only("checkpoints/student/*/config.yaml").is_file()


def test_test_after_fit_and_from_the_file_print_the_same(fitted: Kdrec) -> None:
    best = str(only("checkpoints/teacher/*/best.ckpt"))
    after_fit = fitted("test", "--config", "teacher.yaml")
    newest = fitted("test", "--config", "teacher.yaml", "--ckpt_path", best)
    named = fitted("test", "--ckpt_path", best, "--data", "tests.generated.GeneratedDataModule")
    assert f"taking the newest checkpoint of teacher, {best}" in after_fit.out
    assert rows(after_fit.out) == rows(newest.out) == rows(named.out)
    assert rows(after_fit.out)["ndcg"]


def test_a_bare_test_takes_the_newest(fitted: Kdrec) -> None:
    time.sleep(0.01)
    assert fitted("fit", "--config", "teacher.yaml", "--name", "later").code == 0
    done = fitted("test")
    assert f"taking the newest checkpoint, {only('checkpoints/later/*/best.ckpt')}" in done.out
    assert rows(done.out)["recall"]


def test_a_students_config_serves_test_without_its_teacher(fitted: Kdrec) -> None:
    fitted("fit", "--config", "student.yaml")
    only("checkpoints/teacher/*/best.ckpt").unlink()
    done = fitted("test", "--config", "student.yaml")
    assert done.code == 0, done.error
    assert "checkpoints/student/" in done.out


def test_validate_repeats_what_the_checkpoint_says(fitted: Kdrec) -> None:
    said = checkpoint.read(only("checkpoints/teacher/*/best.ckpt"))["kdrec"]["metrics"]
    table = rows(fitted("validate").out)
    assert table["recall"] == [f"{said[f'val/recall@{k}']:.4f}" for k in (5, 10)]
    assert table["coverage"] == [f"{said[f'val/coverage@{k}']:.4f}" for k in (5, 10)]


def test_options_override_what_the_checkpoint_says(fitted: Kdrec) -> None:
    for args in ([], ["--config", "teacher.yaml"]):
        table = rows(fitted("test", *args, "--model.init_args.cutoffs", "[3]").out)
        assert len(table["ndcg"]) == 1


def test_per_user_values_average_to_the_table(fitted: Kdrec) -> None:
    table = rows(fitted("test", "--per_user", "users.csv").out)
    with open("users.csv", newline="") as file:
        users = list(csv.DictReader(file))
    assert len(users) == len({user["user"] for user in users}) == 30
    mean = sum(float(user["ndcg@10"]) for user in users) / 30
    assert f"{mean:.4f}" == table["ndcg"][1]


def test_per_user_values_take_the_place_of_others_when_they_are_all_there(
    fitted: Kdrec, monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("elsewhere.csv").write_text("old")
    Path("users.csv").symlink_to("elsewhere.csv")
    assert fitted("test", "--per_user", "users.csv").code == 0
    whole = Path("elsewhere.csv").read_text()
    assert whole.startswith("user,")
    assert Path("users.csv").is_symlink()
    with monkeypatch.context() as patch:
        patch.setattr("csv.writer", lambda file: FullDisk())
        assert "users.csv cannot be written (No space left" in fitted("test", "--per_user", "users.csv").sentence
    assert Path("elsewhere.csv").read_text() == whole
    assert not list(Path().glob(".*.part"))
    assert fitted("test", "--per_user", "/dev/null").code == 0
    assert Path("/dev/null").is_char_device()


class FullDisk:
    """Stands in for a writer of CSV."""

    def writerow(self, row: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_runs_name_may_hold_any_sign(kdrec: Kdrec) -> None:
    assert kdrec("fit", "--config", "teacher.yaml", "--name", "bpr[20]*").code == 0
    assert kdrec("test", "--name", "bpr[20]*").code == 0


def test_logs_hold_the_terms_the_metrics_and_the_hyper_parameters(fitted: Kdrec) -> None:
    fitted("fit", "--config", "student.yaml")
    log = EventAccumulator(str(only("logs/student/*")))
    log.Reload()
    names = set(log.Tags()["scalars"])
    assert {"train/loss", "train/base", "train/ftd", "train/learning_rate", "val/ndcg@10", "val_best/ndcg@10"} <= names
    assert len(log.Scalars("train/ftd")) == 3
    total, base, ftd = (log.Scalars(f"train/{name}")[1].value for name in ("loss", "base", "ftd"))
    assert total == pytest.approx(base + ftd, rel=1e-5)
    assert "_hparams_/session_start_info" in log.summary_metadata


def test_the_saved_config_makes_the_run_again(fitted: Kdrec) -> None:
    first = only("checkpoints/teacher/*/best.ckpt")
    before = checkpoint.read(first)["state_dict"]
    fitted("fit", "--config", str(first.parent / "config.yaml"))
    [again] = [path for path in Path().glob("checkpoints/teacher/*/best.ckpt") if path != first]
    after = checkpoint.read(again)["state_dict"]
    assert all((before[name] == after[name]).all() for name in before)


def test_several_configs_and_options_override_in_order(kdrec: Kdrec) -> None:
    Path("more.yaml").write_text(yaml.safe_dump({"trainer": {"max_epochs": 7}}))
    done = kdrec("fit", "--config", "teacher.yaml", "--config", "more.yaml", "--seed_everything", "5", "--print_config")
    said = yaml.safe_load(done.out)
    assert (said["trainer"]["max_epochs"], said["seed_everything"]) == (7, 5)


def test_help_teaches(kdrec: Kdrec) -> None:
    done = kdrec("fit", "--help")
    assert done.code == 0
    for text in ("--trainer.max_epochs", "MovieLens100K", "DistillationModule", "Name of the run's folders"):
        assert text in done.out
    done = kdrec("fit", "--model.help", "DistillationModule")
    assert "A checkpoint, or (on the command line) the config that makes it" in " ".join(done.out.split())
    done = kdrec("fit", "--data.help", "MovieLens100K")
    assert "Training pairs a step and process." in done.out


def interrupt(args: list[str], ready: str) -> subprocess.CompletedProcess[str]:
    """Run kdrec, send Ctrl-C once a file that matches ``ready`` is there, and return what it left."""
    command = [sys.executable, "-m", "kdrec", *args]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    while not list(Path().glob(ready)) and process.poll() is None:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    out, error = process.communicate(timeout=60)
    return subprocess.CompletedProcess(args, process.returncode, out, error)


def test_ctrl_c_keeps_the_last_checkpoint_and_says_how_to_go_on(kdrec: Kdrec) -> None:
    endless = ["--trainer.max_epochs", "100000", "--early_stopping.patience", "100000"]
    done = interrupt(["fit", "--config", "teacher.yaml", *endless], "checkpoints/teacher/*/last.ckpt")
    assert done.returncode == 130
    assert "Traceback" not in done.stderr
    last = only("checkpoints/teacher/*/last.ckpt")
    assert str(last) in done.stderr
    [command] = [line.strip() for line in done.stderr.splitlines() if line.strip().startswith("kdrec fit")]
    reached = checkpoint.read(last)["kdrec"]["epochs"]
    resumed = kdrec(*command.split()[1:], "--trainer.max_epochs", str(reached + 2))
    assert resumed.code == 0, resumed.error
    assert checkpoint.read(last)["kdrec"]["epochs"] == reached + 2
    assert (
        "last.ckpt"
        in kdrec("fit", "--config", "teacher.yaml", "--ckpt_path", "last", "--trainer.max_epochs", str(reached + 3)).out
    )


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere children outlive their parent")
def test_a_killed_fit_leaves_no_teachers_fit_behind(kdrec: Kdrec) -> None:
    options = yaml.safe_load(Path("teacher.yaml").read_text())
    options["trainer"]["max_epochs"] = 100_000
    options["early_stopping"] = {"patience": 100_000}
    Path("teacher.yaml").write_text(yaml.safe_dump(options))
    command = [sys.executable, "-m", "kdrec", "fit", "--config", "student.yaml"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while not list(Path().glob("checkpoints/teacher/*/last.ckpt")) and process.poll() is None:
        time.sleep(0.05)
    [orphan] = children(process.pid)
    process.kill()
    process.wait()
    until = time.monotonic() + 60
    while not has_ended(orphan) and time.monotonic() < until:
        time.sleep(0.05)
    ended = has_ended(orphan)
    if not ended:
        os.kill(orphan, signal.SIGKILL)
    assert ended


def test_the_last_epoch_is_kept_even_if_it_is_not_the_best(kdrec: Kdrec) -> None:
    still = ["--model.init_args.optimizer", {"class_path": "torch.optim.SGD", "init_args": {"lr": 0.0}}]
    assert kdrec("fit", "--config", "teacher.yaml", *still, "--trainer.max_epochs", "4").code == 0
    best, last = (checkpoint.read(only(f"checkpoints/teacher/*/{name}.ckpt"))["kdrec"] for name in ("best", "last"))
    assert (best["epochs"], last["epochs"]) == (1, 4)


def test_two_processes_count_every_user_once(kdrec: Kdrec) -> None:
    two = ["--trainer.devices", "2", "--trainer.strategy", "ddp"]
    command = [sys.executable, "-m", "kdrec", "fit", "--config", "student.yaml", *two]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("student / teacher") == 1
    best = str(only("checkpoints/student/*/best.ckpt"))
    single = kdrec("test", "--ckpt_path", best, "--per_user", "one.csv", "--config", "student.yaml")
    command = [sys.executable, "-m", "kdrec", "test", "--ckpt_path", best, "--per_user", "two.csv", *two]
    done = subprocess.run([*command, "--config", "student.yaml"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert rows(done.stdout) == rows(single.out)
    assert Path("one.csv").read_bytes() == Path("two.csv").read_bytes()
    assert json.loads(only("checkpoints/student/*/run.json").read_text())["epochs"] == 3


def test_a_normal_run_warns_of_nothing(workplace: Path) -> None:
    watched = ["--checkpoint.monitor", "val/recall@5", "--early_stopping.monitor", "val/recall@5"]
    for args in (["fit", "--config", "teacher.yaml", *watched], ["test", "--config", "teacher.yaml"]):
        command = [sys.executable, "-m", "kdrec", *args, "--trainer.enable_progress_bar", "false"]
        assert not subprocess.run(command, capture_output=True, text=True, check=True).stderr


def test_python_m_kdrec_is_kdrec(workplace: Path) -> None:
    done = subprocess.run([sys.executable, "-m", "kdrec", "--version"], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("kdrec ")


def test_the_teachers_failure_is_the_students_failure(kdrec: Kdrec) -> None:
    broken = yaml.safe_load(Path("teacher.yaml").read_text())
    broken["model"]["init_args"]["cutoffs"] = [5, 5000]
    Path("teacher.yaml").write_text(yaml.safe_dump(broken))
    done = kdrec("fit", "--config", "student.yaml")
    assert done.code == 2
    assert "The cutoff 5000 does not fit" in done.error
    assert "The teacher teacher.yaml could not be trained" in done.error


def test_a_teacher_config_on_other_data_is_refused_before_it_is_trained(kdrec: Kdrec) -> None:
    other = {"class_path": "kdrec.data.splits.LeaveOneOut", "init_args": {"order": "random"}}
    student = {
        **STUDENT,
        "data": {"class_path": "tests.generated.GeneratedDataModule", "init_args": {"splitter": other}},
    }
    Path("student.yaml").write_text(yaml.safe_dump(student))
    assert "would learn from other data than this run" in kdrec("fit", "--config", "student.yaml").sentence
    student["data"]["init_args"] = {"num_users": 31, "batch_size": 7}  # the second is free
    Path("student.yaml").write_text(yaml.safe_dump(student))
    said = kdrec("fit", "--config", "student.yaml").sentence
    assert "than this run: its num_users is 30, and not 31; give both" in said
    assert not Path("checkpoints").exists()


def test_a_chain_of_teachers_is_trained_anew_where_one_of_them_changes(kdrec: Kdrec) -> None:
    Path("middle.yaml").write_text(Path("student.yaml").read_text())
    student = yaml.safe_load(Path("student.yaml").read_text())
    student["model"]["init_args"]["teacher"] = "middle.yaml"
    Path("student.yaml").write_text(yaml.safe_dump(student))
    assert kdrec("fit", "--config", "student.yaml").code == 0
    assert "trained first" not in kdrec("fit", "--config", "student.yaml").out
    other = yaml.safe_load(Path("teacher.yaml").read_text())
    other["model"]["init_args"]["recommender"]["init_args"]["embedding_dim"] = 17
    Path("teacher.yaml").write_text(yaml.safe_dump(other))
    out = kdrec("fit", "--config", "student.yaml").out
    assert "middle.yaml has no finished run with this config and data" in out


@pytest.mark.parametrize("teacher", ["student.yaml", "middle.yaml"])
def test_nothing_is_its_own_teacher(kdrec: Kdrec, teacher: str) -> None:
    Path("middle.yaml").write_text(Path("student.yaml").read_text().replace("teacher.yaml", "student.yaml"))
    student = yaml.safe_load(Path("student.yaml").read_text())
    student["model"]["init_args"]["teacher"] = teacher
    Path("student.yaml").write_text(yaml.safe_dump(student))
    said = kdrec("fit", "--config", "student.yaml").sentence
    assert said.startswith("student.yaml is its own teacher or member, be it by way of others; name another one")


def test_what_has_nothing_to_train_and_takes_no_arguments_is_fitted_and_tested(kdrec: Kdrec) -> None:
    config = copy.deepcopy(TEACHER)
    config["model"]["init_args"]["recommender"] = {"class_path": "Popularity"}  # type: ignore[index]
    config["trainer"]["max_epochs"] = 1
    Path("popularity.yaml").write_text(yaml.safe_dump(config))
    done = kdrec("fit", "--config", "popularity.yaml")
    assert done.code == 0, done.error
    assert "Warning" not in done.error
    tested = kdrec("test")
    assert tested.code == 0, tested.error
    assert "recall" in tested.out
