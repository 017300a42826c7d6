"""Topology distillation as published, written plainly from the formulas, for the other benchmarks to compare with.

Nothing here is kdrec's or the authors' code: b x b tables of cosines, every expert for every entity, one sample at a
time from a Dataset, Adam with its defaults, and a sort of the whole catalogue for every user. The selectors and experts
of HTD are read from kdrec's own module, so that both forms have the same weights and can be checked on each other.
"""

import math
import time
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import DataLoader, Dataset

from kdrec.data.interactions import Interactions
from kdrec.data.splits import Split
from kdrec.distillation.assignment import GroupAssignment, gumbel_shares
from kdrec.distillation.htd import HTD
from kdrec.models.bpr import BPR

BATCH, CUTOFFS, CHUNK = 1024, (50, 20, 10), 1024
Term = Callable[[Tensor, Tensor, BPR], Tensor]  # users and items of a batch, each once, and the student -> loss


def clock() -> float:
    """Return the time, after all that was asked of a GPU is done."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()


# Losses


def cosines(vectors: Tensor) -> Tensor:
    """Return the table of cosines of all pairs of rows: (b, d) -> (b, b)."""
    unit = functional.normalize(vectors, dim=1, eps=1e-8)
    return unit @ unit.T


def ftd(student: Tensor, teacher: Tensor) -> Tensor:
    """Return FTD's loss, without its weight, by two tables."""
    return (cosines(teacher) - cosines(student)).square().sum()


def entity_level(student: Tensor, teacher: Tensor, groups: Tensor, positive_only: bool) -> Tensor:
    """Return HTD's entity level: the masked difference of two tables."""
    ours, theirs = cosines(student), cosines(teacher)
    mask = groups.unsqueeze(0) == groups.unsqueeze(1)
    if positive_only:
        mask = mask & (theirs > 0)
    return ((theirs - ours).square() * mask).sum()


def group_level(student: Tensor, teacher: Tensor, groups: Tensor, num_groups: int) -> Tensor:
    """Return HTD's Group(P,e) in the reference mode: prototypes without gradient against entities."""
    members = functional.one_hot(groups, num_groups).T.to(student.dtype)
    tables = []
    for rows, source in ((teacher, teacher), (student, student.detach())):
        means = (members @ source) / members.sum(1, keepdim=True).clamp(min=1)
        tables.append(functional.normalize(means, eps=1e-8) @ functional.normalize(rows, eps=1e-8).T)
    return (tables[0] - tables[1]).square().sum()


