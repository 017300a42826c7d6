"""Models that know a user by what they touched: they serve a stranger with a history as they serve anybody."""

from abc import abstractmethod

import numpy as np
import torch
from torch import Tensor

from kdrec.data.interactions import Interactions
from kdrec.models.base import Recommender


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
        if not are_lists(self.history_offsets, self.history_items, self.num_users, self.num_items):
            raise ValueError("its histories are not those of its users and items")

    def histories(self, users: Tensor) -> tuple[Tensor, Tensor]:
        """Return (offsets, items) of users (B,) int64."""
        starts, counts = self.history_offsets[users], self.history_offsets.diff()[users]
        offsets = torch.cat((counts.new_zeros(1), counts.cumsum(0)))
        places = torch.arange(int(offsets[-1]), device=users.device)
        return offsets, self.history_items[places + torch.repeat_interleave(starts - offsets[:-1], counts)]

    @abstractmethod
    def score_histories(self, offsets: Tensor, items: Tensor, catalogue: Tensor | None = None) -> Tensor:
        """Score the whole catalogue for anybody with a history.

        Args:
            offsets: (B + 1,) int64.
            items: (n,) int64.
            catalogue: What `encode_catalogue` returned, to be computed only once for many calls.

        Returns:
            (B, num_items); an empty history gets scores too, the same for everybody.
        """

    def score_all(self, users: Tensor, catalogue: Tensor | None = None) -> Tensor:
        """As `Recommender.score_all`."""
        return self.score_histories(*self.histories(users), catalogue)

    def score(self, users: Tensor, items: Tensor) -> Tensor:
        """As `Recommender.score`, by way of the whole catalogue, once for each user."""
        unique, rows = torch.unique(users, return_inverse=True)
        whole = self.score_all(unique)
        return whole[rows if items.dim() == 1 else rows.unsqueeze(1), items]


def are_lists(offsets: Tensor, items: Tensor, num_users: int, num_items: int) -> bool:
    """Whether these can be a list of items for each user: offsets (num_users + 1,), items (n,)."""
    return (
        len(offsets) == num_users + 1
        and (int(offsets[0]), int(offsets[-1])) == (0, len(items))
        and bool((offsets.diff() >= 0).all() and ((items >= 0) & (items < num_items)).all())
    )
