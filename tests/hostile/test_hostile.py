"""Whatever a stranger's file holds, it is read, or refused in one sentence, and nothing else happens."""

import contextlib
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, given, settings

from kdrec.errors import InputError
from tests.hostile.collection import READERS
from tests.hostile.readers import Broken, Reader, outcome
from tests.hostile.tally import Tally


@pytest.mark.parametrize("reader", READERS, ids=str)
def test_is_read_or_refused(reader: Reader) -> None:
    for example in reader.examples:
        outcome(reader, example)

    @settings(
        max_examples=reader.few, deadline=None, database=None, derandomize=True, phases=[Phase.generate, Phase.shrink],
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    @given(reader.inputs)
    def each(content: object) -> None:
        outcome(reader, content)

    each()


def _write_up(_: object) -> None:
    Path("../../up").write_text("")


def _swallow(_: object) -> None:
    with contextlib.suppress(Exception):
        os.rename("/etc/passwd", "passwd")


def _leave(_: object) -> None:
    tempfile.mkdtemp()


def _import(_: object) -> None:
    import tests.hostile.trap  # noqa: F401


def _babble(_: object) -> None:
    raise InputError("no end")


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        (_write_up, "open .*up"),
        (_swallow, "os.rename"),
        (_leave, "left behind"),
        (_import, "imported"),
        (_babble, "is not one sentence"),
        (lambda _: subprocess.run([sys.executable, "--version"], check=True), "subprocess.Popen"),
    ],
    ids=["write elsewhere", "move", "leave", "import", "babble", "process"],
)
def test_a_reader_that_breaks_its_promise_is_found_out(fault: object, said: str) -> None:
    before = Path.cwd()
    with pytest.raises(Broken, match=said):
        outcome(Reader("faulty", READERS[0].inputs, fault), None)  # type: ignore[arg-type]
    assert Path.cwd() == before
    assert outcome(Reader("sound", READERS[0].inputs, len), b"") == "read"


def test_a_tally_counts_every_end_and_shows_each_place_of_another_once() -> None:
    tally = Tally(Reader("faulty", READERS[0].inputs, lambda ask: ask()))  # type: ignore[operator]
    for ask in (dict, dict, lambda: _fail("no number."), lambda: 1 / 0, lambda: 2 / 0, lambda: _write_up(None)):
        tally.take(ask)
    assert tally.counts == {"read": 2, "refused": 1, "other": 3}
    row, *found = str(tally).splitlines()
    assert row.split()[:5] == ["faulty", "6", "1", "2", "3"]
    assert [line.split()[0] for line in found[::2]] == ["ZeroDivisionError", "Broken"]


def _fail(said: str) -> None:
    raise InputError(said)
