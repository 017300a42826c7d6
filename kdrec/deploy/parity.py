"""Whether what was exported recommends what torch recommends, on users of the checkpoint."""

from collections.abc import Callable

import torch
from torch import Tensor

from kdrec.deploy.compact import Compact
from kdrec.deploy.fold_in import fold_in
from kdrec.deploy.lists import best_unseen
from kdrec.errors import InputError

TOLERANCE = 1e-4
"""Largest difference of two scores that count as equal; of scores above 1, relative to them."""
_NUM_USERS = 64

Answers = Callable[[Tensor, Tensor, int], dict[str, tuple[Tensor, Tensor]]]


@torch.no_grad()
def require_parity(model: Compact, offsets: Tensor, items: Tensor, k: int, answers: Answers) -> dict[str, dict]:
    """Compare the lists of users spread over all users.

    Args:
        model: What was exported.
        offsets: (num_users + 1,): the items that user u has seen are ``items[offsets[u]:offsets[u + 1]]``.
        items: All users' seen items.
        k: Items a list.
        answers: Users (B,), seen items (B, S) filled up with -1, and k -> (items, scores) by who was asked for.

    Returns:
        For each who was asked for: how many lists were compared, how many name the same items in the same order
        (equal scores may stand in any), and the largest difference of scores.

    Raises:
        InputError: If an item or a score is not torch's.
    """
    num_users, recommender = len(offsets) - 1, model.recommender
    users = torch.linspace(0, num_users - 1, min(_NUM_USERS, num_users)).long()
    histories = [items[offsets[user] : offsets[user + 1]] for user in users]
    seen = torch.nn.utils.rnn.pad_sequence([*histories, items.new_zeros(1)], True, padding_value=-1)[:-1]
    found = {}
    for who, lists in answers(users, seen, k).items():
        if who == "users":
            scores = recommender.score_all(users)
        else:
            table = recommender.encode_catalogue()
            nobody = table.new_zeros(table.shape[1])
            strangers = [fold_in(table, history) if len(history) else nobody for history in histories]
            scores = torch.stack(strangers) @ table.T
        found[who] = _compare(scores, seen, k, who, *lists)
    return found


def _compare(scores: Tensor, seen: Tensor, k: int, who: str, items: Tensor, given: Tensor) -> dict[str, float]:
    """Compare lists with torch's: the scores at each rank, and torch's own score of each item that was named."""
    expected, best = best_unseen(scores, seen, k)[::-1]
    own = scores.gather(1, items.clamp(min=0)).masked_fill(items < 0, -torch.inf)
    differences = torch.stack([torch.where(given == other, 0, (given - other).abs()) for other in (expected, own)])
    differences /= expected.nan_to_num(neginf=0).abs().clamp(min=1)
    largest = differences.max().item()
    ordered = items.sort(1).values
    twice = ((ordered[:, 1:] == ordered[:, :-1]) & (ordered[:, 1:] >= 0)).any()
    hidden = ((items.unsqueeze(2) == seen.unsqueeze(1)) & (items >= 0).unsqueeze(2)).any()
    fault = ""
    if hidden:
        fault = "a seen item is listed"
    elif twice:
        fault = "an item stands in a list twice"
    elif not largest <= TOLERANCE:  # so also if it is no number
        fault = f"scores differ by {largest:.2g} where {TOLERANCE:g} is allowed"
    if fault:
        raise InputError(f"What was exported does not agree with torch ({who}: {fault}), so it was not kept.")
    return {"lists": len(items), "same_order": int((items == best).all(1).sum()), "largest_difference": largest}
