import numpy as np
import pytest
import torch

from kdrec.evaluation.evaluate import evaluate
from kdrec.models.base import Recommender
from kdrec.models.bpr import BPR
from kdrec.models.ncf import NCF
from kdrec.training.ranking import RankingModule
from tests.generated import GeneratedDataModule, quiet_trainer


@pytest.mark.filterwarnings("ignore:.*does not have many workers", "ignore:Ranking among")
@pytest.mark.parametrize("num_candidates", [None, 20])
@pytest.mark.parametrize("stage", ["val", "test"])
@pytest.mark.parametrize("architecture", [BPR(3), NCF(4)], ids=["bpr", "ncf"])
def test_the_numbers_of_the_trainer(architecture: Recommender, stage: str, num_candidates: int | None) -> None:
    torch.manual_seed(0)
    data = GeneratedDataModule(eval_batch_size=7)
    architecture.bind(data.split.train)
    module = RankingModule(architecture.eval(), cutoffs=(5, 10), num_candidates=num_candidates)
    trainer = quiet_trainer()
    logged = getattr(trainer, {"val": "validate", "test": "test"}[stage])(module, datamodule=data, verbose=False)[0]
    means, users = evaluate(architecture, data.split, stage, (5, 10), num_candidates, batch_size=7)
    logged_names = {name.partition("/")[2]: value for name, value in logged.items()}
    assert {name: np.float32(value) for name, value in means.items()} == {  # as a logger keeps them
        name: np.float32(value) for name, value in logged_names.items()
    }
    rows, values = module.metric(stage).per_user
    assert np.array_equal(users, values, equal_nan=True)
    assert list(users.columns) == module.metric(stage).names
    assert users.index.tolist() == data.split.train.user_ids[rows].tolist()


def test_ranks_of_a_known_model() -> None:
    """Whoever scores the held-out items highest finds all of them."""
    split = GeneratedDataModule().split
    model = BPR(split.train.num_items)
    model.bind(split.train)
    model.items.weight.data = torch.eye(split.train.num_items)
    model.users.weight.data.zero_()[split.valid.users.copy(), split.valid.items.copy()] = 1
    means, users = evaluate(model, split, "val", (5,))
    assert means["recall@5"] == means["mrr@5"] == 1
    assert len(users) == len(np.unique(split.valid.users))
    assert evaluate(model, split, "test", (5,))[0]["recall@5"] < 1
