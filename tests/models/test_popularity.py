import numpy as np
import pytest
import torch

from kdrec.data.interactions import Interactions
from kdrec.models.popularity import Popularity


@pytest.fixture
def train() -> Interactions:
    users, items = np.array([0, 0, 1, 1, 2, 2]), np.array([3, 1, 3, 0, 3, 1])
    return Interactions(users, items, np.array(list("abc")), np.array(list("wxyz")))


def test_scores_are_counts(train: Interactions) -> None:
    model = Popularity()
    model.bind(train)
    assert model.score_all(torch.tensor([2, 0])).tolist() == [[1.0, 2.0, 0.0, 3.0]] * 2
    assert model.score(torch.tensor([0, 1]), torch.tensor([3, 2])).tolist() == [3.0, 0.0]
    assert model.score(torch.tensor([0, 1]), torch.tensor([[3, 2, 1], [0, 0, 3]])).tolist() == [[3, 0, 2], [1, 1, 3]]
    assert model.encode_catalogue().tolist() == [[1.0], [2.0], [0.0], [3.0]]
    assert model.score_all(torch.tensor([1]), model.encode_catalogue()).tolist() == [[1.0, 2.0, 0.0, 3.0]]


def test_vectors(train: Interactions) -> None:
    model = Popularity()
    model.bind(train)
    assert model.user_vectors(torch.tensor([0, 2])).tolist() == [[1.0], [1.0]]
    assert model.item_vectors(torch.tensor([1, 1])).tolist() == [[2.0], [2.0]]


def test_counts_follow_the_weights(train: Interactions) -> None:
    model, copy = Popularity(), Popularity()
    model.bind(train)
    copy.build(3, 4)
    assert copy.score_all(torch.tensor([0])).tolist() == [[0.0] * 4]
    copy.load_state_dict(model.state_dict())
    assert torch.equal(copy.score_all(torch.arange(3)), model.score_all(torch.arange(3)))


def test_nothing_to_train(train: Interactions) -> None:
    model = Popularity()
    model.bind(train)
    assert model.num_parameters() == 0
    assert (model.num_users, model.num_items) == (3, 4)
    assert model.device == torch.device("cpu")


def test_no_pairs(train: Interactions) -> None:
    model = Popularity()
    model.bind(train)
    assert model.score(torch.zeros(0, dtype=torch.int64), torch.zeros(0, 2, dtype=torch.int64)).shape == (0, 2)
