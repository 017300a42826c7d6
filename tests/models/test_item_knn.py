import numpy as np
import pytest
import torch

from kdrec.data.interactions import Interactions
from kdrec.errors import InputError
from kdrec.models import item_knn
from kdrec.models.item_knn import ItemKNN
from tests.generated import generate
from tests.memory import Largest

TRAIN = generate(num_users=25, num_items=40)


def dense(train: Interactions) -> np.ndarray:
    table = np.zeros((train.num_users, train.num_items))
    table[train.users, train.items] = 1
    return table


def naive(train: Interactions, num_neighbours: int, shrinkage: float) -> np.ndarray:
    """The weights (from, to): each item's column has its neighbours alone."""
    x = dense(train)
    counts = x.sum(0)
    weights = np.zeros((train.num_items, train.num_items))
    for item in range(train.num_items):
        ranked = []
        for other in range(train.num_items):
            common = (x[:, item] * x[:, other]).sum()
            if other != item and common:
                ranked.append((-common / (np.sqrt(counts[item] * counts[other]) + shrinkage), other))
        for similarity, other in sorted(ranked)[:num_neighbours]:
            weights[other, item] = -similarity
    return weights


def fitted(train: Interactions, num_neighbours: int, shrinkage: float = 0.0) -> ItemKNN:
    model = ItemKNN(num_neighbours, shrinkage)
    model.bind(train)
    return model


def weights(model: ItemKNN) -> np.ndarray:
    """The neighbours as a table: each item scored for who likes one item alone."""
    items = torch.arange(model.num_items)
    return model.score_histories(torch.arange(model.num_items + 1), items).numpy()


@pytest.mark.parametrize("num_neighbours", [1, 3, 1000])
@pytest.mark.parametrize("shrinkage", [0.0, 2.5])
def test_equals_the_written_out_version(num_neighbours: int, shrinkage: float) -> None:
    expected = naive(TRAIN, num_neighbours, shrinkage)
    model = fitted(TRAIN, num_neighbours, shrinkage)
    np.testing.assert_allclose(weights(model), expected, rtol=1e-6)
    scores = model.score_all(torch.arange(TRAIN.num_users))
    np.testing.assert_allclose(scores, dense(TRAIN) @ expected, rtol=1e-5)


def test_a_case_by_hand() -> None:
    """Users {a, b}, {a, b, c}, {c, d}: cos(a, b) = 1, cos(a, c) = cos(b, c) = 1/2, cos(c, d) = 1 / sqrt 2."""
    users, items = np.array([0, 0, 1, 1, 1, 2, 2]), np.array([0, 1, 0, 1, 2, 2, 3])
    train = Interactions(users, items, np.array(list("uvw")), np.array(list("abcd")))
    root = 0.5**0.5
    expected = [[0, 1, 0, 0], [1, 0, 0, 0], [0, 0, 0, root], [0, 0, root, 0]]
    np.testing.assert_allclose(weights(fitted(train, 1)), expected, rtol=1e-6)
    np.testing.assert_allclose(fitted(train, 1).score_all(torch.tensor([1, 2])), [[1, 1, 0, root], [0, 0, root, root]])


def test_of_equally_similar_items_those_with_the_lower_indices_are_nearer() -> None:
    users = np.repeat(np.arange(3), 6)
    train = Interactions(users, np.tile(np.arange(6), 3), np.arange(3).astype(str), np.arange(6).astype(str))
    assert [np.flatnonzero(column).tolist() for column in weights(fitted(train, 2)).T] == [
        [1, 2], [0, 2], [0, 1], [0, 1], [0, 1], [0, 1],
    ]  # fmt: skip


def test_the_size_of_the_blocks_does_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = fitted(TRAIN, 3)
    monkeypatch.setattr(item_knn, "_PAIRS", 10)
    parts = fitted(TRAIN, 3)
    for name, tensor in whole.state_dict().items():
        assert torch.equal(parts.state_dict()[name], tensor), name


def test_items_alone_have_no_neighbours_and_strangers_get_sums() -> None:
    users, items = np.array([0, 0, 1]), np.array([1, 2, 4])
    model = fitted(Interactions(users, items, np.array(["u", "v"]), np.arange(6).astype(str)), 3)
    scores = model.score_histories(torch.tensor([0, 0, 1, 4]), torch.tensor([4, 1, 2, 0]))
    assert scores.tolist() == [[0] * 6, [0] * 6, [0, 1, 1, 0, 0, 0]]


def test_no_table_of_items_by_items_is_ever_built() -> None:
    ids = np.arange(20).astype(str), np.arange(3000).astype(str)
    users, items = np.divmod(np.arange(20 * 150), 150)
    train = Interactions(users, (items + 149 * users) % 3000, *ids)
    with Largest() as seen:
        model = fitted(train, 10)
        model.score_all(torch.arange(5))
    assert 0 < seen.size <= 1 << 19  # 20 users have 150 * 150 pairs each
    assert model.num_bytes() < 3000 * 12 * 8 + 3000 * 8


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("neighbours", torch.tensor([[7] * 9]).flatten().int()),
        ("neighbours", torch.empty(0, dtype=torch.int32)),
        ("similarities", torch.ones(3)),
        ("neighbour_offsets", torch.tensor([0, 5])),
    ],
)
def test_neighbours_of_other_items_are_refused(name: str, value: torch.Tensor) -> None:
    model = fitted(generate(5, 6), 2)
    model.require_sound()
    state = model.state_dict() | {name: value}
    model.load_state_dict(state)
    with pytest.raises(ValueError, match="its neighbours are not those of its items"):
        model.require_sound()


@pytest.mark.parametrize("options", [{"num_neighbours": 0}, {"shrinkage": -1.0}, {"shrinkage": float("inf")}])
def test_options_that_mean_nothing(options: dict) -> None:
    with pytest.raises(InputError, match=f"ItemKNN: {next(iter(options))} is .*; it must be"):
        ItemKNN(**options)
