"""What the formats of nearest-neighbour indexes share: vectors to search by inner product, and hiding what was seen."""

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from kdrec.deploy.compact import Compact
from kdrec.deploy.lists import best_unseen
from kdrec.errors import InputError
from kdrec.models.bpr import BPR

USERS = "users.npy"
Search = Callable[[np.ndarray, int], tuple[np.ndarray, np.ndarray]]
"""Vectors (B, d) and a number n -> (items, inner products), both (B, n), best first; item -1 where there is none."""


def vectors(model: Compact, name: str) -> tuple[dict[str, bytes], np.ndarray]:
    """Return (the file of user vectors, the item vectors (num_items, d) float32).

    Raises:
        InputError: If the model's scores are no dot products.
    """
    if not isinstance(model.recommender, BPR):
        raise InputError(
            f"A {type(model.recommender).__name__} scores by no dot products, so {name} would find other items than "
            f"it does; take --format safetensors, which holds any model."
        )
    content = io.BytesIO()
    np.save(content, model.recommender.users.weight.numpy())
    return {USERS: content.getvalue()}, model.recommender.items.weight.numpy()


def search_unseen(folder: Path, search: Search, users: Tensor, seen: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Return each user's (items, scores) as `best_unseen`, by asking for as many more as were seen.

    Args:
        folder: With the file of user vectors.
        search: Asks the index.
        users: (B,) int64.
        seen: (B, S) int64, filled up with -1.
        k: Items a list.
    """
    items, scores = map(torch.from_numpy, search(np.load(folder / USERS)[users.numpy()], k + seen.shape[1]))
    items = items.long()
    known = (items.unsqueeze(2) == seen.unsqueeze(1)).any(2) | (items < 0)
    positions, values = best_unseen(scores.masked_fill(known, -torch.inf), seen[:, :0], k)
    return items.gather(1, positions.clamp(min=0)).masked_fill(positions < 0, -1), values
