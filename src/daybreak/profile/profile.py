"""`profile(recipe)`: the real training loop, timed by itself, then once more under torch's profiler."""

import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import final

import torch
from torch.profiler import ProfilerActivity
from torch.profiler import profile as torch_profiler

from daybreak.compose import (
    build_batches,
    choose_execution,
    require_fitting_tokenizer,
)
from daybreak.data.batches import Rows, largest_divisor
from daybreak.data.reading import Reading
from daybreak.distributed import ALONE, require_alone
from daybreak.duration import Duration, Unit
from daybreak.errors import UserError
from daybreak.hardware import device_name, is_out_of_memory, peak_flops
from daybreak.model.gpt import count_parameters
from daybreak.profile.memory import Part, memory_by_part
from daybreak.profile.routines import Routine, slowest
from daybreak.profile.shares import Shares, after_evaluations, evaluation_share
from daybreak.profile.shortened import random_corpus, shortened
from daybreak.progress import say
from daybreak.recipe import Recipe
from daybreak.sitting import Sitting, assembled
from daybreak.training import loop
from daybreak.training.budget import Clock, Rates
from daybreak.training.execution import Execution
from daybreak.training.flops import flops_per_token
from daybreak.training.growth import StepSize
from daybreak.training.metrics import read_metrics
from daybreak.training.signals import StopRequest

TRACE, SNAPSHOT = "trace.json.gz", "out-of-memory.pickle"
_TIMED_STEPS, _TIMED_EVALUATIONS_EVERY = 13, 4
_PROFILED_STEPS, _PROFILED_EVALUATIONS_EVERY = 4, 2
_SECONDS_OF_A_PASS = 2.0  # at most, by estimate; larger micro-batches are made smaller
_SHARE_OF_PEAK = 0.2
_SNAPSHOT_ENTRIES = 100_000


@final
@dataclass(frozen=True)
class Profile:
    """Where time and memory of a recipe go.

    Attributes:
        execution: with the micro-batch that was looked at.
        tokens_per_step: of the steps that were looked at; the recipe's own may be more of the same micro-batches.
        steps: under the profiler.
        on_cpu: routines by their own time on the CPU.
        on_gpu: the same on a GPU; empty without one.
        files: what was written.
    """

    recipe: str
    parameters: int
    device: str
    execution: Execution
    row_length: int
    data: str
    tokens_per_step: int
    recipe_tokens_per_step: int
    steps: int
    on_cpu: list[Routine]
    on_gpu: list[Routine]
    memory: list[Part]
    shares: Shares
    files: list[str]


def profile(recipe: Recipe, data: Path | None, out: Path) -> Profile:
    """Run a few steps with evaluations between them, twice; about half a minute for a small recipe.

    Args:
        data: a corpus, or a folder with those of the recipe's mixture; the recipe's own, or random text without one.
        out: the folder for the trace; made if it is not there.

    Raises:
        UserError: the recipe does not fit this machine, or the corpus does not fit the recipe.
    """
    require_alone()
    if out.exists() and not out.is_dir():
        raise UserError(f"--out {out} is a file; name a folder for the trace")
    say(f"{recipe.name}: {count_parameters(recipe.model):,} parameters")
    with TemporaryDirectory(prefix="daybreak-profile-") as name:
        folder = Path(name)
        found = Reading.open_if_here(recipe.data, data)
        reading, source = _random_text(recipe, folder) if found is None else (found, ", ".join(found.data.places))
        recipe = recipe.model_copy(update={"data": reading.placed})
        require_fitting_tokenizer(recipe, reading.tokenizer)
        execution = choose_execution(recipe)
        device = execution.apply()
        out.mkdir(parents=True, exist_ok=True)
        files = [str(out / TRACE)]
        with _snapshot_of_a_shortage(out / SNAPSHOT, device) as shortage:
            execution = _quick(recipe, execution, device)
            say(f"measuring the memory of a micro-batch of {execution.micro_batch}")
            rows = _first_rows(recipe, execution, reading, device)
            separator = recipe.data.separator(reading.tokenizer)
            memory = memory_by_part(recipe, execution, rows, device, separator)
            timed = shortened(recipe, execution, steps=_TIMED_STEPS, evaluate_every=_TIMED_EVALUATIONS_EVERY)
            say(f"timing {_TIMED_STEPS} steps of {timed.batch.tokens:,} tokens")
            with assembled(_sitting(timed, reading, folder / "timed"), _fitted(execution, timed)) as ready:
                loop.train(ready.parts, ready.spent)
            validated = recipe.evaluation.tokens if found is None else reading.validation_tokens
            metrics = folder / "timed" / "metrics.jsonl"
            shares = _shares(recipe, timed, ready.parts.batches.windows, validated, metrics)
            traced = shortened(recipe, execution, steps=_PROFILED_STEPS, evaluate_every=_PROFILED_EVALUATIONS_EVERY)
            say(f"profiling {_PROFILED_STEPS} steps")
            activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if device.type == "cuda" else [])]
            with (
                assembled(_sitting(traced, reading, folder / "profiled"), _fitted(execution, traced)) as ready,
                torch_profiler(activities=activities) as profiler,
            ):
                loop.train(ready.parts, ready.spent)
            shortage.found = ready.parts.batches.micro_batch < execution.micro_batch
        profiler.export_chrome_trace(files[0])
        averages = profiler.key_averages()
    return Profile(
        recipe=recipe.name,
        parameters=count_parameters(recipe.model),
        device=device_name(device),
        execution=execution,
        row_length=recipe.row_length,
        data=source,
        tokens_per_step=traced.batch.tokens,
        recipe_tokens_per_step=recipe.batch.tokens,
        steps=_PROFILED_STEPS,
        on_cpu=slowest(averages, "self_cpu_time_total"),
        on_gpu=slowest(averages, "self_device_time_total") if device.type == "cuda" else [],
        memory=memory,
        shares=shares,
        files=[*files, *([str(out / SNAPSHOT)] if shortage.found else [])],
    )


