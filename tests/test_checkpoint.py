"""Checkpoints: equal bit for bit, never silently wrong, never half-written."""

import json
import os
import pickle
import shutil
from collections import namedtuple
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import SafetensorError

from daybreak.checkpoint import Checkpoints, list_checkpoints, open_checkpoint, open_latest
from daybreak.errors import UserError
from daybreak.files import sha256_file
from daybreak.model.gpt import GPT, ModelConfig, build
from daybreak.training.optimizer import AdamWConfig, build_optimizer

FILES = ("model.safetensors", "optimizer.safetensors", "state.json", "manifest.json")
STATE = {"spent": {"steps": 3, "progress": 1 / 3}, "finished": False}


def trained(seed: int = 0, dim: int = 16) -> tuple[GPT, torch.optim.AdamW]:
    """A small model and an optimizer with moments, two steps old."""
    model = build(ModelConfig(layers=1, heads=2, dim=dim, context=16, vocab_size=257), seed, torch.device("cpu"))
    optimizer = build_optimizer(AdamWConfig(lr=1e-2), model)
    generator = torch.Generator().manual_seed(seed)
    for _ in range(2):
        for parameter in model.parameters():
            parameter.grad = torch.randn(parameter.shape, generator=generator)
        optimizer.step()
    optimizer.zero_grad()
    return model, optimizer


def save(folder: Path, step: int, *, keep: int = 10, seed: int = 0) -> Path:
    return Checkpoints(folder, None, keep).save(step, *trained(seed), STATE)


def moments(model: GPT, optimizer: torch.optim.AdamW) -> dict[tuple[str, str], torch.Tensor]:
    names = {parameter: name for name, parameter in model.named_parameters()}
    return {(names[p], entry): value for p, entries in optimizer.state.items() for entry, value in entries.items()}


def bits(tensor: torch.Tensor) -> bytes:
    return tensor.detach().contiguous().numpy().tobytes()


def contents(folder: Path) -> dict[str, bytes]:
    """Every file below a folder with its bytes, and every folder."""
    return {str(path.relative_to(folder)): path.read_bytes() if path.is_file() else b"" for path in folder.rglob("*")}


def test_what_is_restored_is_what_was_saved_bit_for_bit(tmp_path: Path) -> None:
    model, optimizer = trained(seed=1)
    with torch.no_grad():
        model.embedding.weight[0, :4] = torch.tensor([float("nan"), -0.0, 1e-42, float("inf")])
    path = Checkpoints(tmp_path, None, 2).save(3, model, optimizer, STATE)
    assert path.name == "step-00000003"

    other, other_optimizer = trained(seed=2)
    checkpoint = open_checkpoint(path)
    checkpoint.restore(other, other_optimizer)
    assert checkpoint.state == STATE
    for (name, ours), (_, theirs) in zip(model.named_parameters(), other.named_parameters(), strict=True):
        assert bits(ours) == bits(theirs), name
    saved, restored = moments(model, optimizer), moments(other, other_optimizer)
    assert saved.keys() == restored.keys()
    assert {entry for _, entry in saved} == {"step", "exp_avg", "exp_avg_sq"}
    for key in saved:
        assert bits(saved[key]) == bits(restored[key]), key


def test_a_restored_optimizer_goes_on_as_the_saved_one(tmp_path: Path) -> None:
    pair = trained(seed=1)
    other = trained(seed=2)
    open_checkpoint(Checkpoints(tmp_path, None, 2).save(3, *pair, STATE)).restore(*other)
    for model, optimizer in (pair, other):
        for parameter in model.parameters():
            parameter.grad = torch.full_like(parameter, 0.5)
        optimizer.step()
    for ours, theirs in zip(pair[0].parameters(), other[0].parameters(), strict=True):
        assert bits(ours) == bits(theirs)


def test_a_checkpoint_of_another_model_is_refused(tmp_path: Path) -> None:
    path = save(tmp_path, 1)
    with pytest.raises(UserError, match="another model"):
        open_checkpoint(path).restore(trained(dim=32)[0])


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[0 if path.suffix == ".json" else len(content) // 2] ^= 1
    path.write_bytes(content)


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-5])


def empty(path: Path) -> None:
    path.write_bytes(b"")


DAMAGES: list[Callable[[Path], None]] = [flip, truncate, empty, Path.unlink]


@pytest.mark.parametrize("file", FILES)
@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__)
def test_a_damaged_file_is_named_and_the_checkpoint_before_is_taken(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], file: str, damage: Callable[[Path], None]
) -> None:
    older, newer = save(tmp_path, 1), save(tmp_path, 2)
    damage(newer / file)
    with pytest.raises(UserError) as caught:
        open_checkpoint(newer)
    assert str(newer / file) in str(caught.value)

    latest = open_latest(tmp_path)
    assert latest is not None
    assert latest.path == older
    assert str(newer / file) in capsys.readouterr().err


def test_no_flipped_byte_of_a_manifest_is_more_than_a_message(tmp_path: Path) -> None:
    path = save(tmp_path, 1)
    whole = (path / "manifest.json").read_bytes()
    refused = 0
    for position in range(len(whole)):
        for bit in (1, 128):
            (path / "manifest.json").write_bytes(
                whole[:position] + bytes([whole[position] ^ bit]) + whole[position + 1 :]
            )
            try:
                open_checkpoint(path)
            except UserError:
                refused += 1
    assert refused > 1.5 * len(whole)


def test_if_all_are_damaged_it_is_an_error(tmp_path: Path) -> None:
    for step in (1, 2):
        flip(save(tmp_path, step) / "model.safetensors")
    with pytest.raises(UserError, match="every checkpoint"):
        open_latest(tmp_path)


