import warnings

import numpy as np
import pytest
import torch
from torch import Tensor

from kdrec.data.interactions import Interactions
from kdrec.data.splits import Split
from kdrec.errors import InputError
from kdrec.evaluation import chunks
from kdrec.evaluation.evaluate import ranking_of
from kdrec.evaluation.ranking import CatalogueRanking, PairIndex, top_k
from kdrec.models.bpr import BPR


def log(pairs: list[tuple[int, int]], num_users: int = 4, num_items: int = 5) -> Interactions:
    users, items = np.array(pairs, dtype=np.int64).reshape(-1, 2).T.copy()
    return Interactions(users, items, np.arange(num_users).astype(str), np.arange(num_items).astype(str))


def table(scores: Tensor) -> BPR:
    """Return a recommender with these scores: user vectors are its rows, item vectors the axes."""
    model = BPR(embedding_dim=scores.shape[1])
    model.build(*scores.shape)
    model.users.weight.data.copy_(scores)
    model.items.weight.data.copy_(torch.eye(scores.shape[1]))
    return model


def distinct_scores(num_users: int, num_items: int) -> Tensor:
    """Return a random order of items for each user, without ties."""
    generator = torch.Generator().manual_seed(0)
    return torch.rand(num_users, num_items, generator=generator).argsort(1).float() - num_items / 2


def sets(*parts: Interactions) -> dict[int, set[int]]:
    found: dict[int, set[int]] = {user: set() for user in range(parts[0].num_users)}
    for part in parts:
        for user, item in zip(part.users.tolist(), part.items.tolist(), strict=True):
            found[user].add(item)
    return found


# Sets of items


def test_index_by_hand() -> None:
    index = PairIndex(log([(2, 3), (0, 4), (2, 0)]), log([(2, 3), (3, 1)]))  # (2, 3) is in both
    assert index.offsets.diff().tolist() == [1, 0, 2, 1]
    rows, items = index.of(torch.tensor([2, 1, 3, 2]))
    assert rows.tolist() == [0, 0, 2, 3, 3]
    assert items.tolist() == [0, 3, 1, 0, 3]
    found = index.contains(torch.tensor([2, 1, 0]), torch.tensor([[3, 1, 0], [0, 4, 1], [4, -1, 0]]))
    assert found.tolist() == [[True, False, True], [False, False, False], [True, False, False]]


def test_index_against_sets(split: Split) -> None:
    parts = (split.train, split.valid)
    index, expected = PairIndex(*parts), sets(*parts)
    users = torch.randint(30, (50,), generator=torch.Generator().manual_seed(0))
    rows, items = index.of(users)
    for row, user in enumerate(users.tolist()):
        assert items[rows == row].tolist() == sorted(expected[user])
    everything = torch.arange(-1, 40).expand(50, -1)
    found = index.contains(users, everything)
    for row, user in enumerate(users.tolist()):
        assert set(everything[row, found[row]].tolist()) == expected[user]


def test_no_item_is_nobodys() -> None:
    """-1 of user 1 would be the last item of user 0 if keys alone were compared."""
    index = PairIndex(log([(0, 4), (1, 0)]))
    assert index.contains(torch.tensor([1, 0]), torch.tensor([[-1], [-1]])).tolist() == [[False], [False]]


def test_largest_pair() -> None:
    index = PairIndex(log([(0, 0)]))
    assert index.contains(torch.tensor([3]), torch.tensor([[4, 0]])).tolist() == [[False, False]]


def test_no_users() -> None:
    index, nobody = PairIndex(log([(0, 4)])), torch.zeros(0, dtype=torch.int64)
    assert [len(part) for part in index.of(nobody)] == [0, 0]
    assert index.contains(nobody, torch.zeros(0, 3, dtype=torch.int64)).shape == (0, 3)


def test_users_without_items() -> None:
    rows, items = PairIndex(log([(1, 2)])).of(torch.tensor([0, 3, 0]))
    assert rows.tolist() == items.tolist() == []


