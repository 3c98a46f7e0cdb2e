"""Trackers: TensorBoard, trackio and Weights & Biases, each run as a process of its own beside a training run.

`python -m daybreak.training.trackers` reads from standard input one line that says what to track where, and then the
records of `metrics.jsonl`. It imports nothing of torch, ends when its input ends, and says on standard error why it
failed.
"""

import json
import os
import sqlite3
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Literal, final

TrackerKind = Literal["tensorboard", "trackio", "wandb"]
_KINDS = ("train", "validation", "sample", "tasks", "layers")  # of records that are sent
_NO_SCALARS = ("kind", "step", "attempt", "crc32")
_SECONDS_TO_END = 60.0  # once the input ended
_FLUSH_SECONDS = 5


@final
@dataclass(frozen=True)
class Assignment:
    """What a tracker is to do.

    Attributes:
        folder: where it writes.
        name: of the run.
        identity: of the run, as no other has it.
        recipe: what was resolved, sent once.
        behind: the step that the sitting goes on from; what an earlier one sent of later steps is lost work.
        tracked: the highest step of an earlier sitting.
        offline: for W&B.
    """

    kind: TrackerKind
    folder: str
    project: str
    name: str
    identity: str
    recipe: Mapping[str, Any]
    behind: int
    tracked: int
    offline: bool


class Tracker(ABC):
    """Where a run's numbers are sent."""

    @abstractmethod
    def log(self, step: int, scalars: Mapping[str, float], texts: Mapping[str, str]) -> None:
        """Send what was measured at a step."""

    @abstractmethod
    def close(self) -> None:
        """Let all that was sent arrive."""


@final
class TensorBoard(Tracker):
    """Event files, without TensorFlow or torch. What a crash made lost work is marked as such, and not shown."""

    def __init__(self, assignment: Assignment) -> None:
        from tensorboard.compat.proto.event_pb2 import Event, SessionLog
        from tensorboard.compat.proto.summary_pb2 import Summary
        from tensorboard.plugins.text.summary_v2 import text_pb
        from tensorboard.summary.writer.event_file_writer import EventFileWriter

        self._event, self._summary, self._text = Event, Summary, text_pb
        self._writer = EventFileWriter(assignment.folder, flush_secs=_FLUSH_SECONDS)
        self._add(assignment.behind + 1, session_log=SessionLog(status=SessionLog.START))
        recipe = "".join(f"    {line}\n" for line in json.dumps(dict(assignment.recipe), indent=2).splitlines())
        self._add(assignment.behind, summary=text_pb("recipe", recipe))

    def log(self, step: int, scalars: Mapping[str, float], texts: Mapping[str, str]) -> None:
        values = [self._summary.Value(tag=name, simple_value=number) for name, number in scalars.items()]
        self._add(step, summary=self._summary(value=values))
        for name, text in texts.items():
            self._add(step, summary=self._text(name, text))

    def close(self) -> None:
        self._writer.close()

    def _add(self, step: int, **content: Any) -> None:
        date = time.clock_gettime(time.CLOCK_REALTIME)  # shown beside an event; nothing is measured by it
        self._writer.add_event(self._event(wall_time=date, step=step, **content))


@final
class Trackio(Tracker):
    """trackio's SQLite file, written as its own importers write it: no server, no account, nothing sent."""

    def __init__(self, assignment: Assignment) -> None:
        from trackio.sqlite_storage import SQLiteStorage

        self._storage, self._run = SQLiteStorage, assignment
        database = SQLiteStorage.init_db(assignment.project)
        with closing(sqlite3.connect(database)) as connection, connection:
            lost = (assignment.identity, assignment.behind)
            connection.execute("DELETE FROM metrics WHERE run_id = ? AND step > ?", lost)
        self._recipe: dict[str, Any] | None = dict(assignment.recipe)

    def log(self, step: int, scalars: Mapping[str, float], texts: Mapping[str, str]) -> None:
        run, metrics = self._run, [{**scalars, **texts}]
        self._storage.bulk_log(run.project, run.name, metrics, steps=[step], config=self._recipe, run_id=run.identity)
        self._recipe = None

    def close(self) -> None:
        """Every record is written when it is sent."""


