"""Your own interactions: one file to be cut, or files that are cut already."""

import os
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from pandas.api.types import union_categoricals

from kdrec.data.base import InteractionDataModule
from kdrec.data.interactions import Interactions, RepeatedPair
from kdrec.data.parquet import read_parquet
from kdrec.data.sampling import Samples
from kdrec.data.sources import folders_of
from kdrec.data.splits import Split, Splitter
from kdrec.data.tables import Kind, read_table
from kdrec.errors import InputError

_SEPARATORS = {".csv": ",", ".tsv": "\t", ".inter": "\t", ".txt": "\t"}


class InteractionFiles(InteractionDataModule):
    """Interactions from delimited text or Parquet, with a row for each pair and the columns' names in the first line.

    Millions of pairs want Parquet, which is read without a Python object for each row.

    Other columns are ignored, and every row counts as one interaction. RecBole's atomic ``.inter`` files come in with
    ``user_column: user_id:token`` and so on.

    Args:
        name: What protocols and checkpoints call the data.
        train: File below ``root/name``, to be cut by ``splitter``; with ``valid`` and ``test`` the training part.
        valid: Ready-made validation part; needs ``test``.
        test: Ready-made test part; needs ``valid``.
        user_column: Column of raw user ids.
        item_column: Column of raw item ids.
        time_column: Column of times, as whole numbers; needed only by a split by time.
        separator: Between fields of a text file. Default: a comma in .csv, a tab in .tsv, .txt and .inter.
        root: Folder of all data sets.
        splitter: How to cut a single file. Default: leave-one-out by time.
        batch_size: Training pairs a step and process.
        num_negatives: Items drawn for each training pair, fresh every epoch.
        eval_batch_size: Users ranked at once; bounds the memory of an evaluation.
        samples: What an epoch draws: "pairs" in any order; "histories", the pairs of a user one after the other, which
            suits methods that work user by user; or "users", each once with one of their items by chance.

    Raises:
        InputError: If only one of ``valid`` and ``test`` is given.
    """

    def __init__(
        self,
        name: str,
        train: str,
        valid: str | None = None,
        test: str | None = None,
        user_column: str = "user_id",
        item_column: str = "item_id",
        time_column: str | None = None,
        separator: str | None = None,
        root: str = "data",
        splitter: Splitter | None = None,
        batch_size: int = 1024,
        num_negatives: int = 1,
        eval_batch_size: int = 256,
        samples: Samples = "pairs",
    ) -> None:
        super().__init__(root, splitter, batch_size, num_negatives, eval_batch_size, samples)
        if (valid is None) != (test is None):
            raise InputError("InteractionFiles: give both valid and test, or neither, to have train cut.")
        self.name = name
        self.train = train
        self.valid = valid
        self.test = test
        self.user_column = user_column
        self.item_column = item_column
        self.time_column = time_column
        self.separator = separator
        self._sizes: list[int] = []

    @property
    def protocol(self) -> str:
        """As `InteractionDataModule.protocol`."""
        return super().protocol if self.test is None else f"{self.name}/ready-made"

    def load(self) -> Interactions:
        """As `InteractionDataModule.load`; ready-made parts one after the other."""
        files = [self._folder() / part for part in (self.train, self.valid, self.test) if part is not None]
        frames = [self._read(file) for file in files]
        self._sizes = [len(frame) for frame in frames]
        columns = {side: _joined([frame[side] for frame in frames]) for side in ("user", "item")}
        if self.time_column:
            times = [frame["timestamp"] for frame in frames]
            columns["timestamp"] = times[0] if len(times) == 1 else pd.concat(times, ignore_index=True)
        del frames
        ends = np.cumsum(self._sizes)
        codes = columns["user"].cat.codes.to_numpy()
        known = np.zeros(len(columns["user"].cat.categories), dtype=bool)
        known[codes[: ends[0]]] = True
        strangers = ~known[codes[ends[0] :]]
        if strangers.any():
            row = int(ends[0]) + int(strangers.argmax())
            raise InputError(
                f"{files[_part(ends, row)]}: user {columns['user'].iloc[row]} is not in {files[0]}, so nothing can be "
                f"learned of them; take their rows out."
            )
        try:
            return Interactions.from_frame(pd.DataFrame(columns, copy=False))
        except RepeatedPair as error:
            user, item = (columns[side].iloc[error.rows[0]] for side in ("user", "item"))
            places = [str(files[_part(ends, row)]) for row in error.rows]
            raise InputError(
                f"User {user} and item {item} stand in {' and again in '.join(places)}; keep one of them."
            ) from None

    def cut(self, interactions: Interactions) -> Split:
        """As `InteractionDataModule.cut`; ready-made parts stay as they are."""
        if self.test is None:
            return super().cut(interactions)
        part = np.repeat(np.arange(3), self._sizes)
        return Split(*(interactions.subset(part == number) for number in range(3)))

    def _folder(self) -> Path:
        folders = folders_of(self.name, self.root)
        for folder in folders:
            if os.path.isfile(folder / self.train):
                return folder
        raise InputError(
            f"There is no {self.train} in {' or '.join(map(str, folders))}; put it there, or change train."
        )

    def _read(self, path: Path) -> pd.DataFrame:
        """Return the columns of a file; ids are categorical, text or whole numbers, so that none stands there twice."""
        columns: dict[str, tuple[str, Kind]] = {"user": (self.user_column, str), "item": (self.item_column, str)}
        if self.time_column:
            columns["timestamp"] = (self.time_column, int)
        if path.suffix == ".parquet":
            frame = read_parquet(path, columns)
        else:
            separator = self.separator or _SEPARATORS.get(path.suffix, ",")
            frame = read_table(path, columns, separator=separator, quoted=separator == ",")
            frame = frame.astype({"user": "category", "item": "category"})
        for side in ("user", "item"):
            ids = frame[side].cat
            if ids.categories.dtype == np.int64:
                continue
            blank = np.flatnonzero(ids.categories.astype(str).str.strip() == "")
            if len(blank):
                line = frame.index[int(np.isin(ids.codes, blank).argmax())]
                raise InputError(
                    f"{path}, line {line}: {columns[side][0]!r} is blank; give the id, or take the row out."
                )
        return frame


def _joined(parts: list[pd.Series]) -> pd.Series:
    """Return the ids of all parts as numbers, so that they are ordered as such, if that changes none; else as text."""
    names = [_numbered(part.cat.categories) for part in parts]
    if any(ids.dtype != np.int64 for ids in names):
        names = [ids.astype(str) for ids in names]
    parts = [
        part.cat.rename_categories(ids)  # type: ignore[arg-type]  # the stubs forget an Index
        for part, ids in zip(parts, names, strict=True)
    ]
    return parts[0] if len(parts) == 1 else pd.Series(union_categoricals(parts))


def _part(ends: np.ndarray, row: Any) -> int:
    return int(np.searchsorted(ends, row, "right"))


def _numbered(ids: pd.Index) -> pd.Index:
    if ids.dtype == np.int64:
        return ids
    try:
        numbers = ids.astype("int64")
    except (ValueError, OverflowError):
        return ids
    return numbers if (numbers.astype(str) == ids.astype(str)).all() else ids
