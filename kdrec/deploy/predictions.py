"""The best items of many users, in a file: streamed, resumable, and shared among processes (`kdrec.deploy.parts`)."""

import csv
import hashlib
import io
import json
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import Tensor

from kdrec import __version__
from kdrec.deploy.parts import Parts
from kdrec.deploy.recommender import Deployed
from kdrec.errors import InputError
from kdrec.evaluation.chunks import in_chunks
from kdrec.evaluation.ranking import pairs_of, top_k
from kdrec.models import checkpoint as files

FORMATS = (".csv", ".jsonl", ".parquet")


@dataclass(frozen=True)
class Outcome:
    """What a file holds, and what this process did for it.

    Attributes:
        rows: Rows of the file.
        users: Users of the file.
        ranked: Users whose lists this process made.
        seconds: What that took this process, waiting for others included.
    """

    rows: int
    users: int
    ranked: int
    seconds: float


def predict(
    model: Deployed,
    parts: Parts,
    users_file: Path | None = None,
    k: int = 10,
    batch_size: int = 1024,
    told: Callable[[int, int], None] = lambda done, total: None,
) -> Outcome:
    """Write each user's k best items of those that they have not touched, best first.

    A row holds user, rank, item, title (if the model has titles) and score, the score rounded to six digits. Users
    with fewer than k items left get fewer rows. Memory grows with ``batch_size``, not with the number of users.

    Args:
        model: The model.
        parts: Of the file, whose name ends in one of `FORMATS`.
        users_file: Text with a raw user id a line; None takes all users.
        k: Items a user, in 1..num_items.
        batch_size: Users a part of the file.
        told: Is told now and then of how many users the lists are there, and of how many there are.

    Raises:
        InputError: On faulty options, users that are not known, or a file that cannot be written.
    """
    _require(model, parts.output, k, batch_size)
    users, users_digest = torch.arange(len(model.user_ids)), None
    if users_file is not None:
        text = _read(users_file)
        users, users_digest = torch.tensor(_users(model, text, users_file)), hashlib.sha256(text.encode()).hexdigest()
    batches = users.split(batch_size)
    request = {
        "checkpoint": files.digest(model.path),
        "users": users_digest,
        "k": k,
        "batch_size": batch_size,
        "kdrec": __version__,
    }
    table = _Table(parts.output.suffix, model.titles is not None)
    catalogue = _encoded(model)

    def write(index: int, file: BinaryIO) -> None:
        table.write(_columns(model, batches[index], k, catalogue), file)

    start = time.monotonic()
    parts.start(request, len(batches))
    made = parts.make(write, lambda done: told(min(done * batch_size, len(users)), len(users)))
    parts.join(table.join)
    seconds = time.monotonic() - start
    left = len(model.item_ids) - model.seen[0].diff()[users]
    return Outcome(int(left.clamp(max=k).sum()), len(users), sum(len(batches[index]) for index in made), seconds)


def _require(model: Deployed, output: Path, k: int, batch_size: int) -> None:
    """Refuse options that cannot work."""
    if output.suffix not in FORMATS:
        raise InputError(f"{output} ends in {output.suffix!r}; predictions are written to {', '.join(FORMATS)}.")
    if output.suffix == ".parquet" and find_spec("pyarrow") is None:
        raise InputError(f"{output} needs pyarrow; install the extra: python -m pip install '.[parquet]'.")
    if not 1 <= k <= len(model.item_ids):
        raise InputError(f"k is {k}; it must lie between 1 and the {len(model.item_ids)} items of {model.path}.")
    if batch_size < 1:
        raise InputError(f"--batch_size is {batch_size}; it must be at least 1.")


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not UTF-8 text (byte {error.start}); save it as UTF-8.") from None
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror}); put it there or name another.") from None


