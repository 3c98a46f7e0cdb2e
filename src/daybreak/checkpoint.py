"""Checkpoints: tensors in safetensors, the rest in JSON, every file hashed; whole or absent.

RUN/checkpoints/step-00000120/
  model.safetensors  optimizer.safetensors  state.json  manifest.json
"""

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

import torch
from pydantic import Field
from torch import Tensor, nn

from daybreak.configuration import Configuration
from daybreak.duration import Duration, IntervalField, Unit
from daybreak.errors import UserError
from daybreak.files import read_json, require_space, sha256_file, whole_folder, write_json
from daybreak.progress import say

_FORMAT = 1
_PREFIX = "step-"
_FILES = ("model.safetensors", "optimizer.safetensors", "state.json")


@final
class CheckpointConfig(Configuration):
    """When to save. The end of a run is always saved.

    Attributes:
        every: how often; what a crash can cost at most.
        keep: how many of the newest to keep.
    """

    every: IntervalField = Duration(10, Unit.PERCENT)
    keep: int = Field(default=2, gt=0)


@final
@dataclass(frozen=True)
class Checkpoint:
    """A verified checkpoint; its tensors are read when asked for.

    Attributes:
        state: what the training loop put there, from JSON.
    """

    path: Path
    state: Mapping[str, Any]

    def restore(self, model: nn.Module, optimizer: torch.optim.Optimizer | None = None) -> None:
        """Put the saved tensors into a model, and into its optimizer if one is given.

        Raises:
            UserError: names or shapes differ.
        """
        saved = self._tensors("model.safetensors")
        own = dict(model.named_parameters())
        if saved.keys() != own.keys():
            odd = sorted(saved.keys() ^ own.keys())[:3]
            raise UserError(f"{self.path} holds another model: {', '.join(odd)} are not in both")
        with torch.no_grad():
            for name, parameter in own.items():
                if saved[name].shape != parameter.shape:
                    raise UserError(
                        f"{self.path} holds another model: {name} is {tuple(saved[name].shape)} there "
                        f"and {tuple(parameter.shape)} here"
                    )
                parameter.copy_(saved[name])
        if optimizer is not None:
            for key, tensor in self._tensors("optimizer.safetensors").items():
                name, entry = key.rsplit("/", 1)
                parameter = own[name]
                # Fused optimizers keep the step count, a scalar, where the parameter is.
                optimizer.state[parameter][entry] = tensor.to(parameter.device)

    def _tensors(self, file: str) -> dict[str, Tensor]:
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        try:
            return load_file(self.path / file)
        except SafetensorError as error:
            raise UserError(f"{self.path / file} is not a safetensors file: {error}") from None


@final
@dataclass(frozen=True)
class Checkpoints:
    """A run's folder of checkpoints, how often a new one is wanted, and how many are kept."""

    folder: Path
    every: Duration | None
    keep: int

    def save(self, step: int, model: nn.Module, optimizer: torch.optim.Optimizer, state: Mapping[str, Any]) -> Path:
        """Write the checkpoint of a step, then drop all but the newest.

        Raises:
            UserError: too little space; older checkpoints are untouched.
        """
        from safetensors import SafetensorError
        from safetensors.torch import save_file

        path = self.folder / f"{_PREFIX}{step:08d}"
        if path.exists():
            try:
                return open_checkpoint(path).path  # the same step of the same run is the same checkpoint
            except UserError:
                shutil.rmtree(path)
        for leftover in self.folder.glob(f".{_PREFIX}*.partial"):
            shutil.rmtree(leftover)
        weights, moments = _tensors_of(model, optimizer)
        size = sum(tensor.nbytes for tensors in (weights, moments) for tensor in tensors.values())
        require_space(self.folder, int(size * 1.02) + (1 << 20))
        self.folder.mkdir(parents=True, exist_ok=True)
        with whole_folder(path) as aside:
            try:
                save_file(weights, aside / "model.safetensors")
                save_file(moments, aside / "optimizer.safetensors")
            except SafetensorError as error:  # how it reports a full disk
                raise UserError(f"{path} could not be written: {error}; older checkpoints are as they were") from None
            write_json(aside / "state.json", dict(state))
            hashes = {name: sha256_file(aside / name) for name in _FILES}
            write_json(aside / "manifest.json", {"format": _FORMAT, "step": step, "sha256": hashes})
        kept = [other for other in list_checkpoints(self.folder) if _step_of(other) <= step][-self.keep :]
        for other in list_checkpoints(self.folder):
            if other not in kept:  # older, or a damaged one of a later step that was passed over
                shutil.rmtree(other)
        return path


def _tensors_of(model: nn.Module, optimizer: torch.optim.Optimizer) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Weights by name, and the optimizer's state by `name/entry`."""
    names: dict[Tensor, str] = {parameter: name for name, parameter in model.named_parameters()}
    weights = {name: parameter.detach().contiguous() for parameter, name in names.items()}
    moments = {
        f"{names[parameter]}/{entry}": tensor.detach().contiguous()
        for parameter, entries in optimizer.state.items()
        for entry, tensor in entries.items()
    }
    return weights, moments


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
    manifest = read_json(path / "manifest.json")
    try:
        if manifest["format"] != _FORMAT:
            raise UserError(f"{path}: checkpoint format {manifest['format']} is not known here")
        if manifest["step"] != _step_of(path):
            raise UserError(f"{path} is the checkpoint of step {manifest['step']} under another name")
        hashes = {name: manifest["sha256"][name] for name in _FILES}
    except (KeyError, TypeError) as error:
        raise UserError(f"{path / 'manifest.json'} is damaged ({error!r})") from None
    for name, sha256 in hashes.items():
        if not (path / name).is_file():
            raise UserError(f"{path / name} is missing")
        if sha256_file(path / name) != sha256:
            raise UserError(f"{path / name} is damaged: its SHA-256 is not the manifest's")
    return Checkpoint(path, read_json(path / "state.json"))


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
