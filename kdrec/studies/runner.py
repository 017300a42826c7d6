"""Run the cells of a study, each in processes of its own, and keep whatever is finished."""

import contextlib
import hashlib
import json
import os
import shutil
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TextIO

from kdrec.errors import InputError
from kdrec.models import checkpoint as files
from kdrec.processes import dying_with_parent
from kdrec.studies.plan import Cell, Study
from kdrec.studies.results import PER_USER, Result, folder_of, learning_curve, mean_metrics, write_result

_LOG = "log.txt"
_POLL_SECONDS = 0.2
_GRACE_SECONDS = 10


def _log_name(output: Path, study: Study) -> str:
    """Return the name of a study's logs, which no two outputs share."""
    place = output.resolve()
    usual = place.parent == Path("studies").resolve()
    return place.name if usual else f"{place.name or study.name}-{hashlib.sha256(str(place).encode()).hexdigest()[:6]}"


@dataclass
class _Job:
    """A cell at work: first its fit, then its test."""

    cell: Cell
    folder: Path
    commands: list[list[str]]
    log: TextIO
    start: float = field(default_factory=time.monotonic)
    process: subprocess.Popen[bytes] | None = None


@dataclass
class Progress:
    """How far a study is; shown after every change.

    Attributes:
        running: Cells at work, and since how many seconds.
        left: Estimated seconds to the end, or None while nothing is known.
    """

    done: int
    total: int
    running: dict[str, float]
    left: float | None
    finished: tuple[Cell, Result] | None = None
    failed: tuple[Cell, str] | None = None


