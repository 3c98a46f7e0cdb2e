"""Length curricula and batch ramps against their published stages, and the budgets that count them."""

import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import islice, pairwise
from types import SimpleNamespace

import pytest
from pydantic import ValidationError

from daybreak.compose import build_budget
from daybreak.duration import Duration
from daybreak.errors import UserError
from daybreak.recipe import Recipe
from daybreak.training.budget import Budget, Clock, CountBudget, Moment, TimeBudget, make_count_budget
from daybreak.training.flops import flops_per_token
from daybreak.training.growth import BatchConfig, Growth, LengthCurriculumConfig, recorded_sizes
from daybreak.training.schedule import CosineConfig, check_schedule, learning_rate_share
from daybreak.training.spent import Spent

RAMP = 'batch.ramp={ start = 32768, over = "4B tokens" }'


def budget_of(recipe: Recipe, clock: Clock | None = None) -> Budget:
    return build_budget(recipe, 10_000_000, clock or Clock(0.0))


def steps(budget: Budget, seconds: Callable[[Moment], float] = lambda _: 1.0) -> Iterator[tuple[Moment, Spent]]:
    """A run as the loop makes it: each step's moment, and what is spent behind it."""
    spent = Spent()
    while budget.allows_another_step(spent):
        moment = budget.moment(spent)
        took = seconds(moment)
        elapsed = spent.elapsed_seconds + took
        spent = budget.after_step(spent, moment.size, seconds=took, elapsed=elapsed)
        yield moment, spent


def test_gpt_1b_star_has_the_published_stages() -> None:
    """128 for steps [0, 3750), 192 for [3750, 7500), 256, 384, and 512 from step 15,000 of 51,000."""
    budget = budget_of(Recipe.load("gpt-star-1b"))
    stages = {128: range(0, 3750), 192: range(3750, 7500), 256: range(7500, 11_250), 384: range(11_250, 15_000)}
    for length, stage in (stages | {512: range(15_000, 51_000)}).items():
        for step in (stage[0], stage[1], stage[-2], stage[-1]):
            assert budget.moment(Spent(steps=step)).size.length == length


@pytest.mark.parametrize("stage", ["375 steps", "196608000 tokens", "375s", "7.5%"])
def test_a_stage_ends_by_what_is_spent_in_its_own_unit(stage: str) -> None:
    recipe = Recipe.load("gpt-star-1b", f"curriculum.stage={stage}", "budget=5000 steps", "schedule.warmup=2%")
    lengths = [moment.size.length for moment, _ in steps(budget_of(recipe))]
    changes = [step for step, (before, after) in enumerate(pairwise(lengths), start=1) if before != after]
    assert changes == [375, 750, 1125, 1500]


def test_a_curriculum_leaves_the_tokens_of_a_step_and_the_number_of_steps() -> None:
    *_, (moment, spent) = steps(budget_of(Recipe.load("gpt-star-1b", "budget=1B tokens")))
    assert moment.size.tokens == 524_288
    assert spent.steps == 10**9 // 524_288


def test_gpt_3s_ramp_is_a_line_in_tokens() -> None:
    """From 32 k tokens to the full batch over the first 4 billion (Brown et al. 2020, appendix B)."""
    recipe = Recipe.load("gpt-star-127m", RAMP, "budget=5B tokens", "schedule.warmup=375M tokens")
    before, in_ramp = 0, 0
    for moment, spent in steps(budget_of(recipe)):
        line = 32_768 + (524_288 - 32_768) * min(1.0, before / 4e9)
        assert line - 32_768 < moment.size.tokens <= line
        assert moment.size.tokens % 32_768 == 0
        assert moment.size.tokens == 524_288 or before < 4e9
        in_ramp += before < 4e9
        before = spent.tokens
    # dt / b(t) from 0 to 4 B; a staircase below the line takes half a stair more steps on average.
    exact = 4e9 / (524_288 - 32_768) * math.log(524_288 / 32_768)
    assert exact < in_ramp < 1.25 * exact


@pytest.mark.parametrize(("over", "first_full"), [("100 steps", 100), ("50%", 200), ("100s", 100)])
def test_a_ramp_ends_by_what_is_spent_in_its_own_unit(over: str, first_full: int) -> None:
    recipe = Recipe.load(
        "gpt-star-127m", "budget=400 steps", "schedule.warmup=5 steps", RAMP, f"batch.ramp.over={over}"
    )
    sizes = [moment.size.tokens for moment, _ in steps(budget_of(recipe))]
    assert sizes.index(524_288) == first_full
    assert sizes == sorted(sizes)
    assert set(sizes) == {32_768 * count for count in range(1, 17)}


