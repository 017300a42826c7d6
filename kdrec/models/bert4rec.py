"""A bidirectional transformer over what a user touched, in the order of time."""

import torch
from torch import Tensor, nn
from torch.nn import functional

from kdrec.data.interactions import Interactions
from kdrec.data.sampling import Batch
from kdrec.errors import InputError
from kdrec.models.bags import spans
from kdrec.models.history import HistoryDotProductRecommender


class BERT4Rec(HistoryDotProductRecommender):
    """Guess the masked items of a history from both sides; what follows it is one more masked item.

    Training hides items of a user's history behind a mask token and asks for them by cross-entropy over the whole
    catalogue, at the masked places alone (the cloze). Of a history longer than ``max_length`` it takes a stretch, drawn
    anew each epoch. To rank, a mask token is put behind the last ``max_length - 1`` items: the hidden state there is
    the user's vector, an item's vector is its embedding, and a score is their dot product; so that it is, the paper's
    output layer is without its projection and bias. Places count from the end of the sequence.

    It learns by its own loss, in place of a ranking loss; give the data module ``samples: users``, and data with
    times. Users are known by their training items: those of validation are no part of them in a test.

    Args:
        embedding_dim: Width of items, hidden states and vectors; the feed-forward layers are four times as wide.
        num_layers: Of the transformer.
        num_heads: Of each layer's attention; divides ``embedding_dim``.
        max_length: Items of a sequence, mask included; at least 2.
        dropout: Share of embeddings and of what each sublayer adds that training drops, in [0, 1).
        mask_share: Chance of an item to be masked, in (0, 1]; one of a sequence at least is.
        last_share: Share of the sequences of which the last item alone is masked, as in ranking, in [0, 1].
        init_std: Standard deviation of the initial weights.

    References:
        Sun et al., BERT4Rec: Sequential Recommendation with Bidirectional Encoder Representations from Transformer,
        CIKM 2019.
    """

    moves_all_rows = True  # its loss is over the catalogue
    items: nn.Embedding
    places: nn.Embedding
    mask: nn.Parameter
    norm: nn.LayerNorm
    layers: nn.ModuleList

    def __init__(
        self,
        embedding_dim: int = 64,
        num_layers: int = 2,
        num_heads: int = 2,
        max_length: int = 50,
        dropout: float = 0.2,
        mask_share: float = 0.2,
        last_share: float = 0.1,
        init_std: float = 0.02,
    ) -> None:
        super().__init__()
        if min(embedding_dim, num_layers, num_heads) < 1 or embedding_dim % num_heads:
            raise InputError(
                f"BERT4Rec: embedding_dim {embedding_dim}, num_layers {num_layers} and num_heads {num_heads} must be "
                f"at least 1, and the heads must divide the width."
            )
        if max_length < 2:
            raise InputError(f"BERT4Rec: max_length is {max_length}; it must be at least 2, an item and the mask.")
        if not 0 <= dropout < 1:
            raise InputError(f"BERT4Rec: dropout is {dropout}; it must be at least 0 and below 1.")
        if not 0 < mask_share <= 1 or not 0 <= last_share <= 1:
            raise InputError(
                f"BERT4Rec: mask_share is {mask_share} and last_share {last_share}; the first must lie in (0, 1], "
                f"the second in [0, 1]."
            )
        self.embedding_dim = embedding_dim
        self.num_layers = num_layers
        self.num_heads = num_heads
        self.max_length = max_length
        self.dropout = dropout
        self.mask_share = mask_share
        self.last_share = last_share
        self.init_std = init_std

    def bind(self, train: Interactions) -> None:
        """As `HistoryRecommender.bind`.

        Raises:
            InputError: If the data has no times.
        """
        if train.timestamps is None:
            raise InputError(
                "BERT4Rec learns from the order in which users touched items and this data has no timestamps; "
                "give data that has, or take a model that needs none, such as BPR."
            )
        super().bind(train)

    def build(self, num_users: int, num_items: int) -> None:
        """As `Recommender.build`."""
        super().build(num_users, num_items)
        width = self.embedding_dim
        self.items = nn.Embedding(num_items, width)
        self.places = nn.Embedding(self.max_length, width)
        self.mask = nn.Parameter(torch.empty(width))
        self.norm = nn.LayerNorm(width)
        self.layers = nn.ModuleList(_Layer(width, self.num_heads, self.dropout) for _ in range(self.num_layers))
        nn.init.normal_(self.mask, std=self.init_std)
        for part in self.modules():
            if isinstance(part, nn.Embedding | nn.Linear):
                nn.init.normal_(part.weight, std=self.init_std)
            if isinstance(part, nn.Linear):
                nn.init.zeros_(part.bias)

    def objective(self, batch: Batch) -> Tensor:
        """As `Recommender.objective`; reads ``batch.users``."""
        offsets, items = self.histories(batch.users)
        counts = offsets.diff()
        kept = counts.clamp(max=self.max_length)
        starts = offsets[:-1] + (torch.rand(counts.shape, device=items.device) * (counts - kept + 1)).long()
        items = items[spans(starts, kept)]
        masked = self._cloze(kept)
        logits = functional.linear(self._encode(items, kept, masked), self.items.weight)
        return functional.cross_entropy(logits, items[masked], reduction="sum")

    def history_vectors(self, offsets: Tensor, items: Tensor) -> Tensor:
        """As `HistoryDotProductRecommender.history_vectors`; d = embedding_dim."""
        kept = offsets.diff().clamp(max=self.max_length - 1)
        ends = (kept + 1).cumsum(0) - 1
        latest = items[spans(offsets[1:] - kept, kept)]
        masked = torch.zeros(len(latest) + len(kept), dtype=torch.bool, device=items.device).index_fill_(0, ends, True)
        tokens = items.new_zeros(masked.shape).masked_scatter_(~masked, latest)
        return self._encode(tokens, kept + 1, masked)

    def item_vectors(self, items: Tensor) -> Tensor:
        """As `Recommender.item_vectors`; d = embedding_dim."""
        return self.items(items)

    def encode_catalogue(self) -> Tensor:
        """As `Recommender.encode_catalogue`: the embeddings."""
        return self.items.weight

    def _cloze(self, counts: Tensor) -> Tensor:
        """Draw which items of sequences that stand one behind the other are masked: (n,) bool."""
        rows, from_end = _places(counts)
        lots = torch.rand(rows.shape, device=rows.device)
        least = lots.new_ones(counts.shape).scatter_reduce_(0, rows, lots, "amin")
        drawn = (lots < self.mask_share) | (lots == least[rows])
        last_alone = torch.rand(counts.shape, device=rows.device) < self.last_share
        return torch.where(last_alone[rows], from_end == 0, drawn)

    def _encode(self, items: Tensor, counts: Tensor, masked: Tensor) -> Tensor:
        """Return the hidden states at the masked places of sequences that stand one behind the other.

        Args:
            items: (n,) int64; those at masked places are not read.
            counts: (B,) int64, items of each sequence.
            masked: (n,) bool.

        Returns:
            (masked.sum(), d).
        """
        rows, from_end = _places(counts)
        longest = int(torch.cat((counts, counts.new_ones(1))).max())
        slots = rows * longest + from_end
        # a sequence of no items sees one empty slot, since a softmax over nothing is no number
        visible = torch.arange(longest, device=counts.device) < counts.clamp(min=1).unsqueeze(1)
        states = torch.where(masked.unsqueeze(1), self.mask, self.items(items)) + self.places(from_end)
        states = functional.dropout(self.norm(states), self.dropout, self.training)
        asked = masked.nonzero().squeeze(1)
        for layer in self.layers[:-1]:
            states = layer(states, slots, visible)
        return self.layers[-1](states, slots, visible, asked)


