"""A server that listens, for tests."""

import contextlib
import threading
from collections.abc import Iterator
from pathlib import Path

import httpx
import torch
from fastapi import FastAPI

from kdrec.cli.commands.serve import listen
from kdrec.data.interactions import Interactions
from kdrec.data.splits import LeaveOneOut
from kdrec.deploy.recommender import Deployed
from kdrec.deploy.server import http_server
from kdrec.models.base import Recommender
from tests.generated import content_of, generate

TRAIN = LeaveOneOut("time")(generate()).train
SECRET = "a_folder_that_nobody_need_know"


def deployed(path: Path, model: Recommender, train: Interactions, name: str | None = None) -> Deployed:
    """Save a model with fresh weights, as its training does, and load it."""
    torch.manual_seed(0)
    model.bind(train)
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save(content_of(model, train), path)
    return Deployed(path, name)


@contextlib.contextmanager
def listening(app: FastAPI) -> Iterator[str]:
    """Serve an application in a thread, at a free port; gives its address and ends it in the end."""
    server = http_server(app)
    with listen("127.0.0.1", 0) as listener:
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join(30)
            assert not thread.is_alive()


def refused(answer: httpx.Response, status: int) -> str:
    """Return the sentence of a refusal, which has the shape of all."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert list(answer.json()) == ["error"]
    sentence = answer.json()["error"]
    assert sentence[-1] in ".?"
    assert SECRET not in answer.text
    assert ".ckpt" not in answer.text
    return sentence
