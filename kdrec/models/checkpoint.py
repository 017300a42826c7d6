"""The self-contained checkpoint: a Lightning checkpoint with one more section, ``kdrec``, of plain values.

The section holds all that is needed to rebuild and use the model without its data set: class and arguments, sizes,
raw ids, titles, seen items, protocol, metrics, provenance. Files are read with ``weights_only=True``, so no code in
them can run, and a class is taken only from kdrec itself or from a module that the program has imported already.
"""

import hashlib
import os
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch

from kdrec.data.interactions import Interactions
from kdrec.errors import InputError
from kdrec.models.base import Recommender
from kdrec.models.described import rebuild, require_known_classes
from kdrec.models.section import FORMAT
from kdrec.models.texts import unpack

_READ = (1, FORMAT)  # in format 1 raw ids stand as lists of text
_NEEDED: dict[str, Any] = {
    "model": dict, "data": dict, "evaluation": dict, "num_users": int, "num_items": int, "user_ids": list | dict,
    "item_ids": list | dict, "seen": dict, "data_digest": str, "protocol": str, "metrics": dict, "epochs": int,
}  # fmt: skip
PREFIX = "recommender."
"""Under this prefix the model's weights stand in the file's ``state_dict``."""


def read(path: str | Path) -> dict[str, Any]:
    """Load a checkpoint onto the CPU without running anything in it.

    Raises:
        InputError: If the file is missing, is no checkpoint, is cut off, is of another program or a newer format, or
            holds anything but tensors and plain values.
    """
    path = Path(path)
    if os.path.isdir(path):  # Path.is_dir fails at names that cannot be
        raise InputError(f"{path} is a folder; name a checkpoint in it, such as {path}/best.ckpt.")
    if not os.path.isfile(path):
        raise InputError(f"There is no checkpoint {path}; `kdrec fit` makes one, and `ls checkpoints/*/*` shows yours.")
    try:
        content = load_plain(path)
    except UnpicklingError:
        raise InputError(
            f"{path} holds more than tensors and plain values, so it is not a checkpoint of kdrec, or it is damaged; "
            f"nothing in it was run; make it again with `kdrec fit`."
        ) from None
    except Exception:  # torch's reader fails in many ways on a file that is none of its own
        raise InputError(
            f"{path} cannot be read as a checkpoint: it is cut off, damaged or of another program; nothing in it was "
            f"run; make it again with `kdrec fit`."
        ) from None
    section = content.get("kdrec") if isinstance(content, dict) else None
    if not isinstance(section, dict) or not isinstance(content.get("state_dict"), dict):
        raise InputError(
            f"{path} was not written by kdrec (it has no section 'kdrec'); give a checkpoint of `kdrec fit`."
        )
    found = section.get("format")
    if not isinstance(found, int) or found not in _READ:
        raise InputError(
            f"{path} has format {found} where this kdrec reads {' and '.join(map(str, _READ))}; use "
            f"the version that wrote it."
        )
    if missing := [key for key in _NEEDED if key not in section]:
        raise InputError(f"{path} is incomplete: it does not say {', '.join(missing)}; make it again with `kdrec fit`.")
    wrong = [key for key, kind in _NEEDED.items() if not isinstance(section[key], kind)]
    if wrong or not _is_evaluation(section["evaluation"]):
        raise InputError(
            f"The checkpoint {path} is damaged: its {[*wrong, 'evaluation'][0]} is not of the right kind; make it "
            f"again with `kdrec fit`."
        )
    for side in ("user_ids", "item_ids"):
        if isinstance(section[side], dict):
            try:
                section[side] = unpack(section[side])
            except Exception:  # of many kinds, as edited by hand
                raise InputError(f"{path} is damaged: its {side} cannot be read; make it again.") from None
    return content


def _is_evaluation(said: Mapping[str, Any]) -> bool:
    """Whether these are cutoffs, and perhaps a number of candidates."""
    cutoffs, candidates = said.get("cutoffs", []), said.get("num_candidates")
    return (
        isinstance(cutoffs, list | tuple)
        and all(isinstance(k, int) for k in cutoffs)
        and isinstance(candidates, int | None)
    )


