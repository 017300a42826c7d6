"""Which models stand in a comparison: no file twice, one protocol for all, and names that tell them apart."""

from collections.abc import Sequence
from itertools import combinations
from pathlib import Path

from kdrec.deploy.artefact import MANIFEST
from kdrec.deploy.contenders import Checkpoint, Contender, OnnxExport
from kdrec.errors import InputError

_GIVEN = ("best.ckpt", "last.ckpt")


def open_contenders(paths: Sequence[Path], reference: Path | None = None) -> list[Contender]:
    """Read files that can be compared with each other.

    Args:
        paths: Checkpoints and ONNX exports.
        reference: One of them, or one more. Default: the checkpoint whose model takes most bytes.

    Returns:
        The reference, and then the others in the order given.

    Raises:
        InputError: If there is no file, one is given twice, can be no contender, or is of another protocol, other data
            or another evaluation than the others, or if there are only exports.
    """
    paths = [*paths] if reference is None or _place(reference, paths) is not None else [reference, *paths]
    if not paths:
        raise InputError("There is nothing to compare; name one checkpoint at least.")
    for place, path in enumerate(paths):
        if (before := _place(path, paths[:place])) is not None:
            raise InputError(f"{paths[before]} and {path} are the same file; name each once.")
    contenders = [OnnxExport(path) if (path / MANIFEST).is_file() else Checkpoint(path) for path in paths]
    checkpoints = [contender for contender in contenders if isinstance(contender, Checkpoint)]
    if not checkpoints:
        raise InputError(
            f"{paths[0]} is an export, which does not say how it was evaluated; name a checkpoint too, such as the one "
            f"it was made from."
        )
    for other in contenders:
        _require_same_protocol(checkpoints[0], other)
    given = None if reference is None else _place(reference, paths)
    first = max(checkpoints, key=lambda one: one.bytes_of_model) if given is None else contenders[given]
    return [first, *(contender for contender in contenders if contender is not first)]


def short_names(paths: Sequence[Path]) -> list[str]:
    """Name files by as few parts of their paths as tell them apart, the last first.

    Numbers, times and the names that a fit gives its files say little, so each name holds another part too, if there
    is one.

    Example:
        >>> short_names([Path("checkpoints/bpr/1/best.ckpt"), Path("checkpoints/ncf/2/best.ckpt")])
        ['bpr', 'ncf']
        >>> short_names([Path("bpr/1/best.ckpt"), Path("bpr/2/best.ckpt"), Path("ncf/3/best.ckpt")])
        ['bpr/1', 'bpr/2', 'ncf']
    """
    parts = [path.resolve().parts[1:] for path in paths]
    return ["/".join(_telling(one, parts)) for one in parts]


def _telling(path: Sequence[str], paths: Sequence[Sequence[str]]) -> Sequence[str]:
    """Return the parts of one of the paths that no other path has together."""
    little = {part for part in path if part[0].isdigit() or part in _GIVEN}
    for size in range(1, len(path) + 1):
        for chosen in combinations(reversed(path), size):
            if not little.issuperset(chosen) and sum(set(chosen).issubset(other) for other in paths) == 1:
                return chosen[::-1]
    return path


def _place(path: Path, paths: Sequence[Path]) -> int | None:
    """Return where a file stands among others, if it does."""
    known = [other.resolve() for other in paths]
    return known.index(path.resolve()) if path.resolve() in known else None


def _require_same_protocol(one: Checkpoint, other: Contender) -> None:
    """Raise InputError if the numbers of two models cannot stand beside each other."""
    where = f"{one.path} was made for {one.protocol} and {other.path} for {other.protocol}"
    if one.protocol != other.protocol:
        raise InputError(f"{where}; numbers of two protocols say nothing of each other, so compare models of one.")
    if one.data_digest != other.data_digest:
        raise InputError(
            f"{where}, but their training data differ ({one.data_digest[:8]} and {other.data_digest[:8]}); compare "
            f"models of the same data."
        )
    if isinstance(other, Checkpoint) and one.section["evaluation"] != other.section["evaluation"]:
        raise InputError(
            f"{where}, but they were evaluated by {one.section['evaluation']} and {other.section['evaluation']}; "
            f"compare checkpoints that were evaluated alike."
        )
