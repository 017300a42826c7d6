"""Wide & Deep: a linear model with crossed features beside a perceptron over embeddings."""

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn

from kdrec.models.click import ClickRecommender


class WideDeep(ClickRecommender):
    """Logit of a click from ids and side features: a wide linear part that memorises, a deep part that generalises.

    The wide part has a weight for each id and feature, and one for each cross of a feature of users with a feature of
    items, such as "a student, and a war film". A field with several active features gives each its share: a film of
    two genres is half of either. Data with features of one side only has no crosses.

    The vectors that vector methods read are, on both sides, the id's embedding and the mean of the other fields'
    vectors, one behind the other: d = 2 embedding_dim.

    Args:
        embedding_dim: Width of each embedding.
        hidden_dims: Widths of the perceptron's hidden layers, ReLU after each.
        dropout: Share of each hidden layer's outputs that training drops, in [0, 1).
        init_std: Standard deviation of the initial embeddings.
        min_frequency: Parts of a text column, such as one of several genres, that fewer entities have are no features.
        num_buckets: Into how many buckets, at most, a column of numbers is cut at its quantiles.

    References:
        Cheng et al., Wide & Deep Learning for Recommender Systems, DLRS 2016, sec. 3.
    """

    def __init__(
        self,
        embedding_dim: int = 64,
        hidden_dims: Sequence[int] = (64, 32),
        dropout: float = 0.0,
        init_std: float = 0.1,
        min_frequency: int = 2,
        num_buckets: int = 10,
    ) -> None:
        super().__init__(embedding_dim, hidden_dims, dropout, init_std, min_frequency, num_buckets)

    def build_tables(self) -> None:
        """As `FeatureRecommender.build_tables`."""
        super().build_tables()
        ours, theirs = self.num_features("user"), self.num_features("item")
        if ours and theirs:
            self.weights["crosses"] = crosses = nn.Embedding(theirs, ours)
            nn.init.zeros_(crosses.weight)

    def shallow(self, side: str, entities: Tensor, fields: Tensor) -> tuple[Tensor, Tensor]:
        """As `ClickRecommender.shallow`; p are a user's features, q is what each of them is worth with an item's."""
        linear = self.linear(side, entities)
        if "crosses" not in self.weights:
            return linear[:, :0], linear
        crosses = cast(nn.Embedding, self.weights["crosses"])
        if side == "user":
            each = torch.eye(crosses.embedding_dim, dtype=fields.dtype, device=fields.device)
            return self.field_means(side, each, entities).sum(1), linear
        return self.field_means(side, crosses.weight, entities, crosses.sparse).sum(1), linear
