"""What is said of a run while it goes on."""

from pathlib import Path

import pytest

from daybreak import train
from daybreak.data.shards import Corpus
from daybreak.duration import Duration, Unit
from daybreak.recipe import Recipe
from daybreak.training.budget import CountBudget, Rates
from daybreak.training.forecast import CurveLaw, Forecast
from daybreak.training.growth import StepSize
from daybreak.training.outlook import Outlook, Prospect, remembered
from daybreak.training.schedule import Schedule, WarmupStableDecayConfig, learning_rate_share
from daybreak.training.spent import Spent

LAW = CurveLaw(exponent=0.25, noise=0.0, bands=((0.2, 0.4), (0.9, 0.1)))
STEPS = 200
SCHEDULE: Schedule = WarmupStableDecayConfig(
    kind="wsd", warmup=Duration(1, Unit.PERCENT), decay=Duration(50, Unit.PERCENT)
)
TINY = (
    "model.layers=1", "model.heads=2", "model.dim=16", "model.context=16", "model.vocab_size=320", "data.window=16",
    "data.tokenizer=bytes", "batch.tokens=128", "evaluation.tokens=256", "execution.threads=1", "price=3600",
)  # fmt: skip


def run(outlook: Outlook, until: int) -> Prospect:
    """Steps of a second each, whose loss follows the law to the letter."""
    spent, trained = Spent(), 0.0
    for _ in range(until):
        moment = outlook.budget.moment(spent)
        share = learning_rate_share(SCHEDULE, moment)
        trained += share * moment.share
        outlook.note_step(moment, share, 3.0 + trained**-0.25)
        spent = outlook.budget.after_step(spent, moment.size, seconds=1.0, elapsed=spent.elapsed_seconds + 2.0)
    return outlook.after(moment, spent)


@pytest.fixture
def outlook() -> Outlook:
    rates = Rates(StepSize(1, 16, 16, 1.0), 1000, 1)
    budget = CountBudget(Duration(STEPS, Unit.STEPS), rates)
    return Outlook(budget, SCHEDULE, 1.8, Forecast(LAW))


def test_time_and_money_are_those_of_the_clock(outlook: Outlook) -> None:
    prospect = run(outlook, 50)
    assert prospect.seconds_spent == 100
    assert prospect.dollars == pytest.approx(100 / 3600 * 1.8)
    assert prospect.seconds_left == pytest.approx(150)


@pytest.mark.parametrize("until", [50, 100, 150, 199])
def test_the_end_is_foretold_by_the_schedule_that_is_left(outlook: Outlook, until: int) -> None:
    """The learning rate's integral is 0.995 of warm-up and plateau to the half, and 0.25 of decay."""
    prospect = run(outlook, until)
    assert prospect.loss is not None
    assert prospect.loss[0] == pytest.approx(3.0 + 0.745**-0.25, abs=0.01)


def test_without_a_price_there_is_no_cost(outlook: Outlook) -> None:
    assert run(Outlook(outlook.budget, SCHEDULE, None, Forecast(LAW)), 10).dollars is None


def test_a_run_remembers_and_says_it_on_the_line(
    corpus: Corpus, tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("daybreak.training.display._SECONDS_BETWEEN_LINES", 0.0)
    recipe = Recipe.load("gpt2-tiny", *TINY, "budget=60 steps", "evaluation.every=never")
    finished = train(recipe, data=corpus.path, out=tmp_path / "run")
    lines = [line for line in capfd.readouterr().err.splitlines() if line.startswith("step ") and "left" in line]
    assert len(lines) == 60
    assert "cost $" in lines[0]
    assert "final loss" not in lines[10]
    last = lines[-1].split("final loss")[1].split("±")
    assert finished.final_loss is not None
    assert float(last[0]) == pytest.approx(finished.final_loss, abs=0.5)

    law = CurveLaw.fitted()
    whole = remembered(Forecast(law), finished.metrics(), [], finished.spent, recipe.optimizer.lr)
    half = remembered(Forecast(law), finished.metrics(), [], Spent(steps=30), recipe.optimizer.lr)
    assert whole._points[-1].progress == pytest.approx(1.0)
    assert half._points == whole._points[:30]


def test_a_run_that_goes_on_knows_its_validation_losses(corpus: Corpus, tmp_path: Path) -> None:
    recipe = Recipe.load("gpt2-tiny", *TINY, "budget=60 steps", "evaluation.every=50%")
    run = train(recipe, data=corpus.path, out=tmp_path / "run")
    steps, validations = run.metrics()[:40], [dict(run.metrics("validation")[0], loss=9.0)]
    without, with_them = (
        remembered(Forecast(CurveLaw.fitted()), steps, each, run.spent, recipe.optimizer.lr).at_end(0.1, 0.1)
        for each in ([], validations)
    )
    assert without is not None
    assert with_them is not None
    assert with_them[0] > without[0] + 2
    assert with_them[1] < without[1]
