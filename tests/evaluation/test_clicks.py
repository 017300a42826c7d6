import itertools
import math
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml
from lightning import seed_everything

from kdrec.data.splits import RandomRatio, Split
from kdrec.evaluation.clicks import add_clicks, click_metrics
from kdrec.evaluation.ranking import CatalogueRanking
from kdrec.models.bpr import BPR
from kdrec.models.deepfm import DeepFM
from kdrec.training.ranking import RankingModule
from tests.commandline import TEACHER, Kdrec
from tests.generated import GeneratedDataModule, generate, quiet_trainer


def model() -> BPR:
    torch.manual_seed(0)
    made = BPR(4, init_std=1.0)
    made.build(30, 40)
    return made


@pytest.fixture
def parts() -> Split:
    return RandomRatio(0.2, 0.3, min_interactions=5)(generate())


def naive(split: Split, scores: torch.Tensor) -> tuple[float, float]:
    """Every positive against every negative, and every pair's logarithm; negatives as the ranking draws them."""
    ranking = CatalogueRanking(split.test, (split.train, split.valid))
    clicked, unclicked = [], []
    for user in range(30):
        own = split.test.items[split.test.users == user]
        clicked += [scores[user, item].item() for item in own]
        _, drawn = ranking.unseen(torch.tensor([user]), torch.tensor([len(own)]))
        assert len(drawn) == len(own)
        unclicked += [scores[user, item].item() for item in drawn.tolist()]
    wins = [(one > other) + 0.5 * (one == other) for one, other in itertools.product(clicked, unclicked)]
    logs = [math.log1p(math.exp(-score)) for score in clicked] + [math.log1p(math.exp(score)) for score in unclicked]
    return sum(wins) / len(wins), sum(logs) / len(logs)


@pytest.mark.parametrize("batch_size", [30, 7])
@pytest.mark.parametrize("strength", [1.0, 4.0])  # the latter has logits beyond 17, all of which float32 says as 1
def test_equals_the_naive_form_in_any_batches(
    parts: Split, batch_size: int, strength: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kdrec.evaluation.chunks.CPU_BYTES", 48 * 40 * 9)  # of 9 users at a time
    recommender, metrics = model(), click_metrics()
    recommender.users.weight.data *= strength
    ranking = CatalogueRanking(parts.test, (parts.train, parts.valid))
    for users in torch.randperm(30, generator=torch.Generator().manual_seed(1)).split(batch_size):
        add_clicks(metrics, ranking, recommender, users)
    add_clicks(metrics, ranking, recommender, torch.arange(0))  # as a process without users does
    auc, logloss = naive(parts, recommender.score_all(torch.arange(30)).double())
    found = {name: value.item() for name, value in metrics.compute().items()}
    assert found == {"auc": pytest.approx(auc, abs=1e-6), "logloss": pytest.approx(logloss, rel=1e-5)}


def test_little_memory_is_enough(parts: Split, monkeypatch: pytest.MonkeyPatch) -> None:
    """Draws hold long numbers of all items for some users at a time, and half as many where these are too many."""
    drawn: list[int] = []
    ranking, draw = CatalogueRanking(parts.test, (parts.train,)), CatalogueRanking.unseen

    def unseen(self: CatalogueRanking, users: torch.Tensor, counts: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        drawn.append(len(users))
        if len(users) > 10:
            raise torch.OutOfMemoryError
        return draw(self, users, counts)

    monkeypatch.setattr(CatalogueRanking, "unseen", unseen)
    add_clicks(click_metrics(), ranking, model(), torch.arange(30))
    assert drawn == [30, 15, 7, 7, 7, 7, 2]


def test_a_click_model_logs_both_and_others_neither() -> None:
    seed_everything(0, verbose=False)
    data = GeneratedDataModule(num_users=60, batch_size=64)
    fitted = RankingModule(DeepFM(8, (8,)), optimizer=lambda p: torch.optim.Adam(p, lr=5e-3), cutoffs=(5,))
    [before] = quiet_trainer().validate(fitted, datamodule=data, verbose=False)
    quiet_trainer(max_epochs=10).fit(fitted, datamodule=data)
    [after] = quiet_trainer().validate(fitted, datamodule=data, verbose=False)
    [again] = quiet_trainer().validate(fitted, datamodule=data, verbose=False)
    assert after == again
    assert after["val/auc"] > before["val/auc"] + 0.1
    assert 0 < after["val/logloss"] < before["val/logloss"] - 0.05
    assert "test/auc" in quiet_trainer().test(fitted, datamodule=data, verbose=False)[0]
    plain = RankingModule(BPR(8), cutoffs=(5,))
    assert "val/auc" not in quiet_trainer().validate(plain, datamodule=data, verbose=False)[0]


def clicking(folder: Path) -> dict[str, object]:
    """Write a config of a click model."""
    config = yaml.safe_load(yaml.safe_dump(TEACHER))
    config["model"]["init_args"]["recommender"] = {"class_path": "DeepFM", "init_args": {"embedding_dim": 4}}
    (folder / "click.yaml").write_text(yaml.safe_dump(config))
    return config


def test_the_command_line_shows_and_watches_them(kdrec: Kdrec, workplace: Path) -> None:
    clicking(workplace)
    watch = ["--checkpoint.monitor", "val/logloss"]
    assert "give checkpoint.mode: min with it" in kdrec("fit", "--config", "click.yaml", *watch).sentence
    assert "there is no metric 'val/auc'" in kdrec("fit", "--config", "teacher.yaml", *watch[:1], "val/auc").sentence
    done = kdrec("fit", "--config", "click.yaml", *watch, "--checkpoint.mode", "min")
    assert done.code == 0, done.error
    done = kdrec("test", "--config", "click.yaml")
    assert done.code == 0, done.error
    assert "held-out items against as many sampled ones" in " ".join(done.out.split())
    assert "auc 0." in done.out


@pytest.mark.slow
def test_two_processes_count_every_pair_once(kdrec: Kdrec, workplace: Path) -> None:
    clicking(workplace)
    assert kdrec("fit", "--config", "click.yaml").code == 0
    single = kdrec("test", "--config", "click.yaml").out
    two = ["--trainer.devices", "2", "--trainer.strategy", "ddp"]
    command = [sys.executable, "-m", "kdrec", "test", "--config", "click.yaml", *two]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    said = [line.split() for line in single.splitlines() if "auc" in line or "ndcg" in line]
    assert len(said) == 2
    assert [line.split() for line in done.stdout.splitlines() if "auc" in line or "ndcg" in line] == said
