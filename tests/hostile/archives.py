"""Downloads and the archives in them."""

import hashlib
import io
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock
from warnings import catch_warnings

from hypothesis import strategies as st

from kdrec.data import sources
from kdrec.data.sources import Archive, Download, obtain
from kdrec.errors import InputError
from tests.hostile.inputs import damaged
from tests.hostile.readers import Broken, Reader

MEMBERS = {"inside/a.txt": "a.txt", "inside/b.txt": "b.txt"}
NAMES = (*MEMBERS, "../../up.txt", "/etc/up.txt", "inside/../../up.txt", "C:\\up.txt", "a.txt", "inside/", "", "\x00")
METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA)
LIMIT = 1 << 16  # bytes of a member, here; a bomb of this size costs no time


def _zip(members: list[tuple[str, bytes]], method: int = zipfile.ZIP_DEFLATED, links: bool = False) -> bytes:
    content = io.BytesIO()
    with catch_warnings(action="ignore"), zipfile.ZipFile(content, "w", method) as archive:  # of equal names
        for name, data in members:
            member = zipfile.ZipInfo(name)
            member.compress_type = method
            member.external_attr = (0o120777 if links else 0o100644) << 16
            archive.writestr(member, data)
    return content.getvalue()


SOUND = [("inside/a.txt", b"alpha" * 20), ("inside/b.txt", b"beta")]


def _lying(content: bytes, size: int) -> bytes:
    """Let each member say another size than it has."""
    for signature, place in ((b"PK\x01\x02", 24), (b"PK\x03\x04", 22)):
        start = -1
        while (start := content.find(signature, start + 1)) >= 0:
            content = content[: start + place] + struct.pack("<I", size) + content[start + place + 4 :]
    return content


@st.composite
def _made(draw: Callable[..., Any]) -> bytes:
    """An archive of a stranger's making."""
    data = st.sampled_from((b"", b"alpha", b"/etc/passwd", b"../../up", bytes(2 * LIMIT))) | st.binary(max_size=60)
    members = draw(st.lists(st.tuples(st.sampled_from(NAMES), data), max_size=5))
    if draw(st.booleans()):
        members += SOUND
    method = draw(st.sampled_from(METHODS))
    content = _zip(members, method, draw(st.booleans()))
    return _lying(content, draw(st.sampled_from((0, 1, 5, 2**31, 2**32 - 1)))) if draw(st.booleans()) else content


def _find(folder: Path) -> Callable[[], bytes] | None:
    def read() -> bytes:
        try:
            return b"".join((folder / name).read_bytes() for name in MEMBERS.values())
        except OSError as error:
            raise InputError(f"{folder} is not whole ({error}).") from None

    return read if (folder / "a.txt").is_file() else None


def _require_whole_or_nothing(root: Path, names: set[str]) -> None:
    left = {str(path.relative_to(root)) for path in root.rglob("*") if not path.is_dir()}
    if left not in (set(), names) or any(path.is_symlink() for path in root.rglob("*")):
        raise Broken(f"left in the data folder: {left}")


class _Sent:
    """Stands for the network: whatever is asked for, this comes."""

    def __init__(self, content: bytes) -> None:
        self.content = content

    def __call__(self, *_: object, **__: object) -> Callable[..., None]:
        return lambda url, output_file, pooch: Path(output_file).write_bytes(self.content)


def _fetch(content: bytes, source: Archive | Download, names: set[str]) -> None:
    with mock.patch("pooch.HTTPDownloader", _Sent(content)), mock.patch.object(sources, "_MEMBER_LIMIT", LIMIT):
        try:
            obtain("name", Path("data"), _find, [source])
        finally:
            _require_whole_or_nothing(Path("data"), names)


def _archive(content: bytes) -> None:
    """As if its hash were the pinned one, so that its insides are looked at."""
    names = {f"name/{name}" for name in MEMBERS.values()}
    _fetch(content, Archive("https://host/data.zip", hashlib.sha256(content).hexdigest(), MEMBERS), names)
    if any(path.stat().st_size > LIMIT for path in Path("data").rglob("*.txt")):
        raise Broken("a member is larger than allowed")


def _download(content: bytes) -> None:
    """Of which the hash is pinned."""
    source = Download({"a.txt": ("https://host/a.txt", PINNED), "b.txt": ("https://host/b.txt", PINNED)})
    _fetch(content, source, {"name/a.txt", "name/b.txt"})
    if hashlib.sha256(content).hexdigest() != PINNED:
        raise Broken("bytes of another hash were kept")


FILE = b"1 5\n0\n2 1 5\n"
PINNED = hashlib.sha256(FILE).hexdigest()

READERS = (
    Reader("archives", st.one_of(damaged(*(_zip(SOUND, method) for method in METHODS)), _made(), _made()), _archive),
    Reader("downloads", damaged(FILE), _download),
)
