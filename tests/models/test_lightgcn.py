import copy
import gc
import pickle
import weakref
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from kdrec.data.interactions import Interactions
from kdrec.deploy.compact import compact
from kdrec.distillation.base import Teacher
from kdrec.errors import InputError
from kdrec.models.bpr import BPR
from kdrec.models.graph import Graph
from kdrec.models.lightgcn import LightGCN
from kdrec.training.ranking import RankingModule
from tests.generated import GeneratedDataModule, generate, quiet_trainer

TRAIN = generate(num_users=9, num_items=13)


def bound(train: Interactions = TRAIN, **options: Any) -> LightGCN:
    torch.manual_seed(0)
    model = LightGCN(**({"embedding_dim": 4, "num_layers": 3} | options))
    model.bind(train)
    return model


def dense(train: Interactions, tables: tuple[Tensor, Tensor], num_layers: int) -> tuple[Tensor, Tensor]:
    """Sec. 3.1 of the paper in float64, with the whole matrix."""
    touched = torch.zeros(train.num_users, train.num_items, dtype=torch.float64)
    touched[torch.from_numpy(train.users.copy()), torch.from_numpy(train.items.copy())] = 1
    number = sum(touched.shape)
    adjacency = torch.zeros(number, number, dtype=torch.float64)
    adjacency[: train.num_users, train.num_users :] = touched
    adjacency[train.num_users :, : train.num_users] = touched.T
    degrees = adjacency.sum(1)
    roots = torch.where(degrees > 0, degrees.clamp(min=1) ** -0.5, 0)
    adjacency = torch.diag(roots) @ adjacency @ torch.diag(roots)
    layers = [torch.cat(tables).double()]
    for _ in range(num_layers):
        layers.append(adjacency @ layers[-1])
    mean = torch.stack(layers).mean(0)
    return mean[: train.num_users], mean[train.num_users :]


