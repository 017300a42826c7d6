"""What models of clicks share: a deep part over ids and side features, and a shallow part beside it."""

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import ClassVar, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from kdrec.errors import InputError
from kdrec.models.features import FeatureRecommender
from kdrec.models.perceptron import layers_after_first, score_pairs
from kdrec.models.sharded import takes_all_rows


class ClickRecommender(FeatureRecommender):
    """Logit of a click: perceptron(fields of u, fields of i) + <p_u, q_i> + b_u + b_i.

    The fields of a side are its id and its columns of features. A field's vector is the mean of the embeddings of its
    active features, so a film's genres share one field. Each side is encoded alone, as its half of the first layer
    beside p and b or q and b: once an item and evaluation, never once a pair. The result is the same.

    The vectors that vector methods read are, on both sides, the id's embedding and the mean of the other fields'
    vectors, one behind the other: d = 2 embedding_dim.

    Args:
        embedding_dim: Width of each embedding.
        hidden_dims: Widths of the perceptron's hidden layers, ReLU after each.
        dropout: Share of each hidden layer's outputs that training drops, in [0, 1).
        init_std: Standard deviation of the initial embeddings.
        min_frequency: As `kdrec.models.features.encode`.
        num_buckets: As `kdrec.models.features.encode`.
    """

    predicts_clicks: ClassVar[bool] = True
    embeddings: nn.ModuleDict
    weights: nn.ModuleDict
    first: nn.Linear
    rest: nn.Sequential

    def __init__(
        self,
        embedding_dim: int,
        hidden_dims: Sequence[int],
        dropout: float,
        init_std: float,
        min_frequency: int,
        num_buckets: int,
    ) -> None:
        super().__init__(min_frequency, num_buckets)
        name = type(self).__name__
        if embedding_dim < 1 or not hidden_dims or min(hidden_dims) < 1:
            raise InputError(
                f"{name}: embedding_dim is {embedding_dim} and hidden_dims are {list(hidden_dims)}; there must be a "
                f"hidden layer, and each must be at least 1."
            )
        if not 0 <= dropout < 1:
            raise InputError(f"{name}: dropout is {dropout}; it must be at least 0 and below 1.")
        self.embedding_dim = embedding_dim
        self.hidden_dims = list(hidden_dims)
        self.dropout = dropout
        self.init_std = init_std

    def build_tables(self) -> None:
        """As `FeatureRecommender.build_tables`."""
        sizes = {side: self.num_entities(side) for side in self.sides}
        sizes |= {f"{side}_features": count for side in self.sides if (count := self.num_features(side))}
        self.embeddings = _tables(sizes, self.embedding_dim, self.init_std)
        self.weights = _tables(sizes, 1, 0.0)
        self.first = nn.Linear(sum(map(self._width, self.sides)), self.hidden_dims[0])
        self.rest = layers_after_first(self.hidden_dims, self.dropout)
        for layer in (self.first, *self.rest):
            if isinstance(layer, nn.Linear):
                nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
                nn.init.zeros_(layer.bias)

    @abstractmethod
    def shallow(self, side: str, entities: Tensor, fields: Tensor) -> tuple[Tensor, Tensor]:
        """Compute what the shallow part knows of one side.

        Args:
            side: "user" or "item".
            entities: (B,) int64.
            fields: (B, 1 + num_fields, embedding_dim), the vector of the id, then those of the other fields.

        Returns:
            p or q (B, r), where r is the same for both sides, and b (B, 1).
        """

    def user_vectors(self, users: Tensor) -> Tensor:
        """As `Recommender.user_vectors`; d = 2 embedding_dim."""
        return self._vectors("user", users)

    def item_vectors(self, items: Tensor) -> Tensor:
        """As `Recommender.item_vectors`; d = 2 embedding_dim."""
        return self._vectors("item", items)

    def score(self, users: Tensor, items: Tensor) -> Tensor:
        """As `Recommender.score`; logits."""
        ours, theirs = self._some("user", users), self._some("item", items.flatten())
        theirs = theirs.view(*items.shape, theirs.shape[1])
        if items.dim() == 2:
            ours = ours.unsqueeze(1)
        deep = self.first.out_features
        shallow = (ours[..., deep:-1] * theirs[..., deep:-1]).sum(-1) + ours[..., -1] + theirs[..., -1]
        return self.rest(ours[..., :deep] + theirs[..., :deep]).squeeze(-1) + shallow

    def encode_catalogue(self) -> Tensor:
        """As `Recommender.encode_catalogue`: first-layer half, q and b of each item."""
        return self._whole("item")

    def score_all(self, users: Tensor, catalogue: Tensor | None = None) -> Tensor:
        """As `Recommender.score_all`."""
        catalogue = self.encode_catalogue() if catalogue is None else catalogue
        codes, deep = self._encode("user", users), self.first.out_features
        shallow = codes[:, deep:-1] @ catalogue[:, deep:-1].T + codes[:, -1:] + catalogue[:, -1]
        return score_pairs(self.rest, codes[:, :deep], catalogue[:, :deep]) + shallow

    def linear(self, side: str, entities: Tensor) -> Tensor:
        """Add up the weights of an entity's id and features: (B, 1)."""
        return self._fields(side, entities, self.weights).sum(1)

    def _width(self, side: str) -> int:
        """Width of a side's fields, one behind the other."""
        return (1 + self.num_fields(side)) * self.embedding_dim

    def _fields(self, side: str, entities: Tensor, tables: nn.ModuleDict) -> Tensor:
        """Return the rows of the id and of each field: (B, 1 + num_fields, d)."""
        rows = tables[side](entities).unsqueeze(1)
        if not self.num_fields(side):
            return rows
        table = cast(nn.Embedding, tables[f"{side}_features"])
        return torch.cat((rows, self.field_means(side, table.weight, entities, table.sparse)), dim=1)

    def _vectors(self, side: str, entities: Tensor) -> Tensor:
        fields = self._fields(side, entities, self.embeddings)
        return torch.cat((fields[:, 0], fields[:, 1:].sum(1) / max(1, self.num_fields(side))), dim=1)

    def _encode(self, side: str, entities: Tensor) -> Tensor:
        """Return first-layer half, p or q, and b of each entity: (B, hidden_dims[0] + r + 1)."""
        fields, cut = self._fields(side, entities, self.embeddings), self._width("user")
        matrix = self.first.weight[:, :cut] if side == "user" else self.first.weight[:, cut:]
        half = functional.linear(fields.flatten(1), matrix, self.first.bias if side == "user" else None)
        return torch.cat((half, *self.shallow(side, entities, fields)), dim=1)

    def _some(self, side: str, entities: Tensor) -> Tensor:
        """As `_encode`, by way of all entities where these are fewer."""
        if takes_all_rows(cast(nn.Embedding, self.embeddings[side]), entities):
            return functional.embedding(entities, self._whole(side))
        return self._encode(side, entities)

    def _whole(self, side: str) -> Tensor:
        return self._encode(side, torch.arange(self.num_entities(side), device=self.device))


def _tables(sizes: Mapping[str, int], width: int, std: float) -> nn.ModuleDict:
    """Return a table of each name and number of rows, with normal weights."""
    tables = {name: nn.Embedding(size, width) for name, size in sizes.items()}
    for table in tables.values():
        nn.init.normal_(table.weight, std=std)
    return nn.ModuleDict(tables)
