"""The one dial: the depth of the family `daybreak-dN` that a budget is best spent on."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import final

from daybreak.bench.subject import make_subject, some_tokens
from daybreak.compose import build_budget, choose_execution
from daybreak.data.batches import windows_in
from daybreak.data.shards import Corpus
from daybreak.duration import Unit, human_seconds
from daybreak.errors import UserError
from daybreak.family import DEEPEST, batch_tokens, member_name
from daybreak.hardware import peak_flops
from daybreak.model.gpt import count_multiplied, count_parameters
from daybreak.planning.course import Course, Pace, smallest_useful_seconds, work_out
from daybreak.planning.expectation import by_law
from daybreak.recipe import Recipe
from daybreak.scaling import LossLaw, n_of
from daybreak.training.budget import FEW_STEPS, Clock
from daybreak.training.flops import flops_per_token

_USUAL_SHARE_OF_PEAK = 0.3  # before anything was measured
_START_SECONDS = 10.0  # until the first step, this choice included
_DIGITS = 3  # of a loss that matter
_TIMED = 2  # steps, behind one that warms up
_FORWARD = 1 / 3  # of a training step
_SAVED_BYTES_PER_SECOND, _SAVED_BYTES_PER_PARAMETER = 200e6, 12
_UNKNOWN_PEAK = 1e12  # FLOP/s
_TIMELESS = Pace(start=0.0, step=0.0, evaluation=0.0, sample=0.0, save=0.0)  # of a budget that is not a time


@final
@dataclass(frozen=True)
class Candidate:
    """A depth, and what the budget makes of it.

    Attributes:
        multiplied: parameters in matrix products.
        tokens_per_second: measured here; None where the budget is not a time.
        loss: expected, in nats a token; infinite where the model does not fit into memory.
        least: the smallest budget in which it makes steps enough to learn from.
    """

    depth: int
    recipe: Recipe
    multiplied: int
    tokens_per_second: float | None
    course: Course
    loss: float
    least: str


@final
@dataclass(frozen=True)
class Choice:
    """The depth that is chosen, between its neighbours."""

    chosen: Candidate
    neighbours: tuple[Candidate, ...]

    @property
    def recipe(self) -> Recipe:
        return self.chosen.recipe

    def __str__(self) -> str:
        lines = [f"{'':<14}{'multiplied':>12}{'tokens/s':>10}{'tokens':>16}{'a parameter':>13}{'expected loss':>15}"]
        for each in sorted((self.chosen, *self.neighbours), key=lambda candidate: candidate.depth):
            rate = "" if each.tokens_per_second is None else f"{each.tokens_per_second:,.0f}"
            tokens = each.course.tokens
            lines.append(
                f"{each.recipe.name:<14}{each.multiplied:>12,}{rate:>10}{tokens:>16,.0f}"
                f"{tokens / each.multiplied:>13.3g}{each.loss:>15.3f}{self._remark(each)}"
            )
        return "\n".join(lines)

    def _remark(self, each: Candidate) -> str:
        if each is self.chosen:
            return "  <- chosen"
        if math.isinf(each.loss):
            return "  does not fit into memory"
        if _counts_tokens(self.recipe):
            return "  reads more than it can learn" if each.depth < self.chosen.depth else "  would want more tokens"
        times = each.course.tokens / self.chosen.course.tokens
        why = "too small for them" if each.depth < self.chosen.depth else "too few for its size"
        return f"  {times:.2g} times the tokens, {why}: {each.loss - self.chosen.loss:+.3f}"


def choose_depth(corpus: Corpus, *overrides: str) -> Choice:
    """The member of the family that is expected to do best with a budget on this machine.

    With a time, money or FLOPs that is the one with the lowest loss; with tokens, which a larger model always learns
    more from, the one for which they are the best use of its FLOPs.

    Args:
        overrides: the budget, and any other settings of the recipe.

    Raises:
        UserError: the budget is missing, says nothing of all depths, or is too small for any of them to learn from.
    """
    tokenizer = corpus.tokenizer
    fitting = (f"data.tokenizer={tokenizer.name}", f"model.vocab_size={tokenizer.padded_vocab_size}")

    @cache
    def candidate(depth: int) -> Candidate:
        return _candidate(depth, _recipe(depth, (*fitting, *overrides), corpus), corpus)

    first = _recipe(1, (*fitting, *overrides), corpus)
    if not any(_key(each) == "budget" for each in overrides):
        raise UserError("auto chooses a model for a budget: say what the run may spend, as budget=24h")
    if first.budget.unit is Unit.TIMES_PARAMETERS:
        raise UserError(f"budget = {first.budget} suits every depth; give auto a time, money, FLOPs or tokens")

    def misfit(depth: int) -> tuple[float, float, int]:
        """What is to be lowest: steps that are wanting, then the loss, then the size."""
        found = candidate(depth)
        wanting = max(0.0, FEW_STEPS - found.course.steps)
        if wanting:
            return wanting, depth, depth
        if not _counts_tokens(first):
            return wanting, round(found.loss, _DIGITS), depth
        best = LossLaw.fitted().best_tokens(n_of(found.recipe.model, found.recipe.row_length))
        return wanting, abs(math.log(best / found.course.tokens)), depth

    depth = _descend(misfit, _guess(first, corpus))
    chosen = candidate(depth)
    if chosen.course.steps < FEW_STEPS:
        raise UserError(
            f"budget = {first.budget} is too small for anything useful: {chosen.recipe.name} would make "
            f"{chosen.course.steps:.0f} steps; the smallest that is of use here is {candidate(1).least}"
        )
    beside = tuple(candidate(each) for each in (depth - 1, depth + 1) if 1 <= each <= DEEPEST)
    return Choice(chosen, beside)


def _descend(misfit: Callable[[int], tuple[float, float, int]], depth: int) -> int:
    """From a guess downhill, to where neither neighbour does better."""
    while True:
        best = min((each for each in (depth, depth - 1, depth + 1) if 1 <= each <= DEEPEST), key=misfit)
        if best == depth:
            return depth
        depth = best


def _guess(recipe: Recipe, corpus: Corpus) -> int:
    """A depth to begin from, by the law and a usual speed."""
    law, flops, depth = LossLaw.fitted(), _flops(recipe, corpus), 1
    tokens = flops / flops_per_token(recipe.model, recipe.row_length)

    def is_too_small(depth: int) -> bool:
        member = Recipe.load(member_name(depth), f"model.vocab_size={recipe.model.vocab_size}")
        n = n_of(member.model, member.row_length)
        return law.best_tokens(n) < tokens if _counts_tokens(recipe) else n < law.best_n(flops)

    while depth < DEEPEST and is_too_small(depth):
        depth += 1
    return depth


def _recipe(depth: int, overrides: tuple[str, ...], corpus: Corpus) -> Recipe:
    """A member for the budget: its batch is that of the budget's FLOPs, unless the person says otherwise."""
    recipe = Recipe.load(member_name(depth), *overrides).with_data(corpus.path.resolve())
    if any(_key(each).startswith("batch") for each in overrides):
        return recipe
    tokens = {"batch": {"tokens": batch_tokens(_flops(recipe, corpus))}}
    return Recipe.model_validate(recipe.model_dump(mode="json") | tokens)


