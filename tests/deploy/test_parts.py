import errno
import os
import signal
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import pytest

from kdrec.deploy.parts import Parts
from kdrec.errors import InputError

WHOLE = b"<part 0 part 1 part 2 >"


def write(index: int, file: BinaryIO) -> None:
    """A part in two steps, of which a killer is told."""
    file.write(b"part ")
    file.flush()
    sys.audit("write", file.name)
    file.write(f"{index} ".encode())


def join(parts: Sequence[Path], file: BinaryIO) -> None:
    file.write(b"<" + b"".join(part.read_bytes() for part in parts) + b">")


def run(parts: Parts, request: dict[str, Any] | None = None) -> list[int]:
    """Do all that a process does; return the parts that it made."""
    parts.start(request or {"k": 1}, 3)
    made = parts.make(write, lambda done: None)
    parts.join(join)
    return made


def half_done(output: Path) -> Parts:
    """Leave the first part of three."""
    parts = Parts(output)
    parts.start({"k": 1}, 3)

    def stop(index: int, file: BinaryIO) -> None:
        write(index, file)
        if index:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        parts.make(stop, lambda done: None)
    return parts


@pytest.fixture
def output(tmp_path: Path) -> Path:
    return tmp_path / "new" / "lists.csv"


def alone(output: Path) -> bool:
    """Whether the file is whole and nothing else is left."""
    return output.read_bytes() == WHOLE and [*output.parent.iterdir()] == [output]


def test_joined_in_order_and_told(output: Path) -> None:
    told: list[int] = []
    parts = Parts(output)
    parts.start({}, 3)
    assert parts.make(write, told.append) == [0, 1, 2]
    assert told == [1, 2, 3]
    assert not output.exists()
    parts.join(join)
    assert alone(output)


def killed_at(moment: int, work: Callable[[], object], folder: Path) -> bool:
    """Do the work in a process that is killed at its n-th step on the disk below a folder; says whether it was."""
    child = os.fork()
    if child == 0:
        left = moment

        def step(event: str, arguments: tuple[Any, ...]) -> None:
            nonlocal left
            if event in ("write", "open", "os.mkdir", "os.rename", "os.remove", "os.rmdir", "fcntl.flock") and (
                event == "fcntl.flock" or str(folder) in str(arguments)
            ):
                left -= 1
                if not left:
                    os.kill(os.getpid(), signal.SIGKILL)

        sys.addaudithook(step)
        work()
        os._exit(0)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert status in (0, -signal.SIGKILL)
    return status != 0


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_killed_at_any_moment_and_started_again(tmp_path: Path) -> None:
    moment, finished = 0, 0
    while True:
        moment += 1
        output = tmp_path / str(moment) / "lists.csv"
        output.parent.mkdir()
        if not killed_at(moment, lambda output=output: run(Parts(output)), output.parent):  # type: ignore[misc]
            break
        kept = list(output.parent.glob("*.parts/*.part"))
        assert not output.exists() or output.read_bytes() == WHOLE
        if output.exists() and not output.with_name("lists.csv.parts").exists():
            with pytest.raises(InputError, match="exists already"):  # and what was left to tidy up is tidied up
                Parts(output)
            finished += 1
        else:
            assert not output.exists() or len(kept) == 3
            assert len(run(Parts(output))) == 3 - len(kept)
        assert alone(output)
    assert moment > 30
    assert 0 < finished < moment / 2


def test_several_at_once_make_each_part_once(output: Path) -> None:
    one, other = Parts(output), Parts(output)
    one.start({"k": 1}, 3)
    other.start({"k": 1}, 3)
    busy, go, made = threading.Event(), threading.Event(), []

    def slow(index: int, file: BinaryIO) -> None:
        busy.set()
        assert go.wait(10)
        write(index, file)

    thread = threading.Thread(target=lambda: made.extend(one.make(slow, lambda done: None)))
    thread.start()
    assert busy.wait(10)
    told: list[int] = []

    def tell(done: int) -> None:
        told.append(done)
        if done == 2:
            go.set()
            thread.join(10)  # so the last part appears when all have been looked for

    assert other.make(write, tell) == [1, 2]
    assert made == [0]
    assert sorted(told) == told
    assert told[-1] == 3
    other.join(join)
    one.join(join)
    assert alone(output)


