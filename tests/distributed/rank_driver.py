"""Makes ranks for tests: imports torch once, then forks a process for each task whose path comes on standard input.

A rank is the command line as a person starts it, but that it may do something at a step, and tells what it saw. A task
is a JSON object: the environment, the arguments, the folder, and what `Rank` reads besides.
"""

import gc
import hashlib
import json
import math
import os
import select
import signal
import sys
import time
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
import torch._dynamo
import torch.distributed as dist
import torch.distributed.fsdp
from torch import Tensor
from torch.distributed.algorithms.ddp_comm_hooks.default_hooks import allreduce_hook
from torch.nn.parallel import DistributedDataParallel

import daybreak.hardware
import daybreak.run
import daybreak.warm_up
from daybreak.checkpoint import Tensors
from daybreak.cli import main as command_line
from daybreak.data.batches import Batches, Rows
from daybreak.model.gpt import GPT
from daybreak.training import loop, probing
from daybreak.training.metrics import Metrics
from daybreak.training.parts import Parts

_SECONDS_BETWEEN_LOOKS = 0.02


def make_ranks() -> None:
    """Fork a rank for each line; leave its exit code in its folder. The end of standard input ends them all."""
    folders: dict[int, Path] = {}
    gc.freeze()  # or each rank, when it ends, would walk through all of torch and copy it
    while True:
        if select.select([sys.stdin], [], [], _SECONDS_BETWEEN_LOOKS)[0]:
            line = sys.stdin.readline()
            if not line:
                break
            task = json.loads(Path(line.strip()).read_text())
            process = os.fork()
            if not process:
                Rank(task).work()
                return
            folders[process] = Path(task["folder"])
            print(process, flush=True)
        for process in list(folders):
            ended, status = os.waitpid(process, os.WNOHANG)
            if ended:
                _write(folders.pop(process) / "exit_code", str(os.waitstatus_to_exitcode(status)))
    for process in folders:
        os.kill(process, signal.SIGKILL)


