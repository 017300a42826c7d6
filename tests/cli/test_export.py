import errno
import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from kdrec.data.splits import Split
from kdrec.deploy import artefact
from kdrec.deploy.formats import FORMATS, format_named
from kdrec.models.base import Recommender
from kdrec.models.bpr import BPR
from kdrec.models.ncf import NCF
from kdrec.models.popularity import Popularity
from kdrec.models.quantized_bpr import QuantizedBPR
from tests.commandline import Kdrec
from tests.deploy.architectures import Neighbours
from tests.generated import content_of


def save(model: Recommender, split: Split, path: Path) -> Path:
    torch.manual_seed(0)
    model.bind(split.train)
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save(content_of(model, split.train), path)
    return path


@pytest.fixture
def checkpoint(split: Split, workplace: Path) -> Path:
    return save(BPR(4, init_std=1.0), split, workplace / "checkpoints/bpr/now/best.ckpt")


@pytest.mark.parametrize("kind", FORMATS)
def test_every_format(kdrec: Kdrec, checkpoint: Path, kind: str) -> None:
    done = kdrec("export", "--format", kind)
    assert done.code == 0, done.error
    assert "users: 30 of 30 lists in torch's order" in done.out
    folder = checkpoint.parent / f"best-{kind}"
    manifest = artefact.check(folder)
    assert (manifest["kind"], manifest["quantize"]) == (kind, None)
    assert (manifest["num_users"], manifest["num_items"]) == (30, 40)
    assert manifest["model"]["init_args"]["embedding_dim"] == 4
    assert {path.name for path in folder.iterdir()} == {*manifest["files"], artefact.MANIFEST}
    assert json.loads((folder / "vocabulary.json").read_text())["titles"][3] == "Film 3 (1953)"


@pytest.mark.parametrize("bits", ["int8", "int4", "fp16"])
@pytest.mark.parametrize("model", [BPR(4), NCF(4), QuantizedBPR(4)], ids=lambda model: type(model).__name__)
def test_what_few_bits_cost(kdrec: Kdrec, workplace: Path, split: Split, model: Recommender, bits: str) -> None:
    path = save(model, split, workplace / "model.ckpt")
    done = kdrec("export", "--ckpt_path", str(path), "--format", "onnx", "--quantize", bits, "--output", "out")
    assert done.code == 0, done.error
    assert f"Validation, before and after {bits}" in done.out
    cost = artefact.check("out")["quality"]["validation"]
    assert {"recall@5", "ndcg@10"} <= set(cost["before"]) == set(cost["after"])


def test_a_model_without_parameters(kdrec: Kdrec, workplace: Path, split: Split) -> None:
    path = str(save(Neighbours(), split, workplace / "model.ckpt"))
    done = kdrec("export", "--ckpt_path", path, "--format", "safetensors", "--quantize", "int8", "--output", "out")
    assert done.code == 0, done.error
    [total] = [line.split() for line in done.out.splitlines() if line.strip().startswith("model ")]
    numbers = 31 * 8 + len(split.train) * 8
    assert int(total[1].replace(",", "")) == pytest.approx(numbers + 40 * (40 + 4), rel=0.2)  # a header besides
    assert "Validation, before and after int8" in done.out
    for kind in sorted({*FORMATS} - {"safetensors"}):
        assert "take --format " in kdrec("export", "--ckpt_path", path, "--format", kind, "--output", "new").sentence
    assert not Path("new").exists()


def test_nothing_to_round(kdrec: Kdrec, workplace: Path, split: Split) -> None:
    path = str(save(Popularity(), split, workplace / "model.ckpt"))
    said = kdrec("export", "--ckpt_path", path, "--format", "onnx", "--quantize", "int8").sentence
    assert "A Popularity has no table that would be smaller with 8 bits a number; leave out --quantize." in said


def test_a_cost_that_cannot_be_measured(kdrec: Kdrec, workplace: Path, split: Split) -> None:
    path = save(BPR(4), split, workplace / "model.ckpt")
    content = torch.load(path, weights_only=True)
    content["kdrec"]["data_digest"] = "other"
    torch.save(content, path)
    done = kdrec("export", "--ckpt_path", str(path), "--format", "onnx", "--quantize", "int8")
    assert done.code == 0, done.error
    said = " ".join(done.out.split())
    assert "and the data here is another" in said.partition("What int8 costs was not measured: ")[2]


def test_an_export_is_replaced_by_force_alone(kdrec: Kdrec, checkpoint: Path) -> None:
    options = ("export", "--format", "safetensors", "--output", "out")
    assert kdrec(*options).code == 0
    assert "out exists; name another --output, or replace it with --force" in kdrec(*options).sentence
    assert kdrec(*options, "--force").code == 0


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ((), "Say what to write: --format faiss | onnx | safetensors | torch_export | usearch"),
        (("--format", "pickle"), "invalid choice: 'pickle'"),
        (("--format", "onnx", "--quantize", "int2"), "invalid choice: 'int2'"),
        (("--format", "faiss", "--quantize", "int8"), "faiss holds float vectors only; leave out --quantize int8"),
        (("--format", "onnx", "-k", "41"), "k is 41; it must lie between 1 and the catalogue's 40 items"),
        (("--format", "onnx", "--ckpt_path", "nothing.ckpt"), "There is no checkpoint nothing.ckpt"),
        (("--format", "onnx", "--output", "teacher.yaml", "--force"), "is no export of kdrec, so --force leaves it"),
        (("--format", "onnx", "--output", "teacher.yaml/out"), "cannot be written"),
    ],
)
def test_bad_input(kdrec: Kdrec, checkpoint: Path, options: tuple[str, ...], sentence: str) -> None:
    assert sentence in kdrec("export", *options).sentence
    assert [path.name for path in checkpoint.parent.iterdir()] == ["best.ckpt"]


def test_a_full_disk(kdrec: Kdrec, checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(self: Path, content: bytes) -> int:
        with open(self, "wb") as file:
            file.write(content[:10])
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    assert "No space left on device); nothing was kept" in kdrec("export", "--format", "onnx").sentence
    assert [path.name for path in checkpoint.parent.iterdir()] == ["best.ckpt"]


def test_what_disagrees_with_torch_is_not_kept(kdrec: Kdrec, checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kit = format_named("onnx")
    build = kit.build

    def spoiled(model: object, k: int) -> dict[str, bytes]:
        files = build(model, k)  # type: ignore[arg-type]
        return files | {"tables.bin": (2 * np.frombuffer(files["tables.bin"], np.float32)).tobytes()}

    monkeypatch.setattr(kit, "build", spoiled)
    assert "does not agree with torch (users: scores differ" in kdrec("export", "--format", "onnx").sentence
    assert [path.name for path in checkpoint.parent.iterdir()] == ["best.ckpt"]


def test_an_extra_that_is_not_installed(kdrec: Kdrec, checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "usearch.index", None)
    monkeypatch.delitem(sys.modules, "kdrec.deploy.formats.usearch", raising=False)
    sentence = kdrec("export", "--format", "usearch").sentence
    assert "--format usearch needs usearch.index; install the extra: python -m pip install '.[ann]'." in sentence


def test_help_needs_no_torch(kdrec: Kdrec) -> None:
    done = kdrec("export", "--help")
    assert done.code == 0
    assert all(word in done.out for word in ("--quantize", "examples:", "usearch"))
