import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from kdrec.data.files import InteractionFiles
from kdrec.data.splits import RandomRatio
from kdrec.errors import InputError
from kdrec.models.described import as_config

ROWS = "user_id,item_id,rating,time\n7,b,1,3\n7,a,5,1\n10,c,2,2\n10,a,3,9\n7,c,1,2\n10,b,1,1\n"


def test_a_name_that_no_file_can_have(tmp_path: Path) -> None:
    for train in ("\0", "x" * 300):
        with pytest.raises(InputError, match="There is no "):
            InteractionFiles("mine", train, root=str(tmp_path)).load()


def folder(root: Path, **files: str) -> Path:
    (root / "mine").mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (root / "mine" / name.replace("_", ".")).write_text(text)
    return root


def test_one_file_is_cut_by_the_splitter(tmp_path: Path) -> None:
    data = InteractionFiles("mine", "log.csv", time_column="time", root=str(folder(tmp_path, log_csv=ROWS)))
    split = data.split
    assert data.protocol == "mine/leave-one-out-time-min3"
    assert split.train.user_ids.tolist() == ["7", "10"]  # as numbers, not as text
    assert split.train.item_ids.tolist() == ["a", "b", "c"]
    assert split.test.items.tolist() == [1, 0]  # user 7: b at 3; user 10: a at 9


@pytest.mark.parametrize(
    ("name", "separator"), [("log.tsv", None), ("log.inter", None), ("log.csv", "\t"), ("log.dat", "::")]
)
def test_separators(tmp_path: Path, name: str, separator: str | None) -> None:
    text = ROWS.replace(",", separator or "\t").replace("user_id", "user_id:token")
    root = folder(tmp_path, **{name.replace(".", "_"): text})
    data = InteractionFiles("mine", name, user_column="user_id:token", separator=separator, root=str(root))
    assert len(data.load()) == 6


def test_parquet(tmp_path: Path) -> None:
    folder(tmp_path)
    frame = pd.DataFrame({"user_id": [1, 1, 2], "item_id": [5, 6, 5]})
    frame.to_parquet(tmp_path / "mine/log.parquet")
    assert InteractionFiles("mine", "log.parquet", root=str(tmp_path)).load().item_ids.tolist() == ["5", "6"]
    with pytest.raises(InputError, match="has no column 'who'"):
        InteractionFiles("mine", "log.parquet", user_column="who", root=str(tmp_path)).load()


def parts(root: Path, **changes: str) -> InteractionFiles:
    texts = {"train_csv": "1,a\n1,b\n2,a\n2,c\n", "valid_csv": "1,c\n", "test_csv": "1,d\n2,b\n"} | changes
    folder(root, **{name: "user_id,item_id\n" + text for name, text in texts.items()})
    return InteractionFiles("mine", "train.csv", "valid.csv", "test.csv", root=str(root))


def test_ids_mean_the_same_in_all_parts(tmp_path: Path) -> None:
    """One id that is no number makes all ids text, and none is another's."""
    texts = {"train_csv": "10,1\n9,2\n9,3\n10,4\n", "valid_csv": "10,B\n9,4\n", "test_csv": "9,1\n"}
    split = parts(tmp_path, **texts).split
    assert split.train.item_ids.tolist() == ["1", "2", "3", "4", "B"]
    assert split.valid.items.tolist() == [4, 3]
    assert split.train.user_ids.tolist() == ["9", "10"]
    with pytest.raises(InputError, match="User 9 and item 2 stand in"):
        parts(tmp_path / "again", **texts | {"test_csv": "9,2\n"}).load()


@pytest.mark.parametrize("ids", [["007", "7"], ["1e2", "100"], ["1" + "0" * 19, "1" + "0" * 22], ["1.0", "1"]])
def test_no_id_is_rewritten(tmp_path: Path, ids: list[str]) -> None:
    rows = "".join(f"{user},{item}\n" for user in ids for item in ids)
    data = InteractionFiles("mine", "log.csv", root=str(folder(tmp_path, log_csv="user_id,item_id\n" + rows)))
    log = data.load()
    assert sorted(log.user_ids) == sorted(log.item_ids) == sorted(ids)


