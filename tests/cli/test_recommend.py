import csv
import io
import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from kdrec.data.splits import Split
from kdrec.models.bpr import BPR
from tests.commandline import Kdrec
from tests.generated import content_of


@pytest.fixture
def checkpoint(split: Split, workplace: Path) -> Path:
    torch.manual_seed(0)
    model = BPR(4)
    model.bind(split.train)
    path = workplace / "checkpoints/bpr/now/best.ckpt"
    path.parent.mkdir(parents=True)
    torch.save(content_of(model, split.train), path)
    return path


def test_a_user(kdrec: Kdrec, checkpoint: Path) -> None:
    done = kdrec("recommend", "--user", "103", "-k", "3")
    assert done.code == 0, done.error
    assert "Touched last by user 103" in done.out
    assert all(word in done.out for word in ("Film", "Genre", "rank", "score"))


def test_formats_say_the_same(kdrec: Kdrec, checkpoint: Path, split: Split) -> None:
    options = ("recommend", "--ckpt_path", str(checkpoint), "--user", "103", "-k", "4", "--format")
    told = json.loads(kdrec(*options, "json").out)
    rows = list(csv.DictReader(io.StringIO(kdrec(*options, "csv").out)))
    assert told["user"] == "103"
    assert [row["item"] for row in rows] == [item["id"] for item in told["recommended"]]
    assert [row["rank"] for row in rows] == ["1", "2", "3", "4"]
    assert float(rows[0]["score"]) == pytest.approx(told["recommended"][0]["score"], rel=1e-5)
    touched = split.train.item_ids[split.train.items[split.train.users == 2]]
    assert not {row["item"] for row in rows} & set(touched)


def test_items_and_similar(kdrec: Kdrec, checkpoint: Path) -> None:
    done = kdrec("recommend", "--items", "film 3 (1953)", "510", "--format", "json")
    assert json.loads(done.out)["items"] == ["504", "510"]
    done = kdrec("recommend", "--similar-to", "504", "--format", "json")
    assert json.loads(done.out)["similar_to"] == "504"


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ((), "Say for whom"),
        (("--user", "1"), "knows no user '1'"),
        (("--user", "103", "--items", "504"), "not allowed with"),
        (("--similar-to", "Film 3"), "did you mean 'Film 3 (1953)'"),
        (("--items", "504", "-k", "40"), "k is 40; it must lie between 1 and the 39 items"),
        (("--user", "103", "--format", "yaml"), "invalid choice: 'yaml'"),
        (("--user", "103", "--nope"), "There is no option '--nope'"),
        (("--user", "103", "--ckpt_path", "nothing.ckpt"), "There is no checkpoint nothing.ckpt"),
    ],
)
def test_bad_input(kdrec: Kdrec, checkpoint: Path, options: tuple[str, ...], sentence: str) -> None:
    assert sentence in kdrec("recommend", *options).sentence


def test_without_checkpoints(kdrec: Kdrec) -> None:
    assert "checkpoint" in kdrec("recommend", "--user", "1").sentence


def test_help_teaches(kdrec: Kdrec) -> None:
    done = kdrec("recommend", "--help")
    assert done.code == 0
    assert all(word in done.out for word in ("--similar-to", "examples:"))


def test_lightning_is_not_imported(checkpoint: Path) -> None:
    program = (
        "import sys; from kdrec.cli.main import main; code = main(sys.argv[1:]);"
        "assert not {'lightning', 'pytorch_lightning', 'torchmetrics'} & set(sys.modules); sys.exit(code)"
    )
    args = ["recommend", "--ckpt_path", str(checkpoint), "--user", "103"]
    done = subprocess.run([sys.executable, "-c", program, *args], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
