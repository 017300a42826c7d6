import pytest
import torch
from torch import Tensor, nn

from kdrec.errors import InputError
from kdrec.models.bpr import BPR
from kdrec.training.optimizers import LazyAdam, let_embeddings_be_sparse
from kdrec.training.ranking import RankingModule
from tests.generated import GeneratedDataModule, quiet_trainer

OPTIONS = {"lr": 0.1, "weight_decay": 0.3, "betas": (0.8, 0.9)}


def table(sparse: bool) -> nn.Embedding:
    made = nn.Embedding(5, 3, sparse=sparse)
    with torch.no_grad():
        made.weight.copy_(torch.arange(15.0).view(5, 3) / 7 - 1)
    return made


def train(made: nn.Embedding, optimizer: torch.optim.Optimizer, batches: list[list[int]]) -> Tensor:
    for rows in batches:
        optimizer.zero_grad()
        (made(torch.tensor(rows)) ** 3).sum().backward()
        optimizer.step()
    return made.weight.detach()


def test_equals_adam_where_every_row_is_looked_up() -> None:
    batches = [[0, 1, 2, 3, 4], [4, 3, 2, 1, 0, 0], [0, 1, 2, 3, 4]]
    lazy, dense = table(True), table(False)
    ours = train(lazy, LazyAdam(lazy.parameters(), **OPTIONS), batches)
    theirs = train(dense, torch.optim.Adam(dense.parameters(), **OPTIONS), batches)
    torch.testing.assert_close(ours, theirs)


def test_a_row_that_is_not_looked_up_stays_and_the_others_follow_the_formula() -> None:
    lazy = table(True)
    before = lazy.weight.detach().clone()
    after = train(lazy, LazyAdam(lazy.parameters(), **OPTIONS), [[1, 3], [3, 3], [1]])
    assert torch.equal(after[[0, 2, 4]], before[[0, 2, 4]])
    for row, steps in ((1, {1: 1, 3: 1}), (3, {1: 1, 2: 2})):  # step of the table -> how often the row is looked up
        values, mean, square = before[row].double(), torch.zeros(3).double(), torch.zeros(3).double()
        for step, times in steps.items():
            slope = times * 3 * values**2 + 0.3 * values
            mean, square = 0.8 * mean + 0.2 * slope, 0.9 * square + 0.1 * slope**2
            values = values - 0.1 * (mean / (1 - 0.8**step)) / ((square / (1 - 0.9**step)).sqrt() + 1e-8)
        torch.testing.assert_close(after[row].double(), values, rtol=1e-6, atol=1e-6)


def test_dense_parameters_move_as_in_adam_beside_sparse_ones() -> None:
    results = []
    for kind in (LazyAdam, torch.optim.Adam):
        made, layer = table(kind is LazyAdam), nn.Linear(3, 2)
        with torch.no_grad():
            layer.weight.fill_(0.5)
            layer.bias.fill_(0.1)
        optimizer = kind([*made.parameters(), *layer.parameters()], **OPTIONS)
        for _ in range(3):
            optimizer.zero_grad()
            layer(made(torch.arange(5))).square().sum().backward()
            optimizer.step()
        results.append((made.weight.detach(), layer.weight.detach(), layer.bias.detach()))
    for ours, theirs in zip(*results, strict=True):
        torch.testing.assert_close(ours, theirs)


def test_its_state_is_saved_and_goes_on() -> None:
    whole, first = table(True), table(True)
    expected = train(whole, LazyAdam(whole.parameters(), **OPTIONS), [[0, 1], [1, 2], [0]])
    optimizer = LazyAdam(first.parameters(), **OPTIONS)
    train(first, optimizer, [[0, 1], [1, 2]])
    again = LazyAdam(first.parameters(), **OPTIONS)
    again.load_state_dict(optimizer.state_dict())
    assert torch.equal(train(first, again, [[0]]), expected)


def test_returns_the_closures_loss_and_takes_its_gradient() -> None:
    made = table(True)
    before = made.weight.detach().clone()
    optimizer = LazyAdam(made.parameters())

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = made(torch.tensor([2])).sum()
        loss.backward()
        return loss

    assert optimizer.step(closure).item() == pytest.approx(before[2].sum().item())
    assert (made.weight[2] != before[2]).all()


def test_a_module_trains_with_it_and_touches_only_its_batches() -> None:
    module = RankingModule(BPR(4), optimizer=lambda p: LazyAdam(p, lr=0.05, weight_decay=0.1), cutoffs=[5])
    data = GeneratedDataModule(batch_size=8)
    trainer = quiet_trainer(max_epochs=1, limit_train_batches=1, limit_val_batches=0)
    trainer.fit(module, datamodule=data)
    batch = next(iter(data.train_dataloader()))
    moments = trainer.optimizers[0].state[module.recommender.users.weight]["exp_avg"]
    moved = set(moments.abs().sum(1).nonzero().flatten().tolist())
    assert moved == set(batch.users.tolist())


def test_a_gradient_scaler_divides_and_skips() -> None:
    plain, scaled = table(True), table(True)
    expected = train(plain, LazyAdam(plain.parameters(), **OPTIONS), [[1, 3]])
    optimizer, scaler = LazyAdam(scaled.parameters(), **OPTIONS), torch.amp.GradScaler("cpu", init_scale=64.0)
    for overflow in (False, True):
        optimizer.zero_grad()
        loss = (scaled(torch.tensor([1, 3])) ** 3).sum() * (float("inf") if overflow else 1.0)
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()
        torch.testing.assert_close(scaled.weight.detach(), expected)


def test_nccl_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.distributed.is_initialized", lambda: True)
    monkeypatch.setattr("torch.distributed.get_backend", lambda: "nccl")
    with pytest.raises(InputError, match="sparse gradients cannot be added up by NCCL; give"):
        let_embeddings_be_sparse(BPR(4))
    let_embeddings_be_sparse(BPR(4), divided=True)
