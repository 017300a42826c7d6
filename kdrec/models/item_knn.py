"""Nearest neighbours among items, the oldest collaborative filter that is still a serious baseline."""

import math
from typing import Any

import torch
from torch import Tensor

from kdrec.data.interactions import Interactions
from kdrec.errors import InputError
from kdrec.models.bags import are_lists, places_of
from kdrec.models.history import HistoryRecommender

_PAIRS = 1 << 22  # of items that a user touched both, counted at once


class ItemKNN(HistoryRecommender):
    """Score an item by its similarity to those of a history that are among its nearest neighbours, summed.

    The similarity of items i and j is the cosine of their columns, ``common / (sqrt(n_i n_j) + shrinkage)``: the users
    who touched both over those who touched each. Among equally similar items those with the lower indices are nearer.

    Args:
        num_neighbours: Of each item; fewer where fewer were ever touched together with it.
        shrinkage: Added to the denominator, so that similarities of few users count less; at least 0.

    References:
        Sarwar et al., Item-Based Collaborative Filtering Recommendation Algorithms, WWW 2001, sec. 3;
        Deshpande and Karypis, Item-Based Top-N Recommendation Algorithms, TOIS 2004, for 0 and 1 in place of ratings.

    Example:
        >>> import numpy as np
        >>> from kdrec.data.interactions import Interactions
        >>> ids = np.array(["t", "u", "v", "w"]), np.array(["a", "b"])
        >>> model = ItemKNN(num_neighbours=1)
        >>> model.bind(Interactions(np.array([0, 0, 1, 2, 3]), np.array([0, 1, 1, 1, 1]), *ids))
        >>> model.score_histories(torch.tensor([0, 1]), torch.tensor([0])).tolist()  # one in common, of 1 and 4
        [[0.0, 0.5]]
    """

    has_vectors = False
    neighbour_offsets: Tensor
    neighbours: Tensor
    similarities: Tensor

    def __init__(self, num_neighbours: int = 20, shrinkage: float = 0.0) -> None:
        super().__init__()
        if num_neighbours < 1:
            raise InputError(f"ItemKNN: num_neighbours is {num_neighbours}; it must be at least 1.")
        if not 0 <= shrinkage < math.inf:
            raise InputError(f"ItemKNN: shrinkage is {shrinkage}; it must be a number and not negative.")
        self.num_neighbours = num_neighbours
        self.shrinkage = shrinkage

    def build(self, num_users: int, num_items: int) -> None:
        """As `Recommender.build`."""
        super().build(num_users, num_items)
        self._keep(torch.zeros(num_items + 1, dtype=torch.int64), torch.empty(0, dtype=torch.int64), torch.empty(0))

    def _keep(self, offsets: Tensor, neighbours: Tensor, similarities: Tensor) -> None:
        """Hold, for each item, who has it as a neighbour."""
        self.keep(neighbour_offsets=offsets, neighbours=neighbours.int(), similarities=similarities.float())

    def bind(self, train: Interactions) -> None:
        """As `Recommender.bind`; finds the neighbours."""
        super().bind(train)
        offsets, users = self.audience()
        pairs = torch.cat((offsets[:1], self.history_offsets.diff()[users].cumsum(0)))[offsets[1:]]  # up to each item
        blocks = torch.unique_consecutive(pairs // _PAIRS, return_counts=True)[1].tolist()
        found = [self._nearest(some, offsets, users) for some in torch.arange(self.num_items).split(blocks)]
        items, neighbours, similarities = (torch.cat(parts) for parts in zip(*found, strict=True))
        neighbours, order = neighbours.sort(stable=True)
        counts = torch.bincount(neighbours, minlength=self.num_items)
        self._keep(torch.cat((counts.new_zeros(1), counts.cumsum(0))), items[order], similarities[order])

    def _nearest(self, some: Tensor, offsets: Tensor, users: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return (items, neighbours, similarities), each (n,), of some items; the rest is the audience of all."""
        ends, places = places_of(offsets, some)
        items, fans = torch.repeat_interleave(some, ends.diff()), users[places]
        ends, places = places_of(self.history_offsets, fans)
        pairs = torch.repeat_interleave(items, ends.diff()) * self.num_items + self.history_items[places]
        pairs, common = pairs.unique(return_counts=True)
        items, others = pairs // self.num_items, pairs % self.num_items
        popularity = offsets.diff().double()
        similarities = common / ((popularity[items] * popularity[others]).sqrt() + self.shrinkage)
        similarities[items == others] = 0
        order = similarities.argsort(descending=True, stable=True)
        order = order[items[order].argsort(stable=True)]  # item by item, each with the nearest first
        counts = torch.bincount(items - some[0], minlength=len(some))
        ranks = torch.arange(len(items)) - torch.repeat_interleave(counts.cumsum(0) - counts, counts)
        order = order[(ranks < self.num_neighbours) & (similarities[order] > 0)]
        return items[order], others[order], similarities[order]

    def require_sound(self) -> None:
        """As `Recommender.require_sound`."""
        super().require_sound()
        neighbours = self.neighbour_offsets, self.neighbours
        if not are_lists(*neighbours, self.num_items, self.num_items) or len(self.similarities) != len(self.neighbours):
            raise ValueError("its neighbours are not those of its items")

    def encode_catalogue(self) -> None:
        """As `Recommender.encode_catalogue`: there is nothing to compute."""

    def score_histories(self, offsets: Tensor, items: Tensor, catalogue: Any = None) -> Tensor:
        """As `HistoryRecommender.score_histories`; an empty history gets zeros."""
        rows = torch.repeat_interleave(offsets.diff())
        ends, places = places_of(self.neighbour_offsets, items)
        scores = self.similarities.new_zeros(len(offsets) - 1, self.num_items)
        targets = torch.repeat_interleave(rows, ends.diff()), self.neighbours[places].long()
        return scores.index_put_(targets, self.similarities[places], accumulate=True)
