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
        distillers: One at least. None twice, since their terms would share a name; one within a Sum counts too.

    Raises:
        InputError: If there are none, or two of one kind.
    """

    reads_vectors: ClassVar[bool] = False  # what the parts read, they say themselves

    def __init__(self, distillers: list[Distiller]) -> None:
        super().__init__(weight=1.0)
        if not distillers:
            raise InputError("Sum: distillers is empty; give one at least.")
        kinds = [name for distiller in distillers for name in _kinds(distiller)]
        if twice := next((kind for kind in kinds if kinds.count(kind) > 1), None):
            raise InputError(f"Sum: distillers holds {twice} twice, whose terms would share a name; keep one of them.")
        self.distillers = nn.ModuleList(distillers)
        self.anneals = any(distiller.anneals for distiller in distillers)

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
        """As `Distiller.forward`; the terms of all.

        Raises:
            InputError: If two methods of different kinds give terms of one name.
        """
        terms: dict[str, Tensor] = {}
        for part in self._parts():
            added = part(batch, student, teacher)
            if both := terms.keys() & added.keys():
                raise InputError(
                    f"Sum: {type(part).__name__} gives a term {min(both)}, as another does; rename one of them."
                )
            terms |= added
        return terms


def _kinds(distiller: Distiller) -> list[str]:
    """Return the names of the methods that a distiller is made of."""
    return (
        [name for part in distiller._parts() for name in _kinds(part)]
        if isinstance(distiller, Sum)
        else [type(distiller).__name__]
    )
