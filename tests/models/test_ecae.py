import math

import pytest
import torch
from torch import Tensor

from kdrec.data.sampling import Batch
from kdrec.errors import InputError
from kdrec.models.ecae import ECAE
from kdrec.training.ranking import RankingModule
from tests.generated import GeneratedDataModule, generate, quiet_trainer

TRAIN = generate(num_users=9, num_items=13)
NOTHING = torch.empty(0, dtype=torch.int64)


def build(**arguments: float) -> ECAE:
    torch.manual_seed(0)
    model = ECAE(**({"embedding_dim": 4, "dropout": 0.0, "soft_weight": 0.7} | arguments))  # type: ignore[arg-type]
    model.bind(TRAIN)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_()  # zeros would hide one that is left out
    return model.double()


def batch(users: list[int]) -> Batch:
    asked = torch.tensor(users, dtype=torch.int64)
    return Batch(asked, asked, asked.unsqueeze(1))


def both_logits(model: ECAE, user: int) -> list[Tensor]:
    """Rebuild one row, by dense matrices."""
    items = torch.from_numpy(TRAIN.items[TRAIN.users == user])
    row = torch.zeros(13, dtype=torch.float64)
    row[items] = 1
    outputs = []
    for part in (model.generation, model.retraining):
        hidden = torch.tanh(row / len(items) ** 0.5 @ part.input.weight + part.input_bias)
        outputs.append(part.output.weight @ hidden + part.output_bias)
    return [row, *outputs]


def naive(model: ECAE, users: list[int]) -> Tensor:
    total = torch.zeros((), dtype=torch.float64)
    for user in users:
        row, *logits = both_logits(model, user)
        first, second = (torch.sigmoid(values) for values in logits)
        for item in range(13):
            gate = torch.sigmoid(model.gate_weight[item] * first[item] + model.gate_bias[item])
            target = row[item] + (1 - row[item]) * gate * first[item]
            for weight, said, truth in (
                (1, first[item], row[item]),
                (1, second[item], row[item]),
                (model.soft_weight, second[item], target),
            ):
                total = total - weight * (truth * said.log() + (1 - truth) * (1 - said).log())
    return total


@pytest.mark.parametrize("users", [[4], [3, 0, 8], [2, 2, 7]], ids=str)
def test_the_loss_is_the_naive_one(users: list[int]) -> None:
    model = build()
    loss, expected = model.objective(batch(users)), naive(model, users)
    torch.testing.assert_close(loss, expected, rtol=1e-10, atol=0)
    parameters = list(model.parameters())
    for ours, theirs in zip(
        torch.autograd.grad(loss, parameters), torch.autograd.grad(expected, parameters), strict=True
    ):
        assert theirs.abs().max() > 0
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-9)


def test_the_loss_by_hand() -> None:
    """Two items of which each user has one; hidden layers 0, so y1 = sigmoid(0) = 1/2 and y2 = sigmoid(log 3) = 3/4.

    The gate is sigmoid(log 3 * 2 * y1) = 3/4, the target (1, 3/4 * 1/2) = (1, 3/8). BCE(y1, x) = 2 log 2;
    BCE(y2, x) = log 4/3 + log 4; BCE(y2, target) = log 4/3 + 3/8 log 4/3 + 5/8 log 4.
    """
    model = ECAE(embedding_dim=2, dropout=0.0, soft_weight=0.1)
    model.build(1, 2)
    model.keep(history_offsets=torch.tensor([0, 1]), history_items=torch.tensor([0]))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
        model.retraining.output_bias.fill_(math.log(3))
        model.gate_weight.fill_(2 * math.log(3))
    up, down = math.log(4 / 3), math.log(4)
    expected = 2 * math.log(2) + up + down + 0.1 * (up + 3 / 8 * up + 5 / 8 * down)
    assert model.objective(batch([0])).item() == pytest.approx(expected)


