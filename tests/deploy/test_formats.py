"""Every format with every architecture, against scores that are sorted one by one."""

import itertools
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy
import torch

from kdrec.deploy.compact import Compact, compact
from kdrec.deploy.formats import FORMATS, format_named
from kdrec.deploy.recommender import fold_in
from kdrec.errors import InputError
from kdrec.models.base import DotProductRecommender, Recommender
from kdrec.models.bpr import BPR
from kdrec.models.ncf import NCF
from kdrec.models.quantized_bpr import QuantizedBPR
from tests.deploy.test_compact import MODELS, bound

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


CASES = [
    pytest.param(kind, model, bits, id=f"{kind}-{model.__name__}-{bits}")
    for kind, model, bits in itertools.product(FORMATS, MODELS, (None, 16, 8, 4))
    if format_named(kind).QUANTIZES or (bits is None and issubclass(model, DotProductRecommender))
]


@pytest.mark.parametrize(("kind", "architecture", "bits"), CASES)
def test_the_lists_of_torch(kind: str, architecture: type[Recommender], bits: int | None, tmp_path: Path) -> None:
    kit = format_named(kind)
    original = bound(architecture())
    model = compact(original, bits)
    written(model, kind, tmp_path)
    for rows in (slice(None), slice(1)):  # four users and one
        items, scores = kit.answers(tmp_path, torch.tensor(ASKED)[rows], padded()[rows], 5)["users"]
        for row, expected in enumerate(naive(original if bits is None else model.recommender, 5)[rows]):
            assert scores[row].tolist() == pytest.approx([score for _, score in expected], abs=1e-6)
            own = naive(model.recommender, 13)[row]
            for item, score in zip(items[row].tolist(), scores[row].tolist(), strict=True):
                assert item == -1 or dict(own)[item] == pytest.approx(score, abs=1e-6)
            assert (items[row] >= 0).sum() == (torch.tensor([item for item, _ in expected]) >= 0).sum()


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


@pytest.mark.parametrize("kind", ["faiss", "usearch"])
def test_no_index_of_what_is_no_dot_product(kind: str) -> None:
    with pytest.raises(InputError, match=f"A NCF scores by no dot products, so a {kind} index would find other"):
        format_named(kind).build(compact(bound(NCF(4))), 5)


def test_no_graph_for_an_unknown_architecture() -> None:
    class Strange(NCF.__base__):  # type: ignore[misc, name-defined]
        user_vectors = item_vectors = score = encode_catalogue = score_all = None

    with pytest.raises(InputError, match="There is no ONNX graph for a Strange: "):
        format_named("onnx").build(Compact(Strange(), {}), 5)


@pytest.mark.parametrize("kind", ["onnx", "safetensors", "faiss", "usearch"])
def test_nothing_seen(kind: str, tmp_path: Path) -> None:
    model = compact(bound(BPR(5)))
    written(model, kind, tmp_path)
    items, _ = format_named(kind).answers(tmp_path, torch.arange(9), torch.empty(9, 0, dtype=torch.int64), 5)["users"]
    assert torch.equal(items, model.recommender.score_all(torch.arange(9)).topk(5).indices)
