"""Read delimited text without surprises: every fault names the file, the line and the remedy."""

import csv
import io
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Literal

import pandas as pd

from kdrec.errors import InputError

_QUOTING: dict[bool, Literal[0, 3]] = {True: 0, False: 3}  # csv.QUOTE_MINIMAL, csv.QUOTE_NONE

_UNIT = "\x1f"  # stands for a separator of several characters, which pandas' fast reader does not take

Kind = type[int] | type[float] | type[str]


def read_table(
    path: Path,
    columns: Mapping[str, tuple[str, Kind]],
    *,
    separator: str = ",",
    header: Sequence[str] | None = None,
    encoding: str = "utf-8-sig",
    quoted: bool = False,
) -> pd.DataFrame:
    """Read the named columns of a delimited file as numbers or text.

    Windows line ends and a byte-order mark change nothing: the table is the same with and without them.

    Args:
        path: The file.
        columns: Result column -> (column in the file, int | float | str). Others are ignored.
        separator: One or more characters between fields.
        header: Column names of a file that has no header line; None where its first line names the columns.
        encoding: Text encoding; the default also takes a byte-order mark.
        quoted: Whether a quotation mark encloses a field, as in true CSV; else it is a character like any other.

    Raises:
        InputError: If the file is unreadable, empty, ragged, lacks a column, or holds what is not a number in a
            numeric column.
    """
    try:
        lines = path.read_text(encoding=encoding).split("\n")  # Python has made every line end a "\n"
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not {encoding} text (byte {error.start}); save it as UTF-8.") from None
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror or error}; put it there or name another.") from None
    filled = [number for number, line in enumerate(lines, start=1) if line.strip(" ")]
    if not filled:
        raise InputError(f"{path} is empty; get the file again or name another.")
    width = len(header) if header else 0
    try:
        for number, found in _widths(lines, separator, quoted):
            width = width or found  # pandas would fill short rows, and cut long ones if all are
            if found != width:
                raise InputError(
                    f"{path}, line {number}: {found} fields where {width} are needed (separated by {separator!r})."
                )
    except csv.Error as error:
        raise InputError(f"{path} is no CSV ({error}); look for a quotation mark that is not closed.") from None
    text = "\n".join(lines)
    try:
        frame = pd.read_csv(
            io.StringIO(text if len(separator) == 1 else text.replace(separator, _UNIT)),
            sep=separator if len(separator) == 1 else _UNIT, names=list(header) if header else None,
            header=None if header else 0, dtype=str, keep_default_na=False, quoting=_QUOTING[quoted], index_col=False,
            engine="c", on_bad_lines="error",
        )  # fmt: skip
    except (pd.errors.ParserError, pd.errors.EmptyDataError) as error:  # the second of blanks alone
        raise InputError(
            f"{path} is not a table separated by {separator!r}: {str(error).strip()}; mend it, or name its separator."
        ) from None
    missing = [source for source, _ in columns.values() if source not in frame]
    if missing:
        raise InputError(
            f"{path} has no column {missing[0]!r}; its columns are {', '.join(map(repr, frame.columns))} "
            f"(fields are separated by {separator!r})."
        )
    if frame.empty:
        raise InputError(f"{path} has a header but no rows; get the file again or name another.")
    line_numbers = filled if header else filled[1:]
    if len(line_numbers) == len(frame):  # else a quoted field goes over several lines
        frame.index = pd.Index(line_numbers)
    return pd.DataFrame({name: _column(frame[source], kind, path) for name, (source, kind) in columns.items()})


def _widths(lines: list[str], separator: str, quoted: bool) -> Iterator[tuple[int, int]]:
    """Yield (line number, number of fields) of each row that is not blank."""
    if not quoted:
        yield from ((n, line.count(separator) + 1) for n, line in enumerate(lines, start=1) if line.strip(" "))
        return
    reader = csv.reader((line + "\n" for line in lines), delimiter=separator)
    yield from ((reader.line_num, len(row)) for row in reader if any(row))


def read_ratings(
    path: Path, columns: Mapping[str, tuple[str, Kind]], *, separator: str, header: Sequence[str] | None = None
) -> pd.DataFrame:
    """Read a rating file (see `read_table`), each (user, item) pair at most once.

    Raises:
        InputError: As `read_table`, and if a pair occurs twice.
    """
    frame = read_table(path, columns, separator=separator, header=header)
    repeated = frame.duplicated(["user", "item"]).to_numpy()
    if repeated.any():
        row = int(repeated.argmax())
        user, item = frame["user"].iloc[row], frame["item"].iloc[row]
        raise InputError(
            f"{path}, line {frame.index[row]}: user {user} and item {item} stand there a second time; "
            f"keep one row for each pair."
        )
    return frame


def _column(values: pd.Series, kind: Kind, path: Path) -> pd.Series:
    """Convert one column, or say which line stops it."""
    if kind is str:
        return values.fillna("").astype(str)
    numbers = pd.to_numeric(values, errors="coerce")
    bad = numbers.isna()
    if kind is int:
        bad |= numbers.isin([float("inf"), float("-inf")]) | (numbers % 1 != 0)
        # beyond these a float has lost digits, and int64 has no room
        bad |= numbers.abs() > 2**53 if numbers.dtype.kind == "f" else numbers > 2**63 - 1
    if bad.any():
        row = int(bad.to_numpy().argmax())
        raise InputError(
            f"{path}, line {values.index[row]}: {values.name!r} is {values.iloc[row]!r}, "
            f"where {'a whole number' if kind is int else 'a number'} is needed."
        )
    return numbers.astype("int64" if kind is int else "float64")
