"""Budgets: units into steps, and a clock that is simulated."""

import itertools
from collections.abc import Callable
from dataclasses import dataclass, field
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from daybreak.duration import Duration, Unit
from daybreak.errors import UserError
from daybreak.training.budget import (
    Clock,
    CountBudget,
    Counts,
    Moment,
    Rates,
    TimeBudget,
    make_count_budget,
)
from daybreak.training.growth import StepSize
from daybreak.training.shortfall import warn_of_an_end
from daybreak.training.spent import Spent, is_due

FULL = StepSize(windows=512, tokens=524_288, length=1024, flops=8e8 * 524_288)
RATES = Rates(FULL, windows_per_epoch=9_765, parameters=124_439_808)


def steps(amount: str) -> float:
    budget = make_count_budget(Duration.parse(amount), RATES)
    assert budget.whole.unit is Unit.STEPS
    return budget.whole.amount


@pytest.mark.parametrize(
    ("amount", "expected"),
    [
        ("10B tokens", 19_073),
        ("19073 steps", 19_073),
        ("524288 tokens", 1),
        ("2 epochs", 38),  # 2 x 9,765 windows in steps of 512
        ("1e18 flops", 2_384),  # 1e18 / (8e8 x 524,288)
        ("20x params", 4_747),  # 20 x 124,439,808 / 524,288
    ],
)
def test_a_budget_is_as_many_whole_steps_as_it_pays_for(amount: str, expected: int) -> None:
    assert steps(amount) == expected


@pytest.mark.parametrize("amount", ["524287 tokens", "0.01 epochs", "1e14 flops", "0.001x params", "0.5 steps"])
def test_less_than_one_step_is_refused(amount: str) -> None:
    with pytest.raises(UserError, match="less than one step"):
        steps(amount)


@pytest.mark.parametrize("amount", ["0 steps", "0s", "0 tokens"])
def test_a_budget_of_nothing_is_refused(amount: str) -> None:
    with pytest.raises(UserError, match="budget"):
        steps(amount)


@pytest.mark.parametrize("amount", ["10%", "$20"])
def test_a_share_or_money_is_no_budget(amount: str) -> None:
    with pytest.raises(UserError, match="budget"):
        steps(amount)


def test_a_step_budget_allows_exactly_its_steps() -> None:
    budget, spent = CountBudget(Duration(7, Unit.STEPS), RATES), Spent()
    progress = []
    while budget.allows_another_step(spent):
        moment = budget.moment(spent)
        progress.append(moment.progress)
        spent = budget.after_step(spent, FULL, seconds=1.0, elapsed=0.0)
    assert progress == pytest.approx([step / 7 for step in range(7)])
    assert (spent.steps, spent.windows, spent.tokens) == (7, 7 * 512, 7 * 524_288)
    assert spent.progress == pytest.approx(1.0)


@dataclass
class FakeTime:
    """A monotonic clock that moves only when told."""

    now: float = 0.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> FakeTime:
    time = FakeTime()
    monkeypatch.setattr("daybreak.training.budget.time", SimpleNamespace(monotonic=time.monotonic))
    return time


@dataclass
class Simulation:
    """What a simulated run did."""

    spent: Spent
    ended: float
    moments: list[Moment] = field(default_factory=list)
    longest_step: float = 0.0

    @property
    def progress(self) -> list[float]:
        return [moment.progress for moment in self.moments]


def simulate(
    time: FakeTime,
    seconds: float,
    step_seconds: Callable[[float], float],
    *,
    start_up: float = 0.0,
    evaluation: Callable[[float], float] = lambda now: 0.0,
    evaluation_steps: float = 0.0,
    counts: Counts = "process",
) -> Simulation:
    """The training loop's use of a budget: steps, an evaluation every tenth, an evaluation at the end."""
    budget = TimeBudget(seconds, counts, Clock(time.now), RATES, evaluation_steps=evaluation_steps)
    time.now += start_up
    run, evaluated_at = Simulation(Spent(), 0.0), -1
    while budget.allows_another_step(run.spent):
        moment = budget.moment(run.spent)
        took = step_seconds(time.now)
        time.now += took
        before, run.spent = run.spent, budget.after_step(run.spent, FULL, seconds=took, elapsed=budget.clock.elapsed())
        run.moments.append(moment)
        run.longest_step = max(run.longest_step, took)
        if is_due(Duration.parse("10%"), before, run.spent):
            took = evaluation(time.now)
            time.now += took
            budget.note_ending("evaluation", took)
            evaluated_at = run.spent.steps
    if evaluated_at != run.spent.steps:  # as the loop does: no step is evaluated twice
        time.now += evaluation(time.now)
    run.ended = time.now
    return run


