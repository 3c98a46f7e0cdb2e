"""Kill a training run again and again, with SIGKILL, and see that nothing is ever lost: `make soak`.

A small recipe is trained once undisturbed. Then it is trained once more and killed, at random moments and at every
named point of a save, and each time started again by the same command. Whenever a run has finished, the next begins.
Lost is a kill after which

- a checkpoint is damaged, or steps are gone that a whole checkpoint held before,
- the next start leaves something half-written, or does not go on,
- or the run ends with other bits than the undisturbed one.
"""

import argparse
import os
import random
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import daybreak.run
from daybreak.checkpoint import list_checkpoints, open_checkpoint
from daybreak.data.prepare import prepare
from daybreak.duration import human_seconds
from daybreak.errors import UserError
from daybreak.run import Run
from daybreak.training.metrics import damaged_lines
from daybreak.verify import verify
from soak_child import BEGINNING, ELSEWHERE, POINTS, SAVING

STEPS = 60
RECIPE = f"""
budget = "{STEPS} steps"
seed = 5

[data]
window = 16

[batch]
tokens = 128

[model]
layers = 1
heads = 2
dim = 16
context = 16
vocab_size = 320
dropout = 0.2

[optimizer]
lr = 1e-2

[schedule]
warmup = "3 steps"

[evaluation]
every = "10 steps"
tokens = 256

[checkpoint]
every = "2 steps"
keep_every = "20 steps"
keep_best = true

[execution]
device = "cpu"
precision = "fp32"
micro_batch = 2
threads = 1
"""
_IN_START_UP = 0.2  # share of the random kills
_SHARE_OF_TRAINING = 0.4  # within which a random kill falls, counted from a sitting's first step
_LONGEST_SITTING = 300.0
_BACKGROUND = ("half-model", "before-manifest", "before-rename", "after-rename", "after-drop-rename", "half-dropped")


@dataclass(frozen=True)
class Kill:
    """How a sitting is ended: at a named point or, where there is none, at a random moment.

    Attributes:
        occurrence: how often the point is reached until then.
        in_start_up: before the first step, rather than behind it.
        share: how far into start-up or training.
    """

    point: str | None = None
    occurrence: int = 1
    in_start_up: bool = False
    share: float = 0.0

    def __str__(self) -> str:
        return self.point or ("random, start-up" if self.in_start_up else "random, training")


@dataclass(frozen=True)
class Undisturbed:
    """The run that nobody killed, and how long it took."""

    run: Run
    start_up_seconds: float
    training_seconds: float


@dataclass
class Sitting:
    """How a process ended.

    Attributes:
        began: seconds until it said what it would train; None if it did not get there.
        left: what the kill before left half-written, and was still there then.
        seen: the step of the newest checkpoint that was seen while it ran, -1 for none.
    """

    code: int = 0
    said: list[str] = field(default_factory=list)
    began: float | None = None
    seconds: float = 0.0
    left: set[tuple[Any, ...]] = field(default_factory=set)
    seen: int = -1


class Tally:
    """Counts kills, over all lanes, and says how it goes."""

    def __init__(self, kills: int, *, quiet: bool = False) -> None:
        self.planned, self.quiet = kills, quiet
        self.done = 0
        self.lost: list[str] = []
        self.phases: Counter[str] = Counter()
        self._began = time.monotonic()
        self._lock = threading.Lock()

    def killed(self, what: str, phase: str, problems: Sequence[str]) -> None:
        with self._lock:
            self.done += 1
            self.phases[phase] += 1
            left = (time.monotonic() - self._began) / self.done * (self.planned - self.done)
            self._say(f"kill {self.done}/{self.planned}: {what}; {human_seconds(left)} left")
            self._lose(problems)

    def finished(self, what: str, problems: Sequence[str]) -> None:
        with self._lock:
            self._say(f"     {what}: {'OTHER THAN THE UNDISTURBED RUN' if problems else 'as the undisturbed run'}")
            self._lose(problems)

    def _lose(self, problems: Sequence[str]) -> None:
        if problems:
            self.lost.append("; ".join(problems))
            self._say(f"LOST: {self.lost[-1]}")

    def _say(self, line: str) -> None:
        if not self.quiet:
            print(line, flush=True)

    def __str__(self) -> str:
        return f"{self.done} kills, {len(self.lost)} lost"


