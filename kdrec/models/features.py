"""Side features of users and items: from the columns of a table to tensors, and a base for models that read them."""

from abc import abstractmethod
from typing import Any, ClassVar, NamedTuple

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from torch.nn import functional

from kdrec.data.interactions import Interactions
from kdrec.errors import InputError
from kdrec.models.bags import are_lists, places_of
from kdrec.models.base import Recommender


class Features(NamedTuple):
    """Which features are active for whom; a column of the table is a field, and its features are consecutive.

    Attributes:
        offsets: (n * num_fields + 1,) int64; entity e's active features of field f are ``indices`` from
            ``offsets[e * num_fields + f]`` up to the next offset.
        indices: (m,) int64 in [0, num_features).
        fields: (num_features,) int64, the field of each feature, ascending.
    """

    offsets: Tensor
    indices: Tensor
    fields: Tensor


NO_FEATURES = Features(*(torch.zeros(size, dtype=torch.int64) for size in (1, 0, 0)))


def encode(table: pd.DataFrame, min_frequency: int = 2, num_buckets: int = 10) -> Features:
    """Turn a table with a row for each entity into features.

    A column of numbers is cut at its quantiles into at most ``num_buckets`` buckets, and each is a feature; a number
    that is missing has none. Any other column is text that is split at "|", and each part that ``min_frequency``
    entities or more have is a feature. A column without features is left out.

    Args:
        table: (n, columns), in the order of the entities' indices.
        min_frequency: Rarer parts of a text are no features, at least 1.
        num_buckets: Of a column of numbers, at least 2.

    Example:
        >>> found = encode(pd.DataFrame({"genres": ["war|drama", "", "drama"], "year": [1950, 1990, 1990]}), 1)
        >>> found.fields.tolist()  # drama, war; 1950, 1990
        [0, 0, 1, 1]
        >>> found.offsets.tolist(), found.indices.tolist()
        ([0, 2, 3, 3, 4, 5, 6], [0, 1, 2, 3, 0, 3])
    """
    columns = [
        _buckets(column, num_buckets) if pd.api.types.is_numeric_dtype(column) else _parts(column, min_frequency)
        for _, column in table.items()
    ]
    columns = [(entities, codes) for entities, codes in columns if len(codes)]
    if not columns:
        return NO_FEATURES
    sizes = [int(codes.max()) + 1 for _, codes in columns]
    starts = np.cumsum([0, *sizes[:-1]])
    bags = np.concatenate([entities * len(columns) + field for field, (entities, _) in enumerate(columns)])
    indices = np.concatenate([codes + start for (_, codes), start in zip(columns, starts, strict=True)])
    counts = np.bincount(bags, minlength=len(table) * len(columns))
    return Features(
        offsets=torch.from_numpy(np.concatenate(([0], np.cumsum(counts)))),
        indices=torch.from_numpy(indices[np.lexsort((indices, bags))]),
        fields=torch.from_numpy(np.repeat(np.arange(len(columns)), sizes)),
    )


