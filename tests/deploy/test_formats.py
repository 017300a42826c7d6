"""Every format with every architecture, against scores that are sorted one by one."""

import itertools
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy
import torch

from kdrec.deploy.compact import Compact, compact
from kdrec.deploy.fold_in import fold_in
from kdrec.deploy.formats import FORMATS, format_named
from kdrec.errors import InputError
from kdrec.models.base import DotProductRecommender, Recommender
from kdrec.models.bpr import BPR
from kdrec.models.ncf import NCF
from kdrec.models.quantized_bpr import QuantizedBPR
from tests.deploy.architectures import Distances, Neighbours, Propagated
from tests.deploy.test_compact import MODELS, bound, fresh

HONEST = [Propagated, Distances, Neighbours]
SEEN = [[0, 5, 12], [], [12], [4, 3, 2, 1, 0, 12, 11, 10, 9, 8]]  # the last leaves 3 of 13
ASKED = [3, 8, 0, 8]


def naive(model: Recommender, k: int) -> list[list[tuple[int, float]]]:
    lists = []
    for user, seen in zip(ASKED, SEEN, strict=True):
        scores = model.score(torch.tensor([user] * 13), torch.arange(13)).tolist()
        left = [(item, score) for item, score in enumerate(scores) if item not in seen]
        lists.append((sorted(left, key=lambda pair: -pair[1]) + [(-1, -np.inf)] * k)[:k])
    return lists


def padded() -> torch.Tensor:
    width = max(map(len, SEEN))
    return torch.tensor([row + [-1] * (width - len(row)) for row in SEEN])


def written(model: Compact, kind: str, folder: Path, k: int = 5) -> Path:
    for name, content in format_named(kind).build(model, k).items():
        (folder / name).write_bytes(content)
    return folder


def not_another_bpr(architecture: type[Recommender]) -> bool:
    """Whether few bits of it must be tested: all models of dot products become a BPR before they are rounded."""
    return architecture is BPR or not issubclass(architecture, DotProductRecommender)


def held(kind: str, architecture: type[Recommender]) -> bool:
    """Whether a format must be able to hold an architecture."""
    if issubclass(architecture, DotProductRecommender):
        return True
    return kind == "safetensors" or (issubclass(architecture, NCF) and kind in ("onnx", "torch_export"))


CASES = [
    pytest.param(kind, model, bits, id=f"{kind}-{model.__name__}-{bits}")
    for kind, model, bits in itertools.product(FORMATS, [*MODELS, *HONEST], (None, 16, 8, 4))
    if bits is None or (format_named(kind).QUANTIZES and not_another_bpr(model))
]
REMEDIES = ("take --format", "leave out --quantize")


@pytest.mark.parametrize(("kind", "architecture", "bits"), CASES)
def test_the_lists_of_torch_or_a_sentence(
    kind: str, architecture: type[Recommender], bits: int | None, tmp_path: Path
) -> None:
    kit = format_named(kind)
    original = bound(fresh(architecture))
    try:
        model = compact(original, bits)
        written(model, kind, tmp_path)
    except InputError as error:
        refusal = str(error)
    else:
        refusal = ""
    if refusal:
        assert any(remedy in refusal for remedy in REMEDIES), refusal
        assert bits or not held(kind, architecture), refusal
        return
    for rows in (slice(None), slice(1)):  # four users and one
        items, scores = kit.answers(tmp_path, torch.tensor(ASKED)[rows], padded()[rows], 5)["users"]
        for row, expected in enumerate(naive(original if bits is None else model.recommender, 5)[rows]):
            assert scores[row].tolist() == pytest.approx([score for _, score in expected], abs=1e-6, rel=1e-6)
            own = dict(naive(model.recommender, 13)[row])
            for item, score in zip(items[row].tolist(), scores[row].tolist(), strict=True):
                assert item == -1 or own[item] == pytest.approx(score, abs=1e-6, rel=1e-6)
            assert (items[row] >= 0).sum() == sum(item >= 0 for item, _ in expected)


