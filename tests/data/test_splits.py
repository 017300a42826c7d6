import numpy as np
import pandas as pd
import pytest

from kdrec.data.interactions import Interactions
from kdrec.data.splits import ColdItems, LeaveOneOut, RandomRatio, Split, Splitter
from kdrec.errors import InputError

SPLITTERS = [
    LeaveOneOut("time"),
    LeaveOneOut("random", seed=3),
    RandomRatio(0.1, 0.2, seed=3, min_interactions=5),
    ColdItems(0.1, 0.2, seed=3),
]


def log(counts: list[int]) -> Interactions:
    """Return users with the given numbers of pairs, items 0, 1, 2, ... at times 0, 1, 2, ..."""
    users = np.repeat(np.arange(len(counts)), counts)
    items = np.concatenate([np.arange(count) for count in counts])
    return Interactions.from_frame(pd.DataFrame({"user": users, "item": items, "timestamp": items}))


def pairs(part: Interactions) -> set[tuple[str, str]]:
    """Return raw ids, so that different vocabularies can be compared."""
    return {(str(part.user_ids[u]), str(part.item_ids[i])) for u, i in zip(part.users, part.items, strict=True)}


def all_pairs(split: Split) -> list[set[tuple[str, str]]]:
    return [pairs(part) for part in (split.train, split.valid, split.test)]


@pytest.mark.parametrize("splitter", SPLITTERS, ids=lambda splitter: splitter.name)
def test_disjoint_and_complete(splitter: Splitter, interactions: Interactions) -> None:
    split = splitter(interactions)
    train, valid, test = all_pairs(split)
    assert train | valid | test == pairs(interactions)
    assert len(train) + len(valid) + len(test) == len(interactions) == len(pairs(interactions))
    for part in (split.train, split.valid, split.test):
        assert part.user_ids is split.train.user_ids
        assert part.item_titles is split.train.item_titles
        assert part.item_features is split.train.item_features
    assert split.train.user_counts.min() >= 1


@pytest.mark.parametrize("splitter", SPLITTERS, ids=lambda splitter: splitter.name)
def test_twice_the_same(splitter: Splitter, interactions: Interactions) -> None:
    assert all_pairs(splitter(interactions)) == all_pairs(splitter(interactions))


@pytest.mark.parametrize("splitter", SPLITTERS, ids=lambda splitter: splitter.name)
def test_row_order_does_not_matter(splitter: Splitter, interactions: Interactions) -> None:
    """Two sources of one data set may list its rows differently, and their splits carry one name."""
    shuffled = interactions.subset(np.random.default_rng(1).permutation(len(interactions)))
    assert all_pairs(splitter(shuffled)) == all_pairs(splitter(interactions))


@pytest.mark.parametrize("order", ["time", "random"])
def test_leave_one_out_takes_one_of_each(order: str, interactions: Interactions) -> None:
    split = LeaveOneOut(order)(interactions)  # type: ignore[arg-type]
    assert split.valid.user_counts.tolist() == [1] * 30
    assert split.test.user_counts.tolist() == [1] * 30
    assert split.train.user_counts.tolist() == (interactions.user_counts - 2).tolist()


def test_last_by_time() -> None:
    frame = pd.DataFrame(
        [
            ("u", "a", 5), ("u", "b", 9), ("u", "c", 9), ("u", "d", 1),  # last c (ties by item: b before c), then b
            ("v", "d", 4), ("v", "c", 4), ("v", "b", 4), ("v", "a", 4),  # all tied: last d, then c
            ("w", "a", 30), ("w", "b", 20), ("w", "c", 10),  # last a, then b
        ],
        columns=["user", "item", "timestamp"],
    )  # fmt: skip
    for seed in range(5):
        train, valid, test = all_pairs(
            LeaveOneOut("time")(Interactions.from_frame(frame.sample(frac=1, random_state=seed)))
        )
        assert test == {("u", "c"), ("v", "d"), ("w", "a")}
        assert valid == {("u", "b"), ("v", "c"), ("w", "b")}
        assert train == {("u", "a"), ("u", "d"), ("v", "a"), ("v", "b"), ("w", "c")}


def test_ties_go_by_number() -> None:
    """Item 10 comes after item 9, though not as text."""
    frame = pd.DataFrame({"user": 1, "item": [10, 9, 2], "timestamp": 7})
    split = LeaveOneOut("time")(Interactions.from_frame(frame))
    assert all_pairs(split) == [{("1", "2")}, {("1", "9")}, {("1", "10")}]


def test_times_against_sorting(interactions: Interactions) -> None:
    split = LeaveOneOut("time")(interactions)
    assert interactions.timestamps is not None
    for user in range(interactions.num_users):
        rows = np.flatnonzero(interactions.users == user)
        history = sorted((interactions.timestamps[row], interactions.items[row]) for row in rows)
        assert split.test.items[split.test.users == user].tolist() == [history[-1][1]]
        assert split.valid.items[split.valid.users == user].tolist() == [history[-2][1]]


