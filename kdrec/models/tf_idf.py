"""Items as what is known of them: their side features, the rare ones weighing more."""

import torch
from torch import Tensor

from kdrec.data.interactions import Interactions
from kdrec.models.bags import places_of
from kdrec.models.features import FeatureRecommender, Features


def tf_idf(features: Features, num_entities: int) -> Tensor:
    """Weigh the active features of each entity to a row of length 1.

    With n entities, of which df have a feature, it weighs log(1 + n / df) before the row is scaled.

    Args:
        features: Of at least one field.
        num_entities: n.

    Returns:
        (m,) float32, in the order of ``features.indices``.

    References:
        Salton and Buckley, Term-weighting Approaches in Automatic Text Retrieval, IPM 1988.

    Example:
        >>> import pandas as pd
        >>> from kdrec.models.features import encode
        >>> genres = encode(pd.DataFrame({"genres": ["war|drama", "", "drama"]}), min_frequency=1)
        >>> [round(weight, 3) for weight in tf_idf(genres, 3).tolist()]  # log(1 + 3 / 2) and log(1 + 3), scaled; 1
        [0.551, 0.834, 1.0]
    """
    counts, device = features.offsets.diff().view(num_entities, -1).sum(1), features.offsets.device
    rows = torch.repeat_interleave(torch.arange(num_entities, device=device), counts)
    frequency = torch.bincount(features.indices, minlength=len(features.fields))
    weights = torch.log1p(num_entities / frequency.double())[features.indices]
    lengths = torch.zeros(num_entities, dtype=torch.float64, device=device).index_add_(0, rows, weights.square()).sqrt()
    return (weights / lengths[rows]).float()


class TfIdfRecommender(FeatureRecommender):
    """A recommender that reads each item as a sparse row x of `tf_idf` weights, which it keeps.

    Args:
        min_frequency: As `kdrec.models.features.encode`.
        num_buckets: As `kdrec.models.features.encode`.
    """

    sides = ("item",)
    item_weights: Tensor

    def build(self, num_users: int, num_items: int) -> None:
        """As `FeatureRecommender.build`."""
        super().build(num_users, num_items)
        self.keep(item_weights=torch.zeros(0))

    def bind(self, train: Interactions) -> None:
        """As `FeatureRecommender.bind`."""
        super().bind(train)
        self.keep(item_weights=tf_idf(self.features("item"), self.num_items))

    @property
    def item_offsets(self) -> Tensor:
        """Where each item's features start among all: (num_items + 1,) int64."""
        return self.features("item").offsets[:: max(1, self.num_fields("item"))]

    def item_rows(self, items: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return the rows of items (B,): offsets (B + 1,), and features (m,) with their weights (m,)."""
        offsets, places = places_of(self.item_offsets, items)
        return offsets, self.features("item").indices[places], self.item_weights[places]

    def require_sound(self) -> None:
        """As `Recommender.require_sound`."""
        super().require_sound()
        if len(self.item_weights) != len(self.features("item").indices):
            raise ValueError("its weights of features are not those of its items")
