"""What a recipe's budget buys, with where each figure is from, and what makes no sense in it."""

import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import final

from daybreak.compose import build_budget, require_fitting_tokenizer
from daybreak.data.reading import Reading
from daybreak.data.shards import token_dtype
from daybreak.duration import Unit, human_dollars, human_seconds
from daybreak.errors import UserError
from daybreak.model.gpt import count_multiplied, count_parameters
from daybreak.planning.course import Course, how_often, smallest_useful, work_out
from daybreak.planning.elsewhere import USUAL_MFU, named_machine
from daybreak.planning.expectation import expected_loss
from daybreak.planning.here import this_machine
from daybreak.planning.machine import Machine
from daybreak.progress import human_bytes
from daybreak.recipe import Recipe
from daybreak.scaling import LossLaw
from daybreak.training.budget import FEW_STEPS, Budget, Clock, TimeBudget
from daybreak.training.flops import flops_per_token
from daybreak.training.freezing import count_trained
from daybreak.training.schedule import check_schedule
from daybreak.training.spent import Spent

_UNKNOWN_WINDOWS = 10**15  # of a corpus that is not given; no budget in epochs is worked out then
_METRIC_BYTES = 400  # of each step
_FAULT_AROUND_BYTES = 65_536  # that Linux maps at a fault of one page, unless told otherwise


@final
@dataclass(frozen=True)
class Figure:
    """A line of a plan.

    Attributes:
        value: in the unit that the name tells; None where it is not known.
        shown: the same for people.
        how: where it is from.
    """

    name: str
    value: float | None
    shown: str
    how: str


@final
@dataclass(frozen=True)
class Plan:
    """What a recipe's budget buys.

    Attributes:
        device: what it was worked out for.
        figures: in the order in which people ask.
        warnings: what runs out, does not fit or makes no sense, and what would help.
    """

    recipe: str
    budget: str
    device: str
    figures: tuple[Figure, ...]
    warnings: tuple[str, ...]

    def value(self, name: str) -> float | None:
        """Of a figure, by its name."""
        return next(figure.value for figure in self.figures if figure.name == name)


def plan(
    recipe: Recipe | str | Path,
    *,
    data: Path | str | None = None,
    device: str | None = None,
    count: int = 1,
    mfu: float = USUAL_MFU,
) -> Plan:
    """Work out what a recipe's budget buys.

    Args:
        recipe: a Recipe, or a name or path that `Recipe.load` takes.
        data: the corpus, or a folder with those of the mixture; the recipe's own unless given. Without any, speed is
            measured on random text.
        device: a device by its name, as `RTX 3090`, to estimate for; this machine, measured, unless given.
        count: how many of that device.
        mfu: the share of their dense peak that a step is taken to reach.

    Raises:
        UserError: the device is not known, the recipe does not fit the corpus, or it cannot begin here.
    """
    if not isinstance(recipe, Recipe):
        recipe = Recipe.load(recipe)
    reading = Reading.open_if_here(recipe.data, data)
    if reading is not None:
        recipe = recipe.model_copy(update={"data": reading.placed})
        require_fitting_tokenizer(recipe, reading.tokenizer)
    elif recipe.budget.unit is Unit.EPOCHS:
        raise UserError(f"budget = {recipe.budget} depends on the text; give --data CORPUS")
    windows = _UNKNOWN_WINDOWS if reading is None else reading.pass_windows
    build_budget(recipe, windows, Clock(time.monotonic()))  # what cannot be a budget is said before it is measured
    machine = this_machine(recipe, reading) if device is None else named_machine(recipe, device, count, mfu)
    budget = build_budget(recipe, windows, Clock(time.monotonic()), step_seconds=machine.pace.step)
    course = work_out(recipe, budget, machine.pace)
    epochs = course.spent.windows / windows
    figures = [*_figures(recipe, budget, course, machine, reading)]
    if reading is not None:
        each = "passes of the mixture, each" if recipe.data.mixture else "of"
        figures.append(Figure("epochs", epochs, f"{epochs:.3g}", f"{each} {reading.pass_tokens:,} tokens"))
    warnings = (*machine.warnings, *_warnings(recipe, budget, course, machine, epochs))
    return Plan(recipe.name, str(recipe.budget), machine.name, tuple(figures), warnings)