def test_without_any_there_is_none(tmp_path: Path) -> None:
    assert open_latest(tmp_path / "checkpoints") is None


def test_only_the_newest_are_kept(tmp_path: Path) -> None:
    for step in (5, 10, 90, 100_000_000):
        save(tmp_path, step)
    save(tmp_path, 100_000_001, keep=2)
    assert [path.name for path in list_checkpoints(tmp_path)] == ["step-100000000", "step-100000001"]
    assert open_latest(tmp_path).path.name == "step-100000001"  # type: ignore[union-attr]


def test_pruning_touches_nothing_but_older_checkpoints(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    first = save(tmp_path, 1, keep=1)
    kept = save(tmp_path, 2, keep=1)
    assert not first.exists()
    assert (tmp_path / "notes.txt").read_text() == "mine"
    open_checkpoint(kept)


def test_what_a_crash_left_is_swept_and_never_taken_for_a_checkpoint(tmp_path: Path) -> None:
    whole = save(tmp_path, 1)
    leftover = tmp_path / ".step-00000002.partial"
    shutil.copytree(whole, leftover)
    assert open_latest(tmp_path).path == whole  # type: ignore[union-attr]
    save(tmp_path, 3)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-00000001", "step-00000003"]


class KilledError(BaseException):
    """Stands for the end of the process."""


def kill_at(patch: pytest.MonkeyPatch, where: str) -> None:
    def die(*args: Any, **kwargs: Any) -> None:
        raise KilledError

    if where == "second tensor file":
        import safetensors.torch

        write = safetensors.torch.save_file

        def die_second(tensors: Any, path: Path, **kwargs: Any) -> None:
            write(tensors, path, **kwargs)
            if Path(path).name == "optimizer.safetensors":
                truncate(Path(path))
                raise KilledError

        patch.setattr(safetensors.torch, "save_file", die_second)
    elif where == "first tensor file":
        patch.setattr("safetensors.torch.save_file", die)
    elif where == "manifest":
        patch.setattr("daybreak.checkpoint.sha256_file", die)
    elif where == "sync":
        patch.setattr(os, "fsync", die)
    else:
        patch.setattr(Path, "rename", die)


PLACES = ["first tensor file", "second tensor file", "manifest", "sync", "rename"]


@pytest.mark.parametrize("where", PLACES)
def test_a_kill_in_the_middle_leaves_the_checkpoint_before_and_nothing_half_written(tmp_path: Path, where: str) -> None:
    save(tmp_path, 1, keep=1)
    before = contents(tmp_path)
    with pytest.MonkeyPatch.context() as patch:
        kill_at(patch, where)
        with pytest.raises(KilledError):
            save(tmp_path, 2, keep=1, seed=1)
    assert contents(tmp_path) == before
    assert open_latest(tmp_path).path.name == "step-00000001"  # type: ignore[union-attr]


@pytest.mark.parametrize("where", PLACES)
def test_a_kill_while_a_step_is_saved_again_leaves_a_valid_checkpoint_of_it(tmp_path: Path, where: str) -> None:
    # So it is at the end of a run whose last step was due anyway, and when a run is stopped before its first step.
    save(tmp_path, 1, keep=1)
    with pytest.MonkeyPatch.context() as patch:
        kill_at(patch, where)
        with suppress(KilledError):
            save(tmp_path, 1, keep=1)
    latest = open_latest(tmp_path)
    assert latest is not None
    assert latest.path.name == "step-00000001"


def test_a_damaged_checkpoint_is_replaced_when_its_step_is_saved_again(tmp_path: Path) -> None:
    first = contents(save(tmp_path, 1))
    flip(tmp_path / "step-00000001" / "model.safetensors")
    assert contents(save(tmp_path, 1)) == first


def test_what_was_just_saved_is_never_dropped_for_a_damaged_later_one(tmp_path: Path) -> None:
    save(tmp_path, 1)
    flip(save(tmp_path, 12) / "model.safetensors")
    saved = save(tmp_path, 11, keep=1)
    assert open_checkpoint(saved).path == saved


def test_too_little_space_is_said_with_both_numbers_and_leaves_the_old_intact(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save(tmp_path, 1, keep=1)
    before = contents(tmp_path)
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(10**9, 10**9, 1000))
    with pytest.raises(UserError, match=r"[1-9][0-9]* MB are needed, 0 MB are free"):
        save(tmp_path, 2, keep=1)
    assert contents(tmp_path) == before


def test_a_disk_that_fills_up_in_the_middle_is_a_message_and_leaves_the_old_intact(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save(tmp_path, 1, keep=1)
    before = contents(tmp_path)

    def full(*args: Any, **kwargs: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("safetensors.torch.save_file", full)
    with pytest.raises(UserError, match="no space"):
        save(tmp_path, 2, keep=1)
    assert contents(tmp_path) == before


class Canary:
    """A pickle that leaves a file behind if it is ever loaded."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (self.path,))


@pytest.mark.parametrize("file", ["model.safetensors", "optimizer.safetensors"])
@pytest.mark.parametrize("forged", [False, True], ids=["manifest as it was", "manifest forged to match"])
def test_a_pickle_in_the_place_of_tensors_is_refused_and_never_run(tmp_path: Path, file: str, forged: bool) -> None:
    path, canary = save(tmp_path, 1), tmp_path / "canary"
    poison = pickle.dumps(Canary(canary))
    (path / file).write_bytes(poison)
    if forged:
        manifest = json.loads((path / "manifest.json").read_text())
        manifest["sha256"][file] = sha256_file(path / file)
        (path / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises((UserError, SafetensorError)):
        open_checkpoint(path).restore(*trained())
    assert not canary.exists()
    pickle.loads(poison)  # noqa: S301  the canary does sing
    assert canary.exists()
