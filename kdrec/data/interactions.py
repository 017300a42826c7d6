"""The one table type of kdrec: who touched what, and when."""

import hashlib
import json
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import pandas as pd

from kdrec.errors import InputError


@dataclass(frozen=True, eq=False)
class Interactions:
    """An immutable list of (user, item) pairs with contiguous integer ids and the vocabularies behind them.

    It knows nothing of files, splits or models. Splits share the vocabularies and tables of the whole.

    Args:
        users: (n,) int64 user indices in ``[0, num_users)``.
        items: (n,) int64 item indices in ``[0, num_items)``.
        user_ids: (num_users,) raw user ids as strings; position = index.
        item_ids: (num_items,) raw item ids as strings; position = index.
        timestamps: (n,) int64 times of the pairs in any one unit, or None.
        item_titles: (num_items,) what a person calls the item, or None.
        user_features: Table with num_users rows, in index order, or None.
        item_features: Table with num_items rows, in index order, or None.

    Raises:
        InputError: If the columns differ in length or an index is out of range.

    Example:
        >>> import numpy as np
        >>> from kdrec.data.interactions import Interactions
        >>> ids = np.array(["a", "b"]), np.array(["x", "y", "z"])
        >>> log = Interactions(np.array([0, 0, 1]), np.array([2, 1, 0]), *ids)
        >>> len(log), log.num_users, log.num_items
        (3, 2, 3)
        >>> log.csr[1][log.csr[0][0] : log.csr[0][1]].tolist()  # the items of user 0
        [1, 2]
    """

    users: np.ndarray
    items: np.ndarray
    user_ids: np.ndarray
    item_ids: np.ndarray
    timestamps: np.ndarray | None = None
    item_titles: np.ndarray | None = None
    user_features: pd.DataFrame | None = None
    item_features: pd.DataFrame | None = None

    def __post_init__(self) -> None:
        for name, index, size in (("users", self.users, self.num_users), ("items", self.items, self.num_items)):
            if len(index) != len(self.users):
                raise InputError(f"Interactions: {name} has {len(index)} entries where users has {len(self.users)}.")
            if len(index) and (index.min() < 0 or index.max() >= size):
                raise InputError(
                    f"Interactions: {name} spans {index.min()}..{index.max()}, outside 0..{size - 1}; "
                    f"give one raw id for each index."
                )
        for name, table, size in (
            ("timestamps", self.timestamps, len(self)),
            ("item_titles", self.item_titles, self.num_items),
            ("user_features", self.user_features, self.num_users),
            ("item_features", self.item_features, self.num_items),
        ):
            if table is not None and len(table) != size:
                raise InputError(f"Interactions: {name} has {len(table)} rows where {size} are needed.")
        for array in (self.users, self.items, self.timestamps):
            if array is not None:
                array.flags.writeable = False

    def __len__(self) -> int:
        return len(self.users)

    @property
    def num_users(self) -> int:
        """Size of the user vocabulary, users without a pair included."""
        return len(self.user_ids)

    @property
    def num_items(self) -> int:
        """Size of the item vocabulary, items without a pair included."""
        return len(self.item_ids)

    @cached_property
    def csr(self) -> tuple[np.ndarray, np.ndarray]:
        """The pairs by user: offsets (num_users + 1,) and item indices (n,), ascending within each user."""
        keys = sorted_keys(self)
        return np.concatenate(([0], np.cumsum(self.user_counts))), np.remainder(keys, self.num_items, out=keys)

    @cached_property
    def user_counts(self) -> np.ndarray:
        """(num_users,) number of pairs of each user."""
        return np.bincount(self.users, minlength=self.num_users)

    @cached_property
    def item_counts(self) -> np.ndarray:
        """(num_items,) number of pairs of each item: its popularity."""
        return np.bincount(self.items, minlength=self.num_items)

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the pairs and vocabularies, independent of row order: equal digests mean equal data."""
        offsets, items = self.csr
        state = hashlib.sha256()
        for array in (offsets, items):
            state.update(np.ascontiguousarray(array, dtype="<i8").data)
        for ids in (self.user_ids, self.item_ids):
            state.update(json.dumps(ids.tolist()).encode())
        return state.hexdigest()

    @property
    def item_labels(self) -> pd.Series | None:
        """The first text column of the item features, such as genres or tags (``|`` separates them), or None."""
        features = pd.DataFrame() if self.item_features is None else self.item_features
        return next((column for _, column in features.items() if not pd.api.types.is_numeric_dtype(column)), None)

    def subset(self, rows: np.ndarray) -> "Interactions":
        """Return the pairs at ``rows`` (indices or mask) over the same vocabularies."""
        times = None if self.timestamps is None else self.timestamps[rows]
        return replace(self, users=self.users[rows], items=self.items[rows], timestamps=times)

    def with_min_interactions(self, minimum: int) -> "Interactions":
        """Return the pairs of users with at least ``minimum`` of them, with unused users and items taken out.

        Raises:
            InputError: If nobody has that many.
        """
        if len(self) and self.user_counts.min() >= max(minimum, 1) and self.item_counts.all():
            return self
        kept = self.subset(self.user_counts[self.users] >= minimum)
        if not len(kept):
            raise InputError(
                f"No user has {minimum} interactions (the most is {self.user_counts.max(initial=0)}); "
                f"lower min_interactions."
            )
        alive_users, alive_items = kept.user_counts > 0, kept.item_counts > 0
        return Interactions(
            users=(np.cumsum(alive_users) - 1)[kept.users],
            items=(np.cumsum(alive_items) - 1)[kept.items],
            user_ids=self.user_ids[alive_users],
            item_ids=self.item_ids[alive_items],
            timestamps=kept.timestamps,
            item_titles=None if self.item_titles is None else self.item_titles[alive_items],
            user_features=_rows(self.user_features, alive_users),
            item_features=_rows(self.item_features, alive_items),
        )

    @classmethod
    def from_frame(
        cls,
        frame: pd.DataFrame,
        *,
        item_titles: pd.Series | None = None,
        user_features: pd.DataFrame | None = None,
        item_features: pd.DataFrame | None = None,
    ) -> "Interactions":
        """Number the raw ids and align titles and features with them.

        The vocabularies are sorted (numbers by value, other ids as text), so that the same data gives the same
        indices in whatever order its rows stand.

        Args:
            frame: Columns ``user``, ``item`` and, if there are times, ``timestamp``; one row a pair. Ids may be
                categorical, which takes the least memory.
            item_titles: Titles indexed by raw item id. Items without one get their raw id.
            user_features: Table indexed by raw user id.
            item_features: Table indexed by raw item id.

        Raises:
            RepeatedPair: If a pair occurs twice.
            InputError: If a side table has two rows for an id, or features lack one.
        """
        users, user_ids = _number(frame["user"])
        items, item_ids = _number(frame["item"])
        pairs = cls(users, items, user_ids.astype(str), item_ids.astype(str))
        keys = sorted_keys(pairs)
        if (keys[1:] == keys[:-1]).any():
            raise RepeatedPair(pairs)
        del keys
        for name, table, ids in (
            ("item_titles", item_titles, None),
            ("user_features", user_features, user_ids),
            ("item_features", item_features, item_ids),
        ):
            if table is None:
                continue
            if table.index.has_duplicates:
                raise InputError(
                    f"{name} has more than one row for {table.index[table.index.duplicated()][0]}; keep one of them."
                )
            if ids is not None and len(lacking := pd.Index(ids).difference(table.index)):
                raise InputError(f"{name} has no row for {lacking[0]}; add it, or leave its interactions out.")
        titles = None
        if item_titles is not None:
            aligned = item_titles.reindex(item_ids)
            titles = aligned.where(aligned.notna(), pd.Series(item_ids, index=aligned.index)).to_numpy(dtype=str)
        return replace(
            pairs,
            timestamps=frame["timestamp"].to_numpy(dtype=np.int64, copy=True) if "timestamp" in frame else None,
            item_titles=titles,
            user_features=None if user_features is None else user_features.reindex(user_ids).reset_index(drop=True),
            item_features=None if item_features is None else item_features.reindex(item_ids).reset_index(drop=True),
        )


class RepeatedPair(InputError):
    """A pair occurs more than once.

    Args:
        interactions: Where.

    Attributes:
        rows: (m,) rows of the first pair that comes again, m at least 2.
    """

    def __init__(self, interactions: Interactions) -> None:
        users, items = interactions.users, interactions.items
        again = pd.Series(users * interactions.num_items + items).duplicated().to_numpy().argmax()
        self.rows = np.flatnonzero((users == users[again]) & (items == items[again]))
        super().__init__(
            f"The pair user {interactions.user_ids[users[again]]}, item {interactions.item_ids[items[again]]} occurs "
            f"more than once; keep one of them."
        )


def sorted_keys(*parts: Interactions) -> np.ndarray:
    """Return ``user * num_items + item`` of all pairs of some parts over the same vocabularies, ascending.

    A stable sort costs no more than another, and next to nothing where the pairs are in order already.
    """
    keys = np.concatenate([part.users for part in parts])
    keys *= parts[0].num_items
    start = 0
    for part in parts:
        keys[start : start + len(part)] += part.items
        start += len(part)
    keys.sort(kind="stable")
    return keys


def _number(raw: pd.Series) -> tuple[np.ndarray, np.ndarray]:
    """Return (indices, sorted vocabulary) of a column of raw ids; a missing one has the index -1."""
    if isinstance(raw.dtype, pd.CategoricalDtype):
        codes, categories = raw.cat.codes.to_numpy(), raw.cat.categories
        used = np.zeros(len(categories) + 1, dtype=bool)  # the last for what is missing, whose code is -1
        used[codes] = True
        places, ids = categories[used[:-1]].factorize(sort=True)
        indices = np.full(len(used), -1)
        indices[np.flatnonzero(used[:-1])] = places
        return indices[codes], np.asarray(ids)
    codes, vocabulary = pd.factorize(raw, sort=True)
    return codes.astype(np.int64), np.asarray(vocabulary)


def _rows(table: pd.DataFrame | None, keep: np.ndarray) -> pd.DataFrame | None:
    return None if table is None else table.loc[keep].reset_index(drop=True)
