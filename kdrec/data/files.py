"""Your own interactions: one file to be cut, or files that are cut already."""

import os
from pathlib import Path

import numpy as np
import pandas as pd

from kdrec.data.base import InteractionDataModule
from kdrec.data.interactions import Interactions
from kdrec.data.sampling import Samples
from kdrec.data.sources import folders_of
from kdrec.data.splits import Split, Splitter
from kdrec.data.tables import Kind, read_table
from kdrec.errors import InputError

_SEPARATORS = {".csv": ",", ".tsv": "\t", ".inter": "\t", ".txt": "\t"}


class InteractionFiles(InteractionDataModule):
    """Interactions from delimited text or Parquet, with a row for each pair and the columns' names in the first line.

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
        for file, frame in zip(files[1:], frames[1:], strict=True):
            strangers = ~frame["user"].isin(frames[0]["user"])
            if strangers.any():
                raise InputError(
                    f"{file}: user {frame['user'][strangers].iloc[0]} is not in {files[0]}, so nothing can be learned "
                    f"of them; take their rows out."
                )
        whole = pd.concat(frames, ignore_index=True)
        repeated = whole.duplicated(["user", "item"]).to_numpy()
        if repeated.any():
            user, item = whole.loc[repeated.argmax(), ["user", "item"]]
            places = [
                str(file)
                for file, frame in zip(files, frames, strict=True)
                for _ in range(int(((frame["user"] == user) & (frame["item"] == item)).sum()))
            ]
            raise InputError(f"User {user} and item {item} stand in {' and again in '.join(places)}; keep one of them.")
        return Interactions.from_frame(whole.assign(user=_numbered(whole["user"]), item=_numbered(whole["item"])))

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
        columns: dict[str, tuple[str, Kind]] = {"user": (self.user_column, str), "item": (self.item_column, str)}
        if self.time_column:
            columns["timestamp"] = (self.time_column, int)
        if path.suffix == ".parquet":
            frame = _read_parquet(path, columns)
        else:
            separator = self.separator or _SEPARATORS.get(path.suffix, ",")
            frame = read_table(path, columns, separator=separator, quoted=separator == ",")
        for side in ("user", "item"):
            blank = frame[side].str.strip() == ""
            if blank.any():
                raise InputError(
                    f"{path}, line {blank.idxmax()}: {columns[side][0]!r} is blank; give the id, or take the row out."
                )
        return frame


def _numbered(ids: pd.Series) -> pd.Series:
    """Return ids as numbers, so that they are ordered as such, if that changes none of them; else as they are."""
    try:
        numbers = ids.astype("int64")
    except (ValueError, OverflowError):
        return ids
    return numbers if (numbers.astype(str) == ids).all() else ids


def _read_parquet(path: Path, columns: dict[str, tuple[str, Kind]]) -> pd.DataFrame:
    """Read the columns of a Parquet file."""
    try:
        whole = pd.read_parquet(path)
    except ImportError:
        raise InputError(f"{path} needs pyarrow; install the extra with python -m pip install '.[parquet]'.") from None
    except (OSError, ValueError) as error:
        raise InputError(
            f"{path} cannot be read as Parquet ({str(error).splitlines()[0][:120]}); write it again or name another."
        ) from None
    missing = [source for source, _ in columns.values() if source not in whole]
    if missing:
        raise InputError(f"{path} has no column {missing[0]!r}; its columns are {', '.join(map(repr, whole.columns))}.")
    result = {}
    for name, (source, kind) in columns.items():
        column = whole[source]
        faulty = column.isna() if kind is str else pd.to_numeric(column, errors="coerce").pipe(lambda n: n % 1 != 0)
        if faulty.any():
            row = int(faulty.to_numpy().argmax())
            wanted = "an id" if kind is str else "a whole number"
            raise InputError(f"{path}, row {row}: {source!r} is {column.iloc[row]}, where {wanted} is needed.")
        result[name] = column.astype(str if kind is str else "int64")
    return pd.DataFrame(result)
