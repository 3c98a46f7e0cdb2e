"""The reference of the command line is the command line."""

import os
import re
import subprocess
import sys

import pytest

from commands import commands, exit_meanings, verbs
from daybreak.cli.ending import EXIT_STOPPED
from daybreak.errors import LostRankError, UserError


def test_every_verb_has_a_section_with_an_example() -> None:
    sections = re.split(r"^## `daybreak ", verbs(), flags=re.MULTILINE)[1:]
    assert [section.partition("`")[0] for section in sections] == list(commands())
    for section in sections:
        example = re.search(r"```bash\n(daybreak .*?)\n```", section, flags=re.DOTALL)
        assert example is not None, section.partition("\n")[0]


@pytest.mark.parametrize("verb", ["prepare", "train"])
def test_options_are_those_that_help_prints(verb: str) -> None:
    environment = {**os.environ, "COLUMNS": "200", "TERM": "dumb"}
    words = [sys.executable, "-m", "daybreak", verb, "--help"]
    said = subprocess.run(words, capture_output=True, text=True, check=True, env=environment)
    printed = set(re.findall(r"--[a-z][a-z-]+", said.stdout)) - {"--help"}
    section = next(
        each for each in verbs().split("\n## ") if each.startswith(f"`daybreak {verb}`") or verb in each[:40]
    )
    assert printed <= set(re.findall(r"--[a-z][a-z-]+", section))


def test_exit_codes_are_those_of_the_errors() -> None:
    meanings = exit_meanings()
    assert list(meanings) == [0, 1, 2, 3, 4, 130]
    assert "mistake" in meanings[UserError.exit_code]
    assert "rank" in meanings[LostRankError.exit_code]
    assert "stopped" in meanings[EXIT_STOPPED]
