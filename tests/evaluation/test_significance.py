import math
import sys
from collections.abc import Sequence

import numpy as np
import pytest
from scipy import stats

from kdrec.errors import InputError
from kdrec.evaluation.significance import Comparison, compare, holm


@pytest.fixture
def chance() -> np.random.Generator:
    return np.random.default_rng(0)


def compare_two(one: np.ndarray | Sequence[float], other: np.ndarray | Sequence[float]) -> Comparison:
    """Compare a and b, which are (users,) or (seeds, users)."""
    return compare({"a": np.asarray(one), "b": np.asarray(other)}, [("a", "b")])[0]


# One pair


def test_by_hand() -> None:
    """Differences .25 .25 0 .25: mean 3/16, squared deviations 3 * (1/16)**2 + (3/16)**2 = 12/256, variance 1/64."""
    found = compare_two([0.5, 0.25, 1, 0.5], [0.25, 0, 1, 0.25])
    error = math.sqrt(1 / 64 / 4)
    t = (3 / 16) / error
    # Student's distribution with 3 degrees of freedom has a closed form
    tail = 0.5 - (t / (math.sqrt(3) * (1 + t**2 / 3)) + math.atan(t / math.sqrt(3))) / math.pi
    reach = 3.182446305284263 * error  # 97.5 % point for 3 degrees of freedom, from a table
    assert (found.first, found.second, found.num_users) == ("a", "b", 4)
    assert found.difference == 3 / 16
    assert (found.low, found.high) == pytest.approx((3 / 16 - reach, 3 / 16 + reach), abs=1e-12)
    assert found.p == pytest.approx(2 * tail, abs=1e-12)
    assert found.corrected_p == found.p


def test_the_other_way_round(chance: np.random.Generator) -> None:
    one, other = chance.random((2, 50))
    there, back = compare_two(one, other), compare_two(other, one)
    assert there.p == pytest.approx(back.p, rel=1e-12)
    assert (there.difference, there.low, there.high) == pytest.approx((-back.difference, -back.high, -back.low))
    assert there.low < there.difference < there.high


def test_pairing_counts() -> None:
    """Users differ much, methods little: only a paired test sees it."""
    users = np.linspace(0, 1, 40)
    better = users + 0.01 + 0.005 * np.sin(np.arange(40))
    assert compare_two(better, users).p < 1e-9
    assert stats.ttest_ind(better, users).pvalue > 0.5


@pytest.mark.parametrize("gain", [0.02, 0.05, 0.1])
def test_against_randomisation(chance: np.random.Generator, gain: float) -> None:
    """Flip the signs of 400 users' differences in hit rate by chance, and count the means that are as extreme.

    The t test's values are continuous and the randomisation's are steps, so ties with what was seen count half.
    """
    ability = chance.random(400)
    one, other = chance.random(400) < ability + gain, chance.random(400) < ability
    differences = one.astype(float) - other
    randomised = stats.permutation_test(
        (differences,), np.mean, permutation_type="samples", n_resamples=20_000, rng=chance
    )
    means, seen = np.abs(randomised.null_distribution), abs(differences.mean())
    ties = np.isclose(means, seen)
    expected = np.mean(ties / 2 + ((means > seen) & ~ties))
    found = compare_two(one, other)
    assert found.difference == randomised.statistic
    assert found.p == pytest.approx(expected, abs=0.01)


def test_interval_covers_the_truth(chance: np.random.Generator) -> None:
    """In 95 of 100 samples of mostly zeros, the interval holds the true difference, 0.1."""
    covered = []
    for _ in range(400):
        one = (chance.random(300) < 0.3).astype(float)
        found = compare_two(one, (chance.random(300) < 0.2).astype(float))
        covered.append(found.low <= 0.1 <= found.high)
    assert 0.92 < np.mean(covered) < 0.98


def test_interval_holds_zero_just_when_p_is_above_a_twentieth(chance: np.random.Generator) -> None:
    found = [compare_two(chance.random(30) + 0.15, chance.random(30)) for _ in range(200)]
    significant = [comparison.p < 0.05 for comparison in found]
    assert significant == [not comparison.low <= 0 <= comparison.high for comparison in found]
    assert 20 < sum(significant) < 180


