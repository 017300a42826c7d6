"""`kdrec serve` as a user types it: a process of its own, a real port, real signals."""

import contextlib
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from kdrec.cli.commands.serve import listen
from kdrec.models.bpr import BPR
from tests.commandline import Kdrec
from tests.serving import TRAIN, deployed

SLOW = """
import sys, time
from kdrec.cli.main import main
from kdrec.deploy.recommender import Deployed
at_once = Deployed.for_user
def later(self, user, k):
    if k == 2:
        print("computing", flush=True)
        time.sleep(2)
    return at_once(self, user, k)
Deployed.for_user = later
sys.exit(main(sys.argv[1:]))
"""


@pytest.fixture
def checkpoint(workplace: Path) -> Path:
    return deployed(workplace / "checkpoints/bpr/now/best.ckpt", BPR(4), TRAIN).path


@contextlib.contextmanager
def served(*options: object) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """Start the command at a free port; gives the process and the address that it prints."""
    command = [sys.executable, "-c", SLOW, "serve", "--port", "0", *map(str, options)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            lines = []
            while (line := process.stdout.readline()) and not line.startswith("Serving"):
                lines.append(line.split()[0])
            found = re.search(r"at (http://127\.0\.0\.1:\d+) ", line)
            assert found, process.communicate()[1]
            assert lines == (["student", "teacher"] if "--teacher" in options else ["student"])
            yield process, found[1]
        finally:
            process.kill()


def slow_request(process: subprocess.Popen[str], url: str, answers: list[httpx.Response]) -> threading.Thread:
    """Start a request that takes two seconds, and return when it is being computed."""
    body = {"user": "103", "k": 2}
    client = threading.Thread(target=lambda: answers.append(httpx.post(f"{url}/recommend", json=body)))
    client.start()
    assert process.stdout is not None
    assert process.stdout.readline() == "computing\n"
    return client


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM])
def test_requests_in_flight_are_answered_before_the_end(checkpoint: Path, sent: signal.Signals) -> None:
    answers: list[httpx.Response] = []
    with served("--teacher", checkpoint) as (process, url):
        assert set(httpx.get(f"{url}/health").json()["models"]) == {"student", "teacher"}
        client = slow_request(process, url, answers)
        process.send_signal(sent)
        client.join(20)
        error = process.communicate(timeout=20)[1]
    assert [answer.status_code for answer in answers] == [200]
    assert len(answers[0].json()["recommended"]) == 2
    assert process.returncode == (130 if sent == signal.SIGINT else -signal.SIGTERM)
    assert error.strip() == ("Stopped serving." if sent == signal.SIGINT else "")


def test_a_second_ctrl_c_waits_for_nobody(checkpoint: Path) -> None:
    answers: list[httpx.Response] = []
    with served() as (process, url):
        client = slow_request(process, url, answers)
        for _ in range(2):
            process.send_signal(signal.SIGINT)
            time.sleep(0.3)  # within which the first one must have been seen
        client.join(20)
        error = process.communicate(timeout=20)[1]
    assert [answer.json() for answer in answers] == [{"error": "The server was told to end at once."}]
    assert process.returncode == 130
    assert error.strip() == "Stopped serving."


def test_the_page_and_a_stranger(checkpoint: Path) -> None:
    with served() as (_, url):
        page = httpx.get(url)
        assert page.headers["content-type"] == "text/html; charset=utf-8"
        assert "server" not in page.headers
        assert httpx.post(f"{url}/recommend", json={"items": ["504"], "k": 3}).status_code == 200


def test_no_answer_waits_for_an_acknowledgement() -> None:
    with listen("127.0.0.1", 0) as listener, socket.create_connection(listener.getsockname()):
        connection = listener.accept()[0]
        assert connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        connection.close()


def test_a_port_in_use(kdrec: Kdrec, checkpoint: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        said = kdrec("serve", "--port", str(port)).sentence
    assert said == f"127.0.0.1 port {port} cannot be had (Address already in use); name another with --port or --host."


def test_a_privileged_port(kdrec: Kdrec, checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:  # whoever runs the tests may be allowed to
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(socket, "create_server", refuse)
    assert kdrec("serve", "--port", "80").sentence == "Port 80 may not be used by you; take one above 1023 with --port."


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (("--host", "no.such.host.invalid"), "--host is 'no.such.host.invalid', which is no address"),
        (("--host", "x" * 300), "which is no address"),
        (("--host", ""), "--host is empty"),
        (("--host", "192.0.2.1"), "192.0.2.1 port 8000 cannot be had (Cannot assign requested address)"),
        (("--port", "70000"), "--port is 70000; it must lie between 0 and 65535."),
        (("--port", "http"), "invalid int value: 'http'"),
        (("--port", "0", "--ckpt_path", "nothing.ckpt"), "There is no checkpoint nothing.ckpt"),
        (("--port", "0", "--teacher", "teacher.yaml"), "teacher.yaml cannot be read as a checkpoint"),
        (("--reload",), "There is no option '--reload'"),
    ],
)
def test_bad_input(kdrec: Kdrec, checkpoint: Path, options: tuple[str, ...], sentence: str) -> None:
    assert sentence in kdrec("serve", *options).sentence


def test_without_the_extra(kdrec: Kdrec, checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kdrec.cli.commands.serve.find_spec", lambda name: None)
    said = kdrec("serve").sentence
    assert said == "A server needs fastapi and uvicorn; install the extra: python -m pip install '.[serve]'."


def test_help_teaches(kdrec: Kdrec) -> None:
    done = kdrec("serve", "--help")
    assert done.code == 0
    assert all(word in done.out for word in ("--teacher", "/recommend", "examples:", "no password"))
