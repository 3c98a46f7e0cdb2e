"""Learning rates against formulas written out independently, step by step."""

import math
from collections.abc import Callable

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from daybreak.duration import Duration, Unit
from daybreak.errors import UserError
from daybreak.training.budget import Clock, CountBudget, Moment, Rates, TimeBudget
from daybreak.training.growth import StepSize
from daybreak.training.schedule import (
    ConstantConfig,
    CosineConfig,
    LinearConfig,
    OneCycleConfig,
    Schedule,
    WarmupStableDecayConfig,
    check_schedule,
    learning_rate_share,
)
from daybreak.training.spent import Spent

FULL = StepSize(windows=4, tokens=1024, length=256, flops=6e6 * 1024)
RATES = Rates(FULL, windows_per_epoch=1000, parameters=1_000_000)


def of_steps(steps: int) -> CountBudget:
    return CountBudget(Duration(steps, Unit.STEPS), RATES)


def shares(schedule: Schedule, steps: int) -> list[float]:
    """The share of the peak at every step, and last of all what would follow the last step."""
    budget = of_steps(steps)
    return [learning_rate_share(schedule, budget.moment(Spent(steps=step))) for step in range(steps + 1)]


def assert_shares(schedule: Schedule, steps: int, formula: Callable[[int], float]) -> None:
    expected = [formula(step) for step in range(steps + 1)]
    assert shares(schedule, steps) == pytest.approx(expected, abs=1e-12)


def test_cosine_is_that_of_build_nanogpt_at_every_step() -> None:
    max_lr, min_lr, warmup_steps, max_steps = 6e-4, 6e-5, 715, 19073

    def get_lr(it: int) -> float:
        if it < warmup_steps:
            return max_lr * (it + 1) / warmup_steps
        if it > max_steps:
            return min_lr
        decay_ratio = (it - warmup_steps) / (max_steps - warmup_steps)
        coeff = 0.5 * (1.0 + math.cos(math.pi * decay_ratio))
        return min_lr + coeff * (max_lr - min_lr)

    ours = [max_lr * share for share in shares(CosineConfig(warmup="715 steps"), max_steps)]
    assert ours == pytest.approx([get_lr(it) for it in range(max_steps + 1)], rel=1e-9)
    assert ours[0] == pytest.approx(6e-4 / 715, rel=1e-12)
    assert max(ours) == pytest.approx(6e-4, rel=1e-12)
    assert ours[-1] == pytest.approx(6e-5, rel=1e-12)


def test_cosine_with_hold_stays_at_its_end_for_the_last_tenth() -> None:
    ours = shares(CosineConfig(warmup="4000 steps", hold="10%"), 51_000)

    def formula(step: int) -> float:
        if step < 4000:
            return (step + 1) / 4000
        part = min(1.0, (step - 4000) / (45_900 - 4000))
        return 0.1 + 0.9 * 0.5 * (1 + math.cos(math.pi * part))

    assert ours == pytest.approx([formula(step) for step in range(51_001)], abs=1e-12)
    assert ours[45_900:] == pytest.approx([0.1] * 5101, abs=1e-15)
    assert ours[45_800] > 0.1 + 1e-6


def test_warmup_stable_decay_is_a_trapezoid() -> None:
    def formula(step: int) -> float:
        if step < 50:
            return (step + 1) / 50
        return 1.0 if step <= 600 else 1.0 - 0.95 * (step - 600) / 400

    assert_shares(WarmupStableDecayConfig(kind="wsd", warmup="5%", decay="400 steps", final=0.05), 1000, formula)


def test_linear_falls_in_a_line_to_zero() -> None:
    def formula(step: int) -> float:
        return (step + 1) / 100 if step < 100 else 1.0 - (step - 100) / 900

    assert_shares(LinearConfig(kind="linear", warmup="102_400 tokens"), 1000, formula)


def test_constant_stays_at_the_peak_behind_the_warm_up() -> None:
    assert_shares(ConstantConfig(kind="constant", warmup="7 steps"), 100, lambda step: min(1.0, (step + 1) / 7))


def test_without_a_warm_up_the_first_step_is_at_the_peak() -> None:
    assert shares(CosineConfig(), 10)[0] == 1.0


