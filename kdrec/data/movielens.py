"""MovieLens, from the publisher's files or from RecBole's copy of them; both give the same pinned table."""

import hashlib
import re
from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import ClassVar

import pandas as pd

from kdrec.data.base import InteractionDataModule
from kdrec.data.interactions import Interactions
from kdrec.data.sources import Archive, Source, Wheel, obtain
from kdrec.data.tables import Kind, read_ratings, read_table
from kdrec.errors import InputError

_ADDRESS = "https://files.grouplens.org/datasets/movielens/"
_GENRES = (
    "unknown", "Action", "Adventure", "Animation", "Children's", "Comedy", "Crime", "Documentary", "Drama", "Fantasy",
    "Film-Noir", "Horror", "Musical", "Mystery", "Romance", "Sci-Fi", "Thriller", "War", "Western",
)  # fmt: skip


def ratings_digest(ratings: pd.DataFrame) -> str:
    """Return the SHA-256 of a rating table, whatever the order of its rows and the format it was read from."""
    ordered = ratings.sort_values(["user", "item"])
    state = hashlib.sha256()
    for column in ("user", "item", "timestamp"):
        state.update(ordered[column].to_numpy(dtype="<i8").tobytes())
    state.update(ordered["rating"].to_numpy(dtype="<f8").tobytes())
    return state.hexdigest()


class MovieLensDataModule(InteractionDataModule):
    """What the MovieLens editions share: every rating counts as one interaction, whatever its stars.

    The licence forbids redistribution, so the data is fetched, verified against a pinned digest, and never packaged.
    Items carry titles, genres (separated by ``|``) and year.

    Reference: Harper and Konstan, The MovieLens Datasets: History and Context, ACM TiiS 5(4), 2015.
    """

    ratings_sha256: ClassVar[str]
    """`ratings_digest` of the edition; the same for every source."""
    sources: ClassVar[Sequence[Source]]

    @abstractmethod
    def formats(self) -> Mapping[str, Callable[[Path], Interactions]]:
        """Return the rating file that marks each format -> the reader of a folder in that format."""

    def load(self) -> Interactions:
        """As `InteractionDataModule.load`."""
        return obtain(self.name, self.root, self._find, self.sources)

    def _find(self, folder: Path) -> Callable[[], Interactions] | None:
        for marker, read in self.formats().items():
            if (folder / marker).is_file():
                return lambda read=read: read(folder)  # type: ignore[misc]
        return None

    def _ratings(
        self, path: Path, columns: Sequence[str], *, separator: str, header: Sequence[str] | None = None
    ) -> pd.DataFrame:
        """Read user, item, rating and timestamp, and insist that they are the published ones."""
        kinds: tuple[Kind, ...] = (int, int, float, int)
        named = zip(("user", "item", "rating", "timestamp"), zip(columns, kinds, strict=True), strict=True)
        ratings = read_ratings(path, dict(named), separator=separator, header=header)
        if ratings_digest(ratings) != self.ratings_sha256:
            raise InputError(
                f"{path} is not the published {self.name}: its {len(ratings)} ratings differ; "
                f"delete {path.parent} to fetch it again."
            )
        return ratings


