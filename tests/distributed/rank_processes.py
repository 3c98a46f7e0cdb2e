"""Ranks as processes, from the side of a test: started together, waited for, and read."""

import fcntl
import json
import os
import random
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from daybreak.checkpoint import list_checkpoints
from daybreak.training.metrics import read_metrics

RECIPE = """
budget = "8 steps"
seed = 5

[data]
window = 16

[batch]
tokens = 192

[model]
layers = 2
heads = 2
dim = 16
context = 16
vocab_size = 257
dropout = 0.2

[optimizer]
lr = 1e-2
eps = 1e-6  # well above the rounding noise that is all the gradient a key's bias has

[schedule]
warmup = "3 steps"

[evaluation]
every = "25%"
tokens = 224

[checkpoint]
every = "50%"

[execution]
device = "cpu"
precision = "fp32"
micro_batch = 2
threads = 1
"""
STEPS, ROWS, MICRO_BATCH = 8, 12, 2  # a batch that 2, 3 and 4 ranks divide
WIDE = ("model.dim=128", "optimizer.lr=2e-3")  # more than one bucket of DDP's
FSDP = "parallel.kind=fsdp"
_PORTS = range(20_000, 32_000)  # below those that the system hands out by itself
_SECONDS_TO_WAIT = 240.0


@dataclass(frozen=True)
class RankProcess:
    """One rank of a run, working or ended, and the folder that it works in."""

    process: int
    folder: Path

    @property
    def ended(self) -> bool:
        return (self.folder / "exit_code").exists()

    @property
    def code(self) -> int:
        """Its exit code, waited for; the negative number of the signal that ended it."""
        wait_for(lambda: self.ended, f"the end of {self.folder}")
        return int((self.folder / "exit_code").read_text())

    @property
    def errors(self) -> str:
        """What it wrote on standard error, without torch's own warnings."""
        lines = (self.folder / "stderr").read_text().splitlines()
        return "\n".join(line for line in lines if not re.match(r"(\[rank\d+\]:)?\[W", line))

    @property
    def output(self) -> str:
        return (self.folder / "stdout").read_text()

    @property
    def seen(self) -> dict[str, Any]:
        """What the driver saw in it."""
        seen: dict[str, Any] = json.loads((self.folder / "seen.json").read_text())
        return seen

    def send(self, number: signal.Signals) -> None:
        os.kill(self.process, number)


@dataclass(frozen=True)
class Sitting:
    """One start of a run.

    Attributes:
        ranks: how many; 1 is a process that no launcher started.
        of_rank: what single ranks do besides, as the driver takes it.
        of_all: what all do.
    """

    ranks: int
    overrides: tuple[str, ...] = ()
    ranks_per_node: int | None = None
    of_rank: Mapping[int, Mapping[str, Any]] = field(default_factory=dict)
    of_all: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class RanksRun:
    """A run, and the ranks of each of its sittings."""

    out: Path
    sittings: tuple[tuple[RankProcess, ...], ...]

    @property
    def ranks(self) -> tuple[RankProcess, ...]:
        """Those of the last sitting."""
        return self.sittings[-1]

    @property
    def codes(self) -> list[list[int]]:
        return [[rank.code for rank in ranks] for ranks in self.sittings]

    def metrics(self, kind: str = "train") -> list[dict[str, Any]]:
        return read_metrics(self.out / "metrics.jsonl", kind)

    def course(self, *names: str, kind: str = "train") -> list[tuple[Any, ...]]:
        """These entries of each record."""
        return [tuple(record[name] for name in names) for record in self.metrics(kind)]

    def column(self, name: str, kind: str = "train") -> list[float]:
        return [record[name] for record in self.metrics(kind)]

    @property
    def checkpoint(self) -> Path:
        """The newest."""
        return list_checkpoints(self.out / "checkpoints")[-1]

    @property
    def rows(self) -> dict[int, list[int]]:
        """By its place, what the rows of a step were, as all ranks together had them."""
        rows: dict[int, list[int]] = {}
        for ranks in self.sittings:
            seen = [rank.seen["rows"] for rank in ranks]
            rows |= {int(place): [row for each in seen for row in each[place]] for place in seen[0]}
        return rows


# Runs that several tests look at: each kind of sharing, all of what ranks do, undisturbed.
WATCHED = (
    "samples={ every = '50%', prompt = 'the day', tokens = 3 }",
    "checkpoint.keep_best=true",
    "checkpoint.keep=1",
)
UNDISTURBED = {
    "ddp-2": Sitting(2, (*WATCHED, *WIDE)),
    "ddp-3": Sitting(3, (*WATCHED, *WIDE), of_all={"digests": True}),
    "fsdp-2": Sitting(2, (*WATCHED, FSDP, "checkpoint.background=true")),
    "fsdp-3": Sitting(3, (*WATCHED, FSDP)),  # neither a width of 16 nor a vocabulary of 257 is a multiple of 3
    "hsdp-4": Sitting(
        4,
        (*WATCHED, FSDP, "parallel.replicate=true", "execution.micro_batch=1"),
        ranks_per_node=2,
        of_all={"digests": True},
    ),
}