@final
class WandB(Tracker):
    """Weights & Biases, with numbers alone: no code, no console, nothing of the machine or its environment.

    It takes steps in order only, so those that an earlier sitting sent are not sent again.
    """

    def __init__(self, assignment: Assignment) -> None:
        import wandb

        folder = Path(assignment.folder)
        folder.mkdir(parents=True, exist_ok=True)
        self._sent = assignment.tracked
        self._run = wandb.init(
            project=assignment.project,
            name=assignment.name,
            id=assignment.identity,
            resume="allow",
            mode="offline" if assignment.offline else "online",
            dir=folder.parent,
            config=dict(assignment.recipe),
            save_code=False,
            settings=wandb.Settings(
                console="off",
                disable_code=True,
                disable_git=True,
                disable_job_creation=True,
                silent=True,
                x_disable_machine_info=True,
                x_disable_meta=True,
                x_disable_stats=True,
                x_save_requirements=False,
            ),
        )

    def log(self, step: int, scalars: Mapping[str, float], texts: Mapping[str, str]) -> None:
        if step >= self._sent:  # the last may have been sent in part
            self._run.log({**scalars, **texts}, step=step)

    def close(self) -> None:
        self._run.finish()


def open_tracker(assignment: Assignment) -> Tracker:
    match assignment.kind:
        case "tensorboard":
            return TensorBoard(assignment)
        case "trackio":
            return Trackio(assignment)
        case "wandb":
            return WandB(assignment)


def scalars_of(record: Mapping[str, Any]) -> dict[str, float]:
    """The numbers of a record by name, as `validation/loss`, `tasks/hellaswag/acc`, `layers/update_size/blocks.0`."""
    kind = record["kind"]
    content = {key: value for key, value in record.items() if key not in _NO_SCALARS}
    return dict(_numbers(kind, content.pop("results", {}) | content if kind == "tasks" else content))


def texts_of(record: Mapping[str, Any]) -> dict[str, str]:
    """The texts of a record by name: samples."""
    return {"sample": record["text"]} if record["kind"] == "sample" else {}


def _numbers(name: str, content: Any) -> Iterator[tuple[str, float]]:
    if isinstance(content, Mapping):
        for key, value in content.items():
            yield from _numbers(f"{name}/{key}", value)
    elif isinstance(content, int | float) and not isinstance(content, bool):
        yield name, content


def _track(lines: BinaryIO) -> None:
    """Send on what comes in; the first line is the assignment."""
    tracker = open_tracker(Assignment(**json.loads(lines.readline())))
    for line in lines:
        if not line.endswith(b"\n"):
            break  # the run ended within a line
        record = json.loads(line)
        if record["kind"] in _KINDS:
            tracker.log(record["step"], scalars_of(record), texts_of(record))
    _end_within(_SECONDS_TO_END)
    tracker.close()


def _end_within(seconds: float) -> None:
    """A library that never comes back is not waited for."""
    timer = threading.Timer(seconds, os._exit, (1,))
    timer.daemon = True
    timer.start()


def _main() -> None:
    """Track what comes in; libraries read nothing, and what they print goes nowhere."""
    lines, errors = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(2), "w")
    nowhere = os.open(os.devnull, os.O_RDWR)
    for standard in (0, 1, 2):
        os.dup2(nowhere, standard)
    try:
        _track(lines)
    except Exception as error:
        print(f"{type(error).__name__}: {' '.join(str(error).split())[:300]}", file=errors, flush=True)
        os._exit(1)  # threads of a library that failed may hang


if __name__ == "__main__":
    _main()
