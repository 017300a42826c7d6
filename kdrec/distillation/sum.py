"""Several methods at once."""

from typing import ClassVar

from torch import Tensor, nn

from kdrec.data.interactions import Interactions
from kdrec.data.sampling import Batch
from kdrec.distillation.base import Distiller, Teacher
from kdrec.errors import InputError
from kdrec.models.base import Recommender


class Sum(Distiller):
    """Add the terms of several distillers, each with a weight of its own.

    Args:
        distillers: One at least; none twice, since their terms would share a name.

    Raises:
        InputError: If there are none, or two of one kind.
    """

    reads_vectors: ClassVar[bool] = False

    def __init__(self, distillers: list[Distiller]) -> None:
        super().__init__(weight=1.0)
        kinds = [type(distiller).__name__ for distiller in distillers]
        if not kinds:
            raise InputError("Sum: distillers is empty; give one at least.")
        if twice := next((kind for kind in kinds if kinds.count(kind) > 1), None):
            raise InputError(f"Sum: distillers holds {twice} twice, whose terms would share a name; keep one of them.")
        self.distillers = nn.ModuleList(distillers)

    def _parts(self) -> list[Distiller]:
        return [part for part in self.distillers if isinstance(part, Distiller)]

    def require_models(self, student: Recommender, teacher: Teacher) -> None:
        """As `Distiller.require_models`, of each."""
        for part in self._parts():
            part.require_models(student, teacher)

    def bind(self, student: Recommender, teacher: Teacher, train: Interactions) -> None:
        """As `Distiller.bind`, of each."""
        for part in self._parts():
            part.bind(student, teacher, train)

    def on_epoch_start(self, progress: float) -> None:
        """As `Distiller.on_epoch_start`, of each."""
        for part in self._parts():
            part.on_epoch_start(progress)

    def figures(self, teacher: Teacher) -> dict[str, float]:
        """As `Distiller.figures`, of all."""
        return {name: value for part in self._parts() for name, value in part.figures(teacher).items()}

    def forward(self, batch: Batch, student: Recommender, teacher: Teacher) -> dict[str, Tensor]:
        """As `Distiller.forward`; the terms of all."""
        terms: dict[str, Tensor] = {}
        for part in self._parts():
            terms |= part(batch, student, teacher)
        return terms
