import pytest
import torch
from torch import nn

from kdrec.models import perceptron
from kdrec.models.perceptron import layers_after_first, score_pairs


@pytest.mark.parametrize("num_users", [0, 1, 5])
@pytest.mark.parametrize("pairs", [1, 3, 7, 14, 30, 1000])
def test_blocks_change_nothing(pairs: int, num_users: int, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    rest = layers_after_first([4, 3], 0.5).double().eval()
    users, items = torch.randn(num_users, 4, dtype=torch.float64), torch.randn(7, 4, dtype=torch.float64)
    monkeypatch.setattr(perceptron, "_CPU_BLOCK_BYTES", pairs * 4 * 8)
    first, _, second, _, _, third = rest
    sums = users.unsqueeze(1) + items
    expected = third(second(first(sums.clone())).relu()).squeeze(-1)
    assert expected.shape == (num_users, 7)
    torch.testing.assert_close(score_pairs(rest, users, items), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("pairs", [1, 3, 10, 14, 35])
def test_no_block_is_larger_than_it_may_be(pairs: int, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []

    class Spy(nn.Module):
        def forward(self, sums: torch.Tensor) -> torch.Tensor:
            seen.append(sums.shape[0] * sums.shape[1])
            return sums.sum(-1, keepdim=True)

    monkeypatch.setattr(perceptron, "_CPU_BLOCK_BYTES", pairs * 2 * 4)
    users, items = torch.randn(5, 2), torch.randn(7, 2)
    scores = score_pairs(Spy(), users, items)
    torch.testing.assert_close(scores, users.sum(1, keepdim=True) + items.sum(1))
    assert sum(seen) == 35
    assert max(seen) <= pairs
