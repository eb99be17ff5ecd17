"""The statistics against SciPy and statsmodels, and the rules for degenerate samples."""

from __future__ import annotations

import math
import warnings

import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st
from statsmodels.stats.multitest import multipletests

from mpfnl.metrics.statistics import (
    ConfidenceInterval,
    bca_interval,
    compare_methods,
    holm,
    paired_wilcoxon,
    summarize,
)

values = st.floats(-100, 100, allow_nan=False)


@pytest.mark.parametrize("n", [1, 2, 5, 12, 30, 60, 200])
@pytest.mark.parametrize("digits", [0, 1, 12])
def test_wilcoxon_equals_scipy_with_and_without_ties_and_zeros(n, digits):
    rng = np.random.default_rng(n)
    a = rng.normal(0.4, 1, n).round(digits)
    b = rng.normal(0, 1, n).round(digits)
    found = paired_wilcoxon(a, b)
    if np.array_equal(a, b):
        expected = 1.0
    else:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            expected = scipy.stats.wilcoxon(a, b).pvalue
    assert found.p == pytest.approx(expected, abs=1e-12)
    assert found.n == n
    assert found.n_zero == np.sum(a == b)
    assert found.difference == pytest.approx(np.median(a - b))


def test_wilcoxon_without_any_difference():
    found = paired_wilcoxon([1.0, 2.0, 3.0], [1.0, 2.0, 3.0])
    assert (found.p, found.effect, found.difference, found.n, found.n_zero) == (1.0, 0.0, 0.0, 3, 3)


def test_the_effect_is_the_share_of_favourable_minus_unfavourable_ranks():
    """Kerby's own way of putting it, counted over pairs of cases (Walsh averages)."""
    rng = np.random.default_rng(3)
    d = rng.normal(0.3, 1, 17)
    walsh = [d[i] + d[j] for i in range(17) for j in range(i, 17)]
    expected = np.mean(np.sign(walsh))
    assert paired_wilcoxon(d, np.zeros(17)).effect == pytest.approx(expected)
    assert paired_wilcoxon([2.0, 3.0, 4.0], [1.0, 1.0, 1.0]).effect == 1.0


@settings(max_examples=50, deadline=None)
@given(pairs=st.lists(st.tuples(values, values), min_size=1, max_size=20))
def test_swapping_the_methods_turns_the_sign(pairs):
    a, b = np.array(pairs).T
    one, other = paired_wilcoxon(a, b), paired_wilcoxon(b, a)
    assert one.p == pytest.approx(other.p)
    assert one.effect == pytest.approx(-other.effect)
    assert one.difference == pytest.approx(-other.difference)
    assert 0 <= one.p <= 1
    assert -1 <= one.effect <= 1


def test_what_wilcoxon_cannot_test():
    with pytest.raises(ValueError, match="paired"):
        paired_wilcoxon([1.0, 2.0], [1.0])
    with pytest.raises(ValueError, match="no pair"):
        paired_wilcoxon([], [])
    with pytest.raises(ValueError, match="not finite"):
        paired_wilcoxon([1.0, math.nan], [1.0, 2.0])


@pytest.mark.parametrize("seed", range(8))
def test_holm_equals_statsmodels(seed):
    rng = np.random.default_rng(seed)
    p = (rng.random(rng.integers(1, 15)) ** 3).round(seed % 4 + 1)  # small ones, large ones, ties
    np.testing.assert_allclose(holm(p), multipletests(p, method="holm")[1], atol=1e-12)


def test_holm_of_nothing_and_of_nonsense():
    assert holm([]).size == 0
    with pytest.raises(ValueError, match=r"\[0, 1\]"):
        holm([0.1, math.nan])
    with pytest.raises(ValueError, match=r"\[0, 1\]"):
        holm([1.1])


@pytest.mark.parametrize("statistic", [np.mean, np.median, scipy.stats.trim_mean])
@pytest.mark.parametrize("confidence", [0.9, 0.95])
def test_bca_equals_scipy(statistic, confidence):
    sample = np.random.default_rng(0).lognormal(size=25)
    if statistic is scipy.stats.trim_mean:

        def statistic(x):  # no axis argument: SciPy then loops over the resamples
            return scipy.stats.trim_mean(x, 0.1)

    found = bca_interval(sample, statistic, confidence=confidence, resamples=999, seed=5)
    expected = scipy.stats.bootstrap(
        (sample,),
        statistic,
        confidence_level=confidence,
        n_resamples=999,
        method="BCa",
        random_state=np.random.default_rng(5),
    ).confidence_interval
    assert found is not None
    assert (found.low, found.high) == (pytest.approx(expected.low), pytest.approx(expected.high))


