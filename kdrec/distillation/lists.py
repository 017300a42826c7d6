"""The teacher's top lists: computed once, streamed over users, and kept beside its checkpoint by digest."""

import os
import tempfile
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import torch
from filelock import FileLock
from torch import Tensor

from kdrec.data.interactions import Interactions
from kdrec.data.sampling import NegativeSampler
from kdrec.distillation.base import Teacher
from kdrec.errors import InputError
from kdrec.evaluation.chunks import in_chunks
from kdrec.evaluation.ranking import PairIndex, top_k

FOLDER = "lists"
"""Folder beside a teacher's checkpoint that keeps its lists."""

Side = Literal["users", "items"]


class TopLists(NamedTuple):
    """The best of what is not in the training data, best first.

    Attributes:
        members: (n, length) int64: of each user the best items, or of each item the best users.
        scores: (n, length) float32, the teacher's.
    """

    members: Tensor
    scores: Tensor


def top_lists(teacher: Teacher, train: Interactions, length: int, side: Side = "users") -> TopLists:
    """Return the teacher's lists, from disk if they were made before; any recommender can be the teacher.

    Args:
        teacher: Read from a file, whose folder keeps the lists; one without a file keeps none.
        train: Pairs that no list holds.
        length: Of each list; `pool_length` says how long it may be.
        side: "users" lists items for every user, "items" users for every item.

    Raises:
        InputError: If the file of these lists holds those of another teacher or of other data.

    Side effects: reads or writes ``lists/`` beside the teacher's checkpoint; where that cannot be written, nothing is
    kept. Of several processes one computes and the others wait.
    """
    if not teacher.path:
        return _compute(teacher, train, length, side)
    folder = Path(teacher.path).parent / FOLDER
    path = folder / f"{teacher.digest[:16]}-{train.digest[:16]}-{side}-{length}.pt"
    try:
        folder.mkdir(exist_ok=True)
        with FileLock(folder / f".{path.name}.lock"):
            found = _read(path, teacher, train, length, side)
            if found is None:
                found = _compute(teacher, train, length, side)
                _write(path, teacher, train, found)
            return found
    except OSError:  # a folder that only others may write
        return _compute(teacher, train, length, side)


def pool_length(train: Interactions, wanted: int, side: Side = "users") -> int:
    """Return how long lists can be so that everybody has as many others besides, at most ``wanted``.

    Raises:
        InputError: If somebody has touched all but one item, or an item was touched by all but one.
    """
    counts, others = (train.user_counts, train.num_items) if side == "users" else (train.item_counts, train.num_users)
    length = min(wanted, (others - int(counts.max())) // 2)
    if length < 1:
        raise InputError(
            f"Lists need two {'items' if side == 'users' else 'users'} at least that are not in the training pairs, "
            f"and one of the {side} has {others - int(counts.max())}; leave it out, or take another distiller."
        )
    return length


class ListSampler:
    """Draw interesting and uninteresting partners for everybody at once, on the CPU.

    Args:
        lists: (n, length), the teacher's, best first.
        train: Pairs that are neither.
        side: Whom the lists are for.
    """

    def __init__(self, lists: Tensor, train: Interactions, side: Side = "users") -> None:
        self.lists = lists
        rows, members, ids = train.users, train.items, (train.user_ids, train.item_ids)
        if side == "items":
            rows, members, ids = members, rows, ids[::-1]
        listed = np.repeat(np.arange(len(lists)), lists.shape[1])
        known = Interactions(np.concatenate((rows, listed)), np.concatenate((members, lists.flatten().numpy())), *ids)
        self._others = NegativeSampler(known)

    def interesting(self, number: int, temperature: float | None = None) -> Tensor:
        """Return (n, number) of the lists in the teacher's order.

        Args:
            number: How many.
            temperature: None takes the first ones. Else they are drawn without replacement, with p proportional to
                exp(-rank / temperature).
        """
        if temperature is None:
            return self.lists[:, :number]
        ranks = torch.arange(1, self.lists.shape[1] + 1, device="cpu")
        # Gumbel's noise: the largest sums are such a draw
        noise = torch.empty(self.lists.shape, device="cpu").exponential_().log_().neg_()
        places = (noise - ranks / temperature).topk(number).indices.sort(1).values
        return self.lists.gather(1, places)

    def uninteresting(self, number: int) -> Tensor:
        """Return (n, number), drawn uniformly with replacement outside the lists and the training data."""
        return self._others.draw(torch.arange(len(self.lists), device="cpu"), number, torch.default_generator)


@torch.no_grad()
def _compute(teacher: Teacher, train: Interactions, length: int, side: Side) -> TopLists:
    model, hidden = teacher.recommender, PairIndex(train).to(teacher.recommender.device)
    catalogue = model.encode_catalogue()
    parts: list[tuple[Tensor, Tensor]] = []

    def take(users: Tensor) -> None:
        scores = model.score_all(users, catalogue).float()
        scores[hidden.of(users)] = -torch.inf
        if side == "users":
            parts.append(top_k(scores, length))
            return
        values, members = scores.T, users.expand(model.num_items, -1)
        if parts:  # merge with the best so far
            values, members = torch.cat((parts[0][0], values), 1), torch.cat((parts[0][1], members), 1)
        best = values.topk(min(length, values.shape[1]))
        parts[:] = [(best.values, members.gather(1, best.indices))]

    in_chunks(take, torch.arange(model.num_users, device=model.device), 4 * model.num_items)
    values, members = (torch.cat(tensors).cpu() for tensors in zip(*parts, strict=True))
    return TopLists(members, values)


def _read(path: Path, teacher: Teacher, train: Interactions, length: int, side: Side) -> TopLists | None:
    """Return the lists of a file, or None if there is none, or a damaged one."""
    if not path.is_file():
        return None
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
        lists = TopLists(content["members"].long(), content["scores"])
        made = content["teacher"], content["data"]
        others = train.num_items if side == "users" else train.num_users
        rows = train.num_users if side == "users" else train.num_items
        shapes = tuple(lists.members.shape), tuple(lists.scores.shape)
        whole = shapes == ((rows, length),) * 2 and 0 <= int(lists.members.min()) <= int(lists.members.max()) < others
    except Exception:  # torch's reader fails in many ways on a file that is none of its own
        return None
    if made != (teacher.digest, train.digest):
        raise InputError(f"{path} holds the lists of another teacher or of other data than its name says; delete it.")
    return lists if whole else None


def _write(path: Path, teacher: Teacher, train: Interactions, lists: TopLists) -> None:
    content = {
        "teacher": teacher.digest,
        "data": train.digest,
        "members": lists.members.int(),
        "scores": lists.scores.contiguous(),
    }
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=".", suffix=".tmp")
    try:
        with os.fdopen(handle, "wb") as file:
            torch.save(content, file)
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