class Runner:
    """Run what is not finished.

    A cell that was interrupted starts anew, so every number is that of an uninterrupted run. When this process dies,
    its children die with it (on Linux), and the cells that are finished stay.

    Args:
        study: The plan.
        identities: Digest of each cell.
        output: Folder of the study.
        jobs: Cells at work at the same time; the machine's threads are shared out among them.
        show: Is told of all progress, several times a second.
    """

    def __init__(
        self, study: Study, identities: Mapping[Cell, str], output: Path, jobs: int, show: Callable[[Progress], None]
    ) -> None:
        self.study = study
        self.identities = identities
        self.output = output
        self.jobs = jobs
        self.show = show
        self.name = _log_name(output, study)
        self.threads = max(1, (os.cpu_count() or 1) // jobs)
        self.results: dict[Cell, Result] = {}
        self.failures: dict[Cell, str] = {}
        self._waiting: list[Cell] = []
        self._running: list[_Job] = []

    def run(self, results: Mapping[Cell, Result]) -> None:
        """Run the cells that have no result yet; afterwards `results` and `failures` say how it went.

        Args:
            results: Cells that are finished.
        """
        self.results = dict(results)
        self._waiting = [cell for cell in self.study.cells if cell not in results]
        try:
            while self._waiting or self._running:
                self._start_what_can_start()
                for job in list(self._running):
                    self._advance(job)
                self.show(self._progress())
                time.sleep(_POLL_SECONDS)
            self.results = {cell: self.results[cell] for cell in self.study.cells if cell in self.results}
        finally:
            for job in self._running:
                self._stop(job)

    def _start_what_can_start(self) -> None:
        for cell in list(self._waiting):
            if len(self._running) >= self.jobs:
                return
            teacher = self.study.teacher_of(cell)
            if teacher in self.failures:
                self._waiting.remove(cell)
                self._fail(cell, f"its teacher failed ({teacher.label if teacher else ''})")
            elif teacher is None or teacher in self.results:
                self._waiting.remove(cell)
                self._running.append(self._job(cell, teacher))

    def _job(self, cell: Cell, teacher: Cell | None) -> _Job:
        """Lay out a cell's folder and commands."""
        folder = folder_of(self.output, cell)
        if folder.exists():  # interrupted, or failed
            shutil.rmtree(folder)
        shutil.rmtree(self._logs(cell), ignore_errors=True)
        folder.mkdir(parents=True)
        fit = ["fit", *cell.arguments, "--name", self.name, "--checkpoint.dirpath", str(folder)]
        if teacher is not None:
            weights = folder_of(self.output, teacher) / f"{self.study.checkpoint}.ckpt"
            fit += ["--model.init_args.teacher", str(weights)]
        tested = str(folder / f"{self.study.checkpoint}.ckpt")
        test = ["test", "--config", str(folder / "config.yaml"), "--ckpt_path", tested]
        test += ["--per_user", str(folder / PER_USER)]
        quiet = ["--trainer.enable_progress_bar", "false"]
        commands = [[sys.executable, "-m", "kdrec", *command, *quiet] for command in (fit, test)]
        log = open(folder / _LOG, "w", encoding="utf-8")  # noqa: SIM115 - open while the processes write
        return _Job(cell, folder, commands, log)

    def _advance(self, job: _Job) -> None:
        """Start the next command of a job if the last one is done, and keep the result after the last."""
        if job.process is not None:
            code = job.process.poll()
            if code is None:
                return
            if code:
                self._running.remove(job)
                job.log.close()
                self._fail(job.cell, f"`kdrec {job.commands[0][3]}` ended with code {code}; see {job.folder / _LOG}")
                return
            job.commands.pop(0)
        if not job.commands:
            self._running.remove(job)
            job.log.close()
            try:
                result = self._result(job)
                write_result(job.folder, result)
            except (OSError, InputError) as error:
                self._fail(job.cell, f"it left no result ({str(error).rstrip('.')}); see {job.folder / _LOG}")
                return
            self.results[job.cell] = result
            self.show(self._progress(finished=(job.cell, result)))
            return
        job.log.write(f"$ kdrec {' '.join(job.commands[0][3:])}\n")
        job.log.flush()
        job.process = subprocess.Popen(
            job.commands[0],
            stdout=job.log,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            env=os.environ | {"OMP_NUM_THREADS": str(self.threads), "MKL_NUM_THREADS": str(self.threads)},
            preexec_fn=dying_with_parent(),
        )

    def _result(self, job: _Job) -> Result:
        record = json.loads((job.folder / "run.json").read_text())
        weights = job.folder / f"{self.study.checkpoint}.ckpt"
        model = files.restore(weights)
        return Result(
            identity=self.identities[job.cell],
            protocol=record["protocol"],
            parameters=model.num_parameters(),
            bytes=model.num_bytes(),
            seconds=record["seconds"],
            epochs=record["epochs"],
            best_epoch=record["best_epoch"],
            threads=self.threads,
            checkpoint=str(weights.relative_to(job.folder)),
            metrics=mean_metrics(job.folder / PER_USER),
            curve=learning_curve(self._logs(job.cell), self.study.metric),
            curve_metric=self.study.metric,
        )

    def _fail(self, cell: Cell, reason: str) -> None:
        self.failures[cell] = reason
        self.show(self._progress(failed=(cell, reason)))

    def _stop(self, job: _Job) -> None:
        if job.process is not None and job.process.poll() is None:
            job.process.send_signal(signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                job.process.wait(timeout=_GRACE_SECONDS)
            job.process.kill()
            job.process.wait()
        job.log.close()

    def _logs(self, cell: Cell) -> Path:
        return Path("logs") / self.name / cell.name

    def _progress(
        self, finished: tuple[Cell, Result] | None = None, failed: tuple[Cell, str] | None = None
    ) -> Progress:
        running = {job.cell.label: time.monotonic() - job.start for job in self._running}
        return Progress(len(self.results), len(self.study.cells), running, self._seconds_left(), finished, failed)

    def _seconds_left(self) -> float | None:
        """Estimate from what finished cells took: those of the same method and student, or method, or any."""
        if not self.results:
            return None
        total = 0.0
        for cell, spent in [
            *((job.cell, time.monotonic() - job.start) for job in self._running),
            *((cell, 0.0) for cell in self._waiting),
        ]:
            same = [r for c, r in self.results.items() if (c.method, c.student) == (cell.method, cell.student)]
            alike = same or [r for c, r in self.results.items() if c.method == cell.method] or [*self.results.values()]
            total += max(0.0, statistics.fmean(result.seconds for result in alike) - spent)
        return total / self.jobs
