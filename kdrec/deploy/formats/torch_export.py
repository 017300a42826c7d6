"""A torch program (`torch.export`) with the top-k inside: runs with torch alone, without kdrec.

``torch.export.load("model.pt2").module()`` takes users (B,) int64 and their seen items (B, S) int64, filled up with
-1, and gives items and scores, both (B, k), as `kdrec.deploy.lists.best_unseen`. Its k is fixed.
"""

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import Dim

from kdrec.deploy.compact import Compact, Table
from kdrec.deploy.lists import best_unseen
from kdrec.errors import InputError
from kdrec.models.base import Recommender

QUANTIZES = True
PROGRAM = "model.pt2"


class _Scores(nn.Module):
    """What `functional_call` can call."""

    def __init__(self, recommender: Recommender) -> None:
        super().__init__()
        self.recommender = recommender

    def forward(self, users: Tensor) -> Tensor:
        return self.recommender.score_all(users)


class _TopItems(nn.Module):
    """The tables as they are stored, dequantised at each call."""

    def __init__(self, model: Compact, k: int) -> None:
        super().__init__()
        self.k = k
        self.widths = {name: table.width for name, table in model.tables.items()}
        self._scores = [_Scores(model.recommender)]  # in a list, since its floats shall not be stored too
        for name, table in model.tables.items():
            for suffix, part in table.parts.items():
                self.register_buffer(_field(name + suffix), part)

    def forward(self, users: Tensor, seen: Tensor) -> tuple[Tensor, Tensor]:
        state = {f"recommender.{name}": self._table(name).values for name in self.widths}
        scores = torch.func.functional_call(self._scores[0], state, (users,))
        return best_unseen(scores, seen, self.k)

    def _table(self, name: str) -> Table:
        codes = getattr(self, _field(f"{name}.codes"), None)
        numbers = getattr(self, _field(name)) if codes is None else codes
        return Table(numbers, getattr(self, _field(f"{name}.scales"), None), self.widths[name])


def _field(name: str) -> str:
    return name.replace(".", "_")


def build(model: Compact, k: int) -> dict[str, bytes]:
    """As `Format.build`."""
    batch, width = Dim("batch", min=1), Dim("seen", min=1)
    examples: tuple[Any, ...] = torch.zeros(3, dtype=torch.int64), torch.zeros(3, 5, dtype=torch.int64)
    shapes = {"users": {0: batch}, "seen": {0: batch, 1: width}}
    content = io.BytesIO()
    try:
        with _quiet(), torch.no_grad():
            torch.export.save(torch.export.export(_TopItems(model, k).eval(), examples, dynamic_shapes=shapes), content)
    except Exception:  # torch.export's own, of many kinds
        raise InputError(
            f"A {type(model.recommender).__name__} does not become a torch program: torch.export cannot follow what it "
            f"does; take --format safetensors, which holds any model."
        ) from None
    return {PROGRAM: content.getvalue()}


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Silence torch.export, which warns of its own deprecations and prints the program that it cannot follow."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with warnings.catch_warnings(action="ignore"), contextlib.redirect_stderr(io.StringIO()):
            yield
    finally:
        logging.disable(before)


def answers(folder: Path, users: Tensor, seen: Tensor, k: int) -> dict[str, tuple[Tensor, Tensor]]:
    """As `Format.answers`."""
    return {"users": torch.export.load(folder / PROGRAM).module()(users, seen)}
