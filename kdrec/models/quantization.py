"""Tables of fewer bits: symmetric quantisation with one scale a row.

A row x becomes whole numbers c in [-L, L] and a scale s with x ~ s c, where L = 2^(bits-1) - 1 and s = max |x| / L.
"""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from kdrec.errors import InputError

BITS = (4, 8)
"""Widths of the whole numbers; 16 and 32 stand for half and single precision, without scales."""
_SCALE_BYTES = 4


def require_bits(bits: int, owner: str) -> None:
    """Raise InputError if there is no quantisation to so many bits."""
    if bits not in BITS:
        raise InputError(f"{owner}: bits is {bits}; it must be {' or '.join(map(str, BITS))}.")


def quantize_rows(table: Tensor, bits: int) -> tuple[Tensor, Tensor]:
    """Round every row to whole numbers and a scale.

    Args:
        table: (n, d) floats.
        bits: 4 or 8.

    Returns:
        (codes, scales): (n, d) int8 in [-L, L] and (n,) in the table's dtype; a row of zeros has the scale 0.

    Example:
        >>> codes, scales = quantize_rows(torch.tensor([[0.6, -1.0, 0.26]]), bits=4)
        >>> codes.tolist(), round(scales.item(), 4)
        ([[4, -7, 2]], 0.1429)
    """
    scales, numbers = _rounded(table.detach(), bits)
    return numbers.to(torch.int8), scales


def dequantize_rows(codes: Tensor, scales: Tensor) -> Tensor:
    """Return the rows that codes (n, d) and scales (n,) stand for, in the scales' dtype."""
    return codes.to(scales.dtype) * scales.unsqueeze(1)


def fake_quantize(rows: Tensor, bits: int) -> Tensor:
    """Return rows as their quantised forms will be, with the gradient of the rows as they are (straight through).

    Args:
        rows: (n, d) floats.
        bits: 4 or 8.

    References:
        Bengio, Léonard and Courville, Estimating or Propagating Gradients Through Stochastic Neurons, 2013, sec. 3.
    """
    return _StraightThrough.apply(rows, bits)


class _StraightThrough(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, rows: Tensor, bits: int) -> Tensor:
        scales, numbers = _rounded(rows, bits)
        return numbers.mul_(scales.unsqueeze(1))

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:  # type: ignore[override]
        return gradient, None


def _rounded(table: Tensor, bits: int) -> tuple[Tensor, Tensor]:
    """Return (scales, whole numbers as floats)."""
    scales = torch.linalg.vector_norm(table, ord=torch.inf, dim=1) / (2 ** (bits - 1) - 1)
    divisor = scales.clamp(min=torch.finfo(scales.dtype).tiny)  # a row of zeros stays one
    return scales, (table / divisor.unsqueeze(1)).round_()


def row_bytes(width: int, bits: int) -> int:
    """Count the bytes of one row of a deployed table: its numbers, and below 16 bits a scale.

    Example:
        >>> [row_bytes(20, bits) for bits in (32, 16, 8, 4)]
        [80, 40, 24, 14]
    """
    return (width * bits + 7) // 8 + (_SCALE_BYTES if bits in BITS else 0)


def pack_nibbles(codes: Tensor) -> Tensor:
    """Put two 4-bit codes into each byte, the first of them in the lower half, as codes + 8.

    Args:
        codes: (n, d) int8 in [-7, 7].

    Returns:
        (n, ceil(d / 2)) uint8; the last upper half of an odd row is that of a 0.

    Example:
        >>> pack_nibbles(torch.tensor([[-7, 7, 2]], dtype=torch.int8)).tolist()
        [[241, 138]]
    """
    halves = functional.pad(codes, (0, codes.shape[1] % 2)) + 8
    return halves[:, ::2].to(torch.uint8) | halves[:, 1::2].to(torch.uint8) << 4


def unpack_nibbles(packed: Tensor, width: int) -> Tensor:
    """Return the (n, width) int8 codes that `pack_nibbles` packed."""
    halves = torch.stack((packed & 15, packed >> 4), dim=2).flatten(1)
    return halves[:, :width].to(torch.int8) - 8
