"""CiteULike, scientific articles in people's libraries: the data of the distillation literature."""

from collections.abc import Callable
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np
import pandas as pd

from kdrec.data.base import InteractionDataModule
from kdrec.data.interactions import Interactions
from kdrec.data.sampling import Samples
from kdrec.data.sources import Download, Source, obtain
from kdrec.data.splits import LeaveOneOut, Splitter
from kdrec.errors import InputError

_ADDRESS = "https://raw.githubusercontent.com/js05212/citeulike-t/master/"
_SOURCES: dict[str, tuple[Source, ...]] = {
    "t": (
        Download(
            {
                "users.dat": (
                    _ADDRESS + "users.dat",
                    "02d5d429b2c0362e0ed79f6ef204666b4092563d21493abf4dfb521e8a7078bf",
                ),
                "tag-item.dat": (
                    _ADDRESS + "tag-item.dat",
                    "e2b80fc0e023780b63c00a397a2d0934eff6dbaf8a1b918778698361dae7ce6b",
                ),
            }
        ),
    ),
    "a": (),
}
_PAIRS = {"t": 134_860, "a": 204_986}
_ARTICLES = {"t": 25_975, "a": 16_980}


class CiteULike(InteractionDataModule):
    """CiteULike: 7,947 users and 25,975 articles (t), or 5,551 and 16,980 (a); articles carry tags.

    A user's row lists articles in the order of their ids, and there are no times: what to hold out is drawn by chance.
    Tags were given by the site's users, and by whom is not known: a held-out pair may have left its tags behind.

    Args:
        root: Folder of all data sets; this one lives in ``root/citeulike-t`` or ``-a``. If it is not there,
            ``$KDREC_DATA`` is taken, and for t the publisher's repository; a must be put there by hand.
        variant: Which of the publisher's two collections.
        splitter: How to cut into train, validation and test. Default: leave-one-out by chance, seed 0, users with at
            least 5 articles.
        batch_size: Training pairs a step and process.
        num_negatives: Items drawn for each training pair, fresh every epoch.
        eval_batch_size: Users ranked at once; bounds the memory of an evaluation.
        samples: What an epoch draws: "pairs" in any order; "histories", the pairs of a user one after the other, which
            suits methods that work user by user; or "users", each once with one of their items by chance.

    References:
        Wang, Chen and Li: Collaborative Topic Regression with Social Regularization for Tag Recommendation, IJCAI 2013.
    """

    name = "citeulike-t"
    default_splitter: ClassVar[Splitter] = LeaveOneOut("random", min_interactions=5)

    def __init__(
        self,
        root: str = "data",
        variant: Literal["t", "a"] = "t",
        splitter: Splitter | None = None,
        batch_size: int = 1024,
        num_negatives: int = 1,
        eval_batch_size: int = 256,
        samples: Samples = "pairs",
    ) -> None:
        super().__init__(root, splitter, batch_size, num_negatives, eval_batch_size, samples)
        self.variant = variant
        self.name = f"citeulike-{variant}"

    def load(self) -> Interactions:
        """As `InteractionDataModule.load`."""
        return obtain(self.name, self.root, self._find, _SOURCES[self.variant])

    def _find(self, folder: Path) -> Callable[[], Interactions] | None:
        return (lambda: self._read(folder)) if (folder / "users.dat").is_file() else None

    def _read(self, folder: Path) -> Interactions:
        users, items = read_lists(folder / "users.dat")
        if len(users) != _PAIRS[self.variant]:
            raise InputError(
                f"{folder / 'users.dat'} is not the published {self.name}: it has {len(users)} pairs where "
                f"{_PAIRS[self.variant]} are published; delete {folder} to fetch it again."
            )
        if items.max() >= _ARTICLES[self.variant]:
            line = users[items.argmax()] + 1
            raise InputError(
                f"{folder / 'users.dat'}, line {line}: {items.max()} is out of range, as {self.name} has articles "
                f"0..{_ARTICLES[self.variant] - 1}; delete {folder} to fetch it again."
            )
        frame = pd.DataFrame({"user": users, "item": items})
        tags_file = folder / "tag-item.dat"
        features = _tags(tags_file, np.unique(items)) if tags_file.is_file() else None
        return Interactions.from_frame(frame, item_features=features)


def read_lists(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Read a file whose row r is a count and that many ids.

    Returns:
        (rows, ids): one entry for each id, both int64 and counted from 0.

    Raises:
        InputError: If the file is unreadable or empty, a row holds what is no whole number, an id twice, below 0 or of
            2**31 or more, or its count disagrees with its ids.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path} cannot be read ({error}).") from None
    rows, ids = [], []
    for number, line in enumerate(lines, start=1):
        try:
            count, *listed = map(int, line.split())
        except ValueError:
            raise InputError(f"{path}, line {number}: {line[:60]!r} is not a count and that many ids.") from None
        if count != len(listed):
            raise InputError(f"{path}, line {number}: it says {count} ids and lists {len(listed)}; get the file again.")
        if len(set(listed)) != len(listed) or min(listed, default=0) < 0 or max(listed, default=0) >= 1 << 31:
            raise InputError(
                f"{path}, line {number}: an id is negative or stands there twice, or is too large; get the file again."
            )
        rows.append(np.full(count, number - 1, dtype=np.int64))
        ids.append(np.array(listed, dtype=np.int64))
    if not rows:
        raise InputError(f"{path} is empty; get the file again or name another folder.")
    return np.concatenate(rows), np.concatenate(ids)


def _tags(path: Path, items: np.ndarray) -> pd.DataFrame:
    """Return for each item its tags' numbers, separated by ``|``; row t of the file lists the items that bear tag t."""
    tags, bearers = read_lists(path)
    joined = pd.Series(tags.astype(str)).groupby(bearers).agg("|".join)
    return pd.DataFrame({"tags": joined.reindex(items, fill_value="")})
