"""Paired differences, held against scipy's own tests, closed forms, and studies made up by the thousand."""

import math

import numpy as np
import pytest
from scipy import stats

from daybreak.errors import UserError
from daybreak.study.results import compare_all
from daybreak.study.statistics import adjusted, detectable_difference, paired_difference, power_of, verdict

REPETITIONS = 1500
SEEDS = 20


def by_seed(losses: np.ndarray) -> dict[int, float]:
    return dict(enumerate(losses.tolist(), start=1))


def share_called(shift: float) -> float:
    """Of made-up studies of two variants, how many call a difference where the true one is `shift` standard errors."""
    generator = np.random.default_rng(0)
    called = 0
    for _ in range(REPETITIONS):
        text = generator.normal(4.0, 0.1, SEEDS)  # what a seed's order does to both alike
        own = generator.normal(0.0, 0.02, (2, SEEDS))
        error = 0.02 * math.sqrt(2 / SEEDS)
        losses = {"base": by_seed(text + own[0]), "change": by_seed(text + own[1] + shift * error)}
        (found,) = compare_all({"change": "base"}, losses)
        called += found.verdict != "not shown"
    return called / REPETITIONS


def test_two_identical_variants_are_called_different_in_a_twentieth_of_studies() -> None:
    assert share_called(0.0) == pytest.approx(0.05, abs=3 * math.sqrt(0.05 * 0.95 / REPETITIONS))


def test_a_difference_of_two_standard_errors_is_found_as_often_as_theory_says() -> None:
    freedom = SEEDS - 1
    critical = stats.t.ppf(0.975, freedom)
    theory = stats.nct.sf(critical, freedom, 2.0) + stats.nct.cdf(-critical, freedom, 2.0)
    assert share_called(2.0) == pytest.approx(theory, abs=3 * math.sqrt(theory * (1 - theory) / REPETITIONS))


def test_interval_and_p_are_those_of_the_paired_t_test() -> None:
    generator = np.random.default_rng(1)
    one, other = generator.normal(4.0, 0.1, (2, 7))
    found = paired_difference(by_seed(one), by_seed(other))
    reference = stats.ttest_rel(one, other)
    interval = reference.confidence_interval(0.95)
    assert (found.mean, found.p) == pytest.approx((np.mean(one - other), reference.pvalue))
    assert (found.low, found.high) == pytest.approx((interval.low, interval.high))
    assert found.by_seed == pytest.approx(by_seed(one - other))


@pytest.mark.parametrize("seeds", [2, 3, 5, 10, 40])
@pytest.mark.parametrize("shift", [0.0, 1.0, 2.0, 4.0])
def test_power_is_that_of_the_noncentral_t(seeds: int, shift: float) -> None:
    critical = stats.t.ppf(0.975, seeds - 1)
    theory = stats.nct.sf(critical, seeds - 1, shift) + stats.nct.cdf(-critical, seeds - 1, shift)
    assert power_of(shift, seeds) == pytest.approx(theory, abs=1e-5)


@pytest.mark.parametrize("seeds", [2, 5, 20])
def test_what_could_have_been_shown_is_shown_in_four_of_five(seeds: int) -> None:
    spread = 0.03
    shift = detectable_difference(spread, seeds) / (spread / math.sqrt(seeds))
    assert power_of(shift, seeds) == pytest.approx(0.8)


def test_p_values_are_adjusted_as_benjamini_and_hochberg_do() -> None:
    p = [0.01, None, 0.04, 0.03, 0.5]
    # Of four: ranks 1, 3, 2, 4; p times 4 over rank, then the least of all at or above.
    assert adjusted(p) == pytest.approx([0.04, None, 0.04 * 4 / 3, 0.04 * 4 / 3, 0.5])
    assert adjusted([None, None]) == [None, None]
    assert adjusted([]) == []


def test_many_comparisons_at_once_seldom_call_anything_where_nothing_differs() -> None:
    generator = np.random.default_rng(2)
    names = [f"change-{number}" for number in range(20)]
    studies_that_call = 0
    for _ in range(60):
        losses = {name: by_seed(generator.normal(4.0, 0.02, 5)) for name in ("base", *names)}
        found = compare_all(dict.fromkeys(names, "base"), losses)
        studies_that_call += any(each.verdict != "not shown" for each in found)
    assert studies_that_call <= 10  # of sixty; unadjusted, more than half would


def test_one_seed_says_nothing() -> None:
    found = paired_difference({1: 4.0}, {1: 4.5})
    assert (found.mean, found.low, found.p, found.detectable) == (-0.5, None, None, None)
    assert verdict(found, None) == "not shown"


def test_only_seeds_that_both_have_are_paired() -> None:
    found = paired_difference({1: 4.0, 2: 4.1, 3: 9.0}, {1: 4.5, 2: 4.6, 4: 1.0})
    assert found.by_seed == pytest.approx({1: -0.5, 2: -0.5})
    with pytest.raises(UserError, match="no seed was trained with both"):
        paired_difference({1: 4.0}, {2: 4.0})


def test_equal_losses_are_no_difference_and_a_constant_one_is() -> None:
    same = paired_difference({1: 4.0, 2: 4.25}, {1: 4.0, 2: 4.25})
    assert (same.mean, same.low, same.high, same.p) == (0.0, 0.0, 0.0, 1.0)
    assert verdict(same, same.p) == "not shown"
    constant = paired_difference({1: 4.0, 2: 4.25}, {1: 4.5, 2: 4.75})
    assert verdict(constant, constant.p) == "helps"


def test_a_variant_that_diverges_is_not_judged_by_the_seeds_that_did_not() -> None:
    found = paired_difference({1: 3.0, 2: math.nan, 3: 3.0}, {1: 4.0, 2: 4.0, 3: 4.0})
    assert found.diverged == (2,)
    assert verdict(found, 0.0001) == "diverged"
