"""A checkpoint, ready to recommend by raw ids and titles; nothing but the file is needed."""

import difflib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from heapq import nlargest
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from kdrec.deploy.fold_in import everyone, fold_in
from kdrec.errors import InputError, UnknownName
from kdrec.evaluation.ranking import top_k
from kdrec.models import checkpoint as files
from kdrec.models.base import DotProductRecommender
from kdrec.models.history import HistoryRecommender

_COMPARED = 50  # names that are compared with an unknown one letter by letter


@dataclass(frozen=True)
class Item:
    """An item of a list: raw id, title, labels such as genres (either may be empty), and its score if it has one."""

    id: str
    title: str
    labels: str
    score: float | None = None


class Deployed:
    """A model with the vocabularies and histories of its training data.

    What depends on the model alone is computed at its first use and kept, so the model must stay as it is. Several
    threads may ask at once.

    Args:
        path: A checkpoint.
        name: What messages call the model; by default its path.

    Attributes:
        seen: Offsets (num_users + 1,) into items, and the items that users touched, those of a user together; in
            training, validation or test (a file of an older kdrec holds those of training only).
        timed: Whether a user's items stand in the order of time.

    Raises:
        InputError: As `kdrec.models.checkpoint.restore`.
    """

    def __init__(self, path: str | Path, name: str | None = None) -> None:
        content = files.read(path)
        section = content["kdrec"]
        self.path = Path(path)
        self.name = str(path) if name is None else name
        self.recommender = files.restore(path, content)
        self.item_ids: list[str] = section["item_ids"]
        self.titles: list[str] | None = section.get("item_titles")
        self.labels_name, self.labels = "", [""] * len(self.item_ids)
        if labels := section.get("item_labels"):
            self.labels_name, self.labels = labels["name"], labels["values"]
        self.user_ids: list[str] = section["user_ids"]
        self._users = {name: index for index, name in enumerate(self.user_ids)}
        self._items = {name: index for index, name in enumerate(self.item_ids)}
        self.seen: tuple[Tensor, Tensor] = section["seen"]["offsets"], section["seen"]["items"].long()
        self.timed = bool(section["seen"].get("timed"))

    # Looking up

    def user(self, name: str) -> int:
        """Return the index of a raw user id.

        Raises:
            UnknownName: If there is no such user.
        """
        if name not in self._users:
            raise UnknownName(f"{self.name} knows no user {name!r}; {_near(name, self._users)}")
        return self._users[name]

    def item(self, name: str) -> int:
        """Return the index of a raw item id or, in any case, of a title.

        Raises:
            UnknownName: If there is no such item.
            InputError: If several bear the title.
        """
        if name in self._items:
            return self._items[name]
        found = self._by_title.get(name.strip().casefold(), [])
        if len(found) == 1:
            return found[0]
        if found:
            ids = ", ".join(self.item_ids[index] for index in found)
            raise InputError(f"{len(found)} items are called {name!r}; give the id of one of them: {ids}.")
        raise UnknownName(f"{self.name} knows no item {name!r}; {_near(name, self.titles or self._items)}")

    def search_items(self, text: str, limit: int) -> list[int]:
        """Return items whose title (or, without titles, whose id) has all words of a text, the most touched first."""
        words = text.casefold().split()
        found = (item for item, title in self._by_touches if all(word in title for word in words))
        return list(islice(found, limit))

    def search_users(self, text: str, limit: int) -> list[str]:
        """Return raw user ids that start with a text."""
        return list(islice((name for name in self._users if name.startswith(text)), limit))

    def history(self, user: int) -> list[int]:
        """Return what a user touched, the latest last where times are known."""
        offsets, items = self.seen
        return items[offsets[user] : offsets[user + 1]].tolist()

    def latest(self, user: int) -> list[int]:
        """Return the last few of a user's `history`, the last first: a reminder of who this is."""
        return self.history(user)[:-6:-1]

    def described(self, items: Sequence[int], scores: Sequence[float | None] | None = None) -> list[Item]:
        """Put ids, titles and labels to item indices."""
        titles = self.titles or [""] * len(self.item_ids)
        return [
            Item(self.item_ids[item], titles[item], self.labels[item], score)
            for item, score in zip(items, scores or [None] * len(items), strict=True)
        ]

    # Recommending

    @torch.inference_mode()
    def for_user(self, user: int, k: int) -> list[Item]:
        """Return a user's k best items of those that they have not touched."""
        scores = self.recommender.score_all(torch.tensor([user]), self._catalogue)[0]
        return self._best(scores, self.history(user), k)

    @torch.inference_mode()
    def for_items(self, items: Sequence[int], k: int) -> list[Item]:
        """Return the k best items for a stranger who likes some items.

        A model of histories takes them as the stranger's, others by `fold_in`.

        Args:
            items: The latest last, which models of sequences heed if times are known.
            k: Items to list.

        Raises:
            InputError: If there are no items, or the model is none that serves strangers.
        """
        if not items:
            raise InputError("There are no items to recommend by; give one at least.")
        if self.no_strangers:
            raise InputError(self.no_strangers)
        if isinstance(self.recommender, HistoryRecommender):
            history = list(dict.fromkeys(reversed(items)))[::-1] if self.timed else sorted(set(items))
            offsets = torch.tensor([0, len(history)])
            scores = self.recommender.score_histories(offsets, torch.tensor(history), self._catalogue)[0]
        else:
            user = fold_in(self._vectors, torch.tensor(sorted(set(items))), everybody=self._everybody)
            scores = self._vectors @ user
        return self._best(scores, items, k)

    @property
    def no_strangers(self) -> str:
        """Why `for_items` cannot work with this model; empty if it can."""
        if isinstance(self.recommender, DotProductRecommender | HistoryRecommender):
            return ""
        return (
            f"{self.name} is a {type(self.recommender).__name__}, whose users cannot be made from items; "
            f"take a model that scores by dot products or by histories, or ask for a user it knows."
        )

    @torch.inference_mode()
    def similar_to(self, item: int, k: int) -> list[Item]:
        """Return the k items whose vectors have the largest cosines with an item's.

        Raises:
            InputError: If the model has no vectors of items.
        """
        if not self.recommender.has_vectors:
            instead = "take a model that has" if self.no_strangers else "ask for somebody who likes the item"
            raise InputError(
                f"{self.name} is a {type(self.recommender).__name__}, which has no vectors to find similar items by; "
                f"{instead}."
            )
        return self._best(self._directions @ self._directions[item], [item], k)

    def _best(self, scores: Tensor, hidden: Sequence[int], k: int) -> list[Item]:
        left = len(scores) - len(set(hidden))
        if not 1 <= k <= left:
            raise InputError(f"k is {k}; it must lie between 1 and the {left} items that can be recommended.")
        scores = scores.index_fill(0, torch.tensor(list(hidden), dtype=torch.int64), -torch.inf)
        values, items = top_k(scores.unsqueeze(0), k)
        if not values.isfinite().all():
            raise InputError(f"{self.name} gives scores that are no numbers; its training diverged, so train it again.")
        return self.described(items[0].tolist(), values[0].tolist())

    # Kept from the first use on; two threads that come first compute the same, and one of the results stays

    @cached_property
    def _catalogue(self) -> Any:
        return self.recommender.encode_catalogue()

    @cached_property
    def _vectors(self) -> Tensor:
        return self.recommender.item_vectors(torch.arange(len(self.item_ids)))

    @cached_property
    def _everybody(self) -> Tensor:
        return everyone(self._vectors)

    @cached_property
    def _directions(self) -> Tensor:
        return functional.normalize(self._vectors, dim=1)

    @cached_property
    def _by_title(self) -> dict[str, list[int]]:
        found: dict[str, list[int]] = {}
        for item, title in enumerate(self.titles or []):
            found.setdefault(title.casefold(), []).append(item)
        return found

    @cached_property
    def _by_touches(self) -> list[tuple[int, str]]:
        """Items with their folded titles, the most touched first."""
        names = self.titles or self.item_ids
        touches = torch.bincount(self.seen[1], minlength=len(names))
        return [(item, names[item].casefold()) for item in touches.argsort(descending=True, stable=True).tolist()]


def _near(name: str, known: "Sequence[str] | dict[str, int]") -> str:
    """Offer the nearest names."""
    wanted, folded = name.strip().casefold(), {text.casefold(): text for text in known}
    near = [text for text in folded if wanted in text][:3]
    if not near:  # difflib alone would take ten seconds for 25,000 long titles
        pairs = {wanted[place : place + 2] for place in range(max(1, len(wanted) - 1))}
        some = nlargest(_COMPARED, folded, lambda text: sum(pair in text for pair in pairs) / len(wanted + text + "."))
        near = difflib.get_close_matches(wanted, some, n=3, cutoff=0.4)
    if near:
        return f"did you mean {' or '.join(repr(folded[text]) for text in near)}?"
    return f"it knows {len(known):,}, such as {next(iter(known))!r}."
