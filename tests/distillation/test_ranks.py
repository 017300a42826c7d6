"""What needs several processes is in tests/contracts/test_processes.py."""

import pytest
import torch

from kdrec.distillation import ranks
from kdrec.distillation.ranks import num_ranks, own_rows, rank, sum_over_ranks, union_over_ranks


def test_one_process_has_everything_and_sends_nothing() -> None:
    assert (rank(), num_ranks()) == (0, 1)
    assert own_rows(5) == slice(0, 5)
    ids, table = torch.tensor([2, 5]), torch.ones(2, 3)
    assert union_over_ranks(ids) is ids
    assert sum_over_ranks([table])[0] is table


@pytest.mark.parametrize("count", [0, 1, 2, 7, 12])
@pytest.mark.parametrize("several", [1, 2, 3, 5])
def test_every_row_has_one_owner(monkeypatch: pytest.MonkeyPatch, count: int, several: int) -> None:
    monkeypatch.setattr(ranks, "num_ranks", lambda: several)
    owned = []
    for each in range(several):
        monkeypatch.setattr(ranks, "rank", lambda each=each: each)
        owned.append([*range(count)][own_rows(count)])
    assert [row for rows in owned for row in rows] == [*range(count)]
    assert max(map(len, owned)) - min(map(len, owned)) <= 1
