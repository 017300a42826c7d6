"""Tables of ratings, in every format that kdrec reads."""

import io
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import pandas as pd
from hypothesis import strategies as st

from kdrec.data import citeulike
from kdrec.data.citeulike import read_lists
from kdrec.data.files import InteractionFiles
from kdrec.data.interactions import Interactions
from kdrec.data.movielens import MovieLens100K, MovieLensSmall, ratings_digest
from kdrec.data.sources import Source
from kdrec.data.splits import LeaveOneOut
from kdrec.data.tables import Kind, read_ratings, read_table
from kdrec.errors import InputError
from tests.data import test_movielens as written
from tests.hostile.inputs import damaged, mangled
from tests.hostile.readers import Reader

COLUMNS: dict[str, tuple[str, Kind]] = {
    "user": ("user_id", int), "item": ("item_id", str), "rating": ("stars", float), "timestamp": ("time", int),
}  # fmt: skip
HEADER = ("user_id", "item_id", "stars", "time")
QUOTED = b'user_id,item_id,stars,time\r\n1,"a, ""b""",4.5,9\r\n1,x,2,8\r\n2,x,.5,7\r\n2,y,5,7\r\n'
PLAIN = QUOTED.replace(b'"a, ""b"""', b"a")
RATINGS = "".join(f"{user},{item},{item % 5},{user * item}\n" for user in range(1, 5) for item in range(1, 6)).encode()


def _table(given: tuple[dict[str, Any], bytes]) -> None:
    path = Path("table.csv")
    path.write_bytes(given[1])
    frame = read_table(path, COLUMNS, **given[0])
    assert not frame.isna().any().any()


def _ratings(content: bytes) -> None:
    path = Path("ratings.dat")
    path.write_bytes(content)
    frame = read_ratings(path, COLUMNS, separator="::", header=HEADER)
    assert not frame.isna().any().any()
    LeaveOneOut("time")(Interactions.from_frame(frame))


class _Published(MovieLens100K):
    ratings_sha256 = ratings_digest(written.RATINGS)
    sources: ClassVar[Sequence[Source]] = ()


class _Small(MovieLensSmall):
    ratings_sha256 = ratings_digest(written.RATINGS)
    sources: ClassVar[Sequence[Source]] = ()


def _movielens(name: str, kind: type[MovieLens100K | MovieLensSmall], write: object, *files: str) -> Reader:
    """A reader of a folder in which one file is damaged."""
    made: dict[str, bytes] = {}

    def sound(file: str) -> bytes:
        if not made:
            with tempfile.TemporaryDirectory() as root:
                write(Path(root))  # type: ignore[operator]
                made.update({path.name: path.read_bytes() for path in Path(root, kind.name).iterdir()})
        return made[file]

    def read(given: tuple[str, bytes]) -> None:
        folder = Path("data", kind.name)
        folder.mkdir(parents=True)
        for file in files:
            (folder / file).write_bytes(given[1] if file == given[0] else sound(file))
        found = kind(root="data").load()
        assert len(found) == len(written.RATINGS)
        assert [*Path().rglob("*.dat")] == []

    return Reader(
        name,
        st.deferred(
            lambda: st.one_of(
                *(st.tuples(st.just(file), damaged(sound(file))) for file in (*files, *files[1:], *files[1:]))
            )
        ),
        read,
    )


def _citeulike(given: tuple[bytes, bytes]) -> None:
    folder = Path("data", "citeulike-a")
    folder.mkdir(parents=True)
    for name, content in zip(("users.dat", "tag-item.dat"), given, strict=True):
        (folder / name).write_bytes(content)
    try:
        users, items = read_lists(folder / "users.dat")
        assert len(users) == len(items)
    finally:
        pairs, citeulike._PAIRS["a"] = citeulike._PAIRS["a"], 6
        articles, citeulike._ARTICLES["a"] = citeulike._ARTICLES["a"], 12
        try:
            citeulike.CiteULike(root="data", variant="a").load()
        finally:
            citeulike._PAIRS["a"], citeulike._ARTICLES["a"] = pairs, articles


def _own(suffix: str, **options: str) -> object:
    def read(content: bytes) -> None:
        folder = Path("data", "mine")
        folder.mkdir(parents=True)
        (folder / f"log{suffix}").write_bytes(content)
        data = InteractionFiles("mine", f"log{suffix}", root="data", time_column="time", **options)  # type: ignore[arg-type]
        assert len(data.split.train.digest) == 64

    return read


PARTS = [b"user_id\titem_id\n" + b"".join(b"u%d\t%d\n" % (u, u + part) for u in range(4)) for part in range(3)]


def _parts(given: tuple[bytes, ...]) -> None:
    folder = Path("data", "mine")
    folder.mkdir(parents=True)
    for name, content in zip(("a.tsv", "b.tsv", "c.tsv"), given, strict=True):
        (folder / name).write_bytes(content)
    assert InteractionFiles("mine", "a.tsv", "b.tsv", "c.tsv", root="data").split.test.num_users


def _parquet(columns: dict[str, list[object]]) -> bytes:
    content = io.BytesIO()
    pd.DataFrame(columns).to_parquet(content)
    return content.getvalue()


LOG = {"user_id": ["1"] * 4 + ["2"] * 4, "item_id": [1, 2, 3, 4] * 2, "time": [5, 6, 7, 8] * 2}
_frames = mangled(LOG, (b"bytes", pd.Timestamp(0), 1 + 2j, float("nan")))


def _frame(columns: object) -> None:
    try:
        content = _parquet(columns)  # type: ignore[arg-type]
    except Exception as error:  # pyarrow cannot hold it, so nobody can hand it to kdrec
        raise InputError("There is no such Parquet file.") from error
    _own(".parquet")(content)  # type: ignore[operator]


_log = b"user_id,item_id,time\n" + b"".join(b"%d,%d,%d\n" % (u, i, u + i) for u in range(3) for i in range(4))
_lists = (b"2 5 1\n1 3\n3 0 5 11\n", b"1 5\n0\n2 1 5\n")
_ways: tuple[dict[str, Any], ...] = ({}, {"quoted": True}, {"header": HEADER})

READERS = (
    Reader("tables", st.tuples(st.sampled_from(_ways), damaged(PLAIN, QUOTED)), _table),
    Reader("ratings with ::", damaged(RATINGS.replace(b",", b"::")), _ratings),
    _movielens("MovieLens-100k as published", _Published, written.write_published, "u.data", "u.item", "u.user"),
    _movielens(
        "MovieLens-100k as atomic files", _Published, written.write_atomic,
        "ml-100k.inter", "ml-100k.item", "ml-100k.user",
    ),
    _movielens("MovieLens latest-small", _Small, written.write_small, "ratings.csv", "movies.csv"),
    Reader("CiteULike", st.tuples(damaged(_lists[0]), damaged(_lists[1])), _citeulike),
    Reader("own CSV", damaged(_log), _own(".csv")),  # type: ignore[arg-type]
    Reader("own ready-made TSV", st.tuples(*(damaged(part) for part in PARTS)), _parts),
    Reader("own Parquet, bytes", st.deferred(lambda: damaged(_parquet(LOG))), _own(".parquet")),  # type: ignore[arg-type]
    Reader("own Parquet, values", _frames, _frame),
)  # fmt: skip
