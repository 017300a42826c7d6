"""What tests of the command line share."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
TEACHER = {
    "model": {
        "class_path": "RankingModule",
        "init_args": {"recommender": {"class_path": "BPR", "init_args": {"embedding_dim": 16}}, "cutoffs": [5, 10]},
    },
    "data": {"class_path": "tests.generated.GeneratedDataModule"},
    "trainer": {"max_epochs": 2, "accelerator": "cpu", "enable_progress_bar": False},
}
STUDENT = {
    "model": {
        "class_path": "DistillationModule",
        "init_args": {
            "student": {"class_path": "BPR", "init_args": {"embedding_dim": 2}},
            "teacher": "teacher.yaml",
            "distiller": {"class_path": "FTD"},
            "cutoffs": [5, 10],
        },
    },
    "data": {"class_path": "tests.generated.GeneratedDataModule"},
    "trainer": {"max_epochs": 3, "accelerator": "cpu", "enable_progress_bar": False},
}


@dataclass
class Outcome:
    """What a command left behind."""

    code: int
    out: str
    error: str

    @property
    def sentence(self) -> str:
        """The error message; fails the test if it is more than one line, or a traceback."""
        assert self.code == 2, (self.code, self.out, self.error)
        said = [line for line in self.error.splitlines() if line.startswith("kdrec: ")]
        assert "Traceback" not in self.error
        assert len(said) == 1, self.error
        return said[0].removeprefix("kdrec: ")


Kdrec = Callable[..., Outcome]
