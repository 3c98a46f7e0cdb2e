"""How a run is executed: device, precision, compilation, micro-batch, threads.

Chosen once, kept in the run, and used again on resume: the same choices on the same kind of
machine give the same bits. None of them changes what a step computes.
"""

import os
import platform
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Annotated, Literal, Self, final

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from daybreak.configuration import Configuration, Size
from daybreak.data.batches import Rows, largest_divisor
from daybreak.data.download import cache_folder
from daybreak.duration import human_seconds
from daybreak.errors import UserError
from daybreak.hardware import (
    PrecisionName,
    apply_precision,
    autocast,
    choose_device,
    choose_precision,
    is_out_of_memory,
)
from daybreak.model.cache import Cache
from daybreak.model.gpt import GPT, ModelConfig
from daybreak.model.kernels import Kernels
from daybreak.progress import say
from daybreak.training.microbatch import fitting_micro_batch

_SECONDS_WORTH_COMPILING = 600.0
# Larger chunks add fewer gradients of the head together, and take more memory (docs/log.md).
_LOSS_ROWS = {"cpu": 1024, "cuda": 8192, "mps": 2048}

# Up to here a CPU is half as fast again without its fused kernel in bf16; in fp32 it never is.
_LENGTH_TO_WRITE_ATTENTION_OUT = 128

Threads = Annotated[int, Field(gt=0, le=1024)]


@final
class ExecutionConfig(Configuration):
    """What a recipe may say about execution; `auto` leaves it to the machine.

    Attributes:
        micro_batch: rows that pass through the model at once, on one rank; in a long run `auto` tries which is fastest.
        loss_rows: rows whose logits the loss holds at once; 0 holds all.
        threads: of the CPU; torch's own choice unless stated.
        deterministic: ask torch for algorithms with equal bits on CUDA too.
        fused_attention: torch's fused kernels; false writes attention out, which short rows on a CPU like in bf16.
        fused_optimizer: AdamW in one kernel; false is torch's default way.
        recompute: keep of each block only what goes in, and compute it once more in the backward pass.
        weights: what a training pass reads. `bf16`: copies, cast once a micro-batch, with bf16 from block to block too;
            the weights that are updated, saved and evaluated are fp32, and so are gradients and moments.
    """

    device: str = "auto"
    precision: Literal["auto", "fp32", "tf32", "bf16", "fp16"] = "auto"
    compile: bool | Literal["auto"] = "auto"
    micro_batch: Size | Literal["auto"] = "auto"
    loss_rows: Annotated[int, Field(ge=0)] | Literal["auto"] = "auto"
    threads: Threads | None = None
    deterministic: bool = False
    fused_attention: bool | Literal["auto"] = "auto"
    fused_optimizer: bool = True
    recompute: bool = False
    weights: Literal["fp32", "bf16"] = "fp32"


@final
class Execution(Configuration):
    """The choices as made; kept in `execution.json`."""

    device: str
    precision: PrecisionName
    compile: bool
    micro_batch: Size
    loss_rows: int = Field(ge=0)
    threads: Threads
    deterministic: bool
    fused_attention: bool = True
    fused_optimizer: bool = True
    recompute: bool = False
    weights: Literal["fp32", "bf16"] = "fp32"
    ranks: Size
    torch_version: str
    machine: str

    @property
    def kernels(self) -> Kernels:
        """What the model is to know of these choices."""
        return Kernels(self.loss_rows, self.fused_attention, bf16_copies=self.weights == "bf16")

    @classmethod
    def choose(
        cls, config: ExecutionConfig, model: ModelConfig, *, rows: int, length: int, seconds: float | None, ranks: int
    ) -> Self:
        """Fill in what was left to the machine.

        Args:
            rows: rows in a step on one rank.
            length: tokens in a row.
            seconds: how long the run may take, if that is known.
        """
        device = choose_device(config.device)
        precision = choose_precision(config.precision, device, model.dim)
        if config.weights == "bf16" and precision != "bf16":
            raise UserError(f"execution.weights = bf16 needs execution.precision = bf16; here it is {precision}")
        loss_rows = _LOSS_ROWS[device.type] if config.loss_rows == "auto" else config.loss_rows
        short = device.type == "cpu" and precision == "bf16" and length <= _LENGTH_TO_WRITE_ATTENTION_OUT
        fused_attention = not short if config.fused_attention == "auto" else config.fused_attention
        kernels = Kernels(loss_rows, fused_attention, bf16_copies=config.weights == "bf16")
        if config.micro_batch == "auto":
            micro_batch = fitting_micro_batch(
                rows,
                model,
                length=length,
                kernels=kernels,
                device=device,
                precision=precision,
                recompute=config.recompute,
            )
        else:
            micro_batch = largest_divisor(rows, config.micro_batch)
            if micro_batch != config.micro_batch:
                say(f"execution.micro_batch = {config.micro_batch} does not divide {rows} rows; using {micro_batch}")
        worth_it = device.type == "cuda" and (seconds is None or seconds >= _SECONDS_WORTH_COMPILING)
        return cls(
            device=str(device),
            precision=precision,
            compile=worth_it if config.compile == "auto" else config.compile,
            micro_batch=micro_batch,
            loss_rows=loss_rows,
            threads=config.threads or torch.get_num_threads(),
            deterministic=config.deterministic,
            fused_attention=fused_attention,
            fused_optimizer=config.fused_optimizer,
            recompute=config.recompute,
            weights=config.weights,
            ranks=ranks,
            torch_version=torch.__version__,
            machine=platform.machine(),
        )

    def apply(self, local_rank: int | None = None) -> torch.device:
        """Set torch's global switches accordingly; returns the device, one a rank where several share a node's."""
        torch.set_num_threads(self.threads)
        if self.deterministic != torch.are_deterministic_algorithms_enabled():  # asking imports the compiler
            torch.use_deterministic_algorithms(self.deterministic)
        apply_precision(self.precision)
        device = torch.device(self.device)
        if device.type == "cuda" and local_rank is not None:
            if local_rank >= torch.cuda.device_count():
                raise UserError(
                    f"rank {local_rank} of this node has no GPU of its own: there are {torch.cuda.device_count()}; "
                    "start as many ranks with --nproc-per-node"
                )
            device = torch.device("cuda", local_rank)
            torch.cuda.set_device(device)
        return device


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
    """Let every block run as it is, or compiled, and hold what its backward pass needs or compute it anew."""
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
) -> Tensor:
    """Keep only the input for the backward pass (Chen et al. 2016). Dropout is a function, so it drops the same."""
    if not torch.is_grad_enabled():
        return forward(x_BTD, seeds_B, cache, extra_BTE)
    output_BTD: Tensor = checkpoint(
        forward, x_BTD, seeds_B, cache, extra_BTE, use_reentrant=False, preserve_rng_state=False
    )
    return output_BTD


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
    graphs = 2 * (len(shapes) + 1) * len(set(model.config.attention.windows))
    torch._dynamo.config.recompile_limit = max(torch._dynamo.config.recompile_limit, graphs)
    torch._dynamo.config.fail_on_recompile_limit_hit = True
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
