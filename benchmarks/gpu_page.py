"""The results on one GPU as a page."""

from collections.abc import Mapping
from typing import Any

_NAMES = {
    "plain": "plain GPT-2 124M, cold cache",
    "cold": "the fast recipe, cold cache",
    "target": "AdamW GPT-2, tuned",
    "stock": "AdamW GPT-2, stock settings",
}


def page(results: Mapping[str, Any]) -> str:
    """Everything that was measured so far; the rest is said not to be."""
    machine = results["machine"]
    parts = [
        f"# Daybreak on {machine['device']}, {machine['date']}",
        *(["**In toy sizes, to see that all of it runs: the figures mean nothing.**"] if machine.get("toy") else []),
        f"`python benchmarks/gpu.py`, torch {machine['torch']}, Python {machine['python']}, "
        f"commit {machine['commit']}.\n"
        "One run each. A run passes several times over the corpus, which had to be carried: losses compare with each\n"
        "other alone.",
        _tests(results.get("tests")),
        "## Speed",
        _speed(_runs(results)),
        "## Time to a fixed loss",
        _time_to_loss(results),
    ]
    if results.get("tune", {}).get("runs"):
        parts += ["## Tuning of AdamW", _tuning(results["tune"]["runs"])]
    ours = results.get("ours", {}).get("runs", {})
    whole = {**results, **{f"ours, {budget}": run for budget, run in ours.items()}}
    failures = {step: found["failed"] for step, found in whole.items() if "failed" in found}
    parts += [f"`{step}` failed:\n\n```\n{said}\n```" for step, said in failures.items()]
    return "\n\n".join(parts) + "\n"


def _tests(found: Mapping[str, Any] | None) -> str:
    if found is None or "failed" in found:
        return "Tests on the device: not passed."
    counts = ", ".join(f"{found[outcome]} {outcome}" for outcome in ("passed", "skipped") if outcome in found)
    return f"Tests on the device: {counts or 'none ran'}."


def _runs(results: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """Each run that ended, by what it is called in the tables."""
    runs = {_NAMES[step]: results[step] for step in _NAMES if "loss" in results.get(step, {})}
    ours = results.get("ours", {}).get("runs", {})
    return runs | {f"the fast recipe, {budget}": run for budget, run in ours.items() if "loss" in run}


def _speed(runs: Mapping[str, Mapping[str, Any]]) -> str:
    lines = [
        "| run | steps | tok/s | TFLOP/s | MFU | peak memory, GB | compiled in, s | process start to first step, s |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for name, run in runs.items():
        mfu = "n/a" if run["mfu"] is None else f"{run['mfu']:.1%}"
        compiled = "not compiled" if run["compile_seconds"] is None else f"{run['compile_seconds']:.1f}"
        lines.append(
            f"| {name} | {run['steps']:,} | {run['tokens_per_second']:,.0f} | {run['teraflops']:,.3g} | {mfu} "
            f"| {run['peak_memory'] / 1e9:.1f} | {compiled} | {run['until_first_step']:.1f} |"
        )
    return "\n".join(lines)


def _time_to_loss(results: Mapping[str, Any]) -> str:
    target = results.get("target", {})
    lines = [
        "| run | steps | tokens | seconds from process start | training only | validation loss | bits a byte |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for name, run in _runs(results).items():
        if "cold cache" not in name:
            lines.append(
                f"| {name} | {run['steps']:,} | {run['tokens']:,} | {run['wall_seconds']:.1f} "
                f"| {run['train_seconds']:.1f} | {run['loss']:.4f} | {run['bits_per_byte']:.4f} |"
            )
    return "\n".join(lines) + "\n\n" + _verdict(target, results.get("ours", {}).get("runs", {}))


def _verdict(target: Mapping[str, Any], ours: Mapping[str, Mapping[str, Any]]) -> str:
    if "loss" not in target:
        return "No target was measured."
    for budget, run in ours.items():
        if run.get("loss", float("inf")) <= target["loss"]:
            whole, training = (target[key] / run[key] for key in ("wall_seconds", "train_seconds"))
            return (
                f"The target, {target['loss']:.4f}, was reached within {budget}: {whole:.2f} times as fast from "
                f"process start, {training:.2f} times in training alone (wanted: at least 2.5, better 4)."
            )
    return f"The target, {target['loss']:.4f}, was not reached."


def _tuning(runs: list[Mapping[str, Any]]) -> str:
    lines = ["| settings | steps | training loss of the last 5 % |", "| --- | ---: | ---: |"]
    for run in sorted(runs, key=lambda run: run["last_training_loss"]):
        lines.append(f"| {' '.join(run['settings'])} | {run['steps']:,} | {run['last_training_loss']:.4f} |")
    return "\n".join(lines)
