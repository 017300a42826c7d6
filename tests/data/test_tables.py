from pathlib import Path

import pandas as pd
import pytest

from kdrec.data.tables import Kind, read_ratings, read_table
from kdrec.errors import InputError

COLUMNS: dict[str, tuple[str, Kind]] = {"user": ("userId", int), "item": ("movieId", str), "rating": ("stars", float)}
GOOD = b"movieId,userId,stars,ignored\nx,3,4.5,q\ny,3,2,q\nx,1,.5,q\n"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "table.csv"


def read(path: Path, content: bytes, **options: object) -> pd.DataFrame:
    path.write_bytes(content)
    return read_table(path, COLUMNS, **options)  # type: ignore[arg-type]


def test_good_table(path: Path) -> None:
    table = read(path, GOOD)
    assert table.to_dict("list") == {"user": [3, 3, 1], "item": ["x", "y", "x"], "rating": [4.5, 2.0, 0.5]}
    assert table["user"].dtype == "int64"
    assert table["rating"].dtype == "float64"


@pytest.mark.parametrize(
    "content",
    [
        GOOD.replace(b"\n", b"\r\n"),
        b"\xef\xbb\xbf" + GOOD,
        b"\xef\xbb\xbf" + GOOD.replace(b"\n", b"\r\n"),
        GOOD.rstrip(b"\n"),
        GOOD + b"\n",
    ],
    ids=["windows", "mark", "both", "no last line end", "empty last line"],
)
def test_same_table(path: Path, content: bytes) -> None:
    pd.testing.assert_frame_equal(read(path, content), read(path, GOOD))


def test_header_given(path: Path) -> None:
    table = read(path, b"5\tx\t1\r\n6\ty\t2\r\n", separator="\t", header=("userId", "movieId", "stars"))
    assert table.to_dict("list") == {"user": [5, 6], "item": ["x", "y"], "rating": [1.0, 2.0]}


def test_mark_where_the_header_is_given(path: Path) -> None:
    table = read(path, b"\xef\xbb\xbfx\t5\t1\n", separator="\t", header=("movieId", "userId", "stars"))
    assert table.to_dict("list") == {"user": [5], "item": ["x"], "rating": [1.0]}


def test_separator_of_two_characters(path: Path) -> None:
    table = read(path, b"5::x::1\n6::y::2\n", separator="::", header=("userId", "movieId", "stars"))
    assert table.to_dict("list") == {"user": [5, 6], "item": ["x", "y"], "rating": [1.0, 2.0]}


def test_quotation_marks(path: Path) -> None:
    content = b'userId,movieId,stars\n1,"Good, Bad",3\n'
    assert read(path, content, quoted=True)["item"].tolist() == ["Good, Bad"]
    content = b'userId,movieId,stars\n1,"Good,3\n2,Bad",4\n'
    assert read(path, content)["item"].tolist() == ['"Good', 'Bad"']


def test_text_that_looks_like_nothing(path: Path) -> None:
    content = b"userId,movieId,stars\n1,NA,3\n2,null,3\n3,,3\n4,007,3\n"
    assert read(path, content)["item"].tolist() == ["NA", "null", "", "007"]


def test_encoding(path: Path) -> None:
    content = b"userId,movieId,stars\n1,Am\xe9lie,3\n"
    assert read(path, content, encoding="latin-1")["item"].tolist() == ["Amélie"]
    with pytest.raises(InputError, match=r"table\.csv is not utf-8.*save it as UTF-8"):
        read(path, content)


def test_missing_column(path: Path) -> None:
    with pytest.raises(
        InputError, match=r"table\.csv has no column 'userId'; its columns are 'user', 'movieId', 'stars'"
    ):
        read(path, b"user,movieId,stars\n1,x,2\n")


