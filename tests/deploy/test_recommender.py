import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

from kdrec.data.interactions import Interactions
from kdrec.deploy.fold_in import everyone, fold_in
from kdrec.deploy.recommender import Deployed, Item
from kdrec.errors import InputError
from kdrec.models.base import Recommender
from kdrec.models.bpr import BPR
from kdrec.models.ncf import NCF
from tests.deploy.architectures import Neighbours
from tests.generated import content_of

USERS = [[1.0, 0.0], [0.0, 1.0]]
ITEMS = [[3.0, 0.0], [2.0, 2.0], [1.0, 0.5], [0.0, 4.0]]


def train() -> Interactions:
    """Two users; the first touched item 2, then item 0."""
    return Interactions(
        users=np.array([0, 0, 1]), items=np.array([0, 2, 3]), timestamps=np.array([9, 5, 1]),
        user_ids=np.array(["ann", "bob"]), item_ids=np.array(["i0", "i1", "i2", "i3"]),
        item_titles=np.array(["Toy Story (1995)", "Heat (1995)", "Alien (1979)", "Heat (1995)"]),
    )  # fmt: skip


def deployed(folder: Path, model: Recommender, data: Interactions) -> Deployed:
    """Save a model as its training does, and load it."""
    torch.save(content_of(model, data), folder / "model.ckpt")
    return Deployed(folder / "model.ckpt")


@pytest.fixture
def model(tmp_path: Path) -> Deployed:
    recommender = BPR(2)
    recommender.bind(train())
    recommender.users.weight.data = torch.tensor(USERS)
    recommender.items.weight.data = torch.tensor(ITEMS)
    return deployed(tmp_path, recommender, train())


def test_a_users_best_unseen_items(model: Deployed) -> None:
    assert model.for_user(model.user("ann"), 2) == [
        Item("i1", "Heat (1995)", "", 2.0),
        Item("i3", "Heat (1995)", "", 0.0),
    ]


def test_the_history_ends_in_what_was_touched_last(model: Deployed) -> None:
    assert [item.id for item in model.described(model.history(0))] == ["i2", "i0"]


def test_similar_items_by_cosine(model: Deployed) -> None:
    found = model.similar_to(model.item("i2"), 3)
    assert [item.id for item in found] == ["i1", "i0", "i3"]
    assert [item.score for item in found] == pytest.approx([3 / 10**0.5, 2 / 5**0.5, 1 / 5**0.5])


def test_items_by_title_in_any_case(model: Deployed) -> None:
    assert model.item(" toy story (1995) ") == model.item("i0") == 0


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("heat (1995)", "2 items are called 'heat (1995)'; give the id of one of them: i1, i3."),
        ("Alien", "knows no item 'Alien'; did you mean 'Alien (1979)'?"),
        ("Toi Stori (1995)", "did you mean 'Toy Story (1995)' or "),
        ("???", "it knows 4, such as 'Toy Story (1995)'."),
    ],
)
def test_unknown_and_ambiguous_items(model: Deployed, name: str, sentence: str) -> None:
    with pytest.raises(InputError) as error:
        model.item(name)
    assert sentence in str(error.value)


def test_unknown_user(model: Deployed) -> None:
    with pytest.raises(InputError, match=r"knows no user 'anne'; did you mean 'ann'\?"):
        model.user("anne")


@pytest.mark.parametrize("k", [0, -1, 3])
def test_more_than_there_is(model: Deployed, k: int) -> None:
    with pytest.raises(InputError, match=f"k is {k}; it must lie between 1 and the 2 items"):
        model.for_user(0, k)


def test_no_items(model: Deployed) -> None:
    with pytest.raises(InputError, match="no items to recommend by"):
        model.for_items([], 2)


def test_a_stranger_gets_none_of_the_given_items(model: Deployed) -> None:
    found = model.for_items([0, 0], 3)
    assert [item.id for item in found] == ["i1", "i2", "i3"]


def test_no_stranger_for_other_scores(tmp_path: Path) -> None:
    recommender = NCF(2, 1)
    recommender.bind(train())
    with pytest.raises(InputError, match="is a NCF, whose users cannot be made from items"):
        deployed(tmp_path, recommender, train()).for_items([0], 1)


def test_a_model_of_histories_takes_a_strangers_list_as_it_is(tmp_path: Path) -> None:
    recommender = Neighbours()
    recommender.bind(train())
    weights = recommender.weights
    model = deployed(tmp_path, recommender, train())
    assert model.no_strangers == ""
    for items, expected in (([0, 2], weights[0] + 2 * weights[2]), ([2, 0, 2], weights[0] + 2 * weights[2])):
        found = {item.id: item.score for item in model.for_items(items, 2)}
        assert found == pytest.approx({"i1": expected[1].item(), "i3": expected[3].item()})
    assert model.for_items([2, 0], 2) != model.for_items([0, 2], 2)