def _users(model: Deployed, text: str, path: Path) -> list[int]:
    """Return the users that a text names, a raw id a line; blank lines are nothing."""
    lines: dict[int, int] = {}
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            user = model.user(line)
        except InputError as error:
            raise InputError(f"{path}, line {number}: {error}") from None
        if user in lines:
            raise InputError(f"{path}, line {number}: user {line!r} stands in line {lines[user]} already; keep one.")
        lines[user] = number
    if not lines:
        raise InputError(f"{path} names no user; give a raw user id a line, or leave --users out to take all.")
    return list(lines)


@torch.inference_mode()
def _encoded(model: Deployed) -> Any:
    return model.recommender.encode_catalogue()


@torch.inference_mode()
def _columns(model: Deployed, users: Tensor, k: int, catalogue: Any) -> dict[str, list[Any]]:
    """Return the rows of some users, as columns."""

    def top_of(some: Tensor) -> tuple[Tensor, Tensor]:
        scores = model.recommender.score_all(some, catalogue)
        scores[pairs_of(some, *model.seen)] = -torch.inf
        return top_k(scores, k)

    found = in_chunks(top_of, users, 4 * len(model.item_ids))
    values, items = (torch.cat(tensors) for tensors in zip(*found, strict=True))
    if values.isnan().any():
        raise InputError(f"{model.path} gives scores that are no numbers; its training diverged, so train it again.")
    listed = values > -torch.inf
    rows, ranks = (indices.tolist() for indices in listed.nonzero(as_tuple=True))
    names = [model.user_ids[user] for user in users.tolist()]
    chosen = items[listed].tolist()
    columns: dict[str, list[Any]] = {
        "user": [names[row] for row in rows],
        "rank": [rank + 1 for rank in ranks],
        "item": [model.item_ids[item] for item in chosen],
    }
    if model.titles is not None:
        columns["title"] = [model.titles[item] for item in chosen]
    return columns | {"score": [float(f"{score:.6g}") for score in values[listed].tolist()]}


class _Table:
    """How rows are written: in parts, and all of them."""

    def __init__(self, suffix: str, titled: bool) -> None:
        self.suffix = suffix
        self.names = ["user", "rank", "item", *(["title"] if titled else []), "score"]

    def write(self, columns: dict[str, list[Any]], file: BinaryIO) -> None:
        """Write a part."""
        if self.suffix == ".parquet":
            import pyarrow as pa
            from pyarrow import parquet

            parquet.write_table(pa.table(columns, self._schema()), file)
            return
        text = io.StringIO(newline="")
        rows = zip(*columns.values(), strict=True)
        if self.suffix == ".csv":
            csv.writer(text, lineterminator="\n").writerows(rows)
        else:
            text.writelines(json.dumps(dict(zip(columns, row, strict=True)), ensure_ascii=False) + "\n" for row in rows)
        file.write(text.getvalue().encode())

    def join(self, parts: Sequence[Path], file: BinaryIO) -> None:
        """Write the whole file."""
        if self.suffix == ".parquet":
            from pyarrow import parquet

            with parquet.ParquetWriter(file, self._schema()) as writer:
                for part in parts:
                    writer.write_table(self._read(part))
            return
        if self.suffix == ".csv":
            file.write((",".join(self.names) + "\n").encode())
        for part in parts:
            with open(part, "rb") as source:
                shutil.copyfileobj(source, file)

    def _read(self, part: Path) -> Any:
        """Read a part in Parquet, which must be whole."""
        import pyarrow as pa
        from pyarrow import parquet

        try:
            table = parquet.ParquetFile(part).read()
            table.validate(full=True)
        except (pa.ArrowException, OSError, ValueError):
            table = None
        if table is None or not table.schema.equals(self._schema()):
            raise InputError(f"{part} is damaged; remove {part.parent} and repeat the command.")
        return table

    def _schema(self) -> Any:
        import pyarrow as pa

        types = {"rank": pa.int32(), "score": pa.float32()}
        return pa.schema([(name, types.get(name, pa.string())) for name in self.names])
