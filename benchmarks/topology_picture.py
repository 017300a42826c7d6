"""What does a topology look like, and how much of the teacher's does a student have?

    python benchmarks/topology_picture.py --teacher A.ckpt --students "BPR 20=B.ckpt" "FTD 20=C.ckpt" "HTD 20=D.ckpt"

Draws docs/topology.png: for the teacher and each student the cosines among the same most popular items, as a square
table. The order of the items is found by clustering the teacher's cosines and is the same in all panels. Under a panel
stands the mean squared difference from the teacher over all pairs of items of the catalogue, not only those shown. The
models must have been trained on the same pairs. Needs matplotlib and scipy: python -m pip install '.[study]'.
"""

import argparse
import sys
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from kdrec.distillation.topology import normalise, topology_distance
from kdrec.errors import InputError
from kdrec.models import checkpoint

try:
    from matplotlib.figure import Figure
    from scipy.cluster.hierarchy import leaves_list, linkage, optimal_leaf_ordering
    from scipy.spatial.distance import squareform
except ImportError as error:
    missing = (error.name or "library").partition(".")[0]
    sys.exit(f"There is no {missing}, which this picture needs; install it with python -m pip install '.[study]'.")


@dataclass
class Model:
    """What the picture needs of one checkpoint."""

    name: str
    items: Tensor
    """(num_items, d) float64 vectors of length 1."""
    popularity: Tensor
    """(num_items,) training pairs."""
    data: str
    """Digest of the training pairs."""

    @classmethod
    def read(cls, name: str, path: str) -> "Model":
        """Load a checkpoint."""
        content = checkpoint.read(path)
        section, recommender = content["kdrec"], checkpoint.restore(path, content)
        with torch.no_grad():
            vectors = recommender.item_vectors(torch.arange(recommender.num_items)).double()
        popularity = torch.bincount(section["seen"]["items"], minlength=recommender.num_items)
        return cls(name, normalise(vectors), popularity, section["data_digest"])

    def difference(self, teacher: "Model") -> float:
        """Return the mean squared difference of cosines from a teacher's, over all pairs of the catalogue."""
        return topology_distance(self.items, teacher.items).item() / len(self.items) ** 2


def blocks(items: Tensor) -> Tensor:
    """Order items so that similar ones stand together: average linkage of 1 - cosine, leaves in their best order.

    Args:
        items: (n, d) unit vectors.

    Returns:
        (n,) positions.
    """
    distance = squareform((1 - items @ items.T).clamp(min=0).fill_diagonal_(0).numpy(), checks=False)
    tree = optimal_leaf_ordering(linkage(distance, "average"), distance)
    return torch.from_numpy(leaves_list(tree).astype("int64"))


def draw(teacher: Model, students: list[Model], num_items: int) -> Figure:
    """Draw the panels in one row, on one colour scale."""
    shown = teacher.popularity.argsort(descending=True, stable=True)[:num_items]
    shown = shown[blocks(teacher.items[shown])]
    models = [teacher, *students]
    figure = Figure(figsize=(12, 12 / len(models) + 0.75), dpi=150, layout="constrained")
    panels = figure.subplots(1, len(models), squeeze=False)[0]
    for panel, model in zip(panels, models, strict=True):
        vectors = model.items[shown]
        image = panel.imshow(vectors @ vectors.T, cmap="RdBu_r", vmin=-1, vmax=1, interpolation="nearest")
        panel.set(xticks=[], yticks=[])
        panel.set_title(model.name, fontsize=14)
        below = " " if model is teacher else f"mean sq. difference {model.difference(teacher):.4f}"
        panel.set_xlabel(f"width {model.items.shape[1]}\n{below}", fontsize=12)
    panels[0].set_ylabel(f"the {len(shown)} most popular items", fontsize=12)
    bar = figure.colorbar(image, cax=panels[-1].inset_axes((1.04, 0, 0.05, 1)), ticks=[-1, -0.5, 0, 0.5, 1])
    bar.set_label("cosine", fontsize=12)
    return figure


def main() -> None:
    """Read, check, draw, save."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--teacher", required=True, metavar="FILE", help="checkpoint of the teacher")
    parser.add_argument("--students", required=True, nargs="+", metavar="NAME=FILE", help="title and checkpoint")
    parser.add_argument("--items", type=int, default=150, help="how many are shown")
    parser.add_argument("--figure", type=Path, default=Path("docs/topology.png"), help="the picture to write")
    options = parser.parse_args()
    if options.items < 2:
        parser.error("--items: a table needs at least 2 items")
    named = [student.partition("=") for student in options.students]
    if not all(name and file for name, _, file in named):
        parser.error("--students: give each one as NAME=FILE, such as 'FTD 20=checkpoints/ftd/RUN/best.ckpt'")
    try:
        teacher = Model.read("Teacher", options.teacher)
        students = [Model.read(name, file) for name, _, file in named]
    except InputError as error:
        sys.exit(str(error))
    if strangers := [student.name for student in students if student.data != teacher.data]:
        sys.exit(f"{strangers[0]} was trained on other pairs than the teacher; give checkpoints of one data set.")
    options.figure.parent.mkdir(parents=True, exist_ok=True)
    draw(teacher, students, options.items).savefig(options.figure, bbox_inches="tight", pad_inches=0.05)
    print(f"Mean squared difference of cosines from the teacher, all pairs of {len(teacher.items):,} items:")
    for student in students:
        print(f"  {student.name:<12} {student.difference(teacher):.5f}")
    print(f"Picture written to {options.figure}")


if __name__ == "__main__":
    main()
