"""Where runs live: ``checkpoints/NAME/TIME/`` with best.ckpt, last.ckpt, config.yaml and run.json; logs beside it."""

import contextlib
import hashlib
import json
import os
import shutil
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from kdrec.documents import read_json, read_yaml, replacing
from kdrec.errors import InputError

CHECKPOINTS = Path("checkpoints")
LOGS = Path("logs")
RECORD = "run.json"

_IRRELEVANT = {
    "trainer": {"logger", "callbacks", "default_root_dir", "enable_progress_bar", "enable_model_summary"},
    "checkpoint": {"dirpath"},
}


def new_folder(name: str) -> Path:
    """Return an unused folder for a run, not yet made."""
    stamp = time.strftime("%Y-%m-%d_%H-%M-%S")
    folder, number = CHECKPOINTS / name / stamp, 1
    while folder.exists():
        number += 1
        folder = CHECKPOINTS / name / f"{stamp}-{number}"
    return folder


def require_writable(folder: Path, what: str = "Checkpoints", option: str = "--checkpoint.dirpath") -> None:
    """Do as `make_writable`, before anything is spent on what shall go there, and leave no trace."""
    missing = [path for path in (folder, *folder.parents) if not os.path.exists(path)]
    make_writable(folder, what, option)
    with contextlib.suppress(OSError):  # another process has put something there meanwhile
        for path in missing:
            path.rmdir()


def make_writable(folder: Path, what: str = "Checkpoints", option: str = "--checkpoint.dirpath") -> None:
    """Make a folder, if it is not there, and try to write to it.

    Args:
        folder: The place.
        what: Shall go there; for the message.
        option: That names another place.

    Raises:
        InputError: If it cannot be made or written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / f".probe-{os.getpid()}"
        probe.touch()
        probe.unlink()
    except (OSError, ValueError) as error:  # the second of a name that cannot be
        raise InputError(
            f"{what} cannot be written to {folder} ({getattr(error, 'strerror', error)}); name another folder with "
            f"{option}, or run from a folder that you may write to."
        ) from None


def newest_checkpoint(name: str | None = None, file: str = "best.ckpt") -> Path:
    """Return the checkpoint of that file name that was written last, in the runs of ``name`` or in all.

    Raises:
        InputError: If there is none.
    """
    place, pattern = (CHECKPOINTS / name, f"*/{file}") if name else (CHECKPOINTS, f"*/*/{file}")
    found = sorted(place.glob(pattern), key=lambda path: path.stat().st_mtime)
    if not found:
        raise InputError(f"There is no {file} under {place}; run `kdrec fit` first, or name a file with --ckpt_path.")
    return found[-1]


def newest_run(name: str, file: str) -> Path:
    """Return the folder of the run of that name that was begun or saved last; ``file`` is what is wanted of it.

    Raises:
        InputError: If there is none.
    """
    found = [*(CHECKPOINTS / name).glob("*/config.yaml"), *(CHECKPOINTS / name).glob("*/*.ckpt")]
    if not found:
        raise InputError(f"There is no {file} under {CHECKPOINTS / name}; run `kdrec fit` without --ckpt_path first.")
    return max(found, key=lambda path: path.stat().st_mtime).parent


def require_name(name: str) -> str:
    """Return the name of a run, or raise InputError if it is no single folder's name."""
    if name in (".", "..") or Path(name).name != name or not name.isprintable():
        raise InputError(f"--name is {name!r}; it names a folder below {CHECKPOINTS}, so it must hold no path.")
    return name


def discard_if_empty(folder: Path, logs: Path) -> None:
    """Remove the folder of a fit that kept no checkpoint, with its logs."""
    if (
        folder.is_dir()
        and not list(folder.glob("*.ckpt"))
        and {file.name for file in folder.iterdir()} <= {"config.yaml"}
    ):
        shutil.rmtree(folder)
        shutil.rmtree(logs / folder.name, ignore_errors=True)
        for parent in (folder.parent, folder.parent.parent, logs, logs.parent):
            if parent.is_dir() and not list(parent.iterdir()):
                parent.rmdir()