class _Layer(nn.Module):
    """Attention and feed-forward layer, each added to its input and normalised, as in BERT.

    Sequences stand one behind the other; only attention lays them out in rows of equal length.

    Args:
        width: d.
        num_heads: Divides the width.
        dropout: Of what each sublayer adds.
    """

    def __init__(self, width: int, num_heads: int, dropout: float) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.dropout = dropout
        self.project = nn.Linear(width, 3 * width)
        self.gather = nn.Linear(width, width)
        self.attention_norm = nn.LayerNorm(width)
        self.widen = nn.Linear(width, 4 * width)
        self.narrow = nn.Linear(4 * width, width)
        self.norm = nn.LayerNorm(width)

    def forward(self, states: Tensor, slots: Tensor, visible: Tensor, asked: Tensor | None = None) -> Tensor:
        """Return new states.

        Args:
            states: (n, d).
            slots: (n,) int64, the place of each in ``visible``, flattened.
            visible: (B, L) bool, where something stands.
            asked: (m,) int64, whose states are wanted; None: all.

        Returns:
            (n, d), or (m, d).
        """
        projected = self.project(states)
        grid = projected.new_zeros(visible.numel(), projected.shape[1]).index_copy(0, slots, projected)
        heads = grid.view(*visible.shape, 3, self.num_heads, states.shape[1] // self.num_heads)
        queries, keys, values = heads.permute(2, 0, 3, 1, 4)
        heard = functional.scaled_dot_product_attention(queries, keys, values, visible[:, None, None, :])
        heard = heard.transpose(1, 2).reshape(visible.numel(), states.shape[1])
        if asked is not None:
            states, slots = states.index_select(0, asked), slots.index_select(0, asked)
        heard = self.gather(heard.index_select(0, slots))
        states = self.attention_norm(states + functional.dropout(heard, self.dropout, self.training))
        said = self.narrow(functional.gelu(self.widen(states)))
        return self.norm(states + functional.dropout(said, self.dropout, self.training))


def _places(counts: Tensor) -> tuple[Tensor, Tensor]:
    """Return (rows, from_end), both (n,), of sequences that stand one behind the other; the last item is 0 from it."""
    rows = torch.repeat_interleave(torch.arange(len(counts), device=counts.device), counts)
    return rows, counts.cumsum(0)[rows] - 1 - torch.arange(len(rows), device=counts.device)
