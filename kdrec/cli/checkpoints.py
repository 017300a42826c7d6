"""Which checkpoint a command works on, and the config that a checkpoint stands for."""

import argparse
import contextlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from kdrec.cli import runs
from kdrec.cli.messages import say
from kdrec.data.base import InteractionDataModule
from kdrec.documents import read_yaml
from kdrec.errors import InputError
from kdrec.models import checkpoint as files
from kdrec.models.base import Recommender
from kdrec.models.described import require_known_classes, shown


def choose(args: list[str]) -> tuple[Path, list[str]]:
    """Find the checkpoint that a command line means and, where it gives no config, put the checkpoint's before it.

    Args:
        args: The command and its options, not parsed yet.

    Returns:
        (the file, the arguments to parse).

    Raises:
        InputError: If there is none, or it is no good.
    """
    known = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    for option in ("--ckpt_path", "--config", "--name"):
        known.add_argument(option, *(["-c"] if option == "--config" else []), nargs="?")
    given = known.parse_known_args(args[1:])[0]
    if given.ckpt_path and given.ckpt_path not in ("best", "last"):
        path = Path(given.ckpt_path)
    else:
        name: str | None = given.name or (run_name(Path(given.config)) if given.config else None)
        path = runs.newest_checkpoint(name, f"{given.ckpt_path or 'best'}.ckpt")
        of = f" of {name}" if name else ""
        say(f"{'No --ckpt_path' if not given.ckpt_path else given.ckpt_path}: taking the newest checkpoint{of}, {path}")
        args = [*args, "--ckpt_path", str(path)]
    section = files.read(path)["kdrec"]
    if given.config:
        return path, args
    require_known_classes(section["data"], path, InteractionDataModule)
    parts = {"model": as_module(path, section["evaluation"]), "data": section["data"]}
    return path, [args[0], *(text for key, part in parts.items() for text in (f"--{key}", json.dumps(part))), *args[1:]]


def as_module(path: Path, evaluation: Mapping[str, Any]) -> dict[str, Any]:
    """Return the config of the module that evaluates a checkpoint's model; teacher and loss are of no concern.

    Args:
        path: The checkpoint.
        evaluation: Its ``cutoffs`` and ``num_candidates`` are taken.
    """
    model = files.read(path)["kdrec"]["model"]
    require_known_classes(model, path, Recommender)
    options = {key: evaluation[key] for key in ("cutoffs", "num_candidates") if key in evaluation}
    return {"class_path": "kdrec.training.ranking.RankingModule", "init_args": {"recommender": model, **options}}


def require_same_model(path: Path, module: Mapping[str, Any]) -> None:
    """Raise InputError if a config describes another model than the checkpoint holds; what it leaves open may differ.

    Args:
        path: The checkpoint.
        module: The config of the training module, plain.
    """
    arguments = module["init_args"]
    theirs = arguments.get("recommender") or arguments.get("student")
    if theirs is None:
        return
    held = files.read(path)["kdrec"]["model"]
    require_known_classes(held, path, Recommender)
    held, theirs = _spelled_out(held), _spelled_out(theirs)
    left_open = {name: None for name, value in theirs["init_args"].items() if value is None}
    if theirs != held | {"init_args": held["init_args"] | left_open}:
        raise InputError(
            f"{path} holds {shown(held)} and the config says {shown(theirs)}; give the config that made it, or none."
        )


def _spelled_out(model: Mapping[str, Any]) -> dict[str, Any]:
    """Return a model's config with the arguments of every class in it, be there none."""

    def each(value: Any) -> Any:
        if isinstance(value, list):
            return [each(part) for part in value]
        return _spelled_out(value) if isinstance(value, Mapping) else value

    return {
        "class_path": model["class_path"],
        "init_args": {name: each(value) for name, value in (model.get("init_args") or {}).items()},
    }


def run_name(config: Path) -> str:
    """Return the run's name that a config states, or the file's name; a fault in it is found when it is parsed."""
    with contextlib.suppress(OSError, ValueError, AttributeError):
        if name := read_yaml(config).get("name"):
            return str(name)
    return config.stem
