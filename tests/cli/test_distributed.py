"""Several processes started by torchrun, or as a cluster starts them, on generated data."""

import os
import re
import socket
import subprocess
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from copy import deepcopy
from pathlib import Path

import pytest
import torch
import yaml
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from kdrec.models import checkpoint
from tests.cli.test_engine import only, rows
from tests.commandline import ROOT, STUDENT, TEACHER, Kdrec, Outcome

TORCHRUN = (sys.executable, "-m", "torch.distributed.run")
KDREC = (sys.executable, "-m", "kdrec")
TWO = ("--trainer.devices", "2", "--trainer.strategy", "ddp", "--data.init_args.batch_size", "32")
ONE = ("--data.init_args.batch_size", "64")


def at_once(folder: Path, *commands: Sequence[str], environments: Sequence[Mapping[str, str]] = ()) -> Outcome:
    """Start commands together; returns what they said, one after the other, and fails the test if one fails."""
    processes = [
        subprocess.Popen(
            command, cwd=folder, env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", **environment},
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )
        for command, environment in zip(commands, environments or [{}] * len(commands), strict=True)
    ]  # fmt: skip
    try:
        said = [process.communicate(timeout=600) for process in processes]
    finally:
        for process in processes:
            process.terminate()
    assert not any(process.returncode for process in processes), said
    return Outcome(0, "".join(out for out, _ in said), "".join(error for _, error in said))


def torchrun(folder: Path, *command: str) -> Outcome:
    return at_once(folder, [*TORCHRUN, "--standalone", "--nproc_per_node", "2", "-m", "kdrec", *command])


def free_port() -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return str(probe.getsockname()[1])


def last_weights(name: str) -> dict[str, torch.Tensor]:
    content = checkpoint.read(only(f"checkpoints/{name}/*/last.ckpt"))
    return content["state_dict"] | content.get("distiller", {})


def largest_difference(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> float:
    assert one.keys() == other.keys()
    return max((one[name] - other[name]).abs().max().item() for name in one)


@pytest.fixture(scope="module")
def launched(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Outcome]:
    """A folder with two configs, where torchrun has trained the student, and what that said."""
    folder = tmp_path_factory.mktemp("launched")
    student = deepcopy(STUDENT)
    options = {"num_groups": 4, "topology_scope": "global", "weight": 0.1}
    student["model"]["init_args"]["distiller"] = {"class_path": "HTD", "init_args": options}  # type: ignore[index]
    for name, config in (("teacher", TEACHER), ("student", student)):
        (folder / f"{name}.yaml").write_text(yaml.safe_dump(config))
    return folder, torchrun(folder, "fit", "--config", "student.yaml", *TWO)


@pytest.fixture
def workplace(launched: tuple[Path, Outcome], monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(launched[0])
    monkeypatch.setattr("sys.argv", ["kdrec"])
    return launched[0]


def test_teacher_logs_checkpoints_and_table_are_there_once(workplace: Path, launched: tuple[Path, Outcome]) -> None:
    said = launched[1].out
    assert said.count("so it is trained first") == said.count("student / teacher") == 1
    for name in ("teacher", "student"):
        files = {path.name for path in only(f"checkpoints/{name}/*").iterdir()}
        assert files == {"best.ckpt", "last.ckpt", "config.yaml", "run.json"}
        log = EventAccumulator(str(only(f"logs/{name}/*")))
        log.Reload()
        for tag in {*log.Tags()["scalars"]} - {"epoch"}:  # which Lightning writes with every group of metrics
            assert set(Counter(event.step for event in log.Scalars(tag)).values()) == {1}, tag
    assert len(log.Scalars("train/htd_entity")) == 3


def test_two_processes_end_where_one_does(launched: tuple[Path, Outcome], kdrec: Kdrec) -> None:
    done = kdrec("fit", "--config", "student.yaml", "--name", "one", *ONE)
    assert largest_difference(last_weights("one"), last_weights("student")) < 1e-5
    assert rows(done.out)["one"][:-1] == rows(launched[1].out)["student"][:-1]  # all but the seconds


@pytest.mark.slow
def test_two_nodes_end_where_one_does(workplace: Path) -> None:
    place = "--master_addr", "127.0.0.1", "--master_port", free_port(), "--nnodes", "2", "--nproc_per_node", "1"
    fit = "-m", "kdrec", "fit", "--config", "student.yaml", "--name", "nodes", *TWO
    one_each = "--trainer.devices", "1", "--trainer.num_nodes", "2"
    said = at_once(workplace, *([*TORCHRUN, *place, "--node_rank", rank, *fit, *one_each] for rank in "01"))
    assert said.out.count("student / teacher") == 1
    assert largest_difference(last_weights("nodes"), last_weights("student")) == 0.0


@pytest.mark.slow
def test_a_clusters_processes_train_the_teacher_once(workplace: Path) -> None:
    """As `srun` starts them: their place is in SLURM's variables, and the teacher's fit must not read them."""
    (workplace / "teacher.yaml").write_text(yaml.safe_dump({**TEACHER, "seed_everything": 1}))
    job = {"SLURM_NTASKS": "2", "SLURM_NTASKS_PER_NODE": "2", "SLURM_NNODES": "1", "SLURM_NODEID": "0"}
    job |= {"SLURM_JOB_NAME": "fit", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": free_port()}
    places = [job | {"SLURM_PROCID": rank, "SLURM_LOCALID": rank} for rank in "01"]
    fit = [*KDREC, "fit", "--config", "student.yaml", "--name", "cluster", *TWO]
    said = at_once(workplace, fit, fit, environments=places)
    assert said.out.count("so it is trained first") == said.out.count("student / teacher") == 1
    assert len(list(workplace.glob("checkpoints/teacher/*/run.json"))) == 2  # the other is torchrun's
    assert len(list(workplace.glob("checkpoints/cluster/*/run.json"))) == 1


@pytest.mark.slow
def test_test_and_predict_of_two_processes_are_those_of_one(workplace: Path, kdrec: Kdrec) -> None:
    best = str(only("checkpoints/student/*/best.ckpt"))
    command = "test", "--ckpt_path", best, "--config", "student.yaml"
    said = torchrun(workplace, *command, "--per_user", "two.csv", *TWO[:4])
    single = kdrec(*command, "--per_user", "one.csv")
    assert said.out.count("Test of") == 1
    assert rows(said.out) == rows(single.out)
    assert Path("two.csv").read_bytes() == Path("one.csv").read_bytes()

    few = "predict", "--ckpt_path", best, "--batch_size", "2", "--output"
    said = torchrun(workplace, *few, "lists-two.csv")
    kdrec(*few, "lists-one.csv")
    assert Path("lists-two.csv").read_bytes() == Path("lists-one.csv").read_bytes()
    made = [int(found) for found in re.findall(r"\((\d+) of them by this process\)", said.out)] or [30]
    assert sum(made) == 30


def test_processes_that_the_trainer_does_not_know_are_refused(kdrec: Kdrec, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("WORLD_SIZE", "2"), ("LOCAL_RANK", "0"), ("RANK", "0")):
        monkeypatch.setenv(name, value)
    said = kdrec("fit", "--config", "student.yaml").sentence
    assert said.startswith("2 processes were started, and the trainer is told of 1 (1 on each of 1 machines); give")