def _random_text(recipe: Recipe, folder: Path) -> tuple[Reading, str]:
    """Random letters to read, and what to call them."""
    corpus = random_corpus(recipe, folder)
    data = recipe.with_data(corpus.path).data.model_copy(update={"tokenizer": None})
    return Reading(data, (corpus,)), "random text"


def _quick(recipe: Recipe, execution: Execution, device: torch.device) -> Execution:
    """With a smaller micro-batch, where a pass of a run's own would take long."""
    peak = peak_flops(device, execution.precision)
    if peak is None:
        return execution
    row_seconds = flops_per_token(recipe.model, recipe.row_length) * recipe.row_length / (_SHARE_OF_PEAK * peak)
    quick = max(1, int(_SECONDS_OF_A_PASS / row_seconds))
    if quick >= execution.micro_batch:
        return execution
    rows = recipe.batch.tokens // recipe.row_length
    return execution.model_copy(update={"micro_batch": largest_divisor(rows, quick)})


def _fitted(execution: Execution, short: Recipe) -> Execution:
    """The execution of the recipe, with a micro-batch that divides the steps of its shortened form."""
    rows = short.batch.tokens // short.row_length
    return execution.model_copy(update={"micro_batch": largest_divisor(rows, execution.micro_batch)})


def _first_rows(recipe: Recipe, execution: Execution, reading: Reading, device: torch.device) -> Rows:
    with closing(build_batches(recipe, execution, reading, device, ALONE)) as batches:
        return next(batches.step(0))


def _sitting(recipe: Recipe, reading: Reading, folder: Path) -> Sitting:
    """Of a run that is thrown away."""
    folder.mkdir()
    return Sitting(folder, recipe, reading, Clock(time.monotonic()), StopRequest(), ALONE, accept_changes=False)


@final
@dataclass
class _Shortage:
    """Whether memory ran out, which the loop may have gone on from."""

    found: bool = False


@contextmanager
def _snapshot_of_a_shortage(path: Path, device: torch.device) -> Iterator[_Shortage]:
    """On CUDA, if memory runs out inside: what held it, for torch's own viewer. Daybreak never reads such a file."""
    shortage = _Shortage()
    if device.type != "cuda":
        yield shortage
        return
    torch.cuda.memory._record_memory_history(max_entries=_SNAPSHOT_ENTRIES)
    try:
        yield shortage
    except (RuntimeError, MemoryError) as error:
        shortage.found = is_out_of_memory(error)
        raise
    finally:
        if shortage.found:
            torch.cuda.memory._dump_snapshot(str(path))  # type: ignore[no-untyped-call]
            say(f"memory ran out; drop {path} on https://docs.pytorch.org/memory_viz to see what held it")
        torch.cuda.memory._record_memory_history(enabled=None)


def _shares(recipe: Recipe, timed: Recipe, windows: int, validated: int, metrics: Path) -> Shares:
    """From what the loop recorded; a step of the recipe is as many of the timed ones as it has tokens.

    Args:
        windows: in an epoch.
        validated: tokens of the validation split, of which an evaluation takes no more.
    """
    steps, validations = read_metrics(metrics, "train"), read_metrics(metrics, "validation")
    behind, others = after_evaluations(steps, validations)
    evaluation = median(record["seconds"] for record in validations)
    evaluation *= min(recipe.evaluation.tokens, validated) / min(timed.evaluation.tokens, validated)
    tokens, length = recipe.batch.tokens, recipe.row_length
    full = StepSize(tokens // recipe.data.window, tokens, length, tokens * flops_per_token(recipe.model, length))
    rates = Rates(full, windows_per_epoch=windows, parameters=count_parameters(recipe.model))
    step_seconds = others / 1000 * recipe.batch.tokens / timed.batch.tokens
    budget = recipe.budget if recipe.budget_seconds is None else Duration(recipe.budget_seconds, Unit.SECONDS)
    return Shares(
        step_milliseconds=others,
        first_milliseconds=steps[0]["milliseconds"],
        after_evaluation_milliseconds=behind,
        evaluation_seconds=evaluation,
        evaluation_share=evaluation_share(recipe.evaluation.every, budget, rates, step_seconds, evaluation),
    )
