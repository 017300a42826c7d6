"""A model in the numbers that it is deployed with, and the float model that those numbers stand for."""

import copy
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from kdrec.errors import InputError
from kdrec.models.base import DotProductRecommender, Recommender
from kdrec.models.bpr import BPR
from kdrec.models.quantization import dequantize_rows, pack_nibbles, quantize_rows, unpack_nibbles
from kdrec.models.quantized_bpr import QuantizedBPR

QUANTIZATIONS = {"int8": 8, "int4": 4, "fp16": 16}
"""Bits by the names that the command line and manifests have for them."""


@dataclass(frozen=True)
class Table:
    """A tensor as it is stored.

    Args:
        numbers: Floats or halves in any shape; for 8 bits (n, d) int8; for 4 bits two codes a byte (`pack_nibbles`).
        scales: (n,) floats for 8 and 4 bits.
        width: d.
    """

    numbers: Tensor
    scales: Tensor | None
    width: int

    @classmethod
    def of(cls, tensor: Tensor, bits: int, name: str) -> "Table":
        """Round a tensor to 32, 16, 8 or 4 bits; the last two take (n, d) only.

        Raises:
            InputError: If it holds numbers that half precision does not reach.
        """
        width = tensor.shape[-1]
        if bits == 32:
            return cls(tensor.float(), None, width)
        if bits == 16:
            if not (half := tensor.half()).isfinite().all():
                raise InputError(f"{name} holds numbers above 65,504, which fp16 does not reach; take int8.")
            return cls(half, None, width)
        codes, scales = quantize_rows(tensor, bits)
        return cls(pack_nibbles(codes) if bits == 4 else codes, scales, width)

    @property
    def values(self) -> Tensor:
        """The floats that it stands for."""
        if self.scales is None:
            return self.numbers.float()
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

    A model that scores by dot products becomes its vectors; of others the embeddings are rounded to ``bits``, the
    matrices of their layers to 8 bits at least (they are small, and 4 bits would cost much), and biases not at all.

    Args:
        recommender: On the CPU; is not changed.
        bits: 32, 16, 8 or 4. None: those it was trained for, which of a `QuantizedBPR` gives the very codes that its
            training saw, else 32.
    """
    own = recommender.bits if isinstance(recommender, QuantizedBPR) else 32
    bits = bits or own
    if isinstance(recommender, QuantizedBPR) and bits == own:
        model: Recommender = _of_vectors(recommender.users.weight, recommender.items.weight)
    elif isinstance(recommender, DotProductRecommender):
        model = _of_vectors(
            recommender.user_vectors(torch.arange(recommender.num_users)), recommender.encode_catalogue()
        )
    else:
        model = copy.deepcopy(recommender)
    tables = {}
    for name, tensor in model.state_dict().items():
        owner, _, field = name.rpartition(".")
        layer, few = model.get_submodule(owner), 32
        if field == "weight" and isinstance(layer, nn.Embedding | nn.Linear):
            few = bits if isinstance(layer, nn.Embedding) else max(bits, 8)
        tables[name] = Table.of(tensor, few, name)
    model.load_state_dict({name: table.values for name, table in tables.items()})
    return Compact(model.eval().requires_grad_(False), tables)


def _of_vectors(users: Tensor, items: Tensor) -> BPR:
    """Return a matrix factorisation with these vectors."""
    model = BPR(users.shape[1])
    with torch.random.fork_rng(devices=[]):  # the fresh weights are thrown away
        model.build(len(users), len(items))
    model.users.weight.copy_(users)
    model.items.weight.copy_(items)
    return model
