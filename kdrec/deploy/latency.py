"""How long models take for their lists, all measured together so that the machine's moods hit them alike."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

NUM_USERS = 500
_BLOCK = 20  # users that a model serves alone before it is the next one's turn
_BATCH = 100

Lister = Callable[[Tensor], Tensor]
"""Makes the lists of users: (B,) int64 -> (B, k) items, best first, -1 where there is none."""


@dataclass(frozen=True)
class Latency:
    """Of one model on one thread.

    Attributes:
        p50: Median milliseconds for one user's list, asked for alone.
        p99: 99th percentile of the same.
        users_per_second: In batches.
    """

    p50: float
    p99: float
    users_per_second: float


def describe_measurement(num_users: int, num_models: int) -> str:
    """Say in one sentence how `measure` measures."""
    turns = f", {num_models} models in turn" if num_models > 1 else ""
    return (
        f"Latency: one user at a time, {num_users} users drawn by seed{turns}, 1 CPU thread; "
        f"users a second in batches of {min(_BATCH, num_users)}."
    )


def draw_users(users: Tensor, seed: int = 0) -> Tensor:
    """Return at most `NUM_USERS` of the users (U,), drawn without replacement."""
    return users[torch.randperm(len(users), generator=torch.Generator().manual_seed(seed))[:NUM_USERS]]


def measure(alone: Sequence[Lister], together: Sequence[Lister], users: Tensor) -> list[Latency]:
    """Measure models in turn, block by block of users.

    A model's first call in a block is repeated and only the second is timed, since the model before it has emptied the
    processor's caches: a model that serves alone keeps them.

    Args:
        alone: Of each model, what makes the list of a single user.
        together: The same for many users at once.
        users: (U,) whom to serve, at least 1.

    Returns:
        In the order of the models.
    """
    singles: list[list[float]] = [[] for _ in alone]
    batches = [0.0 for _ in together]
    with _one_thread(), torch.inference_mode():
        for block in users.split(_BLOCK):
            for lister, times in zip(alone, singles, strict=True):
                lister(block[:1])
                times += [_seconds(lister, user) for user in block.split(1)]
        for batch in users.split(_BATCH):
            for number, lister in enumerate(together):
                lister(batch[:1])
                batches[number] += _seconds(lister, batch)
    quantiles = [np.quantile(times, (0.5, 0.99)) * 1e3 for times in singles]
    return [
        Latency(float(p50), float(p99), len(users) / total)
        for (p50, p99), total in zip(quantiles, batches, strict=True)
    ]


def _seconds(lister: Lister, users: Tensor) -> float:
    start = time.perf_counter()
    lister(users)
    return time.perf_counter() - start


@contextmanager
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
