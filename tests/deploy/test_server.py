"""The server as its clients see it: over real sockets."""

import hashlib
import json
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import Any

import httpx
import pytest

from kdrec.deploy.recommender import Deployed
from kdrec.deploy.server import MAX_ITEMS, MAX_NAME, application
from kdrec.errors import InputError
from kdrec.models.bpr import BPR
from kdrec.models.ncf import NCF
from tests.generated import generate
from tests.serving import SECRET, TRAIN, deployed, listening, refused


def test_recommends_as_the_model_does(client: httpx.Client, student: Deployed, teacher: Deployed) -> None:
    for name, model in (("student", student), ("teacher", teacher)):
        asked = {"k": 4, "model": name}
        user = client.post("/recommend", json={"user": "103", **asked}).json()
        assert user["recommended"] == [asdict(item) for item in model.for_user(2, 4)]
        assert [item["id"] for item in user["given"]] == [model.item_ids[item] for item in model.history(2)[:-6:-1]]
        items = client.post("/recommend", json={"items": ["Film 3 (1953)", "510"], **asked}).json()
        assert items["recommended"] == [asdict(item) for item in model.for_items([3, 9], 4)]
        assert [item["id"] for item in items["given"]] == ["504", "510"]
        by_query = client.get("/similar", params={"item": "504", **asked}).json()
        by_body = client.post("/similar", json={"item": "film 3 (1953)", **asked}).json()
        expected = [asdict(item) for item in model.similar_to(3, 4)]
        assert by_query["recommended"] == by_body["recommended"] == expected
        assert 0 < by_query["milliseconds"] < 10_000


def test_defaults(client: httpx.Client, student: Deployed) -> None:
    answer = client.post("/recommend", json={"user": "103"}).json()
    assert answer["model"] == "student"
    assert [item["id"] for item in answer["recommended"]] == [item.id for item in student.for_user(2, 10)]


def test_health(client: httpx.Client, student: Deployed) -> None:
    answer = client.get("/health")
    said = answer.json()
    assert said["status"] == "ok"
    assert said["uptime_seconds"] > 0
    assert said["models"]["student"] == {
        "model": "BPR(embedding_dim=4, init_std=0.01)", "users": 30, "items": 40, "parameters": 280, "bytes": 1120,
        "checkpoint_sha256": hashlib.sha256(student.path.read_bytes()).hexdigest(), "no_strangers": "",
    }  # fmt: skip
    assert SECRET not in answer.text


def test_search(client: httpx.Client) -> None:
    found = client.get("/items", params={"query": "19 film 1953"}).json()["items"]
    assert found == [{"id": "504", "title": "Film 3 (1953)"}]
    assert len(client.get("/items").json()["items"]) == 20
    assert client.get("/users", params={"query": "13"}).json() == {"users": ["130"]}


@pytest.mark.parametrize(
    ("body", "status", "sentence"),
    [
        ({"user": "1"}, 404, "The student knows no user '1'; did you mean '101' or "),
        ({"items": ["Film 3"]}, 404, "The student knows no item 'Film 3'; did you mean 'Film 3 (1953)'"),
        ({"user": "1", "model": "teacher"}, 404, "The teacher knows no user"),
        ({"items": []}, 422, "no items to recommend by"),
        ({"items": ["504"], "k": 40}, 422, "k is 40; it must lie between 1 and the 39 items"),
        ({"user": "103", "k": 0}, 422, "k is not right: input should be greater than or equal to 1."),
        ({"user": "103", "k": 10**9}, 422, "k is not right: input should be less than or equal to 1000."),
        ({"user": "103", "k": True}, 422, "k is not right"),
        ({"user": "103", "k": 1e400}, 422, "k is not right"),
        ({}, 422, 'give either "user" or "items"'),
        ({"user": "103", "items": ["504"]}, 422, 'give either "user" or "items"'),
        ({"user": 103}, 422, "user is not right: input should be a valid string."),
        ({"user": "x" * (MAX_NAME + 1)}, 422, "user is not right: string should have at most"),
        ({"items": ["504"] * (MAX_ITEMS + 1)}, 422, "items is not right: list should have at most"),
        ({"items": ["504", ""]}, 422, "items.1 is not right: string should have at least 1 character."),
        ({"user": "\ud800"}, 422, "user is not right"),
        ({"user": "103", "model": "../../etc/passwd"}, 422, "model is not right: input should be 'student' or 'te"),
        ({"user": "103", "extra": 1}, 422, "extra is not right"),
        ([1], 422, "needs a JSON object"),
        ("103", 422, "needs a JSON object"),
        (None, 422, "needs a JSON object"),
    ],
)
def test_bodies_that_are_refused(client: httpx.Client, body: Any, status: int, sentence: str) -> None:
    headers = {"content-type": "application/json"}
    assert sentence in refused(client.post("/recommend", content=json.dumps(body), headers=headers), status)


