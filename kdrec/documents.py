"""Small documents that may be a stranger's: JSON and YAML, of bounded size and depth; and files that appear whole."""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

_LARGEST_JSON, _LARGEST_YAML = 1 << 24, 1 << 18  # bytes; YAML is read at some 100 KB a second
_DEEPEST, _MOST = 50, 100_000  # nests in nests; values, each as often as aliases repeat it


def read_json(path: Path) -> Any:
    """Read a JSON file.

    Raises:
        OSError: If it cannot be read.
        ValueError: If it is no JSON, too large, or too deep; the message is a phrase for people.
    """
    try:
        return json.loads(_text(path, _LARGEST_JSON))
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def read_yaml(path: Path) -> Any:
    """Read a YAML file.

    Raises:
        OSError: If it cannot be read.
        ValueError: If it is no YAML, too large or too deep, also by aliases; the message is a phrase for people.
    """
    import yaml  # here, so that --help needs it not

    try:
        content = yaml.safe_load(_text(path, _LARGEST_YAML))
    except (yaml.YAMLError, ArithmeticError, AttributeError, LookupError, TypeError) as error:
        raise ValueError(str(error) or "a value is not what its tag says") from None  # PyYAML does not check !!int ""
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    _require_bounded(content)
    return content


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give a place beside a file to write to; what is there at the end takes the file's place at once.

    After an error the file is as it was, and nothing is left beside it.
    """
    part = path.with_name(f".{path.name}.part")
    try:
        yield part
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def _text(path: Path, largest: int) -> str:
    with open(path, "rb") as file:
        content = file.read(largest + 1)
    if len(content) > largest:
        raise ValueError(f"it is larger than {largest} bytes")
    return content.decode("utf-8-sig")


def _require_bounded(content: Any) -> None:
    """Raise ValueError if a nest, which may hold parts many times or even itself, is too deep or too large."""
    left, level = _MOST, [content]
    for _ in range(_DEEPEST):
        nests = [part for part in level if isinstance(part, Mapping | list)]
        left -= len(level)
        if not nests:
            return
        if sum(map(len, nests)) > left:
            raise ValueError(f"it holds more than {_MOST} values, aliases counted")
        level = [part for nest in nests for part in (nest.values() if isinstance(nest, Mapping) else nest)]
    raise ValueError(f"it is nested more than {_DEEPEST} levels deep")
