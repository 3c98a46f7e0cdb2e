"""How a run is executed: device, precision, compilation, micro-batch, threads.

Chosen once, kept in the run, and used again on resume: the same choices on the same kind of
machine give the same bits. None of them changes what a step computes.
"""

import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Literal, Self, final

import torch
from pydantic import Field

from daybreak.configuration import Configuration, Size
from daybreak.data.batches import largest_divisor
from daybreak.errors import UserError
from daybreak.hardware import (
    PrecisionName,
    apply_precision,
    choose_device,
    choose_precision,
    keep_freed_memory,
)
from daybreak.model.gpt import ModelConfig
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
        device: `cpu`, `cuda`, `cuda:1`, `mps`; the best that is here unless given.
        precision: what products are computed in; `auto` is bf16 where the device multiplies it itself (on a CPU from a
            width of 128), else fp16 on CUDA and fp32 elsewhere.
        compile: blocks, by torch.compile; `auto` on CUDA, unless the run takes less than ten minutes.
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
        cls,
        config: ExecutionConfig,
        model: ModelConfig,
        *,
        parameter_bytes: int,
        rows: int,
        length: int,
        seconds: float | None,
        ranks: int,
    ) -> Self:
        """Fill in what was left to the machine.

        Args:
            parameter_bytes: what weights, gradients and the optimizer's state take on one rank.
            rows: rows in a step on one rank.
            length: tokens in a row.
            seconds: how long the run may take, if that is known.
        """
        device = choose_device(config.device)
        precision = choose_precision(config.precision, device, model.dim)
        if config.weights == "bf16" and precision != "bf16":
            raise UserError(
                f"execution.weights = bf16 needs execution.precision = bf16 as well; here it is {precision}"
            )
        loss_rows = _LOSS_ROWS[device.type] if config.loss_rows == "auto" else config.loss_rows
        short = device.type == "cpu" and precision == "bf16" and length <= _LENGTH_TO_WRITE_ATTENTION_OUT
        fused_attention = not short if config.fused_attention == "auto" else config.fused_attention
        kernels = Kernels(loss_rows, fused_attention, bf16_copies=config.weights == "bf16")
        if config.micro_batch == "auto":
            micro_batch = fitting_micro_batch(
                rows,
                model,
                parameter_bytes=parameter_bytes,
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
        if device.type == "cuda" and self.deterministic:  # without it torch refuses the products of cuBLAS
            os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        if device.type == "cpu":
            keep_freed_memory()
        if device.type == "cuda" and local_rank is not None:
            if local_rank >= torch.cuda.device_count():
                raise UserError(
                    f"rank {local_rank} of this node has no GPU of its own: there are {torch.cuda.device_count()}; "
                    "start as many ranks with --nproc-per-node"
                )
            device = torch.device("cuda", local_rank)
            torch.cuda.set_device(device)
        return device


@contextmanager
def threads_restored() -> Iterator[None]:
    """A run that asks for other threads leaves those of the process's next run as they were."""
    before = torch.get_num_threads()
    try:
        yield
    finally:
        torch.set_num_threads(before)