@pytest.mark.parametrize("amount", ["5B tokens", "100000 tokens", "0.1 epochs", "20x params", "2e18 flops", "99 steps"])
def test_a_budget_with_a_ramp_is_spent_to_less_than_a_step(amount: str) -> None:
    recipe = Recipe.load("gpt-star-127m", f"budget={amount}", RAMP, "batch.ramp.over=1B tokens")
    budget = budget_of(recipe)
    moments = list(steps(budget))
    assert isinstance(budget, CountBudget)
    tokens = {
        "5B tokens": 5e9,
        "100000 tokens": 1e5,
        "0.1 epochs": 0.1 * 10_000_000 * 512,
        "20x params": 20 * budget.rates.parameters,
        "2e18 flops": 2e18 / flops_per_token(recipe.model, 512),
    }
    last, spent = moments[-1]
    if amount in tokens:
        assert tokens[amount] - last.size.tokens - 32_768 < spent.tokens <= tokens[amount]
    else:
        assert spent.steps == 99
    assert spent.progress > 1 - 2 * last.share
    assert all(after.progress == pytest.approx(moment.progress + moment.share) for moment, after in moments)


def test_flops_count_the_length_in_use() -> None:
    recipe = Recipe.load("gpt-star-1b", "budget=1.5e19 flops", "curriculum.stage=2 steps")
    model = recipe.model

    def flops(length: int) -> float:
        """Of a step: whole rows, and what remains of each window."""
        rest = 512 % length
        return 1024 * ((512 - rest) * flops_per_token(model, length) + rest * flops_per_token(model, rest))

    moments = list(steps(budget_of(recipe)))
    expected = [flops(length) for length in (128, 128, 192, 192, 256, 256, 384, 384)]
    expected += [flops(512)] * int((1.5e19 - sum(expected)) / flops(512))
    assert [moment.size.flops for moment, _ in moments] == pytest.approx(expected, rel=1e-12)
    assert moments[-1][1].flops == pytest.approx(sum(expected), rel=1e-12)
    assert 1.5e19 - flops(512) < sum(expected) <= 1.5e19


def test_a_warm_up_in_steps_is_exact_where_flops_grow() -> None:
    recipe = Recipe.load("gpt-star-1b", "budget=6e20 flops", "curriculum.stage=5 steps", "schedule.warmup=12 steps")
    shares = [learning_rate_share(recipe.schedule, moment) for moment, _ in islice(steps(budget_of(recipe)), 12)]
    assert shares == pytest.approx([(step + 1) / 12 for step in range(12)])


@pytest.mark.parametrize(("budget", "fits"), [("5B tokens", "tokens"), ("700 steps", "steps"), ("2h", "a time")])
def test_a_warm_up_that_a_ramp_makes_unequal_to_the_budget_is_refused(budget: str, fits: str) -> None:
    recipe = Recipe.load("gpt-star-127m", f"budget={budget}", RAMP)
    moment = budget_of(recipe).moment(Spent())
    unlike = "10 steps" if fits != "steps" else "10000000 tokens"
    with pytest.raises(UserError, match=f"{unlike}.*batch.ramp.*use {fits} or a percentage"):
        check_schedule(CosineConfig(warmup=unlike), moment)
    for warmup in ("2%", {"tokens": "10M tokens", "steps": "10 steps", "a time": "10m"}[fits]):
        check_schedule(CosineConfig(warmup=warmup), moment)


