"""Neural matrix factorisation: a product of embeddings and a perceptron over others, side by side."""

import torch
from torch import Tensor, nn
from torch.nn import functional

from kdrec.models.ncf import NCF
from kdrec.models.sharded import whole


class NeuMF(NCF):
    """Concatenate the elementwise product of two embeddings with the perceptron of two others, and end in one logit.

    The logit is linear in the concatenation, so it is the perceptron's logit, which is that of `NCF`, plus a weighted
    dot product. The result is the same, and the product branch costs what matrix factorisation costs.

    Args:
        embedding_dim: Width d of each of a user's or item's two embeddings; their vectors are both, 2d wide.
        num_layers: Hidden layers of width d, d/2, d/4, ... (at least ``min_width``), ReLU after each.
        dropout: Share of each hidden layer's outputs that training drops, in [0, 1).
        min_width: No hidden layer is narrower than this.
        init_std: Standard deviation of the initial embeddings.

    References:
        He et al., Neural Collaborative Filtering, WWW 2017, sec. 3.4; without pre-training.
    """

    lookup_tables = (*NCF.lookup_tables, "gmf_users", "gmf_items")
    gmf_users: nn.Embedding
    gmf_items: nn.Embedding
    gmf: nn.Linear

    def build(self, num_users: int, num_items: int) -> None:
        """As `Recommender.build`."""
        super().build(num_users, num_items)
        self.gmf_users = nn.Embedding(num_users, self.embedding_dim)
        self.gmf_items = nn.Embedding(num_items, self.embedding_dim)
        self.gmf = nn.Linear(self.embedding_dim, 1, bias=False)
        for table in (self.gmf_users, self.gmf_items):
            nn.init.normal_(table.weight, std=self.init_std)
        nn.init.kaiming_normal_(self.gmf.weight, nonlinearity="relu")

    def user_vectors(self, users: Tensor) -> Tensor:
        """As `Recommender.user_vectors`; d = 2 * embedding_dim, the product branch first."""
        return torch.cat((self.gmf_users(users), self.users(users)), dim=1)

    def item_vectors(self, items: Tensor) -> Tensor:
        """As `Recommender.item_vectors`; d = 2 * embedding_dim, the product branch first."""
        return torch.cat((self.gmf_items(items), self.items(items)), dim=1)

    def score(self, users: Tensor, items: Tensor) -> Tensor:
        """As `Recommender.score`."""
        weighed = self._weighed(users)
        product = (self.gmf_items(items) * (weighed if items.dim() == 1 else weighed.unsqueeze(1))).sum(-1)
        return super().score(users, items) + product

    def encode_catalogue(self) -> Tensor:
        """As `Recommender.encode_catalogue`: the item half of the perceptron's first layer, and the product's items."""
        return torch.cat((super().encode_catalogue(), whole(self.gmf_items)), dim=1)

    def score_all(self, users: Tensor, catalogue: Tensor | None = None) -> Tensor:
        """As `Recommender.score_all`."""
        catalogue = self.encode_catalogue() if catalogue is None else catalogue
        halves, items = catalogue.split((self.first.out_features, self.embedding_dim), dim=1)
        return super().score_all(users, halves) + functional.linear(self._weighed(users), items)

    def _weighed(self, users: Tensor) -> Tensor:
        """Return the product branch's user embeddings times its weights in the logit: (B, d)."""
        return self.gmf_users(users) * self.gmf.weight
