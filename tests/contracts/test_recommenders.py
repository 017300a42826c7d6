"""What every architecture promises."""

import pytest
import torch

from kdrec.models import checkpoint
from kdrec.models.base import DotProductRecommender, Recommender
from tests.discovery import subclasses
from tests.generated import generate

TRAIN = generate(num_users=9, num_items=13)
MODELS = [model for model in subclasses("models", Recommender) if model is not DotProductRecommender]
every_model = pytest.mark.parametrize("architecture", MODELS, ids=lambda model: model.__name__)
USERS = torch.tensor([3, 0, 8, 3])


def bound(architecture: type[Recommender]) -> Recommender:
    torch.manual_seed(0)
    model = architecture()
    model.bind(TRAIN)
    return model.eval()


def test_there_are_models() -> None:
    assert {"BPR", "NCF", "Popularity"} <= {model.__name__ for model in MODELS}


@every_model
def test_is_unbuilt_until_bound(architecture: type[Recommender]) -> None:
    assert not architecture().is_built
    model = bound(architecture)
    assert (model.is_built, model.num_users, model.num_items) == (True, 9, 13)


@every_model
def test_vectors_are_one_row_an_entity(architecture: type[Recommender]) -> None:
    model = bound(architecture)
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


@every_model
def test_the_score_of_a_pair_does_not_depend_on_its_company(architecture: type[Recommender]) -> None:
    model = bound(architecture)
    torch.testing.assert_close(model.score(USERS[:1], torch.tensor([5])), model.score_all(USERS)[:1, 5])


@every_model
def test_rebuilt_from_its_own_description_and_weights(architecture: type[Recommender]) -> None:
    model = bound(architecture)
    said = checkpoint.as_config(model)
    assert said["class_path"] == f"{architecture.__module__}.{architecture.__name__}"
    twin = architecture(**said["init_args"])
    twin.build(9, 13)
    twin.load_state_dict(model.state_dict())
    assert torch.equal(twin.eval().score_all(USERS), model.score_all(USERS))


@every_model
def test_every_parameter_gets_a_gradient(architecture: type[Recommender]) -> None:
    model = bound(architecture)
    parameters = dict(model.named_parameters())
    if parameters:
        model.score_all(torch.arange(9)).square().sum().backward()
    assert not [name for name, parameter in parameters.items() if parameter.grad is None]


@every_model
def test_moves_in_whole_to_another_precision(architecture: type[Recommender]) -> None:
    assert bound(architecture).double().score_all(USERS).dtype == torch.float64
