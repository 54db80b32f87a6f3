"""Intervals and tests.

An interval always treats the seeds as the sample: it says how much another draw of seeds would move the number, and
nothing about other data sets or other hyperparameters. One convention holds in every table, picture and rule: intervals
are at 95 %, two-sided, and two numbers are equal within a margin where the 95 % interval of their difference is
inside it.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import ArrayLike
from scipy import optimize, stats

TOST = 0.025  # of each of the two one-sided tests: where both pass, the 95 % interval is within the margin


class Interval(NamedTuple):
    """A mean over seeds with its confidence interval."""

    mean: float
    low: float
    high: float
    n: int


def finite(values: ArrayLike) -> np.ndarray:
    """The values that are neither NaN nor infinite."""
    found = np.asarray(values, dtype=float)
    return found[np.isfinite(found)]


def t_interval(values: ArrayLike, level: float = 0.95) -> Interval:
    """Mean and t interval. Assumes independent values, about normal; NaN is left out. One value gives (−∞, ∞)."""
    return Mean(np.asarray(values, dtype=float)).interval(level)


@cache
def critical_t(level: float, df: float) -> float:
    """What a t value has to exceed, either way, for a two-sided interval at this level to leave 0 out."""
    return float(stats.t.isf((1 - level) / 2, df))


def share_interval(events: int, n: int, level: float = 0.95) -> Interval:
    """The share of n seeds in which something happened, with its exact interval, which is never too short.

    Source: Clopper and Pearson 1934, "The use of confidence or fiducial limits", Biometrika 26. No seed gives [0, 1].
    """
    if n == 0:
        return Interval(math.nan, 0.0, 1.0, 0)
    low, high = stats.binomtest(events, n).proportion_ci(level, method="exact")
    return Interval(events / n, float(low), float(high), n)


# -- how many seeds it takes -------------------------------------------------------------------------------------------

MOST = 1000  # seeds; what takes more is not settled by seeds
POWER = 0.80


def seeds_for_mean(margins: Sequence[float], level: float, power: float = POWER, sources: int = 1) -> int | None:
    """The fewest seeds with which the t interval is beyond every line, with this probability; None above `MOST`.

    Args:
        margins: distances from the mean to each line, in standard deviations between seeds, > 0 on the right side; two
            where the interval has to be between two lines. level: of the interval, two-sided. sources: of the
            variance, as in `Mean`.
    """
    n = np.arange(2, MOST + 1)
    df = sources * (n - 1)
    critical = stats.t.isf((1 - level) / 2, df)
    missed = sum(_noncentral_t_cdf(critical, df, min(margin, 1e3) * np.sqrt(n)) for margin in margins)
    enough = n[1 - missed >= power]
    return int(enough[0]) if min(margins) > 0 and len(enough) else None


def _noncentral_t_cdf(x: np.ndarray, df: np.ndarray, shift: np.ndarray) -> np.ndarray:
    """That of scipy, which has no value far out on the left."""
    with np.errstate(all="ignore"):
        return np.where(shift > x + 37, 0.0, np.nan_to_num(stats.nct.cdf(x, df, np.minimum(shift, x + 37))))


def seeds_for_share(share: float, line: float, level: float, power: float = POWER) -> int | None:
    """The fewest seeds with which the exact interval of a share is beyond the line, with this probability, if the
    share is what it seems; None above `MOST`."""
    if share < line:
        share, line = 1 - share, 1 - line
    n = np.arange(1, MOST + 1)
    # the least number of events whose lower bound is above the line: P(X ≥ k | line) < (1 − level) / 2
    least = stats.binom.isf((1 - level) / 2, n, line).astype(int) + 1
    enough = n[(least <= n) & (stats.binom.sf(least - 1, n, share) >= power)]
    return int(enough[0]) if len(enough) else None


# -- estimates: what a rule holds against its bounds -------------------------------------------------------------------


class Estimate(Protocol):
    """A number over seeds, with its interval at any level."""

    @property
    def n(self) -> int:
        """How many seeds there are."""

    @property
    def lost(self) -> int:
        """How many seeds more have no number, as where a run diverged; with any, nothing is decided."""

    def interval(self, level: float) -> Interval:
        """The number with its interval."""

    def seeds(self, above: float, below: float, level: float, power: float = POWER) -> int | None:
        """The fewest seeds with which the interval is between the two bounds, with probability `power`, if mean and
        spread are what they seem; None where no number of them will do, or more than `MOST`."""


@dataclass(frozen=True)
class Mean:
    """The mean of one value per seed. borrowed: a variance of others like it, see `moderated`."""

    values: np.ndarray
    borrowed: float | None = None

    @property
    def n(self) -> int:
        return len(finite(self.values))

    @property
    def lost(self) -> int:
        return len(self.values) - self.n

    @property
    def sources(self) -> int:
        """Of the variance: 1 where it is this one's own, 2 where it is the mean of its own and the borrowed one."""
        return 1 if self.borrowed is None else 2

    @property
    def variance(self) -> float:
        """Between seeds; NaN for fewer than two."""
        sample = finite(self.values)
        own = float(sample.var(ddof=1)) if len(sample) > 1 else math.nan
        return own if self.borrowed is None else (own + self.borrowed) / 2

    def interval(self, level: float) -> Interval:
        sample = finite(self.values)
        n, mean = len(sample), float(sample.mean()) if len(sample) else math.nan
        if n < 2:
            return Interval(mean, -math.inf, math.inf, n)
        half = critical_t(level, self.sources * (n - 1)) * math.sqrt(self.variance / n)
        return Interval(mean, mean - half, mean + half, n)

    def seeds(self, above: float, below: float, level: float, power: float = POWER) -> int | None:
        if self.n < 2:
            return None
        sd, mean = max(math.sqrt(self.variance), 1e-12), float(finite(self.values).mean())
        distances = [mean - above, below - mean]
        return seeds_for_mean([d / sd for d in distances if math.isfinite(d)], level, power, self.sources)


