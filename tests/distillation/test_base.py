from dataclasses import replace
from pathlib import Path

import pytest
import torch

from kdrec.data.sampling import Batch
from kdrec.distillation.base import Distiller, Teacher, batch_entities
from kdrec.distillation.ftd import FTD
from kdrec.errors import InputError
from kdrec.models.bpr import BPR
from kdrec.models.ncf import NCF
from kdrec.training.ranking import RankingModule
from tests.generated import GeneratedDataModule, quiet_trainer


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of a trained NCF."""
    trainer = quiet_trainer(max_epochs=1)
    trainer.fit(RankingModule(NCF(embedding_dim=8), cutoffs=(5, 10)), datamodule=GeneratedDataModule())
    path = tmp_path_factory.mktemp("teacher") / "best.ckpt"
    trainer.save_checkpoint(path)
    return path


def test_loads_frozen_and_in_evaluation_mode(checkpoint: Path) -> None:
    teacher = Teacher.load(checkpoint, GeneratedDataModule().split.train)
    assert not teacher.recommender.training
    assert not any(parameter.requires_grad for parameter in teacher.recommender.parameters())
    assert len(teacher.digest) == 64


def test_vectors_are_computed_once(checkpoint: Path) -> None:
    teacher = Teacher.load(checkpoint, GeneratedDataModule().split.train)
    users, items = torch.tensor([3, 0]), torch.tensor([5, 5, 1])
    assert torch.equal(teacher.user_vectors(users), teacher.recommender.user_vectors(users))
    assert torch.equal(teacher.item_vectors(items), teacher.recommender.item_vectors(items))
    assert teacher.user_vectors().data_ptr() == teacher.user_vectors().data_ptr()
    assert teacher.item_vectors().shape == (40, 8)
    assert not teacher.item_vectors().requires_grad


def test_is_no_part_of_a_module_that_holds_it() -> None:
    model = BPR(4)
    model.build(2, 3)
    holder = torch.nn.Module()
    holder.teacher = Teacher(model)  # type: ignore[assignment]
    assert not holder.state_dict()
    assert not list(holder.parameters())
    holder.train()
    assert not model.training


@pytest.mark.parametrize(
    ("other", "complaint"),
    [
        (GeneratedDataModule(num_users=31), "it knows 30 users and this data has 31"),
        (GeneratedDataModule(num_items=41), "it knows 40 items and this data has 41"),
        (GeneratedDataModule(seed=1), "training pairs or ids differ"),
    ],
)
def test_a_teacher_of_other_data_is_refused(checkpoint: Path, other: GeneratedDataModule, complaint: str) -> None:
    with pytest.raises(InputError, match=complaint):
        Teacher.load(checkpoint, other.split.train)


def test_a_teacher_with_other_ids_is_refused(checkpoint: Path) -> None:
    train = GeneratedDataModule().split.train
    renamed = replace(train, item_ids=train.item_ids[::-1])
    with pytest.raises(InputError, match="training pairs or ids differ"):
        Teacher.load(checkpoint, renamed)


def test_batch_entities_are_unique_and_cover_all_negatives() -> None:
    batch = Batch(torch.tensor([2, 0, 2]), torch.tensor([1, 4, 1]), torch.tensor([[0, 5], [1, 5], [7, 0]]))
    users, items = batch_entities(batch)
    assert users.tolist() == [0, 2]
    assert items.tolist() == [0, 1, 4, 5, 7]


def test_a_negative_weight_is_refused() -> None:
    class Nothing(Distiller):
        def forward(self, batch, student, teacher):  # type: ignore[no-untyped-def]
            return {}

    with pytest.raises(InputError, match="Nothing: weight is -1"):
        Nothing(-1.0)


class Vectorless(BPR):
    has_vectors = False


@pytest.mark.parametrize(("student", "teacher", "role"), [(BPR, Vectorless, "teacher"), (Vectorless, BPR, "student")])
def test_vectors_are_not_read_where_there_are_none(student: type[BPR], teacher: type[BPR], role: str) -> None:
    models = student(2), teacher(3)
    for model in models:
        model.build(3, 4)
    with pytest.raises(InputError, match=f"FTD compares vectors and the {role}, Vectorless, has none"):
        FTD().require_models(models[0], Teacher(models[1]))
