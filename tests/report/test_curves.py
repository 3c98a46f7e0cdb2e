"""Curves of the loss: what is seen closer is no coarser than the whole."""

from pathlib import Path

import numpy as np
import pytest
from made_runs import copy_identity, losses, train_record, write
from page_reader import read

from daybreak import Run, write_report
from daybreak.report.curves import AXES, alone, loss_charts
from daybreak.report.observed import Observed, observe


def made(trained: Run, path: Path, steps: int) -> Observed:
    run = copy_identity(trained.path, path)
    write(run, 1, [("train", train_record(at, steps, loss=float(loss))) for at, loss in enumerate(losses(steps), 1)])
    return observe(run, path.name)


@pytest.mark.parametrize("steps", [1, 100, 500])
def test_the_later_half_is_in_the_points_of_the_whole(trained: Run, tmp_path: Path, steps: int) -> None:
    run = made(trained, tmp_path / "run", steps)
    for along in AXES:
        whole, later = loss_charts(alone([run]), along)
        points, closer = whole.lines[0].curve, later.lines[0].curve
        assert closer.together == points.together == -(-steps // 160)
        assert len(closer.x)
        np.testing.assert_array_equal(closer.x, points.x[-len(closer.x) :])
        np.testing.assert_array_equal(closer.mean, points.mean[-len(closer.x) :])


def test_what_a_point_stands_for_is_said_once(trained: Run, tmp_path: Path) -> None:
    page = read(write_report(made(trained, tmp_path / "run", 100).path).read_bytes())
    assert "Every step is drawn. FLOPs" in page.text
    assert "ver the later half it" not in page.text


@pytest.mark.parametrize(("steps", "last"), [(5, 1), (100, 10), (1999, 199), (2000, 200), (2500, 200)])
def test_the_last_steps_of_a_short_run_are_a_tenth(trained: Run, tmp_path: Path, steps: int, last: int) -> None:
    run = made(trained, tmp_path / "run", steps)
    np.testing.assert_allclose(run.last_losses, losses(steps)[-last:])
