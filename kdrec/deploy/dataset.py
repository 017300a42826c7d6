"""The data set of a checkpoint, from what the file says of it."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from kdrec.data.base import InteractionDataModule
from kdrec.errors import InputError
from kdrec.models.described import rebuild, require_known_classes


def data_of(path: str | Path, section: Mapping[str, Any]) -> InteractionDataModule:
    """Load the data that a checkpoint was trained on, cut as it was then.

    Args:
        path: The checkpoint; for messages.
        section: Its section ``kdrec``.

    Raises:
        InputError: If the data set is not there, is another now, or the section is damaged.
    """
    require_known_classes(section["data"], path, InteractionDataModule)
    try:
        data = rebuild(section["data"])
        found = data.split.train.digest
    except TypeError as error:
        raise InputError(
            f"The data module of {path} cannot be made ({error}); use the kdrec version that wrote the file."
        ) from None
    if found != section["data_digest"]:
        raise InputError(
            f"{path} was trained on {section['protocol']} ({str(section['data_digest'])[:8]}), and the data here is "
            f"another ({found[:8]}); put the data there that made it, or name its folder in $KDREC_DATA."
        )
    return data
