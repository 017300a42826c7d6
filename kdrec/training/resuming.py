"""What makes a training that was killed and resumed end as one that was never interrupted."""

import os
import warnings
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.plugins.io import TorchCheckpointIO
from torch import Tensor, distributed

from kdrec.data.interactions import Interactions
from kdrec.distillation.ranks import num_ranks
from kdrec.documents import replacing
from kdrec.errors import InputError
from kdrec.models.base import Recommender
from kdrec.models.described import as_config, shown


class WholeFiles(TorchCheckpointIO):
    """Write a checkpoint beside its place and rename it there, so that the file is whole at every moment.

    Lightning's own way writes it to the folder for temporary files; where that is another file system, the file is then
    copied over the one before, and who is killed meanwhile has neither.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any | None = None) -> None:
        """Write the file.

        Raises:
            InputError: If it cannot be written; the one before is still there.
        """
        path = Path(path)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with replacing(path) as part, open(part, "wb") as file:
                torch.save(checkpoint, file)
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise InputError(
                f"The checkpoint {path} cannot be written ({error.strerror}); what stood there before is still whole, "
                f"so make room and go on from it."
            ) from error


def random_states(module: L.LightningModule) -> dict[str, Tensor]:
    """Return the states of torch's generators in all processes: device type -> (num_ranks, bytes) uint8.

    All processes must call it together.
    """
    states = {"cpu": torch.get_rng_state()}
    if module.device.type == "cuda":
        states["cuda"] = torch.cuda.get_rng_state(module.device)
    return {name: _of_all(state.to(module.device)).cpu() for name, state in states.items()}


def _of_all(state: Tensor) -> Tensor:
    """Return the tensors of all processes, stacked."""
    parts = [state.clone() for _ in range(num_ranks())]
    if num_ranks() > 1:
        distributed.all_gather(parts, state)
    return torch.stack(parts)


def restore_random_states(module: L.LightningModule, states: dict[str, Tensor]) -> None:
    """Put torch's generators where `random_states` found them; with more processes than then, some are alike."""
    # a copy, since torch 2.14 crashes at a row within a larger tensor
    own = {name: state[module.global_rank % len(state)].clone() for name, state in states.items()}
    torch.set_rng_state(own["cpu"])
    if module.device.type == "cuda" and "cuda" in own:
        torch.cuda.set_rng_state(own["cuda"], module.device)


def require_same_run(section: dict[str, Any], recommender: Recommender, train: Interactions, protocol: str) -> None:
    """Raise InputError if a checkpoint's model or data are not those of this run.

    Args:
        section: What kdrec wrote into the checkpoint.
        recommender: The model here.
        train: The data here.
        protocol: Where that comes from.
    """
    model = as_config(recommender)
    if section.get("model") != model:
        raise InputError(
            f"The checkpoint does not belong to this run: its model is {shown(section.get('model') or {})} "
            f"and here it is {shown(model)}; give the config that made it."
        )
    if section.get("data_digest") != train.digest:
        raise InputError(
            f"The checkpoint does not belong to this run: its training data is {section.get('protocol')} "
            f"({str(section.get('data_digest'))[:8]}) and here it is {protocol} ({train.digest[:8]}); give the data "
            f"that made it."
        )


def require_resumable(checkpoint: dict[str, Any]) -> None:
    """Raise InputError if a training cannot go on from a checkpoint as if it had not stopped there.

    Warns of another seed.
    """
    if not {"loops", "optimizer_states", "lr_schedulers"} <= checkpoint.keys():
        raise InputError(
            "The checkpoint holds a model without the state of its training, so no training can go on from it; give "
            "one that was written with checkpoint.save_weights_only false."
        )
    progress = checkpoint["loops"]["fit_loop"]
    epoch, batches = progress["epoch_progress"]["current"], progress["epoch_loop.batch_progress"]
    if epoch["processed"] != epoch["ready"] or not batches["is_last_batch"]:
        raise InputError(
            f"The checkpoint was written within epoch {epoch['ready']}, after {batches['current']['ready']} batches, "
            f"and a training goes on from the end of an epoch only; give one that was written there."
        )
    begun, seed = checkpoint["kdrec"].get("seed"), int(os.environ.get("PL_GLOBAL_SEED", 0))
    if begun != seed:
        warnings.warn(
            f"The training goes on with the seed {seed} and was begun with {begun}, so it will not end as if it had "
            f"not stopped.",
            stacklevel=3,
        )


def begin_next_epoch(trainer: L.Trainer) -> None:
    """Let a resumed trainer begin the epoch after the one it has finished.

    Where trainer.max_steps is given, Lightning takes every checkpoint as one from within an epoch, and would end the
    finished one a second time.
    """
    loop = trainer.fit_loop
    if loop.restarting:
        for progress in (loop.epoch_progress.current, loop.epoch_progress.total):
            progress.completed = progress.processed  # type: ignore[attr-defined]
        loop.reset_restart_stage()
        loop.epoch_loop.restarting = False
