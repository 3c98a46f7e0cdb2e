"""The reference of the command line, read off the program itself."""

import inspect
import re
from collections.abc import Mapping
from enum import Enum
from functools import cache
from types import NoneType
from typing import Annotated, Any, get_args, get_origin, get_type_hints

import typer.main

import daybreak.cli
from daybreak.cli import app


def verbs() -> str:
    """A section a verb: what it does, an example, its arguments and options."""
    return "\n\n".join(_section(name, command) for name, command in commands().items())


@cache
def commands() -> Mapping[str, Any]:
    """The commands of the program by their names, as typer makes them."""
    group: Any = typer.main.get_command(app)
    return dict(group.commands)


def exit_codes() -> str:
    """The table of exit codes, as the command line's own docstring has them."""
    rows = "\n".join(f"| {code} | {meaning} |" for code, meaning in exit_meanings().items())
    return f"| code | meaning |\n| ---: | --- |\n{rows}"


def exit_meanings() -> dict[int, str]:
    """What each exit code means."""
    _, _, text = re.sub(r"\s+", " ", inspect.getdoc(daybreak.cli) or "").partition("Exit codes: ")
    return {int(code): meaning.strip() for code, meaning in re.findall(r"(\d+) ([^;.]+)[;.]", text)}


def _section(name: str, command: Any) -> str:
    paragraphs, examples = _described(command.callback)
    usage = " ".join(["daybreak", name, *(_usage(each) for each in _arguments(command)), "[OPTIONS]"])
    parts = [f"## `daybreak {name}`", *paragraphs, f"```text\n{usage}\n```"]
    if examples:
        parts.append(f"```bash\n{examples}\n```")
    hints = get_type_hints(command.callback, include_extras=True)
    rows = "\n".join(_row(each, hints[each.name]) for each in command.params if each.name in hints and not each.hidden)
    parts.append(f"| | meaning | unless given |\n| --- | --- | --- |\n{rows}")
    return "\n\n".join(parts)


def _described(callback: Any) -> tuple[list[str], str]:
    """The paragraphs of a verb's help, and its examples, one a line."""
    paragraphs, examples = [], []
    for paragraph in (inspect.getdoc(callback) or "").split("\n\n"):
        begun = re.match(r"Examples?:\s*", paragraph)
        if begun is None:
            paragraphs.append(_as_markdown(paragraph))
        else:
            examples += [line.strip() for line in paragraph[begun.end() :].splitlines() if line.strip()]
    return paragraphs, "\n".join(examples)


def _as_markdown(text: str) -> str:
    """Help as typer has it: a form feed and Rich's marks mean nothing to Markdown, and a star is a star."""
    return re.sub(r"\[/?(?:bold|italic|dim|cyan|green)\]", "", text.replace("\b", "").replace("\f", "")).replace(
        "*", r"\*"
    )


def _arguments(command: Any) -> list[Any]:
    return [each for each in command.params if not each.opts[0].startswith("-")]


def _usage(argument: Any) -> str:
    name = argument.metavar or argument.name.upper()
    if argument.nargs == -1 and not name.endswith("..."):
        name = f"{name}..."
    return name if argument.required or name.startswith("[") else f"[{name}]"


def _row(parameter: Any, hint: Any) -> str:
    if parameter.opts[0].startswith("-"):
        value = "" if getattr(parameter, "is_flag", False) else f" {parameter.metavar or _placeholder(hint)}"
        name = f"`{', '.join([*parameter.opts, *parameter.secondary_opts])}{value}`"
    else:
        name = f"`{_usage(parameter)}`"
    default = "required" if parameter.required else _default(parameter.default)
    cells = (name, _as_markdown(parameter.help or ""), default)
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"


def _placeholder(hint: Any) -> str:
    """What stands for an option's value, by its type."""
    while get_origin(hint) is not None:
        hint = get_args(hint)[0] if get_origin(hint) in (Annotated, list) else _not_none(hint)
    if isinstance(hint, type) and issubclass(hint, Enum):
        return "{" + ",".join(str(each.value) for each in hint) + "}"
    return {int: "N", float: "NUMBER", str: "TEXT"}.get(hint, "PATH")


def _not_none(hint: Any) -> Any:
    return next(each for each in get_args(hint) if each is not NoneType)


def _default(value: Any) -> str:
    if value is None or value is False or value in ("", ()):
        return ""
    return f"`{value.value if isinstance(value, Enum) else value}`"
