"""``kdrec study``: run a grid of fits, and compare them."""

import argparse
import hashlib
import json
import os
import sys
import time
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kdrec.cli.options import Options
from kdrec.errors import InputError

if TYPE_CHECKING:
    from kdrec.studies.plan import Cell, Study
    from kdrec.studies.runner import Progress

SUMMARY = "run a grid of teachers, students, methods and seeds, and compare them"

_DESCRIPTION = """Run every cell of a study file and write results.csv, table.md and figures.

A cell is one fit (teacher, or method x student x seed) and its test. Cells that are finished are not run again, so the
same command goes on after an interruption, and after the grid has grown. An interrupted cell starts anew."""
_EXAMPLES = """examples:
  kdrec study configs/studies/kdd21.yaml             all cells, one after the other
  kdrec study configs/studies/kdd21.yaml --jobs 2    two at a time; the machine's threads are shared out
  kdrec study configs/studies/kdd21.yaml --list      what is finished and what is not, and nothing else
"""


def run(args: Sequence[str]) -> int:
    """Run the command; returns its exit code.

    Raises:
        InputError: On a faulty study file, folder, or options, or if cells failed.
    """
    parser = Options("study", _DESCRIPTION, _EXAMPLES)
    parser.add_argument("file", type=Path, nargs="?", help="study file, such as configs/studies/kdd21.yaml")
    parser.add_argument("--jobs", type=int, default=1, help="cells at work at the same time (default 1)")
    parser.add_argument("--output", type=Path, help="folder of the results (default studies/NAME)")
    parser.add_argument("--list", action="store_true", help="show which cells are finished, and run nothing")
    if (options := parser.read(args)) is None:
        return 0
    if options.file is None:
        raise InputError("kdrec study needs a study file, such as one in configs/studies; see kdrec study --help.")
    if not 1 <= options.jobs <= (os.cpu_count() or 1):
        raise InputError(f"--jobs is {options.jobs}; this machine can share itself out to 1..{os.cpu_count()} cells.")
    return _study(options)


def _study(options: argparse.Namespace) -> int:
    from filelock import FileLock, Timeout  # here and below, so that --help needs no torch

    from kdrec.studies.plan import read_study
    from kdrec.studies.results import finished
    from kdrec.studies.runner import Runner

    study = read_study(options.file)
    output: Path = options.output or Path("studies") / study.name
    identities = _identities(study)
    if options.list:
        _list(study, finished(study, identities, output))
        return 0
    if missing := [name for name in ("scipy", "matplotlib") if find_spec(name) is None]:  # before hours are spent
        raise InputError(f"A study needs {' and '.join(missing)}; install the extra: python -m pip install '.[study]'.")
    runner = Runner(study, identities, output, options.jobs, _Display(study))
    try:
        output.mkdir(parents=True, exist_ok=True)
        with FileLock(output / ".lock", timeout=0):
            runner.run(finished(study, identities, output))
            if runner.results:
                _report(study, runner.results, output)
    except Timeout:
        raise InputError(f"Another kdrec study is at work in {output}; wait for it or name another --output.") from None
    except OSError as error:
        raise InputError(f"{output} cannot be written ({error.strerror}); name another with --output.") from None
    except KeyboardInterrupt:
        done = len(runner.results)
        raise KeyboardInterrupt(
            f"Stopped. {done} of {len(study.cells)} cells are finished and kept in {output}; the same command goes on."
        ) from None
    if runner.failures:
        cell, reason = next(iter(runner.failures.items()))
        raise InputError(
            f"{len(runner.failures)} of {len(study.cells)} cells failed, first {cell.label!r}: {reason}; mend that and "
            f"repeat the command: what is finished is kept."
        )
    return 0


