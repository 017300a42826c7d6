"""One safetensors file with the model's tables, by their names in its state.

A table of 8 bits stands there as NAME.codes and NAME.scales: row r is codes[r] * scales[r]. With 4 bits each byte of
the codes holds two numbers + 8, the first in its lower half. What model it is stands in the file's metadata.
"""

import json
from pathlib import Path

from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor

from kdrec.deploy.compact import Compact, Table
from kdrec.deploy.lists import best_unseen
from kdrec.errors import InputError
from kdrec.models.described import as_config, rebuild

QUANTIZES = True
MODEL = "model.safetensors"


def build(model: Compact, k: int) -> dict[str, bytes]:
    """As `Format.build`; the file has no lists, so ``k`` is of no concern."""
    tensors = {name + suffix: part for name, table in model.tables.items() for suffix, part in table.parts.items()}
    said = {
        "model": as_config(model.recommender),
        "num_users": model.recommender.num_users,
        "num_items": model.recommender.num_items,
        "widths": {name: table.width for name, table in model.tables.items()},
    }
    try:
        return {MODEL: save(tensors, {name: json.dumps(value) for name, value in said.items()})}
    except (RuntimeError, ValueError):  # of sparse tensors, and of two names for one memory
        raise InputError(
            f"safetensors cannot hold a {type(model.recommender).__name__}, some of whose tensors are sparse or share "
            f"their memory; use its checkpoint with kdrec recommend, predict or serve."
        ) from None


def answers(folder: Path, users: Tensor, seen: Tensor, k: int) -> dict[str, tuple[Tensor, Tensor]]:
    """As `Format.answers`, by a model rebuilt from the file alone."""
    with safe_open(folder / MODEL, "pt") as file:
        said = {name: json.loads(value) for name, value in file.metadata().items()}
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (it is no dict)
    state = {
        name: Table(tensors[name if name in tensors else f"{name}.codes"], tensors.get(f"{name}.scales"), width).values
        for name, width in said["widths"].items()
    }
    model = rebuild(said["model"])
    model.build(said["num_users"], said["num_items"])
    model.load_state_dict(state)
    return {"users": best_unseen(model.eval().score_all(users), seen, k)}