def test_empty_index() -> None:
    index = PairIndex(log([]))
    assert index.offsets.diff().tolist() == [0] * 4
    assert [len(part) for part in index.of(torch.tensor([0, 3]))] == [0, 0]
    assert index.contains(torch.tensor([0, 3]), torch.tensor([[0, -1], [4, 1]])).any().item() is False


# The full catalogue

SCORES = torch.tensor([[0.1, 0.2, 0.3, 0.4, 0.5], [-5, -4, -3, -2, -1], [3, 9, 1, 7, 5], [1, 2, 3, 4, 5]])
SEEN = log([(0, 4), (0, 2), (1, 4), (1, 3), (1, 2), (3, 0), (3, 1), (3, 2), (3, 3), (3, 4)])
HELD_OUT = log([(0, 0), (1, 0), (2, 2)])


def test_full_ranking_by_hand() -> None:
    ranking = CatalogueRanking(HELD_OUT, [SEEN])
    top = ranking.top_items(table(SCORES), torch.tensor([2, 0, 1, 3]), 4)
    assert top.tolist() == [[1, 3, 4, 0], [3, 1, 0, -1], [1, 0, -1, -1], [-1, -1, -1, -1]]
    assert top.dtype == torch.int64


def test_depth_of_the_catalogue() -> None:
    top = CatalogueRanking(HELD_OUT, [SEEN]).top_items(table(SCORES), torch.tensor([2, 0]), 5)
    assert top.tolist() == [[1, 3, 4, 0, 2], [3, 1, 0, -1, -1]]


def test_full_ranking_against_sorting(split: Split) -> None:
    scores = distinct_scores(30, 40)
    ranking = CatalogueRanking(split.test, [split.train, split.valid])
    seen = sets(split.train, split.valid)
    users = torch.randperm(30, generator=torch.Generator().manual_seed(1))
    top = ranking.top_items(table(scores), users, 38)
    for user, row in zip(users.tolist(), top.tolist(), strict=True):
        unseen = sorted(set(range(40)) - seen[user], key=lambda item: -scores[user, item])
        assert row == (unseen + [-1] * 38)[:38]


def test_validation_does_not_hide_the_test_item(split: Split) -> None:
    top = CatalogueRanking(split.valid, [split.train]).top_items(table(distinct_scores(30, 40)), torch.arange(30), 40)
    for user, (valid, test) in enumerate(
        zip(*(sets(part).values() for part in (split.valid, split.test)), strict=True)
    ):
        assert valid | test <= set(top[user].tolist())


def test_batches_do_not_matter(split: Split) -> None:
    model, ranking = table(distinct_scores(30, 40)), CatalogueRanking(split.test, [split.train, split.valid])
    whole = ranking.top_items(model, torch.arange(30), 10)
    parts = [ranking.top_items(model, users, 10) for users in torch.arange(30).split(7)]
    assert torch.equal(whole, torch.cat(parts))
    assert torch.equal(whole, ranking.top_items(model, torch.arange(30), 10, model.encode_catalogue()))


# (items, k): plain sorting, blocks without a rest, blocks with one, more blocks than k in the last place
@pytest.mark.parametrize(("num_items", "k"), [(60, 5), (512, 3), (1000, 3), (5000, 50), (1023, 1)])
@pytest.mark.parametrize("order", ["random", "ascending", "descending"])
def test_the_best_of_blocks_are_the_best_of_all(num_items: int, k: int, order: str) -> None:
    scores = distinct_scores(7, num_items)
    if order != "random":
        scores = scores.sort(descending=order == "descending").values
    values, items = top_k(scores, k)
    expected = scores.topk(k)
    assert torch.equal(values, expected.values)
    assert torch.equal(items, expected.indices)


def test_the_best_of_blocks_with_ties_and_hidden_items() -> None:
    scores = torch.randint(3, (50, 2000), generator=torch.Generator().manual_seed(0)).float()
    scores[scores == 0] = -torch.inf
    scores[0] = -torch.inf
    values, items = top_k(scores, 20)
    assert torch.equal(values, scores.topk(20).values)
    assert torch.equal(values, scores.gather(1, items))
    assert all(len(row.unique()) == 20 for row in items)