@pytest.mark.parametrize("counts", ["process", "train"])
@pytest.mark.parametrize("overhead", [0.0, 0.5])
def test_a_time_budget_is_not_overshot_by_a_step_that_grew(
    counts: str, overhead: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 0.0
    monkeypatch.setattr("daybreak.training.budget.time", SimpleNamespace(monotonic=lambda: now))
    recipe = Recipe.load(
        "gpt-star-1b", "budget=1000s", f"counts={counts}", "schedule.warmup=2%", RAMP,
        "batch.ramp.over=100%", "curriculum.stage=20%",
    )  # fmt: skip

    def seconds(moment: Moment) -> float:
        nonlocal now
        took = overhead + 20.0 * moment.size.flops / moment.rates.full.flops
        now += took
        return took

    moments = list(steps(budget_of(recipe), seconds))
    last, spent = moments[-1]
    longest = overhead + 20.0
    assert 1000.0 - 2 * longest - 70.0 * (counts == "process") < spent.elapsed_seconds <= 1000.0  # a save's reserve
    assert spent.progress > 0.95
    assert last.size.tokens > 14 * 32_768
    assert learning_rate_share(recipe.schedule, last) == pytest.approx(0.1)


def test_recorded_sizes_are_followed_when_steps_are_done_again() -> None:
    batch = BatchConfig(tokens=64, ramp={"start": 16, "over": "10s"})
    curriculum = LengthCurriculumConfig(lengths=(4, 8), stage="5s")
    growth = Growth(batch, curriculum, 16, {4: 1.0, 8: 2.0})
    sizes = {4: (32, 4), 5: (24, 4), 6: (80, 8), 7: (32, 6), 8: (0, 4)}  # the first could be, of this run
    records = [{"step": step, "batch_tokens": tokens, "length": length} for step, (tokens, length) in sizes.items()]
    growth = replace(growth, recorded=recorded_sizes([*records, {"step": 9}], growth))
    assert growth.recorded == {3: (2, 4)}
    late = Spent(steps=3, train_seconds=100.0)
    assert (growth.next(late).tokens, growth.next(late).length, growth.next(late).flops) == (32, 4, 32.0)
    assert growth.next(Spent(steps=4, train_seconds=100.0)) == growth.full


@pytest.mark.parametrize(
    ("override", "named"),
    [
        ("curriculum={ lengths = [128, 256], stage = '5 steps' }", "must end with the full row length 512"),
        ("curriculum={ lengths = [256, 128, 512], stage = '5 steps' }", "must grow"),
        ("curriculum={ lengths = [512, 512], stage = '5 steps' }", "must grow"),
        ("curriculum={ lengths = [0, 512], stage = '5 steps' }", "greater than 0"),
        ("curriculum={ lengths = [], stage = '5 steps' }", "at least 1"),
        ("curriculum={ lengths = [512], stage = '0 steps' }", "above 0"),
        ("curriculum={ lengths = [512], stage = '2 epochs' }", "steps, tokens, a time or a percentage"),
        ("batch.ramp={ start = 30000, over = '5 steps' }", "multiple of data.window = 512.*nearest that does is 32768"),
        ("batch.ramp={ start = 1536, over = '5 steps' }", "divide batch.tokens = 524288.*nearest that does is 1024"),
        ("batch.ramp={ start = 1048576, over = '5 steps' }", "nearest that does is 262144"),
        ("batch.ramp={ start = 32768, over = '0%' }", "above 0"),
        ("batch.ramp={ start = 32768, over = '1e18 flops' }", "steps, tokens, a time or a percentage"),
    ],
)
def test_what_cannot_grow_is_refused_with_what_can(override: str, named: str) -> None:
    with pytest.raises(UserError, match=named):
        Recipe.load("gpt-star-127m", override)


def test_a_stage_of_nothing_is_no_configuration() -> None:
    with pytest.raises(ValidationError, match="above 0"):
        LengthCurriculumConfig(lengths=(8,), stage="0s")


def test_a_budget_says_how_its_steps_grow() -> None:
    texts = {
        "9 steps": "9 steps of 32,768 to 524,288 tokens",
        "5B tokens": "5000000000 tokens in steps of 32,768 to 524,288 tokens",
    }
    for amount, text in texts.items():
        assert str(budget_of(Recipe.load("gpt-star-127m", f"budget={amount}", RAMP))) == text


def test_less_than_the_first_step_of_a_ramp_is_refused() -> None:
    full = budget_of(Recipe.load("gpt-star-127m", RAMP))
    with pytest.raises(UserError, match="less than one step of 32,768 tokens"):
        make_count_budget(Duration.parse("32767 tokens"), full.rates, full.growth)


def test_a_time_budget_expects_of_a_larger_step_that_it_takes_longer() -> None:
    recipe = Recipe.load("gpt-star-127m", "budget=100s", "counts=train", RAMP, "batch.ramp.over=2 steps")
    budget = budget_of(recipe)
    assert isinstance(budget, TimeBudget)
    spent = budget.after_step(Spent(), budget.moment(Spent()).size, seconds=3.0, elapsed=3.0)
    grown = budget.moment(spent).size
    assert grown.tokens == 8 * 32_768
    assert budget.allows_another_step(Spent(steps=1, train_seconds=75.0))
    assert not budget.allows_another_step(Spent(steps=1, train_seconds=77.0))  # 24 s of it are needed