class Lane:
    """One run after the other, each killed as often as it takes to finish it."""

    def __init__(self, folder: Path, words: Sequence[str], undisturbed: Undisturbed, tally: Tally) -> None:
        self.folder, self.words, self.undisturbed, self.tally = folder, words, undisturbed, tally
        self.runs = self.kills = 0
        self._next_run()

    def _next_run(self) -> None:
        self.runs += 1
        self.run = self.folder / f"run-{self.runs}"
        self.saved, self.kills_of_run = -1, 0
        self.left: set[tuple[Any, ...]] = set()

    def do(self, kills: Sequence[Kill]) -> None:
        for kill in kills:
            for _ in range(3):  # a run that finishes before the point is reached makes room for a new one
                if self._sit(kill):
                    break
            else:
                self.tally.finished(f"{self.run}", [f"{kill.point} was never reached"])
        while self.kills_of_run:
            self._sit(None)

    def _sit(self, kill: Kill | None) -> bool:
        """A sitting; whether it was killed."""
        sitting = start(self.run, self.words, kill, self.undisturbed, self.left)
        problems = []
        if sitting.left:
            problems.append(f"{self.run}: the next start left {sorted(each[0] for each in sitting.left)}")
        if sitting.began is not None:
            self.left = set()
        self.saved = max(self.saved, sitting.seen)
        if sitting.code == 0:
            problems += differences(self.run, self.undisturbed.run, self.kills_of_run)
            self.tally.finished(f"{self.run} finished after {self.kills_of_run} kills", problems)
            if not problems:
                shutil.rmtree(self.run)
            self._next_run()
            return False
        if sitting.code != -9 or kill is None:
            end = "\n".join(sitting.said[-20:])
            self.tally.finished(f"{self.run}", [*problems, f"{self.run} ended with code {sitting.code}:\n{end}"])
            self._next_run()
            return False
        self.kills_of_run += 1
        problems += damage(self.run, self.saved, self.kills_of_run)
        self.left |= leftovers(self.run)
        self.saved = newest_step(self.run)
        phase = "saving" if leftovers(self.run) else "training" if sitting.began is not None else "start-up"
        where = f"{kill}, {sitting.seconds:.1f} s, {phase}"
        self.tally.killed(f"{where}, step {max(self.saved, 0)} of {STEPS} is safe", phase, problems)
        return True


