"""How a run is executed: device, precision, compilation, micro-batch, threads.

Chosen once, kept in the run, and used again on resume: the same choices on the same kind of
machine give the same bits. None of them changes what a step computes.
"""

import platform
import time
from typing import Annotated, Literal, Self, final

import torch
from pydantic import Field
from torch import nn

from daybreak.configuration import Configuration, Size
from daybreak.data.batches import Rows
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
from daybreak.model.gpt import GPT, ModelConfig
from daybreak.progress import say
from daybreak.training.microbatch import fitting_micro_batch, largest_divisor

_SECONDS_WORTH_COMPILING = 600.0
# On a CPU a chunk of logits stays in the cache (25 % faster at 4096 words); on a GPU chunks only save memory.
_LOSS_ROWS = {"cpu": 512, "cuda": 8192, "mps": 2048}


Threads = Annotated[int, Field(gt=0, le=1024)]


@final
class ExecutionConfig(Configuration):
    """What a recipe may say about execution; `auto` leaves it to the machine.

    Attributes:
        micro_batch: rows that pass through the model at once, on one rank; in a long run `auto` tries which is fastest.
        loss_rows: rows whose logits the loss holds at once; 0 holds all.
        threads: of the CPU; torch's own choice unless stated.
        deterministic: ask torch for algorithms with equal bits on CUDA too.
    """

    device: str = "auto"
    precision: Literal["auto", "fp32", "tf32", "bf16", "fp16"] = "auto"
    compile: bool | Literal["auto"] = "auto"
    micro_batch: Size | Literal["auto"] = "auto"
    loss_rows: Annotated[int, Field(ge=0)] | Literal["auto"] = "auto"
    threads: Threads | None = None
    deterministic: bool = False


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
    ranks: Size
    torch_version: str
    machine: str

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
        loss_rows = _LOSS_ROWS[device.type] if config.loss_rows == "auto" else config.loss_rows
        if config.micro_batch == "auto":
            micro_batch = fitting_micro_batch(
                rows, model, length=length, loss_rows=loss_rows, device=device, precision=precision
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
            ranks=ranks,
            torch_version=torch.__version__,
            machine=platform.machine(),
        )

    def apply(self, local_rank: int | None = None) -> torch.device:
        """Set torch's global switches accordingly; returns the device, one a rank where several share a node's."""
        torch.set_num_threads(self.threads)
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


def compile_blocks(model: GPT, rows: Rows, device: torch.device, precision: PrecisionName) -> bool:
    """Compile each block for the run's one shape, tried at once on `rows`; False if it cannot be done here.

    A failure is said aloud and leaves the model eager, with its gradients cleared.
    """
    began = time.monotonic()
    torch._dynamo.config.fail_on_recompile_limit_hit = True
    for block in model.blocks:
        # The forward alone: FSDP2 gathers and frees parameters around it, which no compiler must see.
        block.forward = torch.compile(block.forward, dynamic=False)
    try:
        with autocast(device, precision):
            loss = model(rows.inputs, rows.targets, rows.dropout_seeds)
        loss.backward()
        with torch.no_grad(), autocast(device, precision):
            model(rows.inputs, rows.targets)
    except Exception as error:  # compilers fail in many ways; a fault of our own shows again in the eager run
        if is_out_of_memory(error):
            raise
        say(f"warning: compilation failed, going on without it: {type(error).__name__}: {str(error)[:300]}")
        undo_compilation(model)
        return False
    finally:
        model.zero_grad(set_to_none=True)
    say(f"compiled in {human_seconds(time.monotonic() - began)}")
    return True


def undo_compilation(model: GPT) -> None:
    """Let every block run eagerly again."""
    for block in model.blocks:
        block.__dict__.pop("forward", None)
