import csv
from pathlib import Path

import pytest

from kdrec.errors import InputError
from kdrec.models.bpr import BPR
from kdrec.training.callbacks import TopItemsWriter
from kdrec.training.ranking import RankingModule
from tests.generated import GeneratedDataModule, quiet_trainer


def predict(path: Path, data: GeneratedDataModule | None = None) -> RankingModule:
    module = RankingModule(BPR(4, init_std=1.0), cutoffs=(3,))
    trainer = quiet_trainer(callbacks=[TopItemsWriter(path)])
    trainer.predict(module, datamodule=data or GeneratedDataModule(eval_batch_size=7), return_predictions=False)
    return module


def test_writes_raw_ids_and_titles_best_first(tmp_path: Path) -> None:
    path = tmp_path / "new" / "lists.csv"
    train = predict(path).train_data
    with open(path, newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["user"] for row in rows] == [user for user in train.user_ids for _ in range(3)]
    assert [row["rank"] for row in rows] == ["1", "2", "3"] * 30
    titles = dict(zip(train.item_ids, train.item_titles, strict=True))  # type: ignore[arg-type]
    assert all(row["title"] == titles[row["item"]] for row in rows)
    assert all(float(a["score"]) >= float(b["score"]) for a, b in zip(rows[::3], rows[1::3], strict=True))
    assert [file.name for file in path.parent.iterdir()] == ["lists.csv"]


def test_never_overwrites(tmp_path: Path) -> None:
    path = tmp_path / "lists.csv"
    path.write_text("precious")
    with pytest.raises(InputError, match="exists already"):
        predict(path)
    assert path.read_text() == "precious"


def test_an_unwritable_place_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="cannot be written"):
        predict(tmp_path / "file" / "lists.csv")


def test_an_error_leaves_nothing_half_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("disk on fire")

    monkeypatch.setattr(RankingModule, "predict_step", fail)
    with pytest.raises(RuntimeError, match="disk on fire"):
        predict(tmp_path / "lists.csv")
    assert not list(tmp_path.iterdir())
