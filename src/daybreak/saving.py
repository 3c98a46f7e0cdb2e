"""Saving: write a checkpoint whole, verify it, and only then drop those that are not to be kept."""

import math
import shutil
import time
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any, Self, final

from pydantic import Field

from daybreak.checkpoint import (
    FILES,
    FORMAT,
    PREFIX,
    TENSOR_FILES,
    Checkpoint,
    Tensors,
    checkpoint_path,
    list_checkpoints,
    open_checkpoint,
    open_latest,
    step_of,
)
from daybreak.configuration import Configuration
from daybreak.duration import Duration, IntervalField, Unit
from daybreak.errors import UserError
from daybreak.files import (
    let_read,
    read_sealed,
    require_space,
    sha256_file,
    sync_folder,
    whole_folder,
    write_json,
    write_sealed,
)
from daybreak.progress import say


@final
class CheckpointConfig(Configuration):
    """When to save, and what to keep. The end of a run is always saved.

    Attributes:
        every: how often; what a crash can cost at most.
        keep: how many of the newest to keep.
        keep_every: how often one is saved that is kept for good.
        keep_best: save wherever a validation finds a new lowest loss, and keep that one.
        background: copy the state, then write it while training goes on; costs memory for the copy.
    """

    every: IntervalField = Duration(10, Unit.PERCENT)
    keep: int = Field(default=2, gt=0)
    keep_every: IntervalField = None
    keep_best: bool = False
    background: bool = False


