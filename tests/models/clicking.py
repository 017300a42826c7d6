"""Data with features known by heart, and the deep part of a click model written out pair by pair."""

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from kdrec.data.interactions import Interactions
from kdrec.models.click import ClickRecommender

JOBS = ["poet", "nurse", "poet", "nurse", "poet"]
AGES = [20, 20, 70, 70, 20]
GENRES = ["war|drama", "drama", "", "war", "war|drama", "drama|rare", "war"]  # rare is borne once, so it is no feature
# per field the numbers of the active features: nurse 0, poet 1; 20 2, 70 3; and drama 0, war 1
USER_FIELDS = [[[1], [2]], [[0], [2]], [[1], [3]], [[0], [3]], [[1], [2]]]
ITEM_FIELDS = [[[0, 1]], [[0]], [[]], [[1]], [[0, 1]], [[0]], [[1]]]

TRAIN = Interactions(
    users=np.array([0, 0, 1, 2, 3, 4, 4]),
    items=np.array([0, 3, 1, 2, 4, 5, 6]),
    user_ids=np.array(list("abcde")),
    item_ids=np.array(list("stuvwxy")),
    user_features=pd.DataFrame({"job": JOBS, "age": AGES}),
    item_features=pd.DataFrame({"genres": GENRES}),
)


def bound(model: ClickRecommender, train: Interactions = TRAIN) -> ClickRecommender:
    """Bind in float64, with no weight at zero, where a fault could hide."""
    torch.manual_seed(0)
    model.bind(train)
    for parameter in model.parameters():
        nn.init.normal_(parameter)
    return model.double().eval()


def field_vectors(model: ClickRecommender, side: str, entity: int) -> list[Tensor]:
    """The id's embedding, then each field's: a mean over its features."""
    fields = {"user": USER_FIELDS, "item": ITEM_FIELDS}[side][entity]
    tables = model.embeddings
    vectors = [tables[side].weight[entity]]
    for field in fields:
        rows = [tables[f"{side}_features"].weight[feature] for feature in field]
        vectors.append(sum(rows) / len(rows) if rows else torch.zeros(model.embedding_dim, dtype=torch.float64))
    return vectors


def deep(model: ClickRecommender, user: int, item: int) -> Tensor:
    """Concatenate all fields, and multiply layer by layer."""
    hidden = torch.cat([*field_vectors(model, "user", user), *field_vectors(model, "item", item)])
    linears = [model.first, *(layer for layer in model.rest if isinstance(layer, nn.Linear))]
    for number, linear in enumerate(linears):
        hidden = linear.weight @ hidden + linear.bias
        if number < len(linears) - 1:
            hidden = hidden.clamp(min=0)
    return hidden[0]


def linear(model: ClickRecommender, user: int, item: int) -> Tensor:
    """The weights of both ids, and the mean weight of each field."""
    total = torch.zeros((), dtype=torch.float64)
    for side, entity, all_fields in (("user", user, USER_FIELDS), ("item", item, ITEM_FIELDS)):
        total = total + model.weights[side].weight[entity, 0]
        for field in all_fields[entity]:
            for feature in field:
                total = total + model.weights[f"{side}_features"].weight[feature, 0] / len(field)
    return total


def require_equal(model: ClickRecommender, plain) -> None:  # type: ignore[no-untyped-def]
    """Compare every way to score with ``plain(user, item)``, gradients included."""
    users, items = torch.cartesian_prod(torch.arange(5), torch.arange(7)).T
    expected = torch.stack([plain(user, item) for user, item in zip(users.tolist(), items.tolist(), strict=True)])
    weights = torch.randn(35, dtype=torch.float64)
    parameters = dict(model.named_parameters())

    def gradients(scores: Tensor) -> dict[str, Tensor]:
        found = torch.autograd.grad((scores.flatten() * weights).sum(), list(parameters.values()))
        return dict(zip(parameters, found, strict=True))

    theirs = gradients(expected)
    few = [model.score(users[i : i + 5], items[i : i + 5]) for i in range(0, 35, 5)]  # no batch outgrows its table
    for scores in (
        model.score_all(torch.arange(5)),
        model.score(users, items),
        torch.cat(few),
        model.score(torch.arange(5), torch.arange(7).expand(5, 7)),
        model.score_all(torch.arange(5), model.encode_catalogue()),
    ):
        torch.testing.assert_close(scores.flatten(), expected, rtol=1e-10, atol=1e-10)
        for name, gradient in gradients(scores).items():
            assert theirs[name].abs().max() > 0, name
            torch.testing.assert_close(gradient, theirs[name], rtol=1e-9, atol=1e-9)
