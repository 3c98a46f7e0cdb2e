"""The steps on one GPU, in their order; results are written after each, as JSON and as a page."""

import json
import re
import shutil
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from daybreak.duration import Duration, Unit
from daybreak.hardware import choose_device, device_name
from daybreak.progress import say
from gpu_page import page
from gpu_plan import TOY, Plan
from gpu_runs import Figures, train, watch
from journal import commit
from processes import FailedError, shown

STEPS = ("tests", "plain", "cold", "target", "ours", "stock")
_STARTING = 25.0  # seconds from process start to the first step, and behind the last one, that a budget in steps takes
Results = dict[str, Any]


@dataclass(frozen=True)
class Bench:
    """What to measure with.

    Attributes:
        ours: the fast recipe.
        tuned: settings of the tuned peer beside the plan's.
        ends: reading of the monotonic clock by which all must be done.
    """

    plan: Plan
    corpus: Path
    out: Path
    work: Path
    ours: str
    tuned: tuple[str, ...]
    ends: float

    def train(self, name: str, recipe: str, settings: tuple[str, ...], budget: str, kind: str, cache: str) -> Figures:
        """A run of one recipe; `cache` names the folder of its compiled code."""
        duration = Duration.parse(budget)
        needed = duration.amount + 10 if duration.unit is Unit.SECONDS else _STARTING
        left = self.ends - time.monotonic()
        if left < needed:
            raise FailedError(
                f"not begun: {left:.0f} s are left, and it needs {needed:.0f}; give it a call of its own with --only"
            )
        say(f"{name}: {recipe} budget={budget}, {left:.0f} s left")
        every = (*self.plan.every, *settings, f"budget={budget}")
        limit = min(self.plan.limits[kind], left)
        return train(recipe, every, self.corpus, self.work / f"run-{name}", self.work / f"cache-{cache}", limit)


def measure(bench: Bench, only: list[str]) -> int:
    """Do the steps, and keep what they came to; returns how many of them failed."""
    bench.out.mkdir(parents=True, exist_ok=True)
    bench.work.mkdir(parents=True, exist_ok=True)
    file = bench.out / "results.json"
    results: Results = json.loads(file.read_text()) if file.exists() else {}
    results["machine"] = {
        "device": device_name(choose_device("auto")),
        "torch": torch.__version__,
        "python": sys.version.split()[0],
        "commit": commit(),
        "date": datetime.now(UTC).date().isoformat(),
        "toy": bench.plan is TOY,
    }
    failed = 0
    for step in only or STEPS:
        began = time.monotonic()
        try:
            results[step] = _DO[step](bench, results)
        except Exception as error:  # whatever it is, the other steps are worth their time
            results[step] = {"failed": f"{type(error).__name__}: {error}"}
            failed += 1
            say(f"{step} failed: {error}")
        results[step]["step_seconds"] = time.monotonic() - began
        file.write_text(json.dumps(results, indent=1))
        (bench.out / "results.md").write_text(page(results), encoding="utf-8")
    print((bench.out / "results.md").read_text(encoding="utf-8"))
    return failed


def _tests(bench: Bench, results: Results) -> Results:
    """Correctness on CUDA comes first."""
    words = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *bench.plan.tests]
    log = bench.work / "tests.log"
    code, seconds, _ = watch(words, log, {}, bench.plan.limits["tests"])
    said = log.read_text(encoding="utf-8", errors="replace")
    counts = {outcome: int(count) for count, outcome in re.findall(r"(\d+) (passed|failed|skipped|error)", said)}
    if code:
        raise FailedError(f"{shown(words)} ended with code {code}:\n{said[-3000:]}")
    return {"seconds": seconds, "command": shown(words), **counts}


def _plain(bench: Bench, results: Results) -> Results:
    shutil.rmtree(bench.work / "cache-gpt2", ignore_errors=True)
    return asdict(bench.train("plain", "gpt2", bench.plan.plain, bench.plan.plain_budget, "plain", "gpt2"))


def _cold(bench: Bench, results: Results) -> Results:
    shutil.rmtree(bench.work / "cache-ours", ignore_errors=True)
    return asdict(bench.train("cold", bench.ours, bench.plan.ours, bench.plan.cold_budget, "cold", "ours"))


def _target(bench: Bench, results: Results) -> Results:
    """The loss that tuned AdamW reaches."""
    settings = (*bench.plan.tuned, *bench.tuned)
    return asdict(bench.train("target", "gpt2", settings, bench.plan.target_budget, "target", "gpt2"))


def _stock(bench: Bench, results: Results) -> Results:
    return asdict(bench.train("stock", "gpt2", bench.plan.stock, bench.plan.target_budget, "target", "gpt2"))


def _ours(bench: Bench, results: Results) -> Results:
    """Budgets of the fast recipe, until one reaches the target."""
    target = results.get("target", {}).get("loss")
    runs: Results = {}
    for budget in bench.plan.budgets:
        try:
            runs[budget] = asdict(bench.train(f"ours-{budget}", bench.ours, bench.plan.ours, budget, "ours", "ours"))
        except FailedError as error:
            runs[budget] = {"failed": str(error)}
            say(f"ours, {budget}: {error}")
            continue
        if target is not None and runs[budget]["loss"] <= target:
            break
    if all("failed" in run for run in runs.values()):
        raise FailedError("; ".join(run["failed"] for run in runs.values()))
    return {"runs": runs}


def _tune(bench: Bench, results: Results) -> Results:
    """Short runs of the peer, judged by the training loss of their last steps, never on the scored split."""
    runs = list(results.get("tune", {}).get("runs", []))
    done = [tuple(run["settings"]) for run in runs]
    for settings in bench.plan.tuning:
        if settings in done:
            continue
        whole = (*bench.plan.tuned, *settings)
        try:
            figures = bench.train("tune", "gpt2", whole, bench.plan.tuning_budget, "tuning", "gpt2")
        except FailedError as error:  # what was tried is kept, and a later call tries the others
            say(f"tune, {' '.join(settings)}: {error}")
            continue
        runs.append({"settings": settings, **asdict(figures)})
    return {"runs": runs}


_DO: dict[str, Callable[[Bench, Results], Results]] = {
    "tests": _tests,
    "plain": _plain,
    "cold": _cold,
    "target": _target,
    "ours": _ours,
    "stock": _stock,
    "tune": _tune,
}