def test_wrong_separator_is_named(path: Path) -> None:
    with pytest.raises(InputError, match=r"no column 'userId'.*separated by '\\t'"):
        read(path, GOOD, separator="\t")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"userId,movieId,stars\n1,x,2\n2,y,good\n", "line 3: 'stars' is 'good', where a number is needed"),
        (b"userId,movieId,stars\n1.5,x,2\n", "line 2: 'userId' is '1.5', where a whole number is needed"),
        (b"userId,movieId,stars\n1,x,2\n,y,2\n", "line 3: 'userId' is '', where a whole number is needed"),
        (b"userId,movieId,stars\ninf,x,2\n", "line 2: 'userId' is 'inf', where a whole number is needed"),
        (b"userId,movieId,stars\n1,x,nan\n", "line 2: 'stars' is 'nan', where a number is needed"),
        (b"userId,movieId,stars\n0x1F,x,2\n", "line 2: 'userId' is '0x1F'"),
        (b"userId,movieId,stars\r\n1,x,2\r\nu,y,2\r\n", "line 3: 'userId' is 'u'"),
        (b"userId,movieId,stars\n1,x,2\n\nu,y,2\n", "line 4: 'userId' is 'u'"),
    ],
    ids=["word", "fraction", "nothing", "infinite", "nan", "hexadecimal", "windows", "after an empty line"],
)
def test_no_number(path: Path, content: bytes, message: str) -> None:
    with pytest.raises(InputError, match=message):
        read(path, content)


def test_no_number_where_the_header_is_given(path: Path) -> None:
    with pytest.raises(InputError, match="line 1: 'userId' is 'u'"):
        read(path, b"u,x,2\n", header=("userId", "movieId", "stars"))


@pytest.mark.parametrize("number", [b"9223372036854775808", b"-9223372036854775809", b"1e30"])
def test_number_out_of_range(path: Path, number: bytes) -> None:
    with pytest.raises(InputError, match="line 2: 'userId' is "):
        read(path, b"userId,movieId,stars\n" + number + b",x,2\n")


def test_largest_number(path: Path) -> None:
    assert read(path, b"userId,movieId,stars\n9223372036854775807,x,2\n")["user"].tolist() == [2**63 - 1]


def test_empty_file(path: Path) -> None:
    with pytest.raises(InputError, match=r"table\.csv is empty"):
        read(path, b"")
    with pytest.raises(InputError, match=r"table\.csv is empty"):
        read(path, b"", header=("userId", "movieId", "stars"))


def test_header_only(path: Path) -> None:
    with pytest.raises(InputError, match=r"table\.csv has a header but no rows"):
        read(path, b"userId,movieId,stars\n")


@pytest.mark.parametrize(
    "content",
    [
        b"userId,movieId,stars\n1,x,2\n2,y,2,9\n",
        b"userId,movieId,stars\n1,x,2,9\n2,y,2\n",
        b"userId,movieId,stars\n1,x,2,9\n2,y,2,9\n",
        b"userId,stars,movieId\n1,2,x\n2,2\n",
        b"userId,movieId,stars\n1,x,2\n2,y\n",
    ],
    ids=["one longer", "first longer", "all longer", "text missing", "number missing"],
)
def test_ragged(path: Path, content: bytes) -> None:
    with pytest.raises(InputError, match=r"table\.csv"):
        read(path, content)


def test_missing_file(path: Path) -> None:
    with pytest.raises(InputError, match=r"table\.csv cannot be read: No such file"):
        read_table(path, COLUMNS)


def test_folder(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be read: Is a directory"):
        read_table(tmp_path, COLUMNS)


def test_ratings(path: Path) -> None:
    path.write_bytes(GOOD)
    pd.testing.assert_frame_equal(read_ratings(path, COLUMNS, separator=","), read_table(path, COLUMNS))


@pytest.mark.parametrize(("header", "line"), [(None, 4), (("userId", "movieId", "stars"), 3)])
def test_repeated_pair(path: Path, header: tuple[str, ...] | None, line: int) -> None:
    rows = "1,x,2\n1,y,2\n1,x,5\n"
    path.write_text(rows if header else "userId,movieId,stars\n" + rows)
    with pytest.raises(InputError, match=f"line {line}: user 1 and item x stand there a second time"):
        read_ratings(path, COLUMNS, separator=",", header=header)


def test_repeated_pair_after_an_empty_line(path: Path) -> None:
    path.write_text("userId,movieId,stars\n1,x,2\n\n1,x,5\n")
    with pytest.raises(InputError, match="line 4: user 1"):
        read_ratings(path, COLUMNS, separator=",")


def test_a_tab_alone_is_no_table(path: Path) -> None:
    path.write_bytes(b"\t")
    with pytest.raises(InputError, match="is not a table separated by"):
        read_table(path, COLUMNS, quoted=True)
