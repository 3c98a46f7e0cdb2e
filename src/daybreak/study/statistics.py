"""Is a difference of paired losses more than chance?

Two recipes are trained with the same seeds, so on the same text in the same order from the same initial values where
they share a parameter. What is tested is the mean of the differences, seed by seed.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from statistics import fmean, stdev
from typing import Any, Literal, final

import numpy as np

from daybreak.errors import UserError

Verdict = Literal["helps", "hurts", "diverged", "not shown", "unfinished"]

CONFIDENCE = 0.95
POWER = 0.8  # with which a difference must be found to be called one that could have been shown
_QUANTILES = 10_000


@final
@dataclass(frozen=True)
class PairedDifference:
    """The mean of paired differences, and what is known of it.

    Attributes:
        by_seed: variant less reference, in nats a token; less than zero is better. Of seeds whose losses are numbers.
        diverged: seeds at which the variant's loss is no number, where the reference's is one.
        low, high: the 95 % confidence interval of the mean, by Student's t; None with fewer than two seeds.
        p: of a mean as far from zero as this where there is no difference, two-sided; None with fewer than two seeds.
        detectable: the difference that so many seeds, scattered like these, would show in four of five studies.
    """

    by_seed: Mapping[int, float]
    diverged: tuple[int, ...]
    mean: float
    low: float | None
    high: float | None
    p: float | None
    detectable: float | None


def paired_difference(losses: Mapping[int, float], reference: Mapping[int, float]) -> PairedDifference:
    """Compare losses by seed with a reference's, at the seeds that both have.

    Raises:
        UserError: they have no seed in common.
    """
    common = sorted(losses.keys() & reference.keys())
    if not common:
        raise UserError("nothing can be paired: no seed was trained with both")
    counted = [seed for seed in common if math.isfinite(losses[seed]) and math.isfinite(reference[seed])]
    diverged = tuple(seed for seed in common if math.isfinite(reference[seed]) and not math.isfinite(losses[seed]))
    by_seed = {seed: losses[seed] - reference[seed] for seed in counted}
    mean = fmean(by_seed.values()) if by_seed else math.nan
    if len(by_seed) < 2:
        return PairedDifference(by_seed, diverged, mean, None, None, None, None)
    spread = stdev(by_seed.values())
    low, high, p = _interval_and_p(list(by_seed.values()), mean, spread)
    return PairedDifference(by_seed, diverged, mean, low, high, p, detectable_difference(spread, len(by_seed)))


def _interval_and_p(differences: Sequence[float], mean: float, spread: float) -> tuple[float, float, float]:
    """Of Student's paired test."""
    if not spread:  # the same difference at every seed: two names of one recipe, or beyond all doubt
        return mean, mean, float(mean == 0)
    tested = scipy_stats().ttest_1samp(differences, 0.0)
    interval = tested.confidence_interval(CONFIDENCE)
    return float(interval.low), float(interval.high), float(tested.pvalue)


def detectable_difference(spread: float, seeds: int) -> float:
    """The true mean difference that a paired t test of this level finds with probability POWER.

    Args:
        spread: standard deviation of the differences.
        seeds: pairs, at least two.
    """
    return _detectable_shift(seeds) * spread / math.sqrt(seeds)


@cache
def _detectable_shift(seeds: int) -> float:
    """The same in standard errors, by bisection."""
    low, high = 0.0, 1.0
    while power_of(high, seeds) < POWER:
        high *= 2
    while high - low > 1e-9 * high:
        middle = (low + high) / 2
        low, high = (middle, high) if power_of(middle, seeds) < POWER else (low, middle)
    return high


def power_of(shift: float, seeds: int) -> float:
    """The probability that a paired t test finds a mean difference of `shift` standard errors.

    Under the alternative t is (Z + shift) / S, with Z normal and S the root of a chi-squared over its degrees of
    freedom (Cohen 1988, *Statistical power analysis*, 2.2). It is averaged over the quantiles of S, since scipy's
    noncentral t fails at the large shifts that few seeds need.
    """
    critical, spreads = _critical_and_spreads(seeds - 1)
    norm = scipy_stats().norm
    return float((norm.sf(critical * spreads - shift) + norm.cdf(-critical * spreads - shift)).mean())


@cache
def _critical_and_spreads(freedom: int) -> tuple[float, Any]:
    """The t from which a difference is called, and evenly likely values of S."""
    stats = scipy_stats()
    shares = (np.arange(_QUANTILES) + 0.5) / _QUANTILES
    return float(stats.t.ppf(0.5 + CONFIDENCE / 2, freedom)), stats.chi.ppf(shares, freedom) / math.sqrt(freedom)


def adjusted(p_values: Sequence[float | None]) -> list[float | None]:
    """For many comparisons at once, by Benjamini and Hochberg (1995): of what is called, 5 % are false on average."""
    known = [p for p in p_values if p is not None]
    if not known:
        return list(p_values)
    mended = iter(scipy_stats().false_discovery_control(known, method="bh"))
    return [None if p is None else float(next(mended)) for p in p_values]


def verdict(difference: PairedDifference, p_adjusted: float | None) -> Verdict:
    """What may be said, at 95 % confidence."""
    if difference.diverged:
        return "diverged"
    if p_adjusted is None or p_adjusted >= 1 - CONFIDENCE:
        return "not shown"
    return "helps" if difference.mean < 0 else "hurts"


def scipy_stats() -> Any:
    """Raises UserError if scipy is not installed."""
    try:
        from scipy import stats
    except ImportError:
        raise UserError("comparing runs needs scipy: pip install 'daybreak[study]'") from None
    return stats
