import numpy as np
import pytest
from scipy import stats

from kdrec.evaluation.significance import bootstrap_interval


def test_bootstrap_of_all_draws() -> None:
    """Of 27 draws of three users 0, 0, 3 the mean is 0 in 8, 1 in 12, 2 in 6 and 3 in 1: the last 3.7 % of them."""
    assert bootstrap_interval(np.array([0.0, 0.0, 3.0]), 20000) == (0, 3)
    # Of 256 draws of 0, 0, 0, 4 the mean is 0 in 81, 1 in 108, 2 in 54, 3 in 12 (4.7 %) and 4 in 1 (0.4 %).
    assert bootstrap_interval(np.array([0.0, 0.0, 0.0, 4.0]), 20000) == (0, 3)


def test_bootstrap_as_scipy_has_it(monkeypatch: pytest.MonkeyPatch) -> None:
    differences = np.random.default_rng(0).exponential(size=400) - 0.5
    expected = stats.bootstrap(
        [differences], np.mean, method="percentile", n_resamples=20000, rng=np.random.default_rng(1)
    ).confidence_interval
    found = bootstrap_interval(differences, 20000)
    assert found == pytest.approx((expected.low, expected.high), abs=0.004)  # of a width of 0.2
    assert found == bootstrap_interval(differences, 20000)
    assert found != bootstrap_interval(differences, 20000, seed=1)
    monkeypatch.setattr("kdrec.evaluation.significance._DRAWS_AT_ONCE", 1)  # one draw after the other
    assert bootstrap_interval(differences, 500) == pytest.approx((expected.low, expected.high), abs=0.02)