# Seeds


def test_seeds_are_averaged_per_user(chance: np.random.Generator) -> None:
    one, other = chance.random((3, 20)), chance.random((5, 20))
    assert compare_two(one, other) == compare_two(one.mean(0), other.mean(0))
    assert compare_two(one[:1], other) == compare_two(one[0], other)


def test_more_seeds_do_not_make_more_users(chance: np.random.Generator) -> None:
    one, other = chance.random((2, 20))
    once, often = compare_two(one, other), compare_two(np.tile(one, (4, 1)), np.tile(other, (4, 1)))
    assert often.num_users == 20
    assert often.p == pytest.approx(once.p, rel=1e-12)


def test_values_are_not_changed(chance: np.random.Generator) -> None:
    one, other = chance.random((2, 3, 20))
    one[0, 2] = math.nan
    kept = one.copy(), other.copy()
    compare_two(one, other)
    assert np.array_equal(one, kept[0], equal_nan=True)
    assert np.array_equal(other, kept[1])


# Missing and equal values


def test_nan_leaves_the_user_out(chance: np.random.Generator) -> None:
    one, other = chance.random((2, 3, 20))
    one[1, 4] = other[2, 7] = math.nan
    rest = np.delete(np.arange(20), [4, 7])
    found = compare_two(one, other)
    assert found == compare_two(one[:, rest], other[:, rest])
    assert found.num_users == 18


def test_nan_leaves_the_user_out_of_that_pair_alone(chance: np.random.Generator) -> None:
    one, other, third = chance.random((3, 20))
    other[3] = math.nan
    found = compare({"a": one, "b": other, "c": third}, [("a", "b"), ("a", "c")])
    assert [comparison.num_users for comparison in found] == [19, 20]


@pytest.mark.filterwarnings("error")
def test_equal_values(chance: np.random.Generator) -> None:
    one = chance.random(20)
    assert compare_two(one, one.copy()) == Comparison("a", "b", 0.0, 0.0, 0.0, 1.0, 1.0, 20)
    assert compare_two(np.zeros(5), np.zeros(5)) == Comparison("a", "b", 0.0, 0.0, 0.0, 1.0, 1.0, 5)


@pytest.mark.filterwarnings("error")
def test_equal_but_for_rounding(chance: np.random.Generator) -> None:
    """The same seeds in another order have another last bit."""
    seeds = chance.random((5, 200))
    other = seeds[[3, 1, 4, 0, 2]]
    assert (seeds.mean(0) != other.mean(0)).any()
    assert compare_two(seeds, other) == Comparison("a", "b", 0.0, 0.0, 0.0, 1.0, 1.0, 200)


@pytest.mark.filterwarnings("error")
def test_the_same_difference_for_all(chance: np.random.Generator) -> None:
    one = chance.random(20)
    found = compare_two(one, one + 0.1)
    assert (found.difference, found.low, found.high) == pytest.approx((-0.1, -0.1, -0.1), abs=1e-12)
    assert (found.p, found.corrected_p) == (0, 0)


@pytest.mark.filterwarnings("error")
def test_a_single_user_that_differs_counts() -> None:
    """One of n differs: the mean equals its standard error, so t is 1."""
    one = np.full(50, 0.5)
    other = one.copy()
    other[7] = 0.5 + 1e-6
    assert compare_two(one, other).p == pytest.approx(2 * stats.t.sf(1, 49), rel=1e-6)


# Several pairs


def test_pairs_are_corrected_together(chance: np.random.Generator) -> None:
    values = {name: chance.random(60) + gain for name, gain in [("a", 0.0), ("b", 0.1), ("c", 0.15), ("d", 0.05)]}
    pairs = [("a", "b"), ("c", "a"), ("d", "a"), ("b", "c")]
    found = compare(values, pairs)
    assert [(comparison.first, comparison.second) for comparison in found] == pairs
    alone = [compare(values, [pair])[0].p for pair in pairs]
    assert [comparison.p for comparison in found] == alone
    assert [comparison.corrected_p for comparison in found] == holm(alone)
    assert any(comparison.corrected_p > comparison.p for comparison in found)


