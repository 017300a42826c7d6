"""DeepFM: a factorisation machine and a perceptron over the same embeddings."""

from collections.abc import Sequence

from torch import Tensor

from kdrec.models.click import ClickRecommender


class DeepFM(ClickRecommender):
    """Logit of a click from ids and side features: linear weights, all pairs of fields, and a perceptron over them.

    The pairs of the factorisation machine are those of fields: sum over f < g of <e_f, e_g>, where a field's vector e_f
    is the mean of the embeddings of its active features. With S the sum of a side's vectors, the pairs across the sides
    are <S_u, S_i>, and those within a side (|S|^2 - sum |e_f|^2) / 2.

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
        Guo et al., DeepFM: A Factorization-Machine based Neural Network for CTR Prediction, IJCAI 2017, sec. 2.1.
        Rendle, Factorization Machines, ICDM 2010, lemma 3.1 (the sum over pairs in linear time).
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

    def shallow(self, side: str, entities: Tensor, fields: Tensor) -> tuple[Tensor, Tensor]:
        """As `ClickRecommender.shallow`; p and q are the sums of the fields' vectors."""
        total = fields.sum(1)
        within = (total.square() - fields.square().sum(1)).sum(1, keepdim=True) / 2
        return total, self.linear(side, entities) + within
