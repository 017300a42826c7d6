"""Say whether methods differ by more than the choice of users explains.

A user's metric is far from normal (mostly zeros and a few steps), but the paired t test needs only the mean of the
differences to be close to normal, which it is over thousands of users whose differences are bounded. Smucker, Allan and
Carterette (A comparison of statistical significance tests for information retrieval evaluation, CIKM 2007) found that t
and randomisation tests agree while Wilcoxon and sign tests mislead, and Ihemelandu and Ekstrand (Inference at scale,
SIGIR 2023) found the same over thousands of users, where small differences turn significant too: read the interval.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from kdrec.errors import InputError

_ROUNDING = 1e-12  # differences below this share of the largest value come from the order of a sum over seeds
_DRAWS_AT_ONCE = 1 << 20


@dataclass(frozen=True)
class Comparison:
    """One pair of methods, compared over the users that have a value in both.

    Attributes:
        first: Name of a method.
        second: Name of the method that is subtracted from it.
        difference: Mean over users of first - second, in the metric's unit.
        low: Lower end of the 95 % interval of that mean; not corrected for the number of pairs.
        high: Upper end of it.
        p: Of the two-sided paired t test, in [0, 1].
        corrected_p: The same after Holm's correction over all the pairs compared together.
        num_users: How many users were compared.
    """

    first: str
    second: str
    difference: float
    low: float
    high: float
    p: float
    corrected_p: float
    num_users: int


def compare(values: Mapping[str, np.ndarray], pairs: Sequence[tuple[str, str]]) -> list[Comparison]:
    """Test pairs of methods for a difference in the mean of a metric over users.

    Users are the units: a method's seeds are averaged per user first, and methods may have different numbers of them.
    So the test covers that users vary, for the trained models at hand. It does not generalise over seeds: whether a
    difference would survive training anew is seen from the spread over seeds, which is to be reported beside it.

    Args:
        values: Method name -> (U,) or (seeds, U) float64, a metric of each user; the same users in the same order in
            every method. A user with nan in any seed of either method is left out of that pair (``recall_tail`` is nan
            where a user has no such item).
        pairs: (first, second) names; p values are corrected over all of them together, so give a study's whole list.

    Returns:
        A Comparison for each pair, in the order given. If no user differs, p is 1; if all differ by the same amount
        other than zero, p is 0 and the interval is that amount.

    Raises:
        InputError: If a name is unknown, shapes or lengths do not fit, a value is infinite, a pair has fewer than 2
            users with values, or scipy is not installed.

    Example:
        >>> values = {"HTD": np.array([0.5, 0.25, 1.0, 0.5]), "BPR": np.array([[0.25, 0.0, 1.0, 0.5], [0.25, 0, 1, 0]])}
        >>> found = compare(values, [("HTD", "BPR")])[0]
        >>> f"{found.difference:.4f} [{found.low:.3f}, {found.high:.3f}], p {found.p:.3f}, {found.num_users} users"
        '0.1875 [-0.011, 0.386], p 0.058, 4 users'
    """
    means = {name: _mean_over_seeds(name, array) for name, array in values.items()}
    for name in (name for pair in pairs for name in pair):
        if name not in means:
            raise InputError(f"There are no values of a method named {name}; there are: {', '.join(means)}.")
    sizes = {name: len(mean) for name, mean in means.items()}
    if len(set(sizes.values())) > 1:
        raise InputError(f"The numbers of users disagree: {sizes}; give the same users in the same order.")
    found = [_paired_t(first, second, means[first], means[second]) for first, second in pairs]
    corrected = holm([comparison.p for comparison in found])
    return [replace(comparison, corrected_p=p) for comparison, p in zip(found, corrected, strict=True)]


def holm(p_values: Sequence[float]) -> list[float]:
    """Correct p values for being several, so that the chance of any false finding stays below the level chosen.

    Step down: the smallest of m is multiplied by m, the next by m - 1, and so on; none may fall below the one before.
    This holds for any dependence between the tests, such as pairs that share a method.

    Args:
        p_values: m numbers in [0, 1], in any order.

    Returns:
        The corrected values, in the order given, each in [p, 1].

    Raises:
        InputError: If a value is not in [0, 1].

    Example:
        >>> holm([0.25, 0.125, 0.375])
        [0.5, 0.375, 0.5]

    References:
        Holm, A simple sequentially rejective multiple test procedure, Scandinavian Journal of Statistics 6, 1979.
    """
    p = np.asarray(p_values, dtype=np.float64)
    wrong = p[~((p >= 0) & (p <= 1))]
    if wrong.size:
        raise InputError(f"A p value is {wrong[0]}; give numbers in [0, 1].")
    order = p.argsort(kind="stable")
    corrected = np.empty_like(p)
    corrected[order] = np.minimum(np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1)), 1)
    return corrected.tolist()


def bootstrap_interval(differences: np.ndarray, num_resamples: int = 2000, seed: int = 0) -> tuple[float, float]:
    """Return the 95 % interval of a mean by drawing the users anew, which assumes nothing of the values' distribution.

    Args:
        differences: (U,) float64, one of each user; at least 1.
        num_resamples: How often U users are drawn, with replacement.
        seed: Of the draws.

    Returns:
        (low, high): the 2.5 and 97.5 % quantiles of the means of the draws.

    Example:
        >>> bootstrap_interval(np.array([0.0, 1.0]))  # of two draws of two users, a quarter each have the mean 0 and 1
        (0.0, 1.0)

    References:
        Efron and Tibshirani, An Introduction to the Bootstrap, 1993, sec. 13.3 (the percentile interval).
    """
    chance = np.random.default_rng(seed)
    num_users = len(differences)
    rows = max(1, _DRAWS_AT_ONCE // num_users)
    means = [
        differences[chance.integers(num_users, size=(min(rows, num_resamples - start), num_users))].mean(1)
        for start in range(0, num_resamples, rows)
    ]
    low, high = np.quantile(np.concatenate(means), (0.025, 0.975)).tolist()
    return low, high


def _mean_over_seeds(name: str, array: np.ndarray) -> np.ndarray:
    """Return a method's metric of each user, (U,)."""
    rows = np.atleast_2d(np.asarray(array, dtype=np.float64))
    if rows.ndim != 2 or len(rows) == 0:
        raise InputError(f"The values of {name} have the shape {rows.shape}; give (users,) or (seeds, users).")
    if np.isinf(rows).any():
        raise InputError(f"The values of {name} hold an infinite one; give finite values, or nan where there is none.")
    return rows.mean(axis=0)


def _paired_t(first: str, second: str, one: np.ndarray, other: np.ndarray) -> Comparison:
    """Compare two methods' (U,) values; p is not corrected yet."""
    try:
        from scipy import stats
    except ImportError:
        raise InputError("A test needs scipy; install the extra with python -m pip install '.[study]'.") from None
    kept = ~np.isnan(one - other)
    one, other = one[kept], other[kept]
    num_users = len(one)
    if num_users < 2:
        raise InputError(f"{first} and {second} share {num_users} users with values; a test needs at least 2.")
    differences = one - other
    rounding = _ROUNDING * max(np.abs(one).max(), np.abs(other).max())
    if np.ptp(differences) <= rounding:  # where the t statistic would divide by zero
        difference = float(differences.mean())
        if abs(difference) <= rounding:
            return Comparison(first, second, 0.0, 0.0, 0.0, 1.0, 1.0, num_users)
        return Comparison(first, second, difference, difference, difference, 0.0, 0.0, num_users)
    test = stats.ttest_rel(one, other)
    low, high, p = (float(value) for value in (*test.confidence_interval(0.95), test.pvalue))
    return Comparison(first, second, float(differences.mean()), low, high, p, p, num_users)
