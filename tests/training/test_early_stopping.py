"""When a validation loss has stood still long enough."""

import math

import pytest

from daybreak.errors import UserError
from daybreak.recipe import Recipe
from daybreak.training.early_stopping import EarlyStopConfig, Standstill


def ends_at(losses: list[float], **settings: float) -> int | None:
    """After which of the losses a run ends, counted from 1."""
    standstill = Standstill(EarlyStopConfig(**settings))  # type: ignore[arg-type]
    for number, loss in enumerate(losses, start=1):
        standstill.note(loss)
        if standstill.ends_run():
            return number
    return None


@pytest.mark.parametrize(
    ("losses", "settings", "end"),
    [
        ([3.0, 2.0, 1.0, 0.5], {"patience": 1}, None),
        ([3.0, 2.0, 2.5, 2.4, 2.1], {"patience": 3}, 5),
        ([3.0, 2.0, 2.5, 2.4, 1.9, 2.0, 2.0], {"patience": 3}, None),
        ([3.0, 2.0, 2.0], {"patience": 1}, 3),
        ([3.0, 2.95, 2.91, 2.89], {"patience": 3, "least": 0.1}, None),
        ([3.0, 2.95, 2.91, 2.905], {"patience": 3, "least": 0.1}, 4),
        ([math.nan, math.inf, 3.0], {"patience": 2}, 2),
    ],
)
def test_the_end_comes_after_so_many_without_a_lower_one(
    losses: list[float], settings: dict[str, float], end: int | None
) -> None:
    assert ends_at(losses, **settings) == end


def test_without_a_setting_it_never_comes() -> None:
    standstill = Standstill(None)
    for _ in range(100):
        standstill.note(1.0)
    assert not standstill.ends_run()


def test_it_needs_evaluations() -> None:
    with pytest.raises(UserError, match=r"early_stop needs evaluations"):
        Recipe.load("gpt2-tiny", "early_stop.patience=2", "evaluation.every=never")
