"""Thinned curves hide nothing: means, lowest and highest as worked out value by value."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from daybreak.report.thin import Curve

VALUES = st.lists(st.floats(-1e6, 1e6) | st.just(math.nan) | st.just(math.inf), min_size=1, max_size=300)


@given(values=VALUES, points=st.integers(1, 50))
def test_every_point_is_of_its_own_values(values: list[float], points: int) -> None:
    x = np.arange(len(values), dtype=np.float64)
    curve = Curve.of(x, np.array(values), points=points)
    size = math.ceil(len(values) / points)
    parts = [values[first : first + size] for first in range(0, len(values), size)]
    assert len(curve.x) == len(parts) <= points
    for index, part in enumerate(parts):
        finite = [value for value in part if math.isfinite(value)]
        assert curve.x[index] == pytest.approx(index * size + (len(part) - 1) / 2)
        if finite:
            assert curve.mean[index] == pytest.approx(math.fsum(finite) / len(finite), rel=1e-9, abs=1e-6)
            assert (curve.low[index], curve.high[index]) == (min(finite), max(finite))
        else:
            assert math.isnan(curve.mean[index])


def test_one_spike_in_a_hundred_thousand_steps_is_seen() -> None:
    losses = np.full(100_000, 2.0)
    losses[54_321] = 9.0
    curve = Curve.of(np.arange(100_000.0), losses, points=160)
    assert curve.high.max() == 9.0
    assert curve.mean.max() < 2.02


def test_curves_over_seeds_have_their_mean_and_their_range() -> None:
    x = np.linspace(0.0, 10.0, 11)
    curves = [Curve.of(x, slope * x, points=20) for slope in (1.0, 2.0, 6.0)]
    over = Curve.over(curves, points=5)
    np.testing.assert_allclose(over.x, [0.0, 2.5, 5.0, 7.5, 10.0])
    np.testing.assert_allclose(over.mean, 3.0 * over.x)
    np.testing.assert_allclose(over.low, over.x)
    np.testing.assert_allclose(over.high, 6.0 * over.x)
