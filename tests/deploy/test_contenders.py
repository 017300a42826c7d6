from pathlib import Path

import pytest
import torch

from kdrec.deploy.contenders import open_contenders, short_names
from kdrec.errors import InputError
from kdrec.evaluation.evaluate import ranking_of
from tests.deploy import byhand

pytestmark = pytest.mark.usefixtures("workplace")


def test_lists_alone_and_together_are_the_same() -> None:
    [contender] = open_contenders([byhand.save("student", byhand.STUDENT)])
    ranking = ranking_of(byhand.data().split, "test")
    together = contender.together(ranking, 2)(torch.arange(4))
    assert together.tolist() == [[2, 1], [2, 3], [3, 4], [4, 1]]
    alone = contender.alone(ranking, 2)
    assert torch.cat([alone(user) for user in torch.arange(4).split(1)]).tolist() == together.tolist()
    assert alone(torch.tensor([0])).tolist() == [[2, 1]]  # the catalogue was not changed by hiding


def test_other_protocols_data_and_evaluations() -> None:
    one = byhand.save("one", byhand.TEACHER)
    digest = "0123456789abcdef"
    for changes, sentence in (
        ({"protocol": "foreign/leave-one-out"}, "and other.ckpt for foreign/leave-one-out; numbers of two protocols"),
        ({"data_digest": digest}, "and 01234567); compare checkpoints of the same."),
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
    with pytest.raises(InputError, match=r"poem\.ckpt holds more than tensors and plain values"):
        open_contenders([byhand.save("one", byhand.TEACHER), Path("poem.ckpt")])
    with pytest.raises(InputError, match=r"There is no checkpoint nowhere\.ckpt"):
        open_contenders([byhand.save("one", byhand.TEACHER)], Path("nowhere.ckpt"))


@pytest.mark.parametrize(
    ("paths", "names"),
    [
        (["runs/bpr/7/best.ckpt"], ["runs/bpr/7/best.ckpt"]),
        (["runs/bpr/7/best.ckpt", "runs/bpr/7/last.ckpt"], ["best.ckpt", "last.ckpt"]),
        (["cells/teacher/last.ckpt", "cells/FTD/last.ckpt"], ["teacher", "FTD"]),
        (["bpr/1/best.ckpt", "bpr/1/last.ckpt", "ncf/1/best.ckpt"], ["bpr/1/best.ckpt", "bpr/1/last.ckpt", "ncf"]),
        (["a/x", "a/x/best.ckpt"], ["x", "x/best.ckpt"]),
    ],
)
def test_short_names(paths: list[str], names: list[str]) -> None:
    assert short_names([Path(path) for path in paths]) == names
