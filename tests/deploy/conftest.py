from collections.abc import Iterator

import httpx
import pytest

from kdrec.deploy.recommender import Deployed
from kdrec.deploy.server import application
from kdrec.models.bpr import BPR
from tests.serving import SECRET, TRAIN, deployed, listening


@pytest.fixture(scope="module")
def student(tmp_path_factory: pytest.TempPathFactory) -> Deployed:
    return deployed(tmp_path_factory.mktemp(SECRET) / "student.ckpt", BPR(4), TRAIN, "The student")


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Deployed:
    return deployed(tmp_path_factory.mktemp(SECRET) / "teacher.ckpt", BPR(9), TRAIN, "The teacher")


@pytest.fixture(scope="module")
def client(student: Deployed, teacher: Deployed) -> Iterator[httpx.Client]:
    with listening(application(student, teacher)) as url, httpx.Client(base_url=url, timeout=20) as client:
        yield client