@pytest.mark.parametrize(
    ("sound", "damaged", "complaint"),
    [
        (b"PAR1\x15\x04", b"PAR1\x15\x06", r"'user_id' has 0 rows of 4"),  # its page is of no known kind
        (b"zz", b"\xb2z", r"Invalid UTF8"),
    ],
    ids=["rows", "text"],
)
def test_damage_that_arrow_lets_pass(tmp_path: Path, sound: bytes, damaged: bytes, complaint: str) -> None:
    (tmp_path / "mine").mkdir()
    path = tmp_path / "mine/log.parquet"
    pd.DataFrame({"user_id": ["aa", "aa", "zz", "zz"], "item_id": [1, 2, 1, 2]}).to_parquet(path)
    assert sound in path.read_bytes()
    path.write_bytes(path.read_bytes().replace(sound, damaged))
    with pytest.raises(InputError, match=rf"log.parquet cannot be read as Parquet \(.*{complaint}.*\); write it again"):
        InteractionFiles("mine", "log.parquet", root=str(tmp_path)).load()


@pytest.mark.parametrize(
    ("column", "values", "complaint"),
    [
        ("item_id", [5, None, 7], "row 1: 'item_id' is nan, where an id is needed"),
        ("timestamp", [1.0, 2.5, 3.0], "row 1: 'timestamp' is 2.5, where a whole number is needed"),
        ("timestamp", ["1", "2", "noon"], "row 2: 'timestamp' is noon, where a whole number is needed"),
        ("timestamp", [None, 2, 3], "row 0: 'timestamp' is nan, where a whole number is needed"),
    ],
)
def test_faults_of_a_parquet_file(tmp_path: Path, column: str, values: list[Any], complaint: str) -> None:
    folder(tmp_path)
    columns: dict[str, list[Any]] = {"user_id": [1, 1, 2], "item_id": [5, 6, 5], "timestamp": [1, 2, 3]}
    pd.DataFrame(columns | {column: values}).to_parquet(tmp_path / "mine/log.parquet")
    data = InteractionFiles("mine", "log.parquet", time_column="timestamp", root=str(tmp_path))
    with pytest.raises(InputError, match=complaint):
        data.load()


def test_blank_ids_are_refused(tmp_path: Path) -> None:
    data = InteractionFiles("mine", "log.csv", root=str(folder(tmp_path, log_csv="user_id,item_id\n1,2\n,3\n")))
    with pytest.raises(InputError, match="line 3: 'user_id' is blank"):
        data.load()


def test_a_quotation_mark_that_is_not_closed(tmp_path: Path) -> None:
    text = 'user_id,item_id\n1,"2\n' + "1,2\n" * 40_000
    data = InteractionFiles("mine", "log.csv", root=str(folder(tmp_path, log_csv=text)))
    with pytest.raises(InputError, match=r"is no CSV .*quotation mark"):
        data.load()


def test_ready_made_parts_stay_as_they_are(tmp_path: Path) -> None:
    data = parts(tmp_path)
    split = data.split
    assert data.protocol == "mine/ready-made"
    assert [len(part) for part in (split.train, split.valid, split.test)] == [4, 1, 2]
    assert split.test.items.tolist() == [3, 1]
    assert split.train.num_items == 4
    assert as_config(data)["init_args"]["valid"] == "valid.csv"


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"valid_csv": "3,a\n"}, "valid.csv: user 3 is not in .*train.csv"),
        ({"test_csv": "1,a\n"}, "User 1 and item a stand in .*train.csv and again in .*test.csv"),
        ({"train_csv": "1,a\n2,a\n2,a\n"}, "User 2 and item a stand in .*train.csv and again in .*train.csv"),
        ({"test_csv": "1\n"}, "test.csv, line 2: 1 fields where 2 are needed"),
    ],
)
def test_parts_that_do_not_fit(tmp_path: Path, changes: dict[str, str], complaint: str) -> None:
    with pytest.raises(InputError, match=complaint):
        parts(tmp_path, **changes).load()


