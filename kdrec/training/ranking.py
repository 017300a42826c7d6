"""Train any recommender by a ranking loss, and rank the full catalogue to see what it learned."""

import os
from collections.abc import Callable, Sequence
from typing import Any, cast

import lightning as L
import torch
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from torch import Tensor, nn
from torchmetrics import Metric, MetricCollection

from kdrec.data.base import InteractionDataModule
from kdrec.data.interactions import Interactions
from kdrec.data.sampling import Batch
from kdrec.errors import InputError
from kdrec.evaluation.clicks import add_clicks, click_metrics
from kdrec.evaluation.evaluate import STAGES, rank_users, ranking_of
from kdrec.evaluation.metrics import RankingMetrics, require_cutoffs
from kdrec.evaluation.ranking import CatalogueRanking, require_candidates
from kdrec.models import losses, section
from kdrec.models.base import Recommender
from kdrec.models.described import as_config
from kdrec.models.sharded import ShardedEmbedding
from kdrec.training import divergence, resuming
from kdrec.training.optimizers import LazyAdam, let_embeddings_be_sparse
from kdrec.training.sharding import RowSharding


class RankingModule(L.LightningModule):
    """Train a recommender alone; a teacher is a wide one.

    Args:
        recommender: The architecture to train.
        loss: Function of positive scores (B,) and negative scores (B, N); kdrec.models.losses has bpr, bce and softmax.
        optimizer: Optimizer class and its options.
        lr_scheduler: Learning-rate schedule, advanced every epoch.
        cutoffs: The k of every metric@k.
        num_candidates: Leave it out to rank the whole catalogue. A number ranks each held-out item among that many
            sampled ones instead, which is fit only for comparison with tables made so.
    """

    def __init__(
        self,
        recommender: Recommender,
        loss: Callable[[Tensor, Tensor], Tensor] = losses.bpr,
        optimizer: OptimizerCallable = lambda parameters: torch.optim.Adam(parameters, lr=1e-3, fused=True),
        lr_scheduler: LRSchedulerCallable | None = None,
        cutoffs: Sequence[int] = (5, 10, 20, 50),
        num_candidates: int | None = None,
    ) -> None:
        super().__init__()
        self.recommender = recommender
        self.loss = loss
        self.optimizer = optimizer
        self.lr_scheduler = lr_scheduler
        self.cutoffs = tuple(cutoffs)
        self.num_candidates = num_candidates
        self.metrics = nn.ModuleDict()
        self._rankings: dict[str, CatalogueRanking] = {}
        self._catalogue: Any = None
        self._terms = divergence.Terms()
        self._num_pairs = 0
        self._learning_rate = 0.0
        self._random_states: dict[str, Tensor] = {}
        self._described: dict[str, Any] = {}

    # Building

    @property
    def train_data(self) -> Interactions:
        """The training interactions of the data module in use."""
        return self._datamodule.split.train

    @property
    def protocol(self) -> str:
        """Data set, split and kind of ranking; numbers of two protocols are never compared."""
        kind = "full ranking" if self.num_candidates is None else f"ranking among {self.num_candidates} sampled items"
        return f"{self._datamodule.protocol}, {kind}"

    @property
    def _datamodule(self) -> InteractionDataModule:
        found = getattr(self.trainer, "datamodule", None)
        if not isinstance(found, InteractionDataModule):
            raise InputError(f"{type(self).__name__} needs an InteractionDataModule; pass one as datamodule=.")
        return found

    def require_options(self, num_items: int) -> None:
        """Raise InputError if an option cannot work, before anything is spent: cutoffs, candidates, optimizer.

        Args:
            num_items: Size of the catalogue.
        """
        try:
            self.optimizer([nn.Parameter(torch.zeros(1))])
        except ValueError as error:  # torch's own words, such as: Invalid learning rate: -0.1
            raise InputError(f"The optimizer refuses its options: {error}.") from error
        require_cutoffs(self.cutoffs, num_items)
        if self.num_candidates is not None:
            require_candidates(self.num_candidates, num_items)

    def setup(self, stage: str) -> None:
        """Prepare the rankings of the stage: validation hides training items, test hides validation items too."""
        split, self._described = self._datamodule.split, {}
        for name in STAGES:
            self._rankings[name] = ranking_of(split, name, self.num_candidates)
            self.metrics[name] = RankingMetrics(split.train, self.cutoffs)
            if self.recommender.predicts_clicks:
                self.metrics[f"{name}_clicks"] = click_metrics()

    def configure_model(self) -> None:
        """Build what depends on the data, on the CPU, so that a seed means the same weights on every device."""
        with torch.device("cpu"):
            self.build()

    def build(self) -> None:
        """Size the tables for the data, once."""
        if not self.recommender.is_built:
            self.recommender.bind(self.train_data)
        fitting = self.trainer.state.fn == "fit"
        if fitting and not self._learns:
            self.stand_in = nn.Parameter(torch.zeros(()))  # DDP and ModelCheckpoint want something that is trained
        if fitting and isinstance(self.optimizer([nn.Parameter(torch.zeros(1))]), LazyAdam):
            divided = isinstance(self.trainer.strategy, RowSharding)
            let_embeddings_be_sparse(self, divided)  # here, since DDP must know it when it wraps the module

    @property
    def _ddp_params_and_buffers_to_ignore(self) -> list[str]:
        """What DDP shall not send at every step: buffers are made of the data, which is the same in every process.

        Nor tables whose rows are divided, which send their gradients themselves.
        """
        tables = [name for name, part in self.named_modules() if isinstance(part, ShardedEmbedding)]
        return [name for name, _ in self.named_buffers()] + [f"{name}.weight" for name in tables]

    def configure_optimizers(self) -> Any:
        """Build optimizer and schedule."""
        parameters = [parameter for parameter in self.parameters() if parameter.requires_grad]
        optimizer = self.optimizer(parameters)
        if self.lr_scheduler is None:
            return optimizer
        return [optimizer], [self.lr_scheduler(optimizer)]

    # Training

    @property
    def _learns(self) -> bool:
        """Whether there is anything to train; popularity or a closed form is complete as soon as it is bound."""
        return any(parameter.requires_grad for parameter in self.recommender.parameters())

    def terms(self, batch: Batch) -> dict[str, Tensor]:
        """Return the named terms whose sum is the loss."""
        own = self.recommender.objective(batch)
        if own is not None:
            return {"base": own}
        items = torch.cat((batch.positives.unsqueeze(1), batch.negatives), dim=1)
        scores = self.recommender.score(batch.users, items)
        return {"base": self.loss(scores[:, 0], scores[:, 1:])}

    def training_step(self, batch: Batch, batch_index: int) -> Tensor:
        """Add up the terms. Nothing is logged here, and only one step of a thousand copies something to the host.

        Raises:
            InputError: If a term of a step before is no finite number.
        """
        if not self._learns:
            return self.stand_in * 0.0
        terms = self.terms(batch)
        if self._terms.is_full(terms):
            divergence.require_finite_terms(self._terms, self)
        self._num_pairs += len(batch.users)
        # Losses are sums over the batch; DDP averages gradients over ranks, and this makes a sum of the average.
        return self._terms.add(terms).sum() * self.trainer.world_size

    def on_train_start(self) -> None:
        """Go on where the checkpoint of a resumed training was written."""
        resuming.begin_next_epoch(self.trainer)
        if self._random_states:
            resuming.restore_random_states(self, self._random_states)
            self._random_states = {}

    def on_train_epoch_start(self) -> None:
        """Start the sums anew, and note the learning rate before the schedule moves it."""
        self._terms, self._num_pairs = divergence.Terms(), 0
        self._learning_rate = self.trainer.optimizers[0].param_groups[0]["lr"]

    def on_train_epoch_end(self) -> None:
        """Log the epoch's mean of each term per training pair, and the learning rate.

        Raises:
            InputError: If a term is no finite number any more.
        """
        divergence.require_finite_terms(self._terms, self)
        sums = self._terms.sums
        if not sums:
            return
        totals = torch.stack([*sums.values(), torch.tensor(float(self._num_pairs), device=self.device)])
        totals = self.trainer.strategy.reduce(totals, reduce_op="sum")
        means = dict(zip(sums, (totals[:-1] / totals[-1]).tolist(), strict=True))
        self.log_epoch({"loss": sum(means.values()), **means, "learning_rate": self._learning_rate})

    def log_epoch(self, numbers: dict[str, float]) -> None:
        """Log an epoch's numbers as train/NAME at once, so that no checkpoint is written before its curves are."""
        named = {f"train/{name}": number for name, number in numbers.items()}
        for name, number in named.items():
            self.log(name, number, prog_bar=name == "train/loss", logger=False)
        for logger in self.loggers:
            logger.log_metrics(named, self.trainer.global_step - 1)  # the last step, as Lightning counts
            logger.save()

    # Evaluation

    def on_validation_epoch_start(self) -> None:
        """Encode the catalogue once."""
        self._start_ranking("val")

    def on_test_epoch_start(self) -> None:
        """Encode the catalogue once."""
        self._start_ranking("test")

    def validation_step(self, users: Tensor, batch_index: int) -> None:
        """Rank for a batch of users."""
        self._rank("val", users)

    def test_step(self, users: Tensor, batch_index: int) -> None:
        """Rank for a batch of users."""
        self._rank("test", users)

    def on_validation_epoch_end(self) -> None:
        """Log the means over all users."""
        self._finish_ranking("val")

    def on_test_epoch_end(self) -> None:
        """Log the means over all users."""
        self._finish_ranking("test")

    def metric(self, stage: str) -> RankingMetrics:
        """Return the metric of "val" or "test"."""
        return cast(RankingMetrics, self.metrics[stage])

    def _whole_precision(self) -> torch.autocast:
        """Rank by the weights' own precision: in half of it thousands of items have equal scores."""
        return torch.autocast(self.device.type, enabled=False)

    def _start_ranking(self, stage: str) -> None:
        self._rankings[stage].to(self.device)
        with torch.no_grad(), self._whole_precision():
            self._catalogue = self.recommender.encode_catalogue()

    def _rank(self, stage: str, users: Tensor) -> None:
        with self._whole_precision():
            rank_users(self._rankings[stage], self.metric(stage), self.recommender, users, self._catalogue)
            if self.recommender.predicts_clicks:
                clicks = cast(MetricCollection, self.metrics[f"{stage}_clicks"])
                add_clicks(clicks, self._rankings[stage], self.recommender, users)

    def _finish_ranking(self, stage: str) -> None:
        for key in (stage, f"{stage}_clicks"):
            if key in self.metrics:
                metric = cast(Metric | MetricCollection, self.metrics[key])
                for name, value in metric.compute().items():
                    self.log(f"{stage}/{name}", value, prog_bar=name == "ndcg@10")
                metric.reset()
        self._catalogue = None

    # Checkpoints

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Make the file self-contained (see kdrec.models.checkpoint), with what a resumed training needs.

        Raises:
            InputError: If the training has diverged; nothing is written then.
        """
        divergence.require_finite_terms(self._terms, self)
        divergence.require_finite_weights(checkpoint["state_dict"], self)
        checkpoint["random_states"] = resuming.random_states(self)
        checkpoint["state_dict"].pop("stand_in", None)
        metrics = {name: float(value) for name, value in self.trainer.callback_metrics.items() if "/" in name}
        split = self._datamodule.split
        self._described = self._described or section.describe_data(split.train, split.valid, split.test)
        checkpoint["kdrec"] = (
            section.describe_model(self.recommender)
            | self._described
            | {
                "data": as_config(self._datamodule),
                "evaluation": {"cutoffs": list(self.cutoffs), "num_candidates": self.num_candidates},
                "protocol": self.protocol,
                "metrics": metrics,
                "epochs": self.trainer.fit_loop.epoch_progress.current.processed,  # type: ignore[attr-defined]
                "seed": int(os.environ.get("PL_GLOBAL_SEED", 0)),
            }
        )

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Take the random states, and refuse a file whose model or data are not those of this run."""
        if hasattr(self, "stand_in"):
            checkpoint["state_dict"]["stand_in"] = self.stand_in
        resuming.require_same_run(checkpoint.get("kdrec", {}), self.recommender, self.train_data, self.protocol)
        if self.trainer.state.fn == "fit":
            resuming.require_resumable(checkpoint)
            self._random_states = checkpoint.get("random_states", {})
