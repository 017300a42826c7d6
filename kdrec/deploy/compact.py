"""A model in the numbers that it is deployed with, and the float model that those numbers stand for."""

import copy
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from kdrec.errors import InputError
from kdrec.models.base import DotProductRecommender, Recommender
from kdrec.models.bpr import BPR
from kdrec.models.quantization import dequantize_rows, pack_nibbles, quantize_rows, row_bytes, unpack_nibbles
from kdrec.models.quantized_bpr import QuantizedBPR

QUANTIZATIONS = {"int8": 8, "int4": 4, "fp16": 16}
"""Bits by the names that the command line and manifests have for them."""
_CHECKED_USERS = 64


@dataclass(frozen=True)
class Table:
    """A tensor as it is stored.

    Args:
        numbers: Anything in any shape; for 8 bits (n, d) int8; for 4 bits two codes a byte (`pack_nibbles`).
        scales: (n,) floats for 8 and 4 bits.
        width: d.
    """

    numbers: Tensor
    scales: Tensor | None
    width: int

    @classmethod
    def of(cls, tensor: Tensor, bits: int, name: str) -> "Table":
        """Round floats to 16, 8 or 4 bits, the last two (n, d) only; with 32 bits any tensor stays as it is.

        Raises:
            InputError: If it holds numbers that half precision does not reach.
        """
        width = tensor.shape[-1] if tensor.dim() else 1
        if bits == 32:
            return cls(tensor, None, width)
        if bits == 16:
            if not (half := tensor.half()).isfinite().all():
                raise InputError(f"{name} holds numbers above 65,504, which fp16 does not reach; take int8.")
            return cls(half, None, width)
        codes, scales = quantize_rows(tensor, bits)
        return cls(pack_nibbles(codes) if bits == 4 else codes, scales, width)

    @property
    def values(self) -> Tensor:
        """What it stands for."""
        if self.scales is None:
            return self.numbers.float() if self.numbers.dtype == torch.half else self.numbers
        packed = self.numbers.dtype == torch.uint8
        return dequantize_rows(unpack_nibbles(self.numbers, self.width) if packed else self.numbers, self.scales)

    @property
    def parts(self) -> dict[str, Tensor]:
        """Its tensors by what is put behind its name."""
        return {"": self.numbers} if self.scales is None else {".codes": self.numbers, ".scales": self.scales}


@dataclass(frozen=True)
class Compact:
    """A model ready for export.

    Args:
        recommender: A float model whose weights are what the tables stand for: what every export must agree with.
        tables: As they are stored, by their names in the model's state.
    """

    recommender: Recommender
    tables: dict[str, Table]


@torch.no_grad()
def compact(recommender: Recommender, bits: int | None = None) -> Compact:
    """Round a built model's tables row by row.

    A model that scores by dot products becomes its vectors. Of others embeddings and matrices that are buffers are
    rounded to ``bits``, the matrices of their layers to 8 bits at least (they are small, and 4 bits would cost much),
    and all else, such as biases and histories, not at all; nor is a table whose scales would outweigh what it saves.

    Args:
        recommender: On the CPU; is not changed.
        bits: 32, 16, 8 or 4. None: those it was trained for, which of a `QuantizedBPR` gives the very codes that its
            training saw, else 32.

    Raises:
        InputError: If nothing in the model can be rounded to so few bits, or its scores are other ones than its
            vectors' dot products although it is a `DotProductRecommender`.
    """
    own = recommender.bits if isinstance(recommender, QuantizedBPR) else 32
    bits = bits or own
    if isinstance(recommender, QuantizedBPR) and bits == own:
        model: Recommender = _of_vectors(recommender.users.weight, recommender.items.weight)
    elif isinstance(recommender, DotProductRecommender):
        model = _of_vectors(
            recommender.user_vectors(torch.arange(recommender.num_users)),
            recommender.item_vectors(torch.arange(recommender.num_items)),  # which a catalogue need not hold as such
        )
        _require_same_scores(model, recommender)
    else:
        model = copy.deepcopy(recommender)
    state = model.state_dict()
    chosen = {name: _bits_of(model, name, tensor, bits) for name, tensor in state.items()}
    if bits < 32 and set(chosen.values()) <= {32}:
        raise InputError(
            f"A {type(recommender).__name__} has no table that would be smaller with {bits} bits a number; leave out "
            f"--quantize."
        )
    tables = {name: Table.of(tensor, chosen[name], name) for name, tensor in state.items()}
    model.load_state_dict({name: table.values for name, table in tables.items()})
    return Compact(model.eval().requires_grad_(False), tables)


def _bits_of(model: Recommender, name: str, tensor: Tensor, bits: int) -> int:
    """Return how many bits the numbers of one tensor of the model's state get."""
    if not tensor.is_floating_point() or tensor.layout != torch.strided or tensor.dim() != 2:
        return 32
    owner = model.get_submodule(name.rpartition(".")[0])
    is_table = isinstance(owner, nn.Embedding) or name in dict(model.named_buffers())
    few, width = bits if is_table else max(bits, 8), tensor.shape[1]
    return few if row_bytes(width, few) < row_bytes(width, 32) else 32


def _require_same_scores(model: BPR, original: DotProductRecommender) -> None:
    """Raise InputError if a model's vectors do not say all of its scores."""
    users = torch.linspace(0, model.num_users - 1, min(_CHECKED_USERS, model.num_users)).long()
    if not torch.allclose(model.score_all(users), original.score_all(users), rtol=1e-4, atol=1e-4):
        raise InputError(
            f"The scores of a {type(original).__name__} are not the dot products of its vectors, so it cannot be "
            f"exported as these; use its checkpoint with kdrec recommend, predict or serve."
        )


def _of_vectors(users: Tensor, items: Tensor) -> BPR:
    """Return a matrix factorisation with these vectors."""
    model = BPR(users.shape[1])
    with torch.random.fork_rng(devices=[]):  # the fresh weights are thrown away
        model.build(len(users), len(items))
    model.users.weight.copy_(users)
    model.items.weight.copy_(items)
    return model
