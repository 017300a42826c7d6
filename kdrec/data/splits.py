"""Cut interactions into train, validation and test; each way is a class that a config names."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Literal

import numpy as np

from kdrec.data.interactions import Interactions
from kdrec.errors import InputError


@dataclass(frozen=True)
class Split:
    """Three disjoint sets of pairs over the same vocabularies."""

    train: Interactions
    valid: Interactions
    test: Interactions


class Splitter(ABC):
    """A way to cut; called with all interactions, returns a `Split`.

    Args:
        min_interactions: Users with fewer pairs are left out before the cut.
    """

    def __init__(self, min_interactions: int) -> None:
        self.min_interactions = min_interactions

    @property
    @abstractmethod
    def name(self) -> str:
        """What tables and checkpoints call the protocol; two splits with one name must be the same split."""

    @abstractmethod
    def __call__(self, interactions: Interactions) -> Split:
        """Cut the interactions."""


class LeaveOneOut(Splitter):
    """Hold out one pair of each user for test and one for validation.

    Args:
        order: "time": the last pair is test, the one before it validation; equal times are ordered by item id.
            "random": both are drawn by chance.
        seed: For "random" and for the draw of users.
        min_interactions: Users with fewer pairs are left out; at least 3.
        num_users: Hold out pairs of so many users only, drawn by ``seed``; of the others all pairs are for training.
            Where there are millions of users, so many are ranked in minutes. Default: all users.

    Raises:
        InputError: If ``min_interactions`` is below 3, the order is "time" and the data has none, or there are no
            ``num_users`` users.

    Example:
        >>> import numpy as np
        >>> from kdrec.data.interactions import Interactions
        >>> ids, times = (np.array(["u"]), np.array(list("abcd"))), np.array([5, 9, 9, 1])
        >>> log = Interactions(np.zeros(4, int), np.arange(4), *ids, times)
        >>> split = LeaveOneOut("time")(log)
        >>> split.train.items.tolist(), split.valid.items.tolist(), split.test.items.tolist()
        ([0, 3], [1], [2])
    """

    def __init__(
        self,
        order: Literal["time", "random"] = "time",
        seed: int = 0,
        min_interactions: int = 3,
        num_users: int | None = None,
    ) -> None:
        if min_interactions < 3:
            raise InputError(f"LeaveOneOut: min_interactions is {min_interactions}; it takes 3 pairs to leave two out.")
        if order not in ("time", "random"):
            raise InputError(f"LeaveOneOut: order is {order!r}; it must be 'time' or 'random'.")
        if num_users is not None and num_users < 1:
            raise InputError(f"LeaveOneOut: num_users is {num_users}; it must be at least 1, or left out for all.")
        super().__init__(min_interactions)
        self.order = order
        self.seed = seed
        self.num_users = num_users

    @property
    def name(self) -> str:
        """As `Splitter.name`."""
        seed = "" if self.order == "time" and self.num_users is None else f"-seed{self.seed}"
        users = "" if self.num_users is None else f"-of-{self.num_users}-users"
        return f"leave-one-out-{self.order}{users}{seed}-min{self.min_interactions}"

    def __call__(self, interactions: Interactions) -> Split:
        """Cut the interactions."""
        kept = interactions.with_min_interactions(self.min_interactions)
        if self.order == "random":
            key = _lots(kept, self.seed)
        elif kept.timestamps is None:
            raise InputError("LeaveOneOut by time needs timestamps and this data has none; use order: random.")
        else:
            key = kept.timestamps
        drawn = self._drawn(kept.num_users)[kept.users]
        test = _last(kept, key, drawn)
        valid = _last(kept, key, drawn & ~test)
        return Split(kept.subset(~(test | valid)), kept.subset(valid), kept.subset(test))

    def _drawn(self, num_users: int) -> np.ndarray:
        """Return (num_users,) bool: of whom pairs are held out."""
        if self.num_users is None:
            return np.ones(num_users, dtype=bool)
        if self.num_users > num_users:
            raise InputError(
                f"LeaveOneOut: num_users is {self.num_users} and only {num_users} users have {self.min_interactions} "
                f"interactions; lower it, or leave it out for all users."
            )
        return np.random.default_rng(self.seed).permutation(num_users) < self.num_users


class RandomRatio(Splitter):
    """Hold out shares of each user's pairs, drawn by chance.

    Each user gives ``round(share * pairs)`` to validation and to test, but at least one to each, and keeps one.

    Args:
        valid: Share for validation, in (0, 1).
        test: Share for test, in (0, 1).
        seed: Of the draw.
        min_interactions: Users with fewer pairs are left out; at least 3.

    Raises:
        InputError: If the shares leave nothing to train on, or ``min_interactions`` is below 3.
    """

    def __init__(self, valid: float = 0.1, test: float = 0.1, seed: int = 0, min_interactions: int = 10) -> None:
        _require_shares("RandomRatio", valid, test)
        if min_interactions < 3:
            raise InputError(f"RandomRatio: min_interactions is {min_interactions}; it takes 3 pairs to cut in three.")
        super().__init__(min_interactions)
        self.valid = valid
        self.test = test
        self.seed = seed

    @property
    def name(self) -> str:
        """As `Splitter.name`."""
        return f"random-{self.valid:g}-{self.test:g}-seed{self.seed}-min{self.min_interactions}"

    def __call__(self, interactions: Interactions) -> Split:
        """Cut the interactions."""
        kept = interactions.with_min_interactions(self.min_interactions)
        chance = _lots(kept, self.seed)
        rank_from_end = _rank_from_end(kept, np.lexsort((chance, kept.users)))
        counts = kept.user_counts[kept.users]
        num_test = np.clip(np.rint(self.test * counts), 1, counts - 2)
        num_valid = np.clip(np.rint(self.valid * counts), 1, counts - 1 - num_test)
        test = rank_from_end < num_test
        valid = ~test & (rank_from_end < num_test + num_valid)
        return Split(kept.subset(~test & ~valid), kept.subset(valid), kept.subset(test))


class ColdItems(Splitter):
    """Hold out items altogether, drawn by chance: what a model can say of an item that nobody has touched.

    All pairs of a share of the items go to validation, and those of another to test; training has pairs of the others
    only. A user whose items would all be held out keeps the one that was drawn last, and with it everybody does.

    Args:
        valid: Share of the items for validation, in (0, 1).
        test: Share of the items for test, in (0, 1).
        seed: Of the draw.
        min_interactions: Users with fewer pairs are left out.

    Raises:
        InputError: If the shares leave nothing to train on, or users too few items for any to be held out.
    """

    def __init__(self, valid: float = 0.1, test: float = 0.1, seed: int = 0, min_interactions: int = 5) -> None:
        _require_shares("ColdItems", valid, test)
        super().__init__(min_interactions)
        self.valid = valid
        self.test = test
        self.seed = seed

    @property
    def name(self) -> str:
        """As `Splitter.name`."""
        return f"cold-items-{self.valid:g}-{self.test:g}-seed{self.seed}-min{self.min_interactions}"

    def __call__(self, interactions: Interactions) -> Split:
        """Cut the interactions."""
        kept = interactions.with_min_interactions(self.min_interactions)
        lots = np.random.default_rng(self.seed).permutation(kept.num_items)
        num_test, num_valid = (max(1, round(share * kept.num_items)) for share in (self.test, self.valid))
        last = np.zeros(kept.num_users, dtype=np.int64)  # the highest lot of each user's items
        np.maximum.at(last, kept.users, lots[kept.items])
        cold = lots < num_test + num_valid
        cold[np.argsort(lots)[last[last < num_test + num_valid]]] = False
        test = cold & (lots < num_test)
        valid = cold & ~test
        if not (valid.any() and test.any()):
            raise InputError(
                f"ColdItems: shares of {self.valid} and {self.test} of {kept.num_items} items cannot be held out, "
                f"since users would have nothing to train on; lower the shares."
            )
        return Split(*(kept.subset(part[kept.items]) for part in (~cold, valid, test)))


def _require_shares(splitter: str, valid: float, test: float) -> None:
    if not (valid > 0 and test > 0 and valid + test < 1):
        raise InputError(f"{splitter}: valid {valid} and test {test} must be positive and leave something to train on.")


def _lots(interactions: Interactions, seed: int) -> np.ndarray:
    """Draw a number for each pair that depends on the pair and the seed, not on the order of the rows."""
    lots = np.empty(len(interactions), dtype=np.int64)
    order = np.argsort(interactions.users * interactions.num_items + interactions.items, kind="stable")
    lots[order] = np.random.default_rng(seed).permutation(len(interactions))
    return lots


def _rank_from_end(interactions: Interactions, order: np.ndarray) -> np.ndarray:
    """Return for each pair how many pairs of its user come after it in ``order`` (which sorts by user first)."""
    ends = np.cumsum(interactions.user_counts)
    rank = np.empty(len(order), dtype=np.int64)
    rank[order] = ends[interactions.users[order]] - 1 - np.arange(len(order))
    return rank


def _last(interactions: Interactions, key: np.ndarray, among: np.ndarray) -> np.ndarray:
    """Mark the row of each user with the largest key, and of equal ones the largest item: (n,) bool.

    Args:
        interactions: The pairs.
        key: (n,) int64.
        among: (n,) bool, which rows count.
    """
    rows = np.flatnonzero(among)
    users, keys = interactions.users[rows], key[rows]
    largest = np.full(interactions.num_users, np.iinfo(np.int64).min)
    np.maximum.at(largest, users, keys)
    rows = rows[keys == largest[users]]  # few, unless many keys are equal
    users = interactions.users[rows]
    order = np.lexsort((interactions.items[rows], users))
    ends = np.append(users[order][1:] != users[order][:-1], True)
    marks = np.zeros(len(key), dtype=bool)
    marks[rows[order[ends[: len(order)]]]] = True
    return marks
