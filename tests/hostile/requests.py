"""What a server is asked."""

import asyncio
import json
import logging
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

from hypothesis import strategies as st
from starlette.types import ASGIApp, Message

from kdrec.deploy.recommender import Deployed
from kdrec.deploy.server import PATHS, application
from kdrec.errors import InputError
from tests.hostile.checkpoints import sound
from tests.hostile.inputs import TEXTS, damaged, mangled
from tests.hostile.readers import Broken, Reader

BODIES = ({"user": "101", "k": 3, "model": "student"}, {"items": ["501", "Film 3 (1953)"], "k": 2}, {"item": "501"})
Request = tuple[str, str, bytes, bytes, bytes]  # method, path, query, content type, body


@cache
def _application() -> tuple[ASGIApp, asyncio.AbstractEventLoop]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "best.ckpt")
        path.write_bytes(sound())
        student = Deployed(path, "The student")
        app = application(student)
    logging.getLogger("uvicorn.error").addHandler(_FAULTS)
    return app, asyncio.new_event_loop()


class _Faults(logging.Handler):
    """Keeps what the server's log says of a request that failed."""

    last = ""

    def emit(self, record: logging.LogRecord) -> None:
        self.last = repr(record.exc_info and record.exc_info[1])


_FAULTS = _Faults()


def _ask(given: Request) -> None:
    app, loop = _application()
    loop.run_until_complete(asyncio.wait_for(_answer(app, given), 10))


async def _answer(app: ASGIApp, given: Request) -> None:
    method, path, query, kind, body = given
    headers = [(b"host", b"localhost"), (b"content-type", kind), (b"content-length", b"%d" % len(body))]
    scope = {
        "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": method, "scheme": "http",
        "path": path, "raw_path": path.encode(errors="replace"), "query_string": query, "headers": headers,
        "client": ("127.0.0.1", 5), "server": ("127.0.0.1", 80), "root_path": "",
    }  # fmt: skip
    asked, told = [{"type": "http.request", "body": body, "more_body": False}], []

    async def receive() -> Message:
        return asked.pop() if asked else {"type": "http.disconnect"}

    async def send(message: Message) -> None:
        told.append(message)

    await app(scope, receive, send)
    status = told[0]["status"]
    if status >= 500:
        raise Broken(f"{status}: {_FAULTS.last}")
    said = b"".join(message.get("body", b"") for message in told[1:])
    if status >= 400:
        answer: dict[str, Any] = json.loads(said)
        if list(answer) != ["error"]:
            raise Broken(f"{answer} is no refusal")
        raise InputError(answer["error"])
    if path not in ("/", "/metrics"):
        json.loads(said)


def _posted(body: st.SearchStrategy[bytes]) -> st.SearchStrategy[Request]:
    kinds = st.sampled_from([b"application/json"] * 6 + [b"text/plain", b"", b"\xff", b"application/json; charset=x"])
    return st.tuples(st.just("POST"), st.sampled_from(("/recommend", "/similar")), st.just(b""), kinds, body)


_text = st.sampled_from([*PATHS, *TEXTS]) | st.text(max_size=20)
_methods = st.sampled_from(("GET", "GET", "GET", "POST", "HEAD", "PUT", "OPTIONS", "TRACE", "\x00", "get"))
_queries = damaged(b"item=501&k=3&model=student", b"query=film%203", b"query=%ff%fe%ed%a0%80")

READERS = (
    Reader("requests' bodies, bytes", _posted(damaged(*(json.dumps(body).encode() for body in BODIES))), _ask),
    Reader("requests' bodies, values", _posted(
        st.one_of(*map(mangled, BODIES)).map(lambda tree: json.dumps(tree).encode())), _ask),
    Reader("requests' paths and queries", st.tuples(
        _methods, _text | st.sampled_from([*PATHS]), _queries, st.just(b""), st.just(b"")), _ask),
)  # fmt: skip
