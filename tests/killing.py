"""Fits in processes of their own, to be killed."""

import io
import multiprocessing
import os
import sys
import time
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import torch

from kdrec.cli import engine
from kdrec.cli.main import main
from kdrec.training.callbacks import LastCheckpoint
from kdrec.training.resuming import WholeFiles

MOMENTS = ("step", "writing", "written")
"""After a training step; when half of a checkpoint is written; when all of it is, before anything else is done."""
_processes = multiprocessing.get_context("forkserver")  # its children are copies of a process that has torch loaded
_processes.set_forkserver_preload(["tests.killing", "tests.generated"])


def start(folder: Path, args: list[str], moment: str = "", count: int = 0) -> BaseProcess:
    """Start ``kdrec ARGS`` in a folder; every epoch's last.ckpt is written.

    Args:
        folder: Where to run.
        args: What follows ``kdrec``.
        moment: One of MOMENTS. The process then makes the file "now", and after a step it goes on, but amid and after
            writing it waits.
        count: Which of these moments, from 1.
    """
    (folder / "now").unlink(missing_ok=True)
    process = _processes.Process(target=_run, args=(folder, args, moment, count))
    process.start()
    return process


def kill(process: BaseProcess, folder: Path, delay: float) -> bool:
    """Kill -9 a process so many seconds after its moment; returns whether that came before its end."""
    while not (folder / "now").exists() and process.is_alive():
        time.sleep(0.001)
    time.sleep(delay)
    process.kill()
    process.join()
    return process.exitcode == -9


def _run(folder: Path, args: list[str], moment: str, count: int) -> None:
    os.chdir(folder)
    sys.argv = ["kdrec"]
    torch.set_num_threads(1)
    left, save = count, torch.save

    def reach(reached: str) -> bool:
        nonlocal left
        left -= reached == moment
        if now := reached == moment and left == 0:
            Path("now").touch()
        return now

    def save_slowly(content: Any, file: Any) -> None:
        whole = io.BytesIO()
        save(content, whole)
        half = len(whole.getvalue()) // 2
        file.write(whole.getvalue()[:half])
        file.flush()
        if reach("writing"):
            time.sleep(60)
        file.write(whole.getvalue()[half:])

    class SlowFiles(WholeFiles):
        def save_checkpoint(self, *args: Any, **options: Any) -> None:
            super().save_checkpoint(*args, **options)
            if reach("written"):
                time.sleep(60)

    class Kept(LastCheckpoint):
        def __init__(self, folder: str) -> None:
            super().__init__(folder, seconds=0)

        def on_train_batch_end(self, *_: Any) -> None:
            reach("step")

    torch.save, engine.WholeFiles, engine.LastCheckpoint = save_slowly, SlowFiles, Kept  # type: ignore[assignment,misc]
    sys.exit(main(args))
