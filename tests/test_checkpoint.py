"""Checkpoints: equal bit for bit, never silently wrong, never half-written."""

import os
import pickle
import shutil
import threading
from collections import namedtuple
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import SafetensorError

from daybreak.checkpoint import Tensors, list_checkpoints, open_checkpoint, open_latest, restore
from daybreak.errors import UserError
from daybreak.files import read_sealed, sha256_file, write_sealed
from daybreak.model.gpt import GPT, ModelConfig, build
from daybreak.saving import CheckpointConfig, Checkpoints, sweep
from daybreak.training.optimizer import AdamW8bitConfig, AdamWConfig, MuonConfig, Optimizer, build_optimizers

FILES = ("model.safetensors", "optimizer.safetensors", "state.json", "manifest.json")
STATE = {"spent": {"steps": 3, "progress": 1 / 3}, "finished": False}


Optimizers = tuple[torch.optim.Optimizer, ...]
ADAMW, MUON = AdamWConfig(lr=1e-2), MuonConfig(kind="muon")
EIGHT_BIT = AdamW8bitConfig(kind="adamw8bit", lr=1e-2)
ADAMW_ENTRIES = {"step", "exp_avg", "exp_avg_sq"}
EIGHT_BIT_ENTRIES = {"exp_avg.codes", "exp_avg.scale", "exp_avg_sq.codes", "exp_avg_sq.scale"}


def trained(seed: int = 0, dim: int = 16, config: Optimizer = ADAMW) -> tuple[GPT, Optimizers]:
    """A small model and optimizers with moments, two steps old."""
    model = build(ModelConfig(layers=1, heads=2, dim=dim, context=16, vocab_size=257), seed, torch.device("cpu"))
    optimizers = build_optimizers(config, model)
    generator = torch.Generator().manual_seed(seed)
    for _ in range(2):
        for parameter in model.parameters():
            parameter.grad = torch.randn(parameter.shape, generator=generator)
        for optimizer in optimizers:
            optimizer.step()
    for parameter in model.parameters():
        parameter.grad = None
    return model, optimizers


def save(
    folder: Path,
    step: int,
    *,
    keep: int = 10,
    seed: int = 0,
    pinned: bool = False,
    validation_loss: float | None = None,
    keep_best: bool = False,
    background: bool = False,
) -> Path:
    """Save a step, and wait until it is written."""
    config = CheckpointConfig(keep=keep, keep_best=keep_best, background=background)
    with Checkpoints(folder, config) as checkpoints:
        tensors = Tensors.of(*trained(seed))
        checkpoints.save(step, tensors, STATE, pinned=pinned, validation_loss=validation_loss)
    return folder / f"step-{step:08d}"


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def steps(folder: Path) -> list[int]:
    return [open_checkpoint(path).step for path in list_checkpoints(folder)]


def moments(model: GPT, optimizers: Optimizers) -> dict[tuple[str, str], torch.Tensor]:
    named = {parameter: name for name, parameter in model.named_parameters()}
    states = [item for optimizer in optimizers for item in optimizer.state.items()]
    return {(named[parameter], entry): value for parameter, entries in states for entry, value in entries.items()}


def bits(tensor: torch.Tensor) -> bytes:
    return tensor.detach().contiguous().numpy().tobytes()


def contents(folder: Path) -> dict[str, bytes]:
    """Every file below a folder with its bytes, and every folder."""
    return {str(path.relative_to(folder)): path.read_bytes() if path.is_file() else b"" for path in folder.rglob("*")}


def test_its_files_are_as_readable_as_any_other(tmp_path: Path) -> None:
    path = save(tmp_path / "checkpoints", 1)
    (path / "other").write_text("")
    assert {(path / name).stat().st_mode & 0o777 for name in FILES} == {(path / "other").stat().st_mode & 0o777}


@pytest.mark.parametrize(
    ("config", "entries"),
    [(ADAMW, ADAMW_ENTRIES), (MUON, ADAMW_ENTRIES | {"momentum"}), (EIGHT_BIT, ADAMW_ENTRIES | EIGHT_BIT_ENTRIES)],
    ids=["adamw", "muon", "adamw8bit"],
)
def test_what_is_restored_is_what_was_saved_bit_for_bit(tmp_path: Path, config: Optimizer, entries: set[str]) -> None:
    model, optimizers = trained(seed=1, dim=32, config=config)
    with torch.no_grad():
        model.embedding.weight[0, :4] = torch.tensor([float("nan"), -0.0, 1e-42, float("inf")])
    with Checkpoints(tmp_path, CheckpointConfig()) as checkpoints:
        checkpoints.save(3, Tensors.of(model, optimizers), STATE)
    assert names(tmp_path) == ["step-00000003"]

    other, other_optimizers = trained(seed=2, dim=32, config=config)
    checkpoint = open_checkpoint(tmp_path / "step-00000003")
    restore(checkpoint, other, other_optimizers)
    assert checkpoint.step == 3
    assert checkpoint.state == STATE
    for (name, ours), (_, theirs) in zip(model.named_parameters(), other.named_parameters(), strict=True):
        assert bits(ours) == bits(theirs), name
    saved, restored = moments(model, optimizers), moments(other, other_optimizers)
    assert saved.keys() == restored.keys()
    assert {name for name, _ in saved} == {name for name, _ in model.named_parameters()}
    assert {entry for _, entry in saved} == entries
    for key in saved:
        assert bits(saved[key]) == bits(restored[key]), key


