"""Axes: their ticks are few, lie inside, and are named in units that people read."""

import math
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from daybreak.report import scales
from daybreak.report.words import number, scientific, signed, significant

MAKERS = (scales.of_steps, scales.of_tokens, scales.of_time, scales.of_flops)


@settings(max_examples=40)
@given(largest=st.floats(1.0, 1e9), maker=st.sampled_from(MAKERS))
def test_an_axis_from_zero_has_a_few_ticks_up_to_its_end(
    largest: float, maker: Callable[[float], scales.Scale]
) -> None:
    scale = maker(largest)
    low, high = scale.limits
    assert low == 0.0
    assert high * scale.unit >= largest * (1 - 1e-12)
    assert 2 <= len(scale.ticks) <= 7
    assert all(low <= tick <= high * (1 + 1e-9) for tick in scale.ticks)
    assert all(len(f"{tick:.10g}") <= 9 for tick in scale.ticks) or maker is scales.of_steps


@given(low=st.floats(1e-9, 1e6), ratio=st.floats(2.0, 1e12))
def test_a_logarithmic_axis_has_ticks_inside_it(low: float, ratio: float) -> None:
    scale = scales.logarithmic("x", [np.array([low, low * ratio])])
    assert scale.logarithmic
    assert all(scale.limits[0] <= tick <= scale.limits[1] for tick in scale.ticks)
    assert 1 <= len(scale.ticks) <= 9


@pytest.mark.parametrize(
    ("scale", "label", "unit"),
    [
        (scales.of_tokens(2.5e9), "tokens (billions)", 1e9),
        (scales.of_time(90.0), "time (seconds)", 1.0),
        (scales.of_time(7200.0), "time (hours)", 3600.0),
        (scales.of_flops(5.05e12), "training FLOPs (× 10¹²)", 1e12),
        (scales.linear("learning rate", [np.array([0.0, 3e-4])], from_zero=True), "learning rate (× 10⁻⁴)", 1e-4),
    ],
)
def test_units_are_said(scale: scales.Scale, label: str, unit: float) -> None:
    assert scale.label == label
    assert scale.unit == pytest.approx(unit)


def test_values_that_are_all_alike_have_an_axis_too() -> None:
    for values in ([2.0], [0.0], [math.nan], []):
        low, high = scales.linear("x", [np.array(values)]).limits
        assert low < high


def test_what_reaches_below_zero_is_not_drawn_logarithmically() -> None:
    scale = scales.logarithmic("logit", [np.array([-0.5, 20.0])])
    assert not scale.logarithmic
    assert scale.limits[0] < -0.5


def test_numbers_are_written_as_people_read_them() -> None:
    assert number(-1234567.891, 2) == "−1,234,567.89"
    assert signed(0.0123, 4) == "+0.0123"
    assert signed(-0.5, 1) == "−0.5"
    assert scientific(5.0512e12) == "5.05 × 10¹²"
    assert [significant(each) for each in (0.012345, 1234.5, 3.2e-9)] == ["0.0123", "1,230", "3.20 × 10⁻⁹"]
    assert number(None) == number(math.nan) == "–"
