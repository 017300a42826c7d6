"""The linear autoencoder that is solved in closed form: hard to beat for its age, and nothing to train."""

import math
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from kdrec.data.interactions import Interactions
from kdrec.errors import InputError
from kdrec.models.bags import places_of
from kdrec.models.history import HistoryRecommender

_ROWS = 256  # of the Gram matrix that are counted at once
_PAIRS = 1024  # of an item and a user that are worked on at once, each with all users of the item


class EASE(HistoryRecommender):
    """Score the catalogue by a history x (0 or 1 an item) times item-to-item weights B: x B.

    B minimises ``|X - X B|^2 + regularization * |B|^2`` with a zero diagonal, X being all histories. With
    P = (X'X + regularization * I)^-1 it is B = I - P diag(1 / diag P).

    What is kept is the inverse on the smaller side, and B nowhere. With fewer users than items that is
    M = (XX' + regularization * I)^-1, users x users, and P = (I - X' M X) / regularization. So neither fit nor file nor
    scoring holds a table of items x items. It is solved in double precision and kept in single.

    Args:
        regularization: Weight of the squares in B, above 0.

    References:
        Steck, Embarrassingly Shallow Autoencoders for Sparse Data, WWW 2019. The form for few users follows from the
        Woodbury identity.

    Example:
        >>> import numpy as np
        >>> from kdrec.data.interactions import Interactions
        >>> ids = np.array(["u", "v"]), np.array(["a", "b", "c"])
        >>> model = EASE(regularization=1.0)
        >>> model.bind(Interactions(np.array([0, 0, 1]), np.array([0, 1, 2]), *ids))
        >>> model.score_all(torch.tensor([0, 1])).round(decimals=3).tolist()  # a and b go together
        [[0.5, 0.5, 0.0], [0.0, 0.0, 0.0]]
    """

    has_vectors = False
    inverse: Tensor
    diagonal: Tensor

    def __init__(self, regularization: float = 500.0) -> None:
        super().__init__()
        if not 0 < regularization < math.inf:
            raise InputError(f"EASE: regularization is {regularization}; it must be a number above 0.")
        self.regularization = regularization

    @property
    def _by_users(self) -> bool:
        return self.num_users < self.num_items

    def build(self, num_users: int, num_items: int) -> None:
        """As `Recommender.build`."""
        super().build(num_users, num_items)
        smaller = min(num_users, num_items)
        self.register_buffer("inverse", torch.zeros(smaller, smaller))  # M or P
        self.register_buffer("diagonal", torch.ones(num_items))  # regularization * diag P

    @torch.no_grad()
    def bind(self, train: Interactions) -> None:
        """As `Recommender.bind`; solves for the weights."""
        super().bind(train)
        offsets, users = self.audience()
        rows = (self.history_offsets, self.history_items) if self._by_users else (offsets, users)
        gram = _gram(*rows, max(self.num_users, self.num_items))
        gram.diagonal().add_(self.regularization)
        inverse = torch.cholesky_inverse(torch.linalg.cholesky(gram))
        if self._by_users:
            items, sums = torch.repeat_interleave(offsets.diff()), torch.zeros(self.num_items).double()
            for some in torch.arange(len(users)).split(_PAIRS):
                ends, places = places_of(offsets, items[some])
                values = inverse[torch.repeat_interleave(users[some], ends.diff()), users[places]]
                sums.index_add_(0, torch.repeat_interleave(items[some], ends.diff()), values)
            self.diagonal.copy_(1 - sums)  # sums of M over all pairs of an item's users
        else:
            self.diagonal.copy_(self.regularization * inverse.diagonal())
        self.inverse.copy_(inverse)

    def encode_catalogue(self) -> tuple[Tensor, Tensor]:
        """As `Recommender.encode_catalogue`: the users of every item, as `audience`."""
        return self.audience()

    def score_histories(self, offsets: Tensor, items: Tensor, catalogue: tuple[Tensor, Tensor] | None = None) -> Tensor:
        """As `HistoryRecommender.score_histories`; an empty history gets zeros."""
        liked = _indicators(offsets, items, self.num_items).to(self.inverse.dtype)
        if not self._by_users:
            return self._scores(liked, liked - self.regularization * _sums(offsets, items, self.inverse).T)
        overlaps = _sums(self.history_offsets, self.history_items, liked)
        return self._scores(liked, self._spread(self.inverse @ overlaps, catalogue))

    def score_all(self, users: Tensor, catalogue: Any = None) -> Tensor:
        """As `Recommender.score_all`; for users of the training data, X X' M = I - regularization * M is at hand."""
        offsets, items = self.histories(users)
        if not self._by_users:
            return self.score_histories(offsets, items)
        liked = _indicators(offsets, items, self.num_items).to(self.inverse.dtype)
        shares = -self.regularization * self.inverse[users].T
        shares[users, torch.arange(len(users), device=users.device)] += 1
        return self._scores(liked, self._spread(shares, catalogue))

    def _spread(self, shares: Tensor, catalogue: tuple[Tensor, Tensor] | None) -> Tensor:
        """Sum shares (num_users, B) over the users of every item: (num_items, B)."""
        offsets, users = self.encode_catalogue() if catalogue is None else catalogue
        return _sums(offsets, users, shares)

    def _scores(self, liked: Tensor, fitted: Tensor) -> Tensor:
        """Return x B = x - (x - f) / d, where f = x - regularization * x P; both (num_items, B)."""
        return (liked - (liked - fitted) / self.diagonal.unsqueeze(1)).T.contiguous()


def _sums(offsets: Tensor, members: Tensor, table: Tensor) -> Tensor:
    """Sum the table's rows of each set: (R + 1,), (n,), (N, w) -> (R, w)."""
    return functional.embedding_bag(members, table, offsets, mode="sum", include_last_offset=True)


def _indicators(offsets: Tensor, members: Tensor, size: int) -> Tensor:
    """Return a column for each set that is 1 at its members: (R + 1,), (n,) -> (size, R) bool."""
    sets = torch.repeat_interleave(offsets.diff())
    found = torch.zeros(size, len(offsets) - 1, dtype=torch.bool, device=members.device)
    return found.index_put_((members, sets), found.new_ones(()))


def _gram(offsets: Tensor, members: Tensor, size: int) -> Tensor:
    """Count what each two sets share: (R + 1,), (n,) -> (R, R) float64."""
    blocks = []
    for start in range(0, len(offsets) - 1, _ROWS):
        part = offsets[start : start + _ROWS + 1]
        some = _indicators(part - part[0], members[part[0] : part[-1]], size)
        blocks.append(_sums(offsets, members, some.double()))
    return torch.cat(blocks, dim=1)
