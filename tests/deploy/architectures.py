"""Architectures that stand in for those to come: what a deployment meets without knowing it by name."""

import torch
from torch import Tensor, nn

from kdrec.data.interactions import Interactions
from kdrec.models.base import Recommender
from kdrec.models.bpr import BPR
from kdrec.models.history import HistoryRecommender


class Propagated(BPR):
    """Vectors that are computed of tables and a graph, as those of graph models are."""

    rows: Tensor
    columns: Tensor

    def build(self, num_users: int, num_items: int) -> None:
        super().build(num_users, num_items)
        nothing = torch.empty(0, dtype=torch.int64)
        self.keep(rows=nothing, columns=nothing)

    def bind(self, train: Interactions) -> None:
        super().bind(train)
        self.keep(rows=torch.tensor(train.users), columns=torch.tensor(train.items))

    def user_vectors(self, users: Tensor) -> Tensor:
        return self.users.weight.index_add(0, self.rows, self.items.weight[self.columns])[users]

    def item_vectors(self, items: Tensor) -> Tensor:
        return self.encode_catalogue()[items]

    def encode_catalogue(self) -> Tensor:
        return self.items.weight.index_add(0, self.columns, self.users.weight[self.rows])


class Biased(BPR):
    """One that says it scores by dot products, and adds something."""

    def score_all(self, users: Tensor, catalogue: Tensor | None = None) -> Tensor:
        return super().score_all(users, catalogue) + torch.arange(self.num_items)


class Distances(Recommender):
    """Scores of embeddings that are no dot products, and a number that floats cannot hold."""

    number: Tensor

    def build(self, num_users: int, num_items: int) -> None:
        super().build(num_users, num_items)
        self.users, self.items = nn.Embedding(num_users, 8), nn.Embedding(num_items, 8)
        self.register_buffer("number", torch.tensor(2**24 + 1))

    def encode_catalogue(self) -> Tensor:
        return self.items.weight

    def score_all(self, users: Tensor, catalogue: Tensor | None = None) -> Tensor:
        items = self.items.weight if catalogue is None else catalogue
        return -(self.users(users).unsqueeze(1) - items).square().sum(2) - (self.number - 2**24)

    def score(self, users: Tensor, items: Tensor) -> Tensor:
        return self.score_all(users).gather(1, items.view(len(users), -1)).view(items.shape)


class Neighbours(HistoryRecommender):
    """Item to item weights, summed over a history, of which the n-th item counts n times."""

    has_vectors = False
    weights: Tensor

    def build(self, num_users: int, num_items: int) -> None:
        super().build(num_users, num_items)
        self.register_buffer("weights", torch.zeros(num_items, num_items))

    def bind(self, train: Interactions) -> None:
        super().bind(train)
        self.weights.copy_(torch.randn(self.num_items, self.num_items))

    def encode_catalogue(self) -> Tensor:
        return self.weights

    def score_histories(self, offsets: Tensor, items: Tensor, catalogue: Tensor | None = None) -> Tensor:
        counts = offsets.diff()
        rows = torch.repeat_interleave(torch.arange(len(counts)), counts)
        places = torch.arange(len(items)) - offsets[rows] + 1
        weights = self.weights if catalogue is None else catalogue
        return weights.new_zeros(len(counts), self.num_items).index_add(0, rows, weights[items] * places.unsqueeze(1))
