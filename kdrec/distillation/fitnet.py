"""FitNet's hint, for vectors of users and items."""

from typing import Literal

from torch import Tensor, nn

from kdrec.data.interactions import Interactions
from kdrec.data.sampling import Batch
from kdrec.distillation.assignment import expert_width
from kdrec.distillation.base import Distiller, Teacher, require_choice, vector_widths
from kdrec.distillation.ranks import unique_over_ranks
from kdrec.models.base import Recommender


class FitNet(Distiller):
    """Let one projector a side find the teacher's vectors in the student's.

    The loss is users + 0.5 * (positives + negatives), each the sum over its unique entities of |e^t - f(e^s)|^2: that
    of `DE` with one expert, so that their weights mean the same. An item that is both a positive and a negative of the
    batch counts in both halves.

    Args:
        weight: Factor of the loss; it is a sum, and 0.01 belongs to batches of 1024.
        projector: "perceptron" is an expert of `DE`, ds -> (ds + dt) // 2 -> dt with ReLU, and ds // 2 where ds = dt;
            "linear" is one layer ds -> dt.

    References:
        Romero et al., FitNets: Hints for Thin Deep Nets, ICLR 2015, sec. 2.2; for vectors of recommenders as the
        baseline of Kang et al., DE-RRD: A Knowledge Distillation Framework for Recommender System, CIKM 2020.
    """

    def __init__(self, weight: float = 0.01, projector: Literal["perceptron", "linear"] = "perceptron") -> None:
        super().__init__(weight)
        require_choice(self, "projector", projector, ("perceptron", "linear"))
        self.projector = projector

    def bind(self, student: Recommender, teacher: Teacher, train: Interactions) -> None:
        """As `Distiller.bind`: builds the projectors of both sides."""
        widths = vector_widths(student, teacher)
        self.users, self.items = self._projector(*widths), self._projector(*widths)

    def _projector(self, student_dim: int, teacher_dim: int) -> nn.Module:
        if self.projector == "linear":
            return nn.Linear(student_dim, teacher_dim)
        hidden = expert_width(student_dim, teacher_dim)
        return nn.Sequential(nn.Linear(student_dim, hidden), nn.ReLU(), nn.Linear(hidden, teacher_dim))

    def forward(self, batch: Batch, student: Recommender, teacher: Teacher) -> dict[str, Tensor]:
        """As `Distiller.forward`; one term, ``fitnet``."""
        users = unique_over_ranks(batch.users)
        loss = (teacher.user_vectors(users) - self.users(student.user_vectors(users))).square().sum()
        for items in (unique_over_ranks(batch.positives), unique_over_ranks(batch.negatives)):
            difference = teacher.item_vectors(items) - self.items(student.item_vectors(items))
            loss = loss + 0.5 * difference.square().sum()
        return {"fitnet": self.weight * loss}