def load_plain(path: str | Path) -> Any:
    """Load a file of tensors and plain values onto the CPU, without running anything in it.

    Raises:
        Exception: Of many kinds, if it is cut off, damaged or of another program.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # its doubts about a foreign pickle end in an error
        with zipfile.ZipFile(path) as archive:
            if packed := [part.filename for part in archive.infolist() if part.compress_type != zipfile.ZIP_STORED]:
                raise zipfile.BadZipFile(packed[0])  # torch packs nothing; what is packed may fill the memory
            if damaged := archive.testzip():  # torch does not look whether the sums are right
                raise zipfile.BadZipFile(damaged)
        return torch.load(path, map_location="cpu", weights_only=True)


def restore(path: str | Path, content: dict[str, Any] | None = None) -> Recommender:
    """Rebuild the model of a checkpoint, in evaluation mode, on the CPU.

    Args:
        path: The file; only for messages if ``content`` is given.
        content: What `read` returned for it.

    Raises:
        InputError: As `read`, or if the class is unknown, the weights do not fit it or are no finite numbers, or ids
            and seen items are not those of its users and items.
    """
    content = read(path) if content is None else content
    section = content["kdrec"]
    versions = section.get("versions")
    require_known_classes(section["model"], path, Recommender)
    try:
        weights = {
            name.removeprefix(PREFIX): value for name, value in content["state_dict"].items() if name.startswith(PREFIX)
        }
        _require_fit(section, weights)
        with torch.random.fork_rng(devices=[]):  # else who loads a teacher would start the student elsewhere
            recommender = _built(section)
        recommender.load_state_dict(weights)
        recommender.require_sound()
    except (ImportError, AttributeError, LookupError, TypeError, ValueError, OverflowError, RuntimeError) as error:
        raise InputError(
            f"The model in {path} cannot be rebuilt: {_first_line(error)}; use the kdrec version that wrote it "
            f"({versions.get('kdrec', 'unknown') if isinstance(versions, dict) else 'unknown'})."
        ) from None
    if not all(weight.isfinite().all() for weight in weights.values()):
        raise InputError(f"{path} holds weights that are no finite numbers; its training diverged, so train it again.")
    if not _is_whole(section, recommender):
        raise InputError(
            f"The checkpoint {path} is damaged: its ids, titles or seen items are not those of "
            f"{recommender.num_users} users and {recommender.num_items} items; make it again with `kdrec fit`."
        )
    return recommender.eval()


def _built(section: Mapping[str, Any]) -> Recommender:
    recommender: Recommender = rebuild(section["model"])
    recommender.build(section["num_users"], section["num_items"])
    return recommender


def _require_fit(section: Mapping[str, Any], weights: Mapping[str, Any]) -> None:
    """Raise RuntimeError or ValueError if weights are not those of the model, before it takes any memory."""
    with torch.device("meta"), warnings.catch_warnings(action="ignore"):  # that nothing is copied
        _built(section).load_state_dict(weights)
    wanted = sum(tensor.numel() * tensor.element_size() for tensor in weights.values())  # of any precision
    held = sum(tensor.untyped_storage().nbytes() for tensor in weights.values() if tensor.layout is torch.strided)
    if wanted > held:  # of a tensor that repeats one number a file needs to hold but that
        raise ValueError(f"its tables take {wanted} bytes, and it holds {held}")


def _is_whole(section: Mapping[str, Any], recommender: Recommender) -> bool:
    """Whether ids, titles, labels and seen items fit the numbers of users and items."""
    num_users, num_items = recommender.num_users, recommender.num_items
    try:
        offsets, items = section["seen"]["offsets"], section["seen"]["items"]
        titles, labels = section.get("item_titles"), section.get("item_labels")
        return (
            _are_texts(section["user_ids"], num_users)
            and _are_texts(section["item_ids"], num_items)
            and (titles is None or _are_texts(titles, num_items))
            and (labels is None or (_are_texts(labels["values"], num_items) and _are_texts([labels["name"]], 1)))
            and (offsets.dtype, offsets.dim(), items.dim()) == (torch.int64, 1, 1)
            and items.dtype in (torch.int32, torch.int64)
            and isinstance(section["seen"].get("timed", False), bool)
            and len(offsets) == num_users + 1
            and (int(offsets[0]), int(offsets[-1])) == (0, len(items))
            and bool((offsets.diff() >= 0).all() and ((items >= 0) & (items < num_items)).all())
        )
    except (AttributeError, LookupError, TypeError, ValueError, RuntimeError):
        return False


def _are_texts(values: Any, number: int) -> bool:
    """Whether that many texts are given, all of which can be written; UnicodeEncodeError is a ValueError."""
    return (
        isinstance(values, list)
        and len(values) == number
        and all(isinstance(text, str) for text in values)
        and "".join(values).encode() is not None
    )


def load_for(path: str | Path, train: Interactions, role: str) -> Recommender:
    """Restore a model and make sure that it learned from the very data that another one learns from.

    Args:
        path: The checkpoint.
        train: What the other learns from.
        role: What the model is to the other, such as "teacher"; for messages.

    Raises:
        InputError: If the file is no good checkpoint, or its model was made on other pairs or other ids.
    """
    content = read(path)
    section = content["kdrec"]
    remedy = f"train a {role} on this data and split, or give the config that makes it."
    for kind, theirs, ours in (
        ("users", section["num_users"], train.num_users),
        ("items", section["num_items"], train.num_items),
    ):
        if theirs != ours:
            raise InputError(
                f"The {role} {path} was made on other data: it knows {theirs} {kind} and this data has {ours}; {remedy}"
            )
    if section["data_digest"] != train.digest:
        raise InputError(
            f"The {role} {path} was made on other data: its training pairs or ids differ from this split's "
            f"(protocol {section.get('protocol', 'unknown')}), so it may have seen what this one is tested on; {remedy}"
        )
    return restore(path, content)


def digest(path: str | Path) -> str:
    """Return the SHA-256 of a file."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _first_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return " ".join(lines[:2])[:200].rstrip(".;:") or type(error).__name__
