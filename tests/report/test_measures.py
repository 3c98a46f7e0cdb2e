"""Benchmarks as training went: axes that hold what a figure can be, numbers that can be read."""

from pathlib import Path

import numpy as np
import pytest
from made_runs import copy_identity, train_record, write
from page_reader import read

from daybreak import Run, write_report
from daybreak.report.measures import task_charts
from daybreak.report.observed import Observed, observe

FIGURES = (  # of an untrained model, and a little later
    {"perplexity": 4.4e8, "perplexity_stderr": 9.9e8, "acc": 0.0, "acc_stderr": 0.0, "acc_norm": 0.25},
    {"perplexity": 66_762_586.1950, "perplexity_stderr": 236_440_564.1964, "acc": 0.0, "acc_norm": 0.30},
)


@pytest.fixture(scope="module")
def measured(trained: Run, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = copy_identity(trained.path, tmp_path_factory.mktemp("made") / "measured")
    write(run, 1, [("train", train_record(step, 40, loss=3.0)) for step in range(1, 41)])
    write(run, 1, [("tasks", {"step": 20 * at, "results": {"lambada": each}}) for at, each in enumerate(FIGURES, 1)])
    return run


@pytest.fixture(scope="module")
def observed(measured: Path) -> Observed:
    return observe(measured, "measured")


def test_a_perplexity_is_positive_with_its_axis_and_its_band(observed: Observed) -> None:
    chart = next(each for each in task_charts([observed], 9) if "perplexity" in each.says)
    (line,) = chart.lines
    assert chart.y.logarithmic
    assert chart.y.limits[0] > 0
    np.testing.assert_allclose(line.curve.mean, [4.4e8, 66_762_586.1950])
    np.testing.assert_allclose(line.curve.low, chart.y.limits[0])  # both errors are larger than their figures
    assert 66_762_586.1950 / 3 < chart.y.limits[0] < 66_762_586.1950 / 2
    np.testing.assert_allclose(line.curve.high, [14.3e8, 66_762_586.1950 + 236_440_564.1964])


def test_shares_are_drawn_in_percent_from_zero(observed: Observed) -> None:
    never, sometimes = (each for each in task_charts([observed], 9) if "accuracy" in each.says)
    assert never.y.label == "lambada: accuracy (%)"
    assert never.y.limits == pytest.approx((0.0, 5.25))
    np.testing.assert_allclose(sometimes.lines[0].curve.mean, [25.0, 30.0])
    assert sometimes.y.limits == pytest.approx((0.0, 31.5))


def test_figures_have_few_digits_and_shares_a_percent_sign(measured: Path, tmp_path: Path) -> None:
    page = read(write_report(measured, tmp_path / "page.html").read_bytes())
    assert ["lambada", "perplexity", "6.676 × 10⁷ ± 2.364 × 10⁸"] in page.rows
    assert ["lambada", "accuracy", "0.00 %"] in page.rows
    assert ["lambada", "normalised accuracy", "30.00 %"] in page.rows