def _figures(
    recipe: Recipe, budget: Budget, course: Course, machine: Machine, reading: Reading | None
) -> Iterator[Figure]:
    model = recipe.model
    parameters, multiplied = count_parameters(model), count_multiplied(model)
    looked_up = "" if parameters == multiplied else f"; {multiplied:,} are multiplied, the rest is looked up"
    frozen = parameters - count_trained(model, recipe.freeze)
    fixed = f"; {frozen:,} are frozen" if frozen else ""
    yield Figure("parameters", parameters, f"{parameters:,}", f"counted{looked_up}{fixed}")
    per_token = flops_per_token(model, recipe.row_length)
    yield Figure("FLOPs a token", per_token, f"{per_token / 1e6:,.1f} MFLOP", "6 N + 12 L D T")
    parts = {
        "weights": machine.memory.weights,
        "gradients": machine.memory.gradients,
        "optimizer state": machine.memory.moments,
        "activations": machine.memory.activations,
        "logits and head": machine.memory.head,
    }
    for name, size in parts.items():
        yield Figure(f"memory: {name}", size, human_bytes(size), "by formula")
    total = machine.total.bytes
    if reading is not None and machine.windows_read is not None:
        total += _mapped_bytes(reading, course.spent.windows) - _mapped_bytes(reading, machine.windows_read)
    yield Figure("memory in all", total, human_bytes(total), machine.total.how)
    pace = machine.pace
    rate = recipe.batch.tokens / pace.step
    yield Figure("tokens a second", rate, f"{rate:,.0f}", machine.how)
    yield Figure("seconds a step", pace.step, f"{pace.step:.3g}", machine.how)
    yield Figure("start", pace.start, human_seconds(pace.start), machine.how)
    yield Figure("steps", course.steps, f"{course.steps:,.0f} of {recipe.batch.tokens:,} tokens", f"budget {budget}")
    yield Figure("tokens", course.tokens, f"{course.tokens:,.0f}", "steps x tokens a step")
    yield Figure("FLOPs", course.spent.flops, f"{course.spent.flops:.3g}", "tokens x FLOPs a token")
    in_time = isinstance(budget, TimeBudget) and course.seconds <= 1.01 * budget.seconds
    timed = "the budget" if in_time else "start, steps and the rest"
    yield Figure("time", course.seconds, human_seconds(course.seconds), timed)
    hours = machine.count * course.seconds / 3600
    yield Figure("device-hours", hours, f"{hours:,.2f}", f"{machine.count} of them")
    if recipe.price is None:
        yield Figure("dollars", None, "not known", "give price, dollars an hour of all devices, as price=0.4")
    else:
        dollars = course.seconds / 3600 * recipe.price
        yield Figure("dollars", dollars, human_dollars(dollars), f"at ${recipe.price:g} an hour")
    size = machine.checkpoint.bytes
    yield Figure("checkpoint", size, human_bytes(size), machine.checkpoint.how)
    kept = _checkpoints_at_once(recipe, budget, course)
    disk = kept * size + _METRIC_BYTES * course.steps
    yield Figure("disk", disk, human_bytes(int(disk)), f"{kept} checkpoints at once, and metrics")
    yield _loss(recipe, course, reading)


def _mapped_bytes(reading: Reading, windows: int) -> int:
    """What the kernel keeps mapped of text of which so many windows were read, here and there."""
    tokens = sum(corpus.train.tokens for corpus in reading.corpora)
    whole = tokens * token_dtype(reading.tokenizer.vocab_size).itemsize
    return min(whole, windows * _FAULT_AROUND_BYTES)


def _checkpoints_at_once(recipe: Recipe, budget: Budget, course: Course) -> int:
    """Those that are kept, and one more while the next is written."""
    asked = recipe.checkpoint
    pinned = how_often(asked.keep_every, budget, course.spent, course.seconds) + (recipe.schedule.kind == "wsd")
    return asked.keep + asked.keep_best + pinned + 1


def _loss(recipe: Recipe, course: Course, reading: Reading | None) -> Figure:
    """Expected, where the law speaks of such models."""
    if course.tokens <= 0:
        return Figure("validation loss", None, "none", "no step is made")
    if reading is None:
        return Figure("validation loss", None, "not known", "it depends on the text: give --data")
    if recipe.data.mixture:
        return Figure("validation loss", None, "not known", "the law speaks of one corpus, not of a mixture")
    found = expected_loss(recipe, course.tokens, reading.corpora[0])
    if found is None:
        return Figure("validation loss", None, "not known", "the law was fitted to the family daybreak-dN alone")
    shown = f"{found.loss:.2f} ± {found.band:.2f} nats a token"
    return Figure("validation loss", found.loss, shown, f"fitted law, from {LossLaw.fitted().text}")


def _warnings(recipe: Recipe, budget: Budget, course: Course, machine: Machine, epochs: float) -> Iterator[str]:
    try:
        check_schedule(recipe.schedule, budget.moment(Spent()))
    except UserError as error:
        yield f"schedule: {error}"
    if epochs > 1:
        text = "mixture" if recipe.data.mixture else "corpus"
        yield f"data: the {text} is read {epochs:.1f} times, each time in another order; more text is worth more"
    if course.steps < FEW_STEPS:
        least = smallest_useful(recipe, budget, machine.pace)
        yield (
            f"budget: {course.steps} steps are too few to learn from; {FEW_STEPS} take {least}. "
            "A smaller model, or a smaller batch.tokens, gets more of this budget"
        )
    curriculum, ramp = recipe.curriculum, recipe.batch.ramp
    end = replace(course.spent, progress=1.0, elapsed_seconds=course.seconds)
    if curriculum is not None and curriculum.length(end) != recipe.row_length:
        yield f"curriculum: it ends in rows of {curriculum.length(end)} tokens; give it shorter stages"
    if ramp is not None and recipe.batch.tokens_at(end) != recipe.batch.tokens:
        yield f"batch.ramp: it ends at {recipe.batch.tokens_at(end):,} tokens a step; make it shorter"
