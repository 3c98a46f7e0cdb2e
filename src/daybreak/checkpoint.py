"""Checkpoints: tensors in safetensors, the rest in JSON, every file hashed; whole or absent.

RUN/checkpoints/step-00000120/
  model.safetensors  optimizer.safetensors  state.json  manifest.json

They hold the full state, so any number of ranks can go on from them.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self, final

import torch
from torch import Tensor, nn

from daybreak.distributed import ALONE, Ranks, gathered, shard_like
from daybreak.errors import UserError
from daybreak.files import (
    file_problem,
    read_json,
    read_sealed,
)
from daybreak.progress import say

FORMAT = 1
PREFIX = "step-"
TENSOR_FILES = ("model.safetensors", "optimizer.safetensors")
FILES = (*TENSOR_FILES, "state.json")
BLOCK = 256  # elements of an 8-bit moment that share a scale
_MOMENTS = (
    {"step", "exp_avg", "exp_avg_sq"},  # of AdamW
    {"step", "exp_avg.codes", "exp_avg.scale", "exp_avg_sq.codes", "exp_avg_sq.scale"},  # in eight bits
    {"momentum"},  # of Muon
)


@final
@dataclass(frozen=True)
class Tensors:
    """The full state of a model and its optimizer: weights by name, moments by `name/entry`."""

    weights: Mapping[str, Tensor]
    moments: Mapping[str, Tensor]

    @classmethod
    def of(cls, model: nn.Module, optimizers: Iterable[torch.optim.Optimizer], ranks: Ranks = ALONE) -> Self:
        """Gathered from all ranks, each of which must ask, for the first; what is not sharded is not copied."""
        names: dict[Tensor, str] = {parameter: name for name, parameter in model.named_parameters()}
        weights = {name: gathered(parameter.detach(), ranks) for parameter, name in names.items()}
        moments = {
            f"{names[parameter]}/{entry}": gathered(tensor.detach(), ranks)
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
        return step_of(self.path)

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
    place_weights(None if checkpoint is None else checkpoint.weights(), where, model, ranks)
    with torch.no_grad():
        states: dict[Tensor, Any] = {}
        for optimizer in optimizers:
            optimizer.state.clear()
            states |= {p: optimizer.state for group in optimizer.param_groups for p in group["params"]}
        if not states:
            return
        moments = {} if checkpoint is None else checkpoint.moments()
        _require_fitting_moments(where, moments, {name: p for name, p in own.items() if p.requires_grad})
        for key, tensor in ranks.spread(moments):
            name, entry = key.rsplit("/", 1)
            # Fused optimizers keep the step count, a scalar, where the parameter is.
            states[own[name]][own[name]][entry] = shard_like(own[name], tensor)


def place_weights(weights: Mapping[str, Tensor] | None, where: str, model: nn.Module, ranks: Ranks = ALONE) -> None:
    """Put weights into a model that its ranks hold between them.

    Args:
        weights: by name; only the first rank needs them, every rank must ask.
        where: what they are, in words.

    Raises:
        UserError: names or shapes differ.
    """
    own = dict(model.named_parameters())
    if weights is not None:
        _require_same_shapes(where, weights, own)
    with torch.no_grad():
        for name, tensor in ranks.spread(weights or {}):
            own[name].copy_(shard_like(own[name], tensor))


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


def _require_fitting_moments(where: str, moments: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> None:
    """A fused optimizer trusts its moments: one of another shape would end the process."""
    entries: dict[str, set[str]] = {}
    for key, tensor in moments.items():
        name, _, entry = key.rpartition("/")
        if name not in own or (tensor.shape, tensor.dtype) != _form(entry, own[name]):
            raise UserError(f"{where} holds the optimizer of another model: {key} does not fit")
        entries.setdefault(name, set()).add(entry)
    for name in own if entries else ():
        if entries.get(name) not in _MOMENTS:
            raise UserError(f"{where} holds the optimizer of another model: of {name} it lacks some, or has more")


def _form(entry: str, parameter: Tensor) -> tuple[torch.Size, torch.dtype]:
    """Shape and type that an entry of a parameter's moments has."""
    if entry == "step":
        return torch.Size(), torch.float32
    if entry.endswith(".codes"):
        return parameter.shape, torch.uint8
    if entry.endswith(".scale"):
        return torch.Size([parameter.numel() // BLOCK]), torch.float32
    return parameter.shape, torch.float32


def checkpoint_path(folder: Path, step: int) -> Path:
    return folder / f"{PREFIX}{step:08d}"


def list_checkpoints(folder: Path) -> list[Path]:
    """The checkpoints in `folder`, oldest first; not verified."""
    found = [path for path in folder.glob(f"{PREFIX}*") if path.name.removeprefix(PREFIX).isdecimal()]
    return sorted(found, key=step_of)


def step_of(path: Path) -> int:
    return int(path.name.removeprefix(PREFIX))


def open_checkpoint(path: Path) -> Checkpoint:
    """Verify every file of a checkpoint against its manifest.

    Raises:
        UserError: names the file that is missing or damaged.
    """
    for file, sha256 in hashed_files(path).items():
        problem = file_problem(file, sha256)
        if problem is not None:
            raise UserError(problem)
    marks = read_sealed(path / "manifest.json")
    loss = marks.get("validation_loss")
    if not (loss is None or isinstance(loss, int | float)):
        raise UserError(f"{path / 'manifest.json'} is damaged: its validation_loss is no number")
    return Checkpoint(path, read_json(path / "state.json"), marks.get("pinned") is True, loss)


def hashed_files(path: Path) -> dict[Path, str]:
    """The files of a checkpoint with their SHA-256, by its manifest.

    Raises:
        UserError: the manifest is missing, damaged, of another step or of an unknown format.
    """
    manifest = read_sealed(path / "manifest.json")
    try:
        if manifest["format"] != FORMAT:
            raise UserError(
                f"{path}: checkpoint format {manifest['format']} is not known here; use the version that wrote it"
            )
        if manifest["step"] != step_of(path):
            raise UserError(f"{path} is the checkpoint of step {manifest['step']} under another name")
        return {path / name: manifest["sha256"][name] for name in FILES}
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
