"""The teacher's top lists: computed once, streamed over users, and kept beside its checkpoint by digest."""

import math
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import torch
from filelock import FileLock
from torch import Tensor

from kdrec.data.interactions import Interactions
from kdrec.data.sampling import OutsideSampler
from kdrec.distillation.base import Teacher
from kdrec.documents import replacing
from kdrec.errors import InputError
from kdrec.evaluation.chunks import budget, in_chunks
from kdrec.evaluation.ranking import PairIndex, top_k
from kdrec.models.checkpoint import load_plain

FOLDER = "lists"
"""Folder beside a teacher's checkpoint that keeps its lists."""

Side = Literal["users", "items"]

_ITEMS = 1 << 10  # whose best users are joined together
_NEAR = 10.0  # temperatures behind the number drawn: what is farther comes in time once in a thousand draws


class TopLists(NamedTuple):
    """The best of what is not in the training data, best first.

    Attributes:
        members: (n, length) int32: of each user the best items, or of each item the best users; -1 behind the last
            where there are fewer.
        scores: (n, length) float32, the teacher's; -inf there.
    """

    members: Tensor
    scores: Tensor


def top_lists(teacher: Teacher, train: Interactions, length: int, side: Side = "users") -> TopLists:
    """Return the teacher's lists, from disk if they were made before; any recommender can be the teacher.

    Args:
        teacher: Read from a file, whose folder keeps the lists; one without a file keeps none.
        train: Pairs that no list holds.
        length: Of each list, at most.
        side: "users" lists items for every user, "items" users for every item.

    Returns:
        The lists, on the CPU, no longer than there are items or users.

    Raises:
        InputError: If the file of these lists holds those of another teacher or of other data.

    Side effects: reads or writes ``lists/`` beside the teacher's checkpoint. A damaged file is made again; where
    nothing can be written, nothing is kept. Of several processes one computes and the others wait.
    """
    length = min(length, train.num_items if side == "users" else train.num_users)
    if not teacher.path:
        return _compute(teacher, train, length, side)
    name = f"{teacher.digest[:16]}-{train.digest[:16]}-{side}-{length}.pt"
    path = Path(teacher.path).parent / FOLDER / name
    with _one_at_a_time(path):
        found = _read(path, teacher, train, length, side)
        if found is None:
            found = _compute(teacher, train, length, side)
            with suppress(OSError, RuntimeError):  # the second is how torch says that a disk is full
                _write(path, teacher, train, found)
        return found


