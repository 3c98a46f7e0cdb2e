"""How many steps a budget holds, and how long all of it takes, against sums by hand."""

import pytest

from daybreak.compose import build_budget
from daybreak.planning.course import Course, Pace, smallest_useful_seconds, work_out
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
        ("evaluation.every=25%", 4 * 3.0 - 3.0),  # one of them is that of the end
        ("evaluation.every=10 steps", 10 * 3.0),
        ("samples.every=10%", 10 * 1.0),
        ("samples.every=50 steps", 2 * 1.0),
        ("checkpoint.every=25%", 4 * 2.0 - 2.0),
        ("checkpoint.keep_every=20 steps", 5 * 2.0),
    ],
)
def test_what_recurs_is_added(setting: str, seconds: float) -> None:
    assert course("budget=100 steps", setting).seconds == pytest.approx(60 + seconds, abs=3.001)


def test_a_time_holds_the_steps_that_its_rest_leaves() -> None:
    found = course("budget=110s")
    assert found.steps == 200
    assert found.seconds == pytest.approx(110)
    with_evaluations = course("budget=110s", "evaluation.every=20s")
    assert with_evaluations.seconds == pytest.approx(110)
    assert with_evaluations.steps < 180


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
    assert course(f"budget={whole.flops:.17g} flops").steps == pytest.approx(100, abs=1)


def test_steps_that_grow_are_counted_one_by_one() -> None:
    ramp = "batch.ramp={start=4096, over='50%'}"
    grown, plain = course("budget=1M tokens", ramp), course("budget=1M tokens")
    assert grown.tokens == pytest.approx(plain.tokens, rel=0.02)
    assert grown.steps > plain.steps


@pytest.mark.parametrize("evaluations", ["never", "25%", "10s"])
def test_the_smallest_useful_budget_makes_fifty_steps(evaluations: str) -> None:
    recipe = Recipe.load("gpt2-tiny", *QUIET, "budget=1h", f"evaluation.every={evaluations}")
    least = smallest_useful_seconds(recipe, build_budget(recipe, 10_000, Clock(0.0)), PACE)
    assert course(f"budget={least + 1}s", f"evaluation.every={evaluations}").steps >= 50
    assert course(f"budget={least - 2}s", f"evaluation.every={evaluations}").steps < 50
