"""Top-k ranking metrics, all computed at once from one list a user, without a loop over users."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torchmetrics import Metric

from kdrec.data.interactions import Interactions
from kdrec.errors import InputError

METRICS = ("recall", "precision", "ndcg", "mrr", "map", "hit_rate")
LOGGED_METRICS = (*METRICS, "recall_head", "recall_tail", "coverage")


def ranking_metrics(hits: Tensor, num_relevant: Tensor, cutoffs: Sequence[int]) -> dict[str, Tensor]:
    """Compute every metric of every user.

    Args:
        hits: (B, K) bool, whether the item at each rank is relevant, best first; K is at least the largest cutoff.
        num_relevant: (B,) how many relevant items each user has, at least 1.
        cutoffs: The k of metric@k.

    Returns:
        ``"metric@k"`` -> (B,) float64 in [0, 1]. With R relevant items, and positions counted from 1:

        - ``recall``: hits / R. ``precision``: hits / k. ``hit_rate``: 1 if there is a hit.
        - ``ndcg``: binary gains, discount 1 / log2(1 + position), divided by that of an ideal list of min(R, k) hits.
        - ``mrr``: 1 / position of the first hit. ``map``: the sum of precision at each hit, divided by R.

    Example:
        >>> values = ranking_metrics(torch.tensor([[False, True]]), torch.tensor([1]), [2])
        >>> {name: round(value.item(), 3) for name, value in values.items()}
        {'recall@2': 1.0, 'precision@2': 0.5, 'ndcg@2': 0.631, 'mrr@2': 0.5, 'map@2': 0.5, 'hit_rate@2': 1.0}
    """
    depth = max(cutoffs)
    gains = hits[:, :depth].double()
    positions = torch.arange(1, depth + 1, dtype=torch.float64, device=hits.device)
    discounts = 1 / torch.log2(positions + 1)
    found = gains.cumsum(1)
    dcg = (gains * discounts).cumsum(1)
    ideal = discounts.cumsum(0)
    reciprocal = (gains / positions).cummax(1).values
    precision_sum = (gains * found / positions).cumsum(1)
    result = {}
    for k in cutoffs:
        last = k - 1
        result[f"recall@{k}"] = found[:, last] / num_relevant
        result[f"precision@{k}"] = found[:, last] / k
        result[f"ndcg@{k}"] = dcg[:, last] / ideal[num_relevant.clamp(max=k) - 1]
        result[f"mrr@{k}"] = reciprocal[:, last]
        result[f"map@{k}"] = precision_sum[:, last] / num_relevant
        result[f"hit_rate@{k}"] = (found[:, last] > 0).double()
    return result


def require_cutoffs(cutoffs: Sequence[int], num_items: int) -> None:
    """Raise InputError if there is no cutoff, or one that is below 1 or above the catalogue's size."""
    if not cutoffs:
        raise InputError("The list of cutoffs is empty; give the k of every metric@k, such as [10, 20].")
    for k in cutoffs:
        if not 1 <= k <= num_items:
            raise InputError(f"The cutoff {k} does not fit a catalogue of {num_items} items; choose 1..{num_items}.")


def tail_items(train: Interactions, share: float = 0.2) -> Tensor:
    """Mark the least popular items that together hold at most ``share`` of the interactions: (num_items,) bool.

    Ties in popularity are broken by item index, so the set is the same everywhere.
    """
    counts = torch.from_numpy(train.item_counts.copy())
    order = counts.argsort(stable=True)
    tail = torch.zeros(len(counts), dtype=torch.bool)
    tail[order[counts[order].cumsum(0) <= share * counts.sum()]] = True
    return tail


class RankingMetrics(Metric):
    """Collect users' metrics over batches and processes, and average them over users.

    Values are kept for each user and put in user order before they are averaged in float64, so the result does not
    depend on batches or on the number of processes, to the last bit.

    Attributes:
        names: Metrics in the order of the columns of ``per_user``.
        per_user: After `compute`, (users (U,) ascending, values (U, len(names)) float64), for paired significance
            tests; it survives `reset`.

    Args:
        train: Training interactions: popularity, and the catalogue's size.
        cutoffs: The k of metric@k.
        tail_share: The least popular items that hold this share of the interactions are the tail.

    Raises:
        InputError: If the cutoffs do not fit the catalogue.
    """

    full_state_update = False
    users: list[Tensor]
    values: list[Tensor]
    shown: Tensor
    per_user: tuple[Tensor, Tensor]

    def __init__(self, train: Interactions, cutoffs: Sequence[int] = (5, 10, 20, 50), tail_share: float = 0.2) -> None:
        super().__init__()
        require_cutoffs(cutoffs, train.num_items)
        self.cutoffs = sorted(set(cutoffs))
        self._tail = tail_items(train, tail_share)
        parts = ("recall_head", "recall_tail")
        self.names = [f"{name}@{k}" for k in self.cutoffs for name in METRICS]
        self.names += [f"{name}@{k}" for name in parts for k in self.cutoffs]
        self.add_state("users", default=[], dist_reduce_fx="cat")
        self.add_state("values", default=[], dist_reduce_fx="cat")
        self.add_state("shown", torch.zeros(len(self.cutoffs), train.num_items), dist_reduce_fx="max")

    def update(self, users: Tensor, top_items: Tensor, hits: Tensor, relevant: tuple[Tensor, Tensor]) -> None:
        """Add a batch.

        Args:
            users: (B,) user indices, each given once over all batches and processes.
            top_items: (B, K) ranked items, -1 where there is none; K is at least the largest cutoff.
            hits: (B, K) bool, whether each is relevant.
            relevant: (rows, items): for each relevant pair, the position in ``users`` and the item.
        """
        rows, items = relevant
        values = ranking_metrics(hits, torch.bincount(rows, minlength=len(users)), self.cutoffs)
        tail = self._tail.to(items.device)
        for name, side in (("recall_head", ~tail), ("recall_tail", tail)):
            num_relevant = torch.bincount(rows[side[items]], minlength=len(users))
            found = (hits & side[top_items]).double().cumsum(1)
            for k in self.cutoffs:
                values[f"{name}@{k}"] = found[:, k - 1] / num_relevant  # nan where the user has none on this side
        self.users.append(users)
        self.values.append(torch.stack([values[name] for name in self.names], dim=1))
        for row, k in enumerate(self.cutoffs):
            listed = top_items[:, :k]
            self.shown[row, listed[listed >= 0]] = 1

    def compute(self) -> dict[str, float]:
        """Return the mean over users of each metric, and ``coverage@k``: the share of items in anybody's top k.

        ``recall_head`` and ``recall_tail`` count only relevant items on their side, and average over the users that
        have one there (nan if nobody has).
        """
        users, values = _cat(self.users), _cat(self.values)
        order = users.argsort()
        self.per_user = (users[order].cpu(), values[order].cpu())
        means = torch.nanmean(self.per_user[1], dim=0)
        result = dict(zip(self.names, means.tolist(), strict=True))
        coverage = self.shown.double().mean(1).tolist()
        return result | {f"coverage@{k}": value for k, value in zip(self.cutoffs, coverage, strict=True)}


def _cat(parts: list[Tensor] | Tensor) -> Tensor:
    """Join a list state; after a sync torchmetrics has joined it already."""
    return torch.cat(parts) if isinstance(parts, list) else parts