class ListSampler:
    """Draw interesting and uninteresting partners for everybody at once, on the CPU.

    A list is cut to half of what its owner has not touched, so that something is left to be uninteresting.

    Args:
        lists: (n, length), the teacher's members, best first.
        train: Pairs that are neither.
        side: Whom the lists are for.
    """

    def __init__(self, lists: Tensor, train: Interactions, side: Side = "users") -> None:
        rows, columns, num_columns = train.users, train.items, train.num_items
        if side == "items":
            rows, columns, num_columns = columns, rows, train.num_users
        touched = rows * num_columns + columns
        free = num_columns - np.bincount(rows, minlength=len(lists))
        places = torch.arange(lists.shape[1], device="cpu")
        self.lists = lists.masked_fill(places >= torch.from_numpy(free // 2).unsqueeze(1), -1)
        listed = (torch.arange(len(lists), device="cpu").unsqueeze(1) * num_columns + self.lists)[self.lists >= 0]
        keys = np.concatenate((touched, listed.numpy()))
        keys.sort(kind="stable")
        offsets = np.concatenate(([0], np.bincount(keys // num_columns, minlength=len(lists)).cumsum()))
        self._others = OutsideSampler(offsets, keys % num_columns, num_columns)

    def interesting(self, number: int, temperature: float | None = None) -> Tensor:
        """Return (n, number) int64 of the lists in the teacher's order; -1 behind the last where there are fewer.

        Args:
            number: How many, at most the lists' length.
            temperature: None takes the first ones. Else they are drawn without replacement, with p proportional to
                exp(-rank / temperature).
        """
        if temperature is None:
            return self.lists[:, :number].long()
        places = self._earliest(number, temperature).sort(1).values
        return self.lists.gather(1, places).long()

    def _earliest(self, number: int, temperature: float) -> Tensor:
        """Return (n, number), the places of a list that ring first, if each rings after an exponential time.

        Such is a draw without replacement. With rates exp(-rank / temperature) the far places hardly ever are among the
        first, so only the near ones have their times drawn, and of the far ones the first, which rings at the sum of
        their rates. Where that one comes in time all are looked at: the others ring after it, as if they began then.
        Times are kept as logarithms.
        """

        def rings(*shape: int) -> Tensor:
            return torch.empty(shape, device="cpu").exponential_().log_()

        late = torch.arange(1, self.lists.shape[1] + 1, device="cpu") / temperature
        near = min(number + math.ceil(min(_NEAR * temperature, len(late))), len(late))
        times = rings(len(self.lists), near).add_(late[:near]).masked_fill_(self.lists[:, :near] < 0, torch.inf)
        last, places = times.topk(number, largest=False)
        if near == len(late):
            return places
        first = rings(len(self.lists)) - torch.logsumexp(-late[near:], 0)
        [rows] = (first < last[:, -1]).nonzero(as_tuple=True)
        first = first[rows].unsqueeze(1)
        far = torch.logaddexp(first, rings(len(rows), len(late) - near).add_(late[near:]))
        if len(rows):
            whose = torch.multinomial(torch.softmax(-late[near:], 0), len(rows), replacement=True)
            far.scatter_(1, whose.unsqueeze(1), first)
        far.masked_fill_(self.lists[rows, near:] < 0, torch.inf)
        places[rows] = torch.cat((times[rows], far), 1).topk(number, largest=False).indices
        return places

    def uninteresting(self, number: int) -> Tensor:
        """Return (n, number) int64, drawn uniformly with replacement outside the lists and the training data.

        -1 where nobody is left.
        """
        return self._others.draw(torch.arange(len(self.lists), device="cpu"), number, torch.default_generator)


@torch.no_grad()
def _compute(teacher: Teacher, train: Interactions, length: int, side: Side) -> TopLists:
    model, hidden = teacher.recommender, PairIndex(train).to(teacher.recommender.device)
    catalogue, everybody = model.encode_catalogue(), torch.arange(model.num_users, device=model.device)

    def score(users: Tensor) -> Tensor:
        scores = model.score_all(users, catalogue).float()
        scores[hidden.of(users)] = -torch.inf
        return scores

    if side == "users":
        parts = in_chunks(lambda users: top_k(score(users), length), everybody, 4 * model.num_items)
        values, members = (torch.cat(tensors) for tensors in zip(*parts, strict=True))
    else:
        values, members = _best_users(score, everybody, model.num_items, length)
    return TopLists(members.int().masked_fill_(values.isneginf(), -1).cpu(), values.cpu())


def _best_users(
    score: Callable[[Tensor], Tensor], everybody: Tensor, num_items: int, length: int
) -> tuple[Tensor, Tensor]:
    """Return (values, users), both (num_items, length), best first: some users' scores at a time join the best so far.

    As many as the memory takes at once, and twice as many as a list is long at least, so that there are few joins.
    """
    values = torch.full((num_items, length), -torch.inf, device=everybody.device)
    members = torch.full((num_items, length), -1, dtype=torch.int32, device=everybody.device)
    for users in everybody.split(max(2 * length, budget(everybody.device) // (4 * num_items))):
        scores = in_chunks(score, users, 4 * num_items)
        for start in range(0, num_items, _ITEMS):
            some = slice(start, start + _ITEMS)
            joined = torch.cat((values[some], *(part[:, some].T for part in scores)), 1)
            best = joined.topk(length)
            values[some] = best.values
            who = torch.cat((members[some], users.int().expand(len(joined), -1)), 1)
            members[some] = who.gather(1, best.indices)
    return values, members


@contextmanager
def _one_at_a_time(path: Path) -> Iterator[None]:
    """Let one process at a time see to a file; where its folder cannot be written, all of them."""
    with ExitStack() as stack:
        with suppress(OSError):
            path.parent.mkdir(exist_ok=True)
            stack.enter_context(FileLock(path.with_name(f".{path.name}.lock")))
        yield


def _read(path: Path, teacher: Teacher, train: Interactions, length: int, side: Side) -> TopLists | None:
    """Return the lists of a file, or None if there is none, or a damaged one."""
    rows, others = (train.num_users, train.num_items) if side == "users" else (train.num_items, train.num_users)
    try:
        content = load_plain(path)
        made, lists = (content["teacher"], content["data"]), TopLists(content["members"], content["scores"])
        shapes = tuple(lists.members.shape), tuple(lists.scores.shape)
        types = lists.members.dtype, lists.scores.dtype
        whole = (shapes, types) == (((rows, length),) * 2, (torch.int32, torch.float32)) and bool(
            ((lists.members >= -1) & (lists.members < others)).all()
        )
    except Exception:  # torch's reader fails in many ways on a file that is none of its own
        return None
    if made != (teacher.digest, train.digest):
        raise InputError(
            f"{path} holds the lists of another teacher or of other data than its name says; delete it, and it is made "
            f"again."
        )
    return lists if whole else None


def _write(path: Path, teacher: Teacher, train: Interactions, lists: TopLists) -> None:
    """Write a file that is whole as soon as it is there."""
    content = {"teacher": teacher.digest, "data": train.digest, **lists._asdict()}
    with replacing(path) as part:
        torch.save(content, part)
