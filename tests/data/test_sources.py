import hashlib
import io
import shutil
import subprocess
import threading
import time
import zipfile
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from kdrec.data import sources
from kdrec.data.sources import Archive, Source, Wheel, obtain
from kdrec.errors import InputError

MEMBERS = {"inside/a.txt": "a.txt", "inside/b.txt": "b.txt"}
WHOLE = {"a.txt": "alpha", "b.txt": "beta"}


def find(folder: Path) -> Callable[[], str] | None:
    """Read both files; a.txt marks the format, and must start with "a"."""
    if not (folder / "a.txt").is_file():
        return None

    def read() -> str:
        text = (folder / "a.txt").read_text()
        if not text.startswith("a"):
            raise InputError(f"{folder / 'a.txt'} is faulty.")
        return text + (folder / "b.txt").read_text()

    return read


@dataclass
class Fake:
    """A source that writes the given files, and then fails if it has a fault."""

    files: dict[str, str] = field(default_factory=dict)
    fault: str = ""
    calls: int = 0

    def __str__(self) -> str:
        return f"fake {self.fault or 'source'}"

    def fetch(self, folder: Path) -> None:
        self.calls += 1
        for name, text in self.files.items():
            (folder / name).write_text(text)
        if self.fault:
            raise InputError(self.fault)


def fill(folder: Path, text: str = "alpha") -> None:
    folder.mkdir(parents=True)
    (folder / "a.txt").write_text(text)
    (folder / "b.txt").write_text("beta")


