"""Run a kdrec command in this process, as it is typed, and note times and sizes on the way."""

import contextlib
import io
import resource
import sys
from collections.abc import Sequence
from pathlib import Path
from unittest import mock

import lightning as L
from published import clock

from kdrec.cli import engine
from kdrec.cli.main import main as command


def memory(peak: bool) -> float:
    """Return the size of this process in MiB, now or at its largest."""
    status = Path("/proc/self/status")
    if status.exists():  # where getrusage would begin with the peak of the process that started this one
        lines = dict(line.split(":", 1) for line in status.read_text().splitlines())
        return int(lines["VmHWM" if peak else "VmRSS"].split()[0]) / 2**10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2 ** (20 if sys.platform == "darwin" else 10)


class Watch(L.Callback):
    """Note how long epochs and evaluations take, and the process's size before a command and where training starts."""

    def __init__(self) -> None:
        self.epochs: list[float] = []
        self.evaluations: list[float] = []
        self.before = self.loaded = 0.0
        self._epoch = self._evaluation = 0.0

    def on_train_start(self, *_: object) -> None:
        """Note the size."""
        self.loaded = memory(peak=False)

    def on_train_epoch_start(self, *_: object) -> None:
        """End the epoch before this one."""
        now = clock()
        if self._epoch:
            self.epochs.append(now - self._epoch)
        self._epoch = now

    def on_train_end(self, *_: object) -> None:
        """End the last epoch."""
        self.epochs.append(clock() - self._epoch)

    def on_validation_start(self, *_: object) -> None:
        """Begin an evaluation."""
        self._evaluation = clock()

    def on_validation_end(self, trainer: L.Trainer, *_: object) -> None:
        """End it, and take its time out of the epoch's."""
        seconds = clock() - self._evaluation
        if not trainer.sanity_checking:
            self.evaluations.append(seconds)
            self._epoch += seconds

    on_test_start = on_validation_start
    on_test_end = on_validation_end


def kdrec(*args: object) -> Watch:
    """Run a command as ``kdrec`` does, with a stopwatch among the trainer's callbacks."""
    watch, said = Watch(), io.StringIO()

    class Timed(engine.KdrecCLI):
        def __init__(self, args: Sequence[str]) -> None:
            watch.before = memory(peak=False)
            super().__init__(args)

        def instantiate_trainer(self, **kwargs: object) -> L.Trainer:
            trainer = super().instantiate_trainer(**kwargs)
            trainer.callbacks.append(watch)  # type: ignore[attr-defined]
            return trainer

    with mock.patch.object(engine, "KdrecCLI", Timed), contextlib.redirect_stdout(said):
        code = command([str(arg) for arg in args])
    if code:
        sys.exit(f"{said.getvalue()}\nkdrec {' '.join(map(str, args))} ended with code {code}.")
    return watch
