import math
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from ranx import Qrels, Run, evaluate
from torch import Tensor

from kdrec.data.interactions import Interactions
from kdrec.errors import InputError
from kdrec.evaluation.metrics import METRICS, RankingMetrics, ranking_metrics, require_cutoffs, tail_items

CUTOFFS = (1, 3, 5, 10, 20)


def log(counts: Sequence[int]) -> Interactions:
    """Return items with the given numbers of pairs."""
    items = np.repeat(np.arange(len(counts)), counts)
    users = np.concatenate([np.arange(count) for count in counts])
    return Interactions(users, items, np.arange(max(counts)).astype(str), np.arange(len(counts)).astype(str))


class Lists:
    """Random ranked lists of items, and 1 to 12 relevant items a user; some lists end early."""

    def __init__(self, num_users: int = 50, num_items: int = 40, depth: int = 20, early: bool = False) -> None:
        chance = np.random.default_rng(0)
        self.users = torch.arange(num_users) * 3
        self.top = torch.stack([torch.from_numpy(chance.permutation(num_items)[:depth]) for _ in range(num_users)])
        if early:
            lengths = torch.from_numpy(chance.integers(0, depth + 1, num_users))
            self.top[torch.arange(depth) >= lengths.unsqueeze(1)] = -1
        self.relevant = [
            chance.choice(num_items, chance.integers(1, 13), replace=False).tolist() for _ in range(num_users)
        ]
        hits = [[item in own for item in row] for row, own in zip(self.top.tolist(), self.relevant, strict=True)]
        self.hits = torch.tensor(hits)

    def add_to(self, metric: RankingMetrics, rows: Sequence[int] | Tensor) -> None:
        """Update a metric with some of the users, in the given order."""
        chosen = [int(row) for row in rows]
        pairs = [(place, item) for place, row in enumerate(chosen) for item in self.relevant[row]]
        relevant = torch.tensor(pairs, dtype=torch.int64).reshape(-1, 2).T
        metric.update(self.users[chosen], self.top[chosen], self.hits[chosen], (relevant[0], relevant[1]))


def metric(num_items: int = 40, cutoffs: Sequence[int] = CUTOFFS) -> RankingMetrics:
    """Item i has i + 1 training pairs."""
    return RankingMetrics(log(range(1, num_items + 1)), cutoffs)


def equal(one: dict[str, float], other: dict[str, float]) -> bool:
    """Say whether two results are the same to the last bit."""
    return one.keys() == other.keys() and np.array_equal([*one.values()], [*other.values()], equal_nan=True)


# The functions


def test_by_hand() -> None:
    hits = torch.tensor([[False, True, True, False, True], [False] * 5, [True, False, False, False, False]])
    values = ranking_metrics(hits, torch.tensor([4, 2, 1]), [1, 3, 5])
    log2 = math.log2
    expected = {
        "recall@1": [0, 0, 1],
        "recall@3": [2 / 4, 0, 1],
        "recall@5": [3 / 4, 0, 1],
        "precision@1": [0, 0, 1],
        "precision@3": [2 / 3, 0, 1 / 3],
        "precision@5": [3 / 5, 0, 1 / 5],
        "hit_rate@1": [0, 0, 1],
        "hit_rate@3": [1, 0, 1],
        "hit_rate@5": [1, 0, 1],
        "mrr@1": [0, 0, 1],
        "mrr@3": [1 / 2, 0, 1],
        "mrr@5": [1 / 2, 0, 1],
        # precision at the hits: 1/2 at position 2, 2/3 at 3, 3/5 at 5
        "map@1": [0, 0, 1],
        "map@3": [(1 / 2 + 2 / 3) / 4, 0, 1],
        "map@5": [(1 / 2 + 2 / 3 + 3 / 5) / 4, 0, 1],
        # an ideal list has min(4, k) hits
        "ndcg@1": [0, 0, 1],
        "ndcg@3": [(1 / log2(3) + 1 / log2(4)) / (1 + 1 / log2(3) + 1 / log2(4)), 0, 1],
        "ndcg@5": [(1 / log2(3) + 1 / log2(4) + 1 / log2(6)) / (1 + 1 / log2(3) + 1 / log2(4) + 1 / log2(5)), 0, 1],
    }
    assert values.keys() == expected.keys()
    for name, numbers in expected.items():
        assert values[name].dtype == torch.float64
        assert values[name].tolist() == pytest.approx(numbers, abs=1e-15), name


