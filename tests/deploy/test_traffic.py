"""What a server does with clients that mean no good, and what it counts."""

import base64
import contextlib
import hashlib
import re
import socket

import httpx
import pytest

from kdrec.deploy import traffic
from kdrec.deploy.recommender import Deployed
from kdrec.deploy.server import application
from tests.serving import listening, refused

PAD = b" " * (traffic.MAX_BODY - len(b'{"user":"103"}'))


@pytest.mark.parametrize("chunked", [False, True])
def test_a_body_up_to_the_limit(client: httpx.Client, chunked: bool) -> None:
    def post(body: bytes) -> httpx.Response:
        content = iter([body[:100], body[100:]]) if chunked else body
        return client.post("/recommend", content=content, headers={"content-type": "application/json"})

    assert post(b'{"user":"103"}' + PAD).status_code == 200
    assert "at most 65536 bytes" in refused(post(b'{"user":"103"}' + PAD + b" "), 413)
    assert refused(post(b" " * 5_000_000), 413)


def raw(client: httpx.Client, sent: bytes, ended: bool = True) -> bytes:
    """Send bytes over a socket of its own, and return what comes until the server closes it."""
    came = b""
    with (
        socket.create_connection((client.base_url.host, client.base_url.port or 0), timeout=20) as connection,
        contextlib.suppress(ConnectionError),  # the server may close while bytes are still on their way
    ):
        connection.sendall(sent)
        if ended:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_WR)
        while part := connection.recv(65536):
            came += part
    return came


@pytest.mark.parametrize(
    "sent",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", b"\0" * 10_000, b"GET\r\n\r\n", b"GET / FTP/1.0\r\n\r\n",
        b"GET / HTTP/1.1\r\nhost: x\r\n" + b"a: b\r\n" * 30_000,
        b"POST /recommend HTTP/1.1\r\nhost: x\r\ncontent-length: -5\r\n\r\n",
        b"POST /recommend HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n",
    ],
)  # fmt: skip
def test_what_is_no_http(client: httpx.Client, sent: bytes) -> None:
    answer = raw(client, sent)
    assert not answer or answer.startswith(b"HTTP/1.1 400 ")
    assert client.get("/health").status_code == 200


def test_a_client_that_leaves_in_the_middle(client: httpx.Client) -> None:
    raw(client, b"POST /recommend HTTP/1.1\r\nhost: x\r\ncontent-length: 50\r\n\r\n{")
    assert client.get("/health").status_code == 200


def test_a_body_that_does_not_come(client: httpx.Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(traffic, "_SECONDS", 0.2)
    head = b"POST /recommend HTTP/1.1\r\nhost: x\r\ncontent-length: 50\r\n\r\n{"
    assert raw(client, head, ended=False).startswith(b"HTTP/1.1 408 ")


def test_a_fault_in_the_server_itself(
    client: httpx.Client, student: Deployed, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(student, "for_user", lambda *asked: 1 / 0)
    assert refused(client.post("/recommend", json={"user": "103"}), 500).startswith("The server failed")
    assert "ZeroDivisionError" in caplog.text
    assert client.get("/health").status_code == 200


def test_metrics(student: Deployed) -> None:
    with listening(application(student)) as url:
        for path in ("/health", "/health", "/similar?item=1", "/%22%0A%7B%7D", "/nothing"):
            httpx.get(url + path)
        text = httpx.get(f"{url}/metrics").text
    counts = dict(re.findall(r"kdrec_requests_total\{method=\"GET\",(.*)\} (\d+)", text))
    assert counts == {
        'path="/health",status="200"': "2", 'path="/similar",status="404"': "1", 'path="other",status="404"': "2",
    }  # fmt: skip
    buckets = [int(count) for count in re.findall(r"seconds_bucket\{path=\"/health\",le=\".*\"\} (\d+)", text)]
    assert buckets == sorted(buckets)
    assert buckets[-1] == 2
    assert 0 < float(re.findall(r"seconds_sum\{path=\"/health\"\} (\S+)", text)[0]) < 10


def test_the_page_may_run_its_own_script_and_nothing_else(client: httpx.Client) -> None:
    answer = client.get("/")
    policy = dict(part.split(" ", 1) for part in answer.headers["content-security-policy"].split("; "))
    assert policy["default-src"] == "'none'"
    script = re.findall(r"<script>(.*)</script>", answer.text, re.DOTALL)[0]
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert policy["script-src"] == f"'sha256-{digest}'"
    assert not re.search(
        r"innerHTML|insertAdjacent|document\.write|https?:|<link(?! rel=\"icon\")| on\w+=", answer.text
    )
