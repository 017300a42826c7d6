from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from kdrec.deploy.compact import Compact, compact
from kdrec.deploy.lists import best_unseen
from kdrec.deploy.parity import require_parity
from kdrec.errors import InputError
from kdrec.models.bpr import BPR
from tests.deploy.test_compact import TRAIN, bound

Lists = tuple[Tensor, Tensor]
OFFSETS, ITEMS = (torch.from_numpy(part.copy()) for part in TRAIN.csr)


def model() -> Compact:
    return compact(bound(BPR(4, init_std=1.0)))


def check(spoil: Callable[[Tensor, Tensor, Tensor], Lists], who: str = "users") -> dict[str, dict]:
    made = model()

    def answers(users: Tensor, seen: Tensor, k: int) -> dict[str, Lists]:
        return {who: spoil(*best_unseen(made.recommender.score_all(users), seen, k), seen)}

    return require_parity(made, OFFSETS, ITEMS, 4, answers)


def test_right_lists_pass() -> None:
    found = check(lambda items, scores, seen: (items, scores + 5e-5))["users"]
    assert found["lists"] == found["same_order"] == 9
    assert 2e-5 < found["largest_difference"] < 6e-5


def test_equal_scores_may_stand_in_any_order() -> None:
    made = model()
    made.recommender.items.weight[1:] = made.recommender.items.weight[0]
    made.recommender.items.weight[7] *= 2

    def answers(users: Tensor, seen: Tensor, k: int) -> dict[str, Lists]:
        scores = made.recommender.score_all(users)
        items, values = best_unseen(scores, seen, 13)
        return {"users": (torch.cat((items[:, :1], items[:, 1:k].flip(1)), 1), values[:, :k])}

    found = require_parity(made, OFFSETS, ITEMS, 3, answers)["users"]
    assert found["largest_difference"] < 1e-6
    assert found["same_order"] < 9


def other_item(items: Tensor, scores: Tensor, seen: Tensor) -> Lists:
    taken = torch.cat((items, seen), 1).tolist()
    absent = [next(item for item in range(13) if item not in row) for row in taken]
    return torch.cat((torch.tensor(absent).unsqueeze(1), items[:, 1:]), 1), scores


@pytest.mark.parametrize(
    ("spoil", "sentence"),
    [
        (lambda items, scores, seen: (items, scores + 1), "users: scores differ by"),
        (lambda items, scores, seen: (items, scores * torch.nan), "users: scores differ by nan"),
        (other_item, "users: scores differ by"),
        (lambda items, scores, seen: (seen[:, :1].expand(-1, 4), scores), "users: a seen item is listed"),
        (lambda items, scores, seen: (items[:, :1].expand(-1, 4), scores), "users: an item stands in a list twice"),
        (lambda items, scores, seen: (items * 0 - 1, scores), "users: scores differ by inf"),
    ],
)
def test_wrong_lists_do_not(spoil: Callable[[Tensor, Tensor, Tensor], Lists], sentence: str) -> None:
    with pytest.raises(InputError) as error:
        check(spoil)
    assert sentence in str(error.value)
    assert "so it was not kept" in str(error.value)


def test_strangers_are_held_to_the_fold_in() -> None:
    with pytest.raises(InputError, match="strangers: scores differ by"):
        check(lambda items, scores, seen: (items, scores), "strangers")
