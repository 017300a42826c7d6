"""The baseline that every table carries: everybody gets the most popular items."""

import torch
from torch import Tensor

from kdrec.data.interactions import Interactions
from kdrec.models.base import DotProductRecommender


class Popularity(DotProductRecommender):
    """Score an item by how many training pairs it has; nothing is trained.

    Written as a dot product of width 1: every user is 1, an item is its count.
    """

    counts: Tensor

    def build(self, num_users: int, num_items: int) -> None:
        """As `Recommender.build`."""
        super().build(num_users, num_items)
        self.register_buffer("counts", torch.zeros(num_items))

    def bind(self, train: Interactions) -> None:
        """As `Recommender.bind`."""
        super().bind(train)
        self.counts.copy_(torch.from_numpy(train.item_counts))

    def user_vectors(self, users: Tensor) -> Tensor:
        """As `Recommender.user_vectors`; d = 1."""
        return self.counts.new_ones(len(users), 1)

    def item_vectors(self, items: Tensor) -> Tensor:
        """As `Recommender.item_vectors`; d = 1."""
        return self.counts[items].unsqueeze(1)
