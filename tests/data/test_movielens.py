from pathlib import Path

import pandas as pd
import pytest

from kdrec.data.interactions import Interactions
from kdrec.data.movielens import _GENRES, MovieLens100K, MovieLensSmall, ratings_digest
from kdrec.errors import InputError

RATINGS = pd.DataFrame(
    [(1, 3, 5.0, 50), (1, 1, 3.0, 40), (1, 11, 1.0, 30), (12, 3, 4.0, 10), (12, 20, 2.0, 60), (2, 1, 3.0, 20)],
    columns=["user", "item", "rating", "timestamp"],
)
USERS = [(1, 24, "M", "technician", "85711"), (2, 53, "F", "other", "94043"), (12, 28, "F", "other", "06405")]
# item, published title, genres, title and year as RecBole's copy has them; film 30 is rated by nobody
FILMS = [
    (1, "Toy Story (1995)", ["Animation", "Children's", "Comedy"], "Toy Story", "1995"),
    (3, "Cérémonie, La (1995)", ["Drama"], "Cérémonie, La", "1995"),
    (11, "unknown", ["unknown"], "unkonwn", "unkonwn"),
    (20, 'Land Before "Time" III (1995) (V)', ["Animation", "Sci-Fi"], 'Land Before "Time" III (1995)', "V"),
    (30, "2001: A Space Odyssey (1968)", ["Sci-Fi"], "2001: A Space Odyssey", "1968"),
]
TITLES = ["Toy Story (1995)", "Cérémonie, La (1995)", "unknown", 'Land Before "Time" III (1995) (V)']
GENRES = ["Animation|Children's|Comedy", "Drama", "unknown", "Animation|Sci-Fi"]


def rows(table: pd.DataFrame, separator: str, rating: str = "{:g}") -> str:
    return "".join(
        separator.join((str(user), str(item), rating.format(stars), str(time))) + "\n"
        for user, item, stars, time in table.itertuples(index=False)
    )


def write_published(root: Path, ratings: pd.DataFrame = RATINGS) -> None:
    folder = root / "ml-100k"
    folder.mkdir(parents=True)
    (folder / "u.data").write_text(rows(ratings, "\t"))
    (folder / "u.item").write_bytes(
        "".join(
            "|".join([str(item), title, "01-Jan-1995", "", "http://x", *(str(int(g in genres)) for g in _GENRES)])
            + "\n"
            for item, title, genres, *_ in FILMS
        ).encode("latin-1")
    )
    (folder / "u.user").write_text("".join("|".join(map(str, user)) + "\n" for user in USERS))


def write_atomic(root: Path, ratings: pd.DataFrame = RATINGS) -> None:
    folder = root / "ml-100k"
    folder.mkdir(parents=True)
    header = "user_id:token\titem_id:token\trating:float\ttimestamp:float\n"
    (folder / "ml-100k.inter").write_text(header + rows(ratings.iloc[::-1], "\t"))  # in another order
    (folder / "ml-100k.item").write_text(
        "item_id:token\tmovie_title:token_seq\trelease_year:token\tclass:token_seq\n"
        + "".join("\t".join((str(item), title, year, " ".join(g))) + "\n" for item, _, g, title, year in FILMS),
        encoding="utf-8",
    )
    (folder / "ml-100k.user").write_text(
        "user_id:token\tage:token\tgender:token\toccupation:token\tzip_code:token\n"
        + "".join("\t".join(map(str, user)) + "\n" for user in USERS)
    )


def write_small(root: Path, ratings: pd.DataFrame = RATINGS) -> None:
    folder = root / "ml-latest-small"
    folder.mkdir(parents=True)
    (folder / "ratings.csv").write_text("userId,movieId,rating,timestamp\r\n" + rows(ratings, ",", "{:.1f}"))
    (folder / "movies.csv").write_text(
        "movieId,title,genres\n"
        '1,Toy Story (1995),Adventure|Animation\n11,"American President, The (1995)",(no genres listed)\n'
        '3,"Say ""No"" (1900) (2012)",Drama\n20,Cosmos,Documentary\n',
        encoding="utf-8",
    )


