"""How blocks run: as they are, recomputed in the backward pass, or compiled; and how long a micro-batch takes."""

import os
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from daybreak.data.batches import Rows
from daybreak.data.download import cache_folder
from daybreak.duration import human_seconds
from daybreak.hardware import PrecisionName, autocast, is_out_of_memory
from daybreak.model.attention import Attention
from daybreak.model.cache import Cache
from daybreak.model.gpt import GPT
from daybreak.model.head import softmax_gradient, softmax_gradient_to_compile
from daybreak.model.position import rotary_tables
from daybreak.progress import say

if TYPE_CHECKING:
    from torch.nn.attention.flex_attention import BlockMask


def time_micro_batch(model: nn.Module, rows: Rows, device: torch.device, precision: PrecisionName) -> float:
    """Seconds of a forward and backward pass, once the first, slow one is over. Leaves the model as it was."""
    seconds = 0.0
    for _ in range(2):
        began = time.perf_counter()
        with autocast(device, precision):
            loss = model(rows.inputs, rows.targets, rows.dropout_seeds)
        loss.backward()
        model.zero_grad(set_to_none=True)
        loss.item()  # waits for the device
        seconds = time.perf_counter() - began
    return seconds


def wrap_blocks(model: GPT, *, compiled: bool, recompute: bool) -> None:
    """Let every block run as it is, or compiled, and hold what its backward pass needs or compute it anew.

    On a GPU the loss is compiled too; a CPU's is bound by the cache, which it minds by itself.
    """
    head = model.head
    on_gpu = model.embedding.weight.is_cuda
    head.softmax_gradient = (
        torch.compile(softmax_gradient_to_compile, dynamic=False) if compiled and on_gpu else softmax_gradient
    )
    for block in model.blocks:
        block.__dict__.pop("forward", None)
        # The forward alone: FSDP2 gathers and frees parameters around it, which no compiler must see.
        forward = torch.compile(block.forward, dynamic=False) if compiled else block.forward
        if compiled or recompute:
            block.forward = partial(_recomputed, forward) if recompute else forward


def _recomputed(
    forward: Callable[..., Tensor],
    x_BTD: Tensor,
    seeds_B: Tensor | None = None,
    cache: Cache | None = None,
    extra_BTE: Tensor | None = None,
    documents: "Tensor | BlockMask | None" = None,
) -> Tensor:
    """Keep only the input for the backward pass (Chen et al. 2016). Dropout is a function, so it drops the same."""
    if not torch.is_grad_enabled():
        return forward(x_BTD, seeds_B, cache, extra_BTE, documents)
    output_BTD: Tensor = checkpoint(
        forward, x_BTD, seeds_B, cache, extra_BTE, documents, use_reentrant=False, preserve_rng_state=False
    )
    return output_BTD


def _kinds_of_blocks(model: GPT) -> int:
    """Graphs that blocks make of one shape: by their attention, what of them is frozen, and what needs a gradient."""
    outside = ("blocks.", "final_norm.", "head.")
    learns = any(p.requires_grad for name, p in model.named_parameters() if not name.startswith(outside))
    kinds = set()
    for block in model.blocks:
        attention, trained = block.attention, tuple(parameter.requires_grad for parameter in block.parameters())
        assert isinstance(attention, Attention)
        kinds.add((attention.window, attention.stride, attention.value_gate is None, trained, learns))
        learns = learns or any(trained)
    return len(kinds)


def keep_compiled_code() -> None:
    """Let the compiler keep its work in the user's cache, for later runs, unless the person named a place."""
    if "TORCHINDUCTOR_CACHE_DIR" in os.environ:
        return
    folder = cache_folder() / "compiled"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        say(f"warning: {folder} cannot be made ({error}); compiled code is kept where torch keeps it")
        return
    os.environ["TORCHINDUCTOR_CACHE_DIR"] = str(folder)


def compile_blocks(
    model: GPT, shapes: Sequence[Rows], device: torch.device, precision: PrecisionName, *, recompute: bool = False
) -> bool:
    """Compile each block for the run's shapes, tried at once; False if it cannot be done here.

    A failure is said aloud and leaves the model eager, with its gradients cleared.

    Args:
        shapes: a micro-batch of each shape that is trained on; in the last one, the loss is measured too.
    """
    began = time.monotonic()
    # Twice what is known of now, since memory may yet halve the micro-batch.
    graphs = 2 * (len(shapes) + 1) * _kinds_of_blocks(model)
    torch._dynamo.reset()  # of models that this process trained before
    torch._dynamo.config.recompile_limit = max(torch._dynamo.config.recompile_limit, graphs)
    torch._dynamo.config.fail_on_recompile_limit_hit = True
    torch.compiler.assume_constant_result(rotary_tables)  # type: ignore[no-untyped-call]
    wrap_blocks(model, compiled=True, recompute=recompute)
    try:
        for rows in shapes:
            with autocast(device, precision):
                loss = model(rows.inputs, rows.targets, rows.dropout_seeds)
            loss.backward()
        with torch.no_grad(), autocast(device, precision):
            model(shapes[-1].inputs, shapes[-1].targets)
    except Exception as error:  # compilers fail in many ways; a fault of our own shows again in the eager run
        if is_out_of_memory(error):
            raise
        say(f"warning: compilation failed, going on without it: {type(error).__name__}: {str(error)[:300]}")
        wrap_blocks(model, compiled=False, recompute=recompute)
        return False
    finally:
        model.zero_grad(set_to_none=True)
    say(f"compiled in {human_seconds(time.monotonic() - began)}")
    return True
