"""Two processes with half of the tables each, as a user starts them: their files are those of one process."""

from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from kdrec.models import checkpoint
from tests.cli.test_distributed import KDREC, ONE, TWO, at_once, torchrun
from tests.cli.test_engine import only, rows
from tests.commandline import STUDENT, TEACHER, Kdrec, Outcome

SHARDED = (*TWO[:2], "--trainer.strategy", "row_sharding")
FIT = (*KDREC, "fit", "--config", "student.yaml", *SHARDED, *TWO[4:], "--trainer.callbacks+=ProjectorWriter")


@pytest.fixture(scope="module")
def launched(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Outcome]:
    """A folder where a student was trained for two epochs and then, resumed, for two more; and what that said."""
    folder = tmp_path_factory.mktemp("sharded")
    student = deepcopy(STUDENT)
    options = {"topology_scope": "global"}
    student["model"]["init_args"]["distiller"] = {"class_path": "FTD", "init_args": options}  # type: ignore[index]
    for name, config in (("teacher", TEACHER), ("student", student)):
        (folder / f"{name}.yaml").write_text(yaml.safe_dump(config))
    at_once(folder, [*FIT, "--trainer.max_epochs", "2"])
    return folder, at_once(folder, [*FIT, "--trainer.max_epochs", "4", "--ckpt_path", "last"])


@pytest.fixture
def workplace(launched: tuple[Path, Outcome], monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(launched[0])
    monkeypatch.setattr("sys.argv", ["kdrec"])
    return launched[0]


def flat(nest: Any, name: str = "") -> dict[str, torch.Tensor]:
    """Return the tensors in a nest of dicts and lists."""
    if isinstance(nest, torch.Tensor):
        return {name: nest}
    parts = nest.items() if isinstance(nest, dict) else enumerate(nest) if isinstance(nest, list) else ()
    return {key: value for place, part in parts for key, value in flat(part, f"{name}.{place}").items()}


def test_the_files_are_those_of_one_process(launched: tuple[Path, Outcome], kdrec: Kdrec) -> None:
    done = kdrec("fit", "--config", "student.yaml", "--name", "one", "--trainer.max_epochs", "4", *ONE)
    assert rows(done.out)["one"][:-1] == rows(launched[1].out)["student"][:-1]  # all but the seconds
    one, two = (checkpoint.read(only(f"checkpoints/{name}/*/last.ckpt")) for name in ("one", "student"))
    for kind in ("state_dict", "optimizer_states"):
        ours, theirs = flat(two[kind]), flat(one[kind])
        assert {name: value.shape for name, value in ours.items()} == {n: value.shape for n, value in theirs.items()}
        assert max((ours[name] - theirs[name]).abs().max().item() for name in ours) < 1e-5
    assert {f".0.state.{table}.exp_avg" for table in (0, 1)} <= ours.keys()
    command = "test", "--config", "student.yaml", "--ckpt_path"
    tested = [kdrec(*command, str(only(f"checkpoints/{name}/*/best.ckpt"))) for name in ("one", "student")]
    assert tested[0].code == 0
    assert rows(tested[0].out) == rows(tested[1].out)


@pytest.mark.slow
def test_two_processes_test_as_one(workplace: Path, kdrec: Kdrec) -> None:
    command = "test", "--config", "student.yaml", "--ckpt_path", str(only("checkpoints/student/*/best.ckpt"))
    said = torchrun(workplace, *command, *SHARDED)
    assert rows(said.out) == rows(kdrec(*command).out)
