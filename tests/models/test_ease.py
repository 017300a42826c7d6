import numpy as np
import pytest
import torch
from torch import Tensor

from kdrec.data.interactions import Interactions
from kdrec.errors import InputError
from kdrec.models import ease
from kdrec.models.ease import EASE
from tests.generated import generate
from tests.memory import Largest

FEW_USERS, FEW_ITEMS = generate(num_users=12, num_items=40), generate(num_users=40, num_items=13)
both_forms = pytest.mark.parametrize("train", [FEW_USERS, FEW_ITEMS], ids=["few users", "few items"])


def dense(train: Interactions) -> Tensor:
    table = np.zeros((train.num_users, train.num_items))
    table[train.users, train.items] = 1
    return torch.from_numpy(table)


def naive(train: Interactions, regularization: float) -> Tensor:
    """The weights B, as in the paper."""
    x = dense(train)
    p = torch.linalg.inv(x.T @ x + regularization * torch.eye(train.num_items, dtype=torch.float64))
    b = p / -p.diagonal()
    return b.fill_diagonal_(0)


def fitted(train: Interactions, regularization: float) -> EASE:
    model = EASE(regularization)
    model.bind(train)
    return model


@both_forms
@pytest.mark.parametrize("regularization", [0.1, 3.0, 500.0])
def test_equals_the_inverse_of_the_paper(train: Interactions, regularization: float) -> None:
    expected = dense(train) @ naive(train, regularization)
    scores = fitted(train, regularization).score_all(torch.arange(train.num_users))
    largest = expected.abs().max().item()
    torch.testing.assert_close(scores.double(), expected, rtol=1e-4, atol=1e-5 * largest)


@both_forms
def test_strangers_get_what_the_paper_gives_them(train: Interactions) -> None:
    generator = torch.Generator().manual_seed(0)
    histories = [torch.randperm(train.num_items, generator=generator)[:length] for length in (5, 0, 1, 9)]
    liked = torch.zeros(4, train.num_items, dtype=torch.float64)
    for row, items in enumerate(histories):
        liked[row, items] = 1
    model = fitted(train, 3.0)
    scores = model.score_histories(torch.tensor([0, 5, 5, 6, 15]), torch.cat(histories), model.encode_catalogue())
    torch.testing.assert_close(scores.double(), liked @ naive(train, 3.0), rtol=1e-5, atol=1e-6)
    assert not scores[1].any()


@both_forms
def test_the_size_of_the_blocks_does_not_matter(train: Interactions, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = fitted(train, 3.0)
    monkeypatch.setattr(ease, "_ROWS", 5)
    monkeypatch.setattr(ease, "_PAIRS", 7)
    parts = fitted(train, 3.0)
    torch.testing.assert_close(parts.inverse, whole.inverse)
    torch.testing.assert_close(parts.diagonal, whole.diagonal)


def test_an_item_that_nobody_touched_gets_no_score() -> None:
    pairs, ids = (np.array([0, 0, 1]), np.array([0, 1, 1])), (np.array(["u", "v"]), np.array(["a", "b", "c", "d"]))
    scores = fitted(Interactions(*pairs, *ids), 1.0).score_all(torch.arange(2))
    assert not scores[:, 2:].any()
    assert scores[1, 0] > 0


def test_no_table_of_items_by_items_is_ever_built() -> None:
    ids = np.arange(20).astype(str), np.arange(3000).astype(str)
    users, items = np.divmod(np.arange(20 * 150), 150)
    train = Interactions(users, (items + 149 * users) % 3000, *ids)
    with Largest() as seen:
        model = fitted(train, 10.0)
        catalogue = model.encode_catalogue()
        model.score_all(torch.arange(5), catalogue)
        model.score_histories(*model.histories(torch.arange(5)), catalogue)
    assert 0 < seen.size <= 3000 * 20
    assert model.num_bytes() < 3000 * 20 * 4


@pytest.mark.parametrize("regularization", [0.0, -1.0, float("nan"), float("inf")])
def test_regularization_must_be_above_0(regularization: float) -> None:
    with pytest.raises(InputError, match=r"EASE: regularization is .*; it must be a number above 0"):
        EASE(regularization)
