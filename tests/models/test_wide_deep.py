import itertools
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from kdrec.models.wide_deep import WideDeep
from tests.models.clicking import ITEM_FIELDS, TRAIN, USER_FIELDS, bound, deep, linear, require_equal


def plain(model: WideDeep, user: int, item: int) -> Tensor:
    """Every feature of the user crossed with every feature of the item, each with its share of its field."""
    total = linear(model, user, item) + deep(model, user, item)
    for ours, theirs in itertools.product(USER_FIELDS[user], ITEM_FIELDS[item]):
        for one, other in itertools.product(ours, theirs):
            total = total + model.weights["crosses"].weight[other, one] / (len(ours) * len(theirs))
    return total


@pytest.mark.parametrize("hidden_dims", [(5,), (6, 4, 3)])
def test_factored_equals_every_cross(hidden_dims: tuple[int, ...]) -> None:
    model = bound(WideDeep(3, hidden_dims))
    require_equal(model, lambda user, item: plain(model, user, item))


def test_by_hand() -> None:
    model = bound(WideDeep(1, (1,)))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
        model.weights["user"].weight[2] = 0.25
        model.weights["user_features"].weight[3] = 0.5  # who is 70
        model.weights["item_features"].weight[:, 0] = torch.tensor([1.0, 3.0])
        model.weights["crosses"].weight.copy_(torch.tensor([[7.0, 8.0, 0.0, -2.0], [7.0, 4.0, 0.0, 6.0]]))
    # user 2 is a poet of 70, item 0 is half a drama and half a war film:
    # .25 + .5 + (1 + 3) / 2 + (8 - 2) / 2 + (4 + 6) / 2
    assert model.score(torch.tensor([2]), torch.tensor([0])).item() == 0.75 + 2 + 3 + 5


def test_features_of_one_side_have_no_crosses() -> None:
    model = bound(WideDeep(3), replace(TRAIN, user_features=None))
    assert "crosses" not in model.weights
    torch.testing.assert_close(
        model.score(torch.arange(5), torch.arange(7).expand(5, 7)), model.score_all(torch.arange(5))
    )