def moderated(means: Sequence[Mean]) -> list[Mean]:
    """The same means, each with the average of its own variance and the mean variance of all of them.

    That is the posterior variance of Smyth 2004 ("Linear models and empirical Bayes methods for assessing differential
    expression", Statistical Applications in Genetics and Molecular Biology 3) with as many prior degrees of freedom as
    a method has of its own. Estimating that number, as he does, supposes independent variances, and methods that are
    compared with one baseline do not have them: "one of eight is different" was then wrong in up to 7.6 % of simulated
    worlds, instead of 2.5 %. With this number it is in 2.6 % at most, also where the variances are unequal; and where
    seeds are skewed in up to 5 % instead of up to 47 %, since one method's short interval no longer decides alone.

    A single interval that is moderated covers too rarely where its method is noisier than the others (as little as
    88 %), so that what asks of one certain method should not use it.
    """
    variances = [mean.variance for mean in means if mean.n > 1]
    if len(variances) < FEWEST:
        return list(means)
    return [Mean(mean.values, float(np.mean(variances))) for mean in means]


FEWEST = 4  # methods whose variances are worth averaging


@dataclass(frozen=True)
class Proportion:
    """The share of seeds in which something happened: one True or False per seed."""

    happened: np.ndarray

    lost = 0

    @property
    def n(self) -> int:
        return len(self.happened)

    def interval(self, level: float) -> Interval:
        return share_interval(int(self.happened.sum()), self.n, level)

    def seeds(self, above: float, below: float, level: float, power: float = POWER) -> int | None:
        share = float(self.happened.mean()) if self.n else math.nan
        line = above if math.isfinite(above) else below
        return seeds_for_share(share, line, level, power) if above < share < below else None