def test_rows_at_once_do_not_matter(split: Split, monkeypatch: pytest.MonkeyPatch) -> None:
    scores, users = distinct_scores(30, 40), torch.arange(30)
    ranking = CatalogueRanking(split.test, [split.train, split.valid])
    expected = ranking.top_items(table(scores), users, 5)
    for numbers in (1, 80, 3 * 40 + 1):
        monkeypatch.setattr(chunks, "CPU_BYTES", 4 * numbers)
        monkeypatch.setattr(chunks, "CPU_USERS", 1)
        assert torch.equal(ranking.top_items(table(scores), users, 5), expected)


def test_ranking_changes_nothing(split: Split) -> None:
    model = table(distinct_scores(30, 40))
    before = [parameter.clone() for parameter in model.parameters()]
    top = CatalogueRanking(split.test, [split.train]).top_items(model, torch.arange(30), 5, model.encode_catalogue())
    assert not top.requires_grad
    assert all(torch.equal(*pair) for pair in zip(before, model.parameters(), strict=True))


def test_ranking_for_no_users() -> None:
    nobody = torch.zeros(0, dtype=torch.int64)
    assert CatalogueRanking(HELD_OUT, [SEEN]).top_items(table(SCORES), nobody, 3).shape == (0, 3)


def test_full_ranking_does_not_warn() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        CatalogueRanking(HELD_OUT, [SEEN])


# Sampled candidates


def sampled(held_out: Interactions, seen: list[Interactions], num_candidates: int, seed: int = 0) -> CatalogueRanking:
    with pytest.warns(UserWarning, match=f"Ranking among {num_candidates} sampled items can order models wrongly"):
        return CatalogueRanking(held_out, seen, num_candidates, seed)


def candidates(ranking: CatalogueRanking, users: Tensor, num_items: int) -> list[set[int]]:
    """Return the items that are ranked at all."""
    top = ranking.top_items(table(torch.zeros(len(ranking.relevant.offsets) - 1, num_items)), users, num_items)
    return [set(row) - {-1} for row in top.tolist()]


@pytest.mark.parametrize("num_candidates", [1, 10, 25])
def test_candidates(split: Split, num_candidates: int) -> None:
    ranking = sampled(split.test, [split.train, split.valid], num_candidates)
    known, held_out = sets(split.train, split.valid, split.test), sets(split.test)
    for user, ranked in enumerate(candidates(ranking, torch.arange(30), 40)):
        assert held_out[user] <= ranked
        assert len(ranked - held_out[user]) == num_candidates
        assert not (ranked - held_out[user]) & known[user]


def test_candidates_are_ranked_by_score(split: Split) -> None:
    scores = distinct_scores(30, 40)
    ranking = sampled(split.test, [split.train, split.valid], 12)
    users = torch.arange(30)
    top = ranking.top_items(table(scores), users, 20)
    for user, (row, ranked) in enumerate(zip(top.tolist(), candidates(ranking, users, 40), strict=True)):
        assert row == sorted(ranked, key=lambda item: -scores[user, item]) + [-1] * 7


def test_candidates_do_not_depend_on_the_batch(split: Split) -> None:
    ranking = sampled(split.test, [split.train, split.valid], 10)
    whole = candidates(ranking, torch.arange(30), 40)
    for users in torch.randperm(30, generator=torch.Generator().manual_seed(0)).split(4):
        assert candidates(ranking, users, 40) == [whole[user] for user in users]
    again = sampled(split.test, [split.train, split.valid], 10)
    assert candidates(again, torch.arange(30), 40) == whole


def test_candidates_depend_on_user_and_seed(split: Split) -> None:
    ranking, other = (sampled(split.test, [split.train, split.valid], 10, seed) for seed in (0, 1))
    users = torch.arange(30)
    one, two = candidates(ranking, users, 40), candidates(other, users, 40)
    assert len({frozenset(ranked) for ranked in one}) == 30
    assert sum(first != second for first, second in zip(one, two, strict=True)) > 25