class MovieLens100K(MovieLensDataModule):
    """MovieLens-100k: 100,000 ratings of 1,682 films by 943 users; users carry age, gender and occupation.

    Args:
        root: Folder of all data sets; this one lives in ``root/ml-100k``. If it is not there, ``$KDREC_DATA/ml-100k``
            is taken, then the publisher's archive, then the copy in the public package recbole.
        splitter: How to cut into train, validation and test. Default: leave-one-out by time.
        batch_size: Training pairs a step and process.
        num_negatives: Items drawn for each training pair, fresh every epoch.
        eval_batch_size: Users ranked at once; bounds the memory of an evaluation.
        samples: What an epoch draws: "pairs" in any order; "histories", the pairs of a user one after the other, which
            suits methods that work user by user; or "users", each once with one of their items by chance.
    """

    name = "ml-100k"
    ratings_sha256 = "bf6a3ea9509abb5cd75d8ff665492e26ab1e28f00739ce980a596c5f5ee3cc29"
    sources = (
        Archive(
            _ADDRESS + "ml-100k.zip",
            sha256="50d2a982c66986937beb9ffb3aa76efe955bf3d5c6b761f4e3a7cd717c6a3229",
            members={f"ml-100k/{file}": file for file in ("u.data", "u.item", "u.user")},
        ),
        Wheel(
            "recbole",
            "1.2.1",
            sha256="9c9948202011f37eb0a7c6768129313f00d6403ad221ec940d5e2d5d5f33a407",
            members={
                f"recbole/dataset_example/ml-100k/{file}": file
                for file in ("ml-100k.inter", "ml-100k.item", "ml-100k.user")
            },
        ),
    )

    def formats(self) -> Mapping[str, Callable[[Path], Interactions]]:
        """As `MovieLensDataModule.formats`."""
        return {"u.data": self._read_published, "ml-100k.inter": self._read_atomic}

    def _read_published(self, folder: Path) -> Interactions:
        header = ("user", "item", "rating", "timestamp")
        ratings = self._ratings(folder / "u.data", header, separator="\t", header=header)
        fields = ("item", "title", "date", "video", "link", *_GENRES)
        columns: dict[str, tuple[str, Kind]] = {name: (name, str) for name in ("title", *_GENRES)}
        films = read_table(
            folder / "u.item", {"item": ("item", int), **columns}, separator="|", header=fields, encoding="latin-1"
        ).set_index("item")
        genres = pd.Series(
            [
                "|".join(g for g, has in zip(_GENRES, row, strict=True) if has == "1")
                for row in films[[*_GENRES]].to_numpy()
            ],
            index=films.index,
        )
        users = read_table(
            folder / "u.user", _USER_COLUMNS, separator="|", header=("user", "age", "gender", "occupation", "zip")
        )
        return _assemble(ratings, films["title"], genres, users)

    def _read_atomic(self, folder: Path) -> Interactions:
        columns = ("user_id:token", "item_id:token", "rating:float", "timestamp:float")
        ratings = self._ratings(folder / "ml-100k.inter", columns, separator="\t")
        films = read_table(
            folder / "ml-100k.item",
            {
                "item": ("item_id:token", int),
                "title": ("movie_title:token_seq", str),
                "year": ("release_year:token", str),
                "genres": ("class:token_seq", str),
            },
            separator="\t",
        ).set_index("item")
        # the copy misspells the one film that has no name; "year" is whatever the title's last brackets hold
        titles = (films["title"] + " (" + films["year"] + ")").where(films["title"] != "unkonwn", "unknown")
        columns_of = {name: (f"{source}:token", kind) for name, (source, kind) in _USER_COLUMNS.items()}
        columns_of["user"] = ("user_id:token", int)
        users = read_table(folder / "ml-100k.user", columns_of, separator="\t")
        return _assemble(ratings, titles, films["genres"].str.replace(" ", "|"), users)


class MovieLensSmall(MovieLensDataModule):
    """MovieLens latest-small: 100,836 ratings of 9,724 films by 610 users; nothing is known of the users.

    Args:
        root: Folder of all data sets; this one lives in ``root/ml-latest-small``. If it is not there,
            ``$KDREC_DATA/ml-latest-small`` is taken, then the publisher's archive.
        splitter: How to cut into train, validation and test. Default: leave-one-out by time.
        batch_size: Training pairs a step and process.
        num_negatives: Items drawn for each training pair, fresh every epoch.
        eval_batch_size: Users ranked at once; bounds the memory of an evaluation.
        samples: What an epoch draws: "pairs" in any order; "histories", the pairs of a user one after the other, which
            suits methods that work user by user; or "users", each once with one of their items by chance.
    """

    name = "ml-latest-small"
    ratings_sha256 = "1250598b5983a40fc176f0e0bac67edbb00c8c0597e4cae8fbaddb8e9febc9c4"
    sources = (
        Archive(
            _ADDRESS + "ml-latest-small.zip",
            sha256="696d65a3dfceac7c45750ad32df2c259311949efec81f0f144fdfb91ebc9e436",
            members={f"ml-latest-small/{file}": file for file in ("ratings.csv", "movies.csv")},
        ),
    )

    def formats(self) -> Mapping[str, Callable[[Path], Interactions]]:
        """As `MovieLensDataModule.formats`."""
        return {"ratings.csv": self._read}

    def _read(self, folder: Path) -> Interactions:
        columns = ("userId", "movieId", "rating", "timestamp")
        ratings = self._ratings(folder / "ratings.csv", columns, separator=",")
        films = read_table(
            folder / "movies.csv",
            {"item": ("movieId", int), "title": ("title", str), "genres": ("genres", str)},
            quoted=True,
        ).set_index("item")
        return _assemble(ratings, films["title"], films["genres"].replace("(no genres listed)", "unknown"))


_USER_COLUMNS: dict[str, tuple[str, Kind]] = {
    "user": ("user", int),
    "age": ("age", int),
    "gender": ("gender", str),
    "occupation": ("occupation", str),
}


def _assemble(
    ratings: pd.DataFrame, titles: pd.Series, genres: pd.Series, users: pd.DataFrame | None = None
) -> Interactions:
    """Join the tables; the year is the last one that a title gives in brackets, 0 where it gives none."""
    years = titles.map(lambda title: int(found[-1]) if (found := re.findall(r"\((\d{4})\)", title)) else 0)
    return Interactions.from_frame(
        ratings,
        item_titles=titles,
        item_features=pd.DataFrame({"genres": genres, "year": years}),
        user_features=None if users is None else users.set_index("user"),
    )
