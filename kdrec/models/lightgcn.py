"""LightGCN: embeddings that are smoothed over the graph of who touched what."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from kdrec.data.interactions import Interactions
from kdrec.errors import InputError
from kdrec.models.bags import are_lists
from kdrec.models.base import DotProductRecommender
from kdrec.models.graph import Graph


class _Propagated(NamedTuple):
    """The vectors of all users and items, and what tells whether they are still true."""

    users: Tensor
    items: Tensor
    signs: tuple[Any, ...]
    spent: list[bool]  # gets an element when the gradient has passed, since a step of the optimizer is next


class LightGCN(DotProductRecommender):
    """Score a pair by the dot product of its propagated embeddings: the mean over l = 0..L of A^l E.

    A is the graph of the training pairs, symmetrically normalised, and travels with a checkpoint. All that a training
    step asks for shares one propagation, and so does a whole evaluation, whose catalogue remembers the users that
    belong to it. The same holds for a frozen model.

    Args:
        embedding_dim: Width of the embeddings.
        num_layers: L; 0 is plain matrix factorisation.
        init_std: Standard deviation of the initial embeddings.

    References:
        He et al., LightGCN: Simplifying and Powering Graph Convolution Network for Recommendation, SIGIR 2020, sec. 3.
    """

    moves_all_rows = True
    users: nn.Embedding
    items: nn.Embedding
    graph_offsets: Tensor
    graph_items: Tensor
    _graph: Graph | None = None
    _propagated: _Propagated | None = None

    def __init__(self, embedding_dim: int = 64, num_layers: int = 3, init_std: float = 0.1) -> None:
        super().__init__()
        if embedding_dim < 1:
            raise InputError(f"LightGCN: embedding_dim is {embedding_dim}; it must be at least 1.")
        if num_layers < 0:
            raise InputError(f"LightGCN: num_layers is {num_layers}; it must not be negative.")
        self.embedding_dim = embedding_dim
        self.num_layers = num_layers
        self.init_std = init_std

    def build(self, num_users: int, num_items: int) -> None:
        """As `Recommender.build`."""
        super().build(num_users, num_items)
        self.users = nn.Embedding(num_users, self.embedding_dim)
        self.items = nn.Embedding(num_items, self.embedding_dim)
        for table in (self.users, self.items):
            nn.init.normal_(table.weight, std=self.init_std)
        nothing = torch.empty(0, dtype=torch.int32)
        self.keep(graph_offsets=torch.zeros(num_users + 1, dtype=torch.int64), graph_items=nothing)
        self._forget()

    def bind(self, train: Interactions) -> None:
        """As `Recommender.bind`; keeps the graph."""
        super().bind(train)
        offsets, items = (torch.from_numpy(part.copy()).to(self.device) for part in train.csr)
        self.keep(graph_offsets=offsets.long(), graph_items=items.int())
        self._forget()

    def require_sound(self) -> None:
        """As `Recommender.require_sound`."""
        if not are_lists(self.graph_offsets, self.graph_items, self.num_users, self.num_items):
            raise ValueError("its graph is not one of its users and items")

    def user_vectors(self, users: Tensor) -> Tensor:
        """As `Recommender.user_vectors`; d = embedding_dim, propagated."""
        return self._vectors().users.index_select(0, users)

    def item_vectors(self, items: Tensor) -> Tensor:
        """As `Recommender.item_vectors`; d = embedding_dim, propagated."""
        return self._vectors().items.index_select(0, items)

    def encode_catalogue(self) -> Tensor:
        """As `Recommender.encode_catalogue`; holds the users of the same propagation for `score_all`."""
        self._propagated = self._vectors()
        return self._propagated.items

    def score_all(self, users: Tensor, catalogue: Tensor | None = None) -> Tensor:
        """As `Recommender.score_all`."""
        held = self._propagated
        if catalogue is None or held is None or catalogue is not held.items:
            held = self._vectors()
        return held.users.index_select(0, users) @ (held.items if catalogue is None else catalogue).T

    def num_bytes(self) -> int:
        """As `Recommender.num_bytes`: what is deployed are the propagated vectors, without the graph."""
        return sum(table.numel() * table.element_size() for table in self.parameters())

    def _vectors(self) -> _Propagated:
        """Propagate, unless what is held is true beyond doubt."""
        tables = self.users.weight, self.items.weight
        learns = any(table.requires_grad for table in tables)
        # fused optimizers move a table without counting its version: only a gradient that passes tells of their steps
        doubtful = learns and not torch.is_grad_enabled()
        signs = (learns, doubtful, torch.is_inference_mode_enabled(), *(table._version for table in tables))
        held = self._propagated
        if doubtful or held is None or held.spent or held.signs != signs:
            if self._graph is None:
                with torch.inference_mode(False):
                    self._graph = Graph(self.graph_offsets, self.graph_items, self.num_items, tables[0].dtype)
            spent: list[bool] = []
            users, items = _Propagation.apply(*tables, self._graph, self.num_layers, spent)
            held = _Propagated(users, items, signs, spent)
            if not doubtful:
                self._propagated = held
        return held

    def _forget(self) -> None:
        self._graph = self._propagated = None

    def _apply(self, fn: Callable[..., Any], recurse: bool = True) -> "LightGCN":
        self._forget()
        return super()._apply(fn, recurse)

    def _load_from_state_dict(self, state_dict: Mapping[str, Any], prefix: str, *args: Any) -> None:
        self._forget()
        super()._load_from_state_dict(state_dict, prefix, *args)

    def __getstate__(self) -> dict[str, Any]:
        """Leave out what is held, which torch cannot copy together with its history."""
        return {**self.__dict__, "_graph": None, "_propagated": None}


class _Propagation(torch.autograd.Function):
    """The mean of A^l (users, items) over the layers. A is symmetric, so the gradient is propagated by the same form.

    Nothing is saved for the gradient, so it may pass more than once.
    """

    @staticmethod
    def forward(
        ctx: Any, users: Tensor, items: Tensor, graph: Graph, num_layers: int, spent: list[bool]
    ) -> tuple[Tensor, ...]:
        ctx.graph, ctx.num_layers, ctx.spent = graph, num_layers, spent
        return graph.smooth(users, items, num_layers)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, users: Tensor, items: Tensor) -> tuple[Tensor | None, ...]:
        ctx.spent.append(True)
        return *ctx.graph.smooth(users, items, ctx.num_layers), None, None, None