def test_the_soft_term_teaches_the_gate_and_the_first_autoencoder() -> None:
    model = build()
    gradients = {}
    for weight in (0.0, 1.0):
        model.soft_weight = weight
        model.zero_grad()
        model.objective(batch([1, 5])).backward()
        gradients[weight] = [model.gate_weight.grad.clone(), model.generation.output.weight.grad.clone()]
    assert not gradients[0.0][0].any()
    assert gradients[1.0][0].any()
    assert not torch.equal(gradients[0.0][1], gradients[1.0][1])


def test_scores_are_the_mean_logits_without_what_orders_nothing() -> None:
    model = build().eval()
    for user in range(9):
        _, first, second = both_logits(model, user)
        constant = (model.generation.output_bias + model.retraining.output_bias) / 2
        torch.testing.assert_close(model.score_all(torch.tensor([user]))[0], (first + second) / 2 - constant)


def test_vectors() -> None:
    model = build().eval()
    assert model.user_vectors(torch.arange(9)).shape == (9, 8)
    assert torch.equal(model.encode_catalogue(), model.item_vectors(torch.arange(13)))


def test_dropout_takes_items_of_the_input_in_training_alone() -> None:
    """Of a hidden layer that copies its row, every entry is 0 or 1 / (1 - share) times what it was."""
    model = build(embedding_dim=13, dropout=0.25)
    users = torch.arange(9).repeat(300)
    with torch.no_grad():
        for part in (model.generation, model.retraining):
            part.input.weight.copy_(torch.eye(13))
            part.input_bias.zero_()
        whole = model.eval().history_vectors(*model.histories(users)).atanh()
        dropped = model.train().history_vectors(*model.histories(users)).atanh()
    assert torch.equal(dropped[:, :13], dropped[:, 13:])  # both see the same row
    shares = dropped[whole > 0] / whole[whole > 0]
    assert ((shares == 0) | ((shares - 4 / 3).abs() < 1e-9)).all()
    assert (shares == 0).double().mean().item() == pytest.approx(0.25, abs=0.01)
    assert not dropped[whole == 0].any()


def test_an_empty_history() -> None:
    model = build()
    model.keep(history_offsets=torch.zeros(10, dtype=torch.int64), history_items=NOTHING)
    loss = model.objective(batch([0, 1]))
    loss.backward()
    assert loss.isfinite()
    assert all(parameter.grad.isfinite().all() for parameter in model.parameters())
    assert torch.equal(model.user_vectors(torch.tensor([3]))[0, :4], model.generation.input_bias.tanh())


def test_it_learns_the_taste_of_generated_users() -> None:
    torch.manual_seed(0)
    model = ECAE(embedding_dim=16, dropout=0.2)
    module = RankingModule(model, optimizer=lambda parameters: torch.optim.Adam(parameters, lr=0.01), cutoffs=(5, 10))
    data = GeneratedDataModule(batch_size=16, samples="users")
    trainer = quiet_trainer(max_epochs=30)
    trainer.fit(module, datamodule=data)
    offsets, items = model.histories(torch.arange(30))
    scores = model.eval().score_all(torch.arange(30)).detach()
    scores[torch.repeat_interleave(torch.arange(30), offsets.diff()), items] = -torch.inf
    tastes = scores.topk(3).indices % 4 == (torch.arange(30) % 4).unsqueeze(1)
    assert tastes.float().mean() > 0.6  # 1 in 4 by chance


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"embedding_dim": 0}, "ECAE: embedding_dim is 0; it must be at least 1."),
        ({"dropout": 1.0}, "ECAE: dropout is 1.0; it must be at least 0 and below 1."),
        ({"soft_weight": -1.0}, "ECAE: soft_weight is -1.0; it must be a number and not negative."),
        ({"soft_weight": math.inf}, "ECAE: soft_weight is inf; it must be a number and not negative."),
    ],
)
def test_bad_arguments(arguments: dict[str, float], message: str) -> None:
    with pytest.raises(InputError) as error:
        ECAE(**arguments)  # type: ignore[arg-type]
    assert str(error.value) == message
