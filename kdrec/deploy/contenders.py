"""What can be compared: checkpoints, each with its sizes, its protocol and its lists."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from kdrec.deploy.latency import Lister
from kdrec.errors import InputError
from kdrec.evaluation.ranking import CatalogueRanking, top_k
from kdrec.models import checkpoint as files
from kdrec.models.base import Recommender


@dataclass(frozen=True)
class Contender:
    """A checkpoint, ready to be compared.

    Attributes:
        path: The file.
        section: What it says of itself.
        recommender: Its model, on the CPU.
    """

    path: Path
    section: dict[str, Any]
    recommender: Recommender

    @property
    def bytes_on_disk(self) -> int:
        """Size of the file, with all that a checkpoint holds beside the model."""
        return self.path.stat().st_size

    @torch.no_grad()
    def together(self, ranking: CatalogueRanking, k: int) -> Lister:
        """Return what lists the k best unseen items of many users, as an evaluation does."""
        catalogue = self.recommender.encode_catalogue()
        return lambda users: ranking.top_items(self.recommender, users, k, catalogue)

    @torch.no_grad()
    def alone(self, ranking: CatalogueRanking, k: int) -> Lister:
        """Return what lists the k best unseen items of a single user, as ``kdrec recommend`` does."""
        catalogue = self.recommender.encode_catalogue()
        offsets, items = ranking.hidden.offsets.tolist(), ranking.hidden.items

        def listed(users: Tensor) -> Tensor:
            user = int(users)
            scores = self.recommender.score_all(users, catalogue)
            return top_k(scores.index_fill_(1, items[offsets[user] : offsets[user + 1]], -torch.inf), k)[1]

        return listed


def open_contenders(paths: Sequence[Path], reference: Path | None = None) -> list[Contender]:
    """Read files that can be compared with each other.

    Args:
        paths: Checkpoints.
        reference: One of them, or one more. Default: the one whose model takes most bytes.

    Returns:
        The reference, and then the others in the order given.

    Raises:
        InputError: If there is no file, one is given twice, is no checkpoint, or is of another protocol, other data or
            another evaluation than the others.
    """
    paths = [*paths] if reference is None or _place(reference, paths) is not None else [reference, *paths]
    if not paths:
        raise InputError("There is nothing to compare; name one checkpoint at least.")
    for place, path in enumerate(paths):
        if (before := _place(path, paths[:place])) is not None:
            raise InputError(f"{paths[before]} and {path} are the same file; name each once.")
    contenders = [_open(path) for path in paths]
    for other in contenders[1:]:
        _require_same_protocol(contenders[0], other)
    sizes = [contender.recommender.num_bytes() for contender in contenders]
    first = sizes.index(max(sizes)) if reference is None else _place(reference, paths) or 0
    return [contenders.pop(first), *contenders]


def short_names(paths: Sequence[Path]) -> list[str]:
    """Name files by as few parts of their paths as tell them apart.

    Example:
        >>> short_names([Path("checkpoints/bpr/1/best.ckpt"), Path("checkpoints/ncf/2/best.ckpt")])
        ['bpr', 'ncf']
        >>> short_names([Path("bpr/1/best.ckpt"), Path("bpr/2/best.ckpt"), Path("ncf/3/best.ckpt")])
        ['bpr/1', 'bpr/2', 'ncf']
    """
    if len(paths) == 1:
        return [str(paths[0])]
    parts = [path.resolve().parts for path in paths]
    shortest = min(map(len, parts)) - 1
    common = next((n for n, some in enumerate(zip(*parts, strict=False)) if len(set(some)) > 1), shortest)
    rest = [one[min(common, shortest) :] for one in parts]
    names = []
    for one in rest:
        heads = (one[:length] for length in range(1, len(one)))
        names.append("/".join(next((head for head in heads if _count(head, rest) == 1), one)))
    return names


def _count(head: tuple[str, ...], paths: Sequence[tuple[str, ...]]) -> int:
    """Count the paths that begin so."""
    return sum(path[: len(head)] == head for path in paths)


def _place(path: Path, paths: Sequence[Path]) -> int | None:
    """Return where a file stands among others, if it does."""
    known = [other.resolve() for other in paths]
    return known.index(path.resolve()) if path.resolve() in known else None


def _require_same_protocol(one: Contender, other: Contender) -> None:
    """Raise InputError if the numbers of two checkpoints cannot stand beside each other."""
    said, told = one.section, other.section
    where = f"{one.path} was made for {said['protocol']}"
    if said["protocol"] != told["protocol"]:
        raise InputError(
            f"{where} and {other.path} for {told['protocol']}; numbers of two protocols say nothing of each other, so "
            f"compare checkpoints of one."
        )
    if said["data_digest"] != told["data_digest"]:
        raise InputError(
            f"{where} and {other.path} for {told['protocol']}, but their training data differ "
            f"({str(said['data_digest'])[:8]} and {str(told['data_digest'])[:8]}); compare checkpoints of the same."
        )
    if said["evaluation"] != told["evaluation"]:
        raise InputError(
            f"{where} and {other.path} for {told['protocol']}, but they were evaluated by {said['evaluation']} and "
            f"{told['evaluation']}; compare checkpoints that were evaluated alike."
        )


def _open(path: Path) -> Contender:
    content = files.read(path)
    return Contender(path, content["kdrec"], files.restore(path, content))
