"""Draw training triples: every positive once an epoch, with fresh negatives, without any loop over samples."""

from collections.abc import Iterator
from typing import Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor

from kdrec.data.interactions import Interactions
from kdrec.errors import InputError

Samples = Literal["pairs", "histories", "users"]
"""What an epoch draws: pairs in any order, pairs user by user, or every user once with one of their items."""


_AT_ONCE = 1 << 18  # pairs for which negatives are drawn together, so that an epoch is never held whole


class Batch(NamedTuple):
    """Training triples.

    Attributes:
        users: (B,) int64.
        positives: (B,) int64, an item of that user.
        negatives: (B, N) int64, items the user has not touched in training.
    """

    users: Tensor
    positives: Tensor
    negatives: Tensor


class OutsideSampler:
    """Uniform columns that a row does not hold, exact and without rejection.

    The r-th column that a row does *not* hold is ``r + #{j : p_j - j <= r}`` for its sorted columns p_0 < p_1 < ..., so
    one draw and one binary search give an unbiased sample in a fixed number of operations, on any device.

    Args:
        offsets: (num_rows + 1,) int64; the columns that row r holds stand at ``offsets[r]`` up to ``offsets[r + 1]``.
        columns: (n,) int64, ascending and different in each row.
        num_columns: How many there are.

    Attributes:
        free: (num_rows,) int64, how many columns each row does not hold.
    """

    def __init__(self, offsets: np.ndarray, columns: np.ndarray, num_columns: int) -> None:
        counts = np.diff(offsets)
        keys = np.repeat(offsets[:-1] + np.arange(len(counts)) * num_columns, counts)  # p_j - j, apart for each row
        keys += columns
        keys -= np.arange(len(columns))
        fits = len(counts) * num_columns < 1 << 31  # in four bytes, which are searched faster than eight
        self._keys = torch.from_numpy(keys.astype(np.int32) if fits else keys)
        self._offsets, self._stride = torch.from_numpy(offsets), num_columns
        self.free = num_columns - self._offsets.diff()

    def draw(self, rows: Tensor, number: int, generator: torch.Generator) -> Tensor:
        """Draw with replacement.

        Args:
            rows: (B,) int64 on the CPU.
            number: N.
            generator: Source of randomness.

        Returns:
            (B, N) int64 columns, -1 where a row holds them all.
        """
        free = self.free[rows].unsqueeze(1)
        # float64 keeps 53 bits, so the bias against a uniform integer is below num_columns / 2**53
        chance = torch.rand((len(rows), number), dtype=torch.float64, generator=generator, device=generator.device)
        rank = (chance * free).long().clamp_(max=free - 1)
        query = ((rows * self._stride).unsqueeze(1) + rank).to(self._keys.dtype)
        return rank + torch.searchsorted(self._keys, query, right=True) - self._offsets[rows].unsqueeze(1)


class NegativeSampler(OutsideSampler):
    """Uniform items that a user has not touched.

    Args:
        train: What users touched.

    Raises:
        InputError: If a user touched everything, so that no negative exists.

    Example:
        >>> import numpy as np
        >>> from kdrec.data.interactions import Interactions
        >>> log = Interactions(np.array([0, 0]), np.array([0, 2]), np.array(["u"]), np.array(["a", "b", "c"]))
        >>> NegativeSampler(log).draw(torch.zeros(4, dtype=torch.int64), 2, torch.Generator()).unique().tolist()
        [1]
    """

    def __init__(self, train: Interactions) -> None:
        free = train.num_items - train.user_counts
        if (free <= 0).any():
            user = train.user_ids[int(free.argmin())]
            raise InputError(f"User {user} has touched every item, so no negative can be drawn; leave that user out.")
        super().__init__(*train.csr, train.num_items)


class TripleLoader:
    """Iterate over the batches of one epoch; batches are slices of tensors.

    All ranks draw the same epoch (it depends only on the seed and the epoch's number) and each takes its part of
    every global batch, so that N ranks with batch B see what one process with N * B sees. The last global batch is
    divided evenly, so that all ranks take the same number of steps; a part of it can be empty.

    Args:
        train: The positives.
        batch_size: Positives a batch and rank.
        num_negatives: Negatives for each positive.
        seed: Of the order and the negatives.
        rank: This process.
        num_ranks: How many there are.
        samples: What an epoch draws.
    """

    def __init__(
        self,
        train: Interactions,
        batch_size: int,
        num_negatives: int,
        seed: int,
        rank: int = 0,
        num_ranks: int = 1,
        samples: Samples = "pairs",
    ) -> None:
        self.batch_size = batch_size
        self.num_negatives = num_negatives
        self.seed = seed
        self.rank = rank
        self.num_ranks = num_ranks
        self.epoch = 0
        self._train = train
        self._samples = samples
        self._num_drawn = int((train.user_counts > 0).sum()) if samples == "users" else len(train)
        self._negatives = NegativeSampler(train)

    @property
    def sampler(self) -> "TripleLoader":
        """Itself: Lightning announces the epoch to ``loader.sampler.set_epoch``."""
        return self

    def set_epoch(self, epoch: int) -> None:
        """Choose which epoch the next iteration draws."""
        self.epoch = epoch

    def __len__(self) -> int:
        return -(-self._num_drawn // (self.batch_size * self.num_ranks))

    def __iter__(self) -> Iterator[Batch]:
        """Yield the epoch's `Batch`es."""
        generator = torch.Generator().manual_seed(
            int(np.random.SeedSequence([self.seed, self.epoch]).generate_state(1)[0])
        )
        order, step = self._order(generator), self.batch_size * self.num_ranks
        at_once = max(1, _AT_ONCE // step) * step
        for first in range(0, len(order), at_once):
            rows = order[first : first + at_once]
            users, positives = (torch.from_numpy(ids[rows]) for ids in (self._train.users, self._train.items))
            negatives = self._negatives.draw(users, self.num_negatives, generator)
            for start in range(0, len(users), step):
                size = min(step, len(users) - start)
                begin, end = (start + size * part // self.num_ranks for part in (self.rank, self.rank + 1))
                yield Batch(users[begin:end], positives[begin:end], negatives[begin:end])

    def _order(self, generator: torch.Generator) -> np.ndarray:
        """Return the rows of the epoch's pairs."""
        small = len(self._train) < 1 << 31
        kind = torch.int32 if small else torch.int64
        order = torch.randperm(len(self._train), generator=generator, dtype=kind).numpy()
        if self._samples == "users":
            firsts = self._firsts_of_users(order)
            return firsts[torch.randperm(self._num_drawn, generator=generator).numpy()]
        if self._samples == "histories":
            place = torch.randperm(self._train.num_users, generator=generator).numpy()
            return order[place[self._train.users[order]].argsort(kind="stable")]
        return order

    def _firsts_of_users(self, order: np.ndarray) -> np.ndarray:
        """Return the first pair of every user in a shuffled order of all pairs."""
        firsts = np.full(self._train.num_users, len(order))
        np.minimum.at(firsts, self._train.users[order], np.arange(len(order)))
        return order[firsts[firsts < len(order)]]
