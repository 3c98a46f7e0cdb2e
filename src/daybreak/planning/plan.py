"""What a recipe's budget buys, with where each figure is from, and what makes no sense in it."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import final

from daybreak.compose import build_budget, require_fitting_tokenizer
from daybreak.data.batches import windows_in
from daybreak.data.shards import Corpus
from daybreak.duration import human_seconds
from daybreak.errors import UserError
from daybreak.model.gpt import count_multiplied, count_parameters
from daybreak.planning.course import Course, Pace, smallest_useful_seconds, work_out
from daybreak.planning.expectation import expected_loss
from daybreak.planning.machine import Machine, named_machine, this_machine
from daybreak.progress import human_bytes
from daybreak.recipe import Recipe
from daybreak.scaling import LossLaw
from daybreak.training.budget import FEW_STEPS, Budget, Clock, TimeBudget
from daybreak.training.flops import flops_per_token
from daybreak.training.schedule import check_schedule
from daybreak.training.spent import Spent

_UNKNOWN_WINDOWS = 10**15  # of a corpus that is not given
_SAVED_BYTES_PER_PARAMETER = 12
_METRIC_BYTES = 400  # of each step


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


def plan(recipe: Recipe, *, data: Path | None = None, device: str | None = None, count: int = 1, mfu: float) -> Plan:
    """Work out what a recipe's budget buys.

    Args:
        data: the corpus; the recipe's own unless given. Without any, speed is measured on random text.
        device: a device by its name, as `RTX 3090`, to estimate for; this machine, measured, unless given.
        count: how many of that device.
        mfu: of that device's dense peak, the share that a step is taken to reach.

    Raises:
        UserError: the device is not known, the recipe does not fit the corpus, or it cannot begin here.
    """
    path = data or recipe.data.corpus
    corpus = None if path is None else Corpus.open(Path(path))
    if corpus is not None:
        require_fitting_tokenizer(recipe, corpus.tokenizer)
    windows = _UNKNOWN_WINDOWS if corpus is None else windows_in(len(corpus.stream("train")), recipe.data.window)
    budget = build_budget(recipe, windows, Clock(0.0))
    machine = this_machine(recipe, corpus) if device is None else named_machine(recipe, device, count, mfu)
    course = work_out(recipe, budget, machine.pace)
    figures = tuple(_figures(recipe, budget, course, machine, corpus))
    warnings = (*machine.warnings, *_warnings(recipe, budget, course, machine.pace, windows))
    return Plan(recipe.name, str(recipe.budget), machine.name, figures, warnings)


def _figures(
    recipe: Recipe, budget: Budget, course: Course, machine: Machine, corpus: Corpus | None
) -> Iterator[Figure]:
    model = recipe.model
    parameters, multiplied = count_parameters(model), count_multiplied(model)
    looked_up = "" if parameters == multiplied else f"; {multiplied:,} are multiplied, the rest is looked up"
    yield Figure("parameters", parameters, f"{parameters:,}", f"counted{looked_up}")
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
    yield Figure("memory in all", machine.total[0], human_bytes(machine.total[0]), machine.total[1])
    pace = machine.pace
    rate = recipe.batch.tokens / pace.step
    yield Figure("tokens a second", rate, f"{rate:,.0f}", machine.how)
    yield Figure("seconds a step", pace.step, f"{pace.step:.3g}", machine.how)
    yield Figure("start", pace.start, human_seconds(pace.start), machine.how)
    yield Figure("steps", course.steps, f"{course.steps:,.0f} of {recipe.batch.tokens:,} tokens", f"budget {budget}")
    yield Figure("tokens", course.tokens, f"{course.tokens:,.0f}", "steps x tokens a step")
    yield Figure("FLOPs", course.flops, f"{course.flops:.3g}", "tokens x FLOPs a token")
    timed = (
        "the budget" if isinstance(budget, TimeBudget) and budget.counts == "process" else "start, steps and the rest"
    )
    yield Figure("time", course.seconds, human_seconds(course.seconds), timed)
    hours = machine.count * course.seconds / 3600
    yield Figure("device-hours", hours, f"{hours:,.2f}", f"{machine.count} of them")
    if recipe.price is None:
        yield Figure("dollars", None, "not known", "give price, dollars an hour of all devices, as price=0.4")
    else:
        dollars = course.seconds / 3600 * recipe.price
        yield Figure("dollars", dollars, f"${dollars:,.2f}", f"at ${recipe.price:g} an hour")
    size = machine.checkpoint[0]
    yield Figure("checkpoint", size, human_bytes(size), machine.checkpoint[1])
    kept = recipe.checkpoint.keep + 1 + (recipe.schedule.kind == "wsd")  # one more while the next is written
    disk = kept * size + _METRIC_BYTES * course.steps
    yield Figure("disk", disk, human_bytes(int(disk)), f"{kept} checkpoints at once, and metrics")
    yield _loss(recipe, course, corpus)
    if corpus is not None:
        epochs = course.tokens / max(1, len(corpus.stream("train")))
        yield Figure("epochs", epochs, f"{epochs:.3g}", f"of {len(corpus.stream('train')):,} tokens")


def _loss(recipe: Recipe, course: Course, corpus: Corpus | None) -> Figure:
    """Expected, where the law speaks of such models."""
    if course.tokens <= 0:
        return Figure("validation loss", None, "none", "no step is made")
    found = expected_loss(recipe, course.tokens, corpus)
    if found is None:
        return Figure("validation loss", None, "not known", "the law was fitted to the family daybreak-dN alone")
    shown = f"{found.loss:.2f} ± {found.band:.2f} nats a token"
    return Figure("validation loss", found.loss, shown, f"fitted law, from {LossLaw.fitted().text}")


def _warnings(recipe: Recipe, budget: Budget, course: Course, pace: Pace, windows: int) -> Iterator[str]:
    try:
        check_schedule(recipe.schedule, budget.moment(Spent()))
    except UserError as error:
        yield f"schedule: {error}"
    epochs = course.tokens / recipe.data.window / windows
    if epochs > 1:
        yield f"data: the corpus is read {epochs:.1f} times, each time in another order; more text is worth more"
    if course.steps < FEW_STEPS:
        enough = smallest_useful_seconds(recipe, budget, pace)
        yield (
            f"budget: {course.steps:.0f} steps are too few to learn from; {FEW_STEPS} take {human_seconds(enough)}. "
            "A smaller model, or a smaller batch.tokens, gets more of this budget"
        )
    curriculum, ramp = recipe.curriculum, recipe.batch.ramp
    end = Spent(
        steps=int(course.steps),
        tokens=int(course.tokens),
        flops=course.flops,
        train_seconds=course.steps * pace.step,
        elapsed_seconds=course.seconds,
        progress=1.0,
    )
    if curriculum is not None and curriculum.length(end) != recipe.row_length:
        yield f"curriculum: it ends in rows of {curriculum.length(end)} tokens; give it shorter stages"
    if ramp is not None and recipe.batch.tokens_at(end) != recipe.batch.tokens:
        yield f"batch.ramp: it ends at {recipe.batch.tokens_at(end):,} tokens a step; make it shorter"
