"""Every verb's help: its example is a command that can be given, and nothing is cut off in a narrow terminal."""

import inspect
import re
import shlex
import sys
from collections.abc import Iterator
from typing import Any

import pytest
import typer.main

from daybreak import Recipe
from daybreak.cli import app, main
from daybreak.cli.prepare import CHARACTERS

COMMANDS: dict[str, Any] = dict(typer.main.get_command(app).commands)  # type: ignore[attr-defined]


def examples() -> Iterator[tuple[str, str]]:
    """Each verb with each of its examples; with nothing where it has none."""
    for verb, command in COMMANDS.items():
        text = (inspect.getdoc(command.callback) or "").replace("\\\n", "")
        found = re.findall(r"^Example: (.*)$", text, flags=re.MULTILINE)
        yield from ((verb, example) for example in found or [""])


@pytest.mark.parametrize(("verb", "example"), list(examples()))
def test_an_example_is_a_command_that_can_be_given(verb: str, example: str) -> None:
    words = shlex.split(example)
    assert words[:2] == ["daybreak", verb], f"{verb} has no example"
    parsed = COMMANDS[verb].make_context(verb, words[2:]).params  # an option that does not exist ends here
    settings = [word for word in parsed.get("overrides") or [] if "=" in word]
    if "recipe" in parsed and parsed["recipe"] != "auto":
        Recipe.load(parsed["recipe"], *settings)
    elif settings:
        Recipe.load("gpt2-tiny", *settings)


@pytest.mark.parametrize("verb", COMMANDS)
def test_help_fits_eighty_columns(
    verb: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setattr(sys, "argv", ["daybreak", verb, "--help"])
    with pytest.raises(SystemExit) as ended:
        main()
    assert not ended.value.code
    shown = capsys.readouterr().out
    assert all(len(line) <= 80 for line in shown.splitlines())
    assert re.search(r"[a-z]…", shown.replace("budget=…", "")) is None, "a name is cut off"
    example = re.search(r"Example: daybreak .*", shown)
    assert example is not None
    for line in shown.splitlines():  # it can be copied whole: a line that goes on says so
        if line.strip().startswith("Example:") and not line.rstrip().endswith("\\"):
            assert shlex.split(line.split("Example:")[1])[1] == verb
    first = shown.split("Usage:")[1].split("\n\n")[0]
    assert first.split()[:2] == ["daybreak", verb]


def test_what_each_verb_does_is_said_in_a_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setattr(sys, "argv", ["daybreak", "--help"])
    with pytest.raises(SystemExit):
        main()
    shown = capsys.readouterr().out
    for verb in COMMANDS:
        assert re.search(rf"│ {verb} +[A-Z].*\.", shown), verb


@pytest.mark.parametrize("verb", COMMANDS)
def test_what_is_a_recipe_a_run_or_a_corpus_completes(verb: str) -> None:
    for parameter in COMMANDS[verb].params:
        if parameter.name in ("recipe", "run", "runs", "corpus", "data"):
            assert parameter._custom_shell_complete is not None, f"{verb}: {parameter.name}"


def test_the_hint_for_characters_knows_the_recipe() -> None:
    assert Recipe.load("shakespeare-char-cpu").model.vocab_size == CHARACTERS
