import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from kdrec.data.splits import Split
from kdrec.distillation.base import Teacher
from kdrec.distillation.lists import top_lists
from kdrec.errors import InputError
from kdrec.evaluation.chunks import in_chunks, is_out_of_memory
from kdrec.evaluation.evaluate import evaluate
from kdrec.evaluation.ranking import CatalogueRanking
from kdrec.models.bpr import BPR

ERRORS = {
    "GPU": lambda: torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB."),
    "CPU": lambda: RuntimeError("[enforce fail at alloc_cpu.cpp:118] DefaultCPUAllocator: can't allocate memory: you"),
    "Python": MemoryError,
}
every_error = pytest.mark.parametrize("error", ERRORS.values(), ids=ERRORS.keys())


def test_the_budget_divides_the_users(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kdrec.evaluation.chunks.CPU_BYTES", 100)
    monkeypatch.setattr("kdrec.evaluation.chunks.CPU_USERS", 2)
    assert in_chunks(Tensor.tolist, torch.arange(7), 30) == [[0, 1, 2], [3, 4, 5], [6]]
    assert in_chunks(Tensor.tolist, torch.arange(3), 1000) == [[0, 1], [2]]
    assert in_chunks(Tensor.tolist, torch.arange(0), 30) == [[]]


@every_error
def test_a_chunk_that_is_too_large_is_halved(error: Callable[[], Exception]) -> None:
    asked: list[int] = []

    def work(users: Tensor) -> list[int]:
        asked.append(len(users))
        if len(users) > 3:
            raise error()
        return users.tolist()

    results = in_chunks(work, torch.arange(10), 1)
    assert [user for part in results for user in part] == list(range(10))
    assert asked == [10, 5, 2, 2, 2, 2, 2]  # and it stays small


@every_error
def test_one_user_who_is_too_many_is_said(error: Callable[[], Exception]) -> None:
    def work(users: Tensor) -> None:
        raise error()

    with pytest.raises(InputError, match="memory of cpu does not suffice to score the catalogue for one user"):
        in_chunks(work, torch.arange(10), 4)


def test_other_errors_are_not_swallowed() -> None:
    def work(users: Tensor) -> None:
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    with pytest.raises(RuntimeError, match="shapes"):
        in_chunks(work, torch.arange(10), 4)


def test_what_torch_says_on_a_cpu_is_understood() -> None:
    with pytest.raises(RuntimeError) as caught:
        torch.empty(1 << 60, dtype=torch.uint8)
    assert is_out_of_memory(caught.value)


class Greedy(BPR):
    """A model whose scores fit only for so many users."""

    most = 4
    refused = 0

    def score_all(self, users: Tensor, catalogue: Tensor | None = None) -> Tensor:
        if len(users) > self.most:
            self.refused += 1
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return super().score_all(users, catalogue)


def greedy(split: Split, most: int) -> Greedy:
    torch.manual_seed(0)
    model = Greedy(4, init_std=1.0)
    model.bind(split.train)
    model.most = most
    return model.eval()


def test_an_evaluation_survives_and_finds_the_same(split: Split) -> None:
    means, users = evaluate(greedy(split, 99), split, "test", (5, 10))
    same, alike = evaluate(greedy(split, 4), split, "test", (5, 10))
    assert same == means
    assert alike.equals(users)
    model = greedy(split, 4)
    CatalogueRanking(split.test, [split.train], num_candidates=10).top_items(model, torch.arange(30), 5)
    assert model.refused == 3  # 30, 15, 7


@pytest.mark.parametrize("side", ["users", "items"])
def test_a_teachers_lists_survive_and_are_the_same(split: Split, side: str) -> None:
    expected = top_lists(Teacher(greedy(split, 99)), split.train, 7, side)  # type: ignore[arg-type]
    found = top_lists(Teacher(greedy(split, 4)), split.train, 7, side)  # type: ignore[arg-type]
    torch.testing.assert_close(found.scores, expected.scores)
    assert torch.equal(found.members, expected.members)


def test_memory_that_is_really_short(tmp_path: Path) -> None:
    """In a process that may hold 256 MiB more than it does, 64 users' scores of 2.5 million items are asked for."""
    program = """
import resource, torch
import kdrec.evaluation.chunks as chunks
from kdrec.evaluation.ranking import top_k
torch.set_num_threads(1)
catalogue, vectors = torch.randn(2_500_000, 1), torch.randn(64, 1)
held = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (held + (256 << 20),) * 2)
chunks.CPU_BYTES, sizes = 1 << 40, []
def work(users):
    sizes.append(len(users))
    return top_k(vectors[users] @ catalogue.T, 10)[1]
found = torch.cat(chunks.in_chunks(work, torch.arange(64), 4 * len(catalogue)))
best = catalogue.flatten().topk(10).indices
worst = (-catalogue.flatten()).topk(10).indices
assert torch.equal(found, torch.where(vectors > 0, best, worst)), "other lists"
print(sizes[0], sizes[-1], len(sizes))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    first, last, calls = map(int, done.stdout.split())
    assert (first, last) in ((64, 16), (64, 8)), calls
