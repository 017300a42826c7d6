"""Checkpoints, and what stands beside them."""

import io
import json
import pickle
import zipfile
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import torch
from hypothesis import strategies as st

from kdrec.cli import checkpoints, runs
from kdrec.data.splits import LeaveOneOut
from kdrec.deploy.contenders import Checkpoint
from kdrec.deploy.dataset import data_of
from kdrec.deploy.recommender import Deployed, Item
from kdrec.distillation.base import Teacher
from kdrec.distillation.lists import top_lists
from kdrec.errors import InputError
from kdrec.models import checkpoint
from kdrec.models.bpr import BPR
from tests.generated import content_of, generate
from tests.hostile.inputs import damaged, mangled
from tests.hostile.readers import Broken, Reader

SPLIT = LeaveOneOut("time")(generate(12, 16))
FILE = Path("best.ckpt")
TENSORS = (
    torch.tensor(1), torch.zeros(0), torch.zeros(3, 0), torch.full((16, 2), torch.nan), torch.full((12, 2), torch.inf),
    torch.zeros(16, 2), torch.ones(13, dtype=torch.int64), torch.arange(13), torch.arange(13).float(),
    torch.ones(13, dtype=torch.bool), torch.tensor([-1, 2**62]), torch.eye(3).to_sparse(), torch.ones(2, 2, 2),
    torch.ones(2, dtype=torch.complex64), torch.zeros(16, 2, dtype=torch.half), torch.zeros(1).expand(16, 2),
)  # fmt: skip


@cache
def content() -> dict[str, Any]:
    torch.manual_seed(0)
    model = BPR(2, init_std=1.0)
    model.bind(SPLIT.train)
    return content_of(model, SPLIT.train, SPLIT.valid)


def saved(content: object, zipped: bool = True) -> bytes:
    """Return a file's bytes."""
    file = io.BytesIO()
    torch.save(content, file, _use_new_zipfile_serialization=zipped)
    return file.getvalue()


@cache
def sound() -> bytes:
    """Return a checkpoint with which nothing is wrong."""
    return saved(content())


def _use(content: bytes) -> None:
    """Do what the commands do with a checkpoint."""
    FILE.write_bytes(content)
    section = checkpoint.read(FILE)["kdrec"]
    model = Deployed(FILE)
    for ask in (
        lambda: model.for_user(0, 3), lambda: model.for_items([0, 1], 3), lambda: model.similar_to(0, 3),
        lambda: model.search_items("film", 3), lambda: model.search_users("1", 3), lambda: model.item("Film 3 (1953)"),
        lambda: model.user("no such user"), lambda: model.item("\x00"), lambda: model.described(model.latest(0)),
        lambda: checkpoint.load_for(FILE, SPLIT.train, "teacher"), lambda: Checkpoint(FILE),
        lambda: checkpoints.choose(["test", "--ckpt_path", str(FILE)]), lambda: data_of(FILE, section),
        lambda: checkpoints.require_same_model(FILE, _MODULE),
    ):  # fmt: skip
        try:
            found = ask()
        except InputError:
            continue
        if isinstance(found, list) and found and isinstance(found[0], Item):
            text = json.dumps([vars(item) for item in found], ensure_ascii=False)
            text.encode()


_MODULE = {"init_args": {"recommender": {"class_path": "kdrec.models.bpr.BPR", "init_args": {"embedding_dim": 2}}}}


class Evil:
    """Becomes a call when it is unpickled.

    Args:
        call: What is called.
        *given: With these.
    """

    def __init__(self, call: Callable[..., Any], *given: object) -> None:
        self.call = call
        self.given = given

    def __reduce__(self) -> tuple[Any, ...]:
        return self.call, self.given


def _name(name: str) -> bytes:
    module, _, thing = name.rpartition(".")
    return f"c{module}\n{thing}\n".encode()


_CALLS = (
    "os.system", "posix.system", "builtins.eval", "builtins.exec", "builtins.getattr", "builtins.open",
    "subprocess.Popen", "tests.hostile.trap.Trap", "tests.hostile.trap", "torch.load", "torch.hub.load",
    "torch._utils._rebuild_tensor_v2", "torch._utils._rebuild_parameter", "torch.storage._load_from_bytes",
    "collections.OrderedDict", "torch.Size", "torch.Tensor", "torch.serialization._get_layout", "pickle.loads",
    "torch._tensor._rebuild_from_type_v2", "numpy.core.multiarray._reconstruct", "kdrec.models.bpr.BPR",
    "codecs.encode",
)  # fmt: skip
_ARGUMENTS = (b"(Vtouch pwned\ntR", b"(tR", b"(Vopen('pwned', 'w')\ntR", b"(Vpwned\nVw\ntR", b"(K\x01K\x02tR",
              b"((lp0\ntR", b"()\x85R", b"}b", b")\x81", b"N(Vx\ntb", b"\x8c\x05pwnedq\x00\x85R", b".")  # fmt: skip


