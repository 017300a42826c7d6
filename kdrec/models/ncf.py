"""Neural collaborative filtering: a perceptron over the two embeddings."""

from typing import ClassVar

from torch import Tensor, nn
from torch.nn import functional

from kdrec.errors import InputError
from kdrec.models.base import Recommender
from kdrec.models.perceptron import layers_after_first, score_pairs
from kdrec.models.sharded import takes_all_rows, whole


class NCF(Recommender):
    """Concatenate user and item embedding, halve the width at each layer, and end in one logit.

    The first layer is linear in the concatenation, so it is computed as a user half plus an item half: once a user
    and once an item, never once a pair. The result is the same.

    Args:
        embedding_dim: Width d of each embedding; the perceptron's input is 2d wide.
        num_layers: Hidden layers of width d, d/2, d/4, ... (at least ``min_width``), ReLU after each.
        dropout: Share of each hidden layer's outputs that training drops, in [0, 1).
        min_width: No hidden layer is narrower than this.
        init_std: Standard deviation of the initial embeddings.

    References:
        He et al., Neural Collaborative Filtering, WWW 2017, sec. 3.3 (the MLP part, with halving layers).
    """

    lookup_tables: ClassVar[tuple[str, ...]] = ("users", "items")
    users: nn.Embedding
    items: nn.Embedding
    first: nn.Linear
    rest: nn.Sequential

    def __init__(
        self,
        embedding_dim: int = 64,
        num_layers: int = 2,
        dropout: float = 0.5,
        min_width: int = 1,
        init_std: float = 0.1,
    ) -> None:
        super().__init__()
        if embedding_dim < 1 or num_layers < 1 or min_width < 1:
            raise InputError(
                f"{type(self).__name__}: embedding_dim {embedding_dim}, num_layers {num_layers} and "
                f"min_width {min_width} must be at least 1."
            )
        if not 0 <= dropout < 1:
            raise InputError(f"{type(self).__name__}: dropout is {dropout}; it must be at least 0 and below 1.")
        self.embedding_dim = embedding_dim
        self.num_layers = num_layers
        self.dropout = dropout
        self.min_width = min_width
        self.init_std = init_std

    def build(self, num_users: int, num_items: int) -> None:
        """As `Recommender.build`."""
        super().build(num_users, num_items)
        self.users = nn.Embedding(num_users, self.embedding_dim)
        self.items = nn.Embedding(num_items, self.embedding_dim)
        widths = [max(self.embedding_dim >> layer, self.min_width) for layer in range(self.num_layers)]
        self.first = nn.Linear(2 * self.embedding_dim, widths[0])
        self.rest = layers_after_first(widths, self.dropout)
        for table in (self.users, self.items):
            nn.init.normal_(table.weight, std=self.init_std)
        for layer in (self.first, *self.rest):
            if isinstance(layer, nn.Linear):
                nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
                nn.init.zeros_(layer.bias)

    def user_vectors(self, users: Tensor) -> Tensor:
        """As `Recommender.user_vectors`; d = embedding_dim."""
        return self.users(users)

    def item_vectors(self, items: Tensor) -> Tensor:
        """As `Recommender.item_vectors`; d = embedding_dim."""
        return self.items(items)

    def score(self, users: Tensor, items: Tensor) -> Tensor:
        """As `Recommender.score`."""
        half = self._user_half(users)
        if items.dim() == 2:
            half = half.unsqueeze(1)
        return self.rest(half + self._item_halves(items)).squeeze(-1)

    def encode_catalogue(self) -> Tensor:
        """As `Recommender.encode_catalogue`: the item half of the first layer, (num_items, first width)."""
        return self._item_half(whole(self.items))

    def score_all(self, users: Tensor, catalogue: Tensor | None = None) -> Tensor:
        """As `Recommender.score_all`."""
        catalogue = self.encode_catalogue() if catalogue is None else catalogue
        return score_pairs(self.rest, self._user_half(users), catalogue)

    def _user_half(self, users: Tensor) -> Tensor:
        return functional.linear(self.users(users), self.first.weight[:, : self.embedding_dim], self.first.bias)

    def _item_halves(self, items: Tensor) -> Tensor:
        """Compute the halves of ``items``, by way of the whole catalogue where that has fewer rows."""
        if takes_all_rows(self.items, items):
            return functional.embedding(items, self._item_half(whole(self.items)))
        return self._item_half(self.items(items))

    def _item_half(self, vectors: Tensor) -> Tensor:
        return functional.linear(vectors, self.first.weight[:, self.embedding_dim :])
