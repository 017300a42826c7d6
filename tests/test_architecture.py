"""The shape of the house: who may import whom, and what importing costs."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import kdrec

ROOT = Path(kdrec.__file__).parent
LAYERS = ["data", "models", "evaluation", "distillation", "training", "deploy", "studies", "cli"]
FILES = sorted(path.relative_to(ROOT) for path in ROOT.rglob("*.py"))


def imported_layers(source: str) -> set[str]:
    """Return the rooms of kdrec that a source file imports, wherever in the file."""
    names = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are written in full"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return {name.split(".")[1] for name in names if name.startswith("kdrec.")} & set(LAYERS)


def test_the_rule_itself() -> None:
    assert imported_layers("def f():\n    from kdrec import cli\nimport kdrec.data.base") == {"cli", "data"}
    assert imported_layers("from kdrec.models.bpr import BPR\nimport torch") == {"models"}


@pytest.mark.parametrize("file", [file for file in FILES if len(file.parts) > 1], ids=str)
def test_imports_go_to_the_left(file: Path) -> None:
    allowed = set(LAYERS[: LAYERS.index(file.parts[0]) + 1])
    assert imported_layers((ROOT / file).read_text()) <= allowed


@pytest.mark.parametrize("file", [Path("__init__.py"), Path("errors.py")], ids=str)
def test_the_root_imports_no_layer(file: Path) -> None:
    assert not imported_layers((ROOT / file).read_text())


def test_every_room_is_a_layer() -> None:
    assert {file.parts[0] for file in FILES if len(file.parts) > 1} <= set(LAYERS)


@pytest.mark.parametrize(("arguments", "code"), [(["--help"], 0), (["fti"], 2), (["--version"], 0), ([], 0)])
def test_light_answers_do_without_torch(arguments: list[str], code: int) -> None:
    program = (
        "import sys; from kdrec.cli.main import main; code = main(sys.argv[1:]);"
        "assert not {'torch', 'lightning', 'pandas', 'numpy'} & set(sys.modules); sys.exit(code)"
    )
    done = subprocess.run([sys.executable, "-c", program, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == code, done.stderr


def test_importing_a_layer_has_no_effects(tmp_path: Path) -> None:
    program = "import kdrec.training.distillation, kdrec.data.movielens, torch; assert torch.initial_seed() == 5"
    subprocess.run([sys.executable, "-c", f"import torch; torch.manual_seed(5); {program}"], cwd=tmp_path, check=True)
    assert not list(tmp_path.iterdir())
