"""Millions of texts as two tensors."""

import itertools
from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor


def pack(texts: np.ndarray) -> dict[str, Tensor]:
    """Return texts as tensors, which millions of them are written and read as, in place of a pickle of each.

    Args:
        texts: (n,) of numpy's type of text.

    Returns:
        ``bytes``, (m,) uint8, the UTF-8 of all, one after the other; ``ends``, (n,) int64, where each ends.

    Example:
        >>> packed = pack(np.array(["a", "é"]))
        >>> packed["bytes"].tolist(), packed["ends"].tolist(), unpack(packed)
        ([97, 195, 169], [1, 3], ['a', 'é'])
    """
    encoded = np.char.encode(texts, "utf-8")
    letters = encoded.view(np.uint8).reshape(len(texts), -1)
    lengths = np.char.str_len(encoded)
    filled = np.arange(letters.shape[1]) < lengths[:, None]
    return {"bytes": torch.from_numpy(letters[filled]), "ends": torch.from_numpy(lengths.cumsum())}


def unpack(packed: Mapping[str, Tensor]) -> list[str]:
    """Return what was packed.

    Raises:
        Exception: Of many kinds, if that is damaged.
    """
    whole, ends = packed["bytes"].numpy().tobytes(), packed["ends"]
    if ends.dim() != 1 or bool((ends.diff(prepend=ends.new_zeros(1)) < 0).any()) or int(ends[-1]) != len(whole):
        raise ValueError("the ends of the texts are not in order")
    return [whole[start:end].decode() for start, end in itertools.pairwise((0, *ends.tolist()))]
