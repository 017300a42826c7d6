import dataclasses
import itertools
import math

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from kdrec.data.interactions import Interactions
from kdrec.data.sampling import Batch
from kdrec.distillation.base import Teacher
from kdrec.distillation.ftd import FTD
from kdrec.errors import InputError
from kdrec.models.bert4rec import BERT4Rec
from kdrec.models.bpr import BPR
from tests.generated import generate

TRAIN = generate(num_users=9, num_items=13)  # histories of 2 to 5 items
NOTHING = torch.empty(0, dtype=torch.int64)


def build(train: Interactions = TRAIN, **arguments: float) -> BERT4Rec:
    torch.manual_seed(0)
    small = {"embedding_dim": 6, "num_heads": 3, "max_length": 6, "dropout": 0.0, "init_std": 0.5}
    model = BERT4Rec(**(small | arguments))  # type: ignore[arg-type]
    model.bind(train)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "norm" in name or "bias" in name:
                parameter.normal_()  # zeros and ones would hide one that is left out
    return model.double()


def batch(users: list[int]) -> Batch:
    asked = torch.tensor(users, dtype=torch.int64)
    return Batch(asked, asked, asked.unsqueeze(1))


def sequence(user: int) -> list[int]:
    """The user's items in the order of time."""
    own = TRAIN.users == user
    return [int(item) for _, item in sorted(zip(TRAIN.timestamps[own], TRAIN.items[own], strict=True))]  # type: ignore[index]


def normalised(norm: nn.LayerNorm, vector: Tensor) -> Tensor:
    spread = vector - vector.mean()
    return spread / (spread.square().mean() + norm.eps).sqrt() * norm.weight + norm.bias


def naive(model: BERT4Rec, items: list[int | None]) -> list[Tensor]:
    """The hidden states of one sequence, one place and one head at a time; None is a mask."""
    width = model.embedding_dim // model.num_heads
    states = []
    for place, item in enumerate(items):
        token = model.mask if item is None else model.items.weight[item]
        states.append(normalised(model.norm, token + model.places.weight[len(items) - 1 - place]))
    for layer in model.layers:
        projected = [layer.project.weight @ state + layer.project.bias for state in states]
        queries, keys, values = zip(*(row.view(3, model.num_heads, width) for row in projected), strict=True)
        after = []
        for state, query in zip(states, queries, strict=True):
            heads = []
            for head in range(model.num_heads):
                likeness = torch.stack([(query[head] @ key[head]) / math.sqrt(width) for key in keys]).exp()
                shares = likeness / likeness.sum()
                heads.append(sum(share * value[head] for share, value in zip(shares, values, strict=True)))
            heard = layer.gather.weight @ torch.cat(heads) + layer.gather.bias  # type: ignore[arg-type]
            state = normalised(layer.attention_norm, state + heard)
            wide = layer.widen.weight @ state + layer.widen.bias
            wide = wide * (1 + torch.erf(wide / math.sqrt(2))) / 2
            after.append(normalised(layer.norm, state + layer.narrow.weight @ wide + layer.narrow.bias))
        states = after
    return states


def test_vectors_are_the_naive_states_at_the_mask() -> None:
    model = build()
    for user in range(9):
        expected = naive(model, [*sequence(user)[-5:], None])[-1]
        torch.testing.assert_close(model.user_vectors(torch.tensor([user]))[0], expected, rtol=1e-10, atol=1e-10)
        scores = torch.stack([expected @ model.items.weight[item] for item in range(13)])
        torch.testing.assert_close(model.score_all(torch.tensor([user]))[0], scores, rtol=1e-10, atol=1e-10)


