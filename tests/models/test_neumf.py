from typing import Any

import pytest
import torch
from torch import Tensor, nn

from kdrec.errors import InputError
from kdrec.models import perceptron
from kdrec.models.neumf import NeuMF


def build(num_users: int = 5, num_items: int = 7, **options: Any) -> NeuMF:
    torch.manual_seed(0)
    model = NeuMF(**({"embedding_dim": 8, "num_layers": 3, "init_std": 0.5} | options))
    model.build(num_users, num_items)
    for layer in (model.first, *model.rest):
        if isinstance(layer, nn.Linear):
            nn.init.normal_(layer.bias)  # zero biases would hide one that is left out or added twice
    return model.double()


def plain(model: NeuMF, users: Tensor, items: Tensor) -> Tensor:
    """Eq. 12 of the paper one pair at a time: both branches are concatenated, and one layer gives the logit."""
    linears = [model.first, *(layer for layer in model.rest if isinstance(layer, nn.Linear))]
    logit = torch.cat((model.gmf.weight[0], linears[-1].weight[0]))
    scores = []
    for user, item in zip(users.tolist(), items.tolist(), strict=True):
        hidden = torch.cat((model.users.weight[user], model.items.weight[item]))
        for linear in linears[:-1]:
            hidden = (linear.weight @ hidden + linear.bias).clamp(min=0)
        product = model.gmf_users.weight[user] * model.gmf_items.weight[item]
        scores.append(logit @ torch.cat((product, hidden)) + linears[-1].bias[0])
    return torch.stack(scores)


def test_by_hand() -> None:
    model = NeuMF(embedding_dim=2, num_layers=1)
    model.build(1, 2)
    with torch.no_grad():
        model.users.weight.copy_(torch.tensor([[1.0, 2.0]]))
        model.items.weight.copy_(torch.tensor([[3.0, -1.0], [-2.0, 0.5]]))
        model.first.weight.copy_(torch.tensor([[1.0, 0.0, 1.0, 0.0], [0.0, 1.0, 0.0, 2.0]]))
        model.first.bias.copy_(torch.tensor([0.5, -0.5]))
        model.rest[2].weight.copy_(torch.tensor([[2.0, 3.0]]))
        model.rest[2].bias.fill_(1.0)
        model.gmf_users.weight.copy_(torch.tensor([[2.0, -1.0]]))
        model.gmf_items.weight.copy_(torch.tensor([[1.0, 3.0], [0.0, 4.0]]))
        model.gmf.weight.copy_(torch.tensor([[10.0, 100.0]]))
    model.eval()
    # perceptron as in test_ncf: item 0 (4.5, 0) -> 2 * 4.5 + 1 = 10, item 1 (0, 2.5) -> 3 * 2.5 + 1 = 8.5
    # product: item 0 (2, -3) -> 20 - 300 = -280, item 1 (0, -4) -> -400
    assert model.score(torch.tensor([0, 0]), torch.tensor([0, 1])).tolist() == [-270.0, -391.5]
    assert model.score_all(torch.tensor([0])).tolist() == [[-270.0, -391.5]]
    assert model.user_vectors(torch.tensor([0])).tolist() == [[2.0, -1.0, 1.0, 2.0]]
    assert model.item_vectors(torch.tensor([1])).tolist() == [[0.0, 4.0, -2.0, 0.5]]


@pytest.mark.parametrize("num_layers", [1, 2, 4])
def test_values_and_gradients_equal_plain(num_layers: int) -> None:
    model = build(num_layers=num_layers, min_width=3).eval()
    users, items = torch.cartesian_prod(torch.arange(5), torch.arange(7)).T
    expected = plain(model, users, items)
    weights = torch.randn(35, dtype=torch.float64)
    lists = torch.arange(7).expand(5, 7)  # 35 of 7 items go by way of the whole catalogue
    for scores in (
        model.score(users, items),
        model.score(torch.arange(5), lists).flatten(),
        model.score_all(torch.arange(5)).flatten(),
        model.score_all(torch.arange(5), model.encode_catalogue()).flatten(),
    ):
        torch.testing.assert_close(scores, expected, rtol=1e-12, atol=1e-12)
        gradients = [
            torch.autograd.grad((values * weights).sum(), list(model.parameters()), retain_graph=True)
            for values in (scores, expected)
        ]
        for ours, theirs in zip(*gradients, strict=True):
            assert theirs.abs().max() > 0
            torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("block_bytes", [1, 7 * 8 * 8 * 2, 1 << 25], ids=["1 user", "2 users", "all users"])
def test_blocks_of_users(block_bytes: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(perceptron, "_CPU_BLOCK_BYTES", block_bytes)
    model, users = build().eval(), torch.tensor([3, 0, 0, 4, 2])
    expected = plain(model, users.repeat_interleave(7), torch.arange(7).repeat(5)).view(5, 7)
    torch.testing.assert_close(model.score_all(users, model.encode_catalogue()), expected, rtol=1e-12, atol=1e-12)


def test_the_item_half_is_computed_once_an_evaluation(monkeypatch: pytest.MonkeyPatch) -> None:
    model, calls = build().eval(), []
    half = model._item_half
    monkeypatch.setattr(model, "_item_half", lambda vectors: calls.append(len(vectors)) or half(vectors))
    catalogue = model.encode_catalogue()
    assert catalogue.shape == (7, 8 + 8)
    for user in range(5):
        model.score_all(torch.tensor([user]), catalogue)
    assert calls == [7]


def test_dropout_only_in_training() -> None:
    model = build(dropout=0.5)
    users, items = torch.arange(5), torch.arange(5)
    assert not torch.equal(model.train().score(users, items), model.score(users, items))
    torch.testing.assert_close(model.eval().score(users, items), plain(model, users, items))


@pytest.mark.parametrize("shape", [(0,), (0, 3), (2, 0)])
def test_no_pairs(shape: tuple[int, ...]) -> None:
    users = torch.zeros(shape[0], dtype=torch.int64)
    assert build().score(users, torch.zeros(shape, dtype=torch.int64)).shape == shape


def test_size() -> None:
    model = build()
    perceptron = (16 * 8 + 8) + (8 * 4 + 4) + (4 * 2 + 2) + (2 + 1)
    assert model.num_parameters() == 2 * (5 + 7) * 8 + perceptron + 8


def test_bad_arguments() -> None:
    with pytest.raises(InputError, match="NeuMF: embedding_dim 0"):
        NeuMF(embedding_dim=0)
