"""From a recipe to the parts of a run: the checks and the sizes that bind them together."""

import platform
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from daybreak.data.batches import Batches, largest_divisor
from daybreak.data.reading import Reading
from daybreak.data.shards import Corpus
from daybreak.data.tokenizer import Tokenizer
from daybreak.distributed import ALONE, Ranks, build_shared
from daybreak.duration import require_positive
from daybreak.errors import UserError
from daybreak.evaluate.loss import MixtureValidation, Validation, row_starts
from daybreak.hardware import device_name, free_memory, is_here
from daybreak.model.gpt import GPT, count_parameters
from daybreak.progress import say
from daybreak.recipe import Recipe
from daybreak.training.budget import Budget, Clock, Rates, TimeBudget, make_count_budget
from daybreak.training.compiling import wrap_blocks
from daybreak.training.diagnostics import ROWS, Diagnostics
from daybreak.training.execution import Execution, ExecutionConfig
from daybreak.training.flops import flops_per_token
from daybreak.training.freezing import count_trained, freeze, frozen_names
from daybreak.training.growth import Growth, recorded_sizes
from daybreak.training.optimizer import build_optimizers, moment_bytes
from daybreak.training.probing import Allowance, is_worth_probing, probe_micro_batch
from daybreak.training.spent import Spent

SAVED_BYTES_PER_SECOND = 200e6  # writing and hashing, until a save was timed
_WEIGHT_BYTES = 4
_GRADIENT_BYTES = 4
_READ_BYTES_PER_TOKEN = 32  # an input and a target, read ahead and in use


def choose_execution(recipe: Recipe, ranks: Ranks = ALONE) -> Execution:
    """Fill in what the recipe leaves to the machine."""
    return Execution.choose(
        recipe.execution,
        recipe.model,
        parameter_bytes=_learner_bytes(recipe, ranks),
        rows=_rows_per_rank(recipe, ranks.count),
        length=recipe.row_length,
        seconds=recipe.budget_seconds,
        ranks=ranks.count,
    )


def execution_again(
    recorded: Execution, micro_batch: int | None, before: ExecutionConfig, recipe: Recipe, ranks: Ranks
) -> Execution:
    """The choices a run was begun with, but for what the recipe says otherwise now; differences are said aloud.

    Args:
        micro_batch: as last used, where a checkpoint tells.
        before: what the run's recipe said about execution.
    """
    was, now = (
        f"torch {recorded.torch_version} on {recorded.machine}",
        f"torch {torch.__version__} on {platform.machine()}",
    )
    if was != now:
        say(f"warning: the run was begun with {was}, this is {now}; losses may differ in their last digits")
    chosen = choose_execution(recipe, ranks)
    if before.device != recipe.execution.device:
        return chosen  # none of another device's choices need fit
    if not is_here(torch.device(recorded.device)):
        say(f"warning: the run used {recorded.device}, which is not here; losses will differ in their last digits")
        return chosen
    changed = {
        name: getattr(chosen, name)
        for name in ExecutionConfig.model_fields
        if getattr(before, name) != getattr(recipe.execution, name)
    }
    if "precision" in changed and recipe.execution.fused_attention == "auto":
        changed["fused_attention"] = chosen.fused_attention
    if ranks.count != recorded.ranks:
        say(f"warning: the run used {recorded.ranks} ranks, now {ranks.count}; losses will differ in their last digits")
    changed = {"micro_batch": micro_batch or recorded.micro_batch, **changed, "ranks": ranks.count}
    again = recorded.model_copy(update=changed)
    # Of other rows a rank, the micro-batch of before may be no divisor.
    fitting = largest_divisor(_rows_per_rank(recipe, ranks.count), again.micro_batch)
    return again.model_copy(update={"micro_batch": fitting})


def _rows_per_rank(recipe: Recipe, ranks: int) -> int:
    """Full rows of the smallest step on each rank.

    Raises:
        UserError: rows of some length do not divide among the ranks.
    """
    setting = "batch.tokens" if recipe.batch.ramp is None else "batch.ramp.start"
    tokens, window = recipe.batch.smallest, recipe.data.window
    for length in recipe.row_lengths:
        rows, remainders = tokens // window * (window // length), tokens // window if window % length else 0
        if rows % ranks or remainders % ranks:
            nearest = max(1, round(tokens / (ranks * window))) * ranks * window
            raise UserError(
                f"{setting} = {tokens} is {rows} rows of {length} tokens, which do not divide "
                f"among {ranks} ranks; the nearest that does is {setting}={nearest}"
            )
    return tokens // recipe.row_length // ranks