@dataclass(frozen=True)
class SpreadRatio:
    """The logarithm of the ratio of two standard deviations between seeds, both at the same seeds [n, 2].

    The interval is that of Pitman and Morgan, exact for two normal variables, however they correlate; where the tails
    are long it covers less often (84 % for Student's t with four degrees of freedom and ten seeds). Source: Pitman
    1939, "A note on normal correlation", Biometrika 31.
    """

    values: np.ndarray
    lost = 0

    @property
    def n(self) -> int:
        return len(self.values)

    def interval(self, level: float) -> Interval:
        if self.n < 2 or not (spreads := self.values.std(axis=0, ddof=1)).all():
            return Interval(math.nan, -math.inf, math.inf, self.n)
        ratio = math.log(spreads[0] / spreads[1])
        if self.n < 3:
            return Interval(ratio, -math.inf, math.inf, self.n)
        k = 1 + 2 * self._unexplained * critical_t(level, self.n - 2) ** 2 / (self.n - 2)
        half = math.log(k + math.sqrt(k * k - 1)) / 2
        return Interval(ratio, ratio - half, ratio + half, self.n)

    @property
    def _unexplained(self) -> float:
        return max(1 - float(np.corrcoef(self.values.T)[0, 1]) ** 2, 1e-12)

    def seeds(self, above: float, below: float, level: float, power: float = POWER) -> int | None:
        """About: of a logarithm of such a ratio the variance is (1 − r²) / (n − 1)."""
        if self.n < 3:
            return None
        mean, sd = self.interval(level).mean, math.sqrt(self._unexplained)
        return seeds_for_mean([d / sd for d in (mean - above, below - mean) if math.isfinite(d)], level, power)


@dataclass(frozen=True)
class ChoiceRatio:
    """The logarithm of a ratio: the standard deviation between the means of k settings, over that between seeds at one
    of them, the best.

    The interval comes from the noncentral F distribution of n · (variance of the means) / (variance between seeds),
    with k − 1 and n − 1 degrees of freedom and noncentrality n (k − 1) ratio²; exact for independent normal values of
    one variance. With a seed's luck shared by the settings it is too wide; with settings twice as noisy as the best one
    it covers in 87 to 94 % instead of 95. Source: Steiger and Fouladi 1997, "Noncentrality interval estimation".
    """

    values: np.ndarray  # [seeds, settings]
    best: int
    lost = 0

    @property
    def n(self) -> int:
        return len(self.values)

    @property
    def ratio(self) -> float:
        """Not its logarithm; NaN for fewer than two seeds or settings."""
        if min(self.values.shape) < 2:
            return math.nan
        with np.errstate(divide="ignore"):
            return float(self.values.mean(axis=0).std(ddof=1) / self.values[:, self.best].std(ddof=1))

    def interval(self, level: float) -> Interval:
        if not math.isfinite(self.ratio) or self.ratio == 0:
            return Interval(math.nan, -math.inf, math.inf, self.n)
        tails = ((1 + level) / 2, (1 - level) / 2)
        low, high = (self._log_ratio_with(probability) for probability in tails)
        return Interval(math.log(self.ratio), low, high, self.n)

    def _log_ratio_with(self, probability: float) -> float:
        """The ratio, as a logarithm, under which what is seen or less has this probability; −∞ where none has."""
        seen = self.n * self.ratio**2

        def excess(log_ratio: float) -> float:
            shift = self.n * (self.values.shape[1] - 1) * math.exp(2 * log_ratio)
            return float(stats.ncf.cdf(seen, self.values.shape[1] - 1, self.n - 1, shift)) - probability

        lowest, highest = -12.0, math.log(self.ratio) + 12
        return float(optimize.brentq(excess, lowest, highest, xtol=1e-6)) if excess(lowest) > 0 else -math.inf

    def seeds(self, above: float, below: float, level: float, power: float = POWER) -> int | None:
        if not math.isfinite(self.ratio):
            return None
        n, k = np.arange(2, 201), self.values.shape[1]  # beyond, the distribution has no reliable numbers
        missed = np.zeros(len(n))
        for line, side in ((above, 1), (below, -1)):
            if math.isfinite(line):
                tail = (1 + side * level) / 2
                critical = stats.ncf.ppf(tail, k - 1, n - 1, n * (k - 1) * math.exp(2 * line))
                beyond = stats.ncf.sf(critical, k - 1, n - 1, n * (k - 1) * self.ratio**2)
                missed += 1 - beyond if side > 0 else beyond
        enough = n[1 - np.nan_to_num(missed, nan=1.0) >= power]
        return int(enough[0]) if len(enough) else None


