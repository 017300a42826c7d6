"""Recommendations over HTTP, as JSON and on one page, from a student and perhaps its teacher."""

import contextlib
import os
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import FrameType
from typing import Annotated, Any, Literal

import uvicorn
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse, PlainTextResponse
from pydantic import BaseModel, ConfigDict, Field
from starlette.exceptions import HTTPException

from kdrec.deploy.recommender import Deployed, Item
from kdrec.deploy.traffic import Counts, Guard, headers_of
from kdrec.errors import InputError, UnknownName
from kdrec.models import checkpoint as files
from kdrec.models.described import as_config, shown

MAX_K, MAX_ITEMS, MAX_NAME = 1000, 200, 200
PATHS = {
    "/": "GET", "/health": "GET", "/metrics": "GET", "/items": "GET", "/users": "GET",
    "/recommend": "POST", "/similar": "GET or POST",
}  # fmt: skip
_FOUND = 20  # names that a search gives at most
_LAST_ANSWERS = 30  # seconds that requests in flight have left when the server is told to end
_PAGE = Path(__file__).with_name("page.html")

Name = Annotated[str, Field(min_length=1, max_length=MAX_NAME)]
Text = Annotated[str, Field(max_length=MAX_NAME)]
Length = Annotated[int, Field(ge=1, le=MAX_K)]
Which = Literal["student", "teacher"]


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)
    k: Length = 10
    model: Which = "student"


class RecommendBody(_Body):
    """For whom /recommend works: a user of the training data, or a stranger who likes some items."""

    user: Name | None = None
    items: Annotated[list[Name], Field(max_length=MAX_ITEMS)] | None = None


class SimilarBody(_Body):
    """What /similar looks for."""

    item: Name


class Service:
    """The answers, apart from HTTP's ways.

    Args:
        student: The model that is asked by default.
        teacher: Another of the same catalogue.

    Raises:
        InputError: If the teacher knows other items than the student.
    """

    def __init__(self, student: Deployed, teacher: Deployed | None = None) -> None:
        if teacher is not None and set(teacher.item_ids) != set(student.item_ids):
            raise InputError(
                f"{teacher.path} and {student.path} know different items; give checkpoints of the same data."
            )
        self.models = {"student": student} | ({} if teacher is None else {"teacher": teacher})
        self.described = {name: _described(model) for name, model in self.models.items()}
        self.started = time.monotonic()
        self._turns = threading.BoundedSemaphore(os.cpu_count() or 1)  # of the threads that would compute at once
        for model in self.models.values():
            _warm_up(model)

    async def health(self) -> Response:
        """Say that the server lives, and what it serves; waits for no other answer."""
        seconds = round(time.monotonic() - self.started, 3)
        return JSONResponse({"status": "ok", "uptime_seconds": seconds, "models": self.described})

    def recommend(self, body: RecommendBody) -> Response:
        """Recommend to a user or to a stranger."""
        if (body.user is None) == (body.items is None):
            raise InputError('Say for whom: give either "user" or "items".')
        model = self._model(body.model)
        with self._turns:
            start = time.perf_counter()
            if body.user is not None:
                user = model.user(body.user)
                found = model.for_user(user, body.k)
                given = model.described(model.latest(user))
            else:
                items = [model.item(name) for name in body.items or []]
                found, given = model.for_items(items, body.k), model.described(items)
            return _listed(body.model, start, given, found)

    def similar(self, item: Name, k: Length = 10, model: Which = "student") -> Response:
        """List the items most like one."""
        asked = self._model(model)
        with self._turns:
            start = time.perf_counter()
            index = asked.item(item)
            return _listed(model, start, asked.described([index]), asked.similar_to(index, k))

    def similar_by_body(self, body: SimilarBody) -> Response:
        """As `similar`."""
        return self.similar(body.item, body.k, body.model)

    def items(self, query: Text = "") -> Response:
        """Find items by words of their titles."""
        student = self.models["student"]
        found = student.described(student.search_items(query, _FOUND))
        return JSONResponse({"items": [{"id": item.id, "title": item.title} for item in found]})

    def users(self, query: Text = "") -> Response:
        """Find users by the start of their ids."""
        return JSONResponse({"users": self.models["student"].search_users(query, _FOUND)})

    def _model(self, name: str) -> Deployed:
        if name not in self.models:
            raise InputError("No teacher is served here; ask the student, or start kdrec serve with --teacher.")
        return self.models[name]


