"""Matrix factorisation that is validated, and may learn, in the few bits it is deployed with."""

from torch import Tensor
from torch.nn import functional

from kdrec.models.bpr import BPR
from kdrec.models.quantization import fake_quantize, require_bits, row_bytes
from kdrec.models.sharded import takes_all_rows, whole


class QuantizedBPR(BPR):
    """Score a pair by the dot product of its two embeddings, each rounded to few bits.

    Ranking sees the rounded vectors, so what is validated is what will be deployed. Training and distillation see them
    too, if wanted; gradients then pass the rounding as if it were not there. A width-76 student of 8 bits costs what a
    float student of width 20 costs.

    Args:
        embedding_dim: Width of the embeddings.
        init_std: Standard deviation of the initial weights.
        bits: Of each number of the deployed tables, 4 or 8; each row has a scale of 4 bytes besides.
        rounded_in_training: Whether training sees the rounded vectors, or the floats that ranking will round.

    References:
        Rendle et al., BPR: Bayesian Personalized Ranking from Implicit Feedback, UAI 2009, sec. 4.3.1; and
        `kdrec.models.quantization`.
    """

    def __init__(
        self, embedding_dim: int = 64, init_std: float = 0.01, bits: int = 8, rounded_in_training: bool = True
    ) -> None:
        super().__init__(embedding_dim, init_std)
        require_bits(bits, "QuantizedBPR")
        self.bits = bits
        self.rounded_in_training = rounded_in_training

    def user_vectors(self, users: Tensor) -> Tensor:
        """As `Recommender.user_vectors`; d = embedding_dim."""
        return self._rounded(self.users(users))

    def item_vectors(self, items: Tensor) -> Tensor:
        """As `Recommender.item_vectors`; d = embedding_dim."""
        if takes_all_rows(self.items, items):  # then fewer rows are rounded
            return functional.embedding(items, self.encode_catalogue())
        return self._rounded(self.items(items))

    def encode_catalogue(self) -> Tensor:
        """As `Recommender.encode_catalogue`."""
        return self._rounded(whole(self.items))

    def _rounded(self, rows: Tensor) -> Tensor:
        return fake_quantize(rows, self.bits) if self.rounded_in_training or not self.training else rows

    def num_bytes(self) -> int:
        """As `Recommender.num_bytes`."""
        return (self.num_users + self.num_items) * row_bytes(self.embedding_dim, self.bits)
