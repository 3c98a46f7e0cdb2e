"""daybreak bench."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from daybreak.cli.completing import corpora, recipes
from daybreak.cli.json_output import print_json
from daybreak.progress import human_bytes

if TYPE_CHECKING:
    from daybreak.bench.report import Bench, Comparison


def bench(
    recipe: Annotated[
        str, typer.Argument(autocompletion=recipes, help="A recipe's name, or the path of its TOML file.")
    ],
    overrides: Annotated[
        list[str] | None, typer.Argument(metavar="KEY=VALUE", help="Any setting of the recipe.")
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option(autocompletion=corpora, help="A corpus to take rows from; random tokens unless given."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document on standard output.")] = False,
) -> None:
    """Measure a recipe's speed, and what each optimisation is worth.

    Memory by micro-batch and the time of starting up, too. Takes about a minute.

    Example: daybreak bench gpt2-tiny model.layers=6
    """
    from daybreak.bench.measure import bench as measure
    from daybreak.recipe import Recipe

    found = measure(Recipe.load(recipe, *(overrides or [])), data)
    if as_json:
        print_json(_document(found))
    else:
        _print(found)


def _document(found: "Bench") -> dict[str, Any]:
    from dataclasses import asdict

    document = asdict(found)
    document["execution"] = found.execution.model_dump(mode="json")
    document["speed"]["mfu"] = found.speed.mfu
    for entry, comparison in zip(document["comparisons"], found.comparisons, strict=True):
        entry["gain"] = comparison.gain
    return document


def _print(found: "Bench") -> None:
    execution, speed = found.execution, found.speed
    compiled = "compiled" if execution.compile else "not compiled"
    print(f"{found.recipe}: {found.parameters:,} parameters on {found.device}, {execution.precision}, {compiled}")
    print(
        f"a step is {found.tokens_per_step:,} tokens, {found.micro_batches} x {execution.micro_batch} rows of "
        f"{found.row_length}; timed on {found.data}\n"
    )
    mfu = "n/a" if speed.mfu is None else f"{speed.mfu:.1%}"
    peak = "" if speed.peak_flops is None else f"of {speed.peak_flops / 1e12:,.3f} TFLOP/s, "
    print(f"speed       {speed.tokens_per_second:>12,.0f} tokens/s, {speed.flops / 1e12:,.3f} TFLOP/s")
    print(f"MFU         {mfu:>12} {peak}{speed.peak_is}")
    print(
        f"step        {speed.milliseconds:>12,.1f} ms: {found.micro_batches} x {speed.gradient_milliseconds:,.1f} "
        f"forward and backward, {speed.update_milliseconds:,.1f} update"
    )
    print(f"\n{'rows at once':>12} {'peak memory':>12} {'tokens/s':>12}   not compiled, an update each")
    for row in found.by_micro_batch:
        print(f"{row.rows:>12} {human_bytes(row.peak_bytes):>12} {row.tokens_per_second:>12,.0f}")
    print(f"{'':>12} ({found.micro_batch_ended})")
    print(f"\n{'tokens/s, by turns':<36} {'without':>10} {'with':>10} {'faster':>7} {'rounds':>13}   switched off by")
    for comparison in found.comparisons:
        print(_line(comparison))
    print(f"\n{'start-up, a process of its own':<36} {'seconds':>10}")
    for part, seconds in found.startup.items():
        print(f"{part:<36} {seconds:>10.2f}")


def _line(comparison: "Comparison") -> str:
    if comparison.without is None or comparison.within is None or comparison.gain is None:
        return f"{comparison.name:<36} {'n/a':>10}   {comparison.remark}"
    return (
        f"{comparison.name:<36} {comparison.without:>10,.0f} {comparison.within:>10,.0f} {comparison.gain:>6.2f}x "
        f"{f'{min(comparison.gains):.2f} … {max(comparison.gains):.2f}':>13}   {comparison.off}"
    )
