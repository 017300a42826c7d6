"""Two autoencoders, of which the second learns from the first too: self-distillation inside one module."""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from kdrec.data.sampling import Batch
from kdrec.errors import InputError
from kdrec.models.history import HistoryDotProductRecommender


class ECAE(HistoryDotProductRecommender):
    """Rebuild a user's row of items twice; the second autoencoder also learns what the first says of unseen items.

    ECAE-style: the paper's equations are not public, so this is how its text can be read. With x the user's row of
    zeros and ones, y1 and y2 the probabilities that the autoencoders give and one weight and bias an item for the gate:

        g = sigmoid(w y1 + b),  target = x + (1 - x) g y1
        L = BCE(y1, x) + BCE(y2, x) + soft_weight * BCE(y2, target), summed over users and items

    All is trained together, so the gradient of the last term reaches the gate and the first autoencoder too. A score is
    the mean of the two logits. An autoencoder has one hidden layer, tanh(V x / |x| + v), and logits <hidden, w_i> + c;
    c is one number for all items and orders nothing, so scores leave it out and are dot products of vectors: a user's
    is both hidden layers, an item's half of both output weights.

    It learns by its own loss, in place of a ranking loss; give the data module ``samples: users``. Users are known by
    their training items: those of validation are no part of them in a test.

    Args:
        embedding_dim: Width of each hidden layer; vectors are twice as wide.
        dropout: Share of the input's items that training drops (denoising), in [0, 1).
        soft_weight: Factor of what the second autoencoder learns from the first.

    References:
        Pan, He and Yu, A Novel Enhanced Collaborative Autoencoder with Knowledge Distillation for Top-N Recommender
        Systems, Neurocomputing 332, 2019.
    """

    moves_all_rows = True  # its loss is over the catalogue
    generation: "_Autoencoder"
    retraining: "_Autoencoder"
    gate_weight: nn.Parameter
    gate_bias: nn.Parameter

    def __init__(self, embedding_dim: int = 64, dropout: float = 0.5, soft_weight: float = 1.0) -> None:
        super().__init__()
        if embedding_dim < 1:
            raise InputError(f"ECAE: embedding_dim is {embedding_dim}; it must be at least 1.")
        if not 0 <= dropout < 1:
            raise InputError(f"ECAE: dropout is {dropout}; it must be at least 0 and below 1.")
        if not 0 <= soft_weight < math.inf:
            raise InputError(f"ECAE: soft_weight is {soft_weight}; it must be a number and not negative.")
        self.embedding_dim = embedding_dim
        self.dropout = dropout
        self.soft_weight = soft_weight

    def build(self, num_users: int, num_items: int) -> None:
        """As `Recommender.build`."""
        super().build(num_users, num_items)
        self.generation = _Autoencoder(num_items, self.embedding_dim)
        self.retraining = _Autoencoder(num_items, self.embedding_dim)
        self.gate_weight = nn.Parameter(torch.zeros(num_items))  # so the gate starts half open
        self.gate_bias = nn.Parameter(torch.zeros(num_items))

    def objective(self, batch: Batch) -> Tensor:
        """As `Recommender.objective`; reads ``batch.users``, and the rows of these users are all it makes."""
        offsets, items = self.histories(batch.users)
        first, second = self._hidden(offsets, items)
        logits, again = self.generation.logits(first), self.retraining.logits(second)
        rows = torch.repeat_interleave(torch.arange(len(batch.users), device=items.device), offsets.diff())
        truth = torch.zeros_like(logits).index_put_((rows, items), logits.new_ones(()))
        said = logits.sigmoid()
        target = truth + (1 - truth) * torch.sigmoid(self.gate_weight * said + self.gate_bias) * said
        return _bce(logits, truth) + _bce(again, truth) + self.soft_weight * _bce(again, target)

    def history_vectors(self, offsets: Tensor, items: Tensor) -> Tensor:
        """As `HistoryDotProductRecommender.history_vectors`; d = 2 * embedding_dim."""
        return torch.cat(self._hidden(offsets, items), dim=1)

    def item_vectors(self, items: Tensor) -> Tensor:
        """As `Recommender.item_vectors`; d = 2 * embedding_dim."""
        parts = [part.output(items) for part in (self.generation, self.retraining)]
        return torch.cat(parts, dim=1) / 2

    def encode_catalogue(self) -> Tensor:
        """As `Recommender.encode_catalogue`: the vectors of all items."""
        return torch.cat((self.generation.output.weight, self.retraining.output.weight), dim=1) / 2

    def _hidden(self, offsets: Tensor, items: Tensor) -> tuple[Tensor, Tensor]:
        """Return both hidden layers of histories, each (B, embedding_dim); in training without some of the items."""
        counts = offsets.diff()
        lengths = counts.to(self.gate_bias.dtype).rsqrt()  # of an empty row no item is left to take it
        entries = functional.dropout(torch.repeat_interleave(lengths, counts), self.dropout, self.training)
        return self.generation.hidden(offsets, items, entries), self.retraining.hidden(offsets, items, entries)


class _Autoencoder(nn.Module):
    """A row of items -> hidden layer -> logits of all items.

    Args:
        num_items: Width of the row.
        width: Of the hidden layer.
    """

    def __init__(self, num_items: int, width: int) -> None:
        super().__init__()
        self.input = nn.EmbeddingBag(num_items, width, mode="sum", include_last_offset=True)
        self.input_bias = nn.Parameter(torch.zeros(width))
        self.output = nn.Embedding(num_items, width)
        self.output_bias = nn.Parameter(torch.zeros(()))
        for table in (self.input, self.output):
            nn.init.xavier_normal_(table.weight)

    def hidden(self, offsets: Tensor, items: Tensor, entries: Tensor) -> Tensor:
        """Return (B, width) of rows that hold ``entries`` (n,) at ``items`` (n,), and zeros elsewhere."""
        return torch.tanh(self.input(items, offsets, entries) + self.input_bias)

    def logits(self, hidden: Tensor) -> Tensor:
        """Return (B, num_items)."""
        return functional.linear(hidden, self.output.weight) + self.output_bias


def _bce(logits: Tensor, truth: Tensor) -> Tensor:
    """Sum the cross-entropy of probabilities, given as logits, with the truth; its gradient reaches the truth too."""
    return functional.binary_cross_entropy_with_logits(logits, truth, reduction="sum")
