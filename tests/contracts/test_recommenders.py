"""What every architecture promises."""

import importlib
from pathlib import Path

import pytest
import torch
from torch import nn

from kdrec.data.sampling import Batch
from kdrec.errors import InputError
from kdrec.models import checkpoint
from kdrec.models.base import DotProductRecommender, Recommender
from kdrec.models.described import as_config, rebuild
from kdrec.models.history import HistoryRecommender
from kdrec.training.optimizers import let_embeddings_be_sparse
from tests.discovery import subclasses
from tests.generated import content_of, generate

TRAIN = generate(num_users=9, num_items=13)
MODELS = [model for model in subclasses("models", Recommender) if model is not DotProductRecommender]
every_model = pytest.mark.parametrize("architecture", MODELS, ids=lambda model: model.__name__)
USERS = torch.tensor([3, 0, 8, 3])
TRIPLES = Batch(torch.arange(9), torch.arange(9), torch.arange(9).unsqueeze(1))


def made(architecture: type[Recommender]) -> Recommender:
    """Return an unbuilt model: ``make()`` of ``tests/models/test_NAME.py``, if defaults alone will not do."""
    tests = importlib.import_module(f"tests.models.test_{architecture.__module__.rpartition('.')[2]}")
    return tests.make() if hasattr(tests, "make") else architecture()


def bound(architecture: type[Recommender]) -> Recommender:
    torch.manual_seed(0)
    model = made(architecture)
    model.bind(TRAIN)
    return model.eval()


def test_there_are_models() -> None:
    assert {"BPR", "NCF", "Popularity"} <= {model.__name__ for model in MODELS}


@every_model
def test_is_unbuilt_until_bound(architecture: type[Recommender]) -> None:
    assert not made(architecture).is_built
    model = bound(architecture)
    assert (model.is_built, model.num_users, model.num_items) == (True, 9, 13)


@every_model
def test_vectors_are_one_row_an_entity(architecture: type[Recommender]) -> None:
    model = bound(architecture)
    if not model.has_vectors:
        for vectors in (model.user_vectors, model.item_vectors):
            with pytest.raises(InputError, match=f"{architecture.__name__} has no vectors"):
                vectors(torch.arange(3))
        return
    users, items = model.user_vectors(USERS), model.item_vectors(torch.arange(13))
    assert users.shape[0] == 4
    assert items.shape[0] == 13
    assert users.shape[1] == items.shape[1]
    assert torch.equal(users[0], users[3])


@every_model
def test_all_ways_to_score_agree(architecture: type[Recommender]) -> None:
    model = bound(architecture)
    whole = model.score_all(USERS)
    table = torch.arange(13).expand(4, 13)
    assert whole.shape == (4, 13)
    torch.testing.assert_close(model.score(USERS, table), whole)
    torch.testing.assert_close(model.score_all(USERS, model.encode_catalogue()), whole)
    for item in range(13):
        torch.testing.assert_close(model.score(USERS, torch.full((4,), item)), whole[:, item])
    for times in (1, 9):  # short lists of users and long ones
        of_users = model.score_users(torch.arange(13), USERS.repeat(times).expand(13, -1))
        torch.testing.assert_close(of_users, whole.T.repeat(1, times))
    torch.testing.assert_close(model.score(USERS, table.repeat(1, 2)), whole.repeat(1, 2))


@every_model
def test_the_score_of_a_pair_does_not_depend_on_its_company(architecture: type[Recommender]) -> None:
    model = bound(architecture)
    torch.testing.assert_close(model.score(USERS[:1], torch.tensor([5])), model.score_all(USERS)[:1, 5])


@every_model
def test_rebuilt_from_its_own_description_and_weights(architecture: type[Recommender]) -> None:
    model = bound(architecture)
    said = as_config(model)
    assert said["class_path"] == f"{architecture.__module__}.{architecture.__name__}"
    twin = rebuild(said)
    twin.build(9, 13)
    twin.load_state_dict(model.state_dict())
    assert torch.equal(twin.eval().score_all(USERS), model.score_all(USERS))


@every_model
def test_every_parameter_gets_a_gradient(architecture: type[Recommender]) -> None:
    model = bound(architecture)
    parameters = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    if parameters:
        own = model.objective(TRIPLES)  # has parameters that scores do not show, such as a gate
        (model.score_all(torch.arange(9)).square().sum() + (0 if own is None else own)).backward()
    assert not [name for name, parameter in parameters.items() if parameter.grad is None]


@every_model
def test_moves_in_whole_to_another_precision(architecture: type[Recommender]) -> None:
    assert bound(architecture).double().score_all(USERS).dtype == torch.float64


@every_model
def test_strangers_are_served_as_users_with_their_histories_are(architecture: type[Recommender]) -> None:
    model = bound(architecture)
    if not isinstance(model, HistoryRecommender):
        return
    offsets, items = model.histories(USERS)
    torch.testing.assert_close(model.score_histories(offsets, items), model.score_all(USERS))
    nobody = model.score_histories(torch.tensor([0, 0, 0]), items[:0], model.encode_catalogue())
    assert nobody.shape == (2, 13)
    assert nobody.isfinite().all()
    torch.testing.assert_close(nobody[0], nobody[1])


@every_model
def test_its_own_objective_is_finite_and_moves_every_parameter(architecture: type[Recommender]) -> None:
    model = bound(architecture).train()
    loss = model.objective(TRIPLES)
    if loss is None:
        return
    assert loss.dim() == 0
    assert torch.isfinite(loss)
    loss.backward()
    assert not [name for name, parameter in model.named_parameters() if parameter.grad is None]
    nothing = torch.empty(0, dtype=torch.int64)
    assert torch.isfinite(model.objective(Batch(nothing, nothing, nothing.view(0, 1))))


@every_model
def test_survives_a_checkpoint(architecture: type[Recommender], tmp_path: Path) -> None:
    model = bound(architecture)
    torch.save(content_of(model, TRAIN), tmp_path / "model.ckpt")
    assert torch.equal(checkpoint.restore(tmp_path / "model.ckpt").score_all(USERS), model.score_all(USERS))


@every_model
def test_an_embedding_whose_gradient_is_to_be_sparse_has_such_a_one(architecture: type[Recommender]) -> None:
    """Whatever is scored, and of the rows that were named alone: `LazyAdam` and DDP rely on both."""
    model = bound(architecture).train()
    if architecture.moves_all_rows:
        with pytest.raises(InputError, match=f"each step of {architecture.__name__} reaches all of them; choose"):
            let_embeddings_be_sparse(model)
        return
    let_embeddings_be_sparse(model)
    tables = [part for part in model.modules() if isinstance(part, nn.Embedding) and part.weight.requires_grad]
    if not tables:
        return
    for times in (1, 20):  # fewer pairs than there are users and items, and more
        model.zero_grad()
        users, items = torch.arange(3).repeat(times), torch.arange(5).expand(3 * times, 5)
        (model.score(users, items[:, 0]).sum() + model.score(users, items).sum()).backward()
        for table in tables:
            assert table.weight.grad is not None
            assert table.weight.grad.is_sparse
            if table.num_embeddings in (9, 13):  # of users and items, and not of their features
                assert len(table.weight.grad.coalesce().indices()[0]) <= 5
    model.score_all(torch.arange(3)).sum().backward()
    assert all(table.weight.grad.is_sparse for table in tables if table.weight.grad is not None)
