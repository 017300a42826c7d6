"""Four users and two models whose every number can be found by hand."""

from pathlib import Path
from typing import Any

import torch

from kdrec.data.files import InteractionFiles
from kdrec.models.bpr import BPR
from kdrec.models.checkpoint import PREFIX
from kdrec.models.described import as_config
from kdrec.models.section import describe

PARTS = {
    "train": ["a i0", "b i1", "c i2", "d i3", "a i4"],
    "valid": ["a i5", "b i5", "c i5", "d i5"],
    "test": ["a i1", "b i2", "c i3", "d i0"],
}
TEACHER = [  # lists of two unseen items for the test: i1 i2, i0 i2, i0 i1, i0 i1
    [9, 5, 4, 1, 9, 9],
    [5, 9, 4, 1, 0, 9],
    [5, 4, 9, 1, 0, 9],
    [5, 4, 1, 9, 0, 9],
]
STUDENT = [  # i2 i1, i2 i3, i3 i4, i4 i1
    [0, 4, 5, 1, 9, 0],
    [0, 9, 5, 4, 1, 0],
    [0, 1, 9, 5, 4, 0],
    [0, 4, 1, 9, 5, 0],
]
RECALL_AT_1 = {"teacher": [1, 0, 0, 1], "student": [0, 1, 1, 0]}
RECALL_AT_2 = {"teacher": [1, 1, 0, 1], "student": [1, 1, 1, 0]}
OVERLAP = (2 / 2 + 1 / 2 + 0 / 2 + 1 / 2) / 4


def data() -> InteractionFiles:
    """Write the data set below the current folder, and return its module."""
    folder = Path("data/byhand")
    folder.mkdir(parents=True, exist_ok=True)
    for name, pairs in PARTS.items():
        lines = ["user_id\titem_id", *(pair.replace(" ", "\t") for pair in pairs)]
        (folder / f"{name}.tsv").write_text("\n".join(lines) + "\n")
    return InteractionFiles("byhand", *(f"{name}.tsv" for name in PARTS), eval_batch_size=3)


def save(name: str, scores: list[list[int]], width: int = 6, **changes: Any) -> Path:
    """Write a checkpoint whose model scores so, and return its path."""
    module = data()
    train = module.split.train
    model = BPR(width)
    model.bind(train)
    model.users.weight.data.zero_()[:, :6] = torch.tensor(scores).float()
    model.items.weight.data = torch.eye(6, width)
    content = {
        "state_dict": {PREFIX + key: value for key, value in model.state_dict().items()},
        "kdrec": describe(model, train)
        | {
            "data": as_config(module),
            "evaluation": {"cutoffs": [1, 2], "num_candidates": None},
            "protocol": f"{module.protocol}, full ranking",
            "metrics": {},
            "epochs": 1,
            "seed": 0,
        }
        | changes,
    }
    path = Path(f"{name}.ckpt")
    torch.save(content, path)
    return path
