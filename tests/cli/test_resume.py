"""Kill -9 at any moment, and ``--ckpt_path last`` ends as if nothing had happened."""

import json
import random
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from kdrec.models import checkpoint
from tests.commandline import STUDENT, Kdrec
from tests.killing import MOMENTS, kill, start


def only(pattern: str) -> Path:
    [found] = Path().glob(pattern)
    return found


def points(run: str) -> dict[str, list[tuple[int, float]]]:
    """Return what TensorBoard shows of a run: tag -> (step, value)."""
    log = EventAccumulator(str(only(f"logs/{run}/*")), size_guidance={"scalars": 0})
    log.Reload()
    return {tag: [(point.step, point.value) for point in log.Scalars(tag)] for tag in log.Tags()["scalars"]}


def assert_same(one: Any, other: Any, place: str = "") -> None:
    """Fail if two nests of tensors and plain values differ in a bit."""
    assert type(one) is type(other), place
    if isinstance(one, dict):
        assert one.keys() == other.keys(), place
        for key in one:
            assert_same(one[key], other[key], f"{place}.{key}")
    elif isinstance(one, list | tuple):
        assert len(one) == len(other), place
        for number, pair in enumerate(zip(one, other, strict=True)):
            assert_same(*pair, f"{place}.{number}")
    elif isinstance(one, torch.Tensor):
        assert torch.equal(one, other), place
    else:
        assert repr(one) == repr(other), place  # nan equals nan


def facts(run: str) -> dict[str, Any]:
    """Return all that a run leaves, but for its own places and times."""
    files = {name: checkpoint.read(only(f"checkpoints/{run}/*/{name}.ckpt")) for name in ("best", "last")}
    for file in files.values():
        del file["seconds"]
        for state in file["callbacks"].values():
            for place in ("dirpath", "best_model_path", "kth_best_model_path", "last_model_path", "best_k_models"):
                state.pop(place, None)
            state.pop("current_score", None)  # written by Lightning, and read by nobody
    record = json.loads(only(f"checkpoints/{run}/*/run.json").read_text())
    return files | {"record": {**record, "seconds": 0}, "points": points(run)}


@pytest.fixture
def config(kdrec: Kdrec, patience: int) -> str:
    """A student with all that has a state: dropout, noise, experts, two schedules, early stopping."""
    assert kdrec("fit", "--config", "teacher.yaml").code == 0
    settings = json.loads(json.dumps(STUDENT))
    settings["model"]["init_args"] |= {
        "student": {"class_path": "NCF", "init_args": {"embedding_dim": 4}},
        "teacher": str(only("checkpoints/teacher/*/best.ckpt")),
        "distiller": {"class_path": "HTD", "init_args": {"num_groups": 3, "last_temperature": 0.1}},
        "optimizer": {"class_path": "torch.optim.Adam", "init_args": {"lr": 0.05}},
        "lr_scheduler": {"class_path": "torch.optim.lr_scheduler.ExponentialLR", "init_args": {"gamma": 0.97}},
    }
    settings["data"]["init_args"] = {"batch_size": 64}
    settings["trainer"]["max_epochs"] = 100
    settings["early_stopping"] = {"patience": patience}
    Path("config.yaml").write_text(yaml.safe_dump(settings))
    return "config.yaml"


def survive(config: str, num_kills: int, seed: int) -> list[tuple[str, int]]:
    """Fit, killed so many times, until the end; returns at which moments it was killed."""
    chance, kills = random.Random(seed), []
    args = ["fit", "--config", config, "--name", "killed"]
    while len(kills) < num_kills:
        moment = MOMENTS[len(kills) % 3]
        count = chance.randint(1, 12 if moment == "step" else 4)
        process = start(Path.cwd(), args + ["--ckpt_path", "last"] * bool(kills), moment, count)
        assert kill(process, Path.cwd(), chance.uniform(0, 0.03)), "it ended before it could be killed"
        kills.append((moment, count))
        for file in Path().glob("checkpoints/killed/*/*.ckpt"):
            checkpoint.read(file)
    process = start(Path.cwd(), [*args, "--ckpt_path", "last"])
    process.join()
    assert process.exitcode == 0
    return kills


@pytest.mark.parametrize(("patience", "num_kills"), [(8, 3), pytest.param(30, 10, marks=pytest.mark.slow)])
def test_a_killed_training_ends_as_one_that_never_was(config: str, patience: int, num_kills: int) -> None:
    process = start(Path.cwd(), ["fit", "--config", config, "--name", "whole"])
    process.join()
    assert process.exitcode == 0
    survive(config, num_kills, seed=num_kills)
    whole, killed = facts("whole"), facts("killed")
    assert patience < whole["record"]["epochs"] < 100  # it was stopped early
    assert_same(whole, killed)
    assert len(whole["points"]["train/htd_assignment"]) == whole["record"]["epochs"]
    assert not list(Path().glob("checkpoints/**/*.part"))


