"""What every data set shares: split once, sample triples, and hand out each user exactly once for evaluation."""

import os
from abc import ABC, abstractmethod
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar, get_args

import lightning as L
import numpy as np
import torch
from torch import Tensor

from kdrec.data.interactions import Interactions
from kdrec.data.sampling import Samples, TripleLoader
from kdrec.data.splits import LeaveOneOut, Split, Splitter
from kdrec.errors import InputError


class UserLoader:
    """Iterate over this rank's users in batches: every user belongs to exactly one rank, and none is padded.

    User u belongs to rank u mod N, who also holds u's row of a table that is divided (`kdrec.models.sharded`).
    A rank without users gets one empty batch, so that it takes part in what the ranks do together.

    Args:
        users: (U,) users of all ranks together.
        batch_size: Users a batch.
        rank: This process.
        num_ranks: How many there are.
    """

    def __init__(self, users: np.ndarray, batch_size: int, rank: int = 0, num_ranks: int = 1) -> None:
        self.batch_size = batch_size
        self._users = torch.from_numpy(users[users % num_ranks == rank])

    def __len__(self) -> int:
        return max(1, -(-len(self._users) // self.batch_size))

    def __iter__(self) -> Iterator[Tensor]:
        for start in range(0, len(self) * self.batch_size, self.batch_size):
            yield self._users[start : start + self.batch_size]


class InteractionDataModule(L.LightningDataModule, ABC):
    """Base of the data modules: a subclass says only where its interactions come from.

    Args:
        root: Folder of all data sets; this one lives in ``root/NAME``. If it is not there, ``$KDREC_DATA/NAME`` is
            taken, and then the download.
        splitter: How to cut into train, validation and test. Default: leave-one-out by time.
        batch_size: Training pairs a step and process.
        num_negatives: Items drawn for each training pair, fresh every epoch.
        eval_batch_size: Users ranked at once; bounds the memory of an evaluation.
        samples: What an epoch draws: "pairs" in any order; "histories", the pairs of a user one after the other, which
            suits methods that work user by user; or "users", each once with one of their items by chance.

    Raises:
        InputError: If a size is below 1.
    """

    name: str
    """Folder name of the data set and its name in protocols."""
    default_splitter: ClassVar[Splitter] = LeaveOneOut("time")

    def __init__(
        self,
        root: str = "data",
        splitter: Splitter | None = None,
        batch_size: int = 1024,
        num_negatives: int = 1,
        eval_batch_size: int = 256,
        samples: Samples = "pairs",
    ) -> None:
        super().__init__()
        for option, value in (
            ("batch_size", batch_size),
            ("num_negatives", num_negatives),
            ("eval_batch_size", eval_batch_size),
        ):
            if value < 1:
                raise InputError(f"{type(self).__name__}: {option} is {value}; it must be at least 1.")
        if samples not in get_args(Samples):
            raise InputError(
                f"{type(self).__name__}: samples is {samples!r}; it must be one of "
                f"{', '.join(map(repr, get_args(Samples)))}."
            )
        self.root = Path(root)
        self.splitter = splitter or self.default_splitter
        self.batch_size = batch_size
        self.num_negatives = num_negatives
        self.eval_batch_size = eval_batch_size
        self.samples = samples
        self._interactions: Interactions | None = None
        self._split: Split | None = None

    @abstractmethod
    def load(self) -> Interactions:
        """Return all interactions, downloading them if need be.

        Side effects: may write ``root/NAME`` and read the network.
        """

    def cut(self, interactions: Interactions) -> Split:
        """Cut what `load` returned; a data set that comes in parts overrides this."""
        return self.splitter(interactions)

    @property
    def protocol(self) -> str:
        """Data set and split; numbers of two protocols are never compared."""
        return f"{self.name}/{self.splitter.name}"

    @property
    def split(self) -> Split:
        """The three sets; loaded at first use."""
        if self._split is None:
            self._split = self.cut(self._interactions or self.load())
            self._interactions = None
        return self._split

    def prepare_data(self) -> None:
        """Fetch the data, in one process."""
        if self._split is None:
            self._interactions = self.load()

    def setup(self, stage: str) -> None:
        """Cut the data, in every process."""
        _ = self.split

    def train_dataloader(self) -> TripleLoader:
        """Return the loader of training triples; order and negatives follow ``seed_everything``."""
        seed = int(os.environ.get("PL_GLOBAL_SEED", 0))
        rank, num_ranks = self._place()
        return TripleLoader(self.split.train, self.batch_size, self.num_negatives, seed, rank, num_ranks, self.samples)

    def val_dataloader(self) -> UserLoader:
        """Return the users that have validation items."""
        return self._user_loader(self.split.valid)

    def test_dataloader(self) -> UserLoader:
        """Return the users that have test items."""
        return self._user_loader(self.split.test)

    def _user_loader(self, held_out: Interactions) -> UserLoader:
        return UserLoader(np.flatnonzero(held_out.user_counts), self.eval_batch_size, *self._place())

    def _place(self) -> tuple[int, int]:
        """(rank, number of ranks), also outside a trainer."""
        return (self.trainer.global_rank, self.trainer.world_size) if self.trainer else (0, 1)