def test_no_pairs() -> None:
    assert compare({"a": np.zeros(3)}, []) == []


# Holm


def test_holm_by_hand() -> None:
    """Sorted: .005 * 4 = .02, .01 * 3 = .03, .03 * 2 = .06, .04 * 1 = .04 raised to .06."""
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02], abs=1e-15)


@pytest.mark.parametrize(
    ("given", "expected"),
    [([], []), ([0.3], [0.3]), ([0.6, 0.5], [1, 1]), ([0, 1], [0, 1]), ([0.25, 0.25], [0.5, 0.5])],
)
def test_holm_at_the_edges(given: list[float], expected: list[float]) -> None:
    assert holm(given) == expected


@pytest.mark.parametrize("size", [1, 2, 5, 30])
def test_holm_properties(chance: np.random.Generator, size: int) -> None:
    for power in (1, 4):  # the second has many small values
        p = chance.random(size) ** power
        corrected = np.array(holm(p.tolist()))
        assert (corrected >= p).all()
        assert (corrected <= 1).all()
        assert (np.diff(corrected[p.argsort()]) >= 0).all()
        assert corrected[p.argmin()] == min(1, size * p.min())
        assert (corrected <= np.minimum(1, size * p)).all(), "never above Bonferroni"
        shuffled = chance.permutation(size)
        assert holm(p[shuffled].tolist()) == corrected[shuffled].tolist()


def test_holm_rejects_as_the_published_procedure(chance: np.random.Generator) -> None:
    """Step through the sorted values and stop at the first above level / (how many are left)."""
    for level in (0.01, 0.05, 0.2):
        p = chance.random(20) ** 4
        rejected = set()
        for step, place in enumerate(p.argsort()):
            if p[place] > level / (20 - step):
                break
            rejected.add(place)
        assert rejected
        assert {place for place, value in enumerate(holm(p.tolist())) if value <= level} == rejected


@pytest.mark.parametrize("wrong", [-0.1, 1.1, math.nan])
def test_holm_wants_probabilities(wrong: float) -> None:
    with pytest.raises(InputError, match=f"A p value is {wrong}; give"):
        holm([0.5, wrong])


# Errors


@pytest.mark.parametrize("pair", [("a", "x"), ("x", "a")])
def test_unknown_name(pair: tuple[str, str]) -> None:
    with pytest.raises(InputError, match="no values of a method named x; there are: a, b"):
        compare({"a": np.zeros(3), "b": np.ones(3)}, [pair])


def test_lengths_that_disagree() -> None:
    with pytest.raises(InputError, match=r"disagree: \{'a': 3, 'b': 4\}; give the same users"):
        compare_two(np.zeros((4, 3)), np.zeros((3, 4)))


@pytest.mark.parametrize(
    ("one", "other", "left"), [([1.0], [2.0], 1), ([], [], 0), ([1, math.nan, 3], [1, 2, math.nan], 1)]
)
def test_too_few_users(one: list[float], other: list[float], left: int) -> None:
    with pytest.raises(InputError, match=f"a and b share {left} users with values; a test needs at least 2"):
        compare_two(one, other)


def test_two_users_suffice() -> None:
    assert compare_two([1, 2], [1, 3]).p == pytest.approx(0.5)  # t is 1; with 1 degree of freedom, Cauchy's quartile


@pytest.mark.parametrize("shape", [(2, 3, 4), (0, 3)])
def test_wrong_shape(shape: tuple[int, ...]) -> None:
    with pytest.raises(InputError, match=r"values of b have the shape .*; give \(users,\) or \(seeds, users\)"):
        compare_two(np.zeros(3), np.zeros(shape))


@pytest.mark.parametrize("wrong", [math.inf, -math.inf])
def test_infinite_value(wrong: float) -> None:
    with pytest.raises(InputError, match="values of b hold an infinite one"):
        compare_two([0, 1, 2], [0, wrong, 1])


def test_without_scipy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "scipy", None)
    with pytest.raises(InputError, match=r"needs scipy; install the extra with python -m pip install '\.\[study\]'\."):
        compare_two([0, 1], [0, 2])
