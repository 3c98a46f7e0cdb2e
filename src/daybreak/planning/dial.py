"""The one dial: the depth of the family `daybreak-dN` that a budget is best spent on."""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import final

import torch

from daybreak.bench.subject import Subject, make_subject, some_tokens
from daybreak.compose import (
    SAVED_BYTES_PER_SECOND,
    build_budget,
    checkpoint_bytes,
    choose_execution,
    require_fitting_tokenizer,
)
from daybreak.data.reading import Reading
from daybreak.data.shards import Corpus
from daybreak.duration import Unit, require_positive
from daybreak.errors import UserError
from daybreak.family import DEEPEST, batch_tokens, member_name
from daybreak.hardware import is_out_of_memory, peak_flops
from daybreak.model.gpt import count_multiplied
from daybreak.planning.course import Course, Pace, smallest_useful, work_out
from daybreak.planning.expectation import by_law
from daybreak.progress import say
from daybreak.recipe import Recipe, parse_overrides
from daybreak.scaling import LossLaw, n_of
from daybreak.training.budget import FEW_STEPS, Budget, Clock
from daybreak.training.flops import flops_per_token

_OF_THE_DEPTH = ("layers", "heads", "dim")  # what nobody else may set
_USUAL_SHARE_OF_PEAK = 0.3  # before anything was measured
_UNKNOWN_PEAK = 1e12  # FLOP/s
_DIGITS = 3  # of a loss that matter
_TIMED = 2  # steps, behind one that warms up
_START_SECONDS = 3.0  # from the choice to the first step
_FORWARD = 1 / 3  # of a training step
_TIMELESS = Pace(start=0.0, step=0.0, evaluation=0.0, sample=0.0, save=0.0)  # of a budget that is not a time


@final
@dataclass(frozen=True)
class Candidate:
    """A depth, and what the budget makes of it.

    Attributes:
        multiplied: parameters in matrix products.
        tokens_per_second: measured here; None where the budget is not a time.
        course: None where the model does not fit into memory.
        loss: expected, in nats a token; infinite where there is no course.
        smallest: budget in which it makes steps enough to learn from.
    """

    depth: int
    recipe: Recipe
    multiplied: int
    tokens_per_second: float | None
    course: Course | None
    loss: float
    smallest: str


@final
@dataclass(frozen=True)
class Choice:
    """The depth that is chosen, and its neighbours."""

    chosen: Candidate
    neighbours: tuple[Candidate, ...]

    @property
    def recipe(self) -> Recipe:
        return self.chosen.recipe


def choose_depth(corpus: Corpus, *overrides: str, started: float | None = None) -> Choice:
    """The member of the family that is expected to do best with a budget on this machine.

    With a time, money or FLOPs that is the one with the lowest loss; with tokens, which a larger model always learns
    more from, the one for which they are the best use of its FLOPs.

    Args:
        overrides: the budget, and any other settings of the recipe but its sizes.
        started: reading of the monotonic clock from which a time counts; now unless given.

    Raises:
        UserError: the budget is missing, says nothing of all depths, is too small for any of them to learn from, or
            none fits into memory.
    """
    _require_a_budget_alone(overrides)
    clock = Clock(time.monotonic() if started is None else started)
    tokenizer = corpus.tokenizer
    words = (f"data.tokenizer={tokenizer.name}", f"model.vocab_size={tokenizer.padded_vocab_size}", *overrides)
    smallest = Recipe.load(member_name(1), *words)
    require_positive(smallest.budget, "budget")
    require_fitting_tokenizer(smallest, tokenizer)

    @cache
    def candidate(depth: int) -> Candidate:
        return _candidate(depth, _recipe(depth, words, corpus), corpus, clock)

    depth = _descend(lambda each: _misfit(candidate(each)), _guess(words, corpus))
    chosen = candidate(depth)
    if chosen.course is None:
        raise UserError(
            f"not even {chosen.recipe.name} fits into the memory of this machine; "
            "take a smaller recipe by its name, as demo"
        )
    if chosen.course.steps < FEW_STEPS:
        raise UserError(
            f"budget = {chosen.recipe.budget} is too small for anything useful: even {chosen.recipe.name} would make "
            f"{chosen.course.steps} steps; the smallest that is of use here is {chosen.smallest}"
        )
    return Choice(chosen, tuple(candidate(each) for each in _beside(depth)))


