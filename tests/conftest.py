import os

import pytest
import torch

from kdrec.data.interactions import Interactions
from kdrec.data.splits import LeaveOneOut, Split
from tests.generated import generate

torch.set_num_threads(1)
# ranx, the oracle of the metrics, compiles for half a minute in a fresh environment and then runs for milliseconds
os.environ.setdefault("NUMBA_DISABLE_JIT", "1")


@pytest.fixture
def interactions() -> Interactions:
    return generate()


@pytest.fixture
def split(interactions: Interactions) -> Split:
    return LeaveOneOut("time")(interactions)


@pytest.fixture(autouse=True)
def _no_data_folder(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    """Let no data set on this machine change what a default test sees."""
    if "slow" not in request.keywords:
        monkeypatch.delenv("KDREC_DATA", raising=False)
