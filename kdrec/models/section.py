"""What a checkpoint says of a model and of the data it learned from; `kdrec.models.checkpoint` reads it."""

import itertools
import platform
from importlib.metadata import version
from typing import Any

import numpy as np
import pandas as pd
import torch

from kdrec.data.interactions import Interactions
from kdrec.models.base import Recommender
from kdrec.models.described import as_config
from kdrec.models.texts import pack

FORMAT = 2
_SORTED_TOGETHER = 1 << 23  # pairs
_LABELS = 60  # characters of an item's labels that a file keeps


def _short(labels: pd.Series) -> list[str]:
    """Return each item's labels as one text of moderate length, since a file keeps them for every item."""
    cut = [(text, text[: _LABELS + 1].rpartition("|")[0]) for text in labels.fillna("")]
    return [text if len(text) <= _LABELS else whole or text[:_LABELS] for text, whole in cut]


def describe(recommender: Recommender, train: Interactions, *held_out: Interactions) -> dict[str, Any]:
    """Return what a checkpoint says of a model and the data it learned from, in plain values and tensors.

    The training module adds how it was trained: data module, evaluation, protocol, metrics, epochs, seed.

    Args:
        recommender: The model.
        train: What it learned from.
        *held_out: What its users touched besides, over the same vocabularies; with ``train`` it makes the section
            ``seen``, which nobody is recommended again.
    """
    return describe_model(recommender) | describe_data(train, *held_out)


def describe_model(recommender: Recommender) -> dict[str, Any]:
    """Return the part of `describe` that is not of the data."""
    return {
        "format": FORMAT,
        "model": as_config(recommender),
        "versions": {name: version(name) for name in ("kdrec", "torch", "lightning", "numpy")}
        | {"python": platform.python_version()},
    }


def describe_data(train: Interactions, *held_out: Interactions) -> dict[str, Any]:
    """Return the part of `describe` that is the same in all checkpoints of a training."""
    labels = train.item_labels
    return {
        "num_users": train.num_users,
        "num_items": train.num_items,
        "user_ids": pack(train.user_ids),
        "item_ids": pack(train.item_ids),
        "item_titles": None if train.item_titles is None else train.item_titles.tolist(),
        "item_labels": None if labels is None else {"name": str(labels.name), "values": _short(labels)},
        "seen": _histories(train, *held_out),
        "data_digest": train.digest,
    }


def _histories(*parts: Interactions) -> dict[str, Any]:
    """Return everybody's items, the latest last where all times are known.

    Users are sorted some at a time, so that the memory is that of the result.
    """
    timed = all(part.timestamps is not None for part in parts)
    offsets = np.concatenate(([0], np.cumsum(sum(part.user_counts for part in parts))))
    found = np.empty(offsets[-1], dtype=np.int32)
    starts = np.unique(np.searchsorted(offsets, np.arange(0, offsets[-1], _SORTED_TOGETHER), side="right") - 1)
    for first, end in itertools.pairwise((*starts.tolist(), parts[0].num_users)):
        rows = [np.flatnonzero((part.users >= first) & (part.users < end)) for part in parts]
        users, items = (
            np.concatenate([getattr(part, side)[some] for part, some in zip(parts, rows, strict=True)])
            for side in ("users", "items")
        )
        times = [part.timestamps[some] for part, some in zip(parts, rows, strict=True) if part.timestamps is not None]
        order = np.lexsort((items, np.concatenate(times) if timed else items, users))
        found[offsets[first] : offsets[end]] = items[order]
    return {"offsets": torch.from_numpy(offsets), "items": torch.from_numpy(found), "timed": timed}
