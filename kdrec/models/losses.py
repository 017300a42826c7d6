"""Ranking losses: pure functions of positive and negative scores, **summed** over the batch.

Sums, as published, so a regularisation or distillation weight belongs to a batch size.
A config names one by its dotted path, and any function with this signature will do.
"""

import torch
from torch import Tensor
from torch.nn import functional


def bpr(positive_scores: Tensor, negative_scores: Tensor) -> Tensor:
    """Compare each positive with each of its negatives: the sum of -log sigmoid(s_ui - s_uj) / N.

    Args:
        positive_scores: (B,) s_ui.
        negative_scores: (B, N) s_uj.

    Returns:
        Scalar, at least 0; summed over positives, averaged over the N negatives of each.

    References:
        Rendle et al., BPR: Bayesian Personalized Ranking from Implicit Feedback, UAI 2009, sec. 4.1.

    Example:
        >>> round(bpr(torch.tensor([1.0, 0.0]), torch.tensor([[1.0], [0.0]])).item(), 6)  # 2 log 2
        1.386294
    """
    margins = positive_scores.unsqueeze(1) - negative_scores
    return -functional.logsigmoid(margins).sum() / negative_scores.shape[1]


def bce(positive_scores: Tensor, negative_scores: Tensor) -> Tensor:
    """Classify pairs into seen and unseen: -log sigmoid(s_ui) - sum over negatives of log(1 - sigmoid(s_uj)).

    Args:
        positive_scores: (B,) logits.
        negative_scores: (B, N) logits.

    Returns:
        Scalar, at least 0; summed over positives and negatives.

    References:
        He et al., Neural Collaborative Filtering, WWW 2017, eq. 7.

    Example:
        >>> round(bce(torch.tensor([0.0]), torch.tensor([[0.0, 0.0]])).item(), 6)  # 3 log 2
        2.079442
    """
    return -functional.logsigmoid(positive_scores).sum() - functional.logsigmoid(-negative_scores).sum()


def softmax(positive_scores: Tensor, negative_scores: Tensor) -> Tensor:
    """Pick the positive among its negatives: the sum of -log(exp s_ui / (exp s_ui + sum_j exp s_uj)).

    Args:
        positive_scores: (B,) logits.
        negative_scores: (B, N) logits of uniformly drawn negatives.

    Returns:
        Scalar, at least 0; summed over positives.

    References:
        Wu et al., On the Effectiveness of Sampled Softmax Loss for Item Recommendation, TOIS 2024, eq. 4.

    Example:
        >>> round(softmax(torch.tensor([0.0]), torch.tensor([[0.0, 0.0, 0.0]])).item(), 6)  # log 4
        1.386294
    """
    logits = torch.cat((positive_scores.unsqueeze(1), negative_scores), dim=1)
    return (torch.logsumexp(logits, dim=1) - positive_scores).sum()