def _candidate(depth: int, recipe: Recipe, corpus: Corpus) -> Candidate:
    budget = build_budget(recipe, windows_in(len(corpus.stream("train")), recipe.data.window), Clock(0.0))
    multiplied = count_multiplied(recipe.model)
    if recipe.budget_seconds is None:
        course = work_out(recipe, budget, _TIMELESS)
        loss = by_law(recipe, course.tokens, corpus).loss
        return Candidate(depth, recipe, multiplied, None, course, loss, f"{FEW_STEPS * recipe.batch.tokens:,} tokens")
    try:
        pace = _measured(recipe, corpus)
    except UserError:  # it does not fit into memory; a smaller one may
        return Candidate(depth, recipe, multiplied, None, Course(0.0, 0.0, 0.0, 0.0), math.inf, "")
    course = work_out(recipe, budget, pace)
    loss = by_law(recipe, course.tokens, corpus).loss if course.tokens else math.inf
    rate = recipe.batch.tokens / pace.step
    least = human_seconds(smallest_useful_seconds(recipe, budget, pace))
    return Candidate(depth, recipe, multiplied, rate, course, loss, least)


def _measured(recipe: Recipe, corpus: Corpus) -> Pace:
    """Of a few of a run's own steps.

    Raises:
        UserError: they do not fit into memory.
    """
    execution = choose_execution(recipe)
    tokens = some_tokens(recipe, corpus, execution.micro_batch, corpus.tokenizer.vocab_size)
    subject = make_subject(recipe, execution, tokens)
    if execution.compile:
        subject.compile()
    rows = subject.rows(execution.micro_batch)
    subject.time(rows)
    timed = [subject.time(rows) for _ in range(_TIMED)]
    micro_batches = recipe.batch.tokens / (execution.micro_batch * recipe.row_length)
    step = micro_batches * min(each.gradient for each in timed) + min(each.update for each in timed)
    return Pace(
        start=_START_SECONDS,
        step=step,
        evaluation=_FORWARD * step * recipe.evaluation.tokens / recipe.batch.tokens,
        sample=0.0,
        save=_SAVED_BYTES_PER_PARAMETER * count_parameters(recipe.model) / _SAVED_BYTES_PER_SECOND,
    )


def _flops(recipe: Recipe, corpus: Corpus) -> float:
    """About what a budget comes to."""
    seconds = recipe.budget_seconds
    if seconds is not None:
        execution = choose_execution(recipe)
        peak = peak_flops(execution.apply(), execution.precision) or _UNKNOWN_PEAK
        return _USUAL_SHARE_OF_PEAK * peak * seconds
    budget = build_budget(recipe, windows_in(len(corpus.stream("train")), recipe.data.window), Clock(0.0))
    return work_out(recipe, budget, _TIMELESS).flops


def _counts_tokens(recipe: Recipe) -> bool:
    return recipe.budget.unit in (Unit.TOKENS, Unit.EPOCHS, Unit.STEPS)


def _key(override: str) -> str:
    return override.partition("=")[0].strip()
