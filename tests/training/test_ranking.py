import warnings
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from lightning import seed_everything
from lightning.pytorch.callbacks import ModelCheckpoint

from kdrec.data.sampling import Batch
from kdrec.errors import InputError
from kdrec.models import checkpoint, losses
from kdrec.models.base import Recommender
from kdrec.models.bpr import BPR
from kdrec.models.ncf import NCF
from kdrec.models.popularity import Popularity
from kdrec.training.ranking import RankingModule
from tests.generated import GeneratedDataModule, quiet_trainer

CUTOFFS = (5, 10)


def module(**options: object) -> RankingModule:
    return RankingModule(BPR(8, init_std=0.1), cutoffs=CUTOFFS, **options)  # type: ignore[arg-type]


def test_the_base_term_is_the_loss_of_the_scores() -> None:
    model = BPR(2)
    model.build(2, 3)
    batch = Batch(torch.tensor([0, 1]), torch.tensor([1, 2]), torch.tensor([[0, 2], [0, 1]]))
    term = RankingModule(model, losses.softmax).terms(batch)["base"]
    expected = losses.softmax(model.score(batch.users, batch.positives), model.score(batch.users, batch.negatives))
    torch.testing.assert_close(term, expected)


@pytest.mark.parametrize("make", [lambda: BPR(8, init_std=0.1), lambda: NCF(8, dropout=0.0)], ids=["BPR", "NCF"])
@pytest.mark.parametrize("loss", [losses.bpr, losses.bce, losses.softmax], ids=lambda loss: loss.__name__)
def test_the_loss_falls_and_ranking_improves(make: Callable[[], Recommender], loss: object) -> None:
    seed_everything(0, verbose=False)
    losses_seen: list[float] = []

    class Watch(RankingModule):
        def on_train_epoch_end(self) -> None:
            super().on_train_epoch_end()
            losses_seen.append(self.trainer.callback_metrics["train/loss"].item())

    watched = Watch(make(), loss, lambda p: torch.optim.Adam(p, lr=5e-3), cutoffs=CUTOFFS)  # type: ignore[arg-type]
    data = GeneratedDataModule(num_users=60, batch_size=64)
    [untrained] = quiet_trainer().validate(watched, datamodule=data, verbose=False)
    quiet_trainer(max_epochs=25).fit(watched, datamodule=data)
    [trained] = quiet_trainer().validate(watched, datamodule=data, verbose=False)
    assert losses_seen[-1] < 0.9 * losses_seen[0]
    assert trained["val/ndcg@10"] > untrained["val/ndcg@10"] + 0.1


def test_logged_loss_is_the_mean_over_pairs_of_the_epoch() -> None:
    logged: list[float] = []

    class Watch(RankingModule):
        def on_train_epoch_end(self) -> None:
            super().on_train_epoch_end()
            logged.append(self.trainer.callback_metrics["train/base"].item())

    still = Watch(BPR(8, init_std=1.0), losses.bpr, lambda p: torch.optim.SGD(p, lr=0.0), cutoffs=CUTOFFS)
    data = GeneratedDataModule(batch_size=50)
    quiet_trainer(max_epochs=2).fit(still, datamodule=data)
    expected = []
    loader = data.train_dataloader()
    for epoch in range(2):
        loader.set_epoch(epoch)
        batches = list(loader)
        total = sum(still.terms(batch)["base"].item() for batch in batches)
        expected.append(total / sum(len(batch.users) for batch in batches))
    assert logged == pytest.approx(expected, rel=1e-5)
    assert expected[0] != pytest.approx(expected[1], rel=1e-3)


def test_every_epochs_validation_counts_every_user_once() -> None:
    trained = module()
    quiet_trainer(max_epochs=3).fit(trained, datamodule=GeneratedDataModule(eval_batch_size=7))
    assert trained.metric("val").per_user[0].tolist() == list(range(30))


def test_two_runs_of_one_seed_are_equal_and_of_two_are_not() -> None:
    def weights(seed: int) -> torch.Tensor:
        seed_everything(seed, verbose=False)
        trained = module()
        quiet_trainer(max_epochs=2).fit(trained, datamodule=GeneratedDataModule())
        return trained.recommender.item_vectors(torch.arange(40))

    assert torch.equal(weights(0), weights(0))
    assert not torch.equal(weights(0), weights(1))


