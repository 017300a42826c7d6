from pathlib import Path

import lightning as L
import pytest
import torch
from lightning import seed_everything
from lightning.pytorch.utilities.exceptions import SIGTERMException

from kdrec.models import checkpoint
from kdrec.models.bpr import BPR
from kdrec.training.callbacks import BestCheckpoint, LastCheckpoint, PatientStopping
from kdrec.training.ranking import RankingModule
from tests.generated import GeneratedDataModule, quiet_trainer


def train(folder: Path, epochs: int, seconds: float, resume: bool = False) -> tuple[RankingModule, list[int]]:
    """Return a module trained up to that epoch, and the epochs of last.ckpt as each epoch's end found it."""
    seed_everything(3, verbose=False)
    found = []

    class Look(RankingModule):
        def on_train_epoch_start(self) -> None:
            super().on_train_epoch_start()
            if (folder / "last.ckpt").exists():
                found.append(checkpoint.read(folder / "last.ckpt")["kdrec"]["epochs"])

    module = Look(BPR(4), cutoffs=(3,))
    trainer = quiet_trainer(
        max_epochs=epochs, enable_checkpointing=True, callbacks=[LastCheckpoint(folder, seconds)]
    )  # fmt: skip
    path = folder / "last.ckpt" if resume else None
    trainer.fit(module, datamodule=GeneratedDataModule(batch_size=64), ckpt_path=path, weights_only=True)
    return module, [*found, checkpoint.read(folder / "last.ckpt")["kdrec"]["epochs"]]


@pytest.mark.parametrize(("seconds", "epochs"), [(0.0, [1, 2, 3, 4]), (3600.0, [1, 1, 1, 4])])
def test_the_last_checkpoint_is_renewed_when_it_is_time_and_at_the_end(
    tmp_path: Path, seconds: float, epochs: list[int]
) -> None:
    assert train(tmp_path, 4, seconds)[1] == epochs


@pytest.mark.parametrize("seconds", [0.0, 3600.0])
def test_a_finished_training_goes_on_as_if_it_had_never_ended(tmp_path: Path, seconds: float) -> None:
    """The file that the training's end wrote is as good as one that an epoch's end wrote."""
    whole, _ = train(tmp_path / "whole", 5, seconds)
    train(tmp_path / "parts", 3, seconds)
    resumed, epochs = train(tmp_path / "parts", 5, seconds, resume=True)
    assert epochs[0] == 3
    assert epochs[-1] == 5
    assert torch.equal(whole.recommender.users.weight, resumed.recommender.users.weight)


def test_a_signal_keeps_the_epoch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def end(self: LastCheckpoint, trainer: L.Trainer, module: L.LightningModule) -> None:
        trainer._signal_connector.received_sigterm = trainer.current_epoch == 2
        kept(self, trainer, module)

    kept = LastCheckpoint.on_train_epoch_end
    monkeypatch.setattr(LastCheckpoint, "on_train_epoch_end", end)
    with pytest.raises(SIGTERMException):
        train(tmp_path, 10, 3600.0)
    assert checkpoint.read(tmp_path / "last.ckpt")["kdrec"]["epochs"] == 3


def best(folder: Path, **state: object) -> BestCheckpoint:
    made = BestCheckpoint(folder, "best", monitor="val/ndcg@5", mode="max", enable_version_counter=False)
    made.load_state_dict(BestCheckpoint(folder, "best", monitor="val/ndcg@5").state_dict() | state)
    return made


def test_the_best_epoch_is_found_again_in_a_folder_that_was_moved(tmp_path: Path) -> None:
    there, here = tmp_path / "there", tmp_path / "here"
    here.mkdir()
    (here / "best.ckpt").touch()
    path = str(there / "best.ckpt")
    state = {"dirpath": str(there), "best_model_path": path, "kth_best_model_path": path}
    state |= {"best_k_models": {path: torch.tensor(0.5)}, "best_model_score": torch.tensor(0.5)}
    found = best(here, **state)
    assert found.best_model_path == found.kth_best_model_path == str(here / "best.ckpt")
    assert found.best_k_models == {str(here / "best.ckpt"): 0.5}
    trainer = quiet_trainer()
    assert not found.check_monitor_top_k(trainer, torch.tensor(0.4))
    assert found.check_monitor_top_k(trainer, torch.tensor(0.6))
    (here / "best.ckpt").unlink()  # it was left behind: what is best here has to be found anew
    with pytest.warns(UserWarning, match="dirpath has changed"):
        assert best(here, **state).check_monitor_top_k(trainer, torch.tensor(0.4))


def test_early_stopping_stands_by_its_decision_unless_it_shall_wait_longer() -> None:
    decided = PatientStopping("val/ndcg@5", patience=2, mode="max")
    for score in (0.5, 0.4, 0.3):
        stop, _ = decided._evaluate_stopping_criteria(torch.tensor(score))
    assert stop
    for patience, stops in ((1, True), (2, True), (3, False)):
        resumed, trainer = PatientStopping("val/ndcg@5", patience=patience, mode="max"), quiet_trainer()
        resumed.load_state_dict(decided.state_dict())
        resumed.on_train_start(trainer, L.LightningModule())
        assert trainer.should_stop is stops
        assert (resumed.patience, resumed.wait_count, resumed.best_score) == (patience, 2, 0.5)


def test_a_training_that_was_killed_after_its_decision_to_stop_makes_no_step(tmp_path: Path) -> None:
    def fit(path: Path | None) -> tuple[L.Trainer, RankingModule]:
        seed_everything(3, verbose=False)
        module, stopping = RankingModule(BPR(4), cutoffs=(3,)), PatientStopping("val/ndcg@3", patience=1, mode="max")
        callbacks = [stopping, LastCheckpoint(tmp_path, 0.0)]
        trainer = quiet_trainer(max_epochs=50, enable_checkpointing=True, callbacks=callbacks)
        trainer.fit(module, datamodule=GeneratedDataModule(), ckpt_path=path, weights_only=True)
        return trainer, module

    whole, module = fit(None)
    assert whole.current_epoch < 50
    before = (tmp_path / "last.ckpt").read_bytes()
    resumed, again = fit(tmp_path / "last.ckpt")
    assert resumed.global_step == whole.global_step
    assert torch.equal(module.recommender.users.weight, again.recommender.users.weight)
    assert (tmp_path / "last.ckpt").read_bytes() == before


def test_the_time_of_all_parts_is_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [100.0]
    monkeypatch.setattr("kdrec.training.callbacks.time.monotonic", lambda: clock[0])
    first, second = LastCheckpoint(tmp_path), LastCheckpoint(tmp_path)
    file: dict[str, float] = {}
    clock[0] += 7
    first.on_save_checkpoint(L.Trainer(), L.LightningModule(), file)
    clock[0] += 1000
    second.on_load_checkpoint(L.Trainer(), L.LightningModule(), file)
    clock[0] += 3
    second.on_save_checkpoint(L.Trainer(), L.LightningModule(), file)
    assert file == {"seconds": 10.0}
