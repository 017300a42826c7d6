"""What cannot be divided is refused. That what is divided learns the same: tests/contracts/test_processes.py."""

from typing import Any

import pytest
from lightning.pytorch.plugins import MixedPrecision
from torch.amp import GradScaler

from kdrec.errors import InputError
from kdrec.models.base import Recommender
from kdrec.models.bpr import BPR
from kdrec.models.lightgcn import LightGCN
from kdrec.training.ranking import RankingModule
from kdrec.training.sharding import RowSharding
from tests.generated import quiet_trainer


@pytest.mark.parametrize(
    ("model", "options", "said"),
    [
        (LightGCN(4), {}, "LightGCN has none; give --trainer.strategy ddp, or train"),
        (BPR(4), {"gradient_clip_val": 1.0}, "cannot clip gradients by their norm"),
        (
            BPR(4),
            {"plugins": [MixedPrecision("16-mixed", "cpu", GradScaler("cpu"))]},
            "give --trainer.precision bf16-mixed",
        ),
    ],
    ids=["model", "clipping", "precision"],
)
def test_what_it_refuses(model: Recommender, options: dict[str, Any], said: str) -> None:
    trainer = quiet_trainer(strategy=RowSharding(), **options)
    trainer.strategy.connect(RankingModule(model))
    with pytest.raises(InputError, match=said):
        trainer.strategy.setup(trainer)