@final
class Checkpoints:
    """A run's folder of checkpoints. Use it as a context manager: leaving it waits for what is being written.

    Args:
        folder: where they lie.
        config: which are kept, and whether they are written in the background.
    """

    def __init__(self, folder: Path, config: CheckpointConfig) -> None:
        self.folder, self.config = folder, config
        self.seconds = 0.0  # that the last one took to be written
        self._writer = ThreadPoolExecutor(max_workers=1, thread_name_prefix="daybreak-checkpoint")
        self._written: Future[None] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._writer.shutdown(wait=True)
        try:
            self.wait()
        except UserError as error:
            if kind is None:
                raise
            say(f"warning: {error}")

    def save(
        self,
        step: int,
        tensors: Tensors,
        state: Mapping[str, Any],
        *,
        pinned: bool = False,
        validation_loss: float | None = None,
        anew: bool = False,
    ) -> None:
        """Write the checkpoint of a step, verify it, and only then drop what is not to be kept.

        Args:
            pinned: keep it for good.
            validation_loss: as measured at this step, if it was.
            anew: in place of one of this step that is there, since the weights are others now. That one goes first:
                these weights are those of the best, which stays, so a crash between costs work and no weights.

        Raises:
            UserError: too little space; older checkpoints are untouched. Of one written in the background, at the
                next `save` or `wait`.
        """
        self.wait()
        require_space(self.folder, int(tensors.bytes * 1.02) + (1 << 20))
        marks = {"pinned": pinned, "validation_loss": validation_loss}
        if self.config.background:
            self._written = self._writer.submit(self._write, step, tensors.copied(), dict(state), marks, anew)
        else:
            self._write(step, tensors, state, marks, anew)

    def wait(self) -> None:
        """Return once nothing is being written; raises what went wrong in the background."""
        written, self._written = self._written, None
        if written is not None:
            written.result()

    def newest(self) -> Checkpoint | None:
        """The newest valid one."""
        self.wait()
        return open_latest(self.folder)

    def lowest_loss(self) -> float:
        """Of those that were measured and kept; infinite if none was."""
        best = self.best()
        return math.inf if best is None or best.validation_loss is None else best.validation_loss

    def best(self) -> Checkpoint | None:
        """The valid one with the lowest loss of those that were measured."""
        self.wait()
        return self._best()

    def _best(self) -> Checkpoint | None:
        """As `best`, on the thread that writes."""
        measured = [path for path in list_checkpoints(self.folder) if _loss(_marks(path)) < math.inf]
        for path in sorted(measured, key=lambda path: _loss(_marks(path))):
            with suppress(UserError):  # a damaged one is the best of nothing
                return open_checkpoint(path)
        return None

    def _write(self, step: int, tensors: Tensors, state: Mapping[str, Any], marks: dict[str, Any], anew: bool) -> None:
        began = time.perf_counter()
        path = checkpoint_path(self.folder, step)
        sweep(self.folder)
        if path.exists() and anew:
            marks["pinned"] = marks["pinned"] or _marks(path).get("pinned") is True
            _drop(path)
        elif path.exists():
            try:
                same = open_checkpoint(path)
            except UserError:
                _drop(path)
            else:  # the same step of the same run is the same checkpoint
                self._mark(same, marks)
                self._prune(step)
                return
        self.folder.mkdir(parents=True, exist_ok=True)
        with whole_folder(path) as aside:
            _write_tensors(tensors, aside, path)
            write_json(aside / "state.json", dict(state))
            hashes = {name: sha256_file(aside / name) for name in FILES}
            write_sealed(aside / "manifest.json", {"format": FORMAT, "step": step, **marks, "sha256": hashes})
        open_checkpoint(path)
        self._prune(step)
        self.seconds = time.perf_counter() - began

    def _mark(self, checkpoint: Checkpoint, marks: dict[str, Any]) -> None:
        """Let a checkpoint that lies there know what was learned of its step since."""
        pinned = checkpoint.pinned or marks["pinned"]
        loss = checkpoint.validation_loss if marks["validation_loss"] is None else marks["validation_loss"]
        if (pinned, loss) != (checkpoint.pinned, checkpoint.validation_loss):
            manifest = read_sealed(checkpoint.path / "manifest.json")
            write_sealed(checkpoint.path / "manifest.json", {**manifest, "pinned": pinned, "validation_loss": loss})

    def _prune(self, step: int) -> None:
        """Drop what is neither among the newest, nor pinned, nor the best."""
        found = list_checkpoints(self.folder)
        kept = [path for path in found if step_of(path) <= step][-self.config.keep :]
        marks = {path: _marks(path) for path in found}
        kept += [path for path in found if marks[path].get("pinned") and step_of(path) <= step]
        best = self._best() if self.config.keep_best else None
        kept += [] if best is None or best.step > step else [best.path]
        for path in found:
            if path not in kept:  # older, or a damaged one of a later step that was passed over
                _drop(path)


def _write_tensors(tensors: Tensors, aside: Path, path: Path) -> None:
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    try:
        for file, content in zip(TENSOR_FILES, (tensors.weights, tensors.moments), strict=True):
            save_file(dict(content), aside / file)
            let_read(aside / file)
    except SafetensorError as error:  # how it reports a full disk
        raise UserError(f"{path} could not be written: {error}; older checkpoints are as they were") from None


def _drop(path: Path) -> None:
    """Remove a checkpoint so that a crash leaves all of it or nothing under its name."""
    if not path.is_dir():
        path.unlink()
        return
    aside = path.with_name(f".{path.name}.dropped")
    shutil.rmtree(aside, ignore_errors=True)
    path.rename(aside)
    sync_folder(path.parent)
    shutil.rmtree(aside)


def sweep(folder: Path) -> None:
    """Remove what a crash left half-written or half-removed."""
    for leftover in [*folder.glob(f".{PREFIX}*.partial"), *folder.glob(f".{PREFIX}*.dropped")]:
        shutil.rmtree(leftover)


def _marks(path: Path) -> dict[str, Any]:
    try:
        return read_sealed(path / "manifest.json")
    except UserError:
        return {}  # a damaged one is kept or dropped by its age


def _loss(marks: Mapping[str, Any]) -> float:
    loss = marks.get("validation_loss")
    return float(loss) if isinstance(loss, int | float) else math.inf
