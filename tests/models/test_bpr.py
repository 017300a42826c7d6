import pytest
import torch

from kdrec.data.interactions import Interactions
from kdrec.errors import InputError
from kdrec.models.bpr import BPR

USERS = torch.tensor([[1.0, 2.0], [0.0, -1.0]])
ITEMS = torch.tensor([[3.0, 4.0], [5.0, -6.0], [0.5, 0.25]])
# <(1, 2), (3, 4)> = 11, <(1, 2), (5, -6)> = -7, <(1, 2), (.5, .25)> = 1; <(0, -1), .> = -4, 6, -.25
SCORES = torch.tensor([[11.0, -7.0, 1.0], [-4.0, 6.0, -0.25]])


@pytest.fixture
def model() -> BPR:
    model = BPR(embedding_dim=2)
    model.build(2, 3)
    model.users.weight.data.copy_(USERS)
    model.items.weight.data.copy_(ITEMS)
    return model


def test_pairs_by_hand(model: BPR) -> None:
    assert model.score(torch.tensor([0, 1, 1]), torch.tensor([1, 1, 2])).tolist() == [-7.0, 6.0, -0.25]


def test_lists_by_hand(model: BPR) -> None:
    scores = model.score(torch.tensor([1, 0]), torch.tensor([[0, 2, 1, 0], [2, 2, 0, 1]]))
    assert scores.tolist() == [[-4.0, -0.25, 6.0, -4.0], [1.0, 1.0, 11.0, -7.0]]


def test_catalogue_by_hand(model: BPR) -> None:
    users = torch.tensor([1, 0, 1])
    assert torch.equal(model.score_all(users), SCORES[users])
    assert torch.equal(model.score_all(users, model.encode_catalogue()), SCORES[users])
    assert torch.equal(model.encode_catalogue(), ITEMS)


def test_catalogue_given_is_used(model: BPR) -> None:
    assert torch.equal(model.score_all(torch.tensor([0]), 2 * model.encode_catalogue()), 2 * SCORES[:1])


def test_vectors(model: BPR) -> None:
    assert torch.equal(model.user_vectors(torch.tensor([1, 0, 1])), USERS[[1, 0, 1]])
    assert torch.equal(model.item_vectors(torch.tensor([2, 2])), ITEMS[[2, 2]])


def test_gradient_by_hand(model: BPR) -> None:
    model.score(torch.tensor([0, 0]), torch.tensor([0, 1])).sum().backward()
    assert model.users.weight.grad is not None
    assert model.users.weight.grad.tolist() == [[8.0, -2.0], [0.0, 0.0]]  # (3, 4) + (5, -6)
    assert model.items.weight.grad is not None
    assert model.items.weight.grad.tolist() == [[1.0, 2.0], [1.0, 2.0], [0.0, 0.0]]


@pytest.mark.parametrize("shape", [(0,), (0, 3), (2, 0)])
def test_no_pairs(model: BPR, shape: tuple[int, ...]) -> None:
    """A rank of a distributed run can get an empty part of a batch."""
    users = torch.zeros(shape[0], dtype=torch.int64)
    assert model.score(users, torch.zeros(shape, dtype=torch.int64)).shape == shape


def test_no_users(model: BPR) -> None:
    assert model.score_all(torch.zeros(0, dtype=torch.int64)).shape == (0, 3)


def test_sizes(interactions: Interactions) -> None:
    model = BPR(embedding_dim=5)
    assert not model.is_built
    model.bind(interactions)
    assert model.is_built
    assert (model.num_users, model.num_items) == (30, 40)
    assert model.num_parameters() == (30 + 40) * 5
    assert model.score_all(torch.arange(30)).shape == (30, 40)


def test_initial_weights() -> None:
    torch.manual_seed(0)
    model = BPR(embedding_dim=50, init_std=0.02)
    model.build(1000, 1000)
    for table in (model.users, model.items):  # 50,000 draws: the standard deviation is known to .02 / sqrt(1e5)
        assert abs(table.weight.std().item() - 0.02) < 5 * 0.02 / 1e5**0.5
        assert abs(table.weight.mean().item()) < 5 * 0.02 / 5e4**0.5


@pytest.mark.parametrize("width", [0, -3])
def test_bad_width(width: int) -> None:
    with pytest.raises(InputError, match=f"embedding_dim is {width}; it must be at least 1"):
        BPR(embedding_dim=width)
