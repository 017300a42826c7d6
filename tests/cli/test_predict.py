import csv
import os
import pty
import re
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch

from kdrec.data.splits import Split
from kdrec.models.bpr import BPR
from tests.commandline import Kdrec
from tests.generated import content_of

SLOW = """
import sys, time
from kdrec.cli.main import main
from kdrec.deploy.parts import Parts
whole = Parts._whole
Parts._whole = lambda *args: (time.sleep(0.1), whole(*args))[1]
code = main(sys.argv[1:])
assert not {name for name in sys.modules if name.partition(".")[0] in ("lightning", "pytorch_lightning")}
sys.exit(code)
"""
"""The command, in which a part takes a while."""


@pytest.fixture
def checkpoint(split: Split, workplace: Path) -> Path:
    torch.manual_seed(0)
    model = BPR(4)
    model.bind(split.train)
    path = workplace / "checkpoints/bpr/now/best.ckpt"
    path.parent.mkdir(parents=True)
    torch.save(content_of(model, split.train, split.valid, split.test), path)
    return path


def started(*options: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", SLOW, "predict", "--batch_size", "2", "--output", "shared.csv", *options]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def ended(process: subprocess.Popen[str]) -> tuple[int, str]:
    """Return for how many users of 30 a process made the lists, and what it wrote to stderr."""
    out, error = process.communicate(timeout=120)
    assert process.returncode == 0, error
    said = re.fullmatch(
        r"300 rows for 30 users(?: \((\d+) of them by this process\))? in [\d.]+ s, [\d,]+ users/s: shared\.csv\n", out
    )
    assert said, out
    return int(said[1] or 30), error


def wait_for_parts(number: int, processes: Sequence[subprocess.Popen[str]]) -> None:
    while len(list(Path().glob("shared.csv.parts/*.part"))) < number:
        assert all(process.poll() is None for process in processes)
        time.sleep(0.02)


def test_the_newest_checkpoints_lists(kdrec: Kdrec, checkpoint: Path) -> None:
    done = kdrec("predict", "-k", "3")
    assert done.code == 0, done.error
    assert re.fullmatch(r"90 rows for 30 users in [\d.]+ s, [\d,]+ users/s: predictions/bpr/now/best\.csv\n", done.out)
    with open("predictions/bpr/now/best.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["user", "rank", "item", "title", "score"]
    told = csv.DictReader(kdrec("recommend", "--user", "104", "-k", "3", "--format", "csv").out.splitlines())
    listed = [(row["rank"], row["item"], row["title"], row["score"]) for row in rows if row["user"] == "104"]
    assert [(row["rank"], row["item"], row["title"], row["score"]) for row in told] == listed
    assert [*Path("predictions/bpr/now").iterdir()] == [Path("predictions/bpr/now/best.csv")]


def test_some_users(kdrec: Kdrec, checkpoint: Path) -> None:
    Path("some.txt").write_text("130\n101\n")
    options = ("--ckpt_path", str(checkpoint), "--users", "some.txt", "-k", "2", "--output", "here/some.jsonl")
    assert "4 rows for 2 users in" in kdrec("predict", *options).out
    assert [line[:14] for line in Path("here/some.jsonl").read_text().splitlines()] == [
        *['{"user": "130"'] * 2, *['{"user": "101"'] * 2
    ]  # fmt: skip


def test_never_overwrites_unless_told(kdrec: Kdrec, checkpoint: Path) -> None:
    Path("lists.csv").write_text("precious")
    said = kdrec("predict", "--output", "lists.csv").sentence
    assert said == "lists.csv exists already; name another file with --output, or replace it with --force."
    assert Path("lists.csv").read_text() == "precious"
    assert kdrec("predict", "--output", "lists.csv", "--force").code == 0
    assert Path("lists.csv").read_text().startswith("user,rank,")


def test_two_processes_share_the_work(kdrec: Kdrec, checkpoint: Path) -> None:
    assert kdrec("predict", "--batch_size", "2", "--output", "single.csv").code == 0
    processes = [started(), started()]
    counts = [ended(process)[0] for process in processes]
    assert sum(counts) == 30
    assert Path("shared.csv").read_bytes() == Path("single.csv").read_bytes()
    assert not list(Path().glob("*.parts*")) + list(Path().glob(".*"))


def test_a_process_that_dies_is_no_loss(kdrec: Kdrec, checkpoint: Path) -> None:
    assert kdrec("predict", "--batch_size", "2", "--output", "single.csv").code == 0
    processes = [started(), started()]
    wait_for_parts(3, processes)
    processes[0].kill()
    processes[0].communicate()
    ended(processes[1])
    assert Path("shared.csv").read_bytes() == Path("single.csv").read_bytes()
    assert not list(Path().glob("*.parts*")) + list(Path().glob(".*"))


def test_ctrl_c_says_how_to_go_on(kdrec: Kdrec, checkpoint: Path) -> None:
    process = started()
    wait_for_parts(3, [process])
    process.send_signal(signal.SIGINT)
    error = process.communicate(timeout=60)[1]
    assert process.returncode == 130
    assert error.strip() == "Stopped. Finished parts are kept in shared.csv.parts; the same command goes on."
    said = kdrec("predict", "--output", "shared.csv").sentence
    assert "shared.csv.parts holds parts of another request (it differs in batch_size); remove that folder" in said
    left = 30 - 2 * len(list(Path().glob("shared.csv.parts/*.part")))
    done = kdrec("predict", "--batch_size", "2", "--output", "shared.csv")
    assert f"300 rows for 30 users ({left} of them by this process)" in done.out
    assert kdrec("predict", "--batch_size", "2", "--output", "single.csv").code == 0
    assert Path("shared.csv").read_bytes() == Path("single.csv").read_bytes()


def test_a_terminal_sees_how_far_it_is(checkpoint: Path) -> None:
    ours, theirs = pty.openpty()
    command = [sys.executable, "-c", SLOW, "predict", "--batch_size", "6", "-k", "3"]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=theirs, env=os.environ | {"TERM": "xterm"}):
        os.close(theirs)
        seen = b""
        while True:
            try:
                seen += os.read(ours, 4096)
            except OSError:  # the other end is closed
                break
    os.close(ours)
    assert b"/30" in seen


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (("-k", "41"), "k is 41; it must lie between 1 and the 40 items"),
        (("-k", "ten"), "Argument -k: invalid int value: 'ten'"),
        (("--batch_size", "0"), "--batch_size is 0"),
        (("--output", "lists.xls"), "lists.xls ends in '.xls'; predictions are written to .csv, .jsonl, .parquet"),
        (("--output", "teacher.yaml/lists.csv"), "cannot be written (Not a directory); name another with --output"),
        (("--users", "users.txt"), "users.txt, line 2: "),
        (("--users", "nowhere.txt"), "nowhere.txt cannot be read"),
        (("--user", "103"), "There is no option '--user'"),
        (("--ckpt_path", "nothing.ckpt"), "There is no checkpoint nothing.ckpt"),
    ],
)
def test_bad_input(kdrec: Kdrec, checkpoint: Path, options: tuple[str, ...], sentence: str) -> None:
    Path("users.txt").write_text("103\n13\n")
    assert sentence in kdrec("predict", *options).sentence
    assert {path.name for path in Path().iterdir()} == {"checkpoints", "teacher.yaml", "student.yaml", "users.txt"}


def test_without_checkpoints(kdrec: Kdrec) -> None:
    assert "run `kdrec fit` first" in kdrec("predict").sentence


def test_help_teaches(kdrec: Kdrec) -> None:
    done = kdrec("predict", "--help")
    assert done.code == 0
    assert all(word in done.out for word in ("--force", "examples:", "in training, validation or test"))
