"""Checkpoints: tensors in safetensors, the rest in JSON, every file hashed; whole or absent.

RUN/checkpoints/step-00000120/
  model.safetensors  optimizer.safetensors  state.json  manifest.json

They hold the full state, so any number of ranks can go on from them.
"""

import math
import shutil
import time
from collections.abc import Iterable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self, final

import torch
from pydantic import Field
from torch import Tensor, nn

from daybreak.configuration import Configuration
from daybreak.distributed import ALONE, Ranks, share_of, whole
from daybreak.duration import Duration, IntervalField, Unit
from daybreak.errors import UserError
from daybreak.files import (
    file_problem,
    read_json,
    read_sealed,
    require_space,
    sha256_file,
    sync_folder,
    whole_folder,
    write_json,
    write_sealed,
)
from daybreak.progress import say

_FORMAT = 1
_PREFIX = "step-"
_TENSOR_FILES = ("model.safetensors", "optimizer.safetensors")
_FILES = (*_TENSOR_FILES, "state.json")


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
@dataclass(frozen=True)
class Tensors:
    """The full state of a model and its optimizer: weights by name, moments by `name/entry`."""

    weights: Mapping[str, Tensor]
    moments: Mapping[str, Tensor]

    @classmethod
    def of(cls, model: nn.Module, optimizers: Iterable[torch.optim.Optimizer]) -> Self:
        """Gathered from all ranks, each of which must ask; what is not sharded is not copied."""
        names: dict[Tensor, str] = {parameter: name for name, parameter in model.named_parameters()}
        weights = {name: whole(parameter.detach()).contiguous() for parameter, name in names.items()}
        moments = {
            f"{names[parameter]}/{entry}": whole(tensor.detach()).contiguous()
            for optimizer in optimizers
            for parameter, entries in optimizer.state.items()
            for entry, tensor in entries.items()
        }
        return cls(weights, moments)

    @property
    def bytes(self) -> int:
        return sum(tensor.nbytes for tensors in (self.weights, self.moments) for tensor in tensors.values())

    def copied(self) -> "Tensors":
        """A copy on the CPU that training does not change."""
        weights, moments = (
            {name: tensor.detach().to("cpu", copy=True) for name, tensor in tensors.items()}
            for tensors in (self.weights, self.moments)
        )
        return Tensors(weights, moments)


@final
@dataclass(frozen=True)
class Checkpoint:
    """A verified checkpoint; its tensors are read when asked for.

    Attributes:
        state: what the training loop put there, from JSON.
        pinned: it is kept for good.
        validation_loss: measured at this very step; None if it was not.
    """

    path: Path
    state: Mapping[str, Any]
    pinned: bool = False
    validation_loss: float | None = None

    @property
    def step(self) -> int:
        return _step_of(self.path)

    def weights(self) -> dict[str, Tensor]:
        """Every parameter of the model, by its name."""
        return self._tensors("model.safetensors")

    def moments(self) -> dict[str, Tensor]:
        """The optimizer's state, by `parameter/entry`."""
        return self._tensors("optimizer.safetensors")

    def _tensors(self, file: str) -> dict[str, Tensor]:
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        try:
            return load_file(self.path / file)
        except SafetensorError as error:
            raise UserError(f"{self.path / file} is not a safetensors file: {error}") from None


def restore(
    checkpoint: Checkpoint | None,
    model: nn.Module,
    optimizers: Iterable[torch.optim.Optimizer] = (),
    ranks: Ranks = ALONE,
) -> None:
    """Put the saved tensors into a model, and into its optimizers if they are given.

    Args:
        checkpoint: only the first rank needs it; every rank must ask.

    Raises:
        UserError: names or shapes differ.
    """
    own = dict(model.named_parameters())
    where = "the checkpoint" if checkpoint is None else str(checkpoint.path)
    saved = {} if checkpoint is None else checkpoint.weights()
    if checkpoint is not None:
        _require_same_shapes(where, saved, own)
    with torch.no_grad():
        for name, tensor in ranks.spread(saved):
            own[name].copy_(share_of(own[name], tensor))
        states: dict[Tensor, Any] = {}
        for optimizer in optimizers:
            optimizer.state.clear()
            states |= {p: optimizer.state for group in optimizer.param_groups for p in group["params"]}
        if not states:
            return
        for key, tensor in ranks.spread({} if checkpoint is None else checkpoint.moments()):
            name, entry = key.rsplit("/", 1)
            if name not in own:
                raise UserError(f"{where} holds the optimizer of another model: it has no {name}")
            # Fused optimizers keep the step count, a scalar, where the parameter is.
            states[own[name]][own[name]][entry] = share_of(own[name], tensor)


