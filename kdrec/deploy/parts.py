"""One file made in parts: by several processes at once, over several starts, and put in its place whole."""

import contextlib
import filecmp
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

from filelock import FileLock, Timeout

from kdrec.documents import read_json
from kdrec.errors import InputError

_REQUEST = "request.json"
_POLL_SECONDS = 0.1


class Parts:
    """The parts of a file, in the folder ``OUTPUT.parts`` beside it.

    Each part appears whole, and the folder says which request it serves. So any number of processes with the same
    request share the parts, whoever dies loses no more than the part in hand, and the same request goes on later.
    When all parts are there, one process joins them and removes the folder.

    Args:
        output: The file to make.
        force: Whether a file that is there may be replaced.

    Raises:
        InputError: If the file is there already, and no process is at work on it.
    """

    def __init__(self, output: str | Path, force: bool = False) -> None:
        self.output = Path(output)
        if self.output.is_dir():
            raise InputError(f"{self.output} is a folder; name a file with --output.")
        self.force = force
        self.folder = self.output.with_name(f"{self.output.name}.parts")
        self._trash = self.output.with_name(f".{self.output.name}.parts-joined")
        self._request: dict[str, Any] = {}
        self._number = 0
        shutil.rmtree(self._trash, ignore_errors=True)  # of a process that was killed at its very end
        if self.output.exists() and not force and not self.folder.exists():
            raise InputError(self._exists)

    def start(self, request: Mapping[str, Any], number: int) -> None:
        """Make the folder, or join the processes of the same request that made it.

        Args:
            request: All that decides what the file will hold, in plain values.
            number: How many parts it has.

        Raises:
            InputError: If the folder cannot be made, or serves another request.
        """
        self._request, self._number = dict(request), number
        with self._faults("name another with --output"):
            while True:
                self.folder.mkdir(parents=True, exist_ok=True)
                if lock := self._take("folder"):
                    with lock, contextlib.suppress(FileNotFoundError):  # if it is joined and removed in this moment
                        return self._claim()

    def make(self, write: Callable[[int, BinaryIO], None], told: Callable[[int], None]) -> list[int]:
        """Make the parts that nobody has made, and wait for those that other processes are making.

        Args:
            write: Writes the part of that number to a file.
            told: Is told how many parts are there, now and then.

        Returns:
            The parts that this process made.

        Raises:
            InputError: If a part cannot be written.
        """
        missing, made = list(range(self._number)), []
        with self._faults(f"mend that and repeat the command: finished parts are kept in {self.folder}"):
            while True:
                here = self._number - len(missing)
                for index in missing:
                    if not self._part(index).exists() and self._make_one(index, write):
                        made.append(index)
                    here += self._part(index).exists()
                    told(here)
                missing = [index for index in missing if not self._part(index).exists()]
                if not missing or self._is_over():
                    if here < self._number:  # another process ended the last of them after it was looked for
                        told(self._number)
                    return made
                time.sleep(_POLL_SECONDS)

    def join(self, write: Callable[[Sequence[Path], BinaryIO], None]) -> None:
        """Make the file of its parts and remove them, if no other process did.

        Args:
            write: Writes what the parts hold to a file.

        Raises:
            InputError: If the file cannot be written, or another one came into its place meanwhile.
        """
        with self._faults(f"mend that and repeat the command: all parts are kept in {self.folder}"):
            if lock := self._take("folder"):
                with lock:
                    if not self._is_over():
                        self._place(write)
                        shutil.rmtree(self._trash, ignore_errors=True)
                        self.folder.rename(self._trash)  # in one step, so that nobody finds half of it
            shutil.rmtree(self._trash, ignore_errors=True)
            self._sweep()
        if not self.output.exists():
            raise InputError(f"{self.folder} went away while it was in use; repeat the command.")

    @property
    def _exists(self) -> str:
        return f"{self.output} exists already; name another file with --output, or replace it with --force."

    def _part(self, index: int) -> Path:
        return self.folder / f"{index:06}.part"

    def _take(self, name: str, seconds: float = -1) -> contextlib.AbstractContextManager[Any] | None:
        """Take a lock, until the block ends; None if another process keeps it so long, or the folder is gone."""
        try:
            return FileLock(self.folder / f"{name}.lock").acquire(seconds)
        except (Timeout, FileNotFoundError):
            return None

    def _found(self) -> Any:
        """Return the request that the folder serves, or None."""
        try:
            return read_json(self.folder / _REQUEST)
        except FileNotFoundError:
            return None
        except ValueError:
            return {}

    def _is_over(self) -> bool:
        """Whether the parts are joined and gone."""
        return self._found() != self._request

    def _claim(self) -> None:
        """Write down the request, or see whether it is the same."""
        found = self._found()
        if found is None and all(file.suffix in (".lock", ".tmp") for file in self.folder.iterdir()):
            with self._whole(self.folder / _REQUEST) as file:
                file.write(json.dumps(self._request).encode())
        elif not isinstance(found, dict) or set(found) != set(self._request):
            raise InputError(f"{self.folder} holds something else than parts of {self.output}; name another --output.")
        elif differ := [key for key in self._request if found[key] != self._request[key]]:
            raise InputError(
                f"{self.folder} holds parts of another request (it differs in {' and '.join(differ)}); "
                f"remove that folder, repeat the command that made it, or name another --output."
            )

    def _make_one(self, index: int, write: Callable[[int, BinaryIO], None]) -> bool:
        """Make a part, unless another process does or did; says whether."""
        if (lock := self._take(f"{index:06}", seconds=0)) is None:
            return False
        with lock:
            # in this order: while a part is not there and locked here, nobody else can bring the request to its end
            if self._part(index).exists() or self._is_over():
                return False
            with self._whole(self._part(index)) as file:
                write(index, file)
        return True

    def _place(self, write: Callable[[Sequence[Path], BinaryIO], None]) -> None:
        """Join the parts, and put the result in the file's place."""
        joined = self.folder / "joined"
        with self._whole(joined) as file:
            write([self._part(index) for index in range(self._number)], file)
        if not self.output.exists() or self.force:
            joined.replace(self.output)
        elif not filecmp.cmp(joined, self.output, shallow=False):  # else a process of the same request was quicker
            joined.unlink()
            raise InputError(self._exists)

    def _sweep(self) -> None:
        """Remove the folder that a lock brings back if it is asked for when all is over."""
        if self._found() is None:
            with contextlib.suppress(OSError):
                for lock in self.folder.glob("*.lock"):
                    lock.unlink()
                self.folder.rmdir()

    @contextlib.contextmanager
    def _whole(self, path: Path) -> Iterator[BinaryIO]:
        """Open a file that appears when all of it is on the disk, or not at all."""
        temporary = path.with_name(f"{path.name}.tmp")
        try:
            with open(temporary, "wb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
        except BaseException:
            with contextlib.suppress(OSError):
                temporary.unlink()
            raise

    @contextlib.contextmanager
    def _faults(self, remedy: str) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise InputError(f"{self.output} cannot be written ({error.strerror or error}); {remedy}.") from None