@pytest.mark.parametrize("body", [b"{", b"\xff\xfe", b"\0", b"[" * 60_000, b'{"k":' + b"9" * 5000 + b"}", b"nul", b""])
def test_bodies_that_are_no_json(client: httpx.Client, body: bytes) -> None:
    answer = client.post("/recommend", content=body, headers={"content-type": "application/json"})
    assert answer.status_code in (400, 422)
    assert "JSON" in refused(answer, answer.status_code)


def test_a_form_is_no_json(client: httpx.Client) -> None:
    assert "Content-Type application/json" in refused(client.post("/recommend", data={"user": "103"}), 422)


def test_queries_that_are_refused(client: httpx.Client) -> None:
    assert "item is not right" in refused(client.get("/similar"), 422)
    assert "k is not right" in refused(client.get("/similar?item=504&k=many"), 422)
    assert "knows no item '1'" in refused(client.get("/similar?item=1"), 404)
    assert "query is not right" in refused(client.get("/items", params={"query": "x" * 300}), 422)


@pytest.mark.parametrize("path", ["/nothing", "/page.html", "/health/", "/%2e%2e/%2e%2e/etc/passwd", "//etc/passwd"])
def test_other_paths(client: httpx.Client, path: str) -> None:
    assert "nothing at this path" in refused(client.get(path), 404)


def test_other_methods(client: httpx.Client) -> None:
    answer = client.get("/recommend")
    assert refused(answer, 405) == "/recommend takes POST requests only."
    assert answer.headers["allow"] == "POST"
    assert refused(client.delete("/similar"), 405) == "/similar takes GET or POST requests only."
    assert refused(client.request("BREW", "/health"), 405)


def test_parallel_answers_are_those_given_alone(client: httpx.Client) -> None:
    bodies: list[dict[str, Any]] = [{"user": str(user)} for user in range(101, 131)]
    bodies += [{"items": [str(item), "540"], "model": "teacher"} for item in range(501, 531)]

    def lists(body: dict[str, Any]) -> Any:
        return client.post("/recommend", json=body).json()["recommended"]

    alone = [lists(body) for body in bodies]
    with ThreadPoolExecutor(16) as pool:
        assert list(pool.map(lists, bodies * 3)) == alone * 3


def test_health_answers_while_others_compute(
    client: httpx.Client, student: Deployed, monkeypatch: pytest.MonkeyPatch
) -> None:
    go_on, compute = threading.Event(), student.for_user
    monkeypatch.setattr(student, "for_user", lambda *asked: (go_on.wait(20), compute(*asked))[1])
    with ThreadPoolExecutor(40) as pool:
        waiting = [pool.submit(client.post, "/recommend", json={"user": "103"}) for _ in range(40)]
        assert httpx.get(client.base_url.join("/health"), timeout=5).status_code == 200
        assert not any(one.done() for one in waiting)
        go_on.set()
        assert {one.result().status_code for one in waiting} == {200}


def test_without_a_teacher(student: Deployed) -> None:
    with listening(application(student)) as url:
        answer = httpx.post(f"{url}/recommend", json={"user": "103", "model": "teacher"})
    assert "No teacher is served here" in refused(answer, 422)


def test_a_teacher_of_other_items(student: Deployed, tmp_path: Path) -> None:
    other = deployed(tmp_path / "other.ckpt", BPR(4), generate(num_items=41))
    with pytest.raises(InputError, match="know different items; give checkpoints of the same data"):
        application(student, other)


def test_a_model_without_strangers(tmp_path: Path) -> None:
    model = deployed(tmp_path / "ncf.ckpt", NCF(4, 1), TRAIN, "The student")
    with listening(application(model)) as url:
        answer = httpx.post(f"{url}/recommend", json={"items": ["504"]})
        assert httpx.post(f"{url}/recommend", json={"user": "103"}).status_code == 200
        why = httpx.get(f"{url}/health").json()["models"]["student"]["no_strangers"]
    assert refused(answer, 422) == why
    assert why.startswith("The student is a NCF, whose users cannot be made from items")