def assignment(side: GroupAssignment, student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """Return HTD's group assignment of one side, with every expert evaluated for every entity."""
    shares = gumbel_shares(side.selector(teacher), temperature)
    # unbind, since the gradient of side.first[k] would be a table of all experts for each k
    experts = (weights.unbind() for weights in (side.first, side.first_bias, side.second, side.second_bias))
    outputs = [
        (student @ first.T + first_bias).relu() @ second + second_bias
        for first, first_bias, second, second_bias in zip(*experts, strict=True)
    ]
    guess = (torch.stack(outputs, dim=2) * shares.unsqueeze(1)).sum(2)  # by way of (b, dt, K)
    return (teacher - guess).square().sum()


def htd(distiller: HTD, ours: tuple[Tensor, Tensor], theirs: tuple[Tensor, Tensor]) -> Tensor:
    """Return HTD's loss, weight included, in the reference mode.

    Args:
        distiller: kdrec's, for its selectors, experts, weights and temperature.
        ours: The student's vectors of users and items.
        theirs: The teacher's.
    """
    sides = (distiller.users, distiller.items)
    spread = sum(assignment(side, s, t, distiller.temperature) for side, s, t in zip(sides, ours, theirs, strict=True))
    groups = torch.cat((distiller.users.groups(theirs[0]), distiller.items.groups(theirs[1]) + distiller.num_groups))
    student, teacher = torch.cat(ours), torch.cat(theirs)
    topology = entity_level(student, teacher, groups, positive_only=True)
    topology = topology + group_level(student, teacher, groups, 2 * distiller.num_groups)
    return distiller.weight * (distiller.gamma * topology + (1 - distiller.gamma) * spread)


# Training


class Triples(Dataset[tuple[int, int, int]]):
    """One (user, positive, negative) at a time."""

    def __init__(self, users: np.ndarray, positives: np.ndarray, negatives: np.ndarray) -> None:
        self.users, self.positives, self.negatives = users, positives, negatives

    def __len__(self) -> int:
        return len(self.users)

    def __getitem__(self, index: int) -> tuple[int, int, int]:
        return self.users[index], self.positives[index], self.negatives[index]


class Training:
    """BPR of some width, alone or with a term of distillation, at Adam's defaults.

    Args:
        train: The positives.
        dim: Width of the embeddings.
        device: Where.
        term: What distillation adds to the loss.
        distiller: Whose parameters are trained beside the student's.
    """

    def __init__(
        self,
        train: Interactions,
        dim: int,
        device: torch.device,
        term: Term | None = None,
        distiller: HTD | None = None,
    ) -> None:
        self.train, self.device, self.term = train, device, term
        self.model = BPR(dim)
        self.model.build(train.num_users, train.num_items)
        self.model.to(device)
        modules = nn.ModuleList([self.model, *([distiller] if distiller else [])])
        self.optimizer = torch.optim.Adam(modules.parameters(), lr=1e-3, weight_decay=1e-3)
        self.seen = table_of(train)
        self.random = np.random.default_rng(0)

    def epoch(self, steps: int | None = None) -> float:
        """Return the seconds of an epoch; of one that is broken off after some steps, scaled to all of them."""
        start = clock()
        train, negatives = self.train, self.draw_negatives()
        loader = DataLoader(Triples(train.users, train.items, negatives), BATCH, shuffle=True, num_workers=0)
        drawn, done = clock(), 0
        for batch in loader:
            self.step(*(column.to(self.device) for column in batch))
            done += 1
            if done == steps:
                break
        return drawn - start + (clock() - drawn) * len(loader) / done

    def draw_negatives(self) -> np.ndarray:
        """Draw an item for each positive, and draw again where the user knows it."""
        users = self.train.users
        negatives = self.random.integers(self.train.num_items, size=len(users))
        while (known := self.seen[users, negatives]).any():
            negatives[known] = self.random.integers(self.train.num_items, size=int(known.sum()))
        return negatives

    def step(self, users: Tensor, positives: Tensor, negatives: Tensor) -> None:
        """Move the weights once."""
        user, positive, negative = self.model.users(users), self.model.items(positives), self.model.items(negatives)
        loss = -functional.logsigmoid((user * positive).sum(1) - (user * negative).sum(1)).sum()
        if self.term:
            loss = loss + self.term(users.unique(), torch.cat((positives, negatives)).unique(), self.model)
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()


# Evaluation


def table_of(part: Interactions) -> np.ndarray:
    """Return who touched what: (num_users, num_items) bool."""
    table = np.zeros((part.num_users, part.num_items), dtype=bool)
    table[part.users, part.items] = True
    return table


@torch.no_grad()
def evaluate(model: BPR, split: Split, seen: np.ndarray, device: torch.device) -> dict[str, float]:
    """Rank the catalogue for all users and return the means of Recall, NDCG and MRR, validation and test.

    Scores come in chunks of users; every row is sorted once, without the training items, and the list of either
    held-out set leaves out the items of the other. Then one user follows the other.

    Args:
        model: The student.
        split: Training, validation and test pairs.
        seen: `table_of` the training pairs.
        device: Where the model is.
    """
    sums: dict[str, float] = {}
    held_out = {"val": _items_of(split.valid), "test": _items_of(split.test)}
    depth = max(CUTOFFS)
    for users in torch.arange(split.train.num_users).split(CHUNK):
        scores = model.users.weight[users.to(device)] @ model.items.weight.T
        scores[torch.from_numpy(seen[users.numpy()]).to(device)] = -torch.inf
        order = scores.argsort(dim=1, descending=True).cpu().numpy()
        for user, ranked in zip(users.tolist(), order, strict=True):
            for stage, other in (("val", "test"), ("test", "val")):
                relevant, left_out = held_out[stage][user], held_out[other][user]
                if relevant:
                    best = [item for item in ranked[: depth + len(left_out)].tolist() if item not in left_out][:depth]
                    for name, value in _of_user(best, relevant).items():
                        sums[f"{stage}/{name}"] = sums.get(f"{stage}/{name}", 0.0) + value
    counts = {stage: sum(map(bool, items)) for stage, items in held_out.items()}
    return {name: value / counts[name.partition("/")[0]] for name, value in sums.items()}


def _items_of(part: Interactions) -> list[set[int]]:
    """Return each user's items."""
    result: list[set[int]] = [set() for _ in range(part.num_users)]
    for user, item in zip(part.users.tolist(), part.items.tolist(), strict=True):
        result[user].add(item)
    return result


def _of_user(best: list[int], relevant: set[int]) -> dict[str, float]:
    """Return one user's metrics."""
    hits = [position for position, item in enumerate(best, start=1) if item in relevant]
    result = {}
    for k in CUTOFFS:
        inside = [position for position in hits if position <= k]
        ideal = sum(1 / math.log2(1 + position) for position in range(1, min(len(relevant), k) + 1))
        result[f"recall@{k}"] = len(inside) / len(relevant)
        result[f"ndcg@{k}"] = sum(1 / math.log2(1 + position) for position in inside) / ideal
        result[f"mrr@{k}"] = 1 / inside[0] if inside else 0.0
    return result
