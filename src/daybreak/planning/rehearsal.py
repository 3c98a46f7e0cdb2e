"""A few steps of a run, by its own parts in a process of its own, then thrown away: what they take."""

import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import median
from typing import final

import torch

from daybreak.checkpoint import list_checkpoints
from daybreak.compose import choose_execution
from daybreak.data.batches import largest_divisor
from daybreak.data.reading import Reading
from daybreak.distributed import ALONE
from daybreak.errors import UserError
from daybreak.executor import end_with
from daybreak.hardware import autocast, peak_flops
from daybreak.planning.course import Pace
from daybreak.recipe import Recipe
from daybreak.sitting import Sitting, assembled
from daybreak.training import loop
from daybreak.training.budget import Clock
from daybreak.training.flops import flops_per_token
from daybreak.training.metrics import read_metrics
from daybreak.training.parts import Parts
from daybreak.training.signals import StopRequest

_PATIENCE = 900.0
_SECONDS_OF_STEPS = 6.0  # by estimate, as the next two
_LONGEST_STEP = 4.0  # a longer one is put together from one of fewer micro-batches
_LONGEST_EVALUATION = 4.0
_FEWEST_STEPS, _MOST_STEPS = 4, 60
_UNCOUNTED_STEPS = 2  # the first are slow
_SHARE_OF_PEAK = 0.25  # that a step reaches, to begin with
_UNKNOWN_PEAK = 1e13  # FLOP/s


@final
@dataclass(frozen=True)
class Rehearsal:
    """What a run takes here.

    Attributes:
        pace: without samples where the recipe draws none.
        peak_bytes: the most memory the process took; on CUDA, its tensors on the device.
        windows: of the text that were read.
        checkpoint_bytes: of one checkpoint.
    """

    device: str
    precision: str
    micro_batch: int
    pace: Pace
    peak_bytes: int
    windows: int
    checkpoint_bytes: int


def rehearse(recipe: Recipe) -> Rehearsal:
    """Begin the recipe's run and give it up after a few steps; takes some ten seconds, and more where steps are long.

    Raises:
        UserError: the run could not begin here.
    """
    with tempfile.TemporaryDirectory(prefix="daybreak-rehearsal-") as name:
        folder = Path(name)
        (folder / "recipe.toml").write_text(recipe.to_toml(), encoding="utf-8")
        words = [sys.executable, "-m", "daybreak.planning.rehearsal", str(folder), repr(time.monotonic())]
        try:
            done = subprocess.run(words, capture_output=True, text=True, timeout=_PATIENCE, check=False)
        except subprocess.TimeoutExpired:
            raise UserError(f"a few steps of {recipe.name} took longer than {_PATIENCE:.0f} s here") from None
        if done.returncode:
            said = done.stderr.rpartition("error: ")[2].strip() or "it said nothing"
            raise UserError(f"{recipe.name} could not begin here: {said}")
    found = json.loads(done.stdout.splitlines()[-1])
    return Rehearsal(**{**found, "pace": Pace(**found["pace"])})