def shown(choice: Choice) -> str:
    """The choice as a table, with the reasons."""
    lines = [f"{'':<14}{'multiplied':>12}{'tokens/s':>10}{'tokens':>16}{'a parameter':>13}{'expected loss':>15}"]
    for each in sorted((choice.chosen, *choice.neighbours), key=lambda candidate: candidate.depth):
        rate = "" if each.tokens_per_second is None else f"{each.tokens_per_second:,.0f}"
        tokens = 0 if each.course is None else each.course.tokens
        learned = (
            f"{tokens:>16,}{tokens / each.multiplied:>13.3g}{each.loss:>15.3f}" if tokens else f"{'none':>16}{'':28}"
        )
        lines.append(f"{each.recipe.name:<14}{each.multiplied:>12,}{rate:>10}{learned}  {_remark(each, choice.chosen)}")
    return "\n".join(lines)


def _remark(each: Candidate, chosen: Candidate) -> str:
    if each is chosen:
        return "<- chosen"
    if each.course is None or chosen.course is None:
        return "does not fit into memory"
    if each.course.steps < FEW_STEPS:
        return f"{each.course.steps} steps are too few"
    smaller = each.depth < chosen.depth
    if _counts_tokens(each.recipe):
        return "would be best with fewer tokens" if smaller else "would be best with more tokens"
    times = each.course.tokens / chosen.course.tokens
    why = "too small for them" if smaller else "too few for its size"
    return f"{times:.2g} times the tokens, {why}: {each.loss - chosen.loss:+.3f}"


def _require_a_budget_alone(overrides: tuple[str, ...]) -> None:
    asked = parse_overrides(overrides)
    if "budget" not in asked:
        raise UserError("auto chooses a model for a budget: say what the run may spend, as budget=24h")
    model = asked.get("model")
    sizes = [name for name in _OF_THE_DEPTH if isinstance(model, dict) and name in model]
    if sizes:
        raise UserError(f"auto chooses model.{sizes[0]}; to set it, take a recipe by its name, as {member_name(4)}")


def _misfit(candidate: Candidate) -> tuple[float, float, int]:
    """What the best has least of: steps that are wanting, then loss or distance from the best tokens, then size."""
    course, depth = candidate.course, candidate.depth
    if course is None:
        return math.inf, depth, depth
    if course.steps < FEW_STEPS:
        return FEW_STEPS - course.steps, depth, depth
    if not _counts_tokens(candidate.recipe):
        return 0, round(candidate.loss, _DIGITS), depth
    best = LossLaw.fitted().best_tokens(n_of(candidate.recipe.model, candidate.recipe.row_length))
    return 0, abs(math.log(best / course.tokens)), depth


def _descend(misfit: Callable[[int], tuple[float, float, int]], depth: int) -> int:
    """From a guess downhill, to where neither neighbour does better."""
    while True:
        best = min((depth, *_beside(depth)), key=misfit)
        if best == depth:
            return depth
        depth = best


def _beside(depth: int) -> tuple[int, ...]:
    return tuple(each for each in (depth - 1, depth + 1) if 1 <= each <= DEEPEST)


def _guess(overrides: tuple[str, ...], corpus: Corpus) -> int:
    """A depth to begin from, by the law and a usual speed."""
    law, first = LossLaw.fitted(), Recipe.load(member_name(1), *overrides).with_data(corpus.path.resolve())
    flops = _flops(first, corpus)
    tokens = flops / flops_per_token(first.model, first.row_length)

    def is_too_small(depth: int) -> bool:
        member = Recipe.load(member_name(depth), *overrides)
        n = n_of(member.model, member.row_length)
        return law.best_tokens(n) < tokens if _counts_tokens(first) else n < law.best_n(flops)

    return next((depth for depth in range(1, DEEPEST) if not is_too_small(depth)), DEEPEST)