@pytest.mark.parametrize("config", [ADAMW, MUON, EIGHT_BIT], ids=["adamw", "muon", "adamw8bit"])
def test_restored_optimizers_go_on_as_the_saved_ones(tmp_path: Path, config: Optimizer) -> None:
    pair = trained(seed=1, dim=32, config=config)
    other = trained(seed=2, dim=32, config=config)
    with Checkpoints(tmp_path, CheckpointConfig()) as checkpoints:
        checkpoints.save(3, Tensors.of(*pair), STATE)
    restore(open_latest(tmp_path), *other)
    for model, optimizers in (pair, other):
        for parameter in model.parameters():
            parameter.grad = torch.full_like(parameter, 0.5)
        for optimizer in optimizers:
            optimizer.step()
    for ours, theirs in zip(pair[0].parameters(), other[0].parameters(), strict=True):
        assert bits(ours) == bits(theirs)


def test_weights_are_restored_without_optimizers_and_optimizers_are_left_alone(tmp_path: Path) -> None:
    model, _ = trained(seed=1)
    other, optimizers = trained(seed=2)
    before = {key: bits(value) for key, value in moments(other, optimizers).items()}
    restore(open_checkpoint(save(tmp_path, 1, seed=1)), other)
    for ours, theirs in zip(model.parameters(), other.parameters(), strict=True):
        assert bits(ours) == bits(theirs)
    assert {key: bits(value) for key, value in moments(other, optimizers).items()} == before


def test_an_optimizer_that_was_saved_before_its_first_step_is_restored_without_moments(tmp_path: Path) -> None:
    model = build(ModelConfig(layers=1, heads=2, dim=16, context=16, vocab_size=257), 0, torch.device("cpu"))
    with Checkpoints(tmp_path, CheckpointConfig()) as checkpoints:
        checkpoints.save(0, Tensors.of(model, build_optimizers(ADAMW, model)), STATE)
    other, optimizers = trained(seed=2)
    restore(open_latest(tmp_path), other, optimizers)
    assert moments(other, optimizers) == {}


def lose_codes(moments: dict[str, torch.Tensor], codes: str) -> None:
    del moments[codes]


def retype_codes(moments: dict[str, torch.Tensor], codes: str) -> None:
    moments[codes] = moments[codes].float()


def retype_the_first_moment(moments: dict[str, torch.Tensor], codes: str) -> None:
    name = next(name for name in moments if name.endswith("exp_avg"))
    moments[name] = moments[name].to(torch.uint8)


def cut_the_scale(moments: dict[str, torch.Tensor], codes: str) -> None:
    scale = codes.removesuffix("codes") + "scale"
    moments[scale] = moments[scale][:-1].clone()


@pytest.mark.parametrize("damage", [lose_codes, retype_codes, retype_the_first_moment, cut_the_scale])
def test_eight_bit_moments_that_do_not_fit_are_refused(tmp_path: Path, damage: Callable[..., None]) -> None:
    model, optimizers = trained(dim=32, config=EIGHT_BIT)
    tensors = Tensors.of(model, optimizers)
    changed = dict(tensors.moments)
    damage(changed, next(name for name in changed if name.endswith("exp_avg.codes")))
    with Checkpoints(tmp_path, CheckpointConfig()) as checkpoints:
        checkpoints.save(3, Tensors(tensors.weights, changed), STATE)
    with pytest.raises(UserError, match="the optimizer of another model"):
        restore(open_latest(tmp_path), model, optimizers)


def test_a_checkpoint_of_another_model_is_refused(tmp_path: Path) -> None:
    path = save(tmp_path, 1)
    with pytest.raises(UserError, match="another model"):
        restore(open_checkpoint(path), trained(dim=32)[0])


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


