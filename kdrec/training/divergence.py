"""Notice that a training has diverged, without waiting for the device at every step."""

import math
from collections.abc import Mapping
from pathlib import Path

import lightning as L
import torch
from torch import Tensor

from kdrec.errors import InputError

STEPS = 1000
"""Steps whose terms are looked at together, which waits for the device."""
_NEVER = torch.iinfo(torch.int64).max


class Terms:
    """The loss terms of an epoch: their sums, and the first of them that is no finite number."""

    def __init__(self) -> None:
        self.sums: dict[str, Tensor] = {}
        self.names: tuple[str, ...] = ()
        self._rows: list[Tensor] = []
        self._steps_summed = 0

    def is_full(self, terms: Mapping[str, Tensor]) -> bool:
        """Whether `add_up` is due before these are taken in: enough are waiting, or these have other names."""
        return len(self._rows) >= STEPS or (tuple(terms) != self.names and bool(self._rows))

    def add(self, terms: Mapping[str, Tensor]) -> Tensor:
        """Take in a step's terms, and return them in one tensor: (terms,)."""
        self.names = tuple(terms)
        row = torch.stack(list(terms.values()))
        self._rows.append(row.detach())
        return row

    def add_up(self) -> Tensor | None:
        """Sum what was taken in since the last call.

        Returns:
            () int64, on the device: ``step * terms + term`` of the first term that is not finite, both counted from 0
            over the epoch, or a number beyond all; None if nothing was taken in.
        """
        if not self._rows:
            return None
        table = torch.stack(self._rows)  # (steps, terms)
        for name, total in zip(self.names, table.sum(0), strict=True):
            self.sums[name] = self.sums[name] + total if name in self.sums else total
        faulty = table.isfinite().logical_not_().flatten()
        first = torch.where(faulty.any(), faulty.int().argmax() + self._steps_summed * len(self.names), _NEVER)
        self._steps_summed, self._rows = self._steps_summed + len(self._rows), []
        return first


def require_finite_terms(terms: Terms, module: L.LightningModule) -> None:
    """Add the terms up, in all processes together.

    Raises:
        InputError: If in one of them a term was not finite since the last call.
    """
    first = terms.add_up()
    if first is None:
        return
    place = int(module.trainer.strategy.reduce(first, reduce_op="min"))
    if place != _NEVER:
        step, term = divmod(place, len(terms.names))
        raise _diverged(f"train/{terms.names[term]} is no finite number in step {step + 1}", module)


def require_finite_weights(weights: Mapping[str, Tensor], module: L.LightningModule) -> None:
    """Raise InputError if a weight is not finite, so that no file of diverged weights takes the place of a good one."""
    names = [name for name, weight in weights.items() if weight.is_floating_point() and weight.numel()]
    if names:
        finite = [torch.stack(weights[name].aminmax()).isfinite().all() for name in names]
        ends = torch.stack([each.to(module.device) for each in finite])  # a divided table was gathered on the CPU
        places = torch.arange(len(names), device=ends.device).masked_fill(ends, len(names))
        # together, since of divided tables each process sees a part
        place = int(module.trainer.strategy.reduce(places.min(), reduce_op="min"))
        if place < len(names):
            raise _diverged(f"{names[place]} holds numbers that are not finite at the end", module)


def _diverged(what: str, module: L.LightningModule) -> InputError:
    trainer = module.trainer
    kept = [
        path
        for callback in reversed(trainer.checkpoint_callbacks)
        if (path := Path(getattr(callback, "best_model_path", ""))).is_file()
    ]
    return InputError(
        f"The training diverged: {what} of epoch {trainer.current_epoch + 1}, and the largest weights are "
        f"{_largest_weights(module)}; lower the learning rate, or the weight of what diverged"
        f"{f' ({kept[0]} keeps the last good epoch)' if kept else ''}."
    )


def _largest_weights(module: L.LightningModule) -> str:
    """Name the three parameters with the largest numbers, those with numbers that are not finite first."""
    found = []
    for name, weight in module.named_parameters():
        if weight.requires_grad and weight.numel():
            lost = 1 - weight.isfinite().double().mean().item()
            found.append((lost > 0, weight.detach().nan_to_num(0, 0, 0).abs().max().item(), name, lost))
    return ", ".join(
        f"{name} ({f'{math.ceil(100 * lost)}% not finite, the rest ' if broken else ''}up to {largest:.1e})"
        for broken, largest, name, lost in sorted(found, reverse=True)[:3]
    )