class FeatureRecommender(Recommender):
    """A recommender that reads side features, which it keeps, so that a checkpoint needs no data.

    The number of features is known only from the data or from a file, so `build_tables` is called again when it
    turns out.

    Args:
        min_frequency: As `encode`.
        num_buckets: As `encode`.

    Raises:
        InputError: If one of them is too small.

    Attributes:
        sides: Whose features it reads; at least one of these sides must have some.
    """

    sides: ClassVar[tuple[str, ...]] = ("user", "item")

    def __init__(self, min_frequency: int, num_buckets: int) -> None:
        super().__init__()
        if min_frequency < 1 or num_buckets < 2:
            raise InputError(
                f"{type(self).__name__}: min_frequency is {min_frequency} and num_buckets is {num_buckets}; "
                f"they must be at least 1 and 2."
            )
        self.min_frequency = min_frequency
        self.num_buckets = num_buckets

    def build(self, num_users: int, num_items: int) -> None:
        """As `Recommender.build`, without any feature."""
        super().build(num_users, num_items)
        for side in self.sides:
            self._keep_features(side, NO_FEATURES)
        self.build_tables()

    def bind(self, train: Interactions) -> None:
        """As `Recommender.bind`; keeps the features.

        Raises:
            InputError: If the data has none.
        """
        found = self._encoded(train)
        super().bind(train)
        for side, features in zip(self.sides, found, strict=True):
            self._keep_features(side, features)
        self.build_tables()

    @abstractmethod
    def build_tables(self) -> None:
        """Create tables and layers with fresh weights for the features that are kept now.

        They are submodules, the same ones whatever the features; what is there only for some is one level deeper, such
        as in a ModuleDict, since torch has looked for the names of a file's submodules before this.
        """

    def num_features(self, side: str) -> int:
        """How many features "user" or "item" has."""
        return len(self.features(side).fields)

    def num_fields(self, side: str) -> int:
        """How many fields they belong to."""
        return (len(self.features(side).offsets) - 1) // self.num_entities(side)

    def num_entities(self, side: str) -> int:
        """How many there are of "user" or "item"."""
        return self.num_users if side == "user" else self.num_items

    def features(self, side: str) -> Features:
        """Return what is kept of "user" or "item"."""
        return Features(*(self.get_buffer(f"{side}_feature_{part}") for part in Features._fields))

    def field_means(self, side: str, table: Tensor, entities: Tensor, sparse: bool = False) -> Tensor:
        """Average the rows of a table over each entity's active features of each field.

        Args:
            side: "user" or "item".
            table: (num_features, d).
            entities: (B,) int64.
            sparse: Whether the table's gradient is.

        Returns:
            (B, num_fields, d); zeros where a field has no active feature.
        """
        features, num_fields = self.features(side), self.num_fields(side)
        if not num_fields:
            return table.new_zeros(entities.shape[0], 0, table.shape[1])
        bags = entities.unsqueeze(1) * num_fields + torch.arange(num_fields, device=entities.device)
        offsets, places = places_of(features.offsets, bags.flatten())
        means = functional.embedding_bag(
            features.indices[places], table, offsets, mode="mean", sparse=sparse, include_last_offset=True
        )
        return means.view(entities.shape[0], num_fields, table.shape[1])

    def require_sound(self) -> None:
        """As `Recommender.require_sound`."""
        super().require_sound()
        for side in self.sides:
            offsets, indices, fields = self.features(side)
            if not are_lists(offsets, indices, self.num_entities(side) * self.num_fields(side), len(fields)):
                raise ValueError(f"its features are not those of its {side}s")

    def _encoded(self, train: Interactions) -> list[Features]:
        """Encode each side's table."""
        reads = f"{type(self).__name__} reads features of {' or '.join(f'{side}s' for side in self.sides)}"
        tables = [getattr(train, f"{side}_features") for side in self.sides]
        if all(table is None for table in tables):
            raise InputError(
                f"{reads} and this data has none; take data that has some, such as MovieLens100K or CiteULike, or a "
                f"model that needs none, such as BPR."
            )
        encoding = self.min_frequency, self.num_buckets
        found = [NO_FEATURES if table is None else encode(table, *encoding) for table in tables]
        if not any(len(features.fields) for features in found):
            raise InputError(f"{reads} and {self.min_frequency} of them never share one; lower min_frequency.")
        return found

    def _keep_features(self, side: str, features: Features) -> None:
        self.keep(**{f"{side}_feature_{part}": tensor for part, tensor in features._asdict().items()})

    def _load_from_state_dict(self, state_dict: Any, prefix: str, *args: Any) -> None:
        before = [(self.num_features(side), self.num_fields(side)) for side in self.sides]
        super()._load_from_state_dict(state_dict, prefix, *args)  # torch loads the submodules after this
        if before != [(self.num_features(side), self.num_fields(side)) for side in self.sides]:
            self.build_tables()


def _buckets(column: pd.Series, num_buckets: int) -> tuple[np.ndarray, np.ndarray]:
    """Return (entities (m,), codes (m,)) of a column of numbers."""
    values = column.to_numpy(dtype=np.float64, na_value=np.nan)
    entities = np.flatnonzero(np.isfinite(values))
    if not len(entities):
        return entities, entities
    edges = np.quantile(values[entities], np.arange(1, num_buckets) / num_buckets)
    buckets = np.searchsorted(np.unique(edges), values[entities], side="right")
    return entities, np.unique(buckets, return_inverse=True)[1]


def _parts(column: pd.Series, min_frequency: int) -> tuple[np.ndarray, np.ndarray]:
    """Return (entities (m,), codes (m,)) of a column of text; codes follow the alphabet."""
    texts = column.reset_index(drop=True).astype("string").fillna("")
    parts = texts.str.split("|").explode().str.strip()
    pairs = pd.DataFrame({"entity": parts.index, "part": parts.to_numpy()}).drop_duplicates()
    counts = pairs["part"].value_counts()
    pairs = pairs[pairs["part"].isin(counts[counts >= min_frequency].index) & (pairs["part"] != "")]
    codes, _ = pd.factorize(pairs["part"], sort=True)
    return pairs["entity"].to_numpy(dtype=np.int64), codes.astype(np.int64)
