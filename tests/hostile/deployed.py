"""Exported folders, and the files of ``kdrec predict``."""

import hashlib
import io
import json
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

import pyarrow as pa
import torch
from hypothesis import strategies as st
from pyarrow import parquet

from kdrec import __version__
from kdrec.deploy import artefact
from kdrec.deploy.contenders import OnnxExport
from kdrec.deploy.export import export
from kdrec.deploy.parts import Parts
from kdrec.deploy.predictions import predict
from kdrec.deploy.recommender import Deployed
from kdrec.evaluation.evaluate import ranking_of
from tests.hostile.checkpoints import FILE, SPLIT, content, sound
from tests.hostile.inputs import damaged, mangled
from tests.hostile.readers import Broken, Reader

FOLDER = Path("exported")
NAMES = (
    "users.onnx",
    "tables.bin",
    "vocabulary.json",
    "seen.npz",
    "../up",
    "/etc/passwd",
    ".",
    "manifest.json",
    "\x00",
)


@cache
def _files() -> dict[str, bytes]:
    """An export's."""
    with tempfile.TemporaryDirectory() as place:
        path = Path(place, "best.ckpt")
        path.write_bytes(sound())
        return {file.name: file.read_bytes() for file in export(path, "onnx", k=2).folder.iterdir()}


def _manifest() -> dict[str, Any]:
    return json.loads(_files()[artefact.MANIFEST])


def _export(given: tuple[str, bytes]) -> None:
    """One file of which is another; the manifest agrees, unless it is the other one."""
    FOLDER.mkdir()
    files = _files() | {given[0]: given[1]}
    if given[0] != artefact.MANIFEST:
        said = _manifest()
        said["files"][given[0]]["sha256"] = hashlib.sha256(given[1]).hexdigest()
        files[artefact.MANIFEST] = json.dumps(said).encode()
    for name, data in files.items():
        (FOLDER / name).write_bytes(data)
    contender = OnnxExport(FOLDER)
    ranking = ranking_of(SPLIT, "test")
    together = contender.together(ranking, 2)(torch.arange(4))
    alone = contender.alone(ranking, 2)(torch.tensor([1]))
    for items in (together, alone):
        if items.shape[1:] != (2,) or items.max() >= 16 or items.min() < -1:
            raise Broken(f"lists of {items}")
    assert contender.parameters > 0
    assert 0 < contender.bytes_of_model <= contender.bytes_on_disk


def _file(name: str) -> st.SearchStrategy[tuple[str, bytes]]:
    return st.deferred(lambda: st.tuples(st.just(name), damaged(_files()[name])))


def _json(tree: object) -> bytes:
    return json.dumps(tree).encode()


@cache
def _model() -> Deployed:
    FILE.write_bytes(sound())
    return Deployed(FILE)


def _sound_request() -> dict[str, Any]:
    digest = hashlib.sha256(sound()).hexdigest()
    return {"checkpoint": digest, "users": None, "k": 3, "batch_size": 8, "kdrec": __version__}


def _predict(given: tuple[str, bytes | None, bytes | None]) -> None:
    """With a list of users, or with parts that somebody left."""
    suffix, users, part = given
    FILE.write_bytes(sound())
    output, model = Path(f"lists{suffix}"), _model()
    if users is not None:
        Path("users.txt").write_bytes(users)
    if part is not None:
        folder = Path(f"{output}.parts")
        folder.mkdir()
        (folder / "request.json").write_bytes(_json(_sound_request()))
        (folder / "000000.part").write_bytes(part)
    try:
        predict(model, Parts(output), Path("users.txt") if users is not None else None, 3, 8)
    finally:
        if output.exists() and Path(f"{output}.parts").exists():
            raise Broken("a file beside its parts")


def _request(given: bytes) -> None:
    """Of parts that somebody left."""
    FILE.write_bytes(sound())
    Path("lists.csv.parts").mkdir()
    Path("lists.csv.parts", "request.json").write_bytes(given)
    predict(_model(), Parts(Path("lists.csv")), None, 3, 8)


@cache
def _part() -> bytes:
    """Of the first eight users."""
    texts = {name: pa.array(["a", "b", "c"]) for name in ("user", "item", "title")}
    columns = texts | {"rank": pa.array([1, 2, 3], pa.int32()), "score": pa.array([3, 2, 1], pa.float32())}
    content = io.BytesIO()
    parquet.write_table(pa.table({name: columns[name] for name in ("user", "rank", "item", "title", "score")}), content)
    return content.getvalue()


_users = damaged("\n".join(content()["kdrec"]["user_ids"]).encode(), b"101\r\n102\r\n")

READERS = (
    Reader("exports' manifests, bytes", _file(artefact.MANIFEST), _export),
    Reader("exports' manifests, values", st.deferred(
        lambda: st.tuples(st.just(artefact.MANIFEST), mangled(_manifest(), NAMES).map(_json))), _export),
    Reader("exports' graphs", st.one_of(_file("users.onnx"), _file("tables.bin")), _export),
    Reader("lists of users", st.tuples(st.sampled_from((".csv", ".jsonl")), _users, st.none()), _predict),
    Reader("parts of lists", st.deferred(
        lambda: st.tuples(st.just(".parquet"), st.none(), damaged(_part()))), _predict),
    Reader("requests of parts", st.deferred(
        lambda: st.one_of(damaged(_json(_sound_request())), mangled(_sound_request()).map(_json))), _request),
)  # fmt: skip