MACHINES = {
    "steady": lambda now: 0.5,
    "half speed from the middle": lambda now: 0.5 if now < 500 else 1.0,
    "twice the speed from the middle": lambda now: 1.0 if now < 500 else 0.5,
    "uneven": lambda now: 0.3 + 0.2 * (int(now * 7) % 3),
    "slow at first": lambda now: 20.0 if now < 130 else 0.5,
}


@pytest.mark.parametrize("machine", MACHINES)
@pytest.mark.parametrize("start_up", [0.0, 120.0])
def test_a_time_budget_is_used_up_and_not_overshot(fake: FakeTime, machine: str, start_up: float) -> None:
    pace = MACHINES[machine]
    run = simulate(fake, 1000.0, pace, start_up=start_up, evaluation=lambda now: 10 * pace(now), evaluation_steps=30)
    assert run.ended <= 1000.0 + 1e-6
    assert run.ended >= 1000.0 - max(10.0, run.longest_step)
    assert run.progress == sorted(run.progress)
    assert run.progress[0] == 0.0
    assert 0.98 <= run.spent.progress <= 1.0


def test_one_slow_first_step_does_not_end_the_run(fake: FakeTime) -> None:
    # As daybreak demo --minutes 0.2 on a busy machine: the first step is cold, an evaluation is 12 steps' tokens.
    run = simulate(fake, 12.0, lambda now: 4.0 if now < 4 else 0.2, evaluation=lambda now: 0.8, evaluation_steps=12.2)
    assert run.ended <= 12.0
    assert run.spent.steps > 10  # eight evaluations of 0.8 s leave few
    assert run.spent.progress > 0.9


def test_start_up_does_not_eat_the_warm_up(fake: FakeTime) -> None:
    run = simulate(fake, 1000.0, lambda now: 0.5, start_up=600.0)
    early = [progress for progress in run.progress if progress < 0.1]
    # 400 s are left for about 800 steps, so the first tenth is some 80 of them, as without any start-up.
    assert len(early) == pytest.approx(80, abs=3)


def test_steps_are_spread_evenly_over_progress_on_a_steady_machine(fake: FakeTime) -> None:
    run = simulate(fake, 500.0, lambda now: 0.5, counts="train")
    assert len(run.moments) in (999, 1000)
    assert run.progress == pytest.approx([step / 1000 for step in range(len(run.moments))], abs=1e-6)


def test_counting_training_alone_ignores_start_up_and_evaluations(fake: FakeTime) -> None:
    run = simulate(fake, 100.0, lambda now: 0.5, start_up=300.0, evaluation=lambda now: 60.0, counts="train")
    assert 99.0 <= run.spent.train_seconds <= 100.0
    assert run.ended > 900.0


def test_a_step_that_would_not_fit_is_not_begun(fake: FakeTime) -> None:
    run = simulate(fake, 10.0, lambda now: 3.0)
    assert run.spent.steps == 3
    assert run.ended == pytest.approx(9.0)


def test_time_of_earlier_sittings_counts(fake: FakeTime) -> None:
    fake.now = 50.0
    clock = Clock(started=45.0, before=30.0)
    assert clock.elapsed() == pytest.approx(35.0)
    budget = TimeBudget(36.0, "process", clock, RATES)
    assert budget.allows_another_step(Spent(steps=3, train_seconds=1.5))
    budget.after_step(Spent(steps=2, train_seconds=1.0), FULL, seconds=0.5, elapsed=35.0)
    fake.now += 0.6  # 0.4 s are left, and a step takes 0.5 s
    assert not budget.allows_another_step(Spent(steps=3, train_seconds=1.5))


