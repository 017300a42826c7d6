"""The teacher's lists: right in any form of streaming, and kept on disk for that teacher and data alone."""

import shutil
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from threading import Barrier

import numpy as np
import pytest
import torch
from torch import Tensor

from kdrec.data.interactions import Interactions
from kdrec.distillation import lists
from kdrec.distillation.base import Teacher
from kdrec.distillation.lists import ListSampler, Side, TopLists, top_lists
from kdrec.errors import InputError
from kdrec.models.bpr import BPR
from kdrec.models.popularity import Popularity
from tests.distillation.test_base import Vectorless
from tests.generated import generate

TRAIN = generate(num_users=12, num_items=20)
both_sides = pytest.mark.parametrize("side", ["users", "items"])


class Counting(BPR):
    """Notes for how many users it is asked at once."""

    def __init__(self, embedding_dim: int = 5) -> None:
        super().__init__(embedding_dim, init_std=1.0)
        self.asked: list[int] = []

    def score_all(self, users: Tensor, catalogue: Tensor | None = None) -> Tensor:
        self.asked.append(len(users))
        return super().score_all(users, catalogue)


def teacher_in(folder: Path, seed: int = 0, train: Interactions = TRAIN) -> Teacher:
    torch.manual_seed(seed)
    model = Counting()
    model.bind(train)
    return Teacher(model, str(folder / "best.ckpt"), f"{seed:064x}"[::-1])


def asked(teacher: Teacher) -> list[int]:
    assert isinstance(teacher.recommender, Counting)
    return teacher.recommender.asked


def dense(teacher: Teacher, train: Interactions, length: int, side: Side) -> TopLists:
    """The whole table, sorted."""
    scores = teacher.recommender.score_all(torch.arange(train.num_users)).detach().clone()
    scores[train.users.copy(), train.items.copy()] = -torch.inf
    best = (scores if side == "users" else scores.T).sort(dim=1, descending=True)
    values = best.values[:, :length]
    return TopLists(best.indices[:, :length].int().masked_fill(values == -torch.inf, -1), values)


def same(one: TopLists, other: TopLists) -> bool:
    return torch.equal(one.members, other.members) and torch.allclose(one.scores, other.scores)


def touched_by(counts: list[int], num_items: int) -> Interactions:
    """User u has touched the first counts[u] items."""
    pairs = np.array([(user, item) for user, count in enumerate(counts) for item in range(count)], dtype=np.int64)
    return Interactions(pairs[:, 0], pairs[:, 1], np.arange(len(counts)).astype(str), np.arange(num_items).astype(str))


# Computing


