"""An optimizer for large catalogues."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, distributed, nn

from kdrec.errors import InputError
from kdrec.models.base import Recommender


class LazyAdam(torch.optim.Adam):
    """Adam that moves only the embedding rows that a batch looked up; every other parameter moves as in Adam.

    Adam itself moves every row at every step, by its old moments and by weight decay, so its cost grows with the
    catalogue. Here a row that is not in the batch keeps its value, its moments and its size: weight decay acts on a row
    only when it is looked up. That is another method than the published one, with other results; see the README for
    what it costs in Recall.

    The training modules of kdrec let embeddings give sparse gradients when they find this optimizer, and refuse it for
    a model whose every step reaches all rows (`Recommender.moves_all_rows`); elsewhere, make
    the tables with ``nn.Embedding(..., sparse=True)``. Several GPUs need a backend that adds up sparse gradients, which
    gloo does and NCCL does not: ``trainer.strategy`` is then DDPStrategy with ``process_group_backend: gloo``, or
    RowSharding, which has none to add up.

    Args:
        params: As for `torch.optim.Adam`.
        lr: Learning rate.
        betas: Of the two moments.
        eps: Added to the denominator.
        weight_decay: L2 penalty.

    References:
        Kingma and Ba, Adam, ICLR 2015, algorithm 1; the bias correction counts the table's steps, as in
        `torch.optim.SparseAdam`, which has no weight decay and takes no dense gradients.
    """

    def __init__(
        self,
        params: Any,
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__(params, lr=lr, betas=betas, eps=eps, weight_decay=weight_decay, fused=True)
        self._step_supports_amp_scaling = False  # so that a GradScaler divides the gradients, and skips steps, itself

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Move every parameter that has a gradient."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        lazy: list[tuple[Tensor, Tensor]] = []
        for group in self.param_groups:
            for table in group["params"]:
                if table.grad is not None and table.grad.is_sparse:
                    self._move_rows(table, table.grad.coalesce(), group)
                    lazy.append((table, table.grad))
                    table.grad = None  # so that Adam passes it by
        super().step()
        for table, gradient in lazy:
            table.grad = gradient
        return loss

    def _move_rows(self, table: Tensor, gradient: Tensor, group: dict[str, Any]) -> None:
        """Make Adam's step on the rows that a sparse gradient holds."""
        state = self.state[table]
        if not state:
            state["step"] = torch.zeros((), dtype=torch.float32)
            state["exp_avg"], state["exp_avg_sq"] = torch.zeros_like(table), torch.zeros_like(table)
        state["step"] += 1
        (beta1, beta2), step = group["betas"], state["step"].item()
        rows = gradient.indices()[0]
        values = table.index_select(0, rows)
        slope = gradient.values() + group["weight_decay"] * values
        mean = state["exp_avg"].index_select(0, rows).lerp_(slope, 1 - beta1)
        square = state["exp_avg_sq"].index_select(0, rows).mul_(beta2).addcmul_(slope, slope, value=1 - beta2)
        size = (square / (1 - beta2**step)).sqrt_().add_(group["eps"])
        values.addcdiv_(mean, size, value=-group["lr"] / (1 - beta1**step))
        for whole, part in ((table, values), (state["exp_avg"], mean), (state["exp_avg_sq"], square)):
            whole.index_copy_(0, rows, part)


def let_embeddings_be_sparse(module: nn.Module, divided: bool = False) -> None:
    """Make every embedding in a module give sparse gradients, which cost what a batch's rows cost.

    Args:
        module: Whose embeddings.
        divided: Whether no other process holds the same rows, so that there is nothing to add up.

    Raises:
        InputError: If a model's steps reach all rows of its tables, or several processes have to add sparse gradients
            up by NCCL, which cannot do so.
    """
    for part in module.modules():
        if isinstance(part, Recommender) and part.moves_all_rows:
            raise InputError(
                f"LazyAdam moves the rows that a batch looks up, and each step of {type(part).__name__} reaches all of "
                f"them; choose another optimizer, such as torch.optim.Adam."
            )
    several = distributed.is_available() and distributed.is_initialized() and not divided
    if several and distributed.get_backend() == "nccl":
        raise InputError(
            "LazyAdam's sparse gradients cannot be added up by NCCL; give --trainer.strategy DDPStrategy and "
            "--trainer.strategy.process_group_backend gloo, or choose another optimizer."
        )
    for part in module.modules():
        if isinstance(part, nn.Embedding):
            part.sparse = True
