"""Forecasts against curves whose end is known, and against runs that had ended."""

import json
import random
from collections.abc import Callable
from pathlib import Path

import pytest

from daybreak.training.forecast import CurveLaw, Forecast

LAW = CurveLaw(exponent=0.25, noise=0.03, bands=((0.1, 0.4), (0.3, 0.2), (0.9, 0.02)))
RUNS = Path(__file__).parents[2] / "fit" / "results" / "runs.jsonl"


def decay(progress: float) -> float:
    """A plateau, then a line to zero over the last half."""
    return min(1.0, (1 - progress) / 0.5)


def trained(progress: float) -> float:
    """The integral of `decay` from 0."""
    return progress if progress <= 0.5 else 0.5 + (progress - 0.5) - (progress - 0.5) ** 2


def curve(lowest: float, slope: float) -> Callable[[float], float]:
    """A loss that follows the law to the letter, where what a high rate costs is `0.03 l` of a loss of about 4."""
    return lambda progress: lowest + slope * trained(progress) ** -0.25 + 0.03 * 4.0 * decay(progress)


def told(loss: Callable[[float], float], until: float, steps: int = 1000, law: CurveLaw = LAW) -> Forecast:
    forecast = Forecast(law)
    for step in range(int(until * steps)):
        progress = (step + 0.5) / steps
        forecast.note_step(step / steps, 1 / steps, decay(progress), loss(progress))
    return forecast


@pytest.mark.parametrize("until", [0.2, 0.45, 0.7, 0.95])
@pytest.mark.parametrize(("lowest", "slope"), [(2.0, 1.5), (3.5, 0.4)])
def test_a_curve_that_follows_the_law_is_foretold(until: float, lowest: float, slope: float) -> None:
    loss = curve(lowest, slope)
    said = told(loss, until).at_end(trained(1.0) - trained(until), 0.0)
    assert said is not None
    assert said[0] == pytest.approx(loss(1.0), abs=0.02)


def test_noise_is_averaged_over() -> None:
    noise, loss = random.Random(1), curve(3.0, 0.8)
    said = told(lambda progress: loss(progress) + noise.gauss(0, 0.1), 0.6, 4000).at_end(
        trained(1.0) - trained(0.6), 0.0
    )
    assert said is not None
    assert said[0] == pytest.approx(loss(1.0), abs=0.03)


def test_it_is_silent_in_the_first_fifth() -> None:
    assert told(curve(3.0, 0.8), 0.19).at_end(0.6, 0.0) is None
    assert Forecast(LAW).at_end(1.0, 0.0) is None
    assert told(curve(3.0, 0.8), 0.22).at_end(0.6, 0.0) is not None


def test_what_validation_is_above_training_is_added() -> None:
    loss, forecast = curve(3.0, 0.8), told(curve(3.0, 0.8), 0.5)
    before = forecast.at_end(0.25, 0.0)
    forecast.note_validation(loss(0.5) + 0.25)
    after = forecast.at_end(0.25, 0.0)
    assert before is not None
    assert after is not None
    assert after[0] - before[0] == pytest.approx(0.25, abs=0.01)


def test_it_keeps_little_however_long_the_run_is() -> None:
    forecast = told(curve(3.0, 0.8), 0.8, steps=100_000)
    assert len(forecast._points) <= 256
    assert sum(point.steps for point in forecast._points) == 80_000
    assert forecast._points[-1].trained == pytest.approx(trained(0.8), rel=1e-3)


def test_losses_that_never_change_stay() -> None:
    said = told(lambda _: 5.0, 0.8).at_end(0.1, decay(0.8))
    assert said is not None
    assert said[0] == pytest.approx(5.0, abs=0.1)


def test_bands_are_lines_between_those_fitted() -> None:
    assert LAW.band(0.0) == LAW.band(0.1) == 0.4
    assert LAW.band(0.2) == pytest.approx(0.3)
    assert LAW.band(0.6) == pytest.approx(0.11)
    assert LAW.band(1.0) == 0.02


def test_the_fitted_bands_hold_for_runs_that_were_not_fitted() -> None:
    """The ten runs that were predicted: at the half, nine in ten of what is said then lies within the band."""
    records = [json.loads(line) for line in RUNS.read_text(encoding="utf-8").splitlines()]
    law, inside = CurveLaw.fitted(), []
    for record in records:
        if record["kind"] != "prediction":
            continue
        losses = record["curve"]
        forecast, count = Forecast(law), len(losses)
        for index in range(count // 2):
            share = min(1.0, (1 - (index + 0.5) / count) / 0.6)
            forecast.note_step(index / count, 1 / count, share, losses[index])
        left = 1 - (count // 2) / count
        said = forecast.at_end(left**2 / 1.2, 0.0)
        assert said is not None
        inside.append(abs(said[0] - record["loss"]) <= law.band(0.5))
    assert len(inside) >= 10
    assert sum(inside) >= 0.9 * len(inside)
