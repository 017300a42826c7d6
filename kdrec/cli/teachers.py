"""A teacher or a member of an ensemble may be given as its config: train it once, and find it again ever after."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from filelock import FileLock

from kdrec.cli import runs
from kdrec.cli.messages import say
from kdrec.data.base import InteractionDataModule
from kdrec.errors import InputError
from kdrec.models.described import as_config
from kdrec.processes import dying_with_parent

# what Lightning knows its place among other processes by; the teacher's fit shall take itself for the only one
_RANK_VARIABLES = ("RANK", "LOCAL_RANK", "NODE_RANK", "GROUP_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
_RANK_PREFIXES = ("TORCHELASTIC_", "SLURM_", "PL_")


def ensure_trained(
    config: Path, role: str, parse: Callable[[list[str]], dict[str, Any]], data: InteractionDataModule
) -> Path:
    """Return the checkpoint that a config makes, training it first if there is none.

    It is trained by a ``kdrec fit`` of its own: its seed, threads and memory are not those of this run. Of several
    processes one trains and the others wait for it.

    Args:
        config: The YAML.
        role: What it makes for this run, such as "teacher"; for messages.
        parse: Turns options of ``kdrec fit`` into the whole config in plain values.
        data: The data of this run.

    Raises:
        InputError: If the config is faulty, is for other data, or its training fails.
        KeyboardInterrupt: If it is interrupted.

    Side effects: May train for minutes, and writes a run folder under ``checkpoints``.
    """
    overrides = ["--data.init_args.root", str(data.root)]
    parsed = parse(["--config", str(config), *overrides])
    theirs, ours = runs.data_source(parsed["data"]), runs.data_source(as_config(data))
    theirs["splitter"] = theirs["splitter"] or as_config(data.default_splitter)
    if differ := [key for key in ours if theirs.get(key) != ours[key]]:
        raise InputError(
            f"The {role} {config} would learn from other data than this run: its {differ[0]} is "
            f"{theirs.get(differ[0])}, and not {ours[differ[0]]}; give both the same data and splitter."
        )
    return _trained(config, role, runs.config_digest(parsed), data.split.train.digest, overrides)


def _trained(config: Path, role: str, config_sha256: str, data_digest: str, overrides: list[str]) -> Path:
    """Return the finished run of a config on that data, or train it."""
    runs.make_writable(runs.CHECKPOINTS)
    with FileLock(runs.CHECKPOINTS / f".teacher-{config_sha256[:16]}.lock"):
        if found := runs.finished_run(config_sha256, data_digest):
            say(f"{role.capitalize()}: {config} was trained already with this config and data: {found}")
            return found
        command = [sys.executable, "-m", "kdrec", "fit", "--config", str(config), *overrides]
        unfound = f"{config} has no finished run with this config and data, so it is trained first."
        print(f"{role.capitalize()}: {unfound}", flush=True)
        environment = {
            name: value
            for name, value in os.environ.items()
            if name not in _RANK_VARIABLES and not name.startswith(_RANK_PREFIXES)
        }
        code = subprocess.run(command, env=environment, check=False, preexec_fn=dying_with_parent()).returncode
        if code in (130, -2):
            raise KeyboardInterrupt(
                f"Stopped while the {role} was trained; go on with it as said above, then repeat this."
            )
        found = runs.finished_run(config_sha256, data_digest)
        if code or found is None:
            raise InputError(
                f"The {role} {config} could not be trained (`{' '.join(command[2:])}` ended with code {code}); "
                f"see above, or give a checkpoint in its place."
            )
        say(f"{role.capitalize()}: trained, kept as {found}\n")
        return found
