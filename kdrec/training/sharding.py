"""Train models whose tables are larger than the memory of one device."""

from typing import Any

import lightning as L
import torch
from lightning.pytorch.strategies import DDPStrategy, StrategyRegistry
from lightning.pytorch.utilities import GradClipAlgorithmType
from torch import Tensor
from torch.optim import Optimizer

from kdrec.errors import InputError
from kdrec.models.base import Recommender
from kdrec.models.sharded import ShardedEmbedding, gathered, own_rows


class RowSharding(DDPStrategy):
    """Lightning's DDP, with the rows of the model's tables, their gradients and their moments divided over processes.

    Each process has batches of its own, as in DDP, and N with batches of B do what one does with batches of N * B.
    Checkpoints are those of one process. An optimizer must move each number of a table by itself, as SGD, Adagrad,
    Adam and `LazyAdam` do.

    Args:
        process_group_backend: How processes talk. Default: NCCL on GPUs, gloo on CPUs.
    """

    def __init__(self, process_group_backend: str | None = None) -> None:
        super().__init__(process_group_backend=process_group_backend)

    def setup(self, trainer: L.Trainer) -> None:
        """Divide the tables, then go on as DDP.

        Raises:
            InputError: If the model has no tables that can be divided, or an option does not work with parts of them.
        """
        assert self.lightning_module is not None
        recommender = getattr(self.lightning_module, "recommender", None)
        if not isinstance(recommender, Recommender) or not recommender.lookup_tables:
            raise InputError(
                f"RowSharding divides tables that are only looked up, and {type(recommender).__name__} has none; give "
                f"--trainer.strategy ddp, or train BPR, NCF or NeuMF."
            )
        if trainer.gradient_clip_val and trainer.gradient_clip_algorithm != GradClipAlgorithmType.VALUE:
            raise InputError(
                "RowSharding cannot clip gradients by their norm, of which each process sees a part; give "
                "--trainer.gradient_clip_algorithm value, or leave trainer.gradient_clip_val out."
            )
        if getattr(self.precision_plugin, "scaler", None) is not None:
            raise InputError("RowSharding cannot scale losses for 16-bit floats; give --trainer.precision bf16-mixed.")
        for name in recommender.lookup_tables:
            table = getattr(recommender, name)
            if not isinstance(table, ShardedEmbedding):
                setattr(recommender, name, ShardedEmbedding(table))
        super().setup(trainer)

    def configure_ddp(self) -> None:
        """Let DDP see to the other parameters, if there are any."""
        assert self.model is not None
        tables = self._tables()
        if any(weight.requires_grad and name not in tables for name, weight in self.model.named_parameters()):
            super().configure_ddp()

    def _tables(self) -> dict[str, ShardedEmbedding]:
        """Return the divided tables by the names of their weights."""
        assert self.lightning_module is not None
        parts = self.lightning_module.named_modules()
        return {f"{name}.weight": part for name, part in parts if isinstance(part, ShardedEmbedding)}

    # Checkpoints

    def lightning_module_state_dict(self) -> dict[str, Any]:
        """Return the weights, in the first process whole ones."""
        tables, weights = self._tables(), super().lightning_module_state_dict()
        return weights | {name: gathered(weights[name], table.num_embeddings) for name, table in tables.items()}

    def optimizer_state(self, optimizer: Optimizer) -> dict[str, Any]:
        """Return the optimizer's state, in the first process of whole tables."""
        state = super().optimizer_state(optimizer)
        held = dict(state["state"])
        for place, table in self._places(optimizer).items():
            held[place] = {
                name: gathered(value, table.num_embeddings) if _is_of(value, table.weight.shape) else value
                for name, value in held.get(place, {}).items()
            }
        return state | {"state": held}

    def load_model_state_dict(self, checkpoint: Any, strict: bool = True) -> None:
        """Take the weights whole, or this process's part where the tables were divided for a run before."""
        weights = checkpoint["state_dict"]
        own = {name: own_rows(weights[name]) for name in self._tables() if name in weights}
        super().load_model_state_dict(checkpoint | {"state_dict": weights | own}, strict)

    def load_optimizer_state_dict(self, checkpoint: Any) -> None:
        """Take this process's part of the whole tables' state."""
        states = []
        for optimizer, state in zip(self.optimizers, checkpoint["optimizer_states"], strict=True):
            held = dict(state["state"])
            for place, table in self._places(optimizer).items():
                shape = torch.Size((table.num_embeddings, table.embedding_dim))
                held[place] = {
                    name: own_rows(value) if _is_of(value, shape) else value
                    for name, value in held.get(place, {}).items()
                }
            states.append(state | {"state": held})
        super().load_optimizer_state_dict(checkpoint | {"optimizer_states": states})

    def _places(self, optimizer: Optimizer) -> dict[int, ShardedEmbedding]:
        """Return the divided tables by their places in an optimizer's state."""
        tables = {id(table.weight): table for table in self._tables().values()}
        weights = [weight for group in optimizer.param_groups for weight in group["params"]]
        return {place: tables[id(weight)] for place, weight in enumerate(weights) if id(weight) in tables}


def _is_of(value: Any, shape: torch.Size) -> bool:
    return isinstance(value, Tensor) and value.shape == shape


# an effect of the import, as Lightning's own strategies have it: that is how --trainer.strategy finds a name
StrategyRegistry.register("row_sharding", RowSharding, description=(RowSharding.__doc__ or "").split("\n")[0])
