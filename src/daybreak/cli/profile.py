"""daybreak profile."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from daybreak.cli.completing import corpora, recipes
from daybreak.cli.json_output import print_json
from daybreak.progress import human_bytes

if TYPE_CHECKING:
    from daybreak.profile.profile import Profile
    from daybreak.profile.routines import Routine

_NAME_WIDTH = 62


def profile(
    recipe: Annotated[
        str, typer.Argument(autocompletion=recipes, help="A recipe's name, or the path of its TOML file.")
    ],
    overrides: Annotated[
        list[str] | None, typer.Argument(metavar="KEY=VALUE", help="Any setting of the recipe.")
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option(
            autocompletion=corpora, help="A corpus, or the folder of a mixture's; random text of 257 ids unless given."
        ),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Where the trace goes; profiles/NAME unless given.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document on standard output.")] = False,
) -> None:
    """Say where a recipe's time and memory go.

    Takes a few real steps, about a minute for a small one, and leaves a trace for Perfetto or chrome://tracing.

    Example: daybreak profile gpt2-tiny --data data/stdlib
    """
    from dataclasses import asdict

    from daybreak.files import require_text
    from daybreak.profile.profile import profile as measure
    from daybreak.recipe import Recipe

    asked = Recipe.load(recipe, *(overrides or []))
    folder = out if out is not None else Path("profiles") / asked.name
    require_text(folder)
    found = measure(asked, data, folder)
    if as_json:
        document = {**asdict(found), "execution": found.execution.model_dump(mode="json")}
        print_json(document)
    else:
        _print(found)


def _print(found: "Profile") -> None:
    execution, shares = found.execution, found.shares
    print(f"{found.recipe}: {found.parameters:,} parameters on {found.device}, {execution.precision}")
    whole = found.recipe_tokens_per_step
    cut = "" if whole == found.tokens_per_step else f" (the recipe's are {whole:,})"
    print(
        f"{found.steps} steps of {found.tokens_per_step:,} tokens{cut}, {execution.micro_batch} x "
        f"{found.row_length} at once, on {found.data}"
    )
    _print_routines("CPU", found.on_cpu)
    _print_routines("GPU", found.on_gpu)
    print(f"\n{'memory':<36} {'estimated':>12} {'measured':>12}")
    for part in found.memory:
        estimated = "" if part.estimated is None else human_bytes(part.estimated)
        print(f"{part.name:<36} {estimated:>12} {human_bytes(part.measured):>12}")
    slower = shares.after_evaluation_milliseconds / shares.step_milliseconds - 1
    print("\ntime, not profiled")
    print(f"{'a step':<36} {shares.step_milliseconds:>9,.1f} ms")
    print(f"{'the first step':<36} {shares.first_milliseconds:>9,.1f} ms")
    print(f"{'a step right behind an evaluation':<36} {shares.after_evaluation_milliseconds:>9,.1f} ms, {slower:+.1%}")
    print(f"{'an evaluation':<36} {1000 * shares.evaluation_seconds:>9,.1f} ms")
    print(f"{'evaluations, of the whole run':<36} {shares.evaluation_share:>9.1%}")
    print()
    for file in found.files:
        print(file)


def _print_routines(device: str, routines: list["Routine"]) -> None:
    if not routines:
        return
    print(f"\n{f'routines by their own time on the {device}':<{_NAME_WIDTH}} {'calls':>7} {'ms':>10} {'share':>6}")
    for routine in routines:
        name = routine.name if len(routine.name) <= _NAME_WIDTH else f"{routine.name[: _NAME_WIDTH - 1]}…"
        print(f"{name:<{_NAME_WIDTH}} {routine.calls:>7,} {routine.milliseconds:>10,.1f} {routine.share:>6.1%}")
