"""The same trainings in one process and in several, and what they leave.

``python -m torch.distributed.run --nproc_per_node 2 -m tests.processes FOLDER`` runs all cases in two.
"""

import contextlib
import inspect
import itertools
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

import lightning as L
import torch
from lightning import seed_everything
from torch import Tensor, nn

from kdrec.distillation.base import Distiller
from kdrec.distillation.ranks import rank, union_over_ranks
from kdrec.errors import InputError
from kdrec.models import losses, sharded
from kdrec.models.base import DotProductRecommender, Recommender
from kdrec.models.bpr import BPR
from kdrec.models.quantized_bpr import QuantizedBPR
from kdrec.training.distillation import DistillationModule
from kdrec.training.optimizers import LazyAdam
from kdrec.training.ranking import RankingModule
from kdrec.training.sharding import RowSharding
from tests.discovery import subclasses
from tests.generated import GeneratedDataModule, content_of, quiet_trainer

BATCH = 40  # of all processes together
EPOCHS = 4  # of 5 steps
TEACHER = "teacher.ckpt"
STILL = {"dropout": 0.0, "cold_share": 0.0, "mask_share": 1.0, "last_share": 0.0}
"""Options with which models draw nothing in training."""


def data(processes: int) -> GeneratedDataModule:
    """Return 161 pairs: the fifth and last batch of an epoch has one, so one of two processes has none of it."""
    return GeneratedDataModule(num_items=36, batch_size=BATCH // processes, num_negatives=2)


@dataclass(frozen=True)
class Case:
    """A training: of a model alone, or of a narrow BPR with a method."""

    model: type[Recommender] = BPR
    method: type[Distiller] | None = None
    options: dict[str, Any] = field(default_factory=dict)
    optimizer: type[torch.optim.Optimizer] = torch.optim.Adam
    sharded: bool = False

    def __str__(self) -> str:
        parts = self.model, self.method, *self.options.values(), self.optimizer, "sharded" if self.sharded else None
        return " ".join(str(getattr(part, "__name__", part)) for part in parts if part)

    def make(self, folder: Path) -> RankingModule:
        """Return the module to train; the teacher lies in a folder."""
        if self.method is None:
            # what a model draws at random differs between processes, as it should
            options = {name: STILL[name] for name in inspect.signature(self.model).parameters if name in STILL}
            return RankingModule(self.model(**options), losses.bpr, self.optimizer, cutoffs=(5, 10))
        few = {"num_groups": 4} if "num_groups" in inspect.signature(self.method).parameters else {}
        student, distiller = BPR(3, init_std=0.1), self.method(0.01, **few, **self.options)  # type: ignore[call-arg]
        return DistillationModule(
            student, str(folder / TEACHER), distiller, losses.bpr, self.optimizer, cutoffs=(5, 10)
        )


def cases() -> list[Case]:
    """Return every model, and the methods with each choice of their options.

    Models are trained by SGD: some have weights, such as a last bias, whose gradient is nothing but rounding errors,
    which Adam would make large.
    """
    models = [
        model
        for model in subclasses("models", Recommender)
        if model is not DotProductRecommender
        and all(argument.default is not argument.empty for argument in inspect.signature(model).parameters.values())
    ]  # an ensemble, which cannot be made of defaults, learns nothing
    found = [Case(model, optimizer=torch.optim.SGD) for model in models] + [Case(), Case(optimizer=LazyAdam)]
    found.append(Case(QuantizedBPR, optimizer=LazyAdam))  # else it rounds all rows of its table in such batches
    for method in subclasses("distillation", Distiller):
        if "weight" in inspect.signature(method).parameters:  # not so a sum of methods, which adds no arithmetic
            found += [Case(method=method, options=options) for options in _choices(method)]
        if "topology_scope" in inspect.signature(method).parameters:
            found.append(Case(method=method, options={"topology_scope": "rank"}))
            found.append(Case(method=method, options={"topology_scope": "global"}, optimizer=LazyAdam))
    return found


def sharded_cases() -> list[Case]:
    """Return every model whose tables can be divided, and each method and optimizer with one of its choices."""
    able = [case for case in cases() if case.model.lookup_tables and case.options.get("topology_scope") != "rank"]
    return [replace(case, sharded=True) for case in {(c.model, c.method, c.optimizer): c for c in able}.values()]


def _choices(method: type[Distiller]) -> Iterator[dict[str, Any]]:
    """Yield every combination of a constructor's literals that it accepts, over all processes."""
    hints = get_type_hints(method.__init__)
    literals = {name: get_args(hint) for name, hint in hints.items() if get_origin(hint) is Literal}
    if "topology_scope" in literals:
        literals["topology_scope"] = ("global",)
    for values in itertools.product(*literals.values()):
        options = dict(zip(literals, values, strict=True))
        with contextlib.suppress(InputError):
            method(**options)  # type: ignore[arg-type]
            yield options


class Watch(L.Callback):
    """Note the loss of every step, over all processes, the gradients of the first, and what tables take at the end."""

    def __init__(self) -> None:
        self.losses: list[float] = []
        self.bytes = 0
        self.gradients: dict[str, Tensor] = {}

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        assert not getattr(trainer.model, "modules_buffers", ()), "DDP sends them at every step, and none changes"

    def on_after_backward(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        for name, parameter in pl_module.named_parameters() if not self.gradients else ():
            assert parameter.grad is not None, name
            self.gradients[name] = parameter.grad.to_dense().clone()

    def on_train_batch_end(self, trainer: L.Trainer, *args: Any) -> None:
        self.losses.append(trainer.strategy.reduce(args[1]["loss"].detach().clone(), reduce_op="mean").item())

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        [optimizer], recommender = trainer.optimizers, pl_module.recommender
        for weight in (getattr(recommender, name).weight for name in recommender.lookup_tables):
            held = [weight, *(value for value in optimizer.state[weight].values() if value is not None and value.dim())]
            self.bytes += sum(tensor.untyped_storage().nbytes() for tensor in held)


def prepare(folder: Path) -> None:
    """Put a teacher into a folder."""
    torch.manual_seed(0)
    teacher, split = BPR(9, init_std=1.0), data(1).split
    teacher.bind(split.train)
    torch.save(content_of(teacher, split.train, split.valid, split.test), folder / TEACHER)


def train(case: Case, folder: Path, processes: int) -> dict[str, Any]:
    """Train and return losses, gradients, weights and metrics."""
    seed_everything(1, verbose=False)
    module, watch = case.make(folder), Watch()
    several = RowSharding() if case.sharded else "ddp"
    engine = {"devices": processes, "strategy": several if processes > 1 else "auto"}
    short = {"max_epochs": EPOCHS, "check_val_every_n_epoch": EPOCHS, "num_sanity_val_steps": 0}
    trainer = quiet_trainer(callbacks=[watch], **short, **engine)
    trainer.fit(module, datamodule=data(processes))
    weights = {name: value.clone() for name, value in module.state_dict().items()}
    metrics = {name: value.item() for name, value in trainer.callback_metrics.items()}
    left = {"losses": watch.losses, "gradients": watch.gradients, "weights": weights, "metrics": metrics}
    return left | {"bytes": watch.bytes}


def again(folder: Path) -> dict[str, Any]:
    """Test a divided model with and without its checkpoint, and save it with a weight that only one process can see."""
    module, short = RankingModule(BPR(4), cutoffs=(5,)), {"max_epochs": 1, "num_sanity_val_steps": 0}
    trainer = quiet_trainer(devices=2, strategy=RowSharding(), **short)
    trainer.fit(module, datamodule=data(2))
    trainer.save_checkpoint(folder / "divided.ckpt")
    tested = [
        trainer.test(module, datamodule=data(2), ckpt_path=path, verbose=False)
        for path in (None, str(folder / "divided.ckpt"))
    ]
    with torch.no_grad():
        module.recommender.items.weight[0] *= torch.nan if rank() == 1 else 1.0
    try:
        trainer.save_checkpoint(folder / "diverged.ckpt")
    except InputError as error:
        return {"tested": tested, "refused": str(error)}
    return {"tested": tested}


def unions() -> dict[str, list[int]]:
    """Join ids that the first process and the second hold."""
    held = {"some": ([0, 4, 9], [2, 4]), "one": ([], [3, 5]), "none": ([], [])}
    mine = {name: torch.tensor(ids[rank()], dtype=torch.int64) for name, ids in held.items()}
    return {name: union_over_ranks(ids).tolist() for name, ids in mine.items()}


def lookups() -> dict[str, Any]:
    """Look up in a divided table, the first process something and the second nothing, and put it together again."""
    sharded._AT_ONCE = 3
    part = sharded.ShardedEmbedding(nn.Embedding(7, 2, _weight=torch.arange(14.0).view(7, 2)))
    rows = torch.tensor([[6, 0], [3, 3]] if rank() == 0 else []).long()
    found = part(rows)
    (found * found).sum().backward()
    parts = {"found": found.detach(), "gradient": part.weight.grad, "whole": sharded.whole(part).detach()}
    parts["gathered"] = sharded.gathered(part.weight.detach(), 7)
    parts["own"] = part.eval()(torch.tensor([rank() + 4])).detach()
    try:
        part(torch.tensor([4, 5]))
    except InputError as error:
        return parts | {"refused": str(error)}
    return parts


if __name__ == "__main__":
    torch.set_num_threads(1)
    target = Path(sys.argv[1])
    left = {str(case): train(case, target, int(os.environ["WORLD_SIZE"])) for case in cases() + sharded_cases()}
    left |= {"unions": unions(), "lookups": lookups(), "again": again(target)}
    torch.save(left, target / f"{rank()}.pt")