def _identities(study: "Study") -> "dict[Cell, str]":
    """Parse every cell's config and return a digest of all that decides its result.

    Raises:
        InputError: If a config is faulty, a cell's data is not its teacher's, or the study's metric is not computed.
    """
    from kdrec.cli.engine import discover
    from kdrec.cli.parser import FitParser
    from kdrec.cli.runs import config_digest, data_source
    from kdrec.evaluation.metrics import LOGGED_METRICS

    discover()
    parser = FitParser()
    name, _, cutoff = study.metric.partition("@")
    names = [known for known in LOGGED_METRICS if known != "coverage"]  # which is no single user's
    data: dict[str, Any] | None = None
    digests: dict[Cell, str] = {}
    for cell in study.cells:
        try:
            config = parser.parse_fit(list(cell.arguments))
        except InputError as error:
            raise InputError(f"The cell {cell.label!r} of the study {study.name}: {error}") from None
        if name not in names or cutoff not in map(str, config["model"]["init_args"]["cutoffs"]):
            raise InputError(
                f"The study's metric {study.metric!r} is not among those of {cell.arguments[1]}: "
                f"{', '.join(names)} at {config['model']['init_args']['cutoffs']}."
            )
        teacher = study.teacher_of(cell)
        source = data_source(config["data"])
        data = source if data is None else data
        if source != data:
            raise InputError(
                f"The cell {cell.label!r} ({cell.arguments[1]}) has other data than {study.cells[0].label!r}; give all "
                f"configs of a study the same data and splitter."
            )
        parts = [config_digest(config), study.checkpoint, digests[teacher] if teacher else ""]
        digests[cell] = hashlib.sha256(json.dumps(parts).encode()).hexdigest()
    return digests


def _report(study: "Study", results: "dict[Cell, Any]", output: Path) -> None:
    """Write and show what the finished cells say."""
    from kdrec.cli.console import show
    from kdrec.studies.figures import draw
    from kdrec.studies.tables import summary_table, write_tables

    written = write_tables(study, results, output)
    written += draw(study, results, output)
    show(summary_table(study, results))
    show("\n".join(f"written     {path}" for path in written))


def _list(study: "Study", results: "dict[Cell, Any]") -> None:
    width = max(len(cell.label) for cell in study.cells) + 2
    for cell in study.cells:
        result = results.get(cell)
        said = f"{study.metric} {result.metrics[study.metric]:.4f}, {result.seconds:.0f} s" if result else "-"
        print(f"{cell.label:<{width}}{said}")
    print(f"{len(results)} of {len(study.cells)} cells are finished.")


class _Display:
    """Show a study's progress: a live line on a terminal, a line for each finished cell elsewhere."""

    def __init__(self, study: "Study") -> None:
        self.study = study
        self.live = sys.stderr.isatty()
        self.start = time.monotonic()

    def __call__(self, progress: "Progress") -> None:
        left = "" if progress.left is None else f", about {_duration(progress.left)} left"
        line = ""
        if progress.finished:
            cell, result = progress.finished
            value = f"{self.study.metric} {result.metrics[self.study.metric]:.4f}"
            line = f"[{progress.done}/{progress.total}] {cell.label}: {value} in {_duration(result.seconds)}{left}"
        elif progress.failed:
            line = f"[{progress.done}/{progress.total}] {progress.failed[0].label} failed: {progress.failed[1]}"
        if line:
            if self.live:
                print("\r\033[K", end="", file=sys.stderr, flush=True)
            print(line, flush=True)
        elif self.live:
            running = "; ".join(f"{label} ({_duration(seconds)})" for label, seconds in progress.running.items())
            status = f"{progress.done} of {progress.total} cells, {_duration(time.monotonic() - self.start)}{left}"
            print(f"\r\033[K{status}: {running}"[: os.get_terminal_size(2).columns + 3], end="", file=sys.stderr)


def _duration(seconds: float) -> str:
    """Write seconds as people say them: 42 s, 3 min, 1 h 20 min."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 100 else f"{minutes // 60} h {minutes % 60} min"
