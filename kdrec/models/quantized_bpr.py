"""Matrix factorisation that learns in the few bits it is deployed with."""

from torch import Tensor
from torch.nn import functional

from kdrec.models.bpr import BPR
from kdrec.models.quantization import fake_quantize, require_bits, row_bytes


class QuantizedBPR(BPR):
    """Score a pair by the dot product of its two embeddings, each rounded to few bits.

    Training, distillation and ranking all see the rounded vectors, so what is validated is what will be deployed;
    gradients pass the rounding as if it were not there. A width-76 student of 8 bits costs what a float student of
    width 20 costs.

    Args:
        embedding_dim: Width of the embeddings.
        init_std: Standard deviation of the initial weights.
        bits: Of each number of the deployed tables, 4 or 8; each row has a scale of 4 bytes besides.

    References:
        Rendle et al., BPR: Bayesian Personalized Ranking from Implicit Feedback, UAI 2009, sec. 4.3.1; and
        `kdrec.models.quantization`.
    """

    def __init__(self, embedding_dim: int = 64, init_std: float = 0.01, bits: int = 8) -> None:
        super().__init__(embedding_dim, init_std)
        require_bits(bits, "QuantizedBPR")
        self.bits = bits

    def user_vectors(self, users: Tensor) -> Tensor:
        """As `Recommender.user_vectors`; d = embedding_dim."""
        return fake_quantize(self.users(users), self.bits)

    def item_vectors(self, items: Tensor) -> Tensor:
        """As `Recommender.item_vectors`; d = embedding_dim."""
        if len(items) > self.num_items:  # then fewer rows are rounded by way of the whole table
            return functional.embedding(items, self.encode_catalogue())
        return fake_quantize(self.items(items), self.bits)

    def encode_catalogue(self) -> Tensor:
        """As `Recommender.encode_catalogue`."""
        return fake_quantize(self.items.weight, self.bits)

    def num_bytes(self) -> int:
        """As `Recommender.num_bytes`."""
        return (self.num_users + self.num_items) * row_bytes(self.embedding_dim, self.bits)
