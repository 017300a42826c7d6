"""A usearch index of the item vectors (HNSW, inner product; distance is 1 - score) and the user vectors beside it."""

from pathlib import Path

import numpy as np
from torch import Tensor
from usearch.index import Index

from kdrec.deploy.compact import Compact
from kdrec.deploy.vectors import search_unseen, vectors

QUANTIZES = False
INDEX = "items.usearch"


def build(model: Compact, k: int) -> dict[str, bytes]:
    """As `Format.build`; an index can be asked for any ``k``."""
    files, items = vectors(model, "a usearch index")
    index = Index(ndim=items.shape[1], metric="ip", dtype="f32")
    index.add(np.arange(len(items)), items)
    content = index.save()
    assert content is not None
    return {**files, INDEX: bytes(content)}


def answers(folder: Path, users: Tensor, seen: Tensor, k: int) -> dict[str, tuple[Tensor, Tensor]]:
    """As `Format.answers`, by searching the whole index, since its quick search may miss some of the best."""
    index = Index.restore(str(folder / INDEX))
    assert index is not None

    def search(queries: np.ndarray, number: int) -> tuple[np.ndarray, np.ndarray]:
        found = index.search(queries, min(number, len(index)), exact=True)
        shape = len(queries), -1  # of one query it forgets the first dimension
        return found.keys.astype(np.int64).reshape(shape), 1 - found.distances.reshape(shape)

    return {"users": search_unseen(folder, search, users, seen, k)}