def test_no_flipped_bit_of_a_manifest_goes_unseen(tmp_path: Path) -> None:
    path = save(tmp_path, 1)
    whole = (path / "manifest.json").read_bytes()
    for position in range(len(whole)):
        for bit in (1, 2, 32, 128):
            (path / "manifest.json").write_bytes(
                whole[:position] + bytes([whole[position] ^ bit]) + whole[position + 1 :]
            )
            with pytest.raises(UserError, match=r"manifest\.json"):
                open_checkpoint(path)
    (path / "manifest.json").write_bytes(whole)
    open_checkpoint(path)


def _another_format(manifest: dict[str, Any]) -> None:
    manifest["format"] = 2


def _another_step(manifest: dict[str, Any]) -> None:
    manifest["step"] = 2


def _no_step(manifest: dict[str, Any]) -> None:
    del manifest["step"]


def _a_file_unhashed(manifest: dict[str, Any]) -> None:
    del manifest["sha256"]["optimizer.safetensors"]


def _hashes_in_a_list(manifest: dict[str, Any]) -> None:
    manifest["sha256"] = []


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (_another_format, "format 2 is not known"),
        (_another_step, "step 2 under another name"),
        (_no_step, "step"),
        (_a_file_unhashed, r"optimizer\.safetensors"),
        (_hashes_in_a_list, r"manifest\.json is damaged"),
    ],
)
def test_a_manifest_that_is_sealed_but_wrong_is_refused(
    tmp_path: Path, damage: Callable[[dict[str, Any]], None], said: str
) -> None:
    path = save(tmp_path, 1)
    manifest = read_sealed(path / "manifest.json")
    damage(manifest)
    write_sealed(path / "manifest.json", manifest)
    with pytest.raises(UserError, match=said):
        open_checkpoint(path)


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


def test_pinned_ones_are_kept_for_good(tmp_path: Path) -> None:
    for step in range(1, 8):
        save(tmp_path, step, keep=2, pinned=step in (2, 5))
    assert steps(tmp_path) == [2, 5, 6, 7]
    assert [open_checkpoint(path).pinned for path in list_checkpoints(tmp_path)] == [True, True, False, False]


def test_the_best_is_kept_until_there_is_a_better_one(tmp_path: Path) -> None:
    kept = []
    for step, loss in enumerate([3.0, 2.0, None, 2.5, 1.5, 2.0, 2.0, None], start=1):
        save(tmp_path, step, keep=1, keep_best=True, validation_loss=loss)
        kept.append(steps(tmp_path))
    assert kept == [[1], [2], [2, 3], [2, 4], [5], [5, 6], [5, 7], [5, 8]]
    assert open_checkpoint(tmp_path / "step-00000005").validation_loss == 1.5
    assert open_checkpoint(tmp_path / "step-00000008").validation_loss is None


def test_without_keep_best_a_loss_keeps_nothing(tmp_path: Path) -> None:
    for step, loss in enumerate([1.0, 2.0, 3.0], start=1):
        save(tmp_path, step, keep=1, validation_loss=loss)
    assert steps(tmp_path) == [3]


def test_the_lowest_loss_is_that_of_what_was_measured(tmp_path: Path) -> None:
    with Checkpoints(tmp_path, CheckpointConfig(keep=10)) as checkpoints:
        assert checkpoints.lowest_loss() == float("inf")
        for step, loss in enumerate([None, 2.0, 1.25, 3.0], start=1):
            checkpoints.save(step, Tensors.of(*trained()), STATE, validation_loss=loss)
        assert checkpoints.lowest_loss() == 1.25


@pytest.fixture
def held(monkeypatch: pytest.MonkeyPatch) -> threading.Event:
    """Writing tensors waits for this event."""
    import safetensors.torch

    event, write = threading.Event(), safetensors.torch.save_file

    def wait_and_write(*args: Any, **kwargs: Any) -> None:
        assert event.wait(30)
        write(*args, **kwargs)

    monkeypatch.setattr(safetensors.torch, "save_file", wait_and_write)
    return event


def test_in_the_background_what_is_written_is_the_state_at_the_save(tmp_path: Path, held: threading.Event) -> None:
    model, optimizers = trained(seed=1)
    before = Tensors.of(model, optimizers).copied()
    state = {"spent": {"steps": 1}}
    with Checkpoints(tmp_path, CheckpointConfig(background=True)) as checkpoints:
        checkpoints.save(1, Tensors.of(model, optimizers), state)
        assert list_checkpoints(tmp_path) == []  # it goes on while nothing is written yet
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.fill_(7.0)
        for optimizer in optimizers:
            for entries in optimizer.state.values():
                for tensor in entries.values():
                    tensor.fill_(7.0)
        state["later"] = {}
        held.set()
    checkpoint = open_checkpoint(tmp_path / "step-00000001")
    assert checkpoint.state == {"spent": {"steps": 1}}
    for written, expected in ((checkpoint.weights(), before.weights), (checkpoint.moments(), before.moments)):
        assert written.keys() == expected.keys()
        assert all(bits(written[name]) == bits(expected[name]) for name in expected)


