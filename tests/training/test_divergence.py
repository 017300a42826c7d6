import math
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning import seed_everything
from torch import Tensor

from kdrec.data.sampling import Batch
from kdrec.errors import InputError
from kdrec.models import checkpoint
from kdrec.models.bpr import BPR
from kdrec.training import divergence
from kdrec.training.callbacks import LastCheckpoint
from kdrec.training.divergence import Terms
from kdrec.training.ranking import RankingModule
from tests.generated import GeneratedDataModule, quiet_trainer


class Spoilt(RankingModule):
    """Has a second term, that is not finite in one step; 3 steps an epoch."""

    def __init__(self, step: int, value: float, **options: Any) -> None:
        super().__init__(BPR(4), cutoffs=(3,), **options)
        self.step = step
        self.value = value

    def terms(self, batch: Batch) -> dict[str, Tensor]:
        terms = super().terms(batch)
        spoilt = self.trainer.global_step == self.step
        return terms | {"other": 0 * terms["base"] + (self.value if spoilt else 1.0)}


def fit(module: RankingModule, **options: Any) -> None:
    seed_everything(0, verbose=False)
    quiet_trainer(max_epochs=4, **options).fit(module, datamodule=GeneratedDataModule(batch_size=90))


def keeping(folder: Path, *callbacks: Any) -> dict[str, Any]:
    return {"enable_checkpointing": True, "callbacks": [*callbacks, LastCheckpoint(folder, 0.0)]}


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("steps", [1, 2, 1000])
def test_step_term_and_weights_are_named(value: float, steps: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(divergence, "STEPS", steps)
    with pytest.raises(InputError) as caught:
        fit(Spoilt(step=4, value=value))
    said = str(caught.value)
    assert said.startswith("The training diverged: train/other is no finite number in step 2 of epoch 2, and the larg")
    assert re.search(r"recommender\.(users|items)\.weight \(", said)
    assert said.endswith("lower the learning rate, or the weight of what diverged.")


def test_it_is_noticed_within_a_long_epoch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(divergence, "STEPS", 1)
    module = Spoilt(step=0, value=math.nan)
    with pytest.raises(InputError, match="in step 1 of epoch 1"):
        fit(module)
    assert module.trainer.global_step == 1


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_the_last_good_epoch_is_kept(tmp_path: Path, value: float) -> None:
    with pytest.raises(InputError, match=re.escape(f"({tmp_path / 'last.ckpt'} keeps the last good epoch).")):
        fit(Spoilt(step=8, value=value), **keeping(tmp_path))
    assert checkpoint.read(tmp_path / "last.ckpt")["kdrec"]["epochs"] == 2
    checkpoint.restore(tmp_path / "last.ckpt")  # would refuse weights that are not finite


class Overflowing(torch.optim.SGD):
    """Moves the weights to infinity in the fourth step."""

    steps = 0

    def step(self, closure: Any = None) -> Any:
        loss = super().step(closure)
        self.steps += 1
        if self.steps == 6:
            for group in self.param_groups:
                group["params"][1].data[3] = torch.inf
        return loss


@pytest.mark.parametrize("exception", [False, True])
def test_finite_losses_do_not_hide_weights_that_are_not(tmp_path: Path, exception: bool) -> None:
    module = RankingModule(BPR(4), optimizer=lambda p: Overflowing(p, lr=0.1), cutoffs=(3,))
    options = keeping(tmp_path)
    options["callbacks"][-1].save_on_exception = exception
    with pytest.raises(InputError) as caught:
        fit(module, **options)
    assert "recommender.items.weight holds numbers that are not finite at the end of epoch 2" in str(caught.value)
    assert "recommender.items.weight (3% not finite, the rest up to" in str(caught.value)  # 1 of 40 rows
    assert checkpoint.read(tmp_path / "last.ckpt")["kdrec"]["epochs"] == 1


def test_sums_and_the_first_fault_by_hand() -> None:
    terms = Terms()
    assert terms.add_up() is None
    steps = [(1.0, 2.0), (3.0, math.inf), (math.nan, 1.0)]
    for a, b in steps[:1]:
        assert terms.add({"a": torch.tensor(a), "b": torch.tensor(b)}).tolist() == [a, b]
    assert int(terms.add_up()) == divergence._NEVER  # type: ignore[arg-type]
    for a, b in steps[1:]:
        terms.add({"a": torch.tensor(a), "b": torch.tensor(b)})
    assert int(terms.add_up()) == 1 * 2 + 1  # type: ignore[arg-type]  # step 1, term 1
    assert math.isnan(terms.sums["a"])
    assert terms.sums["b"] == math.inf


def test_terms_may_come_and_go() -> None:
    terms = Terms()
    one, two = {"a": torch.tensor(1.0)}, {"a": torch.tensor(2.0), "b": torch.tensor(3.0)}
    assert not terms.is_full(one)
    terms.add(one)
    assert not terms.is_full(one)
    assert terms.is_full(two)
    terms.add_up()
    assert not terms.is_full(two)
    terms.add(two)
    terms.add_up()
    assert {name: float(total) for name, total in terms.sums.items()} == {"a": 3.0, "b": 3.0}


def test_a_step_copies_nothing_to_the_host(monkeypatch: pytest.MonkeyPatch) -> None:
    """On torch's meta device every copy to the host is an error."""
    terms = Terms()
    for _ in range(5):
        row = {"a": torch.ones((), device="meta", requires_grad=True), "b": torch.ones((), device="meta")}
        assert not terms.is_full(row)
        terms.add(row).sum().backward()
    assert terms.add_up().device.type == "meta"  # type: ignore[union-attr]