def test_a_training_that_was_killed_before_its_first_epoch_ended_begins_anew(kdrec: Kdrec) -> None:
    args = ["fit", "--config", "teacher.yaml", "--name", "early"]
    assert kill(start(Path.cwd(), args, "step", 1), Path.cwd(), 0)
    [folder] = Path().glob("checkpoints/early/*")
    (folder / "last.ckpt").unlink(missing_ok=True)  # had the kill been slow
    done = kdrec(*args, "--ckpt_path", "last")
    assert f"{folder} holds no finished epoch, so its training begins anew" in done.out
    assert (only("checkpoints/early/*/run.json").parent, len(points("early")["train/loss"])) == (folder, 2)


def test_a_run_that_was_killed_before_it_could_say_its_end_says_it(kdrec: Kdrec) -> None:
    assert kdrec("fit", "--config", "teacher.yaml").code == 0
    record = only("checkpoints/teacher/*/run.json")
    before, shown = json.loads(record.read_text()), points("teacher")
    record.unlink()
    done = kdrec("fit", "--config", "teacher.yaml", "--ckpt_path", "last")
    assert done.code == 0, done.error
    after = json.loads(record.read_text())
    assert {**after, "seconds": 0} == {**before, "seconds": 0}
    assert after["seconds"] >= before["seconds"] - 1
    assert_same(points("teacher"), shown)
    assert "nothing left to do" in kdrec("fit", "--config", "teacher.yaml", "--ckpt_path", "last").sentence


def test_a_run_that_goes_on_is_not_finished_and_shows_each_point_once(kdrec: Kdrec) -> None:
    assert kdrec("fit", "--config", "teacher.yaml").code == 0
    more = ["fit", "--config", "teacher.yaml", "--ckpt_path", "last", "--trainer.max_epochs", "90"]
    assert kill(start(Path.cwd(), more, "step", 4), Path.cwd(), 0)
    assert not list(Path().glob("checkpoints/teacher/*/run.json"))
    assert yaml.safe_load(only("checkpoints/teacher/*/config.yaml").read_text())["trainer"]["max_epochs"] == 90
    assert kdrec(*more[:-1], "10").code == 0
    epochs = json.loads(only("checkpoints/teacher/*/run.json").read_text())["epochs"]
    for tag in ("train/loss", "val/ndcg@10"):
        assert [step for step, _ in points("teacher")[tag]] == list(range(epochs))
    assert len(points("teacher")["val_best/ndcg@10"]) == 1


def test_a_run_that_was_stopped_early_goes_on_with_more_patience(kdrec: Kdrec) -> None:
    still = ["--model.init_args.optimizer", json.dumps({"class_path": "torch.optim.SGD", "init_args": {"lr": 0.0}})]
    fit = ["fit", "--config", "teacher.yaml", *still, "--trainer.max_epochs", "30", "--early_stopping.patience"]
    assert kdrec(*fit, "2").code == 0
    last = only("checkpoints/teacher/*/last.ckpt")
    assert checkpoint.read(last)["kdrec"]["epochs"] == 3
    said = kdrec(*fit, "2", "--ckpt_path", "last").sentence
    assert "was stopped early after 3 epochs" in said
    assert "raise --early_stopping.patience above 2" in said
    assert kdrec(*fit, "5", "--ckpt_path", "last").code == 0
    assert checkpoint.read(last)["kdrec"]["epochs"] == 6


def test_last_is_looked_for_where_the_checkpoints_were_wanted(kdrec: Kdrec) -> None:
    fit = ["fit", "--config", "teacher.yaml", "--checkpoint.dirpath", "mine"]
    assert kdrec(*fit).code == 0
    assert kdrec("fit", "--config", "teacher.yaml").code == 0
    done = kdrec(*fit, "--ckpt_path", "last", "--trainer.max_epochs", "3")
    assert "Going on from mine/last.ckpt" in done.out
    assert checkpoint.read("mine/last.ckpt")["kdrec"]["epochs"] == 3


def test_a_run_of_another_config_keeps_its_own(kdrec: Kdrec) -> None:
    assert kdrec("fit", "--config", "teacher.yaml").code == 0
    files = [only(f"checkpoints/teacher/*/{name}") for name in ("config.yaml", "run.json", "last.ckpt", "best.ckpt")]
    before = [file.read_bytes() for file in files]
    other = ["--data.init_args.seed", "1", "--trainer.max_epochs", "9"]
    assert "does not belong" in kdrec("fit", "--config", "teacher.yaml", "--ckpt_path", "last", *other).sentence
    assert [file.read_bytes() for file in files] == before
