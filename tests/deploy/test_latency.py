import numpy as np
import pytest
import torch
from torch import Tensor

from kdrec.deploy import latency
from kdrec.deploy.latency import Lister, describe_measurement, draw_users, measure


def test_by_hand_with_a_clock_of_our_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """Alone, user u takes the first model u ms and the second 2 u ms; together a user takes 0.25 and 0.5 ms."""
    now = 0.0
    calls: list[tuple[str, list[int]]] = []

    def lister(name: str, seconds: float, alone: bool) -> Lister:
        def served(users: Tensor) -> Tensor:
            nonlocal now
            assert torch.get_num_threads() == 1
            calls.append((name, users.tolist()))
            now += seconds * (users.sum().item() if alone else len(users))
            return users

        return served

    monkeypatch.setattr(latency.time, "perf_counter", lambda: now)
    monkeypatch.setattr(latency, "_BLOCK", 2)
    monkeypatch.setattr(latency, "_BATCH", 3)
    users = torch.arange(1, 6)
    alone = [lister("a", 0.001, True), lister("b", 0.002, True)]
    together = [lister("A", 0.00025, False), lister("B", 0.0005, False)]
    one, other = measure(alone, together, users)
    assert (one.p50, other.p50) == pytest.approx((3, 6))
    assert one.p99 == pytest.approx(np.quantile([1, 2, 3, 4, 5], 0.99))
    assert (one.users_per_second, other.users_per_second) == pytest.approx((4000, 2000))
    assert [(name, served[0]) for name, served in calls[:6]] == [
        ("a", 1), ("a", 1), ("a", 2), ("b", 1), ("b", 1), ("b", 2),
    ]  # fmt: skip
    assert [name for name, served in calls if len(served) > 1] == ["A", "B", "A", "B"]  # in turn


def test_users_drawn_by_seed() -> None:
    users = torch.arange(10, 2010)
    drawn = draw_users(users)
    assert len(drawn) == len(drawn.unique()) == latency.NUM_USERS
    assert torch.equal(drawn, draw_users(users))
    assert not torch.equal(drawn, draw_users(users, seed=1))
    assert sorted(draw_users(users[:3]).tolist()) == [10, 11, 12]


def test_what_is_said() -> None:
    assert "500 users drawn by seed, 3 models in turn, 1 CPU thread" in describe_measurement(500, 3)
    assert "in turn" not in describe_measurement(500, 1)
    assert "in batches of 4." in describe_measurement(4, 1)
