import pytest
import torch
from torch import Tensor, nn

from kdrec.errors import InputError
from kdrec.models import perceptron
from kdrec.models.ncf import NCF


def build(num_users: int = 5, num_items: int = 7, **arguments: float) -> NCF:
    torch.manual_seed(0)
    model = NCF(**({"embedding_dim": 8, "num_layers": 3} | arguments))  # type: ignore[arg-type]
    model.build(num_users, num_items)
    for layer in (model.first, *model.rest):
        if isinstance(layer, nn.Linear):
            nn.init.normal_(layer.bias)  # zero biases would hide one that is left out or added twice
    return model.double()


def plain(model: NCF, users: Tensor, items: Tensor) -> Tensor:
    """Concatenate, one pair at a time, and multiply layer by layer."""
    linears = [model.first, *(layer for layer in model.rest if isinstance(layer, nn.Linear))]
    scores = []
    for user, item in zip(users.tolist(), items.tolist(), strict=True):
        hidden = torch.cat((model.users.weight[user], model.items.weight[item]))
        for number, linear in enumerate(linears):
            hidden = linear.weight @ hidden + linear.bias
            if number < len(linears) - 1:
                hidden = hidden.clamp(min=0)
        scores.append(hidden[0])
    return torch.stack(scores)


def gradients(model: NCF, scores: Tensor, weights: Tensor) -> list[Tensor]:
    return list(torch.autograd.grad((scores * weights).sum(), list(model.parameters())))


def test_by_hand() -> None:
    model = NCF(embedding_dim=2, num_layers=2)
    model.build(1, 2)
    with torch.no_grad():
        model.users.weight.copy_(torch.tensor([[1.0, 2.0]]))
        model.items.weight.copy_(torch.tensor([[3.0, -1.0], [-2.0, 0.5]]))
        model.first.weight.copy_(torch.tensor([[1.0, 0.0, 1.0, 0.0], [0.0, 1.0, 0.0, 2.0]]))
        model.first.bias.copy_(torch.tensor([0.5, -0.5]))
        model.rest[2].weight.copy_(torch.tensor([[2.0, 3.0]]))
        model.rest[2].bias.fill_(1.0)
        model.rest[5].weight.fill_(-2.0)
        model.rest[5].bias.fill_(4.0)
    model.eval()
    # item 0: first (1 + 3 + .5, 2 - 2 - .5) = (4.5, -.5) -> (4.5, 0); 2 * 4.5 + 1 = 10; -2 * 10 + 4 = -16
    # item 1: first (1 - 2 + .5, 2 + 1 - .5) = (-.5, 2.5) -> (0, 2.5); 3 * 2.5 + 1 = 8.5; -2 * 8.5 + 4 = -13
    assert model.score(torch.tensor([0, 0]), torch.tensor([0, 1])).tolist() == [-16.0, -13.0]
    assert model.score_all(torch.tensor([0])).tolist() == [[-16.0, -13.0]]


@pytest.mark.parametrize("num_layers", [1, 2, 4])
def test_factored_equals_plain(num_layers: int) -> None:
    model = build(num_layers=num_layers, min_width=3).eval()
    users, items = torch.cartesian_prod(torch.arange(5), torch.arange(7)).T
    scores, expected = model.score(users, items), plain(model, users, items)
    torch.testing.assert_close(scores, expected, rtol=1e-12, atol=1e-12)
    weights = torch.randn(35, dtype=torch.float64)
    for ours, theirs in zip(gradients(model, scores, weights), gradients(model, expected, weights), strict=True):
        assert theirs.abs().max() > 0
        torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("length", [2, 3, 4, 9])
def test_lists_equal_plain(length: int) -> None:
    """With 2 users, lists of 4 and 9 of 7 items go by way of the whole catalogue, and shorter ones do not."""
    model = build().eval()
    users = torch.tensor([4, 1])
    items = torch.randint(7, (2, length), generator=torch.Generator().manual_seed(1))
    scores = model.score(users, items)
    expected = plain(model, users.repeat_interleave(length), items.flatten()).view(2, length)
    torch.testing.assert_close(scores, expected, rtol=1e-12, atol=1e-12)
    weights = torch.randn(2, length, dtype=torch.float64)
    for ours, theirs in zip(gradients(model, scores, weights), gradients(model, expected, weights), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)


def test_shortcut_reads_the_catalogue_once(monkeypatch: pytest.MonkeyPatch) -> None:
    model, calls = build().eval(), []
    half = model._item_half
    monkeypatch.setattr(model, "_item_half", lambda vectors: calls.append(vectors.shape) or half(vectors))
    model.score(torch.arange(5), torch.zeros(5, 1, dtype=torch.int64))
    model.score(torch.arange(5), torch.zeros(5, 2, dtype=torch.int64))  # 10 of 7 items
    assert calls == [(5, 1, 8), (7, 8)]


