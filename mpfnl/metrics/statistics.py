"""Paired tests, their correction for many comparisons, and intervals. Imports NumPy and SciPy only."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import combinations
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

Statistic: TypeAlias = Callable[..., Any]
_Method: TypeAlias = Literal["BCa", "percentile"]


@dataclass(frozen=True)
class ConfidenceInterval:
    """A confidence interval.

    Attributes:
        low: Lower end.
        high: Upper end.
    """

    low: float
    high: float


@dataclass(frozen=True)
class Summary:
    """One method's values over the cases of a cohort.

    Attributes:
        n: Number of cases with a value; the fields below describe these.
        n_failed: Number of cases without one (not finite), never dropped silently.
        mean: Mean; None without a case.
        sd: Sample standard deviation; None with fewer than two cases.
        median: Median; None without a case.
        interval: BCa bootstrap interval of the mean; None with fewer than two cases.
    """

    n: int
    n_failed: int
    mean: float | None
    sd: float | None
    median: float | None
    interval: ConfidenceInterval | None


@dataclass(frozen=True)
class PairedTest:
    """A two-sided Wilcoxon signed-rank test of paired values.

    Attributes:
        n: Number of pairs.
        n_zero: Number of pairs without a difference; they carry no rank.
        difference: Median of `a - b` over all pairs.
        p: Two-sided p-value.
        effect: Matched-pairs rank-biserial correlation in [-1, 1], positive where `a` is larger.
    """

    n: int
    n_zero: int
    difference: float
    p: float
    effect: float


@dataclass(frozen=True)
class Comparison:
    """A method tested against another over the cases for which both have a value.

    Attributes:
        method: Name of the method.
        against: Name of the method that it is compared with.
        n: Number of cases with two values.
        n_excluded: Number of cases without a value of either method (not finite).
        difference: Median of `method - against`.
        p: Two-sided p-value of the paired Wilcoxon test.
        p_holm: p-value after Holm's correction over the family of tests.
        effect: Rank-biserial correlation, positive where `method` is larger.

    Without a common case there is no test: the last four are None.
    """

    method: str
    against: str
    n: int
    n_excluded: int
    difference: float | None
    p: float | None
    p_holm: float | None
    effect: float | None


def paired_wilcoxon(a: ArrayLike, b: ArrayLike) -> PairedTest:
    """Two-sided Wilcoxon signed-rank test of `a - b`, computed by SciPy.

    Zero differences are dropped before ranking (Wilcoxon's own rule, SciPy's `zero_method="wilcox"`). SciPy
    chooses between the exact and the normal distribution. If every difference is zero, p is 1 and the effect
    0. The effect is (W+ - W-) / (W+ + W-), the rank-biserial correlation (Kerby 2014, doi
    10.2466/11.IT.3.1).

    Args:
        a: One value for each case.
        b: The same cases in the same order.

    Raises:
        ValueError: If the lengths differ, there is no pair, or a value is not finite.

    >>> test = paired_wilcoxon([1, 2, 3, 4, 5], [0, 0, 0, 0, 0])  # 2 of 2^5 orders of signs are as extreme
    >>> test.p, test.effect, test.difference
    (0.0625, 1.0, 3.0)
    """
    first, second = _finite_vector(a, "a"), _finite_vector(b, "b")
    if first.shape != second.shape:
        raise ValueError(f"a has {first.size} values, b has {second.size}; they must be paired")
    if first.size == 0:
        raise ValueError("there is no pair to test")
    differences = first - second
    n_zero = first.size - np.count_nonzero(differences)
    p = effect = 0.0
    if n_zero == first.size:
        p = 1.0
    else:
        with warnings.catch_warnings():  # small samples and ties: SciPy's choice of distribution is kept
            warnings.simplefilter("ignore")
            p = float(stats.wilcoxon(differences, zero_method="wilcox", alternative="two-sided").pvalue)
        effect = _rank_biserial(differences[differences != 0])
    return PairedTest(int(first.size), int(n_zero), float(np.median(differences)), p, effect)


def _rank_biserial(differences: NDArray[np.float64]) -> float:
    ranks = stats.rankdata(np.abs(differences))
    return float(np.sum(np.sign(differences) * ranks) / np.sum(ranks))


def holm(p_values: ArrayLike) -> NDArray[np.float64]:
    """Holm's step-down correction (Holm 1979) of a family of p-values, in their order.

    The k-th smallest of m is multiplied by m - k + 1; the results are made monotone and at most 1.

    Args:
        p_values: Values in [0, 1]; an empty family gives an empty array.

    Raises:
        ValueError: If a value is NaN or outside [0, 1].

    >>> holm([0.02, 0.01, 0.5]).tolist()  # 2 * 0.02, 3 * 0.01, 1 * 0.5
    [0.04, 0.03, 0.5]
    """
    p = np.asarray(p_values, dtype=np.float64).reshape(-1)
    if not np.all((p >= 0) & (p <= 1)):
        raise ValueError("p-values must lie in [0, 1]")
    order = np.argsort(p, kind="stable")
    stepped = np.maximum.accumulate(p[order] * np.arange(p.size, 0, -1))
    adjusted = np.empty_like(p)
    adjusted[order] = np.minimum(stepped, 1.0)
    return adjusted


def bca_interval(
    values: ArrayLike,
    statistic: Statistic = np.mean,
    confidence: float = 0.95,
    resamples: int = 9999,
    seed: int = 0,
) -> ConfidenceInterval | None:
    """Bias-corrected and accelerated bootstrap interval (Efron 1987), computed by SciPy.

    The result is never NaN: fewer than two values give None, and equal values an interval of no width. If BCa
    alone is degenerate (no acceleration, or no resample below the estimate), the percentile interval of the
    same resamples replaces it.

    Args:
        values: One finite value for each case.
        statistic: Function of a sample; it runs much faster with an `axis` argument.
        confidence: Coverage, between 0 and 1.
        resamples: Number of bootstrap resamples.
        seed: Seed of the resampling.

    Raises:
        ValueError: If a value is not finite or the confidence is outside (0, 1).

    >>> bca_interval([0.0, 1.0] * 50, resamples=999).low  # normal theory: 0.5 - 1.96 * 0.5 / 10 = 0.402
    0.41
    >>> bca_interval([0.5, 0.5, 0.5])
    ConfidenceInterval(low=0.5, high=0.5)
    """
    sample = _finite_vector(values, "values")
    if not 0 < confidence < 1:
        raise ValueError(f"the confidence is {confidence}; it must lie between 0 and 1")
    if sample.size < 2:
        return None
    if np.all(sample == sample[0]):
        value = float(statistic(sample))
        return ConfidenceInterval(value, value)
    methods: tuple[_Method, ...] = ("BCa", "percentile")
    for method in methods:
        with warnings.catch_warnings(), np.errstate(all="ignore"):
            warnings.simplefilter("ignore")
            bootstrap: Any = stats.bootstrap(
                (sample,),
                statistic,
                confidence_level=confidence,
                n_resamples=resamples,
                method=method,
                random_state=np.random.default_rng(seed),
            )
        low, high = (float(end) for end in bootstrap.confidence_interval)
        if np.isfinite(low) and np.isfinite(high):
            return ConfidenceInterval(low, high)
    raise ValueError("the statistic is not finite on resamples of these values: there is no interval")


def summarize(values: ArrayLike, confidence: float = 0.95, resamples: int = 9999, seed: int = 0) -> Summary:
    """Mean, standard deviation and interval of one method's values; values that are not finite are failures.

    Args:
        values: One value for each case; NaN (or an infinity) where the case has none.
        confidence: Coverage of the interval.
        resamples: Number of bootstrap resamples.
        seed: Seed of the resampling.
    """
    every = np.asarray(values, dtype=np.float64).reshape(-1)
    finite = every[np.isfinite(every)]
    return Summary(
        n=int(finite.size),
        n_failed=int(every.size - finite.size),
        mean=float(finite.mean()) if finite.size else None,
        sd=float(finite.std(ddof=1)) if finite.size > 1 else None,
        median=float(np.median(finite)) if finite.size else None,
        interval=bca_interval(finite, np.mean, confidence, resamples, seed),
    )


def compare_methods(values_by_method: Mapping[str, ArrayLike], baseline: str) -> list[Comparison]:
    """Tests every method against the baseline, and the methods against each other.

    The tests of one call are one family: their p-values are Holm-corrected together. Each pair is tested over
    the cases in which both values are finite; the others are counted in `n_excluded`.

    Args:
        values_by_method: One value per case for each method, all in the same order of cases.
        baseline: Name of the method that all others are compared with first, such as the degraded scan.

    Returns:
        Each other method against the baseline, in the mapping's order; then each later method against each
        earlier one.

    Raises:
        ValueError: If the baseline is unknown or the methods have different numbers of cases.

    >>> scores = {"degraded": [1, 2, 3, 4, 5], "network": [2, 4, 6, 8, 10], "filter": [1, 2, 3, 4, 5]}
    >>> for test in compare_methods(scores, baseline="degraded"):
    ...     print(test.method, test.against, test.difference, test.p, test.p_holm)
    network degraded 3.0 0.0625 0.1875
    filter degraded 0.0 1.0 1.0
    filter network -3.0 0.0625 0.1875
    """
    if baseline not in values_by_method:
        raise ValueError(f"there is no method {baseline!r} among {', '.join(map(repr, values_by_method))}")
    values = {name: np.asarray(v, dtype=np.float64).reshape(-1) for name, v in values_by_method.items()}
    if len({v.size for v in values.values()}) != 1:
        sizes = ", ".join(f"{name} {v.size}" for name, v in values.items())
        raise ValueError(f"the methods have different numbers of cases: {sizes}")
    others = [name for name in values if name != baseline]
    pairs = [(name, baseline) for name in others]
    pairs += [(later, earlier) for earlier, later in combinations(others, 2)]
    common = [np.isfinite(values[a]) & np.isfinite(values[b]) for a, b in pairs]
    tests = [
        paired_wilcoxon(values[a][both], values[b][both]) if both.any() else None
        for (a, b), both in zip(pairs, common, strict=True)
    ]
    corrected = iter(holm([test.p for test in tests if test is not None]).tolist())
    return [
        _comparison(a, b, both.size, test, next(corrected) if test is not None else None)
        for (a, b), both, test in zip(pairs, common, tests, strict=True)
    ]


def _comparison(
    method: str, against: str, cases: int, test: PairedTest | None, p_holm: float | None
) -> Comparison:
    if test is None:
        return Comparison(method, against, 0, cases, None, None, None, None)
    return Comparison(method, against, test.n, cases - test.n, test.difference, test.p, p_holm, test.effect)


def _finite_vector(values: ArrayLike, name: str) -> NDArray[np.float64]:
    vector = np.asarray(values, dtype=np.float64)
    if vector.ndim != 1:
        raise ValueError(f"{name} must be one value for each case, not an array of shape {vector.shape}")
    if not np.all(np.isfinite(vector)):
        raise ValueError(f"{name} holds values that are not finite; leave those cases out and count them")
    return vector
