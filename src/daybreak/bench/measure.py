"""`bench(recipe)`: speed, memory by micro-batch, each optimisation switched off in turn, and start-up.

Figures of a pair that is compared are medians of rounds in which both were timed, one behind the other, since a
machine's speed drifts.
"""

import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import torch

from daybreak.bench.report import Bench, Comparison, MicroBatch, Speed
from daybreak.bench.startup import time_startup
from daybreak.bench.subject import Subject, Timing, make_subject, some_tokens
from daybreak.bench.switches import NotHere, Switch, switches, tokenizer_size
from daybreak.compose import choose_execution, require_fitting_tokenizer
from daybreak.data.batches import largest_divisor
from daybreak.data.shards import Corpus
from daybreak.distributed import require_alone
from daybreak.errors import UserError
from daybreak.hardware import PrecisionName, device_name, free_memory, is_out_of_memory, peak_flops
from daybreak.model.gpt import count_parameters
from daybreak.progress import progress, say
from daybreak.recipe import Recipe
from daybreak.training.execution import Execution
from daybreak.training.flops import flops_per_token
from daybreak.training.microbatch import row_bytes

_ROUNDS = 5
_FEWEST_ROUNDS = 2
_PASSES_A_SIZE = 3  # to warm up, to time, to count memory
_SECONDS_A_COMPARISON = 6.0
_SECONDS_OF_A_LONG_PASS = 4.0


def bench(recipe: Recipe, data: Path | None) -> Bench:
    """Measure a recipe; about a minute for a small one.

    Args:
        data: a corpus; random tokens unless given.

    Raises:
        UserError: the recipe does not fit this machine, or the corpus does not fit the recipe.
    """
    require_alone()
    say(f"{recipe.name}: {count_parameters(recipe.model):,} parameters")
    corpus = None if data is None else Corpus.open(data)
    if corpus is not None:
        require_fitting_tokenizer(recipe, corpus.tokenizer)
    vocab_size = tokenizer_size(recipe.data.tokenizer) if corpus is None else corpus.tokenizer.vocab_size
    execution = choose_execution(recipe)
    _require_one_row_fits(recipe, execution)
    rows = recipe.batch.tokens // recipe.row_length
    ids = min(vocab_size or recipe.model.vocab_size, recipe.model.vocab_size)
    tokens_RT = some_tokens(recipe, corpus, execution.micro_batch, ids)

    tried = switches(recipe, execution, vocab_size)
    with progress("measuring", _tokens_to_pass(recipe, execution, tried), "tok") as advance:
        eager = execution.model_copy(update={"compile": False})
        subject = make_subject(recipe, eager, tokens_RT)
        table, ended = _by_micro_batch(subject, execution.micro_batch, advance)
        if table[-1].rows < execution.micro_batch:
            fewer = largest_divisor(rows, table[-1].rows)
            execution = execution.model_copy(update={"micro_batch": fewer})
            tried = switches(recipe, execution, vocab_size)
        if execution.compile:
            del subject  # two would need memory for both
            subject = make_subject(recipe, execution, tokens_RT)
            subject.compile()
        passes = rows // execution.micro_batch
        (timings,) = _interleaved([subject], execution.micro_batch, advance)
        comparisons = [
            Comparison(switch.name, remark=switch.reason)
            if isinstance(switch, NotHere)
            else _compare(subject, switch, execution.micro_batch, passes, advance)
            for switch in tried
        ]
    say("measuring start-up, in a process of its own")
    startup = time_startup(recipe, execution, None if corpus is None else corpus.path)
    return Bench(
        recipe=recipe.name,
        parameters=count_parameters(recipe.model),
        device=device_name(subject.device),
        execution=execution,
        row_length=recipe.row_length,
        tokens_per_step=recipe.batch.tokens,
        micro_batches=passes,
        data="random tokens" if corpus is None else str(corpus.path),
        speed=_speed(subject, timings, passes),
        by_micro_batch=table,
        micro_batch_ended=ended,
        comparisons=comparisons,
        startup=startup,
    )


def _speed(subject: Subject, timings: list[Timing], passes: int) -> Speed:
    """Of a step of so many passes, by the medians of its parts."""
    recipe, precision = subject.recipe, subject.execution.precision
    timing = Timing(median(each.gradient for each in timings), median(each.update for each in timings))
    seconds = _step_seconds(timing, passes)
    rate = recipe.batch.tokens / seconds
    peak = peak_flops(subject.device, precision)
    return Speed(
        tokens_per_second=rate,
        milliseconds=1000 * seconds,
        gradient_milliseconds=1000 * timing.gradient,
        update_milliseconds=1000 * timing.update,
        flops=rate * flops_per_token(recipe.model, recipe.row_length),
        peak_flops=peak,
        peak_is=_peak_is(subject.device, precision, peak),
    )


