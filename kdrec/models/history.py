"""Models that know a user by what they touched: they serve a stranger with a history as they serve anybody."""

from abc import abstractmethod
from typing import Any

import numpy as np
import torch
from torch import Tensor

from kdrec.data.interactions import Interactions
from kdrec.models.bags import are_lists, places_of
from kdrec.models.base import DotProductRecommender, Recommender

_BLOCK = 1024  # users whose vectors are computed together, so that activations stay small


class HistoryRecommender(Recommender):
    """A recommender whose scores are a function of the user's training items.

    Histories travel as ``offsets`` (B + 1,) and ``items`` (n,); those of row b stand at ``offsets[b]`` up to
    ``offsets[b + 1]``, the latest last where times are known, else in the order of their indices.
    """

    history_offsets: Tensor
    history_items: Tensor

    def build(self, num_users: int, num_items: int) -> None:
        """As `Recommender.build`."""
        super().build(num_users, num_items)
        nothing = torch.empty(0, dtype=torch.int64)
        self.keep(history_offsets=torch.zeros(num_users + 1, dtype=torch.int64), history_items=nothing)

    def bind(self, train: Interactions) -> None:
        """As `Recommender.bind`; keeps every user's training items."""
        super().bind(train)
        times = train.items if train.timestamps is None else train.timestamps
        order = np.lexsort((train.items, times, train.users))
        self.keep(
            history_offsets=torch.from_numpy(train.csr[0].astype(np.int64)),
            history_items=torch.from_numpy(train.items[order]),
        )

    def require_sound(self) -> None:
        """As `Recommender.require_sound`."""
        super().require_sound()
        if not are_lists(self.history_offsets, self.history_items, self.num_users, self.num_items):
            raise ValueError("its histories are not those of its users and items")

    def histories(self, users: Tensor) -> tuple[Tensor, Tensor]:
        """Return (offsets, items) of users (B,) int64."""
        offsets, places = places_of(self.history_offsets, users)
        return offsets, self.history_items[places]

    def audience(self) -> tuple[Tensor, Tensor]:
        """Return the histories by item: offsets (num_items + 1,) and the users who touched each, ascending."""
        users = torch.repeat_interleave(self.history_offsets.diff())
        items, order = self.history_items.sort(stable=True)
        counts = torch.bincount(items, minlength=self.num_items)
        return torch.cat((counts.new_zeros(1), counts.cumsum(0))), users[order]

    @abstractmethod
    def score_histories(self, offsets: Tensor, items: Tensor, catalogue: Any = None) -> Tensor:
        """Score the whole catalogue for anybody with a history.

        Args:
            offsets: (B + 1,) int64.
            items: (n,) int64.
            catalogue: What `encode_catalogue` returned, to be computed only once for many calls.

        Returns:
            (B, num_items); an empty history gets scores too, the same for everybody.
        """

    def score_all(self, users: Tensor, catalogue: Any = None) -> Tensor:
        """As `Recommender.score_all`."""
        return self.score_histories(*self.histories(users), catalogue)


class HistoryDotProductRecommender(DotProductRecommender, HistoryRecommender):
    """A recommender that makes a user's vector of their history, and scores by dot products with the items'."""

    @abstractmethod
    def history_vectors(self, offsets: Tensor, items: Tensor) -> Tensor:
        """Return the vectors of anybody with a history: (B + 1,) and (n,) int64 -> (B, d)."""

    def user_vectors(self, users: Tensor) -> Tensor:
        """As `Recommender.user_vectors`; each user's history is read once, however often ``users`` names them."""
        unique, rows = torch.unique(users, return_inverse=True)
        blocks = [self.history_vectors(*self.histories(some)) for some in unique.split(_BLOCK)]
        return torch.cat(blocks).index_select(0, rows)

    def score_histories(self, offsets: Tensor, items: Tensor, catalogue: Tensor | None = None) -> Tensor:
        """As `HistoryRecommender.score_histories`."""
        return self.history_vectors(offsets, items) @ (self.encode_catalogue() if catalogue is None else catalogue).T
