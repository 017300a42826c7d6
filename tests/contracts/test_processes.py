"""N processes with batches of B do what one does with batches of N * B: any model, and any method over all of them."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.commandline import ROOT
from tests.processes import BATCH, EPOCHS, Case, cases, data, prepare, sharded_cases, train

CASES = cases()
APART = [case for case in CASES if case.options.get("topology_scope") == "rank"]
EXACT = [case for case in CASES if case not in APART]
SHARDED = sharded_cases()
Left = dict[str, Any]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What two processes left of all cases; they are started once, by torchrun."""
    made = tmp_path_factory.mktemp("processes")
    prepare(made)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    done = subprocess.run(
        [*command, "-m", "tests.processes", str(made)], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return made


@pytest.fixture(scope="module")
def two(folder: Path) -> list[dict[str, Left]]:
    """What each of the two left."""
    return [torch.load(folder / f"{rank}.pt") for rank in range(2)]


def difference(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> float:
    """Return the largest difference between tensors of the same names, relative to the largest numbers above 1."""
    assert one.keys() == other.keys()
    return max(
        ((value - other[name]).abs().max().item() / max(1.0, value.abs().max().item()) for name, value in one.items()),
        default=0.0,
    )


def test_there_are_cases() -> None:
    assert {"BPR Adam", "BPR FTD all global Adam"} <= {str(case) for case in EXACT}
    assert {"BPR SGD sharded", "NeuMF SGD sharded", "BPR FTD global LazyAdam sharded"} <= set(map(str, SHARDED))
    assert len(data(1).split.train) % BATCH == 1  # one process has nothing of the last batch


@pytest.mark.parametrize("case", EXACT, ids=str)
def test_two_processes_are_one(case: Case, folder: Path, two: list[dict[str, Left]]) -> None:
    one = train(case, folder, 1)
    ours, theirs = (left[str(case)] for left in two)
    assert difference(ours["weights"], theirs["weights"]) == 0.0
    assert len(one["losses"]) == len(ours["losses"]) == 5 * EPOCHS
    assert ours["losses"] == pytest.approx(one["losses"], rel=1e-5)
    assert difference(one["gradients"], ours["gradients"]) < 1e-5
    assert difference(one["weights"], ours["weights"]) < 1e-5
    for left in (ours, theirs):
        assert {name: f"{value:.4f}" for name, value in left["metrics"].items()} == {
            name: f"{value:.4f}" for name, value in one["metrics"].items()
        }


@pytest.mark.parametrize("case", APART, ids=str)
def test_topologies_of_single_batches_are_another_training(
    case: Case, folder: Path, two: list[dict[str, Left]]
) -> None:
    """Or the tolerances above would mean nothing."""
    assert difference(train(case, folder, 1)["weights"], two[0][str(case)]["weights"]) > 1e-3


@pytest.mark.parametrize("case", SHARDED, ids=str)
def test_divided_tables_are_those_of_one(case: Case, folder: Path, two: list[dict[str, Left]]) -> None:
    one = train(case, folder, 1)
    for rank, left in enumerate(part[str(case)] for part in two):
        assert len(one["losses"]) == len(left["losses"]) == 5 * EPOCHS
        assert left["losses"] == pytest.approx(one["losses"], rel=1e-5)
        for kind in ("gradients", "weights"):
            tables = {name for name, value in one[kind].items() if value.shape != left[kind][name].shape}
            assert tables == {f"recommender.{name}.weight" for name in case.model.lookup_tables}
            own = {name: value[rank::2] if name in tables else value for name, value in one[kind].items()}
            assert difference(own, left[kind]) < 1e-5
        assert 2 * left["bytes"] == one["bytes"]
        assert {name: f"{value:.4f}" for name, value in left["metrics"].items()} == {
            name: f"{value:.4f}" for name, value in one["metrics"].items()
        }


def test_a_divided_table_of_seven_rows(two: list[dict[str, Left]]) -> None:
    first, second = (left["lookups"] for left in two)
    table = torch.arange(14.0).view(7, 2)
    assert first["found"].tolist() == [[[12.0, 13.0], [0.0, 1.0]], [[6.0, 7.0], [6.0, 7.0]]]
    assert second["found"].shape == (0, 2)
    # d/dx of x * x a lookup, averaged over two processes; the second one's fourth row is none
    assert first["gradient"].tolist() == [[0.0, 1.0], [0.0, 0.0], [0.0, 0.0], [12.0, 13.0]]
    assert second["gradient"].tolist() == [[0.0, 0.0], [12.0, 14.0], [0.0, 0.0], [0.0, 0.0]]
    assert first["whole"].tolist() == second["whole"].tolist() == first["gathered"].tolist() == table.tolist()
    assert second["gathered"].tolist() == [*table[1::2].tolist(), [0.0, 0.0]]
    assert (first["own"].tolist(), second["own"].tolist()) == ([[8.0, 9.0]], [[10.0, 11.0]])
    assert "divided over 2 processes" in first["refused"]
    assert first["refused"] == second["refused"]


def test_a_union_is_the_same_everywhere(two: list[dict[str, Left]]) -> None:
    assert two[0]["unions"] == two[1]["unions"] == {"some": [0, 2, 4, 9], "one": [3, 5], "none": []}


def test_a_divided_model_is_tested_from_its_checkpoint_too(two: list[dict[str, Left]]) -> None:
    for left in two:
        [[own], [loaded]] = left["again"]["tested"]
        assert own == loaded


def test_all_processes_hear_of_a_weight_that_is_no_number(two: list[dict[str, Left]]) -> None:
    for left in two:
        assert "recommender.items.weight holds numbers that are not finite" in left["again"]["refused"]