def test_who_comes_late_finds_all_done(output: Path) -> None:
    """Each step after another process has brought the request to its end; locks bring back no folder."""
    waiting = [Parts(output) for _ in range(3)]
    for parts in waiting[:2]:
        parts.start({"k": 1}, 3)
    assert waiting[0].make(write, lambda done: None) == [0, 1, 2]
    run(Parts(output))
    waiting[0].join(join)
    assert alone(output)
    assert waiting[1].make(write, lambda done: None) == []
    waiting[1].join(join)
    assert alone(output)
    before = output.stat().st_mtime_ns
    run(waiting[2])  # it was there before the file was, and makes the same
    assert alone(output)
    assert output.stat().st_mtime_ns == before


def test_never_overwrites_unless_told(output: Path) -> None:
    output.parent.mkdir()
    output.write_text("precious")
    with pytest.raises(InputError, match=r"lists\.csv exists already; name another file .* or replace it with --force"):
        Parts(output)
    run(Parts(output, force=True))
    assert alone(output)
    with pytest.raises(InputError, match="is a folder; name a file"):
        Parts(output.parent)


def test_what_came_into_its_place_is_kept(output: Path) -> None:
    parts = half_done(output)
    output.write_text("precious")
    with pytest.raises(InputError, match="exists already"):
        run(parts)
    assert output.read_text() == "precious"
    output.unlink()
    assert run(Parts(output)) == []
    assert alone(output)


def test_parts_of_another_request_are_refused(output: Path) -> None:
    half_done(output)
    with pytest.raises(InputError, match=r"lists\.csv\.parts holds parts of another request \(it differs in k\)"):
        run(Parts(output), {"k": 2})
    assert run(Parts(output)) == [1, 2]
    assert alone(output)


@pytest.mark.parametrize("name", ["mine.txt", "request.json"])
def test_a_folder_of_something_else_is_refused(output: Path, name: str) -> None:
    strange = output.with_name("lists.csv.parts") / name
    strange.parent.mkdir(parents=True)
    strange.write_text("[1]")
    with pytest.raises(InputError, match="holds something else than parts"):
        run(Parts(output))
    assert strange.read_text() == "[1]"


def test_a_place_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match=r"lists\.csv cannot be written \(Not a directory\); name another"):
        run(Parts(tmp_path / "file" / "lists.csv"))


@pytest.mark.parametrize("moment", [1, 2, 3, 5])
def test_a_full_disk(output: Path, monkeypatch: pytest.MonkeyPatch, moment: int) -> None:
    """While the request, the first part, the second, or the whole is written."""
    calls = 0

    def full(number: int) -> None:
        nonlocal calls
        calls += 1
        if calls >= moment:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("kdrec.deploy.parts.os.fsync", full)
    with pytest.raises(InputError, match=r"lists\.csv cannot be written \(No space left on device\)"):
        run(Parts(output))
    assert not output.exists()
    left = {path.name for path in output.parent.glob("*/*") if path.suffix != ".lock"}
    assert left == {1: set(), 2: {"request.json"}, 3: {"request.json", "000000.part"}}.get(
        moment, {"request.json", *(f"00000{index}.part" for index in range(3))}
    )
    monkeypatch.undo()
    assert len(run(Parts(output))) == {1: 3, 2: 3, 3: 2}.get(moment, 0)
    assert alone(output)


def test_parts_that_were_taken_away(output: Path) -> None:
    parts = Parts(output)
    parts.start({}, 3)
    parts.folder.rename(parts.folder.with_name("elsewhere"))
    assert parts.make(write, lambda done: None) == []
    with pytest.raises(InputError, match="went away while it was in use; repeat the command"):
        parts.join(join)
