"""What all click models share, shown on DeepFM."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from kdrec.errors import InputError
from kdrec.models.deepfm import DeepFM
from kdrec.training.optimizers import LazyAdam, let_embeddings_be_sparse
from tests.models.clicking import TRAIN, bound, field_vectors


def test_vectors_are_the_id_and_the_mean_of_the_other_fields() -> None:
    model = bound(DeepFM(3))
    for side, vectors in (("user", model.user_vectors), ("item", model.item_vectors)):
        for entity in range(5):
            own, *others = field_vectors(model, side, entity)
            expected = torch.cat((own, sum(others) / len(others)))
            torch.testing.assert_close(vectors(torch.tensor([entity]))[0], expected)


@pytest.mark.parametrize("side", ["user", "item"])
def test_a_side_may_have_no_features(side: str) -> None:
    lacking = replace(TRAIN, **{f"{side}_features": None})
    model = bound(DeepFM(3), lacking)
    assert [name for name in model.embeddings if name.startswith(side)] == [side]
    scores = model.score_all(torch.arange(5))
    torch.testing.assert_close(model.score(torch.arange(5), torch.arange(7).expand(5, 7)), scores)
    vectors = model.user_vectors if side == "user" else model.item_vectors
    assert vectors(torch.arange(5)).shape == (5, 6)
    assert vectors(torch.arange(5))[:, 3:].abs().max() == 0


def test_the_catalogue_is_encoded_once(monkeypatch: pytest.MonkeyPatch) -> None:
    model, sides = bound(DeepFM(3)), []
    encode = model._encode
    monkeypatch.setattr(model, "_encode", lambda side, entities: sides.append(side) or encode(side, entities))
    catalogue = model.encode_catalogue()
    for _ in range(3):
        model.score_all(torch.arange(5), catalogue)
    assert sides.count("item") == 1


def test_rows_are_looked_up_one_by_one_for_a_lazy_optimizer() -> None:
    model = bound(DeepFM(3))
    let_embeddings_be_sparse(model)
    before = model.embeddings["item_features"].weight.detach().clone()
    optimizer = LazyAdam(model.parameters(), lr=0.1)
    model.score(torch.tensor([0]), torch.tensor([3])).sum().backward()  # a war film
    assert model.embeddings["item_features"].weight.grad.is_sparse
    optimizer.step()
    moved = (model.embeddings["item_features"].weight != before).any(1)
    assert moved.tolist() == [False, True]


def test_dropout_only_in_training() -> None:
    model = bound(DeepFM(3, dropout=0.5))
    users, items = torch.arange(5), torch.arange(5)
    assert not torch.equal(model.train().score(users, items), model.score(users, items))
    assert torch.equal(model.eval().score(users, items), model.score(users, items))


@pytest.mark.parametrize("shape", [(0,), (0, 3), (2, 0)])
def test_no_pairs(shape: tuple[int, ...]) -> None:
    users = torch.zeros(shape[0], dtype=torch.int64)
    assert bound(DeepFM(3)).score(users, torch.zeros(shape, dtype=torch.int64)).shape == shape
    assert bound(DeepFM(3)).score_all(users[:0]).shape == (0, 7)


def test_initial_weights() -> None:
    torch.manual_seed(0)
    model = DeepFM(64, (128,), init_std=0.3)
    model.build(1000, 1000)
    assert abs(model.embeddings["user"].weight.std().item() - 0.3) < 5 * 0.3 / (2 * 64_000) ** 0.5
    assert model.weights["user"].weight.abs().max() == 0
    # He: variance 2 / fan-in, 128 of 128 * 128 weights
    assert abs(model.first.weight.std().item() - (2 / 128) ** 0.5) < 5 * (2 / 128) ** 0.5 / (2 * 128 * 128) ** 0.5
    assert all(layer.bias.abs().max() == 0 for layer in (model.first, *model.rest) if isinstance(layer, nn.Linear))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"embedding_dim": 0}, "embedding_dim is 0"),
        ({"hidden_dims": []}, r"hidden_dims are \[\]"),
        ({"hidden_dims": [4, 0]}, r"hidden_dims are \[4, 0\]"),
        ({"dropout": 1.0}, "dropout is 1.0"),
        ({"dropout": float("nan")}, "dropout is nan"),
        ({"min_frequency": 0}, "min_frequency is 0"),
        ({"num_buckets": 1}, "num_buckets is 1"),
    ],
)
def test_bad_arguments(arguments: dict[str, float], message: str) -> None:
    with pytest.raises(InputError, match=f"DeepFM: .*{message}"):
        DeepFM(**arguments)  # type: ignore[arg-type]