def files_below(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def zipped(members: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return buffer.getvalue()


GOOD = zipped({"inside/a.txt": b"alpha", "inside/b.txt": b"beta", "inside/c.txt": b"gamma"})


# obtain


def test_root_comes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(tmp_path / "root/name", "a root ")
    fill(tmp_path / "env/name", "an env ")
    monkeypatch.setenv("KDREC_DATA", str(tmp_path / "env"))
    source = Fake(WHOLE)
    assert obtain("name", tmp_path / "root", find, [source]) == "a root beta"
    assert source.calls == 0


def test_environment_comes_second(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(tmp_path / "env/name", "an env ")
    monkeypatch.setenv("KDREC_DATA", str(tmp_path / "env"))
    source = Fake(WHOLE)
    assert obtain("name", tmp_path / "root", find, [source]) == "an env beta"
    assert source.calls == 0
    assert not (tmp_path / "root").exists()


def test_sources_come_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KDREC_DATA", str(tmp_path / "env"))
    first, second = Fake(WHOLE), Fake(WHOLE)
    assert obtain("name", tmp_path / "root", find, [first, second]) == "alphabeta"
    assert (first.calls, second.calls) == (1, 0)
    assert files_below(tmp_path) == ["root/name/a.txt", "root/name/b.txt"]
    assert [path.name for path in (tmp_path / "root").iterdir()] == ["name"]  # the staging folder is gone
    assert obtain("name", tmp_path / "root", find, [first]) == "alphabeta"
    assert first.calls == 1


def test_users_own_files_stay(tmp_path: Path) -> None:
    (tmp_path / "name").mkdir()
    (tmp_path / "name/notes.txt").write_text("mine")
    obtain("name", tmp_path, find, [Fake(WHOLE)])
    assert files_below(tmp_path) == ["name/a.txt", "name/b.txt", "name/notes.txt"]


def test_fault_in_a_folder_is_not_downloaded_away(tmp_path: Path) -> None:
    fill(tmp_path / "name", "broken")
    source = Fake(WHOLE)
    with pytest.raises(InputError, match="is faulty"):
        obtain("name", tmp_path, find, [source])
    assert source.calls == 0
    assert (tmp_path / "name/a.txt").read_text() == "broken"


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (Fake({"index.html": "<html>Sorry"}), "the files are not in what it sent"),
        (Fake({"a.txt": "<html>Sorry", "b.txt": ""}), "is faulty"),
        (Fake({"a.txt": "alp"}, fault="cut off"), "cut off"),
        (Fake(fault="no connection"), "no connection"),
    ],
    ids=["other files", "error page under the right name", "cut off", "nothing"],
)
def test_bad_source_leaves_nothing(tmp_path: Path, capsys: pytest.CaptureFixture, bad: Fake, reason: str) -> None:
    with pytest.raises(InputError, match="could not be had from any source") as caught:
        obtain("name", tmp_path, find, [bad, Fake(fault="second is down")])
    for part in (f"{tmp_path / 'name'}: not there", reason, "fake second is down: second is down", "$KDREC_DATA"):
        assert part in str(caught.value)
    assert list(tmp_path.iterdir()) == []
    assert "\n" not in str(caught.value)
    assert reason in capsys.readouterr().err

    good = Fake(WHOLE)
    assert obtain("name", tmp_path, find, [bad, good]) == "alphabeta"
    assert files_below(tmp_path) == ["name/a.txt", "name/b.txt"]


def test_crash_leaves_nothing(tmp_path: Path) -> None:
    class Interrupted(Fake):
        def fetch(self, folder: Path) -> None:
            super().fetch(folder)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        obtain("name", tmp_path, find, [Interrupted({"a.txt": "alpha"})])
    assert list(tmp_path.iterdir()) == []


def test_of_several_processes_one_downloads(tmp_path: Path) -> None:
    """Threads stand for them: a lock on a file keeps them apart as it does processes."""

    class Slow(Fake):
        def fetch(self, folder: Path) -> None:
            time.sleep(0.2)
            super().fetch(folder)

    source = Slow(WHOLE)
    with ThreadPoolExecutor(4) as pool:
        read = [pool.submit(obtain, "name", tmp_path, find, [source]) for _ in range(4)]
    assert [each.result() for each in read] == ["alphabeta"] * 4
    assert source.calls == 1
    assert files_below(tmp_path) == ["name/a.txt", "name/b.txt"]


def test_all_folders_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KDREC_DATA", str(tmp_path / "env"))
    with pytest.raises(InputError) as caught:
        obtain("name", tmp_path / "root", find, [])
    assert f"{tmp_path / 'root/name'}: not there; {tmp_path / 'env/name'}: not there" in str(caught.value)


def test_root_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    source = Fake(WHOLE)
    with pytest.raises(InputError, match=r"cannot be written to download it \(Not a directory\)"):
        obtain("name", tmp_path / "file" / "root", find, [source])
    assert source.calls == 0


@pytest.mark.parametrize("root", ["\0", "x" * 300])
def test_root_that_cannot_be(tmp_path: Path, root: str) -> None:
    with pytest.raises(InputError, match="cannot be written to download it"):
        obtain("name", tmp_path / root, find, [Fake(WHOLE)])


def test_file_in_the_place_of_the_folder(tmp_path: Path) -> None:
    (tmp_path / "name").write_text("mine")
    with pytest.raises(InputError, match="name"):
        obtain("name", tmp_path, find, [Fake(WHOLE)])
    assert (tmp_path / "name").read_text() == "mine"


# Archive


class Server(HTTPServer):
    """Answers every request with one status and body, and can promise more bytes than it sends."""

    status = 200
    body = b""
    missing = 0
    requests = 0


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        self.server.requests += 1
        self.send_response(self.server.status)
        self.send_header("Content-Length", str(len(self.server.body) + self.server.missing))
        self.end_headers()
        self.wfile.write(self.server.body)

    def log_message(self, *arguments: object) -> None:
        pass


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with Server(("127.0.0.1", 0), Handler) as running:
        running.body = GOOD
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        thread.start()
        yield running
        running.shutdown()
        thread.join()


def archive(server: Server, body: bytes | None = None, members: dict[str, str] = MEMBERS) -> Archive:
    """Point at the server, with the hash of what it should send."""
    url = f"http://127.0.0.1:{server.server_port}/data.zip"
    return Archive(url, hashlib.sha256(server.body if body is None else body).hexdigest(), members, timeout=5)


def test_archive(tmp_path: Path, server: Server, capsys: pytest.CaptureFixture) -> None:
    source: Source = archive(server)
    assert obtain("name", tmp_path, find, [source]) == "alphabeta"
    assert files_below(tmp_path) == ["name/a.txt", "name/b.txt"]  # c.txt was not asked for
    assert server.requests == 1
    assert f"name: fetching from http://127.0.0.1:{server.server_port}/data.zip" in capsys.readouterr().err


def refused(source: Source, root: Path) -> str:
    """Return why a source was refused, having made sure that it left nothing and that the next was tried."""
    with pytest.raises(InputError) as caught:
        obtain("name", root, find, [source])
    assert list(root.iterdir()) == []
    second = Fake(WHOLE)
    assert obtain("name", root, find, [source, second]) == "alphabeta"
    assert second.calls == 1
    return str(caught.value)


def test_archive_with_wrong_hash(tmp_path: Path, server: Server) -> None:
    assert "hash" in refused(archive(server, body=b"other"), tmp_path).lower()


def test_archive_not_found(tmp_path: Path, server: Server) -> None:
    source = archive(server)
    server.status, server.body = 404, b"<html>Not here"
    assert "the server answered 404 Not Found" in refused(source, tmp_path)


def test_archive_replaced_by_an_error_page(tmp_path: Path, server: Server) -> None:
    source = archive(server)
    server.body = b"<html>Maintenance</html>"
    assert "hash" in refused(source, tmp_path).lower()


def test_archive_cut_off(tmp_path: Path, server: Server) -> None:
    source = archive(server)
    server.body, server.missing = GOOD[:40], len(GOOD) - 40
    assert str(source) in refused(source, tmp_path)


def test_archive_nobody_answers(tmp_path: Path, server: Server) -> None:
    source = archive(server)
    server.shutdown()
    server.server_close()
    assert "no connection" in refused(source, tmp_path)


def test_archive_lacks_a_member(tmp_path: Path, server: Server) -> None:
    server.body = zipped({"inside/a.txt": b"alpha"})
    message = refused(archive(server), tmp_path)
    assert "the archive is not as expected" in message
    assert "inside/b.txt" in message


def test_archive_is_no_zip(tmp_path: Path, server: Server) -> None:
    server.body = GOOD[:-30]
    assert "the archive is not as expected (File is not a zip file)" in refused(archive(server), tmp_path)


def test_archive_with_damaged_member(tmp_path: Path, server: Server) -> None:
    text = bytes(range(256)) * 20
    body = bytearray(zipped({"inside/a.txt": text, "inside/b.txt": b"beta"}))
    start = body.index(b"inside/a.txt") + len("inside/a.txt")
    body[start : start + 8] = b"\xff" * 8
    with pytest.raises(zlib.error):  # so zipfile says it, with an error of its own
        zipfile.ZipFile(io.BytesIO(body)).read("inside/a.txt")
    server.body = bytes(body)
    assert "the archive is not as expected" in refused(archive(server), tmp_path)


def test_archive_with_evil_names(tmp_path: Path, server: Server) -> None:
    """Only members that kdrec asks for are read, and their targets are kdrec's own names."""
    root = tmp_path / "below/root"
    evil = {"../../evil.txt": b"x", f"{tmp_path}/evil.txt": b"x", "inside/../../evil.txt": b"x"}
    server.body = zipped(evil | {"inside/a.txt": b"alpha", "inside/b.txt": b"beta"})
    assert obtain("name", root, find, [archive(server)]) == "alphabeta"
    assert files_below(tmp_path) == ["below/root/name/a.txt", "below/root/name/b.txt"]
    assert not Path(tmp_path, "evil.txt").exists()


def test_archive_bomb(tmp_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "_MEMBER_LIMIT", 4)
    assert "inside/a.txt is larger than 4 bytes" in refused(archive(server), tmp_path)


# Wheel


@pytest.fixture
def wheel() -> Wheel:
    return Wheel("recbole", "1.2.1", sha256="ab" * 32, members=MEMBERS)


class Pip:
    """Stands in for subprocess.run."""

    def __init__(self, content: bytes | None, errors: str = "", fault: Exception | None = None) -> None:
        self.content = content
        self.errors = errors
        self.fault = fault
        self.command: list[str] = []
        self.requirements = ""

    def __call__(self, command: list[str], **options: object) -> subprocess.CompletedProcess:
        self.command = command
        self.requirements = Path(command[command.index("--requirement") + 1]).read_text()
        if self.fault:
            raise self.fault
        if self.content is not None:
            Path(command[command.index("--dest") + 1], "recbole-1.2.1-py3-none-any.whl").write_bytes(self.content)
        return subprocess.CompletedProcess(command, 0 if self.content else 1, None, self.errors)


def test_wheel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wheel: Wheel) -> None:
    pip = Pip(GOOD)
    monkeypatch.setattr(subprocess, "run", pip)
    assert obtain("name", tmp_path, find, [wheel]) == "alphabeta"
    assert files_below(tmp_path) == ["name/a.txt", "name/b.txt"]
    assert pip.command[1:4] == ["-m", "pip", "download"]
    assert {"--no-deps", "--only-binary=:all:", "--require-hashes"} <= set(pip.command)  # runs no code of the package
    assert pip.requirements == f"recbole==1.2.1 --hash=sha256:{'ab' * 32}\n"


