"""Read Parquet by Arrow, without a Python object for each row."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from kdrec.data.tables import Kind
from kdrec.errors import InputError


def read_parquet(path: Path, columns: Mapping[str, tuple[str, Kind]]) -> pd.DataFrame:
    """Read the named columns of a Parquet file, one after the other.

    Args:
        path: The file.
        columns: Result column -> (column in the file, kind): str for ids, which become categories of whole numbers or
            of text, int for whole numbers.

    Raises:
        InputError: If pyarrow is missing, the file is unreadable, it lacks a column, or a value is missing or no whole
            number.
    """
    try:
        import pyarrow  # an extra
        from pyarrow import parquet
    except ImportError:
        raise InputError(f"{path} needs pyarrow; install the extra with python -m pip install '.[parquet]'.") from None
    try:
        with parquet.ParquetFile(path, pre_buffer=False) as file:
            names = file.schema_arrow.names
            missing = [source for source, _ in columns.values() if source not in names]
            if missing:
                raise InputError(f"{path} has no column {missing[0]!r}; its columns are {', '.join(map(repr, names))}.")
            found = {}
            for name, (source, kind) in columns.items():
                given = file.read([source], use_threads=False).column(source)
                given.validate(full=True)  # Arrow lets pass text that is none, and pages that it does not know
                if len(given) != file.metadata.num_rows:
                    raise ValueError(f"{source!r} has {len(given)} rows of {file.metadata.num_rows}")
                column = (_ids if kind is str else _whole_numbers)(given, f"{path}, row", source)
                found[name] = column.copy()  # else it may lie in Arrow's memory
                del given, column
                pyarrow.default_memory_pool().release_unused()  # which would keep as much for a next column
            return pd.DataFrame(found, copy=False)
    except InputError:
        raise
    except (OSError, ValueError) as error:
        raise InputError(
            f"{path} cannot be read as Parquet ({str(error).splitlines()[0][:120]}); write it again or name another."
        ) from None


def _ids(column: Any, place: str, name: str) -> pd.Series:
    """Return a column of Arrow as categories; each different id comes into being once."""
    if re.fullmatch(r"(large_)?string|u?int\d+", str(column.type)):
        column = column.dictionary_encode()
    ids = column.to_pandas()
    _require(~ids.isna(), ids, place, name, "an id")
    return ids if isinstance(ids.dtype, pd.CategoricalDtype) else ids.astype(str).astype("category")


def _whole_numbers(column: Any, place: str, name: str) -> pd.Series:
    """Return a column of Arrow as int64."""
    numbers = column.to_pandas()
    if numbers.dtype != np.int64:
        _require(pd.to_numeric(numbers, errors="coerce") % 1 == 0, numbers, place, name, "a whole number")
    return numbers.astype("int64")


def _require(good: pd.Series, values: pd.Series, place: str, name: str, wanted: str) -> None:
    if not good.all():
        row = int(good.to_numpy().argmin())
        raise InputError(f"{place} {row}: {name!r} is {values.iloc[row]}, where {wanted} is needed.")