@pytest.mark.parametrize("block_bytes", [1, 7 * 8 * 8 * 2, 1 << 25], ids=["1 user", "2 users", "all users"])
def test_catalogue_equals_pairs(block_bytes: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(perceptron, "_CPU_BLOCK_BYTES", block_bytes)
    model = build().eval()
    users = torch.tensor([3, 0, 0, 4, 2])
    expected = plain(model, users.repeat_interleave(7), torch.arange(7).repeat(5)).view(5, 7)
    torch.testing.assert_close(model.score_all(users), expected, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(model.score_all(users, model.encode_catalogue()), expected, rtol=1e-12, atol=1e-12)
    lists = torch.arange(7).expand(5, 7)
    torch.testing.assert_close(model.score(users, lists), expected, rtol=1e-12, atol=1e-12)


def test_encoded_catalogue() -> None:
    model = build()
    expected = model.items.weight @ model.first.weight[:, 8:].T  # the columns that meet the item; no bias, no ReLU
    torch.testing.assert_close(model.encode_catalogue(), expected)
    assert model.encode_catalogue().shape == (7, 8)


def test_vectors_are_the_embeddings() -> None:
    model = build()
    assert torch.equal(model.user_vectors(torch.tensor([4, 4, 0])), model.users.weight[[4, 4, 0]])
    assert torch.equal(model.item_vectors(torch.tensor([6, 1])), model.items.weight[[6, 1]])


@pytest.mark.parametrize(
    ("arguments", "widths"),
    [
        ({"embedding_dim": 16, "num_layers": 3}, [(32, 16), (16, 8), (8, 4), (4, 1)]),
        ({"embedding_dim": 16, "num_layers": 1}, [(32, 16), (16, 1)]),
        ({"embedding_dim": 10, "num_layers": 4}, [(20, 10), (10, 5), (5, 2), (2, 1), (1, 1)]),  # halves rounded down
        ({"embedding_dim": 2, "num_layers": 4}, [(4, 2), (2, 1), (1, 1), (1, 1), (1, 1)]),
        ({"embedding_dim": 16, "num_layers": 3, "min_width": 6}, [(32, 16), (16, 8), (8, 6), (6, 1)]),
    ],
)
def test_widths(arguments: dict[str, int], widths: list[tuple[int, int]]) -> None:
    model = build(**arguments)
    linears = [model.first, *(layer for layer in model.rest if isinstance(layer, nn.Linear))]
    assert [(linear.in_features, linear.out_features) for linear in linears] == widths
    tables = (5 + 7) * arguments["embedding_dim"]
    assert model.num_parameters() == tables + sum(wide * narrow + narrow for wide, narrow in widths)


def test_dropout_only_in_training() -> None:
    model = build(dropout=0.5)
    users, items = torch.arange(5), torch.arange(5)
    assert not torch.equal(model.train().score(users, items), model.score(users, items))
    assert torch.equal(model.eval().score(users, items), model.score(users, items))
    torch.testing.assert_close(model.score(users, items), plain(model, users, items))


def test_dropout_keeps_the_mean() -> None:
    """With one hidden layer the logit is linear in what dropout scales, so its mean over draws is the plain score."""
    model = build(num_layers=1, dropout=0.3)
    users, items = torch.zeros(20_000, dtype=torch.int64), torch.full((20_000,), 3)
    scores = model.train().score(users, items)
    expected = model.eval().score(users[:1], items[:1])
    assert scores.std() > 0
    assert (scores.mean() - expected).abs() < 5 * scores.std() / 20_000**0.5


def test_no_dropout() -> None:
    model = build(dropout=0.0).train()
    users, items = torch.arange(5), torch.arange(5)
    torch.testing.assert_close(model.score(users, items), plain(model, users, items))


@pytest.mark.parametrize("shape", [(0,), (0, 3), (2, 0)])
def test_no_pairs(shape: tuple[int, ...]) -> None:
    users = torch.zeros(shape[0], dtype=torch.int64)
    assert build().score(users, torch.zeros(shape, dtype=torch.int64)).shape == shape


def test_no_users() -> None:
    assert build().score_all(torch.zeros(0, dtype=torch.int64)).shape == (0, 7)


def test_one_user_and_one_item() -> None:
    model = build(1, 1, embedding_dim=1, num_layers=1).eval()
    users = items = torch.zeros(1, dtype=torch.int64)
    torch.testing.assert_close(model.score_all(users)[0], plain(model, users, items))


def test_initial_weights() -> None:
    torch.manual_seed(0)
    model = NCF(embedding_dim=64, num_layers=2, init_std=0.3)
    model.build(1000, 1000)
    assert abs(model.users.weight.std().item() - 0.3) < 5 * 0.3 / (2 * 64_000) ** 0.5
    assert abs(model.items.weight.std().item() - 0.3) < 5 * 0.3 / (2 * 64_000) ** 0.5
    # He: variance 2 / fan-in, 128 of 64 * 128 weights
    assert abs(model.first.weight.std().item() - (2 / 128) ** 0.5) < 5 * (2 / 128) ** 0.5 / (2 * 64 * 128) ** 0.5
    assert model.first.bias.abs().max() == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"embedding_dim": 0}, "embedding_dim 0"),
        ({"num_layers": 0}, "num_layers 0"),
        ({"min_width": 0}, "min_width 0"),
        ({"dropout": 1.0}, "dropout is 1.0"),
        ({"dropout": -0.1}, "dropout is -0.1"),
        ({"dropout": float("nan")}, "dropout is nan"),
    ],
)
def test_bad_arguments(arguments: dict[str, float], message: str) -> None:
    with pytest.raises(InputError, match=message):
        NCF(**arguments)  # type: ignore[arg-type]
