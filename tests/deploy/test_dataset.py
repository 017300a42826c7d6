import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from kdrec.deploy.dataset import data_of
from kdrec.errors import InputError
from tests.deploy import byhand

pytestmark = pytest.mark.usefixtures("workplace")


def section(**changes: Any) -> dict[str, Any]:
    return torch.load(byhand.save("one", byhand.TEACHER, **changes), weights_only=True)["kdrec"]


def test_the_data_of_the_file() -> None:
    found = data_of("one.ckpt", section())
    assert found.split.test.items.tolist() == [1, 2, 3, 0]
    assert found.eval_batch_size == 3
    assert found.splitter.min_interactions == byhand.data().splitter.min_interactions


def test_data_that_is_not_there() -> None:
    said = section()
    shutil.rmtree("data")
    with pytest.raises(InputError, match=r"There is no train\.tsv in data/byhand"):
        data_of("one.ckpt", said)


def test_other_data() -> None:
    said = section()
    file = Path("data/byhand/train.tsv")
    file.write_text(file.read_text() + "b\ti4\n")
    with pytest.raises(InputError, match=r"one\.ckpt was trained on byhand/ready-made, full ranking \(.{8}\), and the"):
        data_of("one.ckpt", said)


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        ({"class_path": "kdrec.models.bpr.BPR"}, "is damaged: kdrec.models.bpr.BPR is not a InteractionDataModule"),
        ({"class_path": "kdrec.data.files.InteractionFiles"}, "cannot be made .*missing 2 required positional"),
        ({"class_path": "subprocess.Popen2"}, "there is no class subprocess.Popen2"),
        ({"class_path": "antigravity.fly"}, "which kdrec does not import on a file's word"),
    ],
)
def test_a_section_that_was_tampered_with(data: dict[str, Any], sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        data_of("one.ckpt", section(data=data))