@pytest.mark.parametrize("steps", [100, 1000, 10_000])
def test_one_cycle_is_torchs_up_to_a_step(steps: int) -> None:
    parameter = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([parameter], lr=1.0)
    reference = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=1.0, total_steps=steps, pct_start=0.3)
    theirs = []
    for _ in range(steps):
        theirs.append(reference.get_last_lr()[0])
        optimizer.step()
        if len(theirs) < steps:
            reference.step()
    ours = shares(OneCycleConfig(kind="one-cycle"), steps)[:-1]
    gap = max(abs(one - other) for one, other in zip(ours, theirs, strict=True))
    # Torch counts its phases to N - 1; the steepest slope is (pi / 2) / (0.3 N), so a step apart is at most 5.3 / N.
    assert gap < 5.4 / steps
    assert ours[0] == pytest.approx(1 / 25)
    assert max(ours) > 1 - 1e-3


durations = st.builds(Duration, st.floats(0, 150), st.just(Unit.PERCENT)) | st.builds(
    Duration, st.floats(0, 5000), st.just(Unit.STEPS)
)
fractions = st.floats(0, 1)
schedules = st.one_of(
    st.builds(CosineConfig, warmup=durations, final=fractions, hold=durations),
    st.builds(WarmupStableDecayConfig, kind=st.just("wsd"), warmup=durations, decay=durations, final=fractions),
    st.builds(LinearConfig, kind=st.just("linear"), warmup=durations, final=fractions),
    st.builds(OneCycleConfig, kind=st.just("one-cycle"), warmup=durations, initial=fractions, final=fractions),
    st.builds(ConstantConfig, kind=st.just("constant"), warmup=durations),
)


@given(schedule=schedules, progress=fractions, share=st.floats(1e-9, 1))
def test_no_share_is_negative_or_above_one(schedule: Schedule, progress: float, share: float) -> None:
    moment = Moment(progress, share, FULL, Duration(1 / share, Unit.STEPS), 1 / share, True, RATES)
    assert 0.0 <= learning_rate_share(schedule, moment) <= 1.0 + 1e-12


@pytest.mark.parametrize(
    "schedule",
    [CosineConfig(warmup="10 steps"), WarmupStableDecayConfig(kind="wsd", warmup="10 steps", decay="50%")],
    ids=lambda schedule: schedule.kind,
)
def test_a_warm_up_in_steps_is_exact_under_a_time_budget(schedule: Schedule) -> None:
    budget = TimeBudget(1000.0, "train", Clock(0.0), RATES)
    spent, warmed = Spent(), []
    for step in range(12):
        moment = budget.moment(spent)
        warmed.append(learning_rate_share(schedule, moment))
        spent = budget.after_step(spent, FULL, seconds=0.1 if step % 3 else 0.4, elapsed=0.0)
    assert warmed[:10] == pytest.approx([(step + 1) / 10 for step in range(10)], rel=1e-6)
    assert warmed[10:] == pytest.approx([1.0, 1.0], abs=1e-4)


@pytest.mark.parametrize("warmup", ["100 steps", "101 steps", "100%", "102_400 tokens"])
def test_a_warm_up_as_long_as_the_run_is_refused(warmup: str) -> None:
    with pytest.raises(UserError, match=r"schedule\.warmup"):
        check_schedule(CosineConfig(warmup=warmup), of_steps(100).moment(Spent()))


@pytest.mark.parametrize("warmup", ["100%", "1h", "2h"])
def test_a_warm_up_as_long_as_a_time_budget_is_refused(warmup: str) -> None:
    budget = TimeBudget(3600.0, "train", Clock(0.0), RATES)
    with pytest.raises(UserError, match=r"schedule\.warmup"):
        check_schedule(CosineConfig(warmup=warmup), budget.moment(Spent()))


def test_a_warm_up_shorter_than_the_run_is_allowed() -> None:
    check_schedule(CosineConfig(warmup="99 steps"), of_steps(100).moment(Spent()))
    check_schedule(CosineConfig(warmup="10m"), TimeBudget(3600.0, "train", Clock(0.0), RATES).moment(Spent()))


def test_a_warm_up_in_time_needs_a_budget_in_time() -> None:
    with pytest.raises(UserError, match="10m"):
        check_schedule(CosineConfig(warmup="10m"), of_steps(100).moment(Spent()))
