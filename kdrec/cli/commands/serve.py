"""``kdrec serve``: recommendations over HTTP, with a page that shows student and teacher side by side."""

import argparse
import signal
import socket
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from kdrec.cli import runs
from kdrec.cli.options import Options
from kdrec.errors import InputError

if TYPE_CHECKING:
    import uvicorn

SUMMARY = "answer over HTTP, with a page of student and teacher side by side"

_DESCRIPTION = """Serve a checkpoint over HTTP, and on one page that shows its lists beside its teacher's.

  POST /recommend  {"user": "42"} or {"items": ["Toy Story (1995)", "50"]}; "k": 10, "model": "student" or "teacher"
  GET  /similar    ?item=50&k=10&model=student, or POST the same as JSON
  GET  /items      ?query=star: items by words of their titles; /users?query=4: users by the start of their ids
  GET  /health     what is served; /metrics: counts and times for Prometheus; /: the page

There is no password: who reaches the port may ask. By default that is this machine alone."""
_EXAMPLES = """examples:
  kdrec serve                                                 the newest checkpoint, at http://127.0.0.1:8000
  kdrec serve --ckpt_path checkpoints/bpr_ftd/RUN/best.ckpt --teacher checkpoints/bpr_teacher/RUN/best.ckpt
  curl -H 'Content-Type: application/json' -d '{"user": "42", "k": 3}' http://127.0.0.1:8000/recommend
"""


def run(args: Sequence[str]) -> int:
    """Run the command until it is interrupted; returns its exit code.

    Raises:
        InputError: On faulty options, files that are no checkpoints, or an address that cannot be had.
    """
    parser = Options("serve", _DESCRIPTION, _EXAMPLES)
    parser.add_argument("--ckpt_path", type=Path, help="checkpoint of the student (default: the newest best.ckpt)")
    parser.add_argument("--teacher", type=Path, help="checkpoint of a teacher, to show beside it")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen at (default 127.0.0.1)")
    parser.add_argument("--port", type=int, default=8000, help="0 takes a free one (default 8000)")
    if (options := parser.read(args)) is None:
        return 0
    if missing := [name for name in ("fastapi", "uvicorn") if find_spec(name) is None]:
        raise InputError(
            f"A server needs {' and '.join(missing)}; install the extra: python -m pip install '.[serve]'."
        )
    with listen(options.host, options.port) as listener:
        before = signal.signal(signal.SIGINT, signal.SIG_DFL)  # what is being imported may swallow a KeyboardInterrupt
        try:
            server = _load(options)
        finally:
            signal.signal(signal.SIGINT, before)
        host = f"[{options.host}]" if ":" in options.host else options.host
        print(f"Serving at http://{host}:{listener.getsockname()[1]} (Ctrl-C ends it)", flush=True)
        try:
            server.run(sockets=[listener])
        except KeyboardInterrupt:
            raise KeyboardInterrupt("Stopped serving.") from None
    return 0


def _load(options: argparse.Namespace) -> "uvicorn.Server":
    import torch  # here and below, so that --help does without

    from kdrec.deploy.recommender import Deployed
    from kdrec.deploy.server import application, http_server

    torch.set_num_threads(1)  # in every thread that answers; they run side by side
    path = options.ckpt_path or runs.newest_checkpoint()
    student = Deployed(path, "The student")
    teacher = Deployed(options.teacher, "The teacher") if options.teacher else None
    server = http_server(application(student, teacher))
    print(f"student {path}" + (f"\nteacher {options.teacher}" if options.teacher else ""))
    return server


def listen(host: str, port: int) -> socket.socket:
    """Take an address, before anything is loaded.

    Raises:
        InputError: If it cannot be had.
    """
    if not 0 <= port < 1 << 16:
        raise InputError(f"--port is {port}; it must lie between 0 and 65535.")
    if not host:
        raise InputError("--host is empty; give an address of this machine, or 0.0.0.0 for all of them.")
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listener = socket.create_server(address, family=family)
    except (socket.gaierror, UnicodeError):
        raise InputError(f"--host is {host!r}, which is no address of this machine; take 127.0.0.1.") from None
    except PermissionError:
        raise InputError(f"Port {port} may not be used by you; take one above 1023 with --port.") from None
    except OSError as error:
        reason = str(error.strerror).partition(" (while")[0]
        raise InputError(f"{host} port {port} cannot be had ({reason}); name another with --port or --host.") from None
    # connections inherit it; else an answer's second packet waits for the client's delayed acknowledgement, 40 ms
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return listener
