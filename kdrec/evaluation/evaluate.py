"""Rank a held-out set and average the metrics, without a trainer."""

from collections.abc import Callable, Sequence
from typing import Any

import pandas as pd
import torch
from torch import Tensor

from kdrec.data.interactions import Interactions
from kdrec.data.splits import Split
from kdrec.evaluation.metrics import RankingMetrics, require_cutoffs
from kdrec.evaluation.ranking import CatalogueRanking
from kdrec.models.base import Recommender

STAGES = ("val", "test")


def ranking_of(split: Split, stage: str, num_candidates: int | None = None) -> CatalogueRanking:
    """Return the ranking of a stage: validation hides training items, test hides validation items too.

    Args:
        split: The three sets.
        stage: "val" or "test".
        num_candidates: As `CatalogueRanking`.
    """
    if stage == "val":
        return CatalogueRanking(split.valid, (split.train,), num_candidates)
    return CatalogueRanking(split.test, (split.train, split.valid), num_candidates)


def rank_users(
    ranking: CatalogueRanking,
    metrics: RankingMetrics,
    recommender: Recommender,
    users: Tensor,
    catalogue: Any = None,
) -> None:
    """Rank for a batch of users, each given once, and add what was found to the metrics."""
    _add(ranking, metrics, users, ranking.top_items(recommender, users, max(metrics.cutoffs), catalogue))


@torch.no_grad()
def evaluate(
    recommender: Recommender,
    split: Split,
    stage: str,
    cutoffs: Sequence[int] = (5, 10, 20, 50),
    num_candidates: int | None = None,
    batch_size: int = 256,
) -> tuple[dict[str, float], pd.DataFrame]:
    """Compute what `kdrec validate` and `kdrec test` say of a model.

    Args:
        recommender: Built and in evaluation mode; it is ranked where it is.
        split: The data it was trained on.
        stage: "val" or "test".
        cutoffs: The k of every metric@k.
        num_candidates: As `CatalogueRanking`.
        batch_size: Users ranked at once, the data module's ``eval_batch_size``.

    Returns:
        (means, per user), as `evaluate_lists`.

    Raises:
        InputError: If the cutoffs or the candidates do not fit the catalogue.
    """
    require_cutoffs(cutoffs, split.train.num_items)
    ranking = ranking_of(split, stage, num_candidates).to(recommender.device)
    catalogue = recommender.encode_catalogue()

    def list_items(users: Tensor) -> Tensor:
        return ranking.top_items(recommender, users, max(cutoffs), catalogue)

    return evaluate_lists(list_items, ranking, split.train, cutoffs, batch_size)


def evaluate_lists(
    list_items: Callable[[Tensor], Tensor],
    ranking: CatalogueRanking,
    train: Interactions,
    cutoffs: Sequence[int],
    batch_size: int = 256,
) -> tuple[dict[str, float], pd.DataFrame]:
    """Average the metrics of lists, whoever makes them.

    Args:
        list_items: (B,) users -> (B, K) items, best first, without what the ranking hides, -1 where there is none; K is
            at least the largest cutoff. It is called once for each batch, with the users in ascending order.
        ranking: Which items are relevant to whom.
        train: The training data.
        cutoffs: The k of every metric@k.
        batch_size: Users listed at once.

    Returns:
        (means, per user): ``"metric@k"`` -> mean over users, and a frame of each user's values with a column for each
        of `RankingMetrics.names`, by raw user id in the order of the training data.
    """
    metrics = RankingMetrics(train, cutoffs).to(ranking.relevant.counts.device)
    for users in ranking.relevant.counts.nonzero().flatten().split(batch_size):
        _add(ranking, metrics, users, list_items(users))
    means = metrics.compute()
    rows, values = (tensor.numpy() for tensor in metrics.per_user)
    ids = pd.Index(train.user_ids[rows], name="user")
    return means, pd.DataFrame(values, index=ids, columns=metrics.names)


def _add(ranking: CatalogueRanking, metrics: RankingMetrics, users: Tensor, top: Tensor) -> None:
    metrics.update(users, top, ranking.relevant.contains(users, top), ranking.relevant.of(users))
