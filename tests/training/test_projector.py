import csv
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from google.protobuf import text_format
from lightning import seed_everything
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from tensorboard.plugins.projector.projector_config_pb2 import ProjectorConfig

from kdrec.data.interactions import Interactions
from kdrec.distillation.ftd import FTD
from kdrec.distillation.rrd import RRD
from kdrec.errors import InputError
from kdrec.models import checkpoint
from kdrec.models.bpr import BPR
from kdrec.models.ease import EASE
from kdrec.models.ncf import NCF
from kdrec.training.distillation import DistillationModule
from kdrec.training.projector import ProjectorWriter, describe_items
from kdrec.training.ranking import RankingModule
from tests.commandline import Kdrec
from tests.generated import GeneratedDataModule, quiet_trainer

CUTOFFS = (5, 10)


def fitted(*callbacks: Callback, logger: object = False, teacher: Path | None = None) -> RankingModule:
    seed_everything(1, verbose=False)
    student = NCF(embedding_dim=4)  # it has dropout, so its mode matters
    module = (
        RankingModule(student, cutoffs=CUTOFFS)
        if teacher is None
        else DistillationModule(student, str(teacher), FTD(), cutoffs=CUTOFFS)
    )
    quiet_trainer(max_epochs=2, callbacks=list(callbacks), logger=logger).fit(module, datamodule=GeneratedDataModule())
    return module


def written(folder: Path) -> dict[str, tuple[np.ndarray, list[list[str]]]]:
    """Return what the projector will show: tag -> (vectors, rows of metadata with their header)."""
    config = text_format.Parse((folder / "projector_config.pbtxt").read_text(), ProjectorConfig())
    found = {}
    for table in config.embeddings:
        with open(folder / table.metadata_path, newline="", encoding="utf-8") as file:
            rows = list(csv.reader(file, delimiter="\t", quoting=csv.QUOTE_NONE))
        found[table.tensor_name.partition(":")[0]] = np.loadtxt(folder / table.tensor_path, delimiter="\t"), rows
    return found


def vectors(recommender: torch.nn.Module, items: list[int]) -> np.ndarray:
    with torch.no_grad():
        return recommender.eval().item_vectors(torch.tensor(items)).numpy()


@pytest.fixture
def board(tmp_path: Path) -> TensorBoardLogger:
    return TensorBoardLogger(str(tmp_path), name="run", version="")


def by_popularity(train: Interactions) -> list[int]:
    return sorted(range(train.num_items), key=lambda item: (-train.item_counts[item], item))


def test_all_items_with_what_is_known_of_them(board: TensorBoardLogger) -> None:
    module = fitted(ProjectorWriter(), logger=board)
    [(tag, (table, [header, *rows]))] = written(Path(board.log_dir)).items()
    assert tag == "items"
    assert header == ["item", "title", "genres", "interactions"]
    train = module.train_data
    order = by_popularity(train)
    assert train.item_titles is not None
    assert train.item_features is not None
    genres = train.item_features["genres"]
    assert rows == [[train.item_ids[i], train.item_titles[i], genres[i], str(np.sum(train.items == i))] for i in order]
    np.testing.assert_array_equal(table.astype(np.float32), vectors(module.recommender, order))


def test_student_and_teacher_side_by_side(board: TensorBoardLogger, tmp_path: Path) -> None:
    file = tmp_path / "teacher.ckpt"
    fitted().trainer.save_checkpoint(file)
    module = fitted(ProjectorWriter(num_items=7), logger=board, teacher=file)
    found = written(Path(board.log_dir))
    assert list(found) == ["student items", "teacher items"]
    order = by_popularity(module.train_data)[:7]
    for tag, model in (("student items", module.recommender), ("teacher items", checkpoint.restore(file))):
        table, [_, *rows] = found[tag]
        np.testing.assert_array_equal(table.astype(np.float32), vectors(model, order))
        assert [row[0] for row in rows] == [module.train_data.item_ids[i] for i in order]


def test_a_teacher_without_vectors_is_left_out(board: TensorBoardLogger, tmp_path: Path) -> None:
    trainer = quiet_trainer(max_epochs=1)
    trainer.fit(RankingModule(EASE(), cutoffs=CUTOFFS), datamodule=GeneratedDataModule())
    trainer.save_checkpoint(tmp_path / "teacher.ckpt")
    distiller = RRD(list_length=10, num_interesting=5)
    module = DistillationModule(BPR(4), str(tmp_path / "teacher.ckpt"), distiller, cutoffs=CUTOFFS)
    quiet_trainer(max_epochs=1, callbacks=[ProjectorWriter()], logger=board).fit(module, GeneratedDataModule())
    assert list(written(Path(board.log_dir))) == ["student items"]


def test_a_model_without_vectors_is_refused_as_a_fit_starts(board: TensorBoardLogger) -> None:
    trainer = quiet_trainer(max_epochs=1, callbacks=[ProjectorWriter()], logger=board)
    with pytest.raises(InputError, match=r"shows vectors of items, and EASE has none; leave it out of trainer"):
        trainer.fit(RankingModule(EASE(), cutoffs=CUTOFFS), datamodule=GeneratedDataModule())
    assert trainer.global_step == 0