def test_random_is_seeded(interactions: Interactions) -> None:
    one, other = (all_pairs(LeaveOneOut("random", seed=seed)(interactions)) for seed in (0, 1))
    assert one != other


def test_random_draws_evenly() -> None:
    """One of 5 items is held out with probability 1/5: of 2,000 users 400, with a deviation of 18."""
    split = LeaveOneOut("random")(log([5] * 2000))
    for part in (split.valid, split.test):
        assert np.abs(part.item_counts - 400).max() < 5 * 18


def test_short_users_are_left_out() -> None:
    split = LeaveOneOut("time", min_interactions=4)(log([3, 4, 6]))
    assert split.train.user_ids.tolist() == ["1", "2"]
    assert split.train.user_counts.tolist() == [2, 4]


@pytest.mark.parametrize(
    ("valid", "test", "expected"),
    [
        # round(.1 * 10) = 1; round(.1 * 14) = 1; round(.1 * 16) = 2; round(.1 * 40) = 4
        (0.1, 0.1, [(8, 1, 1), (12, 1, 1), (12, 2, 2), (32, 4, 4)]),
        # .2 * 10, 14, 16, 40 = 2, 2.8, 3.2, 8 and .3 * = 3, 4.2, 4.8, 12
        (0.2, 0.3, [(5, 2, 3), (7, 3, 4), (8, 3, 5), (20, 8, 12)]),
        # .01 * 40 = .4, but at least one
        (0.01, 0.01, [(8, 1, 1), (12, 1, 1), (14, 1, 1), (38, 1, 1)]),
    ],
)
def test_ratio_counts(valid: float, test: float, expected: list[tuple[int, int, int]]) -> None:
    split = RandomRatio(valid, test)(log([10, 14, 16, 40]))
    counts = (split.train.user_counts, split.valid.user_counts, split.test.user_counts)
    assert list(zip(*(count.tolist() for count in counts), strict=True)) == expected


def test_ratio_is_random_and_seeded(interactions: Interactions) -> None:
    splits = [all_pairs(RandomRatio(seed=seed, min_interactions=5)(interactions)) for seed in (0, 1)]
    assert splits[0] != splits[1]
    counts = RandomRatio(0.2, 0.2)(log([10] * 1000)).test.item_counts  # 200 each, with a deviation of 13
    assert np.abs(counts - 200).max() < 5 * 13


@pytest.mark.parametrize("count", [3, 4, 5, 6, 7])
@pytest.mark.parametrize("share", [0.3, 0.4, 0.49])
def test_ratio_leaves_something_to_train_on(count: int, share: float) -> None:
    split = RandomRatio(share, share, min_interactions=3)(log([count]))
    assert min(len(split.train), len(split.valid), len(split.test)) >= 1


def test_cold_items_are_in_one_part_only(interactions: Interactions) -> None:
    split = ColdItems(0.1, 0.2)(interactions)
    present = np.stack([part.item_counts > 0 for part in (split.train, split.valid, split.test)])
    assert present.sum(0).tolist() == [1] * 40
    assert present.sum(1).tolist() == [28, 4, 8]
    assert split.train.user_counts.min() >= 1


def test_cold_items_are_random_and_seeded() -> None:
    chosen = [ColdItems(0.25, 0.25, seed=seed)(log([40] * 2)).test.item_counts > 0 for seed in range(300)]
    assert not np.array_equal(chosen[0], chosen[1])
    shares = np.mean(chosen, axis=0)  # of 300 draws, with a deviation of .025
    assert np.abs(shares - 0.25).max() < 5 * 0.025


def test_who_would_lose_everything_keeps_the_item_that_was_drawn_last() -> None:
    """User 0 has only item 0: if it is drawn it stays, and the others with it."""
    alone = pd.DataFrame({"user": [0, *[1] * 9, *[2] * 9], "item": [0, *range(9), *range(9)]})
    interactions = Interactions.from_frame(alone)
    drawn = 0
    for seed in range(40):
        split = ColdItems(0.34, 0.34, seed=seed, min_interactions=1)(interactions)
        assert split.train.user_counts.min() >= 1
        assert split.train.item_counts[0] == 3
        kept = [np.count_nonzero(part.item_counts) for part in (split.train, split.valid, split.test)]
        assert kept in ([3, 3, 3], [4, 2, 3], [4, 3, 2])
        drawn += kept[0] == 4
    assert 15 < drawn < 38  # two in three, with a deviation of 3


def test_cold_items_need_users_with_others() -> None:
    with pytest.raises(InputError, match=r"shares of 0\.3 and 0\.3 of 3 items cannot be held out, since users would"):
        ColdItems(0.3, 0.3, min_interactions=1)(log([1, 2, 3]).subset(np.array([0, 2, 5])))


