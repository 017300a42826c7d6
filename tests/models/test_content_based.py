from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch

from kdrec.data.interactions import Interactions
from kdrec.errors import InputError
from kdrec.models import checkpoint
from kdrec.models.content_based import ContentBased
from tests.generated import content_of, generate
from tests.models.clicking import TRAIN


def bound(train: Interactions = TRAIN, **arguments: object) -> ContentBased:
    model = ContentBased(**({"skip_featureless": True} | arguments))  # type: ignore[arg-type]
    model.bind(train)
    return model


def test_by_hand() -> None:
    """Drama and war weigh the same, so a film of both is (1, 1) / sqrt 2, and film 2 has neither."""
    model, half = bound(), 0.5**0.5
    vectors = torch.tensor([[half, half], [1, 0], [0, 0], [0, 1], [half, half], [1, 0], [0, 1]])
    torch.testing.assert_close(model.item_vectors(torch.arange(7)), vectors)
    # user 0 liked films 0 (both) and 3 (war), user 4 films 5 (drama) and 6 (war), user 2 film 2
    taste = torch.tensor([[half / 2, (1 + half) / 2], [0.5, 0.5], [0, 0]])
    torch.testing.assert_close(model.user_vectors(torch.tensor([0, 4, 2])), taste)
    torch.testing.assert_close(model.score_all(torch.tensor([0, 4, 2])), taste @ vectors.T)
    assert model.num_parameters() == 0


def naive(train: Interactions, user: int) -> np.ndarray:
    """Mean cosine of tf-idf rows, written out in float64 over the tags of generated data."""
    assert train.item_features is not None
    texts = [set(text.split("|")) for text in train.item_features["tags"]]
    tags = sorted(set().union(*texts))
    rows = np.array(
        [[np.log(1 + len(texts) / sum(tag in text for text in texts)) * (tag in own) for tag in tags] for own in texts]
    )
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    return np.mean([rows @ rows[item] for item in train.items[train.users == user]], axis=0)


def tagged(num_items: int = 40) -> Interactions:
    chance = np.random.default_rng(0)
    tags = ["|".join(map(str, chance.choice(12, chance.integers(1, 5), replace=False))) for _ in range(num_items)]
    return replace(generate(30, num_items), item_features=pd.DataFrame({"tags": tags}))


def test_equals_the_naive_form() -> None:
    train = tagged()
    scores = bound(train, min_frequency=1).score_all(torch.arange(30))
    for user in range(30):
        np.testing.assert_allclose(scores[user], naive(train, user), atol=1e-6)


def test_the_catalogue_is_sparse_and_says_the_same() -> None:
    model = bound(tagged(), min_frequency=1)
    catalogue = model.encode_catalogue()
    assert catalogue.is_sparse
    assert torch.equal(catalogue.to_dense(), model.item_vectors(torch.arange(40)))
    users = torch.tensor([5, 5, 2])
    expected = model.user_vectors(users) @ model.item_vectors(torch.arange(40)).T
    torch.testing.assert_close(model.score_all(users, catalogue), expected)


def test_cold_items_and_strangers_are_served() -> None:
    cold = TRAIN.subset(TRAIN.items != 3)
    model = bound(cold)
    likes_war = model.score_histories(torch.tensor([0, 1]), torch.tensor([6]))
    assert likes_war[0, 3] == 1
    assert model.score_histories(torch.tensor([0, 0]), torch.tensor([], dtype=torch.int64)).abs().max() == 0


def test_an_item_without_features_is_refused_unless_it_may_score_0() -> None:
    with pytest.raises(InputError, match="knows nothing of 1 of 7 items, such as u: they have no feature that 2 items"):
        ContentBased().bind(TRAIN)
    assert bound().score_all(torch.arange(5))[:, 2].abs().max() == 0


def test_features_of_users_do_not_help() -> None:
    with pytest.raises(InputError, match="ContentBased reads features of items and this data has none"):
        bound(replace(TRAIN, item_features=None))


def test_damaged_files_are_refused(tmp_path) -> None:  # type: ignore[no-untyped-def]
    for name, fault in (("item_weights", "weights of features"), ("history_items", "histories")):
        content = content_of(bound(), TRAIN)
        content["state_dict"][f"{checkpoint.PREFIX}{name}"] = content["state_dict"][f"{checkpoint.PREFIX}{name}"][:3]
        torch.save(content, tmp_path / "model.ckpt")
        with pytest.raises(InputError, match=f"its {fault} are not those of its"):
            checkpoint.restore(tmp_path / "model.ckpt")


@pytest.mark.parametrize("arguments", [{"min_frequency": 0}, {"num_buckets": 1}])
def test_bad_arguments(arguments: dict[str, int]) -> None:
    [name] = arguments
    with pytest.raises(InputError, match=f"ContentBased: .*{name} is"):
        ContentBased(**arguments)  # type: ignore[arg-type]