@pytest.mark.parametrize(("elapsed", "affords"), [(39.0, True), (41.0, False)])
def test_an_evaluation_must_leave_as_much_time_to_train_as_it_takes(
    elapsed: float, affords: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of 100 s, 20 are kept for the last one; another 20 now are half of what is left after 40."""
    monkeypatch.setattr("daybreak.training.budget.time", SimpleNamespace(monotonic=lambda: elapsed))
    budget = TimeBudget(100.0, "process", Clock(0.0), RATES)
    budget.note_ending("evaluation", 20.0)
    assert budget.affords_evaluation(Spent()) == affords
    training_alone = TimeBudget(100.0, "train", Clock(0.0), RATES)
    training_alone.note_ending("evaluation", 20.0)
    assert training_alone.affords_evaluation(Spent())
    assert CountBudget(Duration(10, Unit.STEPS), RATES).affords_evaluation(Spent())


@pytest.mark.parametrize(
    ("elapsed", "progress", "said"),
    [
        (99.0, 1.0, ""),
        (99.0, 0.76, "at a progress of 76%, before the learning rate had fallen"),
        (110.0, 1.0, "10 s over"),
    ],
)
def test_an_end_that_was_not_as_planned_is_said(
    elapsed: float, progress: float, said: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("daybreak.training.budget.time", SimpleNamespace(monotonic=lambda: elapsed))
    clock = Clock(0.0)
    warn_of_an_end(TimeBudget(100.0, "process", clock, RATES), Spent(progress=progress), clock)
    shown = capfd.readouterr().err
    assert said in shown
    assert bool(said) == bool(shown)


def test_recorded_progress_is_followed_when_steps_are_done_again(fake: FakeTime) -> None:
    first = simulate(fake, 100.0, lambda now: 0.5)
    recorded = {step: (moment.progress, moment.share) for step, moment in enumerate(first.moments[:60])}

    fake.now = 1000.0  # another sitting, on a machine of another speed
    budget = TimeBudget(100.0, "process", Clock(1000.0, before=30.0), RATES, recorded=recorded)
    spent, progress = Spent(), []
    while budget.allows_another_step(spent):
        moment = budget.moment(spent)
        fake.now += 0.9
        spent = budget.after_step(spent, FULL, seconds=0.9, elapsed=budget.clock.elapsed())
        progress.append(moment.progress)
    assert progress[:60] == first.progress[:60]
    assert len(progress) > 60
    assert progress == sorted(progress)


@given(
    durations=st.lists(st.floats(0.01, 30.0), min_size=1, max_size=40),
    start_up=st.floats(0, 200),
)
def test_progress_never_falls_whatever_the_machine_does(durations: list[float], start_up: float) -> None:
    time = FakeTime()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("daybreak.training.budget.time", SimpleNamespace(monotonic=time.monotonic))
        order = itertools.cycle(durations)
        run = simulate(time, 150.0, lambda now: next(order), start_up=start_up)
    assert all(0.0 <= progress <= 1.0 for progress in run.progress)
    assert run.progress == sorted(run.progress)


def firings(every: str, states: list[Spent]) -> list[int]:
    """The indices of the states at which an interval fires."""
    duration = Duration.parse(every)
    return [index for index in range(1, len(states)) if is_due(duration, states[index - 1], states[index])]


def test_an_interval_in_steps_fires_at_its_multiples() -> None:
    states = [Spent(steps=step) for step in range(101)]
    assert firings("7 steps", states) == list(range(7, 101, 7))


def test_an_interval_in_tokens_fires_once_a_multiple_though_steps_are_of_another_size() -> None:
    states = [Spent(tokens=300 * step) for step in range(101)]
    expected = [next(step for step in range(101) if 300 * step >= 1000 * multiple) for multiple in range(1, 31)]
    assert firings("1000 tokens", states) == expected


def test_an_interval_in_seconds_fires_once_a_multiple() -> None:
    times = [0.0, 0.4, 1.1, 1.2, 1.9, 2.0, 5.5, 5.6, 6.0]
    assert firings("1s", [Spent(elapsed_seconds=seconds) for seconds in times]) == [2, 5, 6, 8]


@pytest.mark.parametrize("percent", [1, 5, 10, 20, 25, 30])
@pytest.mark.parametrize("total", [20, 49, 60, 100, 107, 200, 1000])
def test_an_interval_in_percent_fires_at_the_first_step_that_reaches_it(total: int, percent: int) -> None:
    budget, states = CountBudget(Duration(total, Unit.STEPS), RATES), [Spent()]
    while budget.allows_another_step(states[-1]):
        states.append(budget.after_step(states[-1], FULL, seconds=1.0, elapsed=0.0))
    multiples = range(percent, 101, percent)
    expected = sorted({-(-total * multiple // 100) for multiple in multiples})
    assert firings(f"{percent}%", states) == expected


def test_without_an_interval_nothing_is_due() -> None:
    assert not is_due(None, Spent(), Spent(steps=1000, tokens=1000, progress=1.0))