def _recipe(depth: int, overrides: tuple[str, ...], corpus: Corpus) -> Recipe:
    """A member for the budget: its batch is that of the budget's FLOPs, unless the person says otherwise."""
    recipe = Recipe.load(member_name(depth), *overrides).with_data(corpus.path.resolve())
    if "batch" in parse_overrides(overrides):
        return recipe
    batch = {"batch": {"tokens": batch_tokens(_flops(recipe, corpus))}}
    return Recipe.model_validate(recipe.model_dump(mode="json") | batch)


def _candidate(depth: int, recipe: Recipe, corpus: Corpus, clock: Clock) -> Candidate:
    budget, multiplied = _budget(recipe, corpus), count_multiplied(recipe.model)
    pace, rate = _TIMELESS, None
    if recipe.budget_seconds is not None:
        step = _seconds_of_a_step(recipe, corpus)
        if step is None:
            return Candidate(depth, recipe, multiplied, None, None, math.inf, "")
        pace, rate = _pace(recipe, corpus, step, clock.elapsed()), recipe.batch.tokens / step
    course = work_out(recipe, budget, pace)
    loss = by_law(recipe, max(1, course.tokens), corpus).loss
    return Candidate(depth, recipe, multiplied, rate, course, loss, str(smallest_useful(recipe, budget, pace)))


def _pace(recipe: Recipe, corpus: Corpus, step: float, elapsed: float) -> Pace:
    evaluated = min(recipe.evaluation.tokens, corpus.validation.tokens)
    return Pace(
        start=elapsed + _START_SECONDS,
        step=step,
        evaluation=_FORWARD * step * evaluated / recipe.batch.tokens,
        sample=0.0,
        save=checkpoint_bytes(recipe) / SAVED_BYTES_PER_SECOND,
    )


def _seconds_of_a_step(recipe: Recipe, corpus: Corpus) -> float | None:
    """Of the run's own parts, measured; None where they do not fit into memory."""
    say(f"measuring {recipe.name}")
    execution = choose_execution(recipe)
    tokens = some_tokens(recipe, corpus, execution.micro_batch, corpus.tokenizer.vocab_size)
    try:
        subject = make_subject(recipe, execution, tokens)
    except UserError:  # of memory: the rest was seen to above
        return None
    if execution.compile:
        subject.compile()
    try:
        return _timed(subject)
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        return None
    finally:
        if subject.device.type == "cuda":
            torch.cuda.empty_cache()


def _timed(subject: Subject) -> float:
    recipe, micro_batch = subject.recipe, subject.execution.micro_batch
    rows = subject.rows(micro_batch)
    subject.time(rows)
    timings = [subject.time(rows) for _ in range(_TIMED)]
    micro_batches = recipe.batch.tokens / (micro_batch * recipe.row_length)
    return micro_batches * min(each.gradient for each in timings) + min(each.update for each in timings)


def _flops(recipe: Recipe, corpus: Corpus) -> float:
    """About what a budget comes to."""
    seconds = recipe.budget_seconds
    if seconds is not None:
        execution = choose_execution(recipe)
        peak = peak_flops(execution.apply(), execution.precision) or _UNKNOWN_PEAK
        return _USUAL_SHARE_OF_PEAK * peak * seconds
    return work_out(recipe, _budget(recipe, corpus), _TIMELESS).spent.flops


def _budget(recipe: Recipe, corpus: Corpus) -> Budget:
    if recipe.budget.unit is Unit.TIMES_PARAMETERS:
        raise UserError(f"budget = {recipe.budget} suits every depth; give auto a time, money, FLOPs or tokens")
    return build_budget(recipe, Reading(recipe.data, (corpus,)).pass_windows, Clock(time.monotonic()))


def _counts_tokens(recipe: Recipe) -> bool:
    return recipe.budget.unit in (Unit.TOKENS, Unit.EPOCHS, Unit.STEPS)
