"""daybreak doctor."""

import os
import shutil
import sys
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from daybreak.cli.json_output import print_json

if TYPE_CHECKING:
    from daybreak.doctor.finding import Finding

EXIT_BROKEN = 1
_COLOURS = {"good": "green", "lacking": "yellow", "broken": "red"}
_STATE_WIDTH, _NAME_WIDTH, _LARGEST_WIDTH = 9, 12, 110


def doctor(
    folder: Annotated[Path, typer.Option(help="Where runs would be written.")] = Path(),
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document on standard output.")] = False,
) -> None:
    """Say what this machine has for training, and what it lacks.

    And what each lack costs. Takes about half a minute. Exit code 1 only if training cannot work here.

    Example: daybreak doctor --folder runs
    """
    from daybreak import __version__
    from daybreak.doctor.examine import examine

    findings = {}
    for name, finding in examine(folder, lambda name: _say_meanwhile(f"checking {name} ...")):
        _say_meanwhile("")
        findings[name] = finding
        if not as_json:
            _print(name, finding)
    can_train = not any(finding.broken for finding in findings.values())
    if as_json:
        listed = [
            {"name": name, "state": finding.state, "found": finding.found, "costs": finding.costs}
            for name, finding in findings.items()
        ]
        document = {"daybreak": __version__, "folder": str(folder), "can_train": can_train, "findings": listed}
        print_json(document)
    else:
        print(f"\n{_verdict(findings)}")
    if not can_train:
        raise typer.Exit(EXIT_BROKEN)


def _say_meanwhile(text: str) -> None:
    """On a terminal, in place of what was said there before."""
    if sys.stderr.isatty():
        print(f"\r\033[K{text}", end="", file=sys.stderr, flush=True)


def _print(name: str, finding: "Finding") -> None:
    """A finding, wrapped, with what it costs below it."""
    width = min(shutil.get_terminal_size((100, 24)).columns, _LARGEST_WIDTH)
    indent = _STATE_WIDTH + _NAME_WIDTH
    texts = [finding.found, f"Costs: {finding.costs}."] if finding.costs else [finding.found]
    lines = [line for text in texts for line in textwrap.wrap(text, max(20, width - indent))]
    state = f"{finding.state:<{_STATE_WIDTH}}"
    if sys.stdout.isatty() and "NO_COLOR" not in os.environ:
        state = typer.style(state, fg=_COLOURS[finding.state], bold=finding.broken)
    print(f"{state}{name:<{_NAME_WIDTH}}" + f"\n{'':<{indent}}".join(lines), flush=True)


def _verdict(findings: dict[str, "Finding"]) -> str:
    broken = ", ".join(name for name, finding in findings.items() if finding.state == "broken")
    lacking = ", ".join(name for name, finding in findings.items() if finding.state == "lacking")
    if broken:
        return f"Training cannot work here until this is mended: {broken}."
    if lacking:
        return f"Training works here. Lacking something: {lacking}."
    return "Training works here, and nothing is lacking."
