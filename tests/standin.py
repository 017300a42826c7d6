"""A program that stands in for ``python -m kdrec``, so that a study's order of work is tested in no time."""

import contextlib
import functools
import json
import os
import tempfile
from pathlib import Path

from kdrec.models.bpr import BPR
from kdrec.training.ranking import RankingModule
from tests.generated import GeneratedDataModule, quiet_trainer

PARAMETERS = 3 * (30 + 40)
RECORD = {"protocol": "a stand-in, full ranking", "seconds": 1.5, "epochs": 4, "best_epoch": 3}
USERS = "user,recall@5,ndcg@5,recall@10,ndcg@10\nu1,0.5,0.25,1,0.5\nu2,1,0.5,1,0.75\nu3,0.25,0.125,0.5,0.5\n"
_SCRIPT = """#!/bin/sh
# $1 is -m, $2 is kdrec, $3 the command
here=${0%/*}
before=
for word; do
    case $before in
        --checkpoint.dirpath) folder=$word ;;
        --per_user) folder=${word%/*} ;;
    esac
    before=$word
done
me=$3-${folder##*/}
echo "start $me $OMP_NUM_THREADS $$" >> "$here/calls"
echo "standing in for $me"
while [ -e "$here/held-$me" ]; do sleep 0.01; done
[ -e "$here/endless-$me" ] && exec sleep 600
[ -e "$here/deaf-$me" ] && trap '' TERM && exec sleep 600
[ -e "$here/fail-$me" ] && exit 3
if [ "$3" = fit ]; then
    cp "$here/model.ckpt" "$folder/best.ckpt"
    cp "$here/model.ckpt" "$folder/last.ckpt"
    [ -e "$here/lost-$me" ] || cp "$here/run.json" "$folder/run.json"
else
    cp "$here/users.csv" "$folder/users.csv"
fi
echo "end $me" >> "$here/calls"
"""


class StandIn:
    """The program, in a folder of its own: to be put in the place of `sys.executable`.

    ``users.csv`` in the folder is what every test leaves, ``model.ckpt`` and ``run.json`` what every fit leaves.

    Args:
        folder: Is made.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir()
        self.program = folder / "kdrec"
        self.program.write_text(_SCRIPT)
        self.program.chmod(0o755)
        (folder / "model.ckpt").write_bytes(_checkpoint())
        (folder / "run.json").write_text(json.dumps(RECORD))
        (folder / "users.csv").write_text(USERS)

    def let(self, behaviour: str, *commands: str) -> None:
        """Make commands, such as "fit-alone-2-seed0", behave.

        Args:
            behaviour: held (until `release`), endless, deaf (to SIGTERM, and endless), fail or lost (no run.json).
            commands: Which.
        """
        for command in commands:
            (self.folder / f"{behaviour}-{command}").touch()

    def release(self) -> None:
        """Let the held commands go on."""
        for path in self.folder.glob("held-*"):
            path.unlink()

    def forget(self) -> None:
        """Take back all of `let`, and forget the calls."""
        for path in [*self.folder.glob("*-*"), *self.folder.glob("calls")]:
            path.unlink()

    @property
    def calls(self) -> list[list[str]]:
        """All that happened: ["start", command, threads, process id] or ["end", command]."""
        path = self.folder / "calls"
        return [line.split() for line in path.read_text().splitlines()] if path.exists() else []

    @property
    def started(self) -> list[str]:
        """The commands, in the order in which they were started."""
        return [call[1] for call in self.calls if call[0] == "start"]


def children(process: int) -> list[int]:
    """Return the processes that a process has started (Linux)."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            if int(path.read_text().rpartition(")")[2].split()[1]) == process:
                found.append(int(path.parent.name))
    return found


def has_ended(process: int) -> bool:
    """Whether a process is gone; one that nobody has asked for its exit code counts as gone."""
    try:
        os.kill(process, 0)
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


@functools.cache
def _checkpoint() -> bytes:
    """Train a model for one epoch."""
    trainer = quiet_trainer(max_epochs=1)
    trainer.fit(RankingModule(BPR(3), cutoffs=(5,)), datamodule=GeneratedDataModule())
    with tempfile.TemporaryDirectory() as folder:
        trainer.save_checkpoint(f"{folder}/model.ckpt")
        return Path(folder, "model.ckpt").read_bytes()