def test_the_loss_is_the_naive_one(monkeypatch: pytest.MonkeyPatch) -> None:
    model, users = build(), [3, 0, 8]
    lengths = [len(sequence(user)) for user in users]
    assert max(lengths) <= 6
    assert len(set(lengths)) > 1
    masks = [[place % 2 == row % 2 for place in range(length)] for row, length in enumerate(lengths)]
    monkeypatch.setattr(model, "_cloze", lambda counts: torch.tensor([*itertools.chain(*masks)]))
    expected = torch.zeros((), dtype=torch.float64)
    for user, masked in zip(users, masks, strict=True):
        items = sequence(user)
        states = naive(model, [None if hidden else item for item, hidden in zip(items, masked, strict=True)])
        for state, item, hidden in zip(states, items, masked, strict=True):
            if hidden:
                logits = model.items.weight @ state
                expected = expected + logits.exp().sum().log() - logits[item]
    loss = model.objective(batch(users))
    torch.testing.assert_close(loss, expected, rtol=1e-10, atol=1e-10)
    parameters = list(model.parameters())
    for ours, theirs in zip(
        torch.autograd.grad(loss, parameters), torch.autograd.grad(expected, parameters), strict=True
    ):
        assert theirs.abs().max() > 0
        torch.testing.assert_close(ours, theirs, rtol=1e-8, atol=1e-9)


def test_what_is_masked_is_not_read() -> None:
    model = build()
    counts, masked = torch.tensor([4, 2]), torch.tensor([True, False, False, True, True, False])
    items = torch.tensor([1, 2, 3, 4, 5, 6])
    others = torch.where(masked, 11 - items, items)
    states = model._encode(items, counts, masked)
    assert states.shape == (3, 6)
    assert torch.equal(states, model._encode(others, counts, masked))
    seen = torch.where(masked, items, 11 - items)
    assert not torch.isclose(states, model._encode(seen, counts, masked)).all(1).any()


def test_the_order_of_the_history_matters() -> None:
    model = build()
    offsets = torch.tensor([0, 3, 6])
    one, other = model.score_histories(offsets, torch.tensor([1, 2, 3, 2, 1, 3]))
    assert (one - other).abs().min() > 1e-6


def test_only_the_latest_items_count() -> None:
    model = build(max_length=4)
    offsets = torch.tensor([0, 3, 8, 12])
    scores = model.score_histories(offsets, torch.tensor([1, 2, 3, 9, 8, 1, 2, 3, 0, 1, 2, 4]))
    assert torch.equal(scores[0], scores[1])
    assert not torch.isclose(scores[0], scores[2]).any()


