"""Prompts from a file or from standard input."""

import json
import sys
from pathlib import Path

from daybreak.errors import UserError

STANDARD_INPUT = "-"
_JSON_LINES = (".jsonl", ".ndjson")


def read_prompts(source: str) -> list[str]:
    """Prompts, one a line; of JSON Lines, the `prompt` of each object.

    Empty lines are passed over, so that only JSON Lines hold an empty prompt, or one of several lines. A file is read
    as JSON Lines by its ending, .jsonl or .ndjson, or if its first line is an object with a `prompt`.

    Args:
        source: a path, or `-` for standard input.

    Raises:
        UserError: there is no such file, it is not UTF-8, holds no prompt, or a line of JSON has none.
    """
    name = "standard input" if source == STANDARD_INPUT else source
    all_lines = _read(source, name).replace("\r\n", "\n").split("\n")  # a line of JSON may hold other ends of lines
    lines = [(number, line) for number, line in enumerate(all_lines, start=1) if line.strip()]
    if not lines:
        raise UserError(f"{name} holds no prompts; write one on each line")
    if name.endswith(_JSON_LINES) or _prompt_of(lines[0][1]) is not None:
        return [_required(line, f"{name}, line {number}") for number, line in lines]
    return [line for _, line in lines]


def read_prompt() -> str:
    """The whole of standard input, but for one end of line at its end.

    Raises:
        UserError: it is not UTF-8.
    """
    return _read(STANDARD_INPUT, "standard input").removesuffix("\n")


def _read(source: str, name: str) -> str:
    if source == STANDARD_INPUT and sys.stdin is None:  # closed by the caller, as with <&-
        raise UserError("standard input is closed; give the prompt on the command line, or in a file")
    try:
        content = sys.stdin.buffer.read() if source == STANDARD_INPUT else Path(source).read_bytes()
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(f"{name} is not UTF-8 at byte {error.start:,}; save it as UTF-8") from None
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise UserError(f"the prompts in {name} cannot be read: {reason}") from None


def _prompt_of(line: str) -> str | None:
    """The `prompt` of a JSON object; None if the line is something else."""
    try:
        content = json.loads(line)
    except (ValueError, RecursionError):
        return None
    prompt = content.get("prompt") if isinstance(content, dict) else None
    return prompt if isinstance(prompt, str) else None


def _required(line: str, where: str) -> str:
    prompt = _prompt_of(line)
    if prompt is None:
        raise UserError(f'{where} is no JSON object with a text named "prompt": {line[:60]!r}')
    return prompt