@both_sides
@pytest.mark.parametrize("length", [1, 3, 7, 500])
@pytest.mark.parametrize("scores_at_once", [1, 60, 1 << 20])
def test_streamed_is_dense(
    side: Side, length: int, scores_at_once: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kdrec.evaluation.chunks.CPU_BYTES", 4 * scores_at_once)
    monkeypatch.setattr("kdrec.evaluation.chunks.CPU_USERS", 1)
    monkeypatch.setattr("kdrec.distillation.lists._ITEMS", 8)  # the last 4 of 20 are joined apart
    teacher = teacher_in(tmp_path)
    found = top_lists(teacher, TRAIN, length, side)
    assert max(asked(teacher)) == min(max(1, scores_at_once // 20), 12)
    assert found.members.shape == ((12, min(length, 20)) if side == "users" else (20, min(length, 12)))
    assert found.members.dtype == torch.int32
    assert same(found, dense(teacher, TRAIN, length, side))


@both_sides
def test_lists_end_where_nothing_is_left(side: Side, tmp_path: Path) -> None:
    train = touched_by([0, 3, 4, 5], num_items=5)
    members = top_lists(teacher_in(tmp_path, train=train), train, 4, side).members
    left = [4, 2, 1, 0] if side == "users" else [1, 1, 1, 2, 3]
    assert (members >= 0).sum(1).tolist() == left
    assert [(row[:number] >= 0).all().item() for row, number in zip(members, left, strict=True)] == [True] * len(left)


@both_sides
def test_teachers_without_vectors_have_lists(side: Side) -> None:
    for model in (Popularity(), Vectorless(3, init_std=1.0)):
        model.bind(TRAIN)
        found = top_lists(Teacher(model), TRAIN, 6, side)
        torch.testing.assert_close(found.scores, dense(Teacher(model), TRAIN, 6, side).scores)


# Keeping


def kept(folder: Path) -> list[Path]:
    return sorted((folder / "lists").glob("*.pt"))


def test_computed_once_for_each_teacher_data_side_and_length(tmp_path: Path) -> None:
    first = teacher_in(tmp_path)
    made = top_lists(first, TRAIN, 4)
    again = teacher_in(tmp_path)
    assert same(top_lists(again, TRAIN, 4), made)
    assert asked(first)
    assert not asked(again)
    others = generate(num_users=12, num_items=20, seed=1)
    for teacher, train, length, side in (
        (teacher_in(tmp_path), TRAIN, 4, "items"),
        (teacher_in(tmp_path), TRAIN, 5, "users"),
        (teacher_in(tmp_path, seed=1), TRAIN, 4, "users"),
        (teacher_in(tmp_path), others, 4, "users"),
    ):
        assert same(top_lists(teacher, train, length, side), dense(teacher, train, length, side))  # type: ignore[arg-type]
    assert len(kept(tmp_path)) == 5
    assert not list((tmp_path / "lists").glob(".*.part"))


@pytest.mark.parametrize("other", ["teacher", "data"])
def test_a_file_of_another_teacher_or_data_is_refused(other: str, tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    train = replace(TRAIN, item_ids=TRAIN.item_ids[::-1]) if other == "data" else TRAIN
    top_lists(teacher_in(tmp_path, seed=int(other == "teacher")), train, 4)
    top_lists(teacher_in(tmp_path / "there"), TRAIN, 4)
    [foreign], [ours] = kept(tmp_path), kept(tmp_path / "there")
    shutil.copy(foreign, ours)
    with pytest.raises(InputError) as error:
        top_lists(teacher_in(tmp_path / "there"), TRAIN, 4)
    assert str(error.value) == (
        f"{ours} holds the lists of another teacher or of other data than its name says; "
        f"delete it, and it is made again."
    )


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    place = content.index(torch.load(path)["members"].numpy().tobytes()) + 5
    content[place] ^= 1
    path.write_bytes(content)


def rewrite(path: Path, **changes: object) -> None:
    torch.save(torch.load(path) | changes, path)


class Trap:
    """Runs code as it is unpickled."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return pytest.fail, ("code in a file was run",)


@pytest.mark.parametrize(
    "damage",
    [
        lambda path: path.write_bytes(path.read_bytes()[:-200]),
        lambda path: path.write_bytes(b""),
        lambda path: path.write_bytes(b"<html>not found</html>"),
        flip,
        lambda path: rewrite(path, members=Trap()),
        lambda path: rewrite(path, scores=None),
        lambda path: rewrite(path, members=torch.zeros(12, 3, dtype=torch.int32)),
        lambda path: rewrite(path, members=torch.full((12, 4), 20, dtype=torch.int32)),
        lambda path: rewrite(path, members=torch.full((12, 4), -2, dtype=torch.int32)),
        lambda path: rewrite(path, scores=torch.zeros(12, 4, dtype=torch.float64)),
    ],
    ids=["cut", "empty", "page", "flipped", "code", "lacking", "shape", "above", "below", "type"],
)
def test_a_damaged_file_is_made_again(damage: object, tmp_path: Path) -> None:
    top_lists(teacher_in(tmp_path), TRAIN, 4)
    [path] = kept(tmp_path)
    damage(path)  # type: ignore[operator]
    teacher = teacher_in(tmp_path)
    assert same(top_lists(teacher, TRAIN, 4), dense(teacher, TRAIN, 4, "users"))
    again = teacher_in(tmp_path)
    top_lists(again, TRAIN, 4)
    assert not asked(again), "the file is whole now"


def forbid(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make nothing writable; root, who may run tests, ignores permissions."""

    def refuse(*args: object, **options: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(lists, "FileLock", refuse)
    monkeypatch.setattr(torch, "save", refuse)


def test_where_nothing_can_be_written_nothing_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    forbid(monkeypatch)
    teacher = teacher_in(tmp_path)
    assert same(top_lists(teacher, TRAIN, 4), dense(teacher, TRAIN, 4, "users"))
    assert not kept(tmp_path)


def test_where_nothing_can_be_written_what_is_there_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = top_lists(teacher_in(tmp_path), TRAIN, 4)
    forbid(monkeypatch)
    teacher = teacher_in(tmp_path)
    assert same(top_lists(teacher, TRAIN, 4), made)
    assert not asked(teacher)


def test_a_file_in_the_folders_place_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "lists").write_text("mine")
    assert top_lists(teacher_in(tmp_path), TRAIN, 4).members.shape == (12, 4)
    assert (tmp_path / "lists").read_text() == "mine"


def test_a_full_disk_leaves_nothing_half_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(content: object, path: Path) -> None:
        path.write_bytes(b"half")
        raise RuntimeError("unexpected pos 64 vs 0")

    monkeypatch.setattr(torch, "save", full)
    assert top_lists(teacher_in(tmp_path), TRAIN, 4).members.shape == (12, 4)
    assert not [path for path in (tmp_path / "lists").iterdir() if path.suffix != ".lock"]


def test_one_computes_and_the_others_wait(tmp_path: Path) -> None:
    """In threads, whose locks exclude each other as those of processes do."""
    teachers, together = [teacher_in(tmp_path) for _ in range(3)], Barrier(3)

    def read(teacher: Teacher) -> TopLists:
        together.wait()
        return top_lists(teacher, TRAIN, 4)

    with ThreadPoolExecutor(3) as pool:
        found = list(pool.map(read, teachers))
    assert all(same(found[0], other) for other in found)
    assert sum(bool(asked(teacher)) for teacher in teachers) == 1


# Drawing


@both_sides
def test_a_list_is_at_most_half_of_what_is_left(side: Side) -> None:
    train = touched_by([0, 3, 4, 5], num_items=5)
    teacher = BPR(3, init_std=1.0)
    teacher.bind(train)
    sampler = ListSampler(top_lists(Teacher(teacher), train, 4, side).members, train, side)
    listed = [[member for member in row if member >= 0] for row in sampler.lists.tolist()]
    assert [len(row) for row in listed] == ([2, 1, 0, 0] if side == "users" else [0, 0, 0, 1, 1])
    drawn = sampler.uninteresting(200)
    touched = list(zip(train.users.tolist(), train.items.tolist(), strict=True))
    for owner, row in enumerate(listed):
        pairs = touched if side == "users" else [(item, user) for user, item in touched]
        free = set(range(5 if side == "users" else 4)) - {other for one, other in pairs if one == owner} - set(row)
        assert set(drawn[owner].tolist()) == (free or {-1})


@pytest.mark.parametrize("near", [lists._NEAR, 0.0], ids=["all near", "one far"])
def test_a_draw_by_rank_takes_all_of_a_short_list(near: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lists, "_NEAR", near)
    train = touched_by([0, 0, 4], num_items=6)
    members = torch.tensor([[4, 2, 1, 0], [1, 0, 2, 3], [5, -1, -1, -1]], dtype=torch.int32)
    drawn = ListSampler(members, train).interesting(3, temperature=2.0)
    assert drawn.tolist() == [[4, 2, 1], [1, 0, 2], [5, -1, -1]]
    assert drawn.dtype == torch.int64


def test_the_uninteresting_are_drawn_evenly() -> None:
    train = touched_by([4, 0], num_items=40)
    members = torch.tensor([[30, 5, 39], [1, 2, 3]], dtype=torch.int32)
    torch.manual_seed(0)
    counts = torch.bincount(ListSampler(members, train).uninteresting(33_000)[0], minlength=40)
    assert counts[[0, 1, 2, 3, 5, 30, 39]].sum() == 0
    free = counts[counts > 0].double()
    assert len(free) == 33
    assert ((free - 1000).square() / 1000).sum() < 62.5  # chi-square of 32 degrees, 0.1 %