def _perform(recipe: Recipe, reading: Reading, folder: Path, began: float) -> Rehearsal:
    """In the process that is thrown away."""
    execution = choose_execution(recipe)
    device = torch.device(execution.device)
    peak = peak_flops(device, execution.precision) or _UNKNOWN_PEAK
    seconds_a_token = flops_per_token(recipe.model, recipe.row_length) / (_SHARE_OF_PEAK * peak)
    short = _shorter(recipe, seconds_a_token, execution.micro_batch)
    # Its learning rates matter to nothing here, and a warm-up that does not fit is the plan's to say.
    steps = min(_MOST_STEPS, max(_FEWEST_STEPS, int(_SECONDS_OF_STEPS / (seconds_a_token * short.batch.tokens))))
    content = short.model_dump(mode="json") | {
        "schedule": {"kind": "constant", "warmup": "0%"},
        "budget": f"{steps + _UNCOUNTED_STEPS} steps",
        "init": None,
        "early_stop": None,
    }
    short = Recipe.model_validate(content)
    clock, out = Clock(began), folder / "run"
    out.mkdir()
    sitting = Sitting(out, short, reading, clock, StopRequest(), ALONE, accept_changes=False)
    with assembled(sitting, choose_execution(short), fresh=True) as ready:
        start_seconds = clock.elapsed()
        parts = replace(ready.parts, validation=replace(ready.parts.validation, every=None))
        loop.train(parts, ready.spent)
        update_seconds = _seconds_of_an_update(parts)
        sample_seconds = _seconds_of_a_sample(parts) if recipe.samples.every is not None else 0.0
        save_seconds = parts.checkpoints.seconds
    records = read_metrics(out / "metrics.jsonl", "train")
    (validation,) = read_metrics(out / "metrics.jsonl", "validation")
    checkpoint = list_checkpoints(out / "checkpoints")[-1]
    times = [record["milliseconds"] / 1000 for record in records[_UNCOUNTED_STEPS:]]
    whole, part = (min(each.evaluation.tokens, reading.validation_tokens) for each in (recipe, short))
    memory = torch.cuda.max_memory_reserved(device) if device.type == "cuda" else _process_peak()
    return Rehearsal(
        device=str(device),
        precision=ready.execution.precision,
        micro_batch=ready.execution.micro_batch,
        pace=Pace(
            start=start_seconds,
            step=(median(times) - update_seconds) * recipe.batch.tokens / short.batch.tokens + update_seconds,
            evaluation=validation["seconds"] * whole / part,
            sample=sample_seconds,
            save=save_seconds,
        ),
        peak_bytes=memory,
        windows=len(records) * short.batch.tokens // short.data.window,
        checkpoint_bytes=sum(file.stat().st_size for file in checkpoint.iterdir()),
    )


def _shorter(recipe: Recipe, seconds_a_token: float, micro_batch: int) -> Recipe:
    """With fewer micro-batches a step, and fewer rows an evaluation, where they would take long."""
    tokens, window = recipe.batch.smallest, recipe.data.window
    largest = (
        largest_divisor(recipe.batch.tokens // tokens, max(1, int(_LONGEST_STEP / seconds_a_token / tokens))) * tokens
    )
    if recipe.batch.tokens * seconds_a_token > _LONGEST_STEP and largest == tokens:
        largest = max(1, 2 * micro_batch * recipe.row_length // window) * window
    evaluated = min(recipe.evaluation.tokens, max(recipe.row_length, int(3 * _LONGEST_EVALUATION / seconds_a_token)))
    content = recipe.model_dump(mode="json")
    content |= {"batch": {"tokens": min(recipe.batch.tokens, largest)}, "curriculum": None}
    content["evaluation"] |= {"tokens": evaluated}
    content["tasks"] = {}
    return Recipe.model_validate(content)


def _seconds_of_an_update(parts: Parts) -> float:
    """Of the optimizers, once a step however many micro-batches it has."""
    for parameter in parts.model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    began = time.perf_counter()
    for optimizer in parts.optimizers:
        optimizer.step()
    if parts.device.type == "cuda":
        torch.cuda.synchronize(parts.device)
    return time.perf_counter() - began


def _seconds_of_a_sample(parts: Parts) -> float:
    began = time.perf_counter()
    with torch.compiler.set_stance("force_eager"), autocast(parts.device, parts.precision):
        parts.sampler.draw(parts.model)
    return time.perf_counter() - began


def _process_peak() -> int:
    unit = 1 if sys.platform == "darwin" else 1024
    return unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def _main(folder: Path, began: float) -> None:
    end_with(os.getppid())
    try:
        recipe = Recipe.load(folder / "recipe.toml")
        found = _perform(recipe, Reading.open(recipe.data), folder, began)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(error.exit_code) from None
    print(json.dumps(asdict(found)))


if __name__ == "__main__":
    _main(Path(sys.argv[1]), float(sys.argv[2]))
