"""What stands between a run's parts and its first step: compilation, and a pass that is timed and thrown away."""

from collections.abc import Sequence

from torch import nn

from daybreak.data.batches import Batches, Rows
from daybreak.distributed import Ranks
from daybreak.hardware import is_out_of_memory
from daybreak.model.gpt import GPT
from daybreak.progress import say
from daybreak.recipe import Recipe
from daybreak.training.budget import Rates
from daybreak.training.compiling import compile_blocks, keep_compiled_code, time_micro_batch, wrap_blocks
from daybreak.training.execution import Execution
from daybreak.training.microbatch import halve_micro_batch
from daybreak.training.spent import Spent


def warmed_up(
    recipe: Recipe,
    execution: Execution,
    model: GPT,
    forward: nn.Module,
    batches: Batches,
    spent: Spent,
    rates: Rates,
    ranks: Ranks,
) -> tuple[Execution, float]:
    """Compile and time as `_try_a_micro_batch` does, with fewer rows at once where memory does not suffice.

    Returns:
        The execution as it turned out; seconds of a full step, 0 if it was not timed.
    """
    lengths = recipe.row_lengths if execution.compile else recipe.row_lengths[-1:]
    while True:
        shapes = batches.shapes(spent.windows, lengths)
        rows = shapes[-1]  # full ones: if they fit into memory, all do
        try:
            execution, seconds = _try_a_micro_batch(recipe, ranks, execution, model, forward, shapes)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
        else:
            micro_batches = rates.full.tokens / (ranks.count * rows.inputs.numel())
            return execution, seconds * micro_batches
        model.zero_grad(set_to_none=True)
        half = halve_micro_batch(batches, rows.inputs.device, ranks.count)
        say(f"warning: memory does not suffice for {len(rows.inputs)} rows at once; trying {half}")
        execution = execution.model_copy(update={"micro_batch": half})


def _try_a_micro_batch(
    recipe: Recipe, ranks: Ranks, execution: Execution, model: GPT, forward: nn.Module, shapes: Sequence[Rows]
) -> tuple[Execution, float]:
    """Compile, and time a micro-batch where that is asked for; the model stays as it is.

    Args:
        shapes: a micro-batch of each shape that is to be compiled; the last is timed.

    Returns:
        The execution, without compilation if that failed on some rank; seconds of a micro-batch, 0 if not timed.
    """
    rows, device = shapes[-1], shapes[-1].inputs.device
    if execution.compile:
        ranks.enter("compilation")
        keep_compiled_code()
        compiles = compile_blocks(model, shapes, device, execution.precision, recompute=execution.recompute)
        failed = ranks.any(not compiles)
        if failed:
            say("training goes on without compilation")
            wrap_blocks(model, compiled=False, recompute=execution.recompute)
        execution = execution.model_copy(update={"compile": not failed})
    ranks.enter("the first pass")
    # DDP orders its buckets by the first gradients; passing some now makes a resumed run's bits those of the first.
    if ranks.count == 1 and recipe.budget_seconds is None:
        return execution, 0.0
    return execution, time_micro_batch(forward, rows, device, execution.precision)
