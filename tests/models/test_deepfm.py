import itertools

import pytest
import torch
from torch import Tensor

from kdrec.models import perceptron
from kdrec.models.deepfm import DeepFM
from tests.models.clicking import bound, deep, field_vectors, linear, require_equal


def plain(model: DeepFM, user: int, item: int) -> Tensor:
    """Every pair of fields, one after the other."""
    vectors = [*field_vectors(model, "user", user), *field_vectors(model, "item", item)]
    pairs = sum(one @ other for one, other in itertools.combinations(vectors, 2))
    return linear(model, user, item) + pairs + deep(model, user, item)


@pytest.mark.parametrize("hidden_dims", [(5,), (6, 4, 3)])
def test_factored_equals_every_pair_of_fields(hidden_dims: tuple[int, ...]) -> None:
    model = bound(DeepFM(3, hidden_dims))
    require_equal(model, lambda user, item: plain(model, user, item))


def test_blocks_of_users_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    model = bound(DeepFM(3))
    whole = model.score_all(torch.arange(5))
    monkeypatch.setattr(perceptron, "_CPU_BLOCK_BYTES", 1)
    torch.testing.assert_close(model.score_all(torch.arange(5)), whole)


def test_by_hand() -> None:
    model = bound(DeepFM(1, (1,)))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
        model.rest[2].bias.fill_(0.5)
        model.weights["user"].weight[2] = 0.25
        model.weights["item_features"].weight[:, 0] = torch.tensor([1.0, 3.0])
        model.embeddings["user"].weight[2] = 2.0
        model.embeddings["user_features"].weight[:, 0] = torch.tensor([9.0, 3.0, 9.0, -1.0])
        model.embeddings["item"].weight[0] = 4.0
        model.embeddings["item_features"].weight[:, 0] = torch.tensor([1.0, 2.0])
    # user 2 has the fields 2, poet 3, 70 -1; item 0 has 4, genres (1 + 2) / 2 = 1.5
    # pairs: 2*3 - 2*1 + 2*4 + 2*1.5 - 3*1 + 3*4 + 3*1.5 - 1*4 - 1*1.5 + 4*1.5 = 29
    # linear: .25 + (1 + 3) / 2 = 2.25; deep: bias .5
    assert model.score(torch.tensor([2]), torch.tensor([0])).item() == 29 + 2.25 + 0.5
