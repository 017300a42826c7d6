import os
from pathlib import Path

import pytest

from kdrec.data import citeulike
from kdrec.data.citeulike import CiteULike, read_lists
from kdrec.data.sources import Source
from kdrec.errors import InputError


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def test_rows_are_a_count_and_ids(tmp_path: Path) -> None:
    rows, ids = read_lists(write(tmp_path / "users.dat", "2 7 9\n0\n1 3"))
    assert rows.tolist() == [0, 0, 2]
    assert ids.tolist() == [7, 9, 3]


def test_windows_line_ends_and_byte_order_mark_change_nothing(tmp_path: Path) -> None:
    path = tmp_path / "users.dat"
    path.write_bytes(b"\xef\xbb\xbf2 7 9\r\n1 3\r\n")
    assert read_lists(path)[1].tolist() == [7, 9, 3]


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("1 5\n3 7 9\n", "line 2: it says 3 ids and lists 2"),
        ("1 5\n\n", "line 2: '' is not a count and that many ids"),
        ("2 7 x\n", "line 1: '2 7 x' is not a count"),
        ("1 -4\n", "line 1: an id is negative or stands there twice, or is too large"),
        ("1 99999999999999999999999\n", "line 1: an id is negative or stands there twice, or is too large"),
        ("2 4 4\n", "line 1: an id is negative or stands there twice, or is too large"),
        ("", "is empty"),
    ],
)
def test_faults_name_the_line(tmp_path: Path, text: str, complaint: str) -> None:
    with pytest.raises(InputError, match=complaint):
        read_lists(write(tmp_path / "users.dat", text))


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be read"):
        read_lists(tmp_path / "users.dat")


def test_loads_with_tags(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(citeulike._PAIRS, "t", 12)
    write(tmp_path / "citeulike-t/users.dat", "6 0 1 2 3 4 5\n5 1 2 3 4 5\n1 9\n")
    write(tmp_path / "citeulike-t/tag-item.dat", "2 1 5\n1 5\n3 0 1 9\n")
    data = CiteULike(root=str(tmp_path))
    assert data.protocol == "citeulike-t/leave-one-out-random-seed0-min5"
    split = data.split
    assert split.train.user_ids.tolist() == ["0", "1"]  # user 2 has fewer than 5
    assert split.train.item_features is not None
    assert split.train.item_features["tags"].tolist() == ["2", "0|2", "", "", "", "0|1"]
    assert (len(split.train), len(split.valid), len(split.test)) == (7, 2, 2)


def test_other_data_under_its_name_is_refused(tmp_path: Path) -> None:
    write(tmp_path / "citeulike-t/users.dat", "2 7 9\n")
    with pytest.raises(InputError, match=r"it has 2 pairs where 134860 are published"):
        CiteULike(root=str(tmp_path)).load()


def test_an_id_beyond_the_articles_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(citeulike._PAIRS, "t", 3)
    write(tmp_path / "citeulike-t/users.dat", "2 7 9\n1 25975\n")
    with pytest.raises(InputError, match=r"line 2: 25975 is out of range, as .* 0\.\.25974"):
        CiteULike(root=str(tmp_path)).load()


def test_variant_a_has_no_source_but_its_folder(tmp_path: Path) -> None:
    data = CiteULike(root=str(tmp_path), variant="a")
    assert data.name == "citeulike-a"
    with pytest.raises(InputError, match="citeulike-a could not be had from any source"):
        data.load()


def test_sources_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Broken:
        def __str__(self) -> str:
            return "nowhere"

        def fetch(self, folder: Path) -> None:
            raise InputError("no connection")

    sources: tuple[Source, ...] = (Broken(),)
    monkeypatch.setitem(citeulike._SOURCES, "t", sources)
    with pytest.raises(InputError, match="nowhere: no connection"):
        CiteULike(root=str(tmp_path)).load()


@pytest.mark.slow
@pytest.mark.skipif("KDREC_DATA" not in os.environ, reason="needs the publisher's server, or a folder with the data")
def test_real_data(tmp_path: Path) -> None:
    split = CiteULike(root=str(tmp_path)).split
    assert (split.train.num_users, split.train.num_items) == (5219, 25181)
    assert len(split.train) + len(split.valid) + len(split.test) == 125_580
