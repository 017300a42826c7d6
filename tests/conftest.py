import json
import os
import signal
from pathlib import Path

import pytest
import torch
import yaml
from tensorboard.summary.writer import event_file_writer

from kdrec.cli.main import main
from kdrec.data.interactions import Interactions
from kdrec.data.splits import LeaveOneOut, Split
from tests.commandline import ROOT, STUDENT, TEACHER, Kdrec, Outcome
from tests.generated import generate

torch.set_num_threads(1)
# ranx, the oracle of the metrics, compiles for half a minute in a fresh environment and then runs for milliseconds
os.environ.setdefault("NUMBA_DISABLE_JIT", "1")
# a shell that starts the tests in its background has them, and what they start, ignore Ctrl-C
signal.signal(signal.SIGINT, signal.default_int_handler)
# TensorBoard reads a run's files in the order of their names, which end in the number of the writer in its process;
# here all of one length, since "10" stands before "9" and a test may make both in a second
event_file_writer._global_uid = event_file_writer.AtomicCounter(100_000)


@pytest.fixture
def interactions() -> Interactions:
    return generate()


@pytest.fixture
def split(interactions: Interactions) -> Split:
    return LeaveOneOut("time")(interactions)


@pytest.fixture(autouse=True)
def _no_data_folder(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    """Let no data set on this machine change what a default test sees."""
    if "slow" not in request.keywords:
        monkeypatch.delenv("KDREC_DATA", raising=False)


@pytest.fixture
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty current folder with two configs."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setattr("sys.argv", ["kdrec"])
    (tmp_path / "teacher.yaml").write_text(yaml.safe_dump(TEACHER))
    (tmp_path / "student.yaml").write_text(yaml.safe_dump(STUDENT))
    return tmp_path


@pytest.fixture
def kdrec(workplace: Path, capfd: pytest.CaptureFixture[str]) -> Kdrec:
    """Run a command line in this process, in the workplace."""

    def run(*args: object) -> Outcome:
        capfd.readouterr()
        code = main([arg if isinstance(arg, str) else json.dumps(arg) for arg in args])
        return Outcome(code, *capfd.readouterr())

    return run
