import numpy as np
import pytest
import torch
from torch import Tensor

from kdrec.data.interactions import Interactions
from kdrec.models import history
from kdrec.models.history import HistoryDotProductRecommender

# user 0: items 2, 0, 3 in the order of time; user 1: none; user 2: items 1 and 0, at once
LOG = Interactions(
    np.array([2, 0, 0, 2, 0]),
    np.array([1, 0, 3, 0, 2]),
    np.array(list("abc")),
    np.array(list("wxyz")),
    np.array([7, 5, 9, 7, 1]),
)


class Last(HistoryDotProductRecommender):
    """The vector of a user is (last item, number of items); that of an item (1, itself)."""

    def history_vectors(self, offsets: Tensor, items: Tensor) -> Tensor:
        self.read = [*getattr(self, "read", []), offsets.diff().tolist()]
        ends = torch.cat((items, items.new_zeros(1)))[offsets[1:] - 1]
        return torch.stack((ends.masked_fill(offsets.diff() == 0, -1), offsets.diff()), dim=1).float()

    def item_vectors(self, items: Tensor) -> Tensor:
        return torch.stack((torch.ones_like(items), items), dim=1).float()

    @property
    def device(self) -> torch.device:
        return self.history_items.device


@pytest.fixture
def model() -> Last:
    model = Last()
    model.bind(LOG)
    return model


def test_histories_in_the_order_of_time(model: Last) -> None:
    offsets, items = model.histories(torch.tensor([0, 1, 2, 0]))
    assert offsets.tolist() == [0, 3, 3, 5, 8]
    assert items.tolist() == [2, 0, 3, 0, 1, 2, 0, 3]


def test_scores_by_hand(model: Last) -> None:
    # user 0: last 3, 3 items: 3 + 3 i; user 1: -1; user 2: last 1, 2 items: 1 + 2 i
    expected = torch.tensor([[3.0, 6, 9, 12], [-1, -1, -1, -1], [1, 3, 5, 7]])
    assert torch.equal(model.score_all(torch.arange(3)), expected)
    assert torch.equal(model.score_histories(*model.histories(torch.arange(3))), expected)
    assert model.score(torch.tensor([2, 0]), torch.tensor([[3, 0], [1, 1]])).tolist() == [[7, 1], [6, 6]]
    catalogue = 2 * model.encode_catalogue()
    assert torch.equal(model.score_histories(*model.histories(torch.arange(3)), catalogue), 2 * expected)


def test_each_history_is_read_once(model: Last) -> None:
    assert model.user_vectors(torch.tensor([2, 0, 2, 2])).tolist() == [[1, 2], [3, 3], [1, 2], [1, 2]]
    assert model.read == [[3, 2]]


def test_in_blocks(model: Last, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(history, "_BLOCK", 2)
    assert model.user_vectors(torch.tensor([2, 1, 0])).tolist() == [[1, 2], [-1, 0], [3, 3]]
    assert model.read == [[3, 0], [2]]


def test_no_users(model: Last) -> None:
    assert model.user_vectors(torch.empty(0, dtype=torch.int64)).shape == (0, 2)
