"""Matrix factorisation, the base model of the distillation literature."""

from torch import Tensor, nn

from kdrec.errors import InputError
from kdrec.models.base import DotProductRecommender
from kdrec.models.sharded import whole


class BPR(DotProductRecommender):
    """Score a pair by the dot product of its two embeddings.

    Args:
        embedding_dim: Width of the embeddings.
        init_std: Standard deviation of the initial weights.

    References:
        Rendle et al., BPR: Bayesian Personalized Ranking from Implicit Feedback, UAI 2009, sec. 4.3.1.

    Example:
        >>> import torch
        >>> model = BPR(embedding_dim=2)
        >>> model.build(num_users=1, num_items=2)
        >>> _ = model.users.weight.data.copy_(torch.tensor([[1.0, 2.0]]))
        >>> _ = model.items.weight.data.copy_(torch.tensor([[3.0, 4.0], [5.0, -6.0]]))
        >>> model.score_all(torch.tensor([0])).tolist()
        [[11.0, -7.0]]
    """

    lookup_tables = "users", "items"
    users: nn.Embedding
    items: nn.Embedding

    def __init__(self, embedding_dim: int = 64, init_std: float = 0.01) -> None:
        super().__init__()
        if embedding_dim < 1:
            raise InputError(f"BPR: embedding_dim is {embedding_dim}; it must be at least 1.")
        self.embedding_dim = embedding_dim
        self.init_std = init_std

    def build(self, num_users: int, num_items: int) -> None:
        """As `Recommender.build`."""
        super().build(num_users, num_items)
        self.users = nn.Embedding(num_users, self.embedding_dim)
        self.items = nn.Embedding(num_items, self.embedding_dim)
        for table in (self.users, self.items):
            nn.init.normal_(table.weight, std=self.init_std)

    def user_vectors(self, users: Tensor) -> Tensor:
        """As `Recommender.user_vectors`; d = embedding_dim."""
        return self.users(users)

    def item_vectors(self, items: Tensor) -> Tensor:
        """As `Recommender.item_vectors`; d = embedding_dim."""
        return self.items(items)

    def encode_catalogue(self) -> Tensor:
        """As `Recommender.encode_catalogue`."""
        return whole(self.items)
