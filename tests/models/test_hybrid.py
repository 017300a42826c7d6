from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from kdrec.errors import InputError
from kdrec.models import checkpoint
from kdrec.models.hybrid import Hybrid
from tests.generated import content_of
from tests.models.clicking import ITEM_FIELDS, TRAIN

COLD = TRAIN.subset(TRAIN.items != 3)  # item 3, a war film, is cold


def bound(**arguments: float) -> Hybrid:
    torch.manual_seed(0)
    model = Hybrid(**({"embedding_dim": 3} | arguments))  # type: ignore[arg-type]
    model.bind(COLD)
    for parameter in model.parameters():
        nn.init.normal_(parameter)
    return model.double().eval()


def plain(model: Hybrid, item: int) -> Tensor:
    """Drama and war are borne by 4 of 7 items each, so both weigh the same, and two of them 1 / sqrt 2 each."""
    own = model.items.weight[item] * (item != 3)
    features = ITEM_FIELDS[item][0]
    return own + sum(model.projection.weight[feature] / len(features) ** 0.5 for feature in features)


@pytest.mark.parametrize("repeats", [1, 3])  # the second goes by way of the whole catalogue
def test_vectors_equal_the_plain_form(repeats: int) -> None:
    model, items = bound(), torch.arange(7).repeat(repeats)
    vectors, expected = model.item_vectors(items), torch.stack([plain(model, item) for item in items.tolist()])
    torch.testing.assert_close(vectors, expected, atol=1e-6, rtol=1e-6)  # the weights were rounded to float32
    weights = torch.randn(expected.shape, dtype=torch.float64)
    tables = [model.items.weight, model.projection.weight]
    for ours, theirs in zip(
        torch.autograd.grad((vectors * weights).sum(), tables),
        torch.autograd.grad((expected * weights).sum(), tables),
        strict=True,
    ):
        assert theirs.abs().max() > 0
        torch.testing.assert_close(ours, theirs, atol=1e-6, rtol=1e-6)


def test_the_embedding_of_a_cold_item_is_of_no_concern() -> None:
    model = bound()
    before = model.score_all(torch.arange(5))
    with torch.no_grad():
        model.items.weight[3] += 100
    assert torch.equal(model.score_all(torch.arange(5)), before)
    model.score_all(torch.arange(5)).square().sum().backward()
    assert model.items.weight.grad[3].abs().max() == 0
    assert model.items.weight.grad[2].abs().max() > 0


def test_training_takes_some_items_for_cold() -> None:
    model = bound(cold_share=0.25).train()
    items = torch.zeros(7, dtype=torch.int64)
    described = plain(model, 0) - model.items.weight[0]
    taken = [(model.item_vectors(items) - described).abs().amax(1) < 1e-6 for _ in range(2000)]
    share = torch.cat(taken).double().mean().item()
    assert abs(share - 0.25) < 5 * (0.25 * 0.75 / 14_000) ** 0.5
    model.eval()
    assert torch.equal(model.item_vectors(items), model.item_vectors(items))


def test_a_file_says_which_items_are_cold(tmp_path) -> None:  # type: ignore[no-untyped-def]
    model = bound().float()
    torch.save(content_of(model, COLD), tmp_path / "model.ckpt")
    again = checkpoint.restore(tmp_path / "model.ckpt")
    assert torch.equal(again.score_all(torch.arange(5)), model.score_all(torch.arange(5)))
    content = content_of(model, COLD)
    content["state_dict"][f"{checkpoint.PREFIX}item_weights"] = torch.zeros(3)
    torch.save(content, tmp_path / "model.ckpt")
    with pytest.raises(InputError, match="its weights of features are not those of its items"):
        checkpoint.restore(tmp_path / "model.ckpt")


def test_features_of_users_do_not_help() -> None:
    with pytest.raises(InputError, match="Hybrid reads features of items and this data has none"):
        Hybrid().bind(replace(TRAIN, item_features=None))


@pytest.mark.parametrize(
    ("arguments", "message"), [({"embedding_dim": 0}, "embedding_dim is 0"), ({"cold_share": 1.0}, "cold_share is 1.0")]
)
def test_bad_arguments(arguments: dict[str, float], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Hybrid(**arguments)  # type: ignore[arg-type]