def _require_one_row_fits(recipe: Recipe, execution: Execution) -> None:
    """Raises UserError where a step of one row cannot fit; whether the model does is asked when it is built."""
    device = torch.device(execution.device)
    needed = row_bytes(
        recipe.model, recipe.row_length, execution.kernels, execution.precision, recompute=execution.recompute
    )
    free = free_memory(device)
    if needed > free:
        raise UserError(
            f"one row of {recipe.row_length:,} tokens of {recipe.name} keeps about {needed / 1e9:,.1f} GB; {device} "
            f"has {free / 1e9:,.1f} GB free. Try a smaller model.context, or execution.recompute=true"
        )


def _sizes(largest: int) -> list[int]:
    """1, 2, 4 … and the largest itself."""
    powers = [1 << power for power in range(largest.bit_length())]
    return [*powers, *([largest] if largest not in powers else [])]


def _tokens_to_pass(recipe: Recipe, execution: Execution, tried: list[Switch | NotHere]) -> int:
    """How many tokens will be passed through a model in all, unless passes turn out to be long."""
    compared = sum(isinstance(switch, Switch) for switch in tried)
    rows = _PASSES_A_SIZE * sum(_sizes(execution.micro_batch))
    rows += (1 + 2 * compared) * (1 + _ROUNDS) * execution.micro_batch
    return rows * recipe.row_length


def _by_micro_batch(subject: Subject, largest: int, advance: Callable[[int], None]) -> tuple[list[MicroBatch], str]:
    """Memory and speed of 1, 2, 4 … rows, and why there are no more."""
    table: list[MicroBatch] = []
    for count in _sizes(largest):
        rows = subject.rows(count)
        try:
            subject.time(rows)
            timing = subject.time(rows)
            peak = subject.peak_bytes(rows)
            advance(_PASSES_A_SIZE * rows.counted)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error) or not table:
                raise
            return table, f"{count} rows do not fit into memory"
        seconds = timing.gradient + timing.update
        table.append(MicroBatch(count, peak, rows.counted / seconds))
        if seconds > _SECONDS_OF_A_LONG_PASS and count < largest:
            return table, f"a pass of {count} takes {seconds:.0f} s; {largest} would fit by estimate"
    return table, f"{largest} fit by estimate; a long run measures which is fastest"


def _compare(subject: Subject, switch: Switch, rows: int, passes: int, advance: Callable[[int], None]) -> Comparison:
    """A run without an optimisation against the run with it, by turns."""
    try:
        other = make_subject(switch.recipe, switch.execution, subject.tokens)
        if switch.execution.compile:
            other.compile()
        ours, theirs = _interleaved([subject, other], rows, advance)
    except UserError as error:
        return Comparison(switch.name, switch.off, remark=str(error))
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        subject.model.zero_grad(set_to_none=True)
        return Comparison(switch.name, switch.off, remark="memory does not suffice for both at once")
    within, without = ([_step_seconds(timing, passes) for timing in timings] for timings in (ours, theirs))
    return Comparison(
        switch.name,
        switch.off,
        subject.recipe.batch.tokens / median(without),
        subject.recipe.batch.tokens / median(within),
        tuple(slow / fast for slow, fast in zip(without, within, strict=True)),
    )


def _interleaved(subjects: list[Subject], rows: int, advance: Callable[[int], None]) -> list[list[Timing]]:
    """Timings of each, round by round; after one round to warm up, in turns, until there are enough or time is up."""
    inputs = [subject.rows(rows) for subject in subjects]
    timings: list[list[Timing]] = [[] for _ in subjects]
    end = time.monotonic() + _SECONDS_A_COMPARISON
    for round_ in range(1 + _ROUNDS):
        for subject, its_rows, its_timings in zip(subjects, inputs, timings, strict=True):
            timing = subject.time(its_rows)
            advance(its_rows.counted)
            if round_:
                its_timings.append(timing)
        if round_ >= _FEWEST_ROUNDS and time.monotonic() > end:
            break
    return timings


def _step_seconds(timing: Timing, passes: int) -> float:
    return passes * timing.gradient + timing.update


def _peak_is(device: torch.device, precision: PrecisionName, peak: float | None) -> str:
    if peak is None:
        return f"the peak of {device_name(device)} is not known"
    if device.type == "cpu":
        return f"what a large {precision} matrix product reaches on {device_name(device)}, measured"
    return f"the dense 16-bit peak of {device_name(device)}, from its data sheet"
