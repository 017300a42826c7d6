"""Generated data with a planted structure, so that tests need no files and a model has something to learn."""

from typing import Any

import numpy as np
import pandas as pd
from lightning import Trainer

from kdrec.data.base import InteractionDataModule
from kdrec.data.interactions import Interactions
from kdrec.data.sampling import Samples
from kdrec.data.splits import Splitter
from kdrec.models import checkpoint
from kdrec.models.base import Recommender
from kdrec.models.described import as_config
from kdrec.models.section import describe

NUM_GROUPS = 4


def generate(num_users: int = 30, num_items: int = 40, seed: int = 0) -> Interactions:
    """Return a log in which user u prefers items i with the same remainder mod 4, and small i are popular.

    Every user and item occurs; users have 5 pairs or more; some of a user's times are equal.
    """
    chance = np.random.default_rng(seed)
    users, items = np.arange(num_users), np.arange(num_items)
    taste = 4.0 * (users[:, None] % NUM_GROUPS == items % NUM_GROUPS)
    popularity = -0.7 * np.log1p(items // NUM_GROUPS)
    order = np.argsort(-(taste + popularity + chance.gumbel(size=(num_users, num_items))), axis=1)
    counts = chance.integers(max(5, num_items // 6), max(6, num_items // 4) + 1, size=num_users)
    touched = np.zeros((num_users, num_items), dtype=bool)
    np.put_along_axis(touched, order, items < counts[:, None], axis=1)
    lonely = np.flatnonzero(~touched.any(axis=0))
    touched[lonely % num_users, lonely] = True

    rows, columns = np.nonzero(touched)
    log = pd.DataFrame({"user": rows + 101, "item": columns + 501, "timestamp": chance.integers(0, 500, len(rows))})
    user_ids, item_ids = pd.Index(users + 101), pd.Index(items + 501)
    return Interactions.from_frame(
        log.sample(frac=1, random_state=seed),
        item_titles=pd.Series([f"Film {item} ({1950 + item % 70})" for item in items], index=item_ids),
        user_features=pd.DataFrame({"age": 18 + users % 50, "gender": np.where(users % 2, "F", "M")}, index=user_ids),
        item_features=pd.DataFrame(
            {"genres": [f"Genre{item % NUM_GROUPS}" for item in items], "year": 1950 + items % 70}, index=item_ids
        ),
    )


def content_of(model: Recommender, train: Interactions, *held_out: Interactions) -> dict[str, Any]:
    """Return what the training module saves."""
    return {
        "state_dict": {checkpoint.PREFIX + name: value for name, value in model.state_dict().items()},
        "kdrec": describe(model, train, *held_out)
        | {
            "data": as_config(GeneratedDataModule()),
            "evaluation": {"cutoffs": [5, 10], "num_candidates": None},
            "protocol": "generated/leave-one-out-time-min3, full ranking",
            "metrics": {"val/recall@5": 0.25},
            "epochs": 3,
            "seed": 0,
        },
    }


class GeneratedDataModule(InteractionDataModule):
    """`generate` as a data module."""

    name = "generated"

    def __init__(
        self,
        num_users: int = 30,
        num_items: int = 40,
        seed: int = 0,
        root: str = "data",
        splitter: Splitter | None = None,
        batch_size: int = 1024,
        num_negatives: int = 1,
        eval_batch_size: int = 256,
        samples: Samples = "pairs",
    ) -> None:
        super().__init__(root, splitter, batch_size, num_negatives, eval_batch_size, samples)
        self.num_users = num_users
        self.num_items = num_items
        self.seed = seed

    def load(self) -> Interactions:
        return generate(self.num_users, self.num_items, self.seed)


def quiet_trainer(**options: Any) -> Trainer:
    """Return a trainer on one CPU that neither logs nor keeps nor shows anything, unless told."""
    silent = dict.fromkeys(("logger", "enable_progress_bar", "enable_checkpointing", "enable_model_summary"), False)
    return Trainer(accelerator="cpu", **silent | {"devices": 1} | options)
