"""The exported folder: how it is written whole or not at all, and how it is checked before it is used.

Beside the model it holds ``vocabulary.json`` (raw user ids, item ids, titles or null), ``seen.npz`` (the items that
each user touched, in training, validation or test: those of user u are items[offsets[u]:offsets[u + 1]]) and
``manifest.json``, which names every other file with its size and digest.
"""

import contextlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from kdrec.documents import read_json
from kdrec.errors import InputError
from kdrec.models.checkpoint import digest

FORMAT = 1
MANIFEST, VOCABULARY, SEEN = "manifest.json", "vocabulary.json", "seen.npz"


@contextlib.contextmanager
def new_folder(folder: Path, force: bool) -> Iterator[Path]:
    """Give a folder to write to, which becomes ``folder`` if all goes well and is removed if not.

    Args:
        folder: Where the export shall stand.
        force: Whether it replaces an export that stands there.

    Raises:
        InputError: If something stands there that may not be replaced, or the folder cannot be written.
    """
    require_free(folder, force)
    temporary = folder.absolute().with_name(f".{folder.absolute().name}.{os.getpid()}")
    old = temporary.with_suffix(f"{temporary.suffix}.old")
    try:
        temporary.mkdir(parents=True)
        yield temporary
        require_free(folder, force)  # again, for what came meanwhile
        if folder.exists():
            folder.rename(old)
        temporary.rename(folder)
    except OSError as error:
        raise InputError(
            f"{folder} cannot be written ({error.strerror or error}); nothing was kept, name another --output."
        ) from None
    finally:
        if old.exists() and not folder.exists():  # stopped between the two renames
            old.rename(folder)
        shutil.rmtree(temporary, ignore_errors=True)
        shutil.rmtree(old, ignore_errors=True)


def require_free(folder: Path, force: bool) -> None:
    """Raise InputError if a folder cannot become an export: with ``force`` only another export gives way."""
    if not folder.exists():
        return
    if not force:
        raise InputError(f"{folder} exists; name another --output, or replace it with --force.")
    if not (folder / MANIFEST).is_file():
        raise InputError(f"{folder} exists and is no export of kdrec, so --force leaves it; name another --output.")


def write_data(folder: Path, section: Mapping[str, Any]) -> None:
    """Write vocabulary and seen items of a checkpoint's section."""
    vocabulary = {"users": section["user_ids"], "items": section["item_ids"], "titles": section.get("item_titles")}
    (folder / VOCABULARY).write_text(json.dumps(vocabulary), encoding="utf-8")
    seen = {name: section["seen"][name].numpy().astype(np.int32) for name in ("offsets", "items")}
    np.savez(folder / SEEN, **seen)


def write_manifest(folder: Path, said: Mapping[str, Any]) -> dict[str, Any]:
    """Describe all files of a folder; returns what was written."""
    files = {
        path.name: {"sha256": digest(path), "bytes": path.stat().st_size}
        for path in sorted(folder.iterdir())
        if path.name != MANIFEST
    }
    manifest = {"format": FORMAT, **said, "files": files}
    (folder / MANIFEST).write_text(json.dumps(manifest, indent=1) + "\n", encoding="utf-8")
    return manifest


def check(folder: str | Path) -> dict[str, Any]:
    """Verify an exported folder, and return its manifest.

    Raises:
        InputError: If it is no export, has another format, or a part is missing, damaged or that of another export.
    """
    folder = Path(folder)
    try:
        manifest = read_json(folder / MANIFEST)
        files = {str(name): str(part["sha256"]) for name, part in manifest["files"].items()}
        version = manifest["format"]
    except OSError:
        raise InputError(f"{folder} is no export of kdrec (it has no {MANIFEST}); `kdrec export` makes one.") from None
    except (ValueError, TypeError, KeyError, AttributeError):
        raise InputError(f"{folder / MANIFEST} is damaged; make the export again with `kdrec export`.") from None
    if version != FORMAT:
        raise InputError(
            f"{folder} has format {version} where this kdrec reads {FORMAT}; use the version that wrote it."
        )
    for name, expected in files.items():
        if Path(name).name != name or name in ("", "..", MANIFEST):
            raise InputError(f"{folder / MANIFEST} is damaged: it names the part {name!r}, which is no file's name.")
        if not os.path.isfile(folder / name):
            raise InputError(f"{folder} is incomplete: {name} is missing; make the export again with `kdrec export`.")
        if digest(folder / name) != expected:
            raise InputError(
                f"{folder / name} is not what was exported (damaged, or of another export); make the export again "
                f"with `kdrec export`."
            )
    return manifest