def test_resume_ends_where_an_uninterrupted_run_ends(tmp_path: Path) -> None:
    seed_everything(3, verbose=False)
    whole = module()
    quiet_trainer(max_epochs=4).fit(whole, datamodule=GeneratedDataModule(batch_size=64))
    seed_everything(3, verbose=False)
    keep = ModelCheckpoint(tmp_path, save_last=True, save_on_train_epoch_end=True)
    quiet_trainer(max_epochs=2, enable_checkpointing=True, callbacks=[keep]).fit(
        module(), datamodule=GeneratedDataModule(batch_size=64)
    )
    resumed = module()
    quiet_trainer(max_epochs=4).fit(
        resumed, datamodule=GeneratedDataModule(batch_size=64), ckpt_path=tmp_path / "last.ckpt", weights_only=True
    )
    for name, value in whole.recommender.state_dict().items():
        assert torch.equal(value, resumed.recommender.state_dict()[name]), name


def test_a_checkpoint_keeps_the_lists_and_the_facts(tmp_path: Path) -> None:
    seed_everything(5, verbose=False)
    trained, data = module(), GeneratedDataModule()
    trainer = quiet_trainer(max_epochs=2)
    trainer.fit(trained, datamodule=data)
    trainer.save_checkpoint(tmp_path / "model.ckpt")
    content = checkpoint.read(tmp_path / "model.ckpt")
    users = torch.arange(30)
    restored = checkpoint.restore(tmp_path / "model.ckpt")
    assert torch.equal(restored.score_all(users).topk(5).indices, trained.recommender.score_all(users).topk(5).indices)
    section = content["kdrec"]
    assert section["epochs"] == 2
    assert section["seed"] == 5
    assert section["protocol"] == "generated/leave-one-out-time-min3, full ranking"
    assert section["metrics"]["val/ndcg@10"] == trainer.callback_metrics["val/ndcg@10"].item()
    assert section["data"]["class_path"] == "tests.generated.GeneratedDataModule"
    assert section["user_ids"] == data.split.train.user_ids.tolist()


def test_test_hides_validation_items_and_validation_does_not_hide_test_items() -> None:
    trained, data = module(), GeneratedDataModule()
    quiet_trainer(max_epochs=0).fit(trained, datamodule=data)
    split = data.split
    user = torch.tensor([0])
    trained.setup("fit")
    hidden = {name: set(trained._rankings[name].hidden.of(user)[1].tolist()) for name in ("val", "test")}
    of = {name: set(part.items[part.users == 0].tolist()) for name, part in vars(split).items()}
    assert hidden == {"val": of["train"], "test": of["train"] | of["valid"]}


def test_metrics_do_not_depend_on_the_evaluation_batch() -> None:
    seed_everything(0, verbose=False)
    trained = module()
    quiet_trainer(max_epochs=1).fit(trained, datamodule=GeneratedDataModule())
    results = [
        quiet_trainer().test(trained, datamodule=GeneratedDataModule(eval_batch_size=size), verbose=False)
        for size in (1, 7, 256)
    ]
    assert results[0] == results[1] == results[2]


def test_a_checkpoint_knows_all_that_users_touched(tmp_path: Path) -> None:
    trained, data = module(), GeneratedDataModule()
    trainer = quiet_trainer(max_epochs=1)
    trainer.fit(trained, datamodule=data)
    trainer.save_checkpoint(tmp_path / "model.ckpt")
    seen = checkpoint.read(tmp_path / "model.ckpt")["kdrec"]["seen"]
    interactions = data.load()
    for user in range(30):
        own = interactions.subset(interactions.users == user)
        items = seen["items"][seen["offsets"][user] : seen["offsets"][user + 1]].tolist()
        assert items == [item for _, item in sorted(zip(own.timestamps, own.items, strict=True))]


def test_sampled_ranking_warns_and_says_so_in_the_protocol() -> None:
    trained = module(num_candidates=20)
    with pytest.warns(UserWarning, match="sampled"):
        quiet_trainer(max_epochs=1).fit(trained, datamodule=GeneratedDataModule())
    assert trained.protocol.endswith("ranking among 20 sampled items")