@pytest.mark.parametrize("early", [False, True], ids=["full lists", "lists that end early"])
def test_against_ranx(early: bool) -> None:
    lists = Lists(early=early)
    depth = lists.top.shape[1]
    qrels = Qrels({f"{u:03}": {str(item): 1 for item in own} for u, own in enumerate(lists.relevant)})
    run = Run(
        {
            f"{u:03}": {(str(i) if i >= 0 else f"none{n}"): float(depth - n) for n, i in enumerate(row)}
            for u, row in enumerate(lists.top.tolist())
        }
    )
    ours = ranking_metrics(lists.hits, torch.tensor([len(own) for own in lists.relevant]), CUTOFFS)
    assert len(ours) == len(METRICS) * len(CUTOFFS)
    theirs = evaluate(qrels, run, list(ours), return_mean=False)
    for name, values in ours.items():
        np.testing.assert_allclose(values.numpy(), theirs[name], rtol=0, atol=1e-12, err_msg=name)
    assert all(np.std(theirs[name]) > 0 for name in ours)


def test_lists_longer_than_the_cutoffs() -> None:
    lists = Lists()
    num_relevant = torch.tensor([len(own) for own in lists.relevant])
    whole, short = ranking_metrics(lists.hits, num_relevant, [3]), ranking_metrics(lists.hits[:, :3], num_relevant, [3])
    assert all(torch.equal(whole[name], short[name]) for name in whole)


def test_best_list_is_one() -> None:
    hits = torch.tensor([[True, True, False], [True, True, True]])
    values = ranking_metrics(hits, torch.tensor([2, 7]), [3])
    assert values["ndcg@3"].tolist() == pytest.approx([1, 1], abs=1e-15)
    assert values["recall@3"].tolist() == [1, 3 / 7]


def test_no_users() -> None:
    values = ranking_metrics(torch.zeros(0, 4, dtype=torch.bool), torch.zeros(0, dtype=torch.int64), [2, 4])
    assert {value.shape for value in values.values()} == {(0,)}


@pytest.mark.parametrize(
    ("share", "tail"),
    [
        (0.0, []),
        (0.05, []),
        (0.1, [1]),
        (0.2, [1]),
        (0.3, [1, 2]),
        (0.49, [1, 2]),
        (0.5, [1, 2, 3]),
        (1.0, [0, 1, 2, 3]),
    ],
)
def test_tail_by_hand(share: float, tail: list[int]) -> None:
    """By popularity: item 1 holds 1 of 10, then 2 and 3 hold 2 each (ties by index), then 0 holds 5."""
    assert tail_items(log([5, 1, 2, 2]), share).nonzero().flatten().tolist() == tail


def test_items_without_a_pair_are_tail() -> None:
    train = Interactions(np.array([0, 1]), np.array([1, 1]), np.array(["a", "b"]), np.array(["x", "y", "z"]))
    assert tail_items(train).tolist() == [True, False, True]


@pytest.mark.parametrize(
    ("cutoffs", "message"),
    [
        ([], "list of cutoffs is empty"),
        ([0, 5], r"cutoff 0 does not fit a catalogue of 40 items; choose 1\.\.40"),
        ([5, -1], "cutoff -1 does not fit"),
        ([10, 41], "cutoff 41 does not fit a catalogue of 40 items"),
    ],
)
def test_bad_cutoffs(cutoffs: list[int], message: str) -> None:
    with pytest.raises(InputError, match=message):
        require_cutoffs(cutoffs, 40)
    with pytest.raises(InputError, match=message):
        metric(cutoffs=cutoffs)
    require_cutoffs([1, 40], 40)


# The metric


def test_means_over_users() -> None:
    lists, collected = Lists(), metric()
    lists.add_to(collected, range(50))
    values = ranking_metrics(lists.hits, torch.tensor([len(own) for own in lists.relevant]), CUTOFFS)
    result = collected.compute()
    for name, numbers in values.items():
        assert result[name] == pytest.approx(math.fsum(numbers.tolist()) / 50, abs=1e-15)


def test_names() -> None:
    collected = metric(cutoffs=(10, 5, 10))
    assert collected.names == [f"{name}@{k}" for k in (5, 10) for name in METRICS] + [
        "recall_head@5", "recall_head@10", "recall_tail@5", "recall_tail@10",
    ]  # fmt: skip
    Lists().add_to(collected, range(4))
    assert [*collected.compute()] == [*collected.names, "coverage@5", "coverage@10"]


def test_coverage_by_hand() -> None:
    collected = metric(num_items=8, cutoffs=(1, 2, 3))
    pairs = torch.tensor([0, 1]), torch.tensor([7, 7])
    top = torch.tensor([[4, 2, 5], [4, 1, -1]])
    collected.update(torch.tensor([0, 1]), top, torch.zeros(2, 3, dtype=torch.bool), pairs)
    again = torch.tensor([[2, 4, -1]])
    collected.update(torch.tensor([2]), again, torch.zeros(1, 3, dtype=torch.bool), (pairs[0][:1], pairs[1][:1]))
    result = collected.compute()
    # top 1: 4, 2; top 2: and 1; top 3: and 5; of 8 items; -1 is none
    assert [result[f"coverage@{k}"] for k in (1, 2, 3)] == [2 / 8, 3 / 8, 4 / 8]


