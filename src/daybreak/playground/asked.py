"""What somebody asks the page for, checked against what the page allows.

Fields come as a browser sends them, or whoever calls the page's address: nothing about them is known.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, final

from daybreak.configuration import Configuration, from_person
from daybreak.errors import UserError
from daybreak.playground.settings import SETTINGS
from daybreak.sampling.settings import SamplingConfig

MOST_STOPS, LONGEST_STOP = 8, 100
_ESCAPES = {r"\n": "\n", r"\t": "\t"}


@final
@dataclass(frozen=True)
class Limits:
    """What one page gives.

    Attributes:
        characters: of a prompt, at most.
        tokens: of a continuation, at most.
        waiting: continuations that may wait for the one that a run is making.
    """

    characters: int = 10_000
    tokens: int = 1_000
    waiting: int = 8

    @property
    def said(self) -> str:
        """For the person, in one sentence."""
        return (
            f"Prompts of up to {self.characters:,} characters, continuations of up to {self.tokens:,} tokens, "
            f"{MOST_STOPS} stop strings; each run makes one at a time, and up to {self.waiting:,} wait."
        )


@final
@dataclass(frozen=True)
class Asked:
    """A prompt, and how it is to be continued."""

    prompt: str
    tokens: int
    sampling: SamplingConfig
    stop: tuple[str, ...] = ()


@final
class _Fields(Configuration):
    """Those that hold no setting of sampling."""

    prompt: str
    tokens: int
    greedy: bool
    stop: str


def read_asked(fields: Mapping[str, Any], limits: Limits) -> Asked:
    """What the page's fields hold.

    Args:
        fields: `prompt`, `tokens`, `greedy`, `seed`, `stop` (a string a line, in which `\\n` and `\\t` stand for a line
            break and a tab), and those of `SETTINGS` by name.

    Raises:
        UserError: it is more than the page allows, or no setting of sampling.
    """
    for name in ("tokens", "seed"):
        _require_filled(name, fields[name])
    given = from_person(_Fields, {name: "" if fields[name] is None else fields[name] for name in _Fields.model_fields})
    if len(given.prompt) > limits.characters:
        raise UserError(
            f"the prompt has {len(given.prompt):,} characters, and this page takes {limits.characters:,}; "
            "shorten it, or use daybreak sample"
        )
    if not 1 <= given.tokens <= limits.tokens:
        raise UserError(
            f"{given.tokens:,} tokens were asked for, and this page makes 1 to {limits.tokens:,}; "
            "for more use daybreak sample"
        )
    settings = {"seed": fields["seed"], "greedy": given.greedy, **_settings(fields, drawn=not given.greedy)}
    return Asked(given.prompt, given.tokens, from_person(SamplingConfig, settings), _stops(given.stop))


def _settings(fields: Mapping[str, Any], *, drawn: bool) -> dict[str, Any]:
    """The settings that are not off; where off is possible, an empty field is."""
    found = {}
    for setting in SETTINGS:
        if setting.draws and not drawn:
            continue
        value = fields[setting.name]
        if setting.off is None:
            _require_filled(setting.name, value)
        elif value is None or value == setting.off:
            continue
        found[setting.name] = value
    return found


def _require_filled(name: str, value: Any) -> None:
    if value is None:
        raise UserError(f"{name} is empty; give a number")


def _stops(lines: str) -> tuple[str, ...]:
    stops = tuple(_unescaped(line) for line in lines.split("\n") if line)
    if len(stops) > MOST_STOPS:
        raise UserError(f"{len(stops)} stop strings are more than {MOST_STOPS}; give fewer")
    for each in stops:
        if len(each) > LONGEST_STOP:
            raise UserError(f"a stop string of {len(each):,} characters is longer than {LONGEST_STOP}; give its end")
    return stops


def _unescaped(text: str) -> str:
    for written, meant in _ESCAPES.items():
        text = text.replace(written, meant)
    return text
