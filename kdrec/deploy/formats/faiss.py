"""A faiss index of the item vectors (exact, inner product) and the user vectors beside it."""

from pathlib import Path

import faiss
import numpy as np
from torch import Tensor

from kdrec.deploy.compact import Compact
from kdrec.deploy.vectors import search_unseen, vectors

QUANTIZES = False
INDEX = "items.faiss"


def build(model: Compact, k: int) -> dict[str, bytes]:
    """As `Format.build`; an index can be asked for any ``k``."""
    files, items = vectors(model, "a faiss index")
    index = faiss.IndexFlatIP(items.shape[1])
    index.add(items)
    return {**files, INDEX: faiss.serialize_index(index).tobytes()}


def answers(folder: Path, users: Tensor, seen: Tensor, k: int) -> dict[str, tuple[Tensor, Tensor]]:
    """As `Format.answers`."""
    index = faiss.read_index(str(folder / INDEX))

    def search(queries: np.ndarray, number: int) -> tuple[np.ndarray, np.ndarray]:
        scores, items = index.search(queries, min(number, index.ntotal))
        return items, scores

    return {"users": search_unseen(folder, search, users, seen, k)}