def test_head_and_tail_by_hand() -> None:
    """Of 5, 1, 2 and 2 pairs, 30 % are items 1 and 2."""
    collected = RankingMetrics(log([5, 1, 2, 2]), [1, 3], tail_share=0.3)
    top = torch.tensor([[1, 0, 3], [2, 3, 0], [3, 2, -1]])
    hits = torch.tensor([[True, False, True], [False, True, False], [False, True, False]])
    # user 0: head {3}, tail {1, 2}; user 1: head {3}, tail {1}; user 2: head {}, tail {2}
    relevant = torch.tensor([0, 0, 0, 1, 1, 2]), torch.tensor([1, 2, 3, 3, 1, 2])
    collected.update(torch.tensor([0, 1, 2]), top, hits, relevant)
    result = collected.compute()
    assert result["recall_head@1"] == 0  # (0 + 0) / 2 users
    assert result["recall_head@3"] == 1  # (1/1 + 1/1) / 2
    assert result["recall_tail@1"] == pytest.approx((1 / 2 + 0 + 0) / 3)
    assert result["recall_tail@3"] == pytest.approx((1 / 2 + 0 + 1) / 3)


def test_nobody_has_tail_items() -> None:
    collected = metric(num_items=5, cutoffs=[2])  # of 15 pairs, the tail holds 1 + 2: items 0 and 1
    collected.update(
        torch.tensor([0]), torch.tensor([[4, 3]]), torch.tensor([[True, False]]), (torch.tensor([0]), torch.tensor([4]))
    )
    result = collected.compute()
    assert math.isnan(result["recall_tail@2"])
    assert result["recall_head@2"] == result["recall@2"] == 1


@pytest.mark.parametrize("size", [1, 7, 49])
def test_batches_do_not_matter(size: int) -> None:
    """To the last bit: float32 sums, or sums in the order of arrival, would differ."""
    lists, whole = Lists(early=True), metric()
    lists.add_to(whole, range(50))
    expected = whole.compute()
    order = torch.randperm(50, generator=torch.Generator().manual_seed(size))
    assert order.tolist() != list(range(50))
    split = metric()
    for rows in order.split(size):
        lists.add_to(split, rows)
    lists.add_to(split, [])  # a rank without users
    assert equal(split.compute(), expected)
    assert torch.equal(split.per_user[0], whole.per_user[0])
    assert torch.equal(split.per_user[1].nan_to_num(-1), whole.per_user[1].nan_to_num(-1))


def test_processes_do_not_matter() -> None:
    """What torchmetrics does with the states of two processes: joins lists, keeps the larger of each mark."""
    lists, whole, parts, synced = Lists(), metric(), [metric(), metric()], metric()
    lists.add_to(whole, range(50))
    for rank, part in enumerate(parts):
        lists.add_to(part, range(rank, 50, 2))
    assert [synced._reductions[name].__name__ for name in ("users", "values", "shown")] == [
        "dim_zero_cat", "dim_zero_cat", "dim_zero_max",
    ]  # fmt: skip
    for name, reduce in synced._reductions.items():
        states = [getattr(part, name) for part in parts]
        joined = [torch.cat(state) for state in states] if name != "shown" else torch.stack(states)
        setattr(synced, name, reduce(joined))
    synced._update_count = 1
    assert equal(synced.compute(), whole.compute())


def test_per_user_survives_reset() -> None:
    lists, collected = Lists(), metric()
    lists.add_to(collected, reversed(range(50)))
    first = collected.compute()
    users, values = (part.clone() for part in collected.per_user)
    assert users.tolist() == lists.users.tolist()
    assert values.shape == (50, len(collected.names))
    column = values[:, collected.names.index("recall@10")]
    hits = lists.hits[:, :10].sum(1).double() / torch.tensor([len(own) for own in lists.relevant])
    assert torch.equal(column, hits)
    collected.reset()
    assert torch.equal(collected.per_user[0], users)
    assert torch.equal(collected.per_user[1].nan_to_num(-1), values.nan_to_num(-1))
    lists.add_to(collected, range(3))  # and nothing is left over from before
    assert not equal(collected.compute(), first)
    assert len(collected.per_user[0]) == 3


def test_states_are_not_in_checkpoints() -> None:
    collected = metric()
    Lists().add_to(collected, range(50))
    assert collected.state_dict() == {}