def test_training_is_not_touched(board: TensorBoardLogger) -> None:
    class AtTheEnd(Callback):
        def on_fit_end(self, trainer: object, pl_module: object) -> None:
            self.random = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002 - the one to watch
            self.modes = [module.training for module in pl_module.recommender.modules()]  # type: ignore[attr-defined]

    class SomeFrozen(Callback):
        def on_train_end(self, trainer: object, pl_module: object) -> None:
            pl_module.recommender.train()  # type: ignore[attr-defined]
            next(pl_module.recommender.children()).eval()  # type: ignore[attr-defined]

    alone, beside = AtTheEnd(), AtTheEnd()
    weights = [
        fitted(*callbacks, logger=board).state_dict()
        for callbacks in ((SomeFrozen(), alone), (SomeFrozen(), ProjectorWriter(), beside))
    ]
    assert all(torch.equal(value, weights[1][name]) for name, value in weights[0].items())
    assert torch.equal(alone.random[0], beside.random[0])
    assert np.array_equal(alone.random[1], beside.random[1])
    assert alone.modes == beside.modes
    assert set(beside.modes) == {True, False}


def test_without_a_tensorboard_logger_nothing_is_written(tmp_path: Path) -> None:
    fitted(ProjectorWriter(), logger=CSVLogger(str(tmp_path), name="run", version=""))
    assert not list(tmp_path.rglob("*.tsv"))


def test_the_first_process_writes_alone(board: TensorBoardLogger) -> None:
    module = fitted()
    ProjectorWriter().on_train_end(SimpleNamespace(loggers=[board], is_global_zero=False), module)  # type: ignore[arg-type]
    assert not list(Path(board.save_dir).rglob("*.tsv"))


def test_a_text_never_breaks_a_line(board: TensorBoardLogger, interactions: Interactions) -> None:
    titles = np.array([f"The\tFilm\r\n{item}\u2028(1950) " for item in range(interactions.num_items)])
    features = pd.DataFrame({"a\tb": [f"x\n{item % 2}|y" for item in range(interactions.num_items)]})
    odd = replace(interactions, item_titles=titles, item_features=features)
    header, rows = describe_items(odd, np.array([3]))
    assert header == ["item", "title", "a b", "interactions"]
    assert rows == [["504", "The Film 3 (1950)", "y", str(interactions.item_counts[3])]]
    board.experiment.add_embedding(torch.zeros(1, 2), metadata=rows, metadata_header=header, tag="items")
    assert written(Path(board.log_dir))["items"][1] == [header, *rows]


def test_the_main_label_is_the_one_that_most_items_bear(interactions: Interactions) -> None:
    labels = ["a|b", "b", "c|b|a", "a|c", ""] + ["z"] * (interactions.num_items - 5)
    log = replace(interactions, item_features=pd.DataFrame({"year": 1950, "tags": labels}))
    header, rows = describe_items(log, np.arange(6))
    assert header[2] == "tags"
    assert [row[2] for row in rows] == ["a", "b", "b", "a", "none", "z"]  # a and b: three each, so the first named


def test_the_projector_can_colour_by_the_main_label() -> None:
    size = 120
    ids = np.array([str(item) for item in range(size)])
    labels = ["common"] * 10 + ["rare"] * 2 + [f"label {item}" for item in range(size - 12)]
    log = Interactions(np.zeros(size, int), np.arange(size), ids[:1], ids, item_features=pd.DataFrame({"tags": labels}))
    _, rows = describe_items(log, np.arange(size))
    shown = [row[1] for row in rows]
    assert len(set(shown)) == 50
    assert shown[:12] == labels[:12]
    assert shown.count("other") == size - 12 - 47
    _, rows = describe_items(log, np.arange(61))
    assert [row[1] for row in rows[:12]] == labels[:12]
    assert len({row[1] for row in describe_items(log, np.arange(60))[1]}) == 50  # exactly as many as there are colours


def test_bare_data_has_ids_and_counts(interactions: Interactions) -> None:
    bare = replace(interactions, item_titles=None, item_features=pd.DataFrame({"year": [1] * interactions.num_items}))
    header, rows = describe_items(bare, np.array([0]))
    assert header == ["item", "interactions"]
    assert rows == [["501", str(interactions.item_counts[0])]]


def test_no_items_are_refused() -> None:
    with pytest.raises(InputError, match="num_items is 0; it must be at least 1"):
        ProjectorWriter(num_items=0)


@pytest.mark.parametrize(
    "args",
    [
        ["--trainer.callbacks+=ProjectorWriter", "--trainer.callbacks.num_items=3"],
        ["--trainer.callbacks", [{"class_path": "ProjectorWriter", "init_args": {"num_items": 3}}]],
    ],
    ids=["appended", "as in a config"],
)
def test_the_command_line_knows_it_by_its_short_name(kdrec: Kdrec, args: list[object]) -> None:
    done = kdrec("fit", "--config", "student.yaml", *args)
    assert done.code == 0, done.error
    assert not done.error
    [folder] = Path().glob("logs/student/*")
    assert {tag: table.shape for tag, (table, _) in written(folder).items()} == {
        "student items": (3, 2),
        "teacher items": (3, 16),
    }
    assert kdrec("test", "--config", "student.yaml").code == 0


def test_a_run_goes_on_with_it(kdrec: Kdrec) -> None:
    first = kdrec("fit", "--config", "teacher.yaml", "--trainer.callbacks+=ProjectorWriter")
    [config] = Path().glob("checkpoints/teacher/*/config.yaml")
    assert first.code == 0, first.error
    again = kdrec(
        "fit", "--config", str(config), "--ckpt_path", str(config.with_name("last.ckpt")), "--trainer.max_epochs", "3"
    )
    assert again.code == 0, again.error
    assert "warning" not in again.out + again.error
    [folder] = Path().glob("logs/teacher/*")
    assert list(written(folder)) == ["items"]
