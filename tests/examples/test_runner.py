"""The runner, without anything but onnxruntime and NumPy."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from kdrec.data.splits import Split
from kdrec.deploy.export import export
from kdrec.deploy.recommender import Deployed
from kdrec.models.base import Recommender
from kdrec.models.bpr import BPR
from kdrec.models.ncf import NCF
from tests.commandline import ROOT
from tests.generated import content_of

RUNNER = str(ROOT / "examples" / "runner.py")
BARE = """
import runpy, sys
for name in ("torch", "lightning", "pandas", "kdrec", "onnx"):
    sys.modules[name] = None
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


@pytest.fixture
def deployed(split: Split, workplace: Path) -> Deployed:
    return exported(BPR(4, init_std=1.0), split)


def exported(model: Recommender, split: Split) -> Deployed:
    """Export to the folder ``out``."""
    torch.manual_seed(0)
    model.bind(split.train)
    torch.save(content_of(model, split.train), "model.ckpt")
    export(Path("model.ckpt"), "onnx", output=Path("out"))
    return Deployed("model.ckpt")


def run(*options: str, python: tuple[str, ...] = (sys.executable, "-c", BARE)) -> list[list[str]]:
    done = subprocess.run(
        [*python, RUNNER, "out", *options], capture_output=True, text=True, check=False, env={"PATH": ""}
    )
    assert done.returncode == 0, done.stderr
    return [line.split("\t") for line in done.stdout.splitlines()]


def refused(*options: str) -> str:
    done = subprocess.run([sys.executable, RUNNER, "out", *options], capture_output=True, text=True, check=False)
    assert done.returncode
    assert len(done.stderr.splitlines()) == 1, done.stderr
    return done.stderr


def check_runner(model: Deployed, **options: tuple[str, ...]) -> None:
    """Compare with `kdrec recommend`."""
    expected = model.for_user(model.user("103"), 6)
    assert run("--user", "103", "-k", "6", **options) == [
        [str(rank), item.id, item.title] for rank, item in enumerate(expected, start=1)
    ]
    expected = model.for_items([model.item("Film 3 (1953)"), model.item("510")], 6)
    found = run("--items", "Film 3 (1953)", "510", "510", "-k", "6", **options)
    assert [row[1] for row in found] == [item.id for item in expected]


def test_the_lists_of_kdrec_recommend(deployed: Deployed) -> None:
    check_runner(deployed)


@pytest.mark.slow
def test_in_an_environment_without_torch(deployed: Deployed, tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-m", "venv", tmp_path / "bare"], check=True)
    python = str(tmp_path / "bare" / "bin" / "python")
    subprocess.run([python, "-m", "pip", "install", "--quiet", "numpy", "onnxruntime"], check=True)
    assert subprocess.run([python, "-c", "import torch"], capture_output=True, check=False).returncode
    check_runner(deployed, python=(python,))


def test_what_it_refuses(deployed: Deployed) -> None:
    assert "There is no user '1'." in refused("--user", "1")
    assert "There is no item 'Film'." in refused("--items", "Film")
    assert "k is 41; it must lie between 1 and 40." in refused("--user", "103", "-k", "41")
    Path("out/tables.bin").write_bytes(b"other")
    assert "tables.bin is missing, damaged or of another export" in refused("--user", "103")
    manifest = json.loads(Path("out/manifest.json").read_text())
    Path("out/manifest.json").write_text(json.dumps(manifest | {"format": 2}))
    assert "this program runs onnx, format 1" in refused("--user", "103")


def test_a_model_without_strangers(split: Split, workplace: Path) -> None:
    model = exported(NCF(16), split)
    assert [row[1] for row in run("--user", "103", "-k", "3")] == [item.id for item in model.for_user(2, 3)]
    assert "This model knows no strangers" in refused("--items", "510")