def test_one_part_alone_is_refused() -> None:
    with pytest.raises(InputError, match="give both valid and test"):
        InteractionFiles("mine", "train.csv", valid="valid.csv")


def test_a_missing_file_names_both_places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KDREC_DATA", str(tmp_path / "other"))
    with pytest.raises(InputError, match=r"no log\.csv in .*mine or .*other/mine"):
        InteractionFiles("mine", "log.csv", root=str(tmp_path)).load()


def test_a_splitter_may_be_given(tmp_path: Path) -> None:
    data = InteractionFiles(
        "mine", "log.csv", root=str(folder(tmp_path, log_csv=ROWS)), splitter=RandomRatio(min_interactions=3)
    )
    assert data.protocol.startswith("mine/random-0.1-0.1")


LETTERS = pd.DataFrame({"user_id": ["u2", "u10", "u2", "é"], "item_id": ["b", "a", "a", " b"], "time": [4, 3, 2, 1]})
NUMBERS = pd.DataFrame({"user_id": [10, 9, 10, -3], "item_id": [5, 6, 6, 70], "time": [4, 3, 2, 1]})


@pytest.mark.parametrize("frame", [LETTERS, NUMBERS, NUMBERS.astype({"user_id": "int32", "item_id": "uint16"})])
def test_parquet_is_read_as_text_is(tmp_path: Path, frame: pd.DataFrame) -> None:
    folder(tmp_path, log_csv=frame.to_csv(index=False))
    frame.to_parquet(tmp_path / "mine/log.parquet", row_group_size=3)
    frame.astype({"user_id": "category"}).to_parquet(tmp_path / "mine/categories.parquet", row_group_size=3)
    text, *others = (
        InteractionFiles("mine", name, time_column="time", root=str(tmp_path)).load()
        for name in ("log.csv", "log.parquet", "categories.parquet")
    )
    for binary in others:
        assert binary.digest == text.digest
        assert binary.user_ids.tolist() == text.user_ids.tolist()
        assert binary.items.tolist() == text.items.tolist()
        assert binary.timestamps is not None
        assert text.timestamps is not None
        assert binary.timestamps.tolist() == text.timestamps.tolist()


def test_parts_of_both_kinds(tmp_path: Path) -> None:
    """Numbers of one file and text of another are the same ids."""
    folder(tmp_path, valid_csv="user_id,item_id\n9,70\n", test_csv="user_id,item_id\n10,x\n")
    NUMBERS.to_parquet(tmp_path / "mine/train.parquet")
    data = InteractionFiles("mine", "train.parquet", "valid.csv", "test.csv", root=str(tmp_path))
    assert data.split.train.item_ids.tolist() == ["5", "6", "70", "x"]
    assert data.split.train.user_ids.tolist() == ["-3", "9", "10"]
    assert data.split.valid.items.tolist() == [2]
    (tmp_path / "mine/test.csv").write_text("user_id,item_id\n10,5\n")
    with pytest.raises(InputError, match=r"User 10 and item 5 stand in .*train.parquet and again in .*test.csv"):
        InteractionFiles("mine", "train.parquet", "valid.csv", "test.csv", root=str(tmp_path)).load()


def test_no_object_for_each_row_of_a_parquet_file(tmp_path: Path) -> None:
    """Users, items and times take 24 bytes a row and their sorting as much; a Python text would take 50 more."""
    folder(tmp_path)
    users, items = np.divmod(np.random.default_rng(0).permutation(500 * 1000)[:300_000], 1000)
    text = pd.DataFrame({"user_id": users, "item_id": items}).astype(str)
    text.assign(time=users).to_parquet(tmp_path / "mine/log.parquet")
    data = InteractionFiles("mine", "log.parquet", time_column="time", root=str(tmp_path))
    data.load()  # imports
    tracemalloc.start()
    try:
        log = data.load()
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert len(log) == 300_000
    assert peak < 50 * len(log)
