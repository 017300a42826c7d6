"""The formats of `kdrec export`, one file each, found by name.

Each has QUANTIZES (whether it can hold few bits),
`build` (the files' content) and `answers` (what the written files recommend, to be compared with torch's answers).
"""

import importlib
import pkgutil
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, cast

from kdrec.errors import InputError

if TYPE_CHECKING:  # so that --help, which names the formats, needs no torch
    from torch import Tensor

    from kdrec.deploy.compact import Compact

FORMATS = sorted(module.name for module in pkgutil.iter_modules(__path__))
_EXTRAS = {"faiss": "ann", "usearch": "ann"}


class Format(Protocol):
    """What a format's module offers."""

    QUANTIZES: bool

    def build(self, model: "Compact", k: int) -> dict[str, bytes]:
        """Return the files' content by name; ``k`` is the length of the lists where a format must fix it.

        Raises:
            InputError: If the format cannot hold the architecture.
        """

    def answers(self, folder: Path, users: "Tensor", seen: "Tensor", k: int) -> "dict[str, tuple[Tensor, Tensor]]":
        """Return what the files in a folder recommend.

        Args:
            folder: With the files of `build`.
            users: (B,) int64.
            seen: (B, S) int64, filled up with -1.
            k: The one of `build`.

        Returns:
            (items (B, k) int64, scores (B, k) float32) by who was asked for: "users", and where the format knows
            how, "strangers" who like what the users have seen. Item -1 and score -inf where fewer are left.
        """


def format_named(name: str) -> Format:
    """Return a format.

    Raises:
        InputError: If a package that it needs is not installed.
    """
    try:
        return cast(Format, importlib.import_module(f"{__name__}.{name}"))
    except ModuleNotFoundError as error:
        extra = _EXTRAS.get(name, name)
        raise InputError(
            f"--format {name} needs {error.name}; install the extra: python -m pip install '.[{extra}]'."
        ) from None
