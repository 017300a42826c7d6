"""A user of a model of dot products who was not there when it was trained, made from the items that they like."""

import torch
from torch import Tensor


def fold_in(
    table: Tensor, items: Tensor, unseen: float = 10.0, ridge: float = 0.1, everybody: Tensor | None = None
) -> Tensor:
    """Return the vector of a user who likes some items, by least squares.

    The user wants 1 from these items and, with the weight ``unseen``, 0 from the average item:
    minimise ``sum_i (u v_i - 1)^2 / n + unseen * mean_j (u v_j)^2 + ridge * s |u|^2``, where s is the mean square
    length of an item's vector over its width, so that the result does not depend on the vectors' scale.

    Args:
        table: (num_items, d) item vectors.
        items: (n,) int64, at least one.
        unseen: Weight of all items.
        ridge: Weight of the user's length.
        everybody: What `everyone` returned for these, to be computed only once for many calls.

    Returns:
        (d,) vector, in the table's dtype.

    References:
        Hu, Koren and Volinsky, Collaborative Filtering for Implicit Feedback Datasets, ICDM 2008, sec. 4 (the
        normal equations of one user).
    """
    liked = table[items].double()
    normal = liked.T @ liked / len(liked) + (everyone(table, unseen, ridge) if everybody is None else everybody)
    return torch.linalg.solve(normal, liked.mean(0)).to(table.dtype)


def everyone(table: Tensor, unseen: float = 10.0, ridge: float = 0.1) -> Tensor:
    """Return the part of `fold_in`'s normal equations that is the same for all users.

    Returns:
        (d, d) float64, positive definite.
    """
    wide = table.double()
    gram = wide.T @ wide / len(wide)
    scale = gram.diagonal().mean().clamp(min=1e-300)  # of vectors that are all zero, which fit every user
    return unseen * gram + ridge * scale * torch.eye(table.shape[1], dtype=wide.dtype)
