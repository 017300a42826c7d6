"""Models side by side: sizes, latencies, metrics, and whether the differences are more than chance."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from kdrec.deploy.contenders import Checkpoint, Contender
from kdrec.deploy.dataset import data_of
from kdrec.deploy.latency import Latency, Lister, describe_measurement, draw_users, measure
from kdrec.deploy.lineup import open_contenders, short_names
from kdrec.errors import InputError, nearest
from kdrec.evaluation.evaluate import evaluate_lists, ranking_of
from kdrec.evaluation.metrics import LOGGED_METRICS
from kdrec.evaluation.ranking import CatalogueRanking
from kdrec.evaluation.significance import Comparison, bootstrap_interval, compare

LISTED = 10  # items of the lists that are timed and whose overlap is taken


@dataclass(frozen=True)
class Model:
    """One column of a report.

    Attributes:
        name: Short, and no other model's.
        path: Of the file.
        parameters: Numbers that training found.
        bytes_of_model: Of the deployed model, such as `Recommender.num_bytes`.
        bytes_on_disk: Of the file.
        metrics: ``"metric@k"`` -> mean over users.
        overlap: Share of the reference's list that is in this model's too, mean over users.
        latency: None if it was not measured.
    """

    name: str
    path: Path
    parameters: int
    bytes_of_model: int
    bytes_on_disk: int
    metrics: dict[str, float]
    overlap: float
    latency: Latency | None


@dataclass(frozen=True)
class Report:
    """Models compared under one protocol.

    Attributes:
        protocol: Data set, split and kind of ranking.
        stage: "val" or "test".
        num_users: How many were ranked.
        metric: What the models are compared by.
        listed: Length of the lists whose overlap was taken.
        models: The reference first.
        pairs: Every two models compared by the metric, first - second; p values by the paired t test with Holm's
            correction over all of them, 95 % intervals by the bootstrap.
        measured: How latencies were measured, or nothing.
    """

    protocol: str
    stage: str
    num_users: int
    metric: str
    listed: int
    models: list[Model]
    pairs: list[Comparison]
    measured: str

    @property
    def reference(self) -> Model:
        """What the others are compared with."""
        return self.models[0]


def compare_files(
    paths: Sequence[Path],
    reference: Path | None = None,
    stage: str = "test",
    metric: str | None = None,
    with_latency: bool = True,
    progress: Callable[[str], None] = lambda line: None,
) -> Report:
    """Evaluate and measure models of one protocol.

    Args:
        paths: Checkpoints and ONNX exports, at least one checkpoint.
        reference: As `open_contenders`.
        stage: "val" or "test".
        metric: What to test differences of, such as "recall@50". Default: ndcg@10, or at the largest cutoff.
        with_latency: Whether to measure times.
        progress: Is told what is done now.

    Raises:
        InputError: As `open_contenders` and `data_of`, or if there is no such metric.
    """
    contenders = open_contenders(paths, reference)
    first = next(contender for contender in contenders if isinstance(contender, Checkpoint))
    cutoffs = [int(k) for k in first.section["evaluation"]["cutoffs"]]
    candidates = first.section["evaluation"].get("num_candidates")
    metric = metric or f"ndcg@{10 if 10 in cutoffs else max(cutoffs)}"
    known = [f"{name}@{k}" for name in LOGGED_METRICS if name != "coverage" for k in cutoffs]  # which is no user's
    if metric not in known:
        raise InputError(f"{first.path} was not evaluated by {metric!r}; {nearest(metric, known)}")
    progress(f"Loading the data of {first.protocol}")
    data = data_of(first.path, first.section)
    ranking = ranking_of(data.split, stage, candidates)
    names = short_names([contender.path for contender in contenders])
    means, values, lists = [], {}, []
    for number, (contender, name) in enumerate(zip(contenders, names, strict=True), start=1):
        progress(f"Ranking with {name} ({number} of {len(names)})")
        lister = _Keeping(contender.together(ranking, max(cutoffs)), min(LISTED, max(cutoffs)))
        mean, users = evaluate_lists(lister, ranking, data.split.train, cutoffs, data.eval_batch_size)
        means.append(mean)
        values[name] = users[metric].to_numpy()
        lists.append(torch.cat(lister.lists))
    latencies: Sequence[Latency | None] = [None] * len(contenders)
    measured = ""
    if with_latency:
        progress("Measuring latencies")
        some = draw_users(ranking.relevant.counts.nonzero().flatten())
        latencies = _latencies(contenders, ranking_of(data.split, stage), some)
        measured = describe_measurement(len(some), len(contenders))
    models = [
        Model(
            name=name,
            path=contender.path,
            parameters=contender.parameters,
            bytes_of_model=contender.bytes_of_model,
            bytes_on_disk=contender.bytes_on_disk,
            metrics=mean,
            overlap=overlap(lists[0], own),
            latency=latency,
        )
        for name, contender, mean, own, latency in zip(names, contenders, means, lists, latencies, strict=True)
    ]
    num_users, listed = lists[0].shape
    return Report(first.protocol, stage, num_users, metric, listed, models, _pairs(values), measured)


def overlap(reference: Tensor, own: Tensor) -> float:
    """Return the share of the reference's items that are in a model's own list, averaged over users.

    Args:
        reference: (U, k) items of each user, -1 where there is none; a user without any is left out.
        own: (U, k) items of the same users.

    Example:
        >>> overlap(torch.tensor([[1, 2], [3, 4]]), torch.tensor([[2, 1], [4, 5]]))
        0.75
    """
    there = reference >= 0
    shared = ((reference.unsqueeze(2) == own.unsqueeze(1)).any(2) & there).sum(1)
    counts = there.sum(1)
    return (shared[counts > 0] / counts[counts > 0]).double().mean().item()


class _Keeping:
    """Make lists as another does, and keep the first items of each."""

    def __init__(self, lister: Lister, k: int) -> None:
        self.lister = lister
        self.k = k
        self.lists: list[Tensor] = []

    def __call__(self, users: Tensor) -> Tensor:
        found = self.lister(users)
        self.lists.append(found[:, : self.k])
        return found


def _latencies(contenders: Sequence[Contender], ranking: CatalogueRanking, users: Tensor) -> list[Latency]:
    k = min(LISTED, ranking.relevant.num_items)
    alone = [contender.alone(ranking, k) for contender in contenders]
    together = [contender.together(ranking, k) for contender in contenders]
    return measure(alone, together, users)


def _pairs(values: dict[str, np.ndarray]) -> list[Comparison]:
    """Compare every two models, each with those before it, so that the reference is what is subtracted."""
    found = compare(values, [(later, earlier) for earlier, later in combinations(values, 2)])
    intervals = []
    for pair in found:
        differences = values[pair.first] - values[pair.second]
        intervals.append(bootstrap_interval(differences[~np.isnan(differences)]))
    return [replace(pair, low=low, high=high) for pair, (low, high) in zip(found, intervals, strict=True)]