def test_company_does_not_matter() -> None:
    """A short history beside longer ones is filled up, which nothing of it shows."""
    model = build(max_length=8)
    alone = model.history_vectors(torch.tensor([0, 2]), torch.tensor([5, 6]))
    offsets, items = torch.tensor([0, 7, 9, 9, 12]), torch.tensor([0, 1, 2, 3, 4, 7, 8, 5, 6, 9, 10, 11])
    together = model.history_vectors(offsets, items)
    torch.testing.assert_close(together[1], alone[0], rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(together[2], naive(model, [None])[0], rtol=1e-10, atol=1e-10)


def test_an_empty_history_changes_nothing_in_training(monkeypatch: pytest.MonkeyPatch) -> None:
    empty = dataclasses.replace(TRAIN, user_ids=np.append(TRAIN.user_ids, "nobody"), user_features=None)
    model = build(empty)
    monkeypatch.setattr(model, "_cloze", lambda counts: torch.ones(int(counts.sum()), dtype=torch.bool))
    loss, same = model.objective(batch([2, 9, 5])), model.objective(batch([2, 5]))
    torch.testing.assert_close(loss, same)
    for gradient in torch.autograd.grad(model.objective(batch([9, 2])), list(model.parameters())):
        assert gradient.isfinite().all()
    assert model.objective(batch([9])) == 0


@pytest.mark.parametrize(("mask_share", "last_share"), [(0.3, 0.0), (0.3, 1.0), (0.5, 0.4), (1.0, 0.0), (1e-9, 0.0)])
def test_the_cloze(mask_share: float, last_share: float) -> None:
    model = build(mask_share=mask_share, last_share=last_share)
    counts = torch.tensor([0, 1, 2, 5]).repeat(4000)
    torch.manual_seed(1)
    masks = model._cloze(counts).split(counts.tolist())
    for length in (1, 2, 5):
        drawn = torch.stack([mask for mask in masks if len(mask) == length]).double()
        assert (drawn.sum(1) >= 1).all()
        # a draw that masks nothing masks one item instead, with the same chance for each
        each = (mask_share + (1 - mask_share) ** length / length) * (1 - last_share)
        expected = torch.full((length,), each).double()
        expected[-1] += last_share
        torch.testing.assert_close(drawn.mean(0), expected, atol=5 * 0.5 / 4000**0.5, rtol=0)


def test_a_long_history_gives_any_stretch_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    log = Interactions(
        np.array([0] * 5 + [1] * 2), np.array([4, 3, 2, 1, 0, 1, 2]), np.array(["u", "v"]), np.array(list("abcde")),
        np.array([1, 2, 3, 4, 5, 1, 2]),
    )  # fmt: skip
    model, seen = build(log, max_length=3), []
    encode = model._encode
    monkeypatch.setattr(
        model, "_encode", lambda items, *rest: seen.append(tuple(items.tolist())) or encode(items, *rest)
    )
    for _ in range(60):
        model.objective(batch([0, 1]))
    assert set(seen) == {(4, 3, 2, 1, 2), (3, 2, 1, 1, 2), (2, 1, 0, 1, 2)}


def test_dropout_only_in_training() -> None:
    model, users = build(dropout=0.5), torch.arange(9)
    assert not torch.equal(model.train().user_vectors(users), model.user_vectors(users))
    assert torch.equal(model.eval().user_vectors(users), model.user_vectors(users))
    torch.testing.assert_close(model.user_vectors(users)[4], naive(model, [*sequence(4)[-5:], None])[-1])


def test_learns_what_comes_next() -> None:
    """Everybody walks up a ring of 12 items; who stands at 7 goes to 8."""
    users, steps = np.repeat(np.arange(12), 6), np.tile(np.arange(6), 12)
    ids = np.arange(12).astype(str)
    ring = Interactions(users, (users + steps) % 12, ids, ids, steps)
    torch.manual_seed(0)
    model = BERT4Rec(embedding_dim=16, max_length=6, dropout=0.0, last_share=0.8, init_std=0.2)
    model.bind(ring)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    for _ in range(60):
        optimizer.zero_grad()
        model.objective(batch(list(range(12)))).backward()
        optimizer.step()
    assert model.score_all(torch.arange(12)).argmax(1).tolist() == [(user + 6) % 12 for user in range(12)]


def test_teaches_and_is_taught() -> None:
    triples = Batch(torch.tensor([3, 3, 8]), torch.tensor([1, 2, 3]), torch.tensor([[4], [5], [6]]))
    teacher = Teacher(build(embedding_dim=12))
    student = build(dropout=0.2).train()
    terms = FTD()(triples, student, teacher)
    terms["ftd"].backward()
    assert all(parameter.grad is not None for parameter in student.parameters())
    assert student.layers[0].project.weight.grad.abs().max() > 0
    assert all(parameter.grad is None for parameter in teacher.recommender.parameters())
    vector = teacher.user_vectors(torch.tensor([8]))[0]
    torch.testing.assert_close(vector, naive(teacher.recommender, [*sequence(8)[-5:], None])[-1])
    other = BPR(3)
    other.bind(TRAIN)
    assert FTD()(triples, other.double(), teacher)["ftd"] > 0


def test_needs_times() -> None:
    with pytest.raises(InputError) as error:
        BERT4Rec().bind(dataclasses.replace(TRAIN, timestamps=None))
    assert str(error.value) == (
        "BERT4Rec learns from the order in which users touched items and this data has no timestamps; "
        "give data that has, or take a model that needs none, such as BPR."
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"embedding_dim": 0}, "embedding_dim 0, num_layers 2 and num_heads 2 must be at least 1, and"),
        ({"num_layers": 0}, "num_layers 0"),
        ({"num_heads": 5}, "embedding_dim 64, num_layers 2 and num_heads 5 must be at least 1, and the heads must"),
        ({"max_length": 1}, "max_length is 1; it must be at least 2, an item and the mask."),
        ({"dropout": 1.0}, "dropout is 1.0; it must be at least 0 and below 1."),
        ({"mask_share": 0.0}, "mask_share is 0.0 and last_share 0.1; the first must lie in"),
        ({"last_share": 1.5}, "mask_share is 0.2 and last_share 1.5; the first must lie in"),
    ],
)
def test_bad_arguments(arguments: dict[str, float], message: str) -> None:
    with pytest.raises(InputError, match=message.replace("(", r"\(")):
        BERT4Rec(**arguments)  # type: ignore[arg-type]
