"""The architecture contract: what trains, ranks, teaches and is deployed, without a word about training."""

import itertools
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar, NoReturn

import torch
from torch import Tensor, nn

from kdrec.data.interactions import Interactions
from kdrec.data.sampling import Batch
from kdrec.errors import InputError
from kdrec.models.dots import list_dots
from kdrec.models.sharded import ShardedEmbedding

_LONG = 16  # entries from which a list is scored as one, on a CPU


class Recommender(nn.Module, ABC):
    """Base of all architectures.

    A subclass takes plain arguments (numbers, text, booleans, None, lists of these) and keeps each under its own name,
    so that a checkpoint can rebuild it. The tables come into being in `build`, when the sizes are known.

    Attributes:
        num_users: Rows of the user table; 0 before `build`.
        num_items: Rows of the item table; 0 before `build`.
        has_vectors: Whether users and items have vectors that vector methods can read.
        predicts_clicks: Whether its scores are logits of clicks, so that AUC and log-loss say something of it.
        moves_all_rows: Whether every step of its training reaches all rows of its tables, so that `LazyAdam` has none
            to leave out.
        lookup_tables: Names of embeddings that are read by lookups and `kdrec.models.sharded.whole` alone, so that
            `RowSharding` can divide their rows over processes.
    """

    num_users: int = 0
    num_items: int = 0
    has_vectors: ClassVar[bool] = True
    predicts_clicks: ClassVar[bool] = False
    moves_all_rows: ClassVar[bool] = False
    lookup_tables: ClassVar[tuple[str, ...]] = ()
    _kept: tuple[str, ...] = ()

    @property
    def is_built(self) -> bool:
        """Whether the tables exist."""
        return self.num_users > 0

    @property
    def device(self) -> torch.device:
        """Where the tables are."""
        return next(itertools.chain(self.parameters(), self.buffers())).device

    def bind(self, train: Interactions) -> None:
        """Size the tables for the training data and keep, as buffers, what inference needs of it."""
        self.build(train.num_users, train.num_items)

    def build(self, num_users: int, num_items: int) -> None:
        """Create tables and layers with fresh weights.

        Args:
            num_users: At least 1.
            num_items: At least 1.
        """
        self.num_users = num_users
        self.num_items = num_items

    def keep(self, **tensors: Tensor) -> None:
        """Hold what inference needs of the training data as buffers that take a file's shape when they are loaded.

        Args:
            **tensors: By the names of the buffers. `build` registers empty ones with the right types and dimensions,
                `bind` the real ones.
        """
        for name, tensor in tensors.items():
            self.register_buffer(name, tensor)
        self._kept = tuple(dict.fromkeys((*self._kept, *tensors)))

    def require_sound(self) -> None:
        """Raise ValueError, saying what is wrong, if kept data that was loaded cannot belong to this model."""

    def objective(self, batch: Batch) -> Tensor | None:
        """Return the loss of an architecture that learns by one of its own, in place of a ranking loss.

        Args:
            batch: Training triples; such a model usually reads only ``users``, and wants ``samples: users`` of the data
                module, which gives every user once an epoch.

        Returns:
            Scalar, **summed** over the batch; or None, and the training module's ranking loss is taken.
        """
        return None

    def user_vectors(self, users: Tensor) -> Tensor:
        """Return the representation that vector methods read: (B,) int64 -> (B, d).

        Raises:
            InputError: If the architecture has none (``has_vectors``).
        """
        self._lack_vectors()

    def item_vectors(self, items: Tensor) -> Tensor:
        """Return the representation that vector methods read: (B,) int64 -> (B, d).

        Raises:
            InputError: If the architecture has none (``has_vectors``).
        """
        self._lack_vectors()

    def _lack_vectors(self) -> NoReturn:
        raise InputError(f"{type(self).__name__} has no vectors of users and items; use its scores or lists.")

    def score(self, users: Tensor, items: Tensor) -> Tensor:
        """Score pairs; higher is better. By way of the whole catalogue, once for each user, if there is no shorter one.

        Args:
            users: (B,) int64.
            items: (B,) or (B, L) int64.

        Returns:
            Scores with the shape of ``items``.
        """
        unique, rows = torch.unique(users, return_inverse=True)
        return self.score_all(unique)[rows if items.dim() == 1 else rows.unsqueeze(1), items]

    def score_users(self, items: Tensor, users: Tensor) -> Tensor:
        """Score lists of users.

        Args:
            items: (B,) int64.
            users: (B, L) int64, a list for each item.

        Returns:
            (B, L) scores, equal to `score` of each pair.
        """
        return self.score(users.flatten(), items.repeat_interleave(users.shape[1])).view(users.shape)

    @abstractmethod
    def encode_catalogue(self) -> Any:
        """Return what is the same in every user's scores; computed once an evaluation, and read by `score_all` alone.

        Most often what all items contribute, (num_items, h).
        """

    @abstractmethod
    def score_all(self, users: Tensor, catalogue: Any = None) -> Tensor:
        """Score the whole catalogue.

        Args:
            users: (B,) int64.
            catalogue: What `encode_catalogue` returned, to be computed only once for many calls.

        Returns:
            (B, num_items) scores, equal to `score` of each pair.
        """

    def _load_from_state_dict(self, state_dict: Mapping[str, Any], prefix: str, *args: Any) -> None:
        for name in self._kept:
            ours, theirs = getattr(self, name), state_dict.get(prefix + name)
            if isinstance(theirs, Tensor) and theirs.dim() == ours.dim() and theirs.dtype == ours.dtype:
                self.register_buffer(name, ours.new_empty(theirs.shape))
        super()._load_from_state_dict(state_dict, prefix, *args)

    def num_parameters(self) -> int:
        """Count the numbers that training finds, whether they are frozen now or not."""
        return sum(parameter.numel() for parameter in self.parameters()) + sum(
            table.num_elsewhere for table in self.modules() if isinstance(table, ShardedEmbedding)
        )

    def num_bytes(self) -> int:
        """Count the bytes of the deployed model: its numbers, without the raw ids and titles that any model needs."""
        held = itertools.chain(self.parameters(), self.buffers())
        return sum(tensor.numel() * tensor.element_size() for tensor in held) + sum(
            table.num_elsewhere * table.weight.element_size()
            for table in self.modules()
            if isinstance(table, ShardedEmbedding)
        )


