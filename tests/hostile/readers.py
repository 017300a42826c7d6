"""What a reader of foreign input is, and what must hold of it whatever it is given."""

import atexit
import io
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from warnings import catch_warnings

from hypothesis.strategies import SearchStrategy

from kdrec.errors import InputError

SECONDS = 20  # after which a reader hangs
TRAP = "tests.hostile.trap"
_FORBIDDEN = ("subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "os.fork", "socket.connect", "pty.spawn")
_TARGETS = {
    "os.mkdir": [0],
    "os.rename": [0, 1],
    "os.remove": [0],
    "os.symlink": [1],
    "os.link": [1],
    "os.truncate": [0],
}


class Broken(BaseException):
    """A reader did what it must not; no `except Exception` hides it."""


@dataclass(frozen=True)
class Reader:
    """A reader of what somebody else wrote.

    Args:
        name: What it reads.
        inputs: Such things, sound, damaged and made up.
        read: Reads one and uses what it read, in an empty current folder. It ends, or raises InputError; any other
            exception breaks the promise. Of other ways to refuse, such as an exit code, it raises InputError itself.
        examples: Inputs that have once broken it.
        few: How many inputs the default run of the tests gives it.
    """

    name: str
    inputs: SearchStrategy[Any]
    read: Callable[[Any], object]
    examples: tuple[Any, ...] = ()
    few: int = 25

    def __str__(self) -> str:
        return self.name


def outcome(reader: Reader, given: object) -> str:
    """Return "read" or "refused"; raises whatever else happens.

    Nothing may be written outside of the current folder or be left in the one for temporary files, no process be
    started, nothing be imported on the input's word, and the refusal is one sentence.
    """
    with _watched(), redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()), catch_warnings(action="ignore"):
        try:
            reader.read(given)
        except InputError as error:
            said = str(error)
            if not said.isprintable() or said[-1:] not in (".", "?") or len(said) > 2000:
                raise Broken(f"{said!r} is not one sentence") from error
            return "refused"
    return "read"


_PLACE = os.path.realpath(tempfile.mkdtemp())  # one for all, since to make and remove folders takes long
_HERE, _TEMPORARY = Path(_PLACE, "here"), Path(_PLACE, "temporary")
_HERE.mkdir()
_TEMPORARY.mkdir()
atexit.register(shutil.rmtree, _PLACE)
_folder: str | None = None  # below which a reader may write; None while nobody reads
_seen: list[str] = []  # what it did that it must not


@contextmanager
def _watched() -> Iterator[None]:
    """Give a reader an empty current folder, and look that it stays there and ends in time."""
    global _folder
    before, alarm, kept = os.getcwd(), signal.signal(signal.SIGALRM, _hang), tempfile.tempdir
    _seen.clear()
    sys.modules.pop(TRAP, None)  # pytest looks into every module for doctests
    os.chdir(_HERE)
    tempfile.tempdir, _folder = str(_TEMPORARY), _PLACE
    signal.setitimer(signal.ITIMER_REAL, SECONDS)
    try:
        yield
        if _seen or sys.modules.pop(TRAP, None):
            raise Broken("; ".join(_seen) or "a module was imported on the input's word")
        if left := [*_TEMPORARY.iterdir()]:
            raise Broken(f"left behind: {', '.join(path.name for path in left)}")
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, alarm)
        tempfile.tempdir, _folder = kept, None
        os.chdir(before)
        for path in (*_HERE.iterdir(), *_TEMPORARY.iterdir()):
            shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()


def _hang(*_: object) -> None:
    raise Broken(f"no end after {SECONDS} seconds")


def _audit(event: str, arguments: tuple[Any, ...]) -> None:
    """Stop what a reader must not do; Python calls this before it happens."""
    if _folder is None:
        return
    if event in _FORBIDDEN:
        _stop(f"{event} {arguments!r}"[:200])
    elif event == "open":
        path, mode, flags = arguments
        writes = set("wax+") & set(mode) if isinstance(mode, str) else flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
        if writes and not isinstance(path, int):
            _require_inside(event, path)
    elif event in _TARGETS and -1 in arguments[1:]:  # of paths below an open folder only the name is told
        for index in _TARGETS[event]:
            _require_inside(event, arguments[index])


def _require_inside(event: str, path: str | bytes | os.PathLike[str]) -> None:
    real = os.path.realpath(os.fsdecode(path))
    if not real.startswith(f"{_folder}/") and real != os.devnull and "__pycache__" not in real:
        _stop(f"{event} {real}")


def _stop(what: str) -> None:
    _seen.append(what)
    raise Broken(what)


sys.addaudithook(_audit)
