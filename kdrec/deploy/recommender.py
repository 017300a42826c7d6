"""A checkpoint, ready to recommend by raw ids and titles; nothing but the file is needed."""

import difflib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional

from kdrec.errors import InputError
from kdrec.evaluation.ranking import top_k
from kdrec.models import checkpoint as files
from kdrec.models.base import DotProductRecommender


@dataclass(frozen=True)
class Item:
    """An item of a list: raw id, title, labels such as genres (either may be empty), and its score if it has one."""

    id: str
    title: str
    labels: str
    score: float | None = None


class Deployed:
    """A model with the vocabularies and histories of its training data.

    Args:
        path: A checkpoint.

    Attributes:
        seen: Offsets (num_users + 1,) into items, and the items that users touched, those of a user together; in
            training, validation or test (a file of an older kdrec holds those of training only).

    Raises:
        InputError: As `kdrec.models.checkpoint.restore`.
    """

    def __init__(self, path: str | Path) -> None:
        content = files.read(path)
        section = content["kdrec"]
        self.path = Path(path)
        self.recommender = files.restore(path, content)
        self.item_ids: list[str] = section["item_ids"]
        self.titles: list[str] | None = section.get("item_titles")
        self.labels_name, self.labels = "", [""] * len(self.item_ids)
        if labels := section.get("item_labels"):
            self.labels_name, self.labels = labels["name"], labels["values"]
        self.user_ids: list[str] = section["user_ids"]
        self._users = {name: index for index, name in enumerate(self.user_ids)}
        self._items = {name: index for index, name in enumerate(self.item_ids)}
        self.seen: tuple[Tensor, Tensor] = section["seen"]["offsets"], section["seen"]["items"]

    # Looking up

    def user(self, name: str) -> int:
        """Return the index of a raw user id.

        Raises:
            InputError: If there is no such user.
        """
        if name not in self._users:
            raise InputError(f"{self.path} knows no user {name!r}; {_near(name, self._users)}")
        return self._users[name]

    def item(self, name: str) -> int:
        """Return the index of a raw item id or, in any case, of a title.

        Raises:
            InputError: If there is no such item, or several bear the title.
        """
        if name in self._items:
            return self._items[name]
        wanted = name.strip().casefold()
        found = [index for index, title in enumerate(self.titles or []) if title.casefold() == wanted]
        if len(found) == 1:
            return found[0]
        if found:
            ids = ", ".join(self.item_ids[index] for index in found)
            raise InputError(f"{len(found)} items are called {name!r}; give the id of one of them: {ids}.")
        raise InputError(f"{self.path} knows no item {name!r}; {_near(name, self.titles or self._items)}")

    def history(self, user: int) -> list[int]:
        """Return what a user touched, the latest last where times are known."""
        offsets, items = self.seen
        return items[offsets[user] : offsets[user + 1]].tolist()

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
        return self._best(self.recommender.score_all(torch.tensor([user]))[0], self.history(user), k)

    @torch.inference_mode()
    def for_items(self, items: Sequence[int], k: int) -> list[Item]:
        """Return the k best items for a stranger who likes some items (`fold_in`).

        Raises:
            InputError: If there are no items, or the model is none that a stranger can be folded into.
        """
        if not items:
            raise InputError("There are no items to recommend by; give one at least.")
        if not isinstance(self.recommender, DotProductRecommender):
            raise InputError(
                f"{self.path} is a {type(self.recommender).__name__}, whose users cannot be made from items; "
                f"take a model that scores by dot products, or ask for a user it knows."
            )
        table = self.recommender.encode_catalogue()
        return self._best(table @ fold_in(table, torch.tensor(sorted(set(items)))), items, k)

    @torch.inference_mode()
    def similar_to(self, item: int, k: int) -> list[Item]:
        """Return the k items whose vectors have the largest cosines with an item's."""
        vectors = functional.normalize(self.recommender.item_vectors(torch.arange(len(self.item_ids))), dim=1)
        return self._best(vectors @ vectors[item], [item], k)

    def _best(self, scores: Tensor, hidden: Sequence[int], k: int) -> list[Item]:
        left = len(scores) - len(set(hidden))
        if not 1 <= k <= left:
            raise InputError(f"k is {k}; it must lie between 1 and the {left} items that can be recommended.")
        scores = scores.index_fill(0, torch.tensor(list(hidden), dtype=torch.int64), -torch.inf)
        values, items = top_k(scores.unsqueeze(0), k)
        return self.described(items[0].tolist(), values[0].tolist())


def fold_in(table: Tensor, items: Tensor, unseen: float = 10.0, ridge: float = 0.1) -> Tensor:
    """Return the vector of a user who likes some items, by least squares.

    The user wants 1 from these items and, with the weight ``unseen``, 0 from the average item:
    minimise ``sum_i (u v_i - 1)^2 / n + unseen * mean_j (u v_j)^2 + ridge * s |u|^2``, where s is the mean square
    length of an item's vector over its width, so that the result does not depend on the vectors' scale.

    Args:
        table: (num_items, d) item vectors.
        items: (n,) int64, at least one.
        unseen: Weight of all items.
        ridge: Weight of the user's length.

    Returns:
        (d,) vector, in the table's dtype.

    References:
        Hu, Koren and Volinsky, Collaborative Filtering for Implicit Feedback Datasets, ICDM 2008, sec. 4 (the
        normal equations of one user).
    """
    wide = table.double()
    liked = wide[items]
    normal = liked.T @ liked / len(liked) + everyone(wide, unseen, ridge)
    return torch.linalg.solve(normal, liked.mean(0)).to(table.dtype)


def everyone(table: Tensor, unseen: float = 10.0, ridge: float = 0.1) -> Tensor:
    """Return the part of `fold_in`'s normal equations that is the same for all users: (d, d), positive definite."""
    gram = table.T @ table / len(table)
    return unseen * gram + ridge * gram.diagonal().mean() * torch.eye(table.shape[1], dtype=table.dtype)


def _near(name: str, known: "Sequence[str] | dict[str, int]") -> str:
    """Offer the nearest names."""
    wanted, folded = name.strip().casefold(), {text.casefold(): text for text in known}
    near = [text for text in folded if wanted in text][:3]
    near = near or difflib.get_close_matches(wanted, folded, n=3, cutoff=0.4)
    if near:
        return f"did you mean {' or '.join(repr(folded[text]) for text in near)}?"
    return f"it knows {len(known):,}, such as {next(iter(known))!r}."