def _require_same_shapes(where: str, saved: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> None:
    if saved.keys() != own.keys():
        odd = sorted(saved.keys() ^ own.keys())[:3]
        raise UserError(f"{where} holds another model: {', '.join(odd)} are not in both")
    for name, parameter in own.items():
        if saved[name].shape != parameter.shape:
            raise UserError(
                f"{where} holds another model: {name} is {tuple(saved[name].shape)} there "
                f"and {tuple(parameter.shape)} here"
            )


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
        self._written: Future[Path] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._writer.shutdown(wait=True)
        if kind is None:
            self.wait()

    def save(
        self,
        step: int,
        tensors: Tensors,
        state: Mapping[str, Any],
        *,
        pinned: bool = False,
        validation_loss: float | None = None,
    ) -> None:
        """Write the checkpoint of a step, verify it, and only then drop what is not to be kept.

        Args:
            pinned: keep it for good.
            validation_loss: as measured at this step, if it was.

        Raises:
            UserError: too little space; older checkpoints are untouched. Of one written in the background, at the
                next `save` or `wait`.
        """
        self.wait()
        require_space(self.folder, int(tensors.bytes * 1.02) + (1 << 20))
        marks = {"pinned": pinned, "validation_loss": validation_loss}
        if self.config.background:
            self._written = self._writer.submit(self._write, step, tensors.copied(), dict(state), marks)
        else:
            self._write(step, tensors, state, marks)

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
        self.wait()
        best = self._best()
        return math.inf if best is None or best.validation_loss is None else best.validation_loss

    def _best(self) -> Checkpoint | None:
        """The valid one with the lowest loss of those that were measured."""
        measured = [path for path in list_checkpoints(self.folder) if _loss(_marks(path)) < math.inf]
        for path in sorted(measured, key=lambda path: _loss(_marks(path))):
            with suppress(UserError):  # a damaged one is the best of nothing
                return open_checkpoint(path)
        return None

    def _write(self, step: int, tensors: Tensors, state: Mapping[str, Any], marks: dict[str, Any]) -> Path:
        began = time.perf_counter()
        path = self.folder / f"{_PREFIX}{step:08d}"
        sweep(self.folder)
        if path.exists():
            try:
                self._mark(open_checkpoint(path), marks)
            except UserError:
                _drop(path)
            else:  # the same step of the same run is the same checkpoint
                self._prune(step)
                return path
        self.folder.mkdir(parents=True, exist_ok=True)
        with whole_folder(path) as aside:
            _write_tensors(tensors, aside, path)
            write_json(aside / "state.json", dict(state))
            hashes = {name: sha256_file(aside / name) for name in _FILES}
            write_sealed(aside / "manifest.json", {"format": _FORMAT, "step": step, **marks, "sha256": hashes})
        open_checkpoint(path)
        self._prune(step)
        self.seconds = time.perf_counter() - began
        return path

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
        kept = [path for path in found if _step_of(path) <= step][-self.config.keep :]
        marks = {path: _marks(path) for path in found}
        kept += [path for path in found if marks[path].get("pinned") and _step_of(path) <= step]
        best = self._best() if self.config.keep_best else None
        kept += [] if best is None or best.step > step else [best.path]
        for path in found:
            if path not in kept:  # older, or a damaged one of a later step that was passed over
                _drop(path)


def _write_tensors(tensors: Tensors, aside: Path, path: Path) -> None:
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    try:
        for file, content in zip(_TENSOR_FILES, (tensors.weights, tensors.moments), strict=True):
            save_file(dict(content), aside / file)
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
    for leftover in [*folder.glob(f".{_PREFIX}*.partial"), *folder.glob(f".{_PREFIX}*.dropped")]:
        shutil.rmtree(leftover)


def _marks(path: Path) -> dict[str, Any]:
    try:
        return read_sealed(path / "manifest.json")
    except UserError:
        return {}  # a damaged one is kept or dropped by its age


def _loss(marks: Mapping[str, Any]) -> float:
    loss = marks.get("validation_loss")
    return math.inf if loss is None else float(loss)


def list_checkpoints(folder: Path) -> list[Path]:
    """The checkpoints in `folder`, oldest first; not verified."""
    found = [path for path in folder.glob(f"{_PREFIX}*") if path.name.removeprefix(_PREFIX).isdecimal()]
    return sorted(found, key=_step_of)


def _step_of(path: Path) -> int:
    return int(path.name.removeprefix(_PREFIX))


def open_checkpoint(path: Path) -> Checkpoint:
    """Verify every file of a checkpoint against its manifest.

    Raises:
        UserError: names the file that is missing or damaged.
    """
    for file, sha256 in hashed_files(path).items():
        problem = file_problem(file, sha256)
        if problem is not None:
            raise UserError(problem)
    marks = _marks(path)
    return Checkpoint(path, read_json(path / "state.json"), marks.get("pinned") is True, marks.get("validation_loss"))


def hashed_files(path: Path) -> dict[Path, str]:
    """The files of a checkpoint with their SHA-256, by its manifest.

    Raises:
        UserError: the manifest is missing, damaged, of another step or of an unknown format.
    """
    manifest = read_sealed(path / "manifest.json")
    try:
        if manifest["format"] != _FORMAT:
            raise UserError(f"{path}: checkpoint format {manifest['format']} is not known here")
        if manifest["step"] != _step_of(path):
            raise UserError(f"{path} is the checkpoint of step {manifest['step']} under another name")
        return {path / name: manifest["sha256"][name] for name in _FILES}
    except (KeyError, TypeError) as error:
        raise UserError(f"{path / 'manifest.json'} is damaged ({error!r})") from None


def open_latest(folder: Path) -> Checkpoint | None:
    """The newest valid checkpoint in `folder`; None if there is none at all.

    A damaged one is named on standard error and passed over.

    Raises:
        UserError: there are checkpoints, and all are damaged.
    """
    found = list_checkpoints(folder)
    for path in reversed(found):
        try:
            return open_checkpoint(path)
        except UserError as error:
            say(f"warning: {error}; trying the checkpoint before it")
    if found:
        raise UserError(f"every checkpoint in {folder} is damaged; delete the run's folder to start anew")
    return None
