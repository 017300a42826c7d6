import csv
import errno
import io
import json
import os
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from kdrec.data.interactions import Interactions
from kdrec.data.splits import Split
from kdrec.deploy.parts import Parts
from kdrec.deploy.predictions import FORMATS, Outcome, predict
from kdrec.deploy.recommender import Deployed
from kdrec.errors import InputError
from kdrec.models.base import Recommender
from kdrec.models.bpr import BPR
from kdrec.models.ncf import NCF
from kdrec.models.popularity import Popularity
from tests.generated import content_of

TEXT = {"user": str, "item": str, "title": str}


def deployed(folder: Path, recommender: Recommender, train: Interactions, *held_out: Interactions) -> Deployed:
    """Save a model as its training does, and load it."""
    torch.manual_seed(0)
    recommender.bind(train)
    torch.save(content_of(recommender, train, *held_out), folder / "model.ckpt")
    return Deployed(folder / "model.ckpt")


@pytest.fixture
def model(tmp_path: Path, split: Split) -> Deployed:
    return deployed(tmp_path, BPR(4), split.train, split.valid, split.test)


def rows_of(path: Path) -> pd.DataFrame:
    if path.suffix == ".parquet":
        return pd.read_parquet(path)
    if path.suffix == ".csv":
        return pd.read_csv(path, dtype=TEXT)  # type: ignore[arg-type]
    return pd.read_json(path, lines=True, dtype=TEXT)  # type: ignore[arg-type]


def require_best(model: Deployed, rows: pd.DataFrame, seen: Interactions, k: int, names: list[str]) -> None:
    """Compare user by user and item by item; among equal scores the choice is open."""
    assert list(dict.fromkeys(rows["user"])) == names
    titles = dict(zip(model.item_ids, model.titles or (), strict=True))
    assert rows["title"].tolist() == [titles[item] for item in rows["item"]]
    for name, listed in rows.groupby("user"):
        user = model.user(str(name))
        touched = set(seen.items[seen.users == user].tolist())
        unseen = torch.tensor([item for item in range(len(model.item_ids)) if item not in touched])
        values = model.recommender.score(torch.full_like(unseen, user), unseen).tolist()
        scores = {model.item_ids[item]: score for item, score in zip(unseen.tolist(), values, strict=True)}
        assert listed["rank"].tolist() == list(range(1, k + 1))
        assert listed["item"].is_unique
        found = listed["score"].tolist()
        assert found == pytest.approx(sorted(scores.values(), reverse=True)[:k], rel=1e-4, abs=1e-6)
        assert found == pytest.approx([scores[item] for item in listed["item"]], rel=1e-4, abs=1e-6)


@pytest.mark.parametrize("suffix", FORMATS)
@pytest.mark.parametrize("recommender", [BPR(4), NCF(4, init_std=1.0)], ids=["BPR", "NCF"])
def test_the_best_that_nobody_touched(
    tmp_path: Path, split: Split, interactions: Interactions, monkeypatch: pytest.MonkeyPatch,
    recommender: Recommender, suffix: str,
) -> None:  # fmt: skip
    model = deployed(tmp_path, recommender, split.train, split.valid, split.test)
    monkeypatch.setattr("kdrec.evaluation.chunks.CPU_USERS", 1)
    monkeypatch.setattr("kdrec.evaluation.chunks.CPU_BYTES", 4 * 3 * 40)  # 3 users at once, not a divisor of a batch
    output, told = tmp_path / f"lists{suffix}", []
    done = predict(model, Parts(output), k=5, batch_size=8, told=lambda *counts: told.append(counts))
    found = rows_of(output)
    assert (done.rows, done.users, done.ranked) == (len(found), 30, 30) == (150, 30, 30)
    require_best(model, found, interactions, 5, model.user_ids)
    assert told == [(8, 30), (16, 30), (24, 30), (30, 30)]


def test_all_are_listed_if_fewer_are_left(tmp_path: Path, model: Deployed, interactions: Interactions) -> None:
    done = predict(model, Parts(tmp_path / "lists.csv"), k=40)
    found = rows_of(tmp_path / "lists.csv")
    assert found.groupby("user").size().tolist() == (40 - interactions.user_counts).tolist()
    assert done.rows == len(found)


