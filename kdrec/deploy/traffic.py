"""What stands between the network and the application: limits, headers, counts, and no fault that ends the server."""

import asyncio
import base64
import hashlib
import json
import logging
import re
import time
from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Collection

from starlette.types import ASGIApp, Message, Receive, Scope, Send

MAX_BODY = 1 << 16
"""Bytes of a request's body that are accepted."""
_DRAINED = 1 << 23  # bytes read of a body that is refused, since many clients read no answer before all is sent
_SECONDS = 10  # for a body to arrive
_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)
_METHODS = ("GET", "POST", "HEAD", "PUT", "PATCH", "DELETE", "OPTIONS")
_GONE = 499  # counted for clients that left before they had sent all

Headers = dict[str, str]


class Counts:
    """Requests and their seconds, in the text format of Prometheus.

    Args:
        paths: The paths to tell apart; all others are counted as one, so that strangers cannot fill the memory.
    """

    def __init__(self, paths: Collection[str]) -> None:
        self.paths = paths
        self._requests: Counter[tuple[str, str, int]] = Counter()
        self._buckets: dict[str, list[int]] = {}
        self._seconds: defaultdict[str, float] = defaultdict(float)

    def add(self, method: str, path: str, status: int, seconds: float) -> None:
        """Count a request; to be called from one thread."""
        path = path if path in self.paths else "other"
        self._requests[method if method in _METHODS else "other", path, status] += 1
        self._buckets.setdefault(path, [0] * (len(_BUCKETS) + 1))[bisect_left(_BUCKETS, seconds)] += 1
        self._seconds[path] += seconds

    def text(self) -> str:
        """Write all counts.

        Example:
            >>> counts = Counts(["/health"])
            >>> counts.add("GET", "/health", 200, 0.75)
            >>> print(counts.text().splitlines()[1])
            kdrec_requests_total{method="GET",path="/health",status="200"} 1
        """
        lines = ["# TYPE kdrec_requests_total counter"]
        for (method, path, status), count in sorted(self._requests.items()):
            lines.append(f'kdrec_requests_total{{method="{method}",path="{path}",status="{status}"}} {count}')
        lines.append("# TYPE kdrec_request_seconds histogram")
        for path, buckets in sorted(self._buckets.items()):
            total = 0
            for bound, count in zip((*map(str, _BUCKETS), "+Inf"), buckets, strict=True):
                total += count
                lines.append(f'kdrec_request_seconds_bucket{{path="{path}",le="{bound}"}} {total}')
            lines.append(f'kdrec_request_seconds_sum{{path="{path}"}} {self._seconds[path]:.6f}')
            lines.append(f'kdrec_request_seconds_count{{path="{path}"}} {total}')
        return "\n".join(lines) + "\n"


class Guard:
    """ASGI middleware: read a request's body up to a limit, answer every fault with a sentence, count, add headers.

    Args:
        app: What answers.
        counts: Where requests are counted.
        headers: Sent with every answer.
    """

    def __init__(self, app: ASGIApp, counts: Counts, headers: Headers) -> None:
        self.app = app
        self.counts = counts
        self.headers = _encoded(headers)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or refuse it."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        start, status = time.perf_counter(), _GONE

        async def answer(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message.get("headers", ()), *self.headers]
            await send(message)

        try:
            await self._pass(scope, receive, answer)
        except asyncio.CancelledError:  # a second Ctrl-C
            if status == _GONE:
                await _refuse(answer, 503, "The server was told to end at once.")
        except Exception:
            logging.getLogger("uvicorn.error").exception("A request failed.")
            if status == _GONE:
                await _refuse(answer, 500, "The server failed at this request; its log says why.")
        self.counts.add(scope["method"], scope["path"], status, time.perf_counter() - start)

    async def _pass(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            async with asyncio.timeout(_SECONDS):
                body = await _body(receive)
        except TimeoutError:
            await _refuse(send, 408, f"The request's body did not arrive within {_SECONDS} seconds.")
            return
        if body is None:
            return
        if len(body) > MAX_BODY:
            await _refuse(send, 413, f"The request's body is too large; at most {MAX_BODY} bytes are accepted.")
        else:
            await self.app(scope, _replayed(body, receive), send)


def headers_of(page: str) -> Headers:
    """Return headers that let a browser run the page's own script and style, and nothing else from anywhere."""

    def allowed(tag: str) -> str:
        parts = re.findall(rf"<{tag}>(.*?)</{tag}>", page, re.DOTALL)
        digests = [base64.b64encode(hashlib.sha256(part.encode()).digest()).decode() for part in parts]
        return " ".join(f"'sha256-{digest}'" for digest in digests)

    return {
        "content-security-policy": (
            f"default-src 'none'; script-src {allowed('script')}; style-src {allowed('style')}; connect-src 'self'; "
            f"img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
        ),
        "x-content-type-options": "nosniff",
        "referrer-policy": "no-referrer",
        "cache-control": "no-store",
    }


async def _body(receive: Receive) -> bytes | None:
    """Return a request's body, cut a byte after the limit, or None if the client went away."""
    body, size = b"", 0
    while size <= _DRAINED:
        message = await receive()
        if message["type"] == "http.disconnect":
            return None
        part = message.get("body", b"")
        size += len(part)
        body += part[: MAX_BODY + 1 - len(body)]
        if not message.get("more_body", False):
            break
    return body


def _replayed(body: bytes, receive: Receive) -> Receive:
    """Return a channel that gives a body that was read already, and then what comes."""
    messages: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def replay() -> Message:
        return messages.pop() if messages else await receive()

    return replay


async def _refuse(send: Send, status: int, sentence: str) -> None:
    """Answer with an error, and close the connection: what is left of the request is of no use."""
    content = json.dumps({"error": sentence}).encode()
    headers = {"content-type": "application/json", "content-length": str(len(content)), "connection": "close"}
    await send({"type": "http.response.start", "status": status, "headers": _encoded(headers)})
    await send({"type": "http.response.body", "body": content})


def _encoded(headers: Headers) -> list[tuple[bytes, bytes]]:
    return [(name.encode(), value.encode()) for name, value in headers.items()]