def wait_for_order(logs: Path) -> None:
    """Wait until TensorBoard's next file of a run sorts behind those that it has.

    They are read in the order of their names, which begin with the second they were begun in; a file read too early
    hides all points of those that belong before it.
    """
    begun = [file.name.split(".")[3] for file in logs.glob("events.out.tfevents.*")]
    last = max((int(second) for second in begun if second.isdecimal()), default=0)
    while last >= int(time.time()) > last - 2:  # of a clock that was set back no end is waited for
        time.sleep(0.01)


def shown(path: str | Path) -> Path:
    """Return the path as a person in the current folder would type it."""
    path = Path(path)
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path


def config_digest(config: Mapping[str, Any]) -> str:
    """Return the SHA-256 of what decides a fit's result: its config without folders and displays.

    A teacher and the members of an ensemble decide it too, so if they are configs, what these say belongs to it.

    Raises:
        InputError: If such a config names itself, be it by way of others.
    """
    kept = {
        key: {name: value for name, value in part.items() if name not in _IRRELEVANT.get(key, ())}
        if isinstance(part := config[key], dict)
        else part
        for key in ("seed_everything", "model", "data", "trainer", "early_stopping", "checkpoint")
    }
    kept["data"] = kept["data"] | {
        "init_args": {k: v for k, v in (kept["data"].get("init_args") or {}).items() if k != "root"}
    }
    if said := [_said(path) for path in _named_by(config)]:
        kept["members"] = said
    return hashlib.sha256(json.dumps(kept, sort_keys=True, default=str).encode()).hexdigest()


def data_source(data: Mapping[str, Any]) -> dict[str, Any]:
    """Return which data a fit learns from and how that is cut: the part ``data`` of its config without its batches."""
    free = ("root", "batch_size", "num_negatives", "eval_batch_size", "samples")
    options = data.get("init_args") or {}
    return {"class_path": data["class_path"], **{key: value for key, value in options.items() if key not in free}}


def _said(path: Path, by: tuple[Path, ...] = ()) -> str:
    """Return what a YAML file says, without its comments, and what those say that it names.

    If it is no YAML, which the fit will say, what it holds.
    """
    if path.resolve() in by:
        raise InputError(f"{path} is its own teacher or member, be it by way of others; name another one in it.")
    try:
        config = read_yaml(path)
    except ValueError:
        return path.read_bytes().hex()
    return repr(config) + "".join(_said(other, (*by, path.resolve())) for other in _named_by(config))


def _named_by(config: Any) -> list[Path]:
    """Return the configs that a config names as its teacher or as members of an ensemble, if they are there."""

    def within(thing: Any, *keys: str) -> Any:
        for key in keys:
            thing = thing.get(key) if isinstance(thing, dict) else None
        return thing

    model = within(config, "model", "init_args")
    members = within(model, "recommender", "init_args", "checkpoints")
    given = [within(model, "teacher"), *(members if isinstance(members, list) else ())]
    paths = [Path(path) for path in given if isinstance(path, str) and path.endswith((".yaml", ".yml"))]
    return [path for path in paths if os.path.isfile(path)]


def write_record(folder: Path, record: dict[str, Any]) -> None:
    """Write run.json atomically: its presence means that the fit came to its end."""
    with replacing(folder / RECORD) as part:
        part.write_text(json.dumps(record, indent=2) + "\n")


def read_record(folder: Path) -> dict[str, Any]:
    """Return what run.json says, or nothing if there is none."""
    try:
        said = read_json(folder / RECORD)
    except (OSError, ValueError):
        return {}
    return said if isinstance(said, dict) else {}


def finished_run(config_sha256: str, data_digest: str) -> Path | None:
    """Return the best checkpoint of the newest finished run with this config on this data."""
    for record in sorted(CHECKPOINTS.glob(f"*/*/{RECORD}"), key=lambda path: path.stat().st_mtime, reverse=True):
        said, best = read_record(record.parent), record.parent / "best.ckpt"
        if (said.get("config_sha256"), said.get("data_digest")) == (config_sha256, data_digest) and best.is_file():
            return best
    return None