@dataclass(frozen=True)
class Exact:
    """A number without error, such as one that is printed in a paper."""

    value: float
    n = 1
    lost = 0

    def interval(self, level: float) -> Interval:
        return Interval(self.value, self.value, self.value, 1)

    def seeds(self, above: float, below: float, level: float, power: float = POWER) -> int | None:
        return 1


def _t_test(sample: np.ndarray, mean: float = 0.0, alternative: str = "two-sided") -> Any:
    """scipy's t test; that values are all but equal is no reason for it to warn."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Precision loss", RuntimeWarning)
        return stats.ttest_1samp(sample, mean, alternative=alternative)


def tost(values: ArrayLike, margin: float) -> float:
    """Two one-sided t tests: the p-value of "the mean is outside ±margin". Small means equal, within the margin.

    A difference that is not significant is no evidence of equality; this is. p < 0.025 (`TOST`) exactly where the 95 %
    interval of the mean is within the margin. NaN with fewer than two values.
    """
    sample = finite(values)
    if len(sample) < 2:
        return math.nan
    below, above = _t_test(sample, -margin, "greater").pvalue, _t_test(sample, margin, "less").pvalue
    return float(np.nan_to_num(np.max([below, above]), nan=1.0))  # equal values, just at the margin, have none


def rank_correlation(x: ArrayLike, y: ArrayLike) -> float:
    """Spearman's rank correlation, without a test; NaN where all of one side are equal."""
    a, b = (stats.rankdata(side) - (len(np.asarray(side)) + 1) / 2 for side in (x, y))
    size = math.sqrt(float(a @ a) * float(b @ b))
    return float(np.clip(a @ b / size, -1, 1)) if size else math.nan


def somers_d(groups: Sequence[ArrayLike]) -> float:
    """How well the first group is above the second, in [−1, 1]: the share of pairs in order minus that of others."""
    first, second = (np.asarray(group, dtype=float) for group in groups)
    return float(np.sign(first[:, None] - second[None, :]).mean())


class Correlation(NamedTuple):
    """Spearman's rank correlation, its two-sided permutation p-value, and whether all permutations were tried."""

    rho: float
    p: float
    n: int
    exact: bool


def spearman(x: ArrayLike, y: ArrayLike) -> Correlation:
    """Rank correlation with a permutation test: all n! orders up to eight points, a seeded sample of 9,999 beyond.

    Three points cannot give a p below 1/3, four none below 1/12, five none below 1/60 (both directions count).
    """
    pairs = np.column_stack([np.asarray(x, dtype=float), np.asarray(y, dtype=float)])
    ranks = stats.rankdata(pairs[np.isfinite(pairs).all(axis=1)], axis=0)
    n, exact = len(ranks), len(ranks) <= 8
    if n < 3 or (np.ptp(ranks, axis=0) == 0).any():
        return Correlation(math.nan, math.nan, n, True)
    a, b = stats.zscore(ranks).T  # of which the correlation is the mean product
    test = stats.permutation_test(
        [b],
        lambda orders, axis: np.abs(orders @ a) / n,
        permutation_type="pairings",
        vectorized=True,
        alternative="greater",  # of the absolute value: both directions count
        n_resamples=math.factorial(n) if exact else 9999,
        rng=np.random.default_rng(0),
    )
    return Correlation(float(a @ b / n), float(test.pvalue), n, exact)