@pytest.mark.parametrize("seed", [0, 1, 12345])
def test_candidates_are_uniform(seed: int) -> None:
    """Of 20 items, 1 is held out and 3 are seen; 4 of the other 16 are drawn for each of 4,000 users."""
    users = np.arange(4000)
    held_out = log([(user, 0) for user in users], 4000, 20)
    seen = log([(user, item) for user in users for item in (5, 6, 19)], 4000, 20)
    drawn = candidates(sampled(held_out, [seen], 4, seed), torch.arange(4000), 20)
    counts = np.bincount([item for ranked in drawn for item in ranked], minlength=20)
    assert counts[[0, 5, 6, 19]].tolist() == [4000, 0, 0, 0]
    free = np.delete(counts, [0, 5, 6, 19])
    assert np.abs(free - 1000).max() < 5 * (4000 * 0.25 * 0.75) ** 0.5
    # nor do items go together: both 1 and 2 are drawn for 4/16 * 3/15 of the users, that is for 200
    together = sum({1, 2} <= ranked for ranked in drawn)
    assert abs(together - 200) < 5 * 200**0.5


def test_fewer_unseen_than_candidates() -> None:
    """User 0 knows 0, 2 and 4; user 1 all but 1; user 2 only 2; user 3 everything."""
    drawn = candidates(sampled(HELD_OUT, [SEEN], 3), torch.arange(4), 5)
    assert drawn[:2] == [{0, 1, 3}, {0, 1}]
    assert 2 in drawn[2]
    assert len(drawn[2]) == 4
    assert drawn[3] == set()


def test_unseen_items_are_those_of_the_candidates(split: Split) -> None:
    """A user's first n drawn items are the n candidates, whatever the others of the batch ask for."""
    ranking, users = sampled(split.test, [split.train, split.valid], 4), torch.tensor([7, 3, 12])
    rows, items = ranking.unseen(users, torch.tensor([4, 0, 9]))
    assert rows.tolist() == [0] * 4 + [2] * 9
    drawn = candidates(ranking, users, 40)[0] - sets(split.test)[7]
    assert set(items[:4].tolist()) == drawn
    known = sets(split.train, split.valid, split.test)
    assert not set(items[4:].tolist()) & known[12]
    alone = ranking.unseen(users[2:], torch.tensor([9]))[1]
    assert alone.tolist() == items[4:].tolist()


def test_who_has_fewer_unseen_items_gets_these() -> None:
    ranking = CatalogueRanking(HELD_OUT, [SEEN])
    rows, items = ranking.unseen(torch.arange(4), torch.tensor([9, 9, 1, 9]))
    drawn = [set(items[rows == user].tolist()) for user in range(4)]
    assert drawn[:2] == [{1, 3}, {1}]
    assert len(drawn[2]) == 1
    assert drawn[3] == set()
    assert [len(part) for part in ranking.unseen(torch.arange(0), torch.arange(0))] == [0, 0]


@pytest.mark.parametrize("number", [0, -1, 6])
def test_bad_number_of_candidates(number: int) -> None:
    with pytest.raises(InputError, match=f"num_candidates is {number}; it must lie between 1 and the catalogue's 5"):
        CatalogueRanking(HELD_OUT, [SEEN], number)


def test_nothing_as_large_as_the_data_is_made_before_it_is_needed(split: Split) -> None:
    ranking = ranking_of(split, "val")
    assert not {"hidden", "known"} & set(vars(ranking))
    assert ranking.hidden.items.data_ptr() == split.train.csr[1].ctypes.data  # validation hides the training pairs
    assert "keys" not in vars(ranking.hidden)


def test_keys_by_hand() -> None:
    index = PairIndex(log([(2, 3), (0, 4), (2, 0)]))
    assert index.keys.tolist() == [4, 10, 13, 20]
    assert PairIndex(log([])).keys.tolist() == [20]
