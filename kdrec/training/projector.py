"""Items as points in TensorBoard's projector, teacher beside student."""

from collections import Counter

import lightning as L
import numpy as np
import pandas as pd
import torch
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.loggers import TensorBoardLogger
from torch import Tensor

from kdrec.data.interactions import Interactions
from kdrec.errors import InputError
from kdrec.models.base import Recommender
from kdrec.models.sharded import ShardedEmbedding
from kdrec.training.distillation import DistillationModule
from kdrec.training.ranking import RankingModule

_MOST_COLOURS = 50  # the projector colours by a column only if it has no more different values


class ProjectorWriter(Callback):
    """Write the item vectors to TensorBoard's projector when a training ends; they are those of its last epoch.

    A distillation writes "student items" and, if its teacher has vectors, "teacher items", any other fit "items". Each
    item carries its id, its title and main label where the data has them, and how many training interactions it has.
    The main label is, of those in the first text column of the item features, the one that most items bear; only the
    most frequent ones keep their names, so that the projector can colour by them. A run without a TensorBoardLogger
    writes nothing.

    Args:
        num_items: At most so many items are written, the most popular ones; at least 1. A thousand items of width 200
            are a text file of 4 MiB.

    Raises:
        InputError: If num_items is below 1; as a fit starts, if its model has no vectors.

    Side effects: files in the logger's folder, by the first process only. No random numbers are drawn.
    """

    def __init__(self, num_items: int = 5000) -> None:
        if num_items < 1:
            raise InputError(f"ProjectorWriter: num_items is {num_items}; it must be at least 1.")
        self.num_items = num_items

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Refuse what cannot be shown."""
        assert isinstance(pl_module, RankingModule)
        if not pl_module.recommender.has_vectors:
            raise InputError(
                f"ProjectorWriter shows vectors of items, and {type(pl_module.recommender).__name__} has none; leave "
                f"it out of trainer.callbacks."
            )

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Write the vectors under the last step."""
        loggers = [logger for logger in trainer.loggers if isinstance(logger, TensorBoardLogger)]
        if not loggers:
            return
        assert isinstance(pl_module, RankingModule)
        train = pl_module.train_data
        items = np.argsort(-train.item_counts, kind="stable")[: self.num_items]
        tables = {"items": _item_vectors(pl_module.recommender, items)}  # by all processes, which may hold parts
        if not trainer.is_global_zero:
            return
        header, rows = describe_items(train, items)
        if isinstance(pl_module, DistillationModule):
            assert pl_module.teacher is not None
            tables = {"student items": tables["items"]}
            if pl_module.teacher.recommender.has_vectors:
                tables["teacher items"] = _item_vectors(pl_module.teacher.recommender, items)
        for logger in loggers:
            for tag, vectors in tables.items():
                logger.experiment.add_embedding(
                    vectors, metadata=rows, metadata_header=header, tag=tag, global_step=trainer.global_step
                )


def describe_items(train: Interactions, items: np.ndarray) -> tuple[list[str], list[list[str]]]:
    """Return the names of the columns that describe items, and a row of texts for each; no text breaks a line.

    Args:
        train: Counts, ids, titles and features.
        items: (n,) indices of the items to describe.

    Returns:
        Columns ``item``, ``title`` (if there are titles), the first text column of the item features by its own name
        (if there is one), ``interactions``; and n rows.
    """
    columns = {"item": train.item_ids[items].tolist()}
    if train.item_titles is not None:
        columns["title"] = train.item_titles[items].tolist()
    if (labels := train.item_labels) is not None:
        columns[str(labels.name)] = _main_labels(labels, items)
    columns["interactions"] = train.item_counts[items].tolist()
    header = [_one_line(name) for name in columns]
    return header, [[_one_line(text) for text in row] for row in zip(*columns.values(), strict=True)]


def _main_labels(column: pd.Series, items: np.ndarray) -> list[str]:
    """Return of each item's labels, which ``|`` separates, the one that most items of the catalogue bear."""
    labels = [text.split("|") for text in column.fillna("").astype(str)]
    bearers = Counter(label for row in labels for label in row if label)
    main = [max(labels[item], key=bearers.__getitem__) or "none" for item in items]
    if len(set(main)) <= _MOST_COLOURS:
        return main
    kept = {label for label, _ in Counter(main).most_common(_MOST_COLOURS - 1)}
    return [label if label in kept else "other" for label in main]


def _one_line(text: object) -> str:
    """Put spaces for tabs and ends of lines, which separate columns and rows in the projector's files."""
    return " ".join(str(text).split())


@torch.no_grad()
def _item_vectors(recommender: Recommender, items: np.ndarray) -> Tensor:
    """Return vectors (n, d) on the CPU as they are in evaluation; the model's mode is left as it was."""
    modes = {module: module.training for module in recommender.modules()}
    recommender.eval()
    for module in modes:
        if isinstance(module, ShardedEmbedding):
            module.train()  # in evaluation it would look up its own rows alone
    vectors = recommender.item_vectors(torch.from_numpy(items).to(recommender.device))
    for module, mode in modes.items():
        module.training = mode
    return vectors.float().cpu()