def test_in_the_background_one_is_written_at_a_time_and_the_newest_is_waited_for(
    tmp_path: Path, held: threading.Event
) -> None:
    threading.Timer(0.2, held.set).start()
    with Checkpoints(tmp_path, CheckpointConfig(keep=2, background=True)) as checkpoints:
        for step in (1, 2, 3):
            checkpoints.save(step, Tensors.of(*trained(step)), STATE)
        newest = checkpoints.newest()
        assert newest is not None
        assert newest.step == 3
        assert checkpoints.seconds > 0
    assert contents(tmp_path / "step-00000003") == contents(save(tmp_path / "else", 3, seed=3))
    assert steps(tmp_path) == [2, 3]


@pytest.mark.parametrize("told", ["next save", "wait", "leaving"])
def test_in_the_background_a_failure_is_told_and_what_was_there_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, told: str
) -> None:
    save(tmp_path, 1, keep=1)
    before = contents(tmp_path)

    def full(*args: Any, **kwargs: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("safetensors.torch.save_file", full)
    checkpoints = Checkpoints(tmp_path, CheckpointConfig(keep=1, background=True))

    def save_and_hear() -> None:
        with checkpoints:
            checkpoints.save(2, Tensors.of(*trained()), STATE)
            if told == "next save":
                checkpoints.save(3, Tensors.of(*trained()), STATE)
            elif told == "wait":
                checkpoints.wait()

    with pytest.raises(UserError, match="no space"):
        save_and_hear()
    assert contents(tmp_path) == before


def test_leaving_behind_an_error_waits_for_what_is_written_and_keeps_the_error(
    tmp_path: Path, held: threading.Event
) -> None:
    threading.Timer(0.2, held.set).start()

    def save_and_die() -> None:
        with Checkpoints(tmp_path, CheckpointConfig(background=True)) as checkpoints:
            checkpoints.save(1, Tensors.of(*trained()), STATE)
            raise KilledError

    with pytest.raises(KilledError):
        save_and_die()
    assert steps(tmp_path) == [1]


def test_dropping_is_seen_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A crash while files are removed leaves nothing under the checkpoint's name, and the next save clears it away."""
    save(tmp_path, 1, keep=1)
    remove = shutil.rmtree

    def die(path: Path, ignore_errors: bool = False) -> None:
        if Path(path).name.startswith(".step-00000001") and Path(path).exists():
            (Path(path) / "model.safetensors").unlink()
            raise KilledError
        remove(path, ignore_errors=ignore_errors)

    with monkeypatch.context() as patch:
        patch.setattr(shutil, "rmtree", die)
        with pytest.raises(KilledError):
            save(tmp_path, 2, keep=1)
    assert steps(tmp_path) == [2]
    save(tmp_path, 3, keep=1)
    assert names(tmp_path) == ["step-00000003"]


@pytest.mark.parametrize("ending", ["partial", "dropped"])
def test_what_a_crash_left_is_swept_and_never_taken_for_a_checkpoint(tmp_path: Path, ending: str) -> None:
    whole = save(tmp_path, 1)
    leftover = tmp_path / f".step-00000002.{ending}"
    shutil.copytree(whole, leftover)
    assert open_latest(tmp_path).path == whole  # type: ignore[union-attr]
    save(tmp_path, 3)
    assert names(tmp_path) == ["step-00000001", "step-00000003"]


def test_a_sweep_touches_nothing_but_leftovers(tmp_path: Path) -> None:
    for name in (".step-00000002.partial", ".step-00000002.dropped"):
        shutil.copytree(save(tmp_path, 1), tmp_path / name)
    (tmp_path / "notes.txt").write_text("mine")
    (tmp_path / ".hidden.partial").mkdir()
    sweep(tmp_path)
    assert names(tmp_path) == [".hidden.partial", "notes.txt", "step-00000001"]
    assert open_latest(tmp_path).step == 1  # type: ignore[union-attr]
    sweep(tmp_path / "missing")


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
        patch.setattr("daybreak.saving.sha256_file", die)
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
        manifest = read_sealed(path / "manifest.json")
        manifest["sha256"][file] = sha256_file(path / file)
        write_sealed(path / "manifest.json", manifest)
    with pytest.raises((UserError, SafetensorError)):
        restore(open_checkpoint(path), *trained())
    assert not canary.exists()
    pickle.loads(poison)  # noqa: S301  the canary does sing
    assert canary.exists()