def _pickles() -> list[bytes]:
    with zipfile.ZipFile(io.BytesIO(sound())) as archive:
        return [next(archive.read(name) for name in archive.namelist() if name.endswith("data.pkl"))]


@st.composite
def _evil(draw: Callable[..., Any]) -> bytes:
    """A pickle that wants to call something: on its own, or in the middle of a good one."""
    calls = b"".join(
        _name(draw(st.sampled_from(_CALLS))) + draw(st.sampled_from(_ARGUMENTS)) for _ in range(draw(st.integers(1, 3)))
    )
    if draw(st.booleans()):
        return b"\x80\x02" + calls + b"."
    good = _pickles()[0]
    place = draw(st.integers(2, len(good)))
    return good[:place] + calls + good[place:]


@st.composite
def _repacked(draw: Callable[..., Any], pickles: st.SearchStrategy[bytes]) -> bytes:
    """A file whose sums are right and whose insides are not; at times with the tensors of another."""
    new = io.BytesIO()
    swap = draw(st.booleans())
    with zipfile.ZipFile(io.BytesIO(sound())) as old, zipfile.ZipFile(new, "w") as archive:
        for name in old.namelist():
            data = old.read(name)
            if name.endswith("data.pkl"):
                data = draw(pickles)
            elif "/data/" in name and swap and draw(st.integers(0, 3)) == 0:
                data = draw(st.sampled_from((b"", data[:-8], data * 2, b"\xff" * len(data))))
            archive.writestr(name, data)
    return new.getvalue()


_mangled = st.deferred(lambda: mangled(content(), (*TENSORS, b"bytes", (1, 2), {5: 6}, frozenset({1}), 1j)))


def _lists(given: bytes) -> None:
    """Of a teacher, kept beside it: damaged ones are made again."""
    teacher = Teacher(_teacher(), str(Path("run", "best.ckpt")), "ab" * 32)
    folder = Path("run", "lists")
    folder.mkdir(parents=True)
    path = folder / f"{teacher.digest[:16]}-{SPLIT.train.digest[:16]}-users-4.pt"
    path.write_bytes(given)
    found = top_lists(teacher, SPLIT.train, 4)
    if found.members.shape != (12, 4) or found.members.dtype != torch.int32 or found.members.max() >= 16:
        raise Broken("lists that are none")
    if found.scores.isnan().any():
        raise Broken("lists with scores that are no numbers")
    if {file.name for file in folder.iterdir()} - {path.name, f".{path.name}.lock"}:
        raise Broken("half-written lists")


@cache
def _teacher() -> BPR:
    model = BPR(2, init_std=1.0)
    model.bind(SPLIT.train)
    return model


def _kept() -> dict[str, Any]:
    made = top_lists(Teacher(_teacher()), SPLIT.train, 4)
    return {"teacher": "ab" * 32, "data": SPLIT.train.digest, **made._asdict()}


def _record(content: bytes) -> None:
    """run.json, by which a finished run is found again."""
    folder = Path("checkpoints", "name", "run")
    folder.mkdir(parents=True)
    (folder / "run.json").write_bytes(content)
    (folder / "best.ckpt").touch()
    runs.finished_run("ab", "cd")


READERS = (
    Reader("checkpoints, bytes", st.deferred(lambda: damaged(sound(), saved(content(), zipped=False))), _use),
    Reader("checkpoints, sums right", st.deferred(lambda: _repacked(damaged(*_pickles()))), _use),
    Reader("checkpoints, evil pickles", st.deferred(lambda: st.one_of(_evil(), _repacked(_evil()))), _use),
    Reader("checkpoints, values", _mangled.map(saved), _use),
    Reader("teacher's lists, bytes", st.deferred(lambda: damaged(saved(_kept()), pickle.dumps(_kept()))), _lists),
    Reader("teacher's lists, values", st.deferred(lambda: mangled(_kept(), TENSORS).map(saved)), _lists),
    Reader("records of runs", damaged(json.dumps({"config_sha256": "ab", "data_digest": "cd"}).encode()), _record),
)  # fmt: skip
