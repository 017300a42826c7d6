"""A perceptron over pairs of users and items whose first layer is computed by halves: what follows that layer."""

import itertools
from collections.abc import Sequence

import torch
from torch import Tensor, nn

_CPU_BLOCK_BYTES = 1 << 21  # of first-layer activations when the catalogue is scored: what stays in a core's cache
_BLOCK_BYTES = 1 << 25  # the same on other devices, where a block is a launch


def layers_after_first(widths: Sequence[int], dropout: float) -> nn.Sequential:
    """Build what turns the first layer's sums into a logit.

    Args:
        widths: Of the hidden layers, the first included; ReLU and dropout after each.
        dropout: Share of each hidden layer's outputs that training drops.

    Returns:
        Of sums (..., widths[0]), which it overwrites, logits (..., 1).
    """
    layers: list[nn.Module] = []
    for width, following in itertools.pairwise([*widths, 1]):
        layers += [nn.ReLU(inplace=True), nn.Dropout(dropout), nn.Linear(width, following)]
    return nn.Sequential(*layers)


def score_pairs(rest: nn.Module, users: Tensor, items: Tensor) -> Tensor:
    """Score each user with each item, block by block, so that activations stay small.

    Args:
        rest: What follows the first layer, as `layers_after_first` builds it.
        users: (B, h), the users' halves of the first layer.
        items: (n, h), the items' halves, at least one.

    Returns:
        Logits (B, n).
    """
    if torch.compiler.is_compiling():  # a program has no loop over B
        return rest(users.unsqueeze(1) + items).squeeze(-1)
    block_bytes = _CPU_BLOCK_BYTES if users.device.type == "cpu" else _BLOCK_BYTES
    pairs = max(1, block_bytes // (users.shape[1] * users.element_size()))
    width = min(pairs, len(items))
    columns = [
        torch.cat([rest(some.unsqueeze(1) + part).squeeze(-1) for some in users.split(pairs // width)])
        for part in items.split(width)
    ]
    return torch.cat(columns, dim=1)