def build_learner(
    recipe: Recipe, execution: Execution, device: torch.device, ranks: Ranks, separator: int | None
) -> tuple[GPT, tuple[torch.optim.Optimizer, ...]]:
    """An initialised model as its ranks hold it, and the optimizers of its parameters.

    Args:
        separator: of documents that are kept apart, by `DataConfig.separator`.

    Raises:
        UserError: the model or its batch cannot possibly fit into memory.
    """
    require_memory(recipe, device, ranks)
    model = build_shared(
        recipe.model, recipe.seed, device, execution.kernels, recipe.parallel, ranks, recipe.prediction, separator
    )
    freeze(model, frozen_names(recipe.model, recipe.freeze))
    wrap_blocks(model, compiled=False, recompute=execution.recompute)
    return model, build_optimizers(recipe.optimizer, model, fused=execution.fused_optimizer)


def probed(
    recipe: Recipe, execution: Execution, budget: Budget, forward: nn.Module, batches: Batches, ranks: Ranks
) -> Execution:
    """With the micro-batch that trains fastest, where the recipe leaves it to the machine and is long enough to try."""
    seconds = budget.seconds if isinstance(budget, TimeBudget) else None
    steps = int(budget.moment(Spent()).steps_total)
    if not is_worth_probing(recipe.execution, seconds, steps):
        return execution
    micro_batch = probe_micro_batch(
        forward,
        list(batches.step(0, windows=recipe.batch.smallest // recipe.data.window)),
        execution,
        Allowance(seconds, rows=steps * batches.rows_per_rank),
        kept_bytes=(_GRADIENT_BYTES + moment_bytes(recipe.optimizer)) * _trained_per_rank(recipe, ranks),
        ranks=ranks,
    )
    return execution.model_copy(update={"micro_batch": micro_batch})


def build_batches(
    recipe: Recipe, execution: Execution, reading: Reading, device: torch.device, ranks: Ranks
) -> Batches:
    return Batches(
        reading.windows,
        reading.order(recipe.seed),
        length=recipe.row_length,
        windows_per_step=recipe.batch.smallest // recipe.data.window,
        micro_batch=execution.micro_batch,
        seed=recipe.seed,
        device=device,
        rank=ranks.rank,
        ranks=ranks.count,
        counted_per_row=recipe.prediction.count,
    )


def build_budget(
    recipe: Recipe,
    windows: int,
    clock: Clock,
    recorded: Sequence[Mapping[str, Any]] = (),
    step_seconds: float = 0.0,
) -> Budget:
    """The run's budget.

    Args:
        windows: in an epoch, or a pass of the mixture.
        recorded: training records of earlier sittings; a step done again follows the progress and the size it had.
        step_seconds: what a full step may take, until one was done.
    """
    flops = {length: mean_flops_per_token(recipe, length) for length in recipe.row_lengths}
    steps = Growth(recipe.batch, recipe.curriculum, recipe.data.window, flops)
    grows = recipe.batch.ramp is not None or recipe.curriculum is not None
    growth = replace(steps, recorded=recorded_sizes(recorded, steps)) if grows else None
    rates = Rates(steps.full, windows_per_epoch=windows, parameters=count_parameters(recipe.model))
    seconds = recipe.budget_seconds
    if seconds is None:
        return make_count_budget(recipe.budget, rates, growth)
    require_positive(recipe.budget, "budget")
    return TimeBudget(
        seconds,
        recipe.counts,
        clock,
        rates,
        growth,
        evaluation_steps=recipe.evaluation.tokens / recipe.batch.tokens,
        step_seconds=step_seconds,
        save_seconds=checkpoint_bytes(recipe) / SAVED_BYTES_PER_SECOND,
        recorded={record["step"] - 1: (record["progress"], record["progress_share"]) for record in recorded},
    )


def checkpoint_bytes(recipe: Recipe) -> int:
    """About what a checkpoint takes: weights and the optimizer's state."""
    trained = count_trained(recipe.model, recipe.freeze)
    return _WEIGHT_BYTES * count_parameters(recipe.model) + moment_bytes(recipe.optimizer) * trained


def mean_flops_per_token(recipe: Recipe, length: int) -> float:
    """In rows of `length` tokens and what remains of each window."""
    rest = recipe.data.window % length
    flops = flops_per_token(recipe.model, length)
    if not rest:
        return flops
    share = rest / recipe.data.window
    return (1 - share) * flops + share * flops_per_token(recipe.model, rest)


def build_validation(
    recipe: Recipe, execution: Execution, reading: Reading, device: torch.device, sample: int | None
) -> Validation | MixtureValidation:
    """The rows to measure the loss on: about `sample` tokens of the validation splits, or all of them.

    Of a mixture every corpus gives its part of them, by the size of its split, whatever its epochs.
    """

    def of(corpus: Corpus) -> Validation:
        stream = corpus.stream("validation")
        if len(stream) < 2:
            raise UserError(
                f"{corpus.path} has no validation text to measure the loss on; prepare it with a larger --val"
            )
        part = None if sample is None else -(-sample * len(stream) // reading.validation_tokens)
        return Validation(
            every=recipe.evaluation.every,
            stream=stream,
            starts=row_starts(len(stream), recipe.row_length, part),
            length=recipe.row_length,
            batch=execution.micro_batch,
            token_bytes=corpus.tokenizer.token_bytes,
            device=device,
            precision=execution.precision,
        )

    if not recipe.data.mixture:
        return of(reading.corpora[0])
    sources = dict(zip(reading.names, map(of, reading.corpora), strict=True))
    return MixtureValidation(recipe.evaluation.every, sources)


def build_diagnostics(recipe: Recipe, execution: Execution, validation: Validation | MixtureValidation) -> Diagnostics:
    """Sizes by layer, on the first rows of validation; of a mixture, those of its first corpus."""
    measured = validation if isinstance(validation, Validation) else next(iter(validation.sources.values()))
    at_once = measured.batch if execution.compile else ROWS  # a compiled model is given a shape that it knows
    tokens = measured.first_rows(-(-ROWS // at_once) * at_once)
    return Diagnostics(recipe.diagnostics.every, tokens, at_once, execution.precision)


def require_memory(recipe: Recipe, device: torch.device, ranks: Ranks) -> None:
    """Raises UserError for a model or a batch that cannot possibly fit."""
    free = free_memory(device)
    needed = {
        "the model, its gradient and its optimizer": _learner_bytes(recipe, ranks),
        f"a step of batch.tokens = {recipe.batch.tokens:,}": _READ_BYTES_PER_TOKEN * recipe.batch.tokens,
    }
    for what, size in needed.items():
        if size > free:
            raise UserError(
                f"{what} takes {size / 1e9:,.1f} GB; {device} has {free / 1e9:,.1f} GB free; take less of it: "
                "daybreak plan says what each part takes"
            )


def _learner_bytes(recipe: Recipe, ranks: Ranks) -> int:
    """What weights, gradients and the optimizer's state take on each rank."""
    weights = _WEIGHT_BYTES * _per_rank(count_parameters(recipe.model), recipe, ranks)
    return weights + (_GRADIENT_BYTES + moment_bytes(recipe.optimizer)) * _trained_per_rank(recipe, ranks)


def _trained_per_rank(recipe: Recipe, ranks: Ranks) -> int:
    return _per_rank(count_trained(recipe.model, recipe.freeze), recipe, ranks)


def _per_rank(parameters: int, recipe: Recipe, ranks: Ranks) -> int:
    if recipe.parallel.kind == "fsdp":
        return parameters // (ranks.local_count if recipe.parallel.replicate else ranks.count)
    return parameters


def require_fitting_tokenizer(recipe: Recipe, tokenizer: Tokenizer) -> None:
    """Raises UserError for a corpus whose tokenizer the recipe was not made for, or cannot hold."""
    wanted, vocab_size = recipe.data.tokenizer, recipe.model.vocab_size
    if tokenizer.vocab_size > vocab_size and recipe.init is None:  # of what it begins from, more is to be said
        raise UserError(
            f"the corpus's tokenizer {tokenizer.name} has {tokenizer.vocab_size:,} ids, but model.vocab_size = "
            f"{vocab_size:,}; add model.vocab_size={tokenizer.padded_vocab_size}, or use another corpus"
        )
    if wanted is not None and wanted not in (tokenizer.name, tokenizer.base_name):
        raise UserError(
            f"recipe {recipe.name} is for tokenizer {wanted}, but the corpus was prepared with {tokenizer.name}; "
            f"prepare it with --tokenizer {wanted}, or add data.tokenizer={tokenizer.base_name} "
            f"model.vocab_size={tokenizer.padded_vocab_size}"
        )


def summary(
    path: Path, recipe: Recipe, budget: Budget, execution: Execution, device: torch.device, ranks: Ranks
) -> str:
    """What is about to be trained, and on what."""
    accumulation = _rows_per_rank(recipe, ranks.count) // execution.micro_batch
    in_rows = "" if recipe.curriculum is None else f", in rows of {', '.join(map(str, recipe.row_lengths))} tokens"
    at_first = "" if recipe.batch.ramp is None else " at first"
    trained = count_trained(recipe.model, recipe.freeze)
    frozen = f", {budget.rates.parameters - trained:,} of them frozen" if recipe.freeze else ""
    together = f"{ranks.count} ranks ({recipe.parallel.kind}), each " if ranks.count > 1 else ""
    return (
        f"{recipe.name} -> {path}: {budget.rates.parameters:,} parameters{frozen}, budget {budget}\n"
        f"{together}{device_name(device)}, {execution.precision}{', compiled' if execution.compile else ''}, "
        f"micro-batch {execution.micro_batch} x {recipe.row_length} tokens, accumulated {accumulation}x"
        f"{at_first}{in_rows}"
    )
