"""Durations: what people write, read and written back."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from daybreak.duration import Duration, Unit, human_seconds, require_positive
from daybreak.errors import UserError


@pytest.mark.parametrize(
    ("text", "amount", "unit"),
    [
        ("715 steps", 715, Unit.STEPS),
        ("1 step", 1, Unit.STEPS),
        ("600_000 steps", 600_000, Unit.STEPS),
        ("600000", 600_000, Unit.STEPS),
        (19073, 19_073, Unit.STEPS),
        ("4%", 4, Unit.PERCENT),
        ("2.5 %", 2.5, Unit.PERCENT),
        ("10B tokens", 10e9, Unit.TOKENS),
        ("10 B tokens", 10e9, Unit.TOKENS),
        ("1.5M tokens", 1.5e6, Unit.TOKENS),
        ("3k tokens", 3e3, Unit.TOKENS),
        ("2T tokens", 2e12, Unit.TOKENS),
        ("1e10 tokens", 1e10, Unit.TOKENS),
        ("2 epochs", 2, Unit.EPOCHS),
        ("0.5 epoch", 0.5, Unit.EPOCHS),
        ("90s", 90, Unit.SECONDS),
        ("90 seconds", 90, Unit.SECONDS),
        ("10m", 600, Unit.SECONDS),
        ("10 min", 600, Unit.SECONDS),
        ("24h", 86_400, Unit.SECONDS),
        ("1.5h", 5400, Unit.SECONDS),
        ("2 days", 172_800, Unit.SECONDS),
        ("1e18 flops", 1e18, Unit.FLOPS),
        ("1e18 FLOPs", 1e18, Unit.FLOPS),
        ("20x params", 20, Unit.TIMES_PARAMETERS),
        ("20 x params", 20, Unit.TIMES_PARAMETERS),
        ("$20", 20, Unit.DOLLARS),
        ("$ 2.50", 2.5, Unit.DOLLARS),
        (" 24h ", 86_400, Unit.SECONDS),
    ],
)
def test_what_people_write_is_read(text: object, amount: float, unit: Unit) -> None:
    assert Duration.parse(text) == Duration(amount, unit)


def test_small_m_is_minutes_and_capital_m_is_millions() -> None:
    assert Duration.parse("5m") == Duration(300, Unit.SECONDS)
    assert Duration.parse("5M tokens") == Duration(5e6, Unit.TOKENS)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "h",
        "-5 steps",
        "5 lightyears",
        "10B",
        "5 b tokens",
        "5 Steps later",
        "1h30m",
        "1..5 h",
        "$5 tokens",
        "nan steps",
        "inf h",
        "1e999 steps",
        "٣ steps",
        None,
        True,
        1.5,
        -5,
        ["1h"],
    ],
)
def test_what_is_no_duration_is_refused_with_examples_or_a_reason(text: object) -> None:
    with pytest.raises(ValueError, match=r"example"):
        Duration.parse(text)


@pytest.mark.parametrize(
    ("text", "written"),
    [
        ("86400s", "24h"),
        ("90s", "90s"),
        ("90m", "90m"),
        ("120m", "2h"),
        ("1.5s", "1.5s"),
        ("10B tokens", "10000000000 tokens"),
        ("1e18 flops", "1e+18 flops"),
        ("4%", "4%"),
        ("0.5%", "0.5%"),
        ("20x params", "20x params"),
        ("$2.50", "$2.5"),
        (7, "7 steps"),
    ],
)
def test_durations_are_written_as_people_write_them(text: object, written: str) -> None:
    assert str(Duration.parse(text)) == written


@settings(deadline=None)
@given(
    amount=st.one_of(
        st.integers(0, 10**12),
        st.decimals("0", "1000", places=2),
        st.floats(1e-3, 1e21).map(lambda value: f"{value:.3g}"),
    ),
    unit=st.sampled_from([" steps", " tokens", " epochs", "s", "m", "h", "d", "%", " flops", "x params"]),
)
def test_what_is_written_is_read_back_the_same(amount: object, unit: str) -> None:
    duration = Duration.parse(f"{amount}{unit}")
    assert Duration.parse(str(duration)) == duration


def test_a_duration_that_binary_cannot_hold_is_read_back_the_same() -> None:
    """1.1 h is 3960.0000000000005 s in floating point."""
    for text in ("1.1h", "0.07B tokens", "1.15B tokens", "2.3m", "0.29M tokens", "33.333333333333%"):
        duration = Duration.parse(text)
        assert Duration.parse(str(duration)) == duration, text


@settings(deadline=None)
@given(amount=st.decimals("0", "100000", places=2))
def test_money_is_read_back_the_same(amount: object) -> None:
    duration = Duration.parse(f"${amount}")
    assert Duration.parse(str(duration)) == duration


@pytest.mark.parametrize(
    ("seconds", "written"),
    [
        (0.0, "0.0s"),
        (3.14, "3.1s"),
        (42.4, "42s"),
        (59.4, "59s"),
        (59.6, "1m 00s"),
        (75.0, "1m 15s"),
        (3599.0, "59m 59s"),
        (3599.7, "1h 00m"),
        (3600.0, "1h 00m"),
        (90_000.0, "25h 00m"),
    ],
)
def test_seconds_are_shown_short(seconds: float, written: str) -> None:
    assert human_seconds(seconds) == written


def test_a_duration_of_nothing_is_refused_by_name() -> None:
    with pytest.raises(UserError, match=r"budget = 0 steps spends nothing"):
        require_positive(Duration(0, Unit.STEPS), "budget")
    one = Duration(1, Unit.STEPS)
    assert require_positive(one, "budget") is one