def test_bca_covers_the_mean_about_as_often_as_it_says():
    rng = np.random.default_rng(1)
    samples = rng.normal(2.0, 1.0, (200, 40))
    intervals = [bca_interval(sample, resamples=499) for sample in samples]
    covered = np.mean([i is not None and i.low <= 2.0 <= i.high for i in intervals])
    assert 0.88 <= covered <= 0.99


def test_bca_of_degenerate_samples_is_never_nan():
    assert bca_interval([]) is None
    assert bca_interval([3.0]) is None
    assert bca_interval([3.0, 3.0, 3.0]) == ConfidenceInterval(3.0, 3.0)
    lone = [0.0] * 12 + [1.0]  # the median of every leave-one-out sample is 0: BCa has no acceleration
    fallback = bca_interval(lone, np.median, resamples=999)
    assert fallback is not None
    assert (fallback.low, fallback.high) == (0.0, 0.0)
    assert bca_interval([0.0, 1.0], resamples=999) is not None
    with pytest.raises(ValueError, match="not finite"):
        bca_interval([1.0, math.inf])
    with pytest.raises(ValueError, match="confidence"):
        bca_interval([1.0, 2.0], confidence=95.0)


@settings(max_examples=40, deadline=None)
@given(sample=st.lists(st.floats(0, 1), min_size=2, max_size=12), seed=st.integers(0, 9))
def test_bca_is_an_interval_inside_the_sample(sample, seed):
    found = bca_interval(sample, resamples=199, seed=seed)
    assert found is not None
    assert min(sample) - 1e-9 <= found.low <= found.high <= max(sample) + 1e-9
    assert found == bca_interval(sample, resamples=199, seed=seed)


def test_a_summary_counts_what_failed():
    found = summarize([0.5, math.nan, 0.7, 0.9, math.inf])
    kept = [0.5, 0.7, 0.9]
    assert (found.n, found.n_failed) == (3, 2)
    assert found.mean == pytest.approx(np.mean(kept))
    assert found.sd == pytest.approx(np.std(kept, ddof=1))
    assert found.median == 0.7
    assert found.interval == bca_interval(kept)


def test_summaries_of_hardly_anything():
    assert summarize([0.5]).interval is None
    assert summarize([0.5]).sd is None
    nothing = summarize([math.nan])
    assert (nothing.n, nothing.n_failed, nothing.mean, nothing.median) == (0, 1, None, None)


def test_comparisons_are_paired_counted_and_corrected():
    rng = np.random.default_rng(2)
    degraded = rng.normal(0.5, 0.1, 24)
    rcan, pfnl = degraded + rng.normal(0.05, 0.05, 24), degraded + rng.normal(0.1, 0.05, 24)
    rcan[3], pfnl[5], pfnl[6] = math.nan, math.nan, math.nan
    found = compare_methods({"rcan": rcan, "degraded": degraded, "pfnl": pfnl}, baseline="degraded")
    assert [(c.method, c.against) for c in found] == [
        ("rcan", "degraded"),
        ("pfnl", "degraded"),
        ("pfnl", "rcan"),
    ]
    assert [(c.n, c.n_excluded) for c in found] == [(23, 1), (22, 2), (21, 3)]
    both = np.isfinite(rcan) & np.isfinite(pfnl)
    assert found[2].p == pytest.approx(scipy.stats.wilcoxon(pfnl[both], rcan[both]).pvalue)
    assert found[2].difference == pytest.approx(np.median(pfnl[both] - rcan[both]))
    assert found[2].difference > 0
    corrected = multipletests([c.p for c in found], method="holm")[1]
    np.testing.assert_allclose([c.p_holm for c in found], corrected)


def test_a_method_that_always_failed_is_reported_and_no_part_of_the_family():
    base, other = [0.1, 0.2, 0.3, 0.4], [0.3, 0.5, 0.4, 0.9]
    found = compare_methods({"base": base, "dead": [math.nan] * 4, "other": other}, baseline="base")
    dead = [c for c in found if "dead" in (c.method, c.against)]
    assert [(c.n, c.n_excluded, c.p, c.p_holm, c.effect) for c in dead] == [(0, 4, None, None, None)] * 2
    (alive,) = (c for c in found if c.method == "other" and c.against == "base")
    assert alive.p_holm == alive.p


def test_what_cannot_be_compared():
    with pytest.raises(ValueError, match="no method 'x'"):
        compare_methods({"a": [1.0]}, baseline="x")
    with pytest.raises(ValueError, match="a 1, b 2"):
        compare_methods({"a": [1.0], "b": [1.0, 2.0]}, baseline="a")
    assert compare_methods({"a": [1.0, 2.0]}, baseline="a") == []