def test_what_has_nothing_to_train_is_bound_ranked_and_saved(tmp_path: Path) -> None:
    trainer, counting = quiet_trainer(max_epochs=1), RankingModule(Popularity(), cutoffs=CUTOFFS)
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        trainer.fit(counting, datamodule=GeneratedDataModule())
    trainer.save_checkpoint(tmp_path / "popularity.ckpt")
    train = GeneratedDataModule().split.train
    again = checkpoint.restore(tmp_path / "popularity.ckpt")
    assert again.score_all(torch.tensor([0]))[0].tolist() == train.item_counts.tolist()
    assert trainer.callback_metrics["val/recall@10"] > 0
    assert trainer.global_step > 0, "Lightning's ModelCheckpoint saves nothing before a step"


class OwnLoss(BPR):
    def objective(self, batch: Batch) -> torch.Tensor:
        return self.users(batch.users).square().sum()


def test_a_loss_of_the_architecture_stands_in_place_of_the_ranking_loss() -> None:
    trained = RankingModule(OwnLoss(8), cutoffs=CUTOFFS)
    trainer = quiet_trainer(max_epochs=1)
    trainer.fit(trained, datamodule=GeneratedDataModule(samples="users"))
    assert trainer.callback_metrics["train/base"] < 0.01
    batch = next(iter(trainer.train_dataloader))
    assert trained.terms(batch)["base"].item() == pytest.approx(trained.recommender.objective(batch).item())


@pytest.mark.parametrize(
    ("other", "data", "complaint"),
    [
        (RankingModule(BPR(9), cutoffs=CUTOFFS), GeneratedDataModule(), r"BPR\(embedding_dim=8.*BPR\(embedding_dim=9"),
        (RankingModule(NCF(8), cutoffs=CUTOFFS), GeneratedDataModule(), r"BPR\(.*NCF\("),
        (RankingModule(BPR(8, init_std=0.1), cutoffs=CUTOFFS), GeneratedDataModule(seed=1), "training data is"),
    ],
)
def test_a_checkpoint_of_another_run_is_refused(
    tmp_path: Path, other: RankingModule, data: GeneratedDataModule, complaint: str
) -> None:
    trainer = quiet_trainer(max_epochs=1)
    trainer.fit(module(), datamodule=GeneratedDataModule())
    trainer.save_checkpoint(tmp_path / "model.ckpt")
    with pytest.raises(InputError, match=complaint):
        quiet_trainer().test(other, datamodule=data, ckpt_path=tmp_path / "model.ckpt", weights_only=True)


def test_the_learning_rate_schedule_is_followed_and_logged() -> None:
    rates: list[float] = []

    class Watch(RankingModule):
        def on_train_epoch_end(self) -> None:
            super().on_train_epoch_end()
            rates.append(self.trainer.callback_metrics["train/learning_rate"].item())

    watched = Watch(
        BPR(4),
        optimizer=lambda p: torch.optim.Adam(p, lr=0.8),
        lr_scheduler=lambda o: torch.optim.lr_scheduler.ExponentialLR(o, gamma=0.5),
        cutoffs=CUTOFFS,
    )
    quiet_trainer(max_epochs=3).fit(watched, datamodule=GeneratedDataModule())
    assert rates == pytest.approx([0.8, 0.4, 0.2])


def test_half_precision_ranks_by_the_weights_own() -> None:
    seed_everything(0, verbose=False)
    trained, data = module(), GeneratedDataModule()
    quiet_trainer(max_epochs=1).fit(trained, datamodule=data)
    whole = quiet_trainer().test(trained, datamodule=data, verbose=False)
    seen: set[torch.dtype] = set()
    score_all = trained.recommender.score_all

    def spy(users: torch.Tensor, catalogue: torch.Tensor | None = None) -> torch.Tensor:
        scores = score_all(users, catalogue)
        seen.add(scores.dtype)
        return scores

    trained.recommender.score_all = spy  # type: ignore[method-assign]
    assert quiet_trainer(precision="bf16-mixed").test(trained, datamodule=data, verbose=False) == whole
    assert seen == {torch.float32}


@pytest.mark.parametrize("precision", ["bf16-true", "64-true"])
def test_weights_of_another_precision_are_kept_and_read(precision: str, tmp_path: Path) -> None:
    trained, trainer = module(), quiet_trainer(max_epochs=1, precision=precision)
    trainer.fit(trained, datamodule=GeneratedDataModule())
    trainer.save_checkpoint(tmp_path / "last.ckpt")
    read = checkpoint.restore(tmp_path / "last.ckpt")
    for ours, theirs in zip(read.parameters(), trained.recommender.parameters(), strict=True):
        assert torch.equal(ours, theirs.to(ours.dtype))