def test_the_order_of_a_strangers_items_means_nothing_without_times(tmp_path: Path) -> None:
    data = dataclasses.replace(train(), timestamps=None)
    recommender = Neighbours()
    recommender.bind(data)
    model = deployed(tmp_path, recommender, data)
    assert model.for_items([2, 0], 2) == model.for_items([0, 2], 2)


def test_a_stranger_with_a_users_history_is_that_user(tmp_path: Path) -> None:
    recommender = Neighbours()
    recommender.bind(train())
    model = deployed(tmp_path, recommender, train())
    assert model.for_items(model.history(0), 2) == model.for_user(0, 2)


def test_nothing_similar_without_vectors(tmp_path: Path) -> None:
    recommender = Neighbours()
    recommender.bind(train())
    with pytest.raises(InputError, match="is a Neighbours, which has no vectors to find similar items by; ask for som"):
        deployed(tmp_path, recommender, train()).similar_to(0, 1)


def test_fold_in_minimises_its_loss() -> None:
    torch.manual_seed(0)
    table, items, unseen, ridge = torch.randn(9, 3, dtype=torch.float64), torch.tensor([1, 4]), 0.3, 0.2
    user = fold_in(table, items, unseen, ridge).requires_grad_()
    fits = torch.stack([(user @ table[item] - 1) ** 2 for item in items]).sum() / 2
    others = torch.stack([(user @ vector) ** 2 for vector in table]).sum() / 9
    scale = sum(vector @ vector for vector in table) / 9 / 3
    (fits + unseen * others + ridge * scale * user @ user).backward()
    torch.testing.assert_close(user.grad, torch.zeros(3, dtype=torch.float64), atol=1e-12, rtol=0)


def test_fold_in_does_not_depend_on_the_scale() -> None:
    torch.manual_seed(0)
    table, items = torch.randn(9, 3), torch.tensor([1, 4])
    torch.testing.assert_close(table @ fold_in(table, items), 10 * table @ fold_in(10 * table, items))


def test_fold_in_with_everybodys_part_at_hand() -> None:
    torch.manual_seed(0)
    table, items = torch.randn(9, 3), torch.tensor([1, 4])
    assert torch.equal(fold_in(table, items, everybody=everyone(table)), fold_in(table, items))


def test_what_is_kept_is_what_each_call_would_compute(model: Deployed) -> None:
    table = torch.tensor(ITEMS)
    for items in ([0, 2], [1], [0, 2]):
        expected = table @ fold_in(table, torch.tensor(items))
        found = model.for_items(items, 2)
        assert [item.score for item in found] == [expected[model.item(item.id)].item() for item in found]
        assert model.similar_to(2, 1) == model.similar_to(2, 1)


def test_a_name_instead_of_the_path(tmp_path: Path) -> None:
    recommender = NCF(2, 1)
    recommender.bind(train())
    path = deployed(tmp_path, recommender, train()).path
    model = Deployed(path, "The student")
    for ask in (lambda: model.user("x"), lambda: model.item("x"), lambda: model.for_items([0], 1)):
        with pytest.raises(InputError, match=r"^The student (knows no|is a NCF)"):
            ask()


def test_search(model: Deployed) -> None:
    assert model.search_items("", 9) == [0, 2, 3, 1]  # touched once each but for item 1
    assert model.search_items(" (1995) HEAT", 9) == [3, 1]
    assert model.search_items("heat", 1) == [3]
    assert model.search_items("heat alien", 9) == []
    assert model.search_users("", 9) == ["ann", "bob"]
    assert model.search_users("a", 9) == ["ann"]


def test_vectors_that_are_all_zero(tmp_path: Path) -> None:
    recommender = BPR(2, init_std=0.0)
    recommender.bind(train())
    model = deployed(tmp_path, recommender, train())
    assert [item.score for item in model.for_items([0], 2)] == [0.0, 0.0]


def test_scores_that_are_no_numbers(tmp_path: Path) -> None:
    """Finite weights may have infinite products, which JSON cannot say."""
    recommender = BPR(2)
    recommender.bind(train())
    for table in (recommender.users, recommender.items):
        table.weight.data.fill_(3e38)
    with pytest.raises(InputError, match=r"gives scores that are no numbers; its training diverged"):
        deployed(tmp_path, recommender, train()).for_user(0, 1)
