import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from kdrec.deploy.export import export
from kdrec.deploy.lineup import open_contenders, short_names
from kdrec.errors import InputError
from kdrec.evaluation.evaluate import ranking_of
from kdrec.evaluation.ranking import CatalogueRanking
from kdrec.models.checkpoint import PREFIX
from kdrec.models.graph import Graph
from kdrec.models.lightgcn import LightGCN
from kdrec.models.section import describe
from tests.deploy import byhand

pytestmark = pytest.mark.usefixtures("workplace")


def test_lists_alone_and_together_are_the_same() -> None:
    path = byhand.save("student", byhand.STUDENT)
    export(path, "onnx", output=Path("student-onnx"), k=2)
    ranking = ranking_of(byhand.data().split, "test")
    for contender in open_contenders([path, Path("student-onnx")]):
        together = contender.together(ranking, 2)(torch.arange(4))
        assert together.tolist() == [[2, 1], [2, 3], [3, 4], [4, 1]]
        alone = contender.alone(ranking, 2)
        assert torch.cat([alone(user) for user in torch.arange(4).split(1)]).tolist() == together.tolist()
        assert alone(torch.tensor([0])).tolist() == [[2, 1]]  # hiding changed nothing for later calls


def test_a_graph_is_propagated_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not for each user that is timed."""
    smoothed: list[Graph] = []
    smooth = Graph.smooth

    def count(self: Graph, *args: Any) -> Any:
        smoothed.append(self)
        return smooth(self, *args)

    monkeypatch.setattr(Graph, "smooth", count)
    path = byhand.save("student", byhand.STUDENT)
    content = torch.load(path, weights_only=True)
    train = byhand.data().split.train
    model = LightGCN(6)
    model.bind(train)
    content["kdrec"] |= describe(model, train)
    content["state_dict"] = {PREFIX + key: value for key, value in model.state_dict().items()}
    torch.save(content, path)
    ranking = ranking_of(byhand.data().split, "test")
    [contender] = open_contenders([path])
    alone, together = contender.alone(ranking, 2), contender.together(ranking, 2)
    lists = torch.cat([alone(user) for user in torch.arange(4).split(1)])
    assert lists.tolist() == together(torch.arange(4)).tolist()
    assert len(smoothed) == 1


def test_users_who_have_seen_nothing() -> None:
    path = byhand.save("student", byhand.STUDENT)
    export(path, "onnx", output=Path("student-onnx"), k=2)
    split = byhand.data().split
    ranking = CatalogueRanking(split.test, [split.valid.subset(np.array([0]))])  # hides i5 from user 0 alone
    for contender in open_contenders([path, Path("student-onnx")]):
        for lister in (contender.together(ranking, 1), contender.alone(ranking, 1)):
            assert [lister(torch.tensor([user])).item() for user in range(4)] == [4, 1, 2, 3]


def test_an_onnx_export() -> None:
    path = byhand.save("student", byhand.STUDENT)
    for quantize in (None, "int8"):
        export(path, "onnx", quantize, output=(folder := Path(f"student-{quantize}")), k=2)
        checkpoint, exported = open_contenders([folder, path])  # the reference is a checkpoint
        assert (checkpoint.path, exported.path) == (path, folder)
        assert (exported.protocol, exported.data_digest) == (checkpoint.protocol, checkpoint.data_digest)
        assert exported.parameters == checkpoint.parameters == 60
        names = ("users.onnx", "strangers.onnx", "tables.bin")
        assert exported.bytes_of_model == sum((folder / name).stat().st_size for name in names)
        assert exported.bytes_on_disk == sum(file.stat().st_size for file in folder.iterdir())
    assert open_contenders([path], folder)[0].path == folder


@pytest.mark.parametrize("said", [0, -1, 1e999, None])
def test_the_size_of_an_export_is_that_of_its_files(said: object) -> None:
    path = byhand.save("student", byhand.STUDENT)
    export(path, "onnx", output=Path("student-onnx"), k=2)
    true = open_contenders([path, Path("student-onnx")])[1]
    manifest = Path("student-onnx/manifest.json")
    edited = json.loads(manifest.read_text())
    for part in edited["files"].values():
        part["bytes"] = said
    manifest.write_text(json.dumps(edited))
    found = open_contenders([path, Path("student-onnx")])[1]
    assert found.bytes_of_model == true.bytes_of_model
    assert found.bytes_on_disk == sum(file.stat().st_size for file in Path("student-onnx").iterdir())


def test_exports_that_are_of_no_use() -> None:
    path = byhand.save("student", byhand.STUDENT)
    for name, kind in (("onnx", "onnx"), ("tensors", "safetensors"), ("damaged", "onnx")):
        export(path, kind, output=Path(name), k=2)
    with pytest.raises(InputError, match=r"^onnx is an export, which does not say how it was evaluated; name a check"):
        open_contenders([Path("onnx")])
    with pytest.raises(InputError, match=r"^tensors is an export to safetensors; only checkpoints and ONNX exports"):
        open_contenders([path, Path("tensors")])
    sampled = byhand.save("sampled", byhand.STUDENT, protocol="byhand/ready-made, ranking among 1 sampled items")
    with pytest.raises(InputError, match="and onnx for byhand/ready-made, full ranking; numbers of two protocols"):
        open_contenders([sampled, Path("onnx")])
    manifest = Path("damaged/manifest.json")
    whole = manifest.read_text()
    for said, edited in (('"protocol"', '"protocoll"'), ('"num_users": 4', '"num_users": -4')):
        assert said in whole
        manifest.write_text(whole.replace(said, edited))
        with pytest.raises(InputError, match=r"^damaged is damaged; make the export again"):
            open_contenders([path, Path("damaged")])
    Path("onnx/tables.bin").write_bytes(b"")
    with pytest.raises(InputError, match=r"tables\.bin is not what was exported"):
        open_contenders([path, Path("onnx")])


def test_an_export_of_other_data() -> None:
    export(byhand.save("student", byhand.STUDENT), "onnx", output=Path("onnx"), k=2)
    other = byhand.save("other", byhand.STUDENT, data_digest="0123456789abcdef")
    with pytest.raises(InputError, match=r"but their training data differ \(01234567 and .{8}\); compare"):
        open_contenders([other, Path("onnx")])


def test_other_protocols_data_and_evaluations() -> None:
    one = byhand.save("one", byhand.TEACHER)
    for changes, sentence in (
        ({"protocol": "foreign/leave-one-out"}, "and other.ckpt for foreign/leave-one-out; numbers of two protocols"),
        ({"data_digest": "0123456789abcdef"}, "and 01234567); compare models of the same data."),
        ({"evaluation": {"cutoffs": [5], "num_candidates": None}}, "{'cutoffs': [5], 'num_candidates': None}; compare"),
    ):
        with pytest.raises(InputError) as error:
            open_contenders([one, byhand.save("other", byhand.STUDENT, **changes)])
        assert str(error.value).startswith("one.ckpt was made for byhand/ready-made, full ranking and other.ckpt for ")
        assert sentence in str(error.value)


def test_the_same_file_twice() -> None:
    one = byhand.save("one", byhand.TEACHER)
    Path("link.ckpt").symlink_to(one)
    for again in (one, one.absolute(), Path("link.ckpt")):
        with pytest.raises(InputError, match=f"^one.ckpt and {again} are the same file; name each once.$"):
            open_contenders([one, again])


def test_nothing_and_no_checkpoint() -> None:
    with pytest.raises(InputError, match="name one checkpoint at least"):
        open_contenders([])
    Path("poem.ckpt").write_text("There was")
    with pytest.raises(InputError, match=r"poem\.ckpt cannot be read as a checkpoint"):
        open_contenders([byhand.save("one", byhand.TEACHER), Path("poem.ckpt")])
    with pytest.raises(InputError, match=r"There is no checkpoint nowhere\.ckpt"):
        open_contenders([byhand.save("one", byhand.TEACHER)], Path("nowhere.ckpt"))


@pytest.mark.parametrize(
    ("paths", "names"),
    [
        (["runs/bpr/7/best.ckpt"], ["bpr"]),
        (["runs/bpr/7/best.ckpt", "runs/bpr/7/last.ckpt"], ["bpr/best.ckpt", "bpr/last.ckpt"]),
        (["study/cells/teacher/last.ckpt", "study/cells/FTD/last.ckpt", "out/int8"], ["teacher", "FTD", "int8"]),
        (["bpr/1/best.ckpt", "bpr/1/last.ckpt", "ncf/1/best.ckpt"], ["bpr/best.ckpt", "bpr/last.ckpt", "ncf"]),
        (["bpr/1/best.ckpt", "bpr/1/best-onnx", "ncf/2/best.ckpt"], ["bpr/best.ckpt", "best-onnx", "ncf"]),
        (["a/teacher.ckpt", "b/c/student.ckpt"], ["teacher.ckpt", "student.ckpt"]),
        (["/1/best.ckpt", "/2/best.ckpt"], ["1/best.ckpt", "2/best.ckpt"]),
        (["/a/x", "/a/x/best.ckpt"], ["a/x", "x/best.ckpt"]),
    ],
)
def test_short_names(paths: list[str], names: list[str]) -> None:
    assert short_names([Path(path) for path in paths]) == names
