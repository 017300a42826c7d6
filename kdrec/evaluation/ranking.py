"""Rank the whole catalogue for a stream of users, with what they have seen hidden."""

import math
import warnings
from collections.abc import Sequence
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from kdrec.data.interactions import Interactions, sorted_keys
from kdrec.errors import InputError
from kdrec.evaluation.chunks import in_chunks
from kdrec.models.base import Recommender

BYTES_OF_A_LOT = 48
"""What it takes to draw among a user's unseen items, for each item: some long whole numbers."""


class PairIndex:
    """Sets of items by user, as sorted tensors that live on any device.

    Args:
        *parts: Interactions over the same vocabularies; their union is indexed.
    """

    def __init__(self, *parts: Interactions) -> None:
        self.num_items = parts[0].num_items
        offsets, items = parts[0].csr if len(parts) == 1 else self._united(parts)
        self.items = torch.from_numpy(items)
        self.offsets = torch.from_numpy(offsets)

    def _united(self, parts: Sequence[Interactions]) -> tuple[np.ndarray, np.ndarray]:
        keys = sorted_keys(*parts)
        again = keys[1:] == keys[:-1]
        if again.any():
            keys = keys[np.append(True, ~again)]
        counts = np.bincount(keys // self.num_items, minlength=parts[0].num_users)
        return np.concatenate(([0], np.cumsum(counts))), np.remainder(keys, self.num_items, out=keys)

    @cached_property
    def keys(self) -> Tensor:
        """``user * num_items + item``, ascending, and one that is larger than all, so that every search ends inside."""
        users = torch.arange(len(self.counts) + 1, device=self.items.device)
        counts = torch.cat((self.counts, users.new_ones(1)))
        return users.repeat_interleave(counts) * self.num_items + torch.cat((self.items, users.new_zeros(1)))

    @property
    def counts(self) -> Tensor:
        """How many items each user has: (num_users,) int64."""
        return self.offsets.diff()

    def to(self, device: torch.device) -> "PairIndex":
        """Move the tensors; returns itself."""
        self.items, self.offsets = self.items.to(device), self.offsets.to(device)
        self.__dict__.pop("keys", None)
        return self

    def of(self, users: Tensor) -> tuple[Tensor, Tensor]:
        """Return (rows, items): for each pair of the given users, the position in ``users`` and the item."""
        return pairs_of(users, self.offsets, self.items)

    def contains(self, users: Tensor, items: Tensor) -> Tensor:
        """Say which of items (B, K) belong to users (B,): (B, K) bool; -1 belongs to nobody."""
        queries = users.unsqueeze(1) * self.num_items + items
        found = torch.searchsorted(self.keys, queries)
        return (self.keys[found] == queries) & (items >= 0)


def pairs_of(users: Tensor, offsets: Tensor, items: Tensor) -> tuple[Tensor, Tensor]:
    """Return (rows, items): for each pair of the given users, the position in ``users`` and the item.

    Args:
        users: (B,) int64.
        offsets: (num_users + 1,) int64; the items of user u stand at ``offsets[u]`` up to ``offsets[u + 1]``.
        items: (n,) int64.
    """
    counts = offsets[users + 1] - offsets[users]
    rows = torch.repeat_interleave(torch.arange(len(users), device=users.device), counts)
    starts = offsets[users] - (counts.cumsum(0) - counts)
    return rows, items[torch.arange(len(rows), device=users.device) + starts[rows]]


def require_candidates(num_candidates: int, num_items: int) -> None:
    """Raise InputError if so many items cannot be sampled from the catalogue."""
    if not 1 <= num_candidates <= num_items:
        raise InputError(f"num_candidates is {num_candidates}; it must lie between 1 and the catalogue's {num_items}.")


class CatalogueRanking:
    """Rank all items, or sampled candidates, for users of a held-out set.

    Args:
        held_out: The pairs to find again.
        seen: What is hidden from the ranking.
        num_candidates: None ranks the whole catalogue. A number ranks the held-out items among that many sampled
            unseen ones: offered only for comparison with tables made that way, since it can order models wrongly
            (Krichene and Rendle, KDD 2020).
        seed: Of the sampled candidates.

    Raises:
        InputError: If more candidates are asked for than there are items.
    """

    def __init__(
        self, held_out: Interactions, seen: Sequence[Interactions], num_candidates: int | None = None, seed: int = 0
    ) -> None:
        if num_candidates is not None:
            require_candidates(num_candidates, held_out.num_items)
            warnings.warn(
                f"Ranking among {num_candidates} sampled items can order models wrongly; leave num_candidates out to "
                f"rank the full catalogue.",
                stacklevel=2,
            )
        self.relevant = PairIndex(held_out)
        self.num_candidates = num_candidates
        self.seed = seed
        self._held_out, self._seen = held_out, seen

    @cached_property
    def hidden(self) -> PairIndex:
        """What is hidden; made when it is needed, since it can be as large as the data."""
        return PairIndex(*self._seen).to(self.relevant.items.device)

    @cached_property
    def known(self) -> PairIndex:
        """What is hidden or held out."""
        return PairIndex(self._held_out, *self._seen).to(self.relevant.items.device)

    def to(self, device: torch.device) -> "CatalogueRanking":
        """Move the index; returns itself."""
        for name in ("relevant", "hidden", "known"):
            if name in self.__dict__:
                getattr(self, name).to(device)
        return self

    @torch.no_grad()
    def top_items(self, recommender: Recommender, users: Tensor, k: int, catalogue: Any = None) -> Tensor:
        """Return the k best unseen items of each user, best first: (B, k) int64, -1 where fewer are unseen.

        Args:
            recommender: The model.
            users: (B,) int64.
            k: At most the number of items.
            catalogue: `Recommender.encode_catalogue`, computed once for all calls.
        """
        bytes_a_score = 4 if self.num_candidates is None else BYTES_OF_A_LOT

        def top_of(some: Tensor) -> Tensor:
            return self._top_of(recommender, some, k, catalogue)

        return torch.cat(in_chunks(top_of, users, bytes_a_score * self.relevant.num_items))

    def _top_of(self, recommender: Recommender, users: Tensor, k: int, catalogue: Any) -> Tensor:
        scores = recommender.score_all(users, catalogue)
        scores[self.hidden.of(users)] = -torch.inf
        if self.num_candidates is not None:
            scores.masked_fill_(~self._candidates(users), -torch.inf)
        values, items = top_k(scores, k)
        return items.masked_fill_(values == -torch.inf, -1)

    def unseen(self, users: Tensor, counts: Tensor) -> tuple[Tensor, Tensor]:
        """Draw items that users have not touched, neither in what is hidden nor in what is held out.

        Args:
            users: (B,) int64.
            counts: (B,) int64, how many for each; who has fewer left gets these.

        Returns:
            (rows, items): for each drawn item, the position in ``users`` and the item; the same ones in any batch.
        """
        longest = min(int(counts.max()) if len(counts) else 0, self.relevant.num_items)
        chosen = self._lots(users).topk(longest)
        wanted = torch.arange(longest, device=users.device) < counts.unsqueeze(1)
        rows, places = (wanted & (chosen.values >= 0)).nonzero(as_tuple=True)
        return rows, chosen.indices[rows, places]

    def _lots(self, users: Tensor) -> Tensor:
        """Return a pseudo-random number of each pair (B, num_items) int64, -1 where a user has touched the item.

        It is the pair's own, so a user's draw does not depend on the batch or the rank.
        """
        num_items = self.relevant.num_items
        lots = _scramble(users.unsqueeze(1) * num_items + torch.arange(num_items, device=users.device), self.seed)
        lots[self.known.of(users)] = -1
        return lots

    def _candidates(self, users: Tensor) -> Tensor:
        """Return the mask (B, num_items) of held-out items and sampled unseen ones."""
        lots = self._lots(users)
        chosen = lots.topk(self.num_candidates or 0)
        mask = torch.zeros_like(lots, dtype=torch.bool).scatter_(1, chosen.indices, chosen.values >= 0)
        mask[self.relevant.of(users)] = True
        return mask


def top_k(scores: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Return (values, items), both (B, k), of the k largest scores (B, num_items) of each row, largest first.

    The k blocks with the largest maxima hold the k largest scores, so only these blocks are sorted: one pass over the
    row instead of a heap over all of it. Among equal scores the choice is open, as it is in `torch.topk`.
    """
    num_items = scores.shape[1]
    width = 16 * math.ceil(math.sqrt(num_items / k) / 16)  # both sorts, of maxima and of members, about as long
    num_blocks = num_items // width
    if num_blocks < 2 * k:
        plain = scores.topk(k)
        return plain.values, plain.indices
    inside = num_blocks * width
    blocks = scores[:, :inside].unflatten(1, (num_blocks, width))
    best = blocks.amax(2).topk(k, sorted=False).indices
    members = (best.unsqueeze(2) * width + torch.arange(width, device=scores.device)).flatten(1)
    rest = torch.arange(inside, num_items, device=scores.device).expand(scores.shape[0], -1)  # len() cannot be exported
    members = torch.cat((members, rest), dim=1)
    values, positions = scores.gather(1, members).topk(k)
    return values, members.gather(1, positions)


def _scramble(keys: Tensor, seed: int) -> Tensor:
    """Hash int64 keys to well-mixed numbers in [0, 2**62) (the finaliser of splitmix64, in wrapping arithmetic)."""
    mixed = (keys + 1) * -7046029254386353131 + seed * 2862933555777941757 % (1 << 62)
    for shift, factor in ((30, -4658895280553007687), (27, -7723592293110705685)):
        mixed = (mixed ^ ((mixed >> shift) & ((1 << (64 - shift)) - 1))) * factor
    return (mixed >> 1) & ((1 << 62) - 1)