def application(student: Deployed, teacher: Deployed | None = None) -> FastAPI:
    """Build the application; its files are read here, and none later.

    Args:
        student: The model that is asked by default. Its ``name`` stands in messages, so it should hold no path.
        teacher: Another of the same catalogue.

    Raises:
        InputError: If the teacher knows other items than the student.
    """
    service, counts, page = Service(student, teacher), Counts(PATHS), _PAGE.read_text(encoding="utf-8")
    app = FastAPI(openapi_url=None, redirect_slashes=False)
    app.add_middleware(Guard, counts=counts, headers=headers_of(page))
    for kind, handler in _HANDLERS.items():
        app.add_exception_handler(kind, handler)

    async def show_page() -> Response:
        return HTMLResponse(page)

    async def show_counts() -> Response:
        return PlainTextResponse(counts.text(), media_type="text/plain; version=0.0.4")

    app.add_api_route("/", show_page)
    app.add_api_route("/health", service.health)
    app.add_api_route("/metrics", show_counts)
    app.add_api_route("/items", service.items)
    app.add_api_route("/users", service.users)
    app.add_api_route("/recommend", service.recommend, methods=["POST"])
    app.add_api_route("/similar", service.similar)
    app.add_api_route("/similar", service.similar_by_body, methods=["POST"])
    return app


class _Server(uvicorn.Server):
    """Whoever is told twice to end lets no request go on; from Python 3.12 on its connections would be waited for."""

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        super().handle_exit(sig, frame)
        if self.force_exit:
            for task in list(self.server_state.tasks):
                task.get_loop().call_soon_threadsafe(task.cancel)


def http_server(app: FastAPI) -> uvicorn.Server:
    """Return what answers HTTP for the application: ``run(sockets=[...])`` until SIGINT or SIGTERM."""
    config = uvicorn.Config(
        app, http="h11", ws="none", lifespan="off", log_level="warning", access_log=False, server_header=False,
        proxy_headers=False, timeout_graceful_shutdown=_LAST_ANSWERS,
    )  # fmt: skip
    return _Server(config)


def _described(model: Deployed) -> dict[str, Any]:
    recommender = model.recommender
    return {
        "model": shown(as_config(recommender)),
        "users": recommender.num_users,
        "items": recommender.num_items,
        "parameters": recommender.num_parameters(),
        "bytes": recommender.num_bytes(),
        "checkpoint_sha256": files.digest(model.path),
        "no_strangers": model.no_strangers,
    }


def _warm_up(model: Deployed) -> None:
    """Compute what a model keeps, so that nobody waits for it."""
    for first in (
        lambda: model.for_user(0, 1), lambda: model.for_items([0], 1), lambda: model.similar_to(0, 1),
        lambda: model.item(""), lambda: model.search_items("", 1),
    ):  # fmt: skip
        with contextlib.suppress(InputError):
            first()


def _listed(model: str, start: float, given: list[Item], found: list[Item]) -> Response:
    content = {
        "model": model,
        "given": [_plain(item) for item in given],
        "recommended": [_plain(item) | {"score": item.score} for item in found],
        "milliseconds": round(1000 * (time.perf_counter() - start), 3),
    }
    return JSONResponse(content)


def _plain(item: Item) -> dict[str, Any]:
    return {"id": item.id, "title": item.title, "labels": item.labels}


def _error(status: int, sentence: str, headers: Mapping[str, str] | None = None) -> Response:
    return JSONResponse({"error": sentence}, status, headers)


def _bad_http(request: Request, error: Any) -> Response:
    path, status = request.scope["path"], error.status_code
    if status == 404:
        return _error(404, f"There is nothing at this path; there are {', '.join(PATHS)}.")
    if status == 405:
        return _error(405, f"{path} takes {PATHS[path]} requests only.", error.headers)
    return _error(status, "The request's body cannot be read as JSON.", error.headers)


def _bad_values(request: Request, error: Any) -> Response:
    """Say the first of the faults that were found."""
    fault = error.errors()[0]
    where = [str(part) for part in fault["loc"][1:]]
    if fault["type"] == "json_invalid":
        return _error(422, f"The request's body is no JSON: {fault['ctx']['error']}, at character {where[0]}.")
    if not where:
        return _error(422, 'The request needs a JSON object, such as {"user": "42"}, as Content-Type application/json.')
    return _error(422, f"{'.'.join(where)[:MAX_NAME]} is not right: {fault['msg'][:1].lower()}{fault['msg'][1:]}.")


_HANDLERS: dict[type[Exception], Callable[[Request, Any], Response]] = {
    HTTPException: _bad_http,
    RequestValidationError: _bad_values,
    UnknownName: lambda request, error: _error(404, str(error)),
    InputError: lambda request, error: _error(422, str(error)),
}