def test_wheel_gone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wheel: Wheel) -> None:
    errors = "WARNING: Retrying\nERROR: Could not find a version\nERROR: No matching distribution found.\nnotice\n"
    monkeypatch.setattr(subprocess, "run", Pip(None, errors))
    message = refused(wheel, tmp_path)
    assert "the package recbole 1.2.1: ERROR: No matching distribution found" in message


def test_wheel_fails_in_silence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wheel: Wheel) -> None:
    monkeypatch.setattr(subprocess, "run", Pip(None))
    assert "the package recbole 1.2.1: str" not in refused(wheel, tmp_path)


def test_wheel_too_slow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wheel: Wheel) -> None:
    slow = subprocess.TimeoutExpired(["/a/long/path/to/python", *["--option"] * 40], 600)
    monkeypatch.setattr(subprocess, "run", Pip(None, fault=slow))
    message = refused(wheel, tmp_path)
    assert "timed out" in message or "in time" in message


def test_wheel_without_pip(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wheel: Wheel) -> None:
    monkeypatch.setattr(subprocess, "run", Pip(None, fault=FileNotFoundError(2, "No such file or directory", "py")))
    assert "No such file or directory" in refused(wheel, tmp_path)


def test_wheel_lacks_a_member(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wheel: Wheel) -> None:
    monkeypatch.setattr(subprocess, "run", Pip(zipped({"inside/a.txt": b"alpha"})))
    assert "inside/b.txt" in refused(wheel, tmp_path)


def test_temporary_folders_are_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wheel: Wheel, server: Server
) -> None:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(scratch))
    monkeypatch.setattr(subprocess, "run", Pip(GOOD))
    for source in (wheel, archive(server), archive(server, body=b"other")):
        shutil.rmtree(tmp_path / "root", ignore_errors=True)
        obtain("name", tmp_path / "root", find, [source, Fake(WHOLE)])
        assert list(scratch.iterdir()) == []