class Rank:
    """One process of a run.

    Of its task it reads, where they are given:
        late: seconds that it lets pass before it does anything.
        signals: by step, a signal that this rank sends itself once the step is done.
        signal_in_warm_up: one that it sends itself before its first pass.
        poison: steps in which this rank's gradient is not a number.
        raised_loss: by step, what is added to this rank's loss.
        digests: whether to take a hash of all weights and moments behind every step, for which all ranks must ask.
        count_reductions: whether to count how often DDP brings gradients together.
        probes: whether micro-batches are tried before a run as short as these.
        lacks_memory_for: rows from which on this rank then has too little memory.
    """

    def __init__(self, task: dict[str, Any]) -> None:
        self.task, self.folder = task, Path(task["folder"])
        self.step, self.buckets, self.reductions = 0, 0, 0
        self.parts: Parts | None = None
        self.seen: dict[str, Any] = {"rows": {}, "digests": {}, "buckets": {}, "reductions": {}}

    def work(self) -> None:
        os.chdir(self.folder)
        for number, path in ((0, os.devnull), (1, "stdout"), (2, "stderr")):
            os.dup2(os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND), number)
        os.environ.update(self.task["environment"])
        sys.argv = ["daybreak", *self.task["arguments"]]
        self._instrument()
        time.sleep(self.task.get("late", 0.0))
        try:
            command_line()
        finally:
            _write(self.folder / "seen.json", json.dumps(self.seen))

    def _instrument(self) -> None:
        train_run, train_loop, warm_up = daybreak.run.train, loop.train, daybreak.warm_up.time_micro_batch
        record_step, rows_of_step = Metrics.step, Batches.step
        features, forward = GPT.features, GPT.forward

        def train_and_tell(*args: Any, **kwargs: Any) -> Any:
            run = train_run(*args, **kwargs)
            self.seen |= {"steps": run.spent.steps, "tokens": run.spent.tokens, "finished": run.finished}
            return run

        def train_with_parts(parts: Parts, spent: Any, **kwargs: Any) -> Any:
            self.parts, self.step = parts, spent.steps
            self.seen["micro_batch"] = parts.batches.micro_batch
            if self.task.get("count_reductions") and isinstance(parts.forward, DistributedDataParallel):
                parts.forward.register_comm_hook(None, self._reduce)
            return train_loop(parts, spent, **kwargs)

        def interrupted_warm_up(*args: Any) -> float:
            if "signal_in_warm_up" in self.task:
                signal.raise_signal(self.task["signal_in_warm_up"])
            return warm_up(*args)

        def record_and_act(metrics: Metrics, record: dict[str, Any]) -> None:
            record_step(metrics, record)
            self._behind(record["step"])

        def rows_and_tell(batches: Batches, place: int, **size: int) -> Iterator[Rows]:
            self.seen["rows"][place] = []
            for rows in rows_of_step(batches, place, **size):
                self.seen["rows"][place] += fingerprints(rows)
                yield rows

        def poisoned_features(model: GPT, *args: Any, **kwargs: Any) -> Tensor:
            x_BTD = features(model, *args, **kwargs)
            if x_BTD.requires_grad and self.step + 1 in self.task.get("poison", ()):
                x_BTD.register_hook(lambda gradient: gradient * math.nan)
            return x_BTD

        def raised_forward(model: GPT, *args: Any) -> Tensor:
            nll = forward(model, *args)
            return nll + self.task.get("raised_loss", {}).get(str(self.step + 1), 0.0) if nll.requires_grad else nll

        passes = probing._Passes._pass

        def scarce_pass(rows: probing._Passes, count: int) -> bool:
            return passes(rows, count) and count < self.task.get("lacks_memory_for", math.inf)

        if self.task.get("probes"):
            probing._FEWEST_STEPS, probing.SHARE_OF_BUDGET = 1, math.inf
            probing._Passes._pass = scarce_pass
        daybreak.run.train, loop.train = train_and_tell, train_with_parts
        daybreak.warm_up.time_micro_batch = interrupted_warm_up
        Metrics.step, Batches.step = record_and_act, rows_and_tell
        GPT.features, GPT.forward = poisoned_features, raised_forward
        daybreak.hardware._PRODUCTS_TO_MEASURE_A_PEAK = 1

    def _behind(self, step: int) -> None:
        """A step is done."""
        assert self.parts is not None
        self.step = step
        if self.task.get("digests"):
            self.seen["digests"][step] = digest(Tensors.of(self.parts.model, self.parts.optimizers))
        self.seen["buckets"][step], self.seen["reductions"][step] = self.buckets, self.reductions
        self.buckets = self.reductions = 0
        if str(step) in self.task.get("signals", {}):
            signal.raise_signal(self.task["signals"][str(step)])

    def _reduce(self, _: Any, bucket: dist.GradBucket) -> torch.futures.Future[Tensor]:
        """As DDP does by itself, and counted."""
        self.buckets += 1
        self.reductions += bucket.is_last()
        return allreduce_hook(dist.group.WORLD, bucket)


def fingerprints(rows: Rows) -> list[int]:
    """A number for each row: its inputs, its targets and what seeds its dropout."""
    columns = (rows.inputs, rows.targets, rows.dropout_seeds[:, None])
    return [zlib.crc32(row.numpy().tobytes()) for row in torch.cat(columns, dim=1)]


def digest(tensors: Tensors) -> str:
    """A hash of all weights and moments, by their names."""
    content = hashlib.sha256()
    for kind in (tensors.weights, tensors.moments):
        for name in sorted(kind):
            content.update(name.encode() + kind[name].numpy().tobytes())
    return content.hexdigest()


def _write(path: Path, text: str) -> None:
    """All at once, for those who wait for it."""
    aside = path.with_suffix(".partial")
    aside.write_text(text)
    aside.replace(path)


if __name__ == "__main__":
    make_ranks()