class Launcher:
    """Starts ranks, by way of a driver process that has everything imported.

    Args:
        folder: for ranks to work in; the same for all processes of a test suite.
        recipe: the file of `RECIPE`.
        corpus: what runs are trained on.
    """

    def __init__(self, folder: Path, recipe: Path, corpus: Path) -> None:
        self.recipe, self.corpus = recipe, corpus
        self._folder = folder
        with (folder / f"driver-{os.getpid()}.log").open("w") as log:
            self._driver = subprocess.Popen(
                [sys.executable, str(Path(__file__).with_name("rank_driver.py"))],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                start_new_session=True,
                env=environment() | {"DAYBREAK_CACHE": str(folder / "cache")},
            )

    def close(self) -> None:
        self._driver.communicate(timeout=_SECONDS_TO_WAIT)

    def run(self, name: str, *sittings: Sitting) -> RanksRun:
        """A run over some sittings, one behind the other; made once, by whoever asks first for this name."""
        folder = self._folder / name
        with (self._folder / f"{name}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            folders = [folder / str(number) for number in range(len(sittings))]
            if not (folder / "made").exists():
                shutil.rmtree(folder, ignore_errors=True)  # what is left where it was begun in vain
                for sitting, its_folder in zip(sittings, folders, strict=True):
                    with self.started(sitting, its_folder, folder / "run") as ranks:
                        assert all(rank.code is not None for rank in ranks)
                (folder / "made").touch()
        ranks_of = [
            tuple(RankProcess(0, each / str(rank)) for rank in range(sitting.ranks))
            for sitting, each in zip(sittings, folders, strict=True)
        ]
        return RanksRun(folder / "run", tuple(ranks_of))

    @contextmanager
    def started(
        self, sitting: Sitting, folder: Path, out: Path, data: Path | str | None = None
    ) -> Iterator[list[RankProcess]]:
        """Ranks that have begun to train into `out`; those that are still there at the end are killed."""
        places = ("--out", str(out), "--data", str(data or self.corpus))
        port, local_count = free_port(self._folder), sitting.ranks_per_node or sitting.ranks
        ranks = []
        try:
            for rank in range(sitting.ranks):
                described = {
                    "RANK": rank,
                    "WORLD_SIZE": sitting.ranks,
                    "LOCAL_RANK": rank % local_count,
                    "LOCAL_WORLD_SIZE": local_count,
                    "MASTER_ADDR": "127.0.0.1",
                    "MASTER_PORT": port,
                }
                task = {
                    "arguments": ["train", str(self.recipe), *sitting.overrides, *places],
                    "environment": {name: str(value) for name, value in described.items()} if sitting.ranks > 1 else {},
                    **sitting.of_all,
                    **sitting.of_rank.get(rank, {}),
                }
                ranks.append(self._fork(folder / str(rank), task))
            yield ranks
        finally:
            for rank in ranks:
                if not rank.ended:
                    with suppress(ProcessLookupError):
                        rank.send(signal.SIGKILL)
            assert all(rank.code is not None for rank in ranks)

    def _fork(self, folder: Path, task: Mapping[str, Any]) -> RankProcess:
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / "task.json"
        path.write_text(json.dumps({**task, "folder": str(folder)}))
        assert self._driver.stdin is not None
        assert self._driver.stdout is not None
        self._driver.stdin.write(f"{path}\n")
        self._driver.stdin.flush()
        return RankProcess(int(self._driver.stdout.readline()), folder)


def environment() -> dict[str, str]:
    """This process's for another one: with one thread, and without what a launcher may have left in it."""
    launched = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
    kept = {name: value for name, value in os.environ.items() if name not in launched}
    return kept | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}


def free_port(folder: Path) -> int:
    """A port that nobody listens at, and that nobody else who asks in `folder` gets."""
    while True:
        port = random.SystemRandom().choice(_PORTS)
        with socket.socket() as found, suppress(OSError):
            found.bind(("127.0.0.1", port))
            (folder / f"port-{port}").touch(exist_ok=False)
            return port


def wait_for(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + _SECONDS_TO_WAIT
    while not condition():
        assert time.monotonic() < deadline, f"{what} did not come within {_SECONDS_TO_WAIT:.0f} s"
        time.sleep(0.02)
