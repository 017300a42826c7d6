"""Where a fit begins: a run of its own, or where another left off."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jsonargparse import Namespace

from kdrec.cli import runs
from kdrec.cli.messages import is_first_rank, say
from kdrec.errors import InputError
from kdrec.models import checkpoint as files
from kdrec.training.callbacks import PatientStopping


@dataclass(frozen=True)
class Start:
    """Where a fit begins.

    Attributes:
        folder: Of its checkpoints.
        checkpoint: What it goes on from, or None.
        step: Of a run that goes on, the first optimizer step that is still to be made; None for a new run.
        seconds: What the run has taken so far.
    """

    folder: Path
    checkpoint: Path | None = None
    step: int | None = None
    seconds: float = 0.0


def start_of(config: Namespace, name: str) -> Start:
    """Find out where a fit begins.

    Args:
        config: Of the fit. ``ckpt_path`` is a file, "best" or "last" of the newest run with this name (or of the folder
            that ``checkpoint.dirpath`` gives), or None.
        name: Of the run.

    Raises:
        InputError: If there is no such checkpoint, nothing is left to do, or a new run would write over another.
    """
    given = Path(config.checkpoint.dirpath) if config.checkpoint.dirpath else None
    if not config.ckpt_path:
        if is_first_rank() and given and Path(given, "config.yaml").exists():
            raise InputError(f"{given} holds a run or a config already; name another --checkpoint.dirpath.")
        return Start(given or runs.new_folder(name))
    path = Path(config.ckpt_path)
    if config.ckpt_path in ("best", "last"):
        file = f"{config.ckpt_path}.ckpt"
        folder = given if given and given.is_dir() else runs.newest_run(name, file)
        path = folder / file
        if not list(folder.glob("*.ckpt")):
            say(f"{folder} holds no finished epoch, so its training begins anew")
            return Start(folder, step=0)
    content = files.read(path)
    _require_something_left(path, content, config)
    say(f"Going on from {path}")
    return Start(given or path.parent, path, content.get("global_step", 0), content.get("seconds", 0.0))


def _require_something_left(path: Path, content: Mapping[str, Any], config: Namespace) -> None:
    """Raise InputError if a checkpoint's run has come to its end, and the config wants no more of it."""
    recorded = bool(runs.read_record(path.parent))  # else it was killed after its last epoch, before it could say so
    done, wanted = content["kdrec"]["epochs"], config.trainer.max_epochs
    if wanted is not None and wanted >= 0 and (done > wanted or (done == wanted and recorded)):
        raise InputError(
            f"{path} has trained {done} epochs and trainer.max_epochs is {wanted}, so there is nothing left to do; "
            f"raise --trainer.max_epochs to go on."
        )
    for key, state in content.get("callbacks", {}).items():
        stopped = key.startswith(PatientStopping.__name__) and state["stopping_reason"]
        if stopped and recorded and config.early_stopping.patience <= state["patience"]:
            raise InputError(
                f"{path} was stopped early after {done} epochs, so there is nothing left to do; raise "
                f"--early_stopping.patience above {state['patience']} to go on."
            )
