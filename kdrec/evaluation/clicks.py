"""AUC and log-loss of held-out items against as many sampled ones, as users of click models expect them."""

import torch
from torch import Tensor
from torch.nn import functional
from torchmetrics import MeanMetric, MetricCollection
from torchmetrics.classification import BinaryAUROC

from kdrec.evaluation.chunks import in_chunks
from kdrec.evaluation.ranking import BYTES_OF_A_LOT, CatalogueRanking
from kdrec.models.base import Recommender

CLICK_METRICS = ("auc", "logloss")


def click_metrics() -> MetricCollection:
    """Return torchmetrics' own metrics, by the names of `CLICK_METRICS`."""
    return MetricCollection(
        dict(zip(CLICK_METRICS, (BinaryAUROC(validate_args=False), MeanMetric()), strict=True)), compute_groups=False
    )


@torch.no_grad()
def add_clicks(metrics: MetricCollection, ranking: CatalogueRanking, recommender: Recommender, users: Tensor) -> None:
    """Add what a model makes of users' held-out items, and of as many that they have not touched.

    Both metrics are of all pairs together, not means over users. The log-loss is one of probabilities as the model was
    trained to give them: several negatives for each positive teach it to expect fewer clicks than there are here.

    Args:
        metrics: Of `click_metrics`.
        ranking: What is held out.
        recommender: Whose scores are logits.
        users: (B,) int64, each given once over all batches and processes.
    """

    def predict(some: Tensor) -> tuple[Tensor, Tensor]:
        rows, items = ranking.relevant.of(some)
        others, unseen = ranking.unseen(some, torch.bincount(rows, minlength=len(some)))
        logits = recommender.score(some[torch.cat((rows, others))], torch.cat((items, unseen))).double()
        return logits, torch.cat((torch.ones_like(items), torch.zeros_like(unseen)))

    parts = in_chunks(predict, users, BYTES_OF_A_LOT * ranking.relevant.num_items)
    logits, clicked = (torch.cat(tensors) for tensors in zip(*parts, strict=True))
    losses = functional.binary_cross_entropy_with_logits(logits, clicked.double(), reduction="none")
    metrics.update(preds=logits.sigmoid(), target=clicked, value=losses)
