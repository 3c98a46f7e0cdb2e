"""How many steps a budget holds, and how long all of it takes, against sums by hand."""

import pytest

from daybreak.compose import build_budget
from daybreak.duration import Duration
from daybreak.planning.course import Course, Pace, smallest_useful, work_out
from daybreak.recipe import Recipe
from daybreak.training.budget import Clock

PACE = Pace(start=5.0, step=0.5, evaluation=3.0, sample=1.0, save=2.0)
QUIET = ("evaluation.every=never", "samples.every=never", "checkpoint.every=never", "checkpoint.keep_every=never")


def course(*overrides: str, name: str = "gpt2-tiny") -> Course:
    recipe = Recipe.load(name, *QUIET, *overrides)
    return work_out(recipe, build_budget(recipe, 10_000, Clock(0.0)), PACE)


def test_counted_steps_take_start_steps_one_evaluation_and_one_save() -> None:
    found = course("budget=100 steps")
    assert found.steps == 100
    assert found.seconds == pytest.approx(5 + 100 * 0.5 + 3 + 2)


@pytest.mark.parametrize(
    ("setting", "seconds"),
    [
        ("evaluation.every=25%", 3 * 3.0),  # the fourth is that of the end
        ("evaluation.every=30%", 3 * 3.0),
        ("evaluation.every=10 steps", 9 * 3.0),
        ("evaluation.every=30 steps", 3 * 3.0),
        ("samples.every=10%", 10 * 1.0),
        ("samples.every=50 steps", 2 * 1.0),
        ("checkpoint.every=25%", 3 * 2.0),
        ("checkpoint.keep_every=20 steps", 5 * 2.0),
        ("schedule={kind='wsd'}", 2.0),  # of the checkpoint that an extension begins with
        ("evaluation.every=20s", 3 * 3.0),  # 60 seconds, and 9 more
    ],
)
def test_what_recurs_is_added(setting: str, seconds: float) -> None:
    assert course("budget=100 steps", setting).seconds == pytest.approx(60 + seconds)


def test_a_time_holds_the_steps_that_its_rest_leaves() -> None:
    found = course("budget=110s")
    assert found.steps == 200
    assert found.seconds == pytest.approx(110)
    with_evaluations = course("budget=110s", "evaluation.every=20s")
    assert 109 < with_evaluations.seconds <= 110
    assert with_evaluations.steps == (110 - 5 - 2 - 3 * 6) / 0.5


def test_a_time_of_training_alone_holds_more() -> None:
    found = course("budget=100s", "counts=train")
    assert found.steps == 200
    assert found.seconds == pytest.approx(110)


def test_tokens_flops_and_epochs_are_steps() -> None:
    recipe = Recipe.load("gpt2-tiny")
    per_step, windows = recipe.batch.tokens, recipe.batch.tokens // recipe.data.window
    assert course(f"budget={50 * per_step} tokens").steps == 50
    assert course("budget=1 epochs").steps == 10_000 // windows
    whole = course("budget=100 steps")
    assert course(f"budget={whole.spent.flops:.17g} flops").steps == pytest.approx(100, abs=1)


def test_steps_that_grow_are_counted_one_by_one() -> None:
    ramp = "batch.ramp={start=4096, over='50%'}"
    grown, plain = course("budget=1M tokens", ramp), course("budget=1M tokens")
    assert grown.tokens == pytest.approx(plain.tokens, rel=0.02)
    assert grown.steps > plain.steps


def test_what_grows_with_the_clock_grows() -> None:
    """Half an hour of ramp in an hour of training: by its middle the batch is half way."""
    hour = ("budget=1h", "counts=train", "batch.tokens=16384")
    flat, late = course(*hour), course(*hour, "batch.ramp={start=4096, over='30m'}")
    by_share = course(*hour, "batch.ramp={start=4096, over='50%'}")
    assert late.steps == pytest.approx(by_share.steps, rel=0.02)
    assert flat.steps < late.steps < 2 * flat.steps
    assert late.tokens == pytest.approx(flat.tokens, rel=0.01)


@pytest.mark.parametrize("evaluations", ["never", "25%", "10s"])
@pytest.mark.parametrize("budget", ["1h", "$5", "1e18 flops", "1B tokens", "7 steps", "3 epochs"])
def test_the_smallest_useful_budget_makes_fifty_steps_and_no_smaller_one_does(budget: str, evaluations: str) -> None:
    settings = (f"evaluation.every={evaluations}", "price=0.36")
    recipe = Recipe.load("gpt2-tiny", *QUIET, f"budget={budget}", *settings)
    least = smallest_useful(recipe, build_budget(recipe, 10_000, Clock(0.0)), PACE)
    assert course(f"budget={least}", *settings).steps in (50, 51, 52, 53)
    assert course(f"budget={Duration(0.95 * least.amount, least.unit)}", *settings).steps < 50