def count_products(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    calls: list[int] = []
    smooth = Graph.smooth

    def counted(*args: Any) -> tuple[Tensor, ...]:
        calls.append(1)
        return smooth(*args)

    monkeypatch.setattr(Graph, "smooth", counted)
    return calls


def test_by_hand() -> None:
    # user 0 has items 0 and 1, user 1 has item 1, nobody has item 2. Degrees: users 2, 1; items 1, 2, 0.
    # edges 1 / sqrt(2 * 1), 1 / sqrt(2 * 2) and 1 / sqrt(1 * 2), so with r = sqrt(1/2):
    # layer 1: user 0: r * 3 + .5 * 5, user 1: r * 5; item 0: r * 1, item 1: .5 * 1 + r * 2, item 2: 0.
    train = Interactions(np.array([0, 0, 1]), np.array([0, 1, 1]), np.array(["u", "v"]), np.array(["a", "b", "c"]))
    model = bound(train, embedding_dim=1, num_layers=1).double()
    with torch.no_grad():
        model.users.weight.copy_(torch.tensor([[1.0], [2.0]]))
        model.items.weight.copy_(torch.tensor([[3.0], [5.0], [7.0]]))
    r = 0.5**0.5
    assert model.user_vectors(torch.arange(2)).flatten().tolist() == pytest.approx(
        [(1 + 3 * r + 2.5) / 2, (2 + 5 * r) / 2]
    )
    assert model.encode_catalogue().flatten().tolist() == pytest.approx([(3 + r) / 2, (5.5 + 2 * r) / 2, 7 / 2])


@pytest.mark.parametrize("precision", [torch.float32, torch.float64])
@pytest.mark.parametrize("num_layers", [0, 1, 2, 4])
def test_values_and_gradients_equal_the_dense_form(num_layers: int, precision: torch.dtype) -> None:
    model = bound(num_layers=num_layers).to(precision)
    tolerance = {"rtol": 1e-4, "atol": 1e-6} if precision == torch.float32 else {"rtol": 1e-12, "atol": 1e-12}
    tables = [model.users.weight, model.items.weight]
    ours = model.user_vectors(torch.arange(9)), model.item_vectors(torch.arange(13))
    theirs = dense(TRAIN, (tables[0], tables[1]), num_layers)
    weights = torch.randn(22, 4, dtype=torch.float64)
    gradients = [torch.autograd.grad((torch.cat(pair) * weights).sum(), tables) for pair in (ours, theirs)]
    for one, other in zip((*ours, *gradients[0]), (*theirs, *gradients[1]), strict=True):
        torch.testing.assert_close(one, other.to(precision), **tolerance)


def test_no_layers_are_matrix_factorisation() -> None:
    model, plain = bound(num_layers=0), BPR(4)
    plain.build(9, 13)
    plain.load_state_dict({name: model.state_dict()[name] for name in plain.state_dict()})
    torch.testing.assert_close(model.score_all(torch.arange(9)), plain.score_all(torch.arange(9)))


def test_who_touched_nothing_keeps_a_share_of_the_own_embedding() -> None:
    train = Interactions(np.array([0]), np.array([1]), np.array(["u", "v"]), np.array(["a", "b", "c"]))
    model = bound(train)
    torch.testing.assert_close(model.user_vectors(torch.tensor([1])), model.users.weight[1:] / 4)
    torch.testing.assert_close(model.item_vectors(torch.tensor([0, 2])), model.items.weight[[0, 2]] / 4)


def test_an_empty_graph() -> None:
    model = LightGCN(3)
    model.build(2, 4)
    model.require_sound()
    torch.testing.assert_close(model.encode_catalogue(), model.items.weight / 4)


# One propagation a step


def test_a_step_propagates_once_and_its_gradient_once(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = count_products(monkeypatch)
    model = bound()
    for step in range(3):
        users, items = torch.tensor([0, 1]), torch.tensor([[2, 3], [4, 5]])
        loss = model.score(users, items).sum() + model.user_vectors(users).square().sum()
        loss = loss + model.item_vectors(items[0]).square().sum()
        assert len(calls) == 2 * step + 1
        loss.backward()
        assert len(calls) == 2 * step + 2


OPTIMIZERS: dict[str, Callable[[Any], torch.optim.Optimizer]] = {
    "fused": lambda parameters: torch.optim.Adam(parameters, lr=0.1, fused=True),
    "foreach": lambda parameters: torch.optim.Adam(parameters, lr=0.1, foreach=True),
    "plain": lambda parameters: torch.optim.SGD(parameters, lr=0.1, foreach=False),
}


@pytest.mark.parametrize("make", OPTIMIZERS.values(), ids=OPTIMIZERS.keys())
def test_no_use_sees_the_tables_of_an_earlier_step(make: Callable[[Any], torch.optim.Optimizer]) -> None:
    """Every use between two steps, in any order, equals that of a copy that holds nothing."""
    model = bound(num_layers=2)
    optimizer = make(model.parameters())
    users, items = torch.tensor([0, 3, 8]), torch.tensor([1, 12, 5])

    def check() -> None:
        fresh = copy.deepcopy(model)
        torch.testing.assert_close(model.score(users, items), fresh.score(users, items))
        with torch.no_grad():
            for _ in range(2):
                expected = fresh.score_all(users)
                torch.testing.assert_close(model.score_all(users, model.encode_catalogue()), expected)
                torch.testing.assert_close(model.score_all(users), expected)
                torch.testing.assert_close(model.user_vectors(users), fresh.user_vectors(users))
                torch.testing.assert_close(model.item_vectors(items), fresh.item_vectors(items))

    for _ in range(3):
        optimizer.zero_grad()
        loss = model.score(users, items).square().sum()
        check()
        loss.backward()
        with torch.no_grad():  # between gradient and step
            catalogue = model.encode_catalogue()
            model.score_all(users, catalogue)
        optimizer.step()
        with torch.no_grad():
            torch.testing.assert_close(model.user_vectors(users), copy.deepcopy(model).user_vectors(users))
        check()


def test_training_equals_the_dense_form_step_by_step() -> None:
    model = bound(num_layers=2).double()
    tables = [torch.nn.Parameter(table.detach().clone()) for table in (model.users.weight, model.items.weight)]
    optimizers = [torch.optim.Adam(part, lr=0.1, fused=True) for part in (model.parameters(), tables)]
    generator = torch.Generator().manual_seed(0)
    for _ in range(4):
        users, items = (torch.randint(0, 9, (6,), generator=generator) for _ in range(2))
        for optimizer in optimizers:
            optimizer.zero_grad()
        (1 - model.score(users, items)).square().sum().backward()
        model.score(users, items).square().sum().mul(0.1).backward()  # a second gradient before the step adds up
        vectors = dense(TRAIN, (tables[0], tables[1]), 2)
        scores = (vectors[0][users] * vectors[1][items]).sum(1)
        ((1 - scores).square().sum() + 0.1 * scores.square().sum()).backward()
        for optimizer in optimizers:
            optimizer.step()
        with torch.no_grad():
            model.score_all(users)
        torch.testing.assert_close(model.users.weight, tables[0], rtol=1e-9, atol=1e-9)
        torch.testing.assert_close(model.items.weight, tables[1], rtol=1e-9, atol=1e-9)


def test_two_losses_of_one_propagation_may_go_back_one_by_one() -> None:
    model = bound()
    users, items = torch.arange(3), torch.arange(3)
    losses = model.score(users, items).sum(), model.user_vectors(users).square().sum()
    for loss in losses:
        loss.backward()
    other = bound()
    (other.score(users, items).sum() + other.user_vectors(users).square().sum()).backward()
    torch.testing.assert_close(model.users.weight.grad, other.users.weight.grad)


# One propagation an evaluation


def test_an_evaluation_propagates_once(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = count_products(monkeypatch)
    model = bound()
    with torch.no_grad():
        catalogue = model.encode_catalogue()
        for user in range(9):
            model.score_all(torch.tensor([user]), catalogue)
    assert calls == [1]


def test_scores_with_an_older_catalogue_are_still_right(monkeypatch: pytest.MonkeyPatch) -> None:
    model = bound()
    with torch.no_grad():
        old, new = model.encode_catalogue(), model.encode_catalogue()
        torch.testing.assert_close(model.score_all(torch.arange(9), old), model.score_all(torch.arange(9), new))


def test_a_frozen_model_propagates_once(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = count_products(monkeypatch)
    teacher = Teacher(bound())
    torch.testing.assert_close(teacher.user_vectors(), bound().user_vectors(torch.arange(9)).detach())
    calls.clear()
    teacher = Teacher(bound())
    teacher.user_vectors(), teacher.item_vectors()
    for _ in range(3):
        with torch.no_grad():
            teacher.recommender.score_all(torch.arange(9))
        teacher.recommender.score(torch.arange(9), torch.arange(9))
    assert calls == [1]
    assert not teacher.item_vectors().requires_grad


def test_what_inference_mode_held_may_be_trained_through() -> None:
    model = bound()
    with torch.inference_mode():
        model.score_all(torch.arange(9), model.encode_catalogue())
    model.score(torch.arange(9), torch.arange(9)).sum().backward()
    frozen = bound().requires_grad_(False)
    with torch.inference_mode():
        frozen.item_vectors(torch.arange(13))
    (frozen.encode_catalogue() * torch.ones(4, requires_grad=True)).sum().backward()


# Copies, files, other precisions


def test_nothing_held_travels_or_survives_a_change_of_tables() -> None:
    model, users = bound(), torch.arange(9)
    scores = model.score_all(users)
    for twin in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        torch.testing.assert_close(twin.score_all(users), scores)
        twin.score_all(users).sum().backward()
    torch.testing.assert_close(model.double().score_all(users).float(), scores)
    other = LightGCN(4)
    other.build(9, 13)
    before = other.float().score_all(users)
    other.load_state_dict(model.float().state_dict())
    assert not torch.allclose(other.score_all(users), before)
    torch.testing.assert_close(other.score_all(users), scores)
    with torch.no_grad():
        other.users.weight.mul_(2)
    torch.testing.assert_close(other.score_all(users), dense_scores(other))
    other.bind(TRAIN)
    torch.testing.assert_close(other.score_all(users), dense_scores(other))


def dense_scores(model: LightGCN) -> Tensor:
    users, items = dense(TRAIN, (model.users.weight, model.items.weight), model.num_layers)
    return (users @ items.T).float()


def test_a_model_with_a_history_of_gradients_is_let_go() -> None:
    model = bound()
    model.score_all(torch.arange(9)).sum().backward()
    model.score_all(torch.arange(9))
    gone = weakref.ref(model)
    del model
    gc.collect()
    assert gone() is None


def test_a_file_keeps_the_graph_and_an_export_does_not() -> None:
    model = bound()
    model.score_all(torch.arange(9))
    kept = {name: value for name, value in model.state_dict().items() if "weight" not in name}
    assert {name: len(value) for name, value in kept.items()} == {"graph_offsets": 10, "graph_items": len(TRAIN)}
    exported = compact(model)
    assert sum(table.numbers.nbytes for table in exported.tables.values()) == model.num_bytes() == 4 * 4 * 22
    torch.testing.assert_close(exported.recommender.score_all(torch.arange(9)), model.score_all(torch.arange(9)))


def test_the_graph_is_where_the_tables_are() -> None:
    """Lightning builds models on the device that they will train on."""
    with torch.device("meta"):
        assert bound().graph_items.device == bound().graph_offsets.device == torch.device("meta")


def test_halves() -> None:
    """The product of two degrees can be larger than any half."""
    items = np.arange(300)
    users = np.repeat(np.arange(300), 300)
    crowd = Interactions(users, np.tile(items, 300), np.arange(300).astype(str), items.astype(str))
    model = bound(crowd, num_layers=1)
    expected = model.encode_catalogue().detach()
    torch.testing.assert_close(model.bfloat16().encode_catalogue().float(), expected, atol=0.01, rtol=0.05)
    torch.testing.assert_close(model.half().encode_catalogue().float(), expected, atol=0.01, rtol=0.05)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("graph_items", torch.tensor([13], dtype=torch.int32)),
        ("graph_items", torch.tensor([-1], dtype=torch.int32)),
        ("graph_offsets", torch.tensor([0, 2, 1, 1, 1, 1, 1, 1, 1, 1])),
        ("graph_offsets", torch.tensor([0, 0, 0, 0, 0, 0, 0, 0, 0, 2])),
        ("graph_offsets", torch.tensor([0, 1])),
    ],
)
def test_a_graph_of_other_nodes_is_refused(name: str, value: Tensor) -> None:
    model = LightGCN(2)
    model.build(9, 13)
    offsets = torch.zeros(10, dtype=torch.int64)
    offsets[-1] = 1
    state = {"graph_offsets": offsets, "graph_items": torch.tensor([5], dtype=torch.int32)}
    model.load_state_dict(model.state_dict() | state)
    model.require_sound()
    model.load_state_dict(model.state_dict() | state | {name: value})
    with pytest.raises(ValueError, match="its graph is not one of its users and items"):
        model.require_sound()


def test_a_trainer_learns_the_same_when_nothing_is_held(monkeypatch: pytest.MonkeyPatch) -> None:
    """Validation runs in inference mode, and once before the first step: none of it may reach the training."""
    results = []
    vectors = LightGCN._vectors

    def forgetful(model: LightGCN) -> Any:
        model._forget()
        return vectors(model)

    for form in (vectors, forgetful):
        monkeypatch.setattr(LightGCN, "_vectors", form)
        torch.manual_seed(0)
        module = RankingModule(LightGCN(8), optimizer=lambda p: torch.optim.Adam(p, lr=0.05, fused=True), cutoffs=(10,))
        trainer = quiet_trainer(max_epochs=5)
        trainer.fit(module, datamodule=GeneratedDataModule(batch_size=64))
        results.append((module.recommender.state_dict(), trainer.callback_metrics))
    (weights, figures), (others, theirs) = results
    for name, value in weights.items():
        torch.testing.assert_close(value, others[name])
    assert figures["val/recall@10"] == theirs["val/recall@10"]
    assert figures["train/loss"] < 0.6


@pytest.mark.parametrize(
    ("arguments", "message"),
    [({"embedding_dim": 0}, "embedding_dim is 0"), ({"num_layers": -1}, "num_layers is -1")],
)
def test_bad_arguments(arguments: dict[str, int], message: str) -> None:
    with pytest.raises(InputError, match=f"LightGCN: {message}"):
        LightGCN(**arguments)  # type: ignore[arg-type]