@pytest.fixture(autouse=True)
def _pinned(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    """Let the tiny table be the published one, and nothing be downloaded."""
    if "slow" not in request.keywords:
        for edition in (MovieLens100K, MovieLensSmall):
            monkeypatch.setattr(edition, "ratings_sha256", ratings_digest(RATINGS))
            monkeypatch.setattr(edition, "sources", ())


def test_digest_of_ratings() -> None:
    digest = ratings_digest(RATINGS)
    assert ratings_digest(RATINGS.sample(frac=1, random_state=0)) == digest
    assert ratings_digest(RATINGS.astype({"rating": int})) == digest
    for column in RATINGS:
        changed = RATINGS.copy()
        changed.loc[2, column] += 100
        assert ratings_digest(changed) != digest


def check_100k(log: Interactions) -> None:
    assert log.user_ids.tolist() == ["1", "2", "12"]
    assert log.item_ids.tolist() == ["1", "3", "11", "20"]
    found = pd.DataFrame(
        {
            "user": log.user_ids[log.users].astype(int),
            "item": log.item_ids[log.items].astype(int),
            "time": log.timestamps,
        }
    )
    expected = RATINGS[["user", "item", "timestamp"]].rename(columns={"timestamp": "time"})
    pd.testing.assert_frame_equal(
        found.sort_values(["user", "item"], ignore_index=True),
        expected.sort_values(["user", "item"], ignore_index=True),
    )
    assert log.item_titles is not None
    assert log.item_titles.tolist() == TITLES
    assert log.item_features is not None
    assert log.item_features["genres"].tolist() == GENRES
    assert log.item_features["year"].tolist() == [1995, 1995, 0, 1995]
    assert log.user_features is not None
    assert log.user_features.to_dict("list") == {
        "age": [24, 53, 28],
        "gender": ["M", "F", "F"],
        "occupation": ["technician", "other", "other"],
    }


def test_published_files(tmp_path: Path) -> None:
    write_published(tmp_path)
    check_100k(MovieLens100K(str(tmp_path)).load())


def test_copied_files(tmp_path: Path) -> None:
    write_atomic(tmp_path)
    check_100k(MovieLens100K(str(tmp_path)).load())


def test_both_formats_are_equal(tmp_path: Path) -> None:
    write_published(tmp_path / "published")
    write_atomic(tmp_path / "copied")
    one, other = (MovieLens100K(str(tmp_path / name)) for name in ("published", "copied"))
    assert one.load().digest == other.load().digest
    pd.testing.assert_frame_equal(one.load().item_features, other.load().item_features)  # type: ignore[arg-type]
    pd.testing.assert_frame_equal(one.load().user_features, other.load().user_features)  # type: ignore[arg-type]
    assert one.protocol == other.protocol == "ml-100k/leave-one-out-time-min3"


def test_split_by_time(tmp_path: Path) -> None:
    write_published(tmp_path)
    split = MovieLens100K(str(tmp_path)).split  # only user 1 has 3 pairs: film 11 at 30, 1 at 40, 3 at 50
    assert split.train.item_ids.tolist() == ["1", "3", "11"]
    assert [part.items.tolist() for part in (split.train, split.valid, split.test)] == [[2], [0], [1]]


def test_small_files(tmp_path: Path) -> None:
    write_small(tmp_path)
    log = MovieLensSmall(str(tmp_path)).load()
    assert log.item_ids.tolist() == ["1", "3", "11", "20"]
    assert log.item_titles is not None
    assert log.item_titles.tolist() == [
        "Toy Story (1995)", 'Say "No" (1900) (2012)', "American President, The (1995)", "Cosmos",
    ]  # fmt: skip
    assert log.item_features is not None
    assert log.item_features["genres"].tolist() == ["Adventure|Animation", "Drama", "unknown", "Documentary"]
    assert log.item_features["year"].tolist() == [1995, 2012, 1995, 0]
    assert log.user_features is None


@pytest.mark.parametrize(
    ("edition", "write", "file"),
    [
        (MovieLens100K, write_published, "u.data"),
        (MovieLens100K, write_atomic, "ml-100k.inter"),
        (MovieLensSmall, write_small, "ratings.csv"),
    ],
)
@pytest.mark.parametrize("change", ["rating", "timestamp", "one row less"])
def test_changed_rating(tmp_path: Path, edition: type, write: object, file: str, change: str) -> None:
    ratings = RATINGS.copy()
    if change == "one row less":
        ratings = ratings[:-1]
    else:
        ratings.loc[3, change] += 1
    write(tmp_path, ratings)  # type: ignore[operator]
    message = rf"{file} is not the published {edition.name}: its {len(ratings)} ratings differ; delete .*{edition.name}"
    with pytest.raises(InputError, match=message):
        edition(str(tmp_path)).load()


def test_damaged_film_table(tmp_path: Path) -> None:
    write_small(tmp_path)
    films = tmp_path / "ml-latest-small/movies.csv"
    films.write_text(films.read_text() + "20,Cosmos again,Documentary\n")
    with pytest.raises(InputError, match="20"):
        MovieLensSmall(str(tmp_path)).load()


@pytest.mark.parametrize("file", ["u.item", "u.user"])
def test_missing_side_table(tmp_path: Path, file: str) -> None:
    write_published(tmp_path)
    (tmp_path / "ml-100k" / file).unlink()
    with pytest.raises(InputError, match=rf"{file} cannot be read: No such file"):
        MovieLens100K(str(tmp_path)).load()


def test_user_without_a_row(tmp_path: Path) -> None:
    write_published(tmp_path)
    users = tmp_path / "ml-100k/u.user"
    users.write_text("".join(users.read_text().splitlines(keepends=True)[:-1]))
    with pytest.raises(InputError, match="12"):
        MovieLens100K(str(tmp_path)).load()


def test_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_published(tmp_path / "elsewhere")
    monkeypatch.setenv("KDREC_DATA", str(tmp_path / "elsewhere"))
    assert len(MovieLens100K(str(tmp_path / "data")).load()) == 6


def test_not_there(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="ml-100k could not be had from any source"):
        MovieLens100K(str(tmp_path)).load()


def test_sources_are_pinned_and_secure() -> None:
    for edition in (MovieLens100K, MovieLensSmall):
        for source in vars(edition).get("sources", ()):
            assert len(source.sha256) == 64
            assert str(source).startswith(("https://", "the package"))


@pytest.mark.slow
def test_real_data(tmp_path: Path) -> None:
    """From $KDREC_DATA where that has it, else by download."""
    data = MovieLens100K(str(tmp_path))
    log = data.load()
    assert (len(log), log.num_users, log.num_items) == (100_000, 943, 1682)
    assert len(data.split.train) == 98_114  # 100,000 - 2 * 943
    assert log.item_titles is not None
    assert log.item_titles[[0, 266, 1411]].tolist() == [
        "Toy Story (1995)", "unknown", "Land Before Time III: The Time of the Great Giving (1995) (V)",
    ]  # fmt: skip
    assert log.user_features is not None
    assert log.user_features.iloc[0].to_dict() == {"age": 24, "gender": "M", "occupation": "technician"}
