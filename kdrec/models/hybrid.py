"""Matrix factorisation that knows what items are, and so serves those that nobody has touched yet."""

import torch
from torch import Tensor, nn
from torch.nn import functional

from kdrec.data.interactions import Interactions
from kdrec.errors import InputError
from kdrec.models.base import DotProductRecommender
from kdrec.models.sharded import takes_all_rows
from kdrec.models.tf_idf import TfIdfRecommender


class Hybrid(DotProductRecommender, TfIdfRecommender):
    """Score a pair by the dot product of the user's embedding and the item's vector: its embedding plus its features'.

    The features' part is x W, where x are the item's features weighed by tf-idf, and W has a row for each feature. An
    item without a training pair is cold, and its vector is this part alone: what its embedding holds is chance and what
    it was pushed to as a negative. In training that part must learn to stand alone too, hence ``cold_share``.

    Args:
        embedding_dim: Width of the embeddings.
        init_std: Standard deviation of the initial weights.
        cold_share: Share of the items of a batch that training takes for cold, by chance, in [0, 1).
        min_frequency: Parts of a text column, such as one of several tags, that fewer items have are no features.
        num_buckets: Into how many buckets, at most, a column of numbers is cut at its quantiles.

    References:
        Kula, Metadata Embeddings for User and Item Cold-start Recommendations, CBRecSys 2015, sec. 3.
        Volkovs, Yu and Poutanen, DropoutNet: Addressing Cold Start in Recommender Systems, NIPS 2017, sec. 4.1.
    """

    users: nn.Embedding
    items: nn.Embedding
    projection: nn.Embedding
    warm: Tensor

    def __init__(
        self,
        embedding_dim: int = 64,
        init_std: float = 0.01,
        cold_share: float = 0.0,
        min_frequency: int = 2,
        num_buckets: int = 10,
    ) -> None:
        super().__init__(min_frequency, num_buckets)
        if embedding_dim < 1:
            raise InputError(f"Hybrid: embedding_dim is {embedding_dim}; it must be at least 1.")
        if not 0 <= cold_share < 1:
            raise InputError(f"Hybrid: cold_share is {cold_share}; it must be at least 0 and below 1.")
        self.embedding_dim = embedding_dim
        self.init_std = init_std
        self.cold_share = cold_share

    def build(self, num_users: int, num_items: int) -> None:
        """As `Recommender.build`; no item is warm."""
        super().build(num_users, num_items)
        self.keep(warm=torch.zeros(num_items, 1))

    def bind(self, train: Interactions) -> None:
        """As `Recommender.bind`; items with training pairs are warm."""
        super().bind(train)
        self.keep(warm=torch.from_numpy(train.item_counts > 0).float().unsqueeze(1))

    def build_tables(self) -> None:
        """As `FeatureRecommender.build_tables`."""
        self.users = nn.Embedding(self.num_users, self.embedding_dim)
        self.items = nn.Embedding(self.num_items, self.embedding_dim)
        self.projection = nn.Embedding(self.num_features("item"), self.embedding_dim)
        for table in (self.users, self.items, self.projection):
            nn.init.normal_(table.weight, std=self.init_std)

    def user_vectors(self, users: Tensor) -> Tensor:
        """As `Recommender.user_vectors`; d = embedding_dim."""
        return self.users(users)

    def item_vectors(self, items: Tensor) -> Tensor:
        """As `Recommender.item_vectors`; d = embedding_dim. By way of the whole catalogue where that has fewer rows."""
        if takes_all_rows(self.items, items):
            return functional.embedding(items, self.encode_catalogue())
        offsets, features, weights = self.item_rows(items)
        described = functional.embedding_bag(
            features,
            self.projection.weight,
            offsets,
            mode="sum",
            sparse=self.projection.sparse,
            per_sample_weights=weights,
            include_last_offset=True,
        )
        warm = functional.embedding(items, self.warm)
        if self.training and self.cold_share:
            warm = warm * (torch.rand_like(warm) >= self.cold_share)
        return warm * self.items(items) + described

    def require_sound(self) -> None:
        """As `Recommender.require_sound`."""
        super().require_sound()
        if self.warm.shape != (self.num_items, 1):
            raise ValueError("its cold items are not those of its items")