def test_names() -> None:
    """They are in every table and checkpoint: to change one is to change a protocol."""
    assert LeaveOneOut().name == "leave-one-out-time-min3"
    assert LeaveOneOut("time", seed=5).name == "leave-one-out-time-min3"  # chance has no part in it
    assert LeaveOneOut("random", seed=5, min_interactions=4).name == "leave-one-out-random-seed5-min4"
    assert RandomRatio().name == "random-0.1-0.1-seed0-min10"
    assert RandomRatio(0.25, 0.05, seed=2, min_interactions=5).name == "random-0.25-0.05-seed2-min5"
    assert ColdItems().name == "cold-items-0.1-0.1-seed0-min5"
    assert ColdItems(0.25, 0.05, seed=2, min_interactions=3).name == "cold-items-0.25-0.05-seed2-min3"


def test_time_needs_times() -> None:
    timeless = Interactions.from_frame(pd.DataFrame({"user": [1, 1, 1], "item": [1, 2, 3]}))
    with pytest.raises(InputError, match="needs timestamps and this data has none; use order: random"):
        LeaveOneOut("time")(timeless)
    assert len(LeaveOneOut("random")(timeless).train) == 1


def test_unknown_order() -> None:
    with pytest.raises(InputError, match="order"):
        LeaveOneOut("tiem")  # type: ignore[arg-type]


def test_too_few_to_cut() -> None:
    with pytest.raises(InputError, match="min_interactions is 2; it takes 3"):
        LeaveOneOut(min_interactions=2)
    with pytest.raises(InputError, match="min_interactions is 2; it takes 3"):
        RandomRatio(min_interactions=2)
    with pytest.raises(InputError, match="No user has 10 interactions"):
        RandomRatio()(log([3, 4]))


@pytest.mark.parametrize(
    ("valid", "test"), [(0.5, 0.5), (0, 0.1), (0.1, 0), (-0.1, 0.1), (0.1, 1.0), (float("nan"), 0.1)]
)
@pytest.mark.parametrize("splitter", [RandomRatio, ColdItems])
def test_bad_shares(splitter: type[Splitter], valid: float, test: float) -> None:
    with pytest.raises(InputError, match=f"{splitter.__name__}: .*must be positive and leave something to train on"):
        splitter(valid, test)  # type: ignore[call-arg, arg-type]


def by_sorting(log: Interactions, key: np.ndarray) -> list[np.ndarray]:
    """Return rows of train, valid and test as the definition has it, user by user."""
    parts: list[list[int]] = [[], [], []]
    for user in range(log.num_users):
        rows = sorted(np.flatnonzero(log.users == user), key=lambda row: (key[row], log.items[row]))
        for part, some in zip(parts, (rows[:-2], rows[-2:-1], rows[-1:]), strict=True):
            part.extend(some)
    return [np.sort(part) for part in parts]


@pytest.mark.parametrize("low", [0, -(2**62)], ids=["few times", "far times"])
def test_the_last_without_sorting(low: int) -> None:
    """Many equal times, negative ones, users in any order: rows keep their order within each part."""
    chance = np.random.default_rng(2)
    keys = chance.permutation(np.unique(np.concatenate((chance.integers(0, 40 * 60, 900), np.arange(40) * 60))))
    users, items = np.divmod(keys, 60)
    ids = (np.arange(40).astype(str), np.arange(60).astype(str))
    log = Interactions(users, items, *ids, chance.integers(low, 4, len(users)))
    split = LeaveOneOut("time", min_interactions=3)(log)
    assert log.timestamps is not None
    kept = log.with_min_interactions(3)
    assert kept.timestamps is not None
    for part, rows in zip((split.train, split.valid, split.test), by_sorting(kept, kept.timestamps), strict=True):
        assert part.users.tolist() == kept.users[rows].tolist()
        assert part.items.tolist() == kept.items[rows].tolist()


@pytest.mark.parametrize("order", ["time", "random"])
def test_held_out_of_some_users(order: str, interactions: Interactions) -> None:
    splitter = LeaveOneOut(order, seed=7, num_users=4)  # type: ignore[arg-type]
    split, whole = splitter(interactions), LeaveOneOut(order, seed=7)(interactions)  # type: ignore[arg-type]
    drawn = np.flatnonzero(split.test.user_counts)
    assert len(drawn) == len(split.test) == len(split.valid) == 4
    assert pairs(split.test) < pairs(whole.test)
    assert pairs(split.valid) < pairs(whole.valid)
    assert len(split.train) == len(interactions) - 8
    assert splitter.name == f"leave-one-out-{order}-of-4-users-seed7-min3"
    other = LeaveOneOut(order, seed=8, num_users=4)(interactions)  # type: ignore[arg-type]
    assert drawn.tolist() != np.flatnonzero(other.test.user_counts).tolist()


def test_more_users_than_there_are(interactions: Interactions) -> None:
    assert all_pairs(LeaveOneOut(num_users=30)(interactions)) == all_pairs(LeaveOneOut()(interactions))
    with pytest.raises(InputError, match="num_users is 31 and only 30 users have 3 interactions"):
        LeaveOneOut(num_users=31)(interactions)
    with pytest.raises(InputError, match="num_users is 0; it must be at least 1"):
        LeaveOneOut(num_users=0)