def start(run: Path, words: Sequence[str], kill: Kill | None, typical: Undisturbed | None, left: set[Any]) -> Sitting:
    """Start the command, and kill it; returns once the process is gone.

    Args:
        left: what the kill before left half-written.
    """
    command = [sys.executable, "-m", "daybreak"]
    if kill is not None and kill.point is not None:
        child = str(Path(__file__).with_name("soak_child.py"))
        command = [sys.executable, child, kill.point, str(kill.occurrence), "--"]
    sitting, began = Sitting(), time.monotonic()
    process = subprocess.Popen(
        [*command, "train", *words, "--out", str(run)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )

    def listen() -> None:
        assert process.stderr is not None
        for line in process.stderr:
            sitting.said.append(line.rstrip())
            if sitting.began is None and f" -> {run}: " in line:
                sitting.left = left & leftovers(run)
                sitting.began = time.monotonic() - began

    listener = threading.Thread(target=listen)
    listener.start()
    try:
        while process.poll() is None and not _is_time(kill, sitting, typical, time.monotonic() - began):
            sitting.seen = max(sitting.seen, newest_step(run))
            time.sleep(0.005)
        sitting.seen = max(sitting.seen, newest_step(run))
    finally:
        process.kill()
        sitting.code = process.wait()
        listener.join()
    sitting.seconds = time.monotonic() - began
    return sitting


def _is_time(kill: Kill | None, sitting: Sitting, typical: Undisturbed | None, elapsed: float) -> bool:
    """Whether the moment of a random kill has come."""
    if kill is None or kill.point is not None or typical is None:
        return elapsed > _LONGEST_SITTING
    if kill.in_start_up:
        return elapsed > kill.share * typical.start_up_seconds
    until = kill.share * _SHARE_OF_TRAINING * typical.training_seconds
    return sitting.began is not None and elapsed - sitting.began > until


def newest_step(run: Path) -> int:
    """The step of the newest checkpoint by name; -1 if there is none."""
    return max((int(path.name.removeprefix("step-")) for path in list_checkpoints(run / "checkpoints")), default=-1)


def leftovers(run: Path) -> set[tuple[Any, ...]]:
    """What is half-written among the checkpoints, told from what has the same name later."""
    found = set()
    for path in (run / "checkpoints").glob(".*"):
        try:
            status = path.stat()
        except FileNotFoundError:
            continue
        found.add((path.name, status.st_ino, status.st_mtime_ns))
    return found


def damage(run: Path, saved: int, kills: int) -> list[str]:
    """What a kill broke.

    Args:
        saved: the step of the newest checkpoint that was there before.
        kills: that this run had to bear.
    """
    problems = []
    for path in list_checkpoints(run / "checkpoints"):
        try:
            open_checkpoint(path)
        except UserError as error:
            problems.append(str(error))
    if newest_step(run) < saved:
        problems.append(f"{run} goes back from step {saved} to {newest_step(run)}")
    if saved >= 0:
        try:
            step = daybreak.run.load(run).checkpoint.step
        except UserError as error:
            problems.append(str(error))
        else:
            if step < saved:
                problems.append(f"{run} is loaded at step {step} instead of {saved}")
    cut = damaged_lines(run / "metrics.jsonl")
    if len(cut) > kills:
        problems.append(f"{run}: {len(cut)} lines of metrics were cut short by {kills} kills")
    return problems


def differences(path: Path, undisturbed: Run, kills: int) -> list[str]:
    """How a finished run differs from the undisturbed one."""
    try:
        run = daybreak.run.load(path)
        if not run.finished:
            return [f"{path} ended, but is not finished"]
        own = facts(run)
        problems = [f"{path}: {name} differs" for name, value in facts(undisturbed).items() if value != own[name]]
        wrong = [each for each in verify(path) if each.problem and each.path.name != "metrics.jsonl"]
    except UserError as error:
        return [str(error)]
    problems += [f"{each.path}: {each.problem}" for each in wrong]
    problems += [f"{left} is left" for left in path.rglob("*") if left.name.endswith((".partial", ".dropped"))]
    return problems + damage(path, STEPS, kills)


def facts(run: Run) -> dict[str, Any]:
    """All that must be the same bit for bit."""
    steps = ("step", "tokens", "loss", "lr", "gradient_norm", "progress", "progress_share", "skipped")
    evaluations = ("step", "tokens", "loss", "bits_per_byte")
    weights, moments = run.checkpoint.weights(), run.checkpoint.moments()
    kept = [open_checkpoint(path) for path in list_checkpoints(run.path / "checkpoints")]
    assert run.result is not None
    return {
        "weights": {name: tensor.numpy().tobytes() for name, tensor in weights.items()},
        "optimizer": {name: tensor.numpy().tobytes() for name, tensor in moments.items()},
        "train": [[record[key] for key in steps] for record in run.metrics()],
        "validation": [[record[key] for key in evaluations] for record in run.metrics("validation")],
        "spent": (run.spent.steps, run.spent.windows, run.spent.tokens, run.spent.progress),
        "result": run.result["validation"],
        "kept": [(each.step, each.pinned, each.validation_loss) for each in kept],
    }


def plan(random_kills: int, seed: int) -> tuple[list[Kill], list[Kill]]:
    """What to do to a run that saves in the foreground, and to one that saves in the background."""
    generator = random.Random(seed)

    def named(name: str) -> list[Kill]:
        needed = POINTS[name].needs
        kill = Kill(name, 1 if needed or name not in SAVING else generator.randint(1, 5))
        return [*(named(needed) if needed else []), kill]

    def at_random() -> Kill:
        return Kill(in_start_up=generator.random() < _IN_START_UP, share=generator.random())

    foreground = [named(name) for name in (*SAVING, *ELSEWHERE)]
    background = [named(name) for name in _BACKGROUND]
    for _ in range(random_kills):
        # So that both take as long.
        shorter = foreground if len(foreground) < len(background) else background
        shorter.append([at_random()])
    generator.shuffle(foreground)
    generator.shuffle(background)
    beginning = [Kill(name) for name in BEGINNING]
    return [*beginning, *(kill for group in foreground for kill in group)], [k for group in background for k in group]


def made_up_text(folder: Path) -> Path:
    """A file with a little to learn."""
    generator = random.Random(0)
    words = ["day", "break", "light", "window", "token", "order", "the", "a", "of", "and", "is", "not"]
    path = folder / "text.txt"
    path.write_text(" ".join(generator.choice(words) for _ in range(5000)))
    return path


def soak(folder: Path, foreground: Sequence[Kill], background: Sequence[Kill], *, jobs: int, quiet: bool) -> Tally:
    """Kill runs in `folder`.

    Args:
        foreground: what is done to runs that save in the foreground.
        background: and to those that do in the background.
    """
    corpus = prepare([str(made_up_text(folder))], folder / "corpus", tokenizer="bytes")
    recipe = folder / "recipe.toml"
    recipe.write_text(RECIPE)
    words = [str(recipe), "--data", str(corpus.path)]
    first = start(folder / "undisturbed", words, None, None, set())
    if first.code != 0 or first.began is None:
        raise RuntimeError("\n".join(first.said))
    run = daybreak.run.load(folder / "undisturbed")
    undisturbed = Undisturbed(run, first.began, first.seconds - first.began)
    tally = Tally(len(foreground) + len(background), quiet=quiet)
    lanes = {
        Lane(folder / "foreground", words, undisturbed, tally): foreground,
        Lane(folder / "background", [*words, "checkpoint.background=true"], undisturbed, tally): background,
    }
    with ThreadPoolExecutor(max_workers=jobs) as pool:
        for done in [pool.submit(lane.do, kills) for lane, kills in lanes.items()]:
            done.result()
    return tally


def main() -> int:
    parser = argparse.ArgumentParser(description="Kill a training run again and again; exit code 1 if any is lost.")
    parser.add_argument("--kills", type=int, default=100, help="at random moments, besides those at named points")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=2, choices=(1, 2), help="runs at the same time")
    asked = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="daybreak-soak-"))
    tally = soak(folder, *plan(asked.kills, asked.seed), jobs=asked.jobs, quiet=False)
    if tally.lost:
        print(f"kept for a look: {folder}", *tally.lost, sep="\n")
    else:
        shutil.rmtree(folder)
    print(", ".join(f"{count} in {phase}" for phase, count in tally.phases.most_common()))
    print(tally)
    return 1 if tally.lost else 0


if __name__ == "__main__":
    raise SystemExit(main())