def test_without_titles(tmp_path: Path) -> None:
    ids = np.array(["a", "b"]), np.array(["x", "y", "z"])
    model = deployed(tmp_path, Popularity(), Interactions(np.array([0, 1, 1]), np.array([2, 2, 1]), *ids))
    predict(model, Parts(tmp_path / "lists.csv"), k=2)
    assert (tmp_path / "lists.csv").read_text() == "user,rank,item,score\na,1,y,1.0\na,2,x,0.0\nb,1,x,0.0\n"
    predict(model, Parts(tmp_path / "lists.parquet"), k=2)
    assert rows_of(tmp_path / "lists.parquet").dtypes.astype(str).tolist()[1::2] == ["int32", "float32"]


@pytest.mark.parametrize("suffix", FORMATS)
def test_names_with_every_sign(tmp_path: Path, suffix: str) -> None:
    titles = ['a "b", c', "d\ne", "ł;'\\"]
    train = Interactions(
        np.array([0]), np.array([0]), np.array(['u",1']), np.array(["NA", "1,5", "01"]), item_titles=np.array(titles)
    )
    output = tmp_path / f"lists{suffix}"
    predict(deployed(tmp_path, Popularity(), train), Parts(output), k=3)
    if suffix == ".csv":
        with open(output, newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
    elif suffix == ".jsonl":
        rows = [json.loads(line) for line in output.read_text(encoding="utf-8").splitlines()]
    else:
        rows = pd.read_parquet(output).to_dict("records")  # type: ignore[assignment]
    assert {row["user"] for row in rows} == {'u",1'}
    assert {(row["item"], row["title"]) for row in rows} == {("1,5", titles[1]), ("01", titles[2])}


@pytest.mark.parametrize("text", ["105\n103\n130\n", "\ufeff105\r\n\r\n103\r\n130"], ids=["plain", "of Windows"])
def test_some_users_in_their_order(tmp_path: Path, model: Deployed, interactions: Interactions, text: str) -> None:
    (tmp_path / "users.txt").write_bytes(text.encode())
    output = tmp_path / "lists.csv"
    assert predict(model, Parts(output), tmp_path / "users.txt", batch_size=2).users == 3
    require_best(model, rows_of(output), interactions, 10, ["105", "103", "130"])


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"103\n1O4\n", r"users\.txt, line 2: .*model\.ckpt knows no user '1O4'; did you mean '1"),
        (b"103\n\n104\n103", r"users\.txt, line 4: user '103' stands in line 1 already; keep one"),
        (b"", r"users\.txt names no user; give a raw user id a line"),
        (b"\n \n", r"users\.txt names no user"),
        (b"10\xff", r"users\.txt is not UTF-8 text \(byte 2\)"),
        (None, r"users\.txt cannot be read \(No such file or directory\)"),
    ],
    ids=["unknown", "twice", "empty", "blank", "no text", "missing"],
)
def test_bad_users(tmp_path: Path, model: Deployed, content: bytes | None, sentence: str) -> None:
    if content is not None:
        (tmp_path / "users.txt").write_bytes(content)
    before = sorted(tmp_path.iterdir())
    with pytest.raises(InputError, match=sentence):
        predict(model, Parts(tmp_path / "lists.csv"), tmp_path / "users.txt")
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.parametrize(
    ("name", "options", "sentence"),
    [
        ("lists.csv", {"k": 0}, r"k is 0; it must lie between 1 and the 40 items of .*model\.ckpt"),
        ("lists.csv", {"k": 41}, "k is 41; it must lie between 1 and the 40 items"),
        ("lists.csv", {"batch_size": 0}, "--batch_size is 0; it must be at least 1"),
        ("lists.txt", {}, r"lists\.txt ends in '\.txt'; predictions are written to \.csv, \.jsonl, \.parquet"),
        ("lists", {}, "lists ends in ''; predictions"),
    ],
)
def test_bad_options(tmp_path: Path, model: Deployed, name: str, options: dict[str, int], sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        predict(model, Parts(tmp_path / "new" / name), **options)  # type: ignore[arg-type]
    assert not (tmp_path / "new").exists()


def test_parquet_needs_its_extra(tmp_path: Path, model: Deployed, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kdrec.deploy.predictions.find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"lists\.parquet needs pyarrow; install the extra: .* '\.\[parquet\]'\."):
        predict(model, Parts(tmp_path / "lists.parquet"))


def test_another_request_is_refused(tmp_path: Path, model: Deployed, monkeypatch: pytest.MonkeyPatch) -> None:
    """One of another length, batch, model, or users; nothing that is kept is lost."""
    output = tmp_path / "lists.csv"
    with monkeypatch.context() as patch:
        patch.setattr(Parts, "join", stopped)
        with pytest.raises(KeyboardInterrupt):
            predict(model, Parts(output))
    (tmp_path / "users.txt").write_text("103")
    for options, differs in (
        ({"k": 3}, "k"),
        ({"batch_size": 3}, "batch_size"),
        ({"users_file": tmp_path / "users.txt"}, "users"),
    ):
        with pytest.raises(InputError, match=rf"parts of another request \(it differs in {differs}\)"):
            predict(model, Parts(output), **options)  # type: ignore[arg-type]
    content = torch.load(model.path)
    torch.save(content | {"more": 1}, tmp_path / "model.ckpt")
    with pytest.raises(InputError, match=r"it differs in checkpoint"):
        predict(model, Parts(output))
    torch.save(content, tmp_path / "model.ckpt")
    assert predict(model, Parts(output)).ranked == 0


def stopped(*_: object) -> None:
    raise KeyboardInterrupt


class _FullDisk(io.FileIO):
    """Takes so many bytes in all."""

    room = 0

    def write(self, content: Any) -> int:
        _FullDisk.room -= len(content)
        if _FullDisk.room < 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return super().write(content)


@pytest.mark.parametrize("suffix", FORMATS)
@pytest.mark.parametrize("room", [300, 3000, 7000])
def test_a_full_disk(tmp_path: Path, model: Deployed, monkeypatch: pytest.MonkeyPatch, room: int, suffix: str) -> None:
    def opened(path: Path, mode: str) -> Any:
        return open(path, mode) if mode == "rb" else _FullDisk(path, mode)

    whole, output = tmp_path / f"whole{suffix}", tmp_path / f"lists{suffix}"
    predict(model, Parts(whole), batch_size=10)
    _FullDisk.room = room
    monkeypatch.setattr("kdrec.deploy.parts.open", opened, raising=False)
    with pytest.raises(InputError, match=r"cannot be written \(No space left on device\); mend that and repeat"):
        predict(model, Parts(output), batch_size=10)
    assert not output.exists()
    assert not list(tmp_path.glob("*/*.tmp"))
    monkeypatch.undo()
    kept = len(list(tmp_path.glob("*/*.part")))
    assert predict(model, Parts(output), batch_size=10).ranked == 30 - 10 * kept
    assert output.read_bytes() == whole.read_bytes()


def test_scores_that_are_no_numbers(tmp_path: Path, model: Deployed) -> None:
    model.recommender.users.weight.data[3] = torch.nan
    with pytest.raises(InputError, match=r"model\.ckpt gives scores that are no numbers; its training diverged"):
        predict(model, Parts(tmp_path / "lists.csv"))


@pytest.mark.parametrize("suffix", FORMATS)
def test_memory_does_not_grow_with_the_users(tmp_path: Path, suffix: str) -> None:
    peaks = []
    for num_users in (500, 4_000):
        ids = np.arange(num_users).astype(str), np.arange(50).astype(str)
        train = Interactions(np.arange(num_users), np.arange(num_users) % 50, *ids)
        model = deployed(tmp_path, BPR(2), train)
        parts = Parts(tmp_path / f"{num_users}{suffix}")
        tracemalloc.start()
        done: Outcome = predict(model, parts, batch_size=250)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        assert done.rows == 10 * num_users
    assert peaks[0] > 250 * 10 * 8
    assert peaks[1] < 1.2 * peaks[0]
