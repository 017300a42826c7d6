"""The content-based baseline: people get what resembles what they liked, whoever else liked it."""

import torch
from torch import Tensor

from kdrec.data.interactions import Interactions
from kdrec.errors import InputError
from kdrec.models.base import DotProductRecommender, Recommender
from kdrec.models.history import HistoryRecommender
from kdrec.models.tf_idf import TfIdfRecommender


class ContentBased(HistoryRecommender, TfIdfRecommender, DotProductRecommender):
    """Score a pair by the mean cosine of the item with what the user liked; nothing is trained.

    An item's vector holds its features, weighed by tf-idf, with length 1; a user's is the mean over their training
    items. So items that nobody has touched are served like any other, and so are strangers. Somebody without a history
    scores 0 everywhere. The vectors are as wide as there are features; scores never spread out those of the items.

    Args:
        skip_featureless: Whether an item without features gets a vector of zeros, and so the score 0 from everybody,
            instead of being refused.
        min_frequency: Parts of a text column, such as one of several tags, that fewer items have are no features.
        num_buckets: Into how many buckets, at most, a column of numbers is cut at its quantiles.

    References:
        Lops, de Gemmis and Semeraro, Content-based Recommender Systems: State of the Art and Trends, Recommender
        Systems Handbook 2011, sec. 3.3.1.
    """

    def __init__(self, skip_featureless: bool = False, min_frequency: int = 2, num_buckets: int = 10) -> None:
        super().__init__(min_frequency, num_buckets)
        self.skip_featureless = skip_featureless

    def bind(self, train: Interactions) -> None:
        """As `Recommender.bind`.

        Raises:
            InputError: If the data has no features of items, or an item has none.
        """
        super().bind(train)
        lacking = (self.item_offsets.diff() == 0).nonzero().flatten()
        if len(lacking) and not self.skip_featureless:
            raise InputError(
                f"ContentBased knows nothing of {len(lacking)} of {train.num_items} items, such as "
                f"{train.item_ids[int(lacking[0])]}: they have no feature that {self.min_frequency} items share; lower "
                f"min_frequency, or set skip_featureless: true to give them the score 0."
            )

    def build_tables(self) -> None:
        """As `FeatureRecommender.build_tables`; there are none."""

    def user_vectors(self, users: Tensor) -> Tensor:
        """As `Recommender.user_vectors`; d = the number of features."""
        return self._means(*self.histories(users))

    def item_vectors(self, items: Tensor) -> Tensor:
        """As `Recommender.item_vectors`; d = the number of features."""
        return self._means(torch.arange(items.shape[0] + 1, device=items.device), items)

    def score(self, users: Tensor, items: Tensor) -> Tensor:
        """As `Recommender.score`, by way of the whole catalogue, since a row for each pair would be far larger."""
        return Recommender.score(self, users, items)

    def encode_catalogue(self) -> Tensor:
        """As `Recommender.encode_catalogue`: the items' vectors as a sparse matrix."""
        items = torch.repeat_interleave(torch.arange(self.num_items, device=self.device), self.item_offsets.diff())
        places = torch.stack((items, self.features("item").indices))
        shape = self.num_items, self.num_features("item")
        return torch.sparse_coo_tensor(places, self.item_weights, shape, check_invariants=True).coalesce()

    def score_histories(self, offsets: Tensor, items: Tensor, catalogue: Tensor | None = None) -> Tensor:
        """As `HistoryRecommender.score_histories`."""
        catalogue = self.encode_catalogue() if catalogue is None else catalogue
        return (catalogue @ self._means(offsets, items).T).T.contiguous()

    def _means(self, offsets: Tensor, items: Tensor) -> Tensor:
        """Average the items' vectors over each history: (B, d)."""
        starts, features, weights = self.item_rows(items)
        counts = offsets.diff()
        owners = torch.repeat_interleave(torch.arange(counts.shape[0], device=items.device), counts)
        owners = torch.repeat_interleave(owners, starts.diff())
        width = self.num_features("item")
        means = weights.new_zeros(counts.shape[0] * width)
        means.index_add_(0, owners * width + features, weights / counts[owners])
        return means.view(counts.shape[0], width)