@pytest.mark.parametrize("bits", [None, 16, 8, 4])
def test_strangers_by_onnx(bits: int | None, tmp_path: Path) -> None:
    model = compact(bound(BPR(7, init_std=3.0)), bits)
    written(model, "onnx", tmp_path)
    items, scores = format_named("onnx").answers(tmp_path, torch.tensor(ASKED), padded(), 4)["strangers"]
    table = model.recommender.encode_catalogue()
    for row, liked in enumerate(SEEN):
        if not liked:
            continue
        own = table @ fold_in(table, torch.tensor(liked))
        own[liked] = -torch.inf
        torch.testing.assert_close(scores[row], own.topk(4).values, atol=1e-5, rtol=1e-5)
        assert items[row].tolist()[:3] == own.topk(3).indices.tolist()
    assert items[3, 3] == -1


def test_onnx_scores_are_those_of_a_model_trained_in_few_bits(tmp_path: Path) -> None:
    model = bound(QuantizedBPR(6, bits=4))
    written(compact(model), "onnx", tmp_path)
    items, scores = format_named("onnx").answers(tmp_path, torch.arange(9), torch.full((9, 1), -1), 13)["users"]
    torch.testing.assert_close(scores, model.score_all(torch.arange(9)).gather(1, items), atol=1e-9, rtol=1e-6)
    assert len((tmp_path / "tables.bin").read_bytes()) < (9 + 13) * (3 + 4) + 4 * 64


def test_no_number_stands_in_an_onnx_export_twice(tmp_path: Path) -> None:
    model = bound(BPR(400))
    written(compact(model), "onnx", tmp_path)
    sizes = {path.name: path.stat().st_size for path in tmp_path.iterdir()}
    assert sizes["tables.bin"] == model.num_bytes()
    assert sizes["users.onnx"] < 2000
    assert sizes["strangers.onnx"] < 400 * 400 * 4 + 6000  # whose whitening is its own


@pytest.mark.parametrize("bits", [32, 8, 4])
def test_safetensors_need_numpy_alone(bits: int, tmp_path: Path) -> None:
    model = compact(bound(BPR(5)), bits)
    tensors = safetensors.numpy.load_file(written(model, "safetensors", tmp_path) / "model.safetensors")

    def table(name: str) -> np.ndarray:
        if name in tensors:
            return tensors[name]
        codes = tensors[f"{name}.codes"]
        if bits == 4:
            codes = np.stack((codes & 15, codes >> 4), axis=2).reshape(len(codes), -1)[:, :5].astype(np.int8) - 8
        return codes * tensors[f"{name}.scales"][:, None]

    expected = model.recommender.score_all(torch.arange(9)).numpy()
    np.testing.assert_allclose(table("users.weight") @ table("items.weight").T, expected, atol=1e-9, rtol=1e-5)


@pytest.mark.parametrize(
    ("kind", "sentence"),
    [
        ("faiss", "A Neighbours scores by no dot products, so a faiss index would find other items than it does"),
        ("usearch", "A Neighbours scores by no dot products, so a usearch index would find other items than it does"),
        ("onnx", "There is no ONNX graph for a Neighbours: it scores by no dot products, and is neither NCF nor NeuMF"),
        ("torch_export", "A Neighbours does not become a torch program: torch.export cannot follow what it does"),
    ],
)
def test_what_a_format_cannot_hold(kind: str, sentence: str, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(InputError, match=f"^{sentence}; take --format .*safetensors, which holds any model.$"):
        format_named(kind).build(compact(bound(Neighbours())), 5)
    assert capfd.readouterr() == ("", "")


def test_what_not_even_safetensors_hold() -> None:
    model = bound(Distances())
    model.twin = model.items
    with pytest.raises(InputError, match="safetensors cannot hold a Distances, some of whose tensors are sparse or"):
        format_named("safetensors").build(compact(model), 5)


@pytest.mark.parametrize("kind", ["onnx", "safetensors", "faiss", "usearch"])
def test_nothing_seen(kind: str, tmp_path: Path) -> None:
    model = compact(bound(BPR(5)))
    written(model, kind, tmp_path)
    items, _ = format_named(kind).answers(tmp_path, torch.arange(9), torch.empty(9, 0, dtype=torch.int64), 5)["users"]
    assert torch.equal(items, model.recommender.score_all(torch.arange(9)).topk(5).indices)