class DotProductRecommender(Recommender):
    """A recommender whose score is the dot product of its user and item vectors."""

    def score(self, users: Tensor, items: Tensor) -> Tensor:
        """As `Recommender.score`."""
        if items.dim() == 2 and self._makes_whole_tables(items, self.num_items):
            return list_dots(self.user_vectors(users), self.encode_catalogue(), items)
        vectors = self.item_vectors(items.flatten())
        vectors = vectors.view(*items.shape, vectors.shape[-1])  # not -1, which an empty batch leaves open
        users = self.user_vectors(users)
        # not bmm, which takes three times as long on a CPU for the few items of a training pair
        return (vectors * (users if items.dim() == 1 else users.unsqueeze(1))).sum(-1)

    def score_users(self, items: Tensor, users: Tensor) -> Tensor:
        """As `Recommender.score_users`."""
        if self._makes_whole_tables(users, self.num_users):
            everybody = self.user_vectors(torch.arange(self.num_users, device=users.device))
            return list_dots(self.item_vectors(items), everybody, users)
        return super().score_users(items, users)

    def _makes_whole_tables(self, lists: Tensor, num_rows: int) -> bool:
        """Whether it costs less to make all vectors of a side than to look up those that long lists name.

        A table that gives sparse gradients is always looked up, since an optimizer may read from them what was; and so
        is one whose rows lie in other processes.
        """
        tables = [part for part in self.modules() if isinstance(part, nn.Embedding)]
        looked_up = any(table.sparse or isinstance(table, ShardedEmbedding) for table in tables)
        return lists.device.type == "cpu" and lists.shape[1] >= _LONG and lists.numel() > num_rows and not looked_up

    def encode_catalogue(self) -> Tensor:
        """As `Recommender.encode_catalogue`."""
        return self.item_vectors(torch.arange(self.num_items, device=self.device))

    def score_all(self, users: Tensor, catalogue: Tensor | None = None) -> Tensor:
        """As `Recommender.score_all`."""
        return self.user_vectors(users) @ (self.encode_catalogue() if catalogue is None else catalogue).T
