"""What somebody asks the page for, checked against what the page allows."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import final

from daybreak.configuration import from_person
from daybreak.errors import UserError
from daybreak.playground.settings import SETTINGS
from daybreak.sample import SamplingConfig

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


def read_asked(
    prompt: str | None,
    tokens: float | None,
    greedy: bool,
    seed: float | None,
    stop: str | None,
    values: Mapping[str, float | None],
    limits: Limits,
) -> Asked:
    """What the page's fields hold.

    Args:
        stop: one string a line, in which `\\n` and `\\t` stand for a line break and a tab.
        values: of the fields of `SETTINGS`, by name.

    Raises:
        UserError: it is more than the page allows, or no setting of sampling.
    """
    prompt = prompt or ""
    if len(prompt) > limits.characters:
        raise UserError(
            f"the prompt has {len(prompt):,} characters, and this page takes {limits.characters:,}; "
            "shorten it, or use daybreak sample"
        )
    count = _whole("tokens", tokens)
    if not 1 <= count <= limits.tokens:
        raise UserError(f"{count:,} tokens: this page makes 1 to {limits.tokens:,}; for more use daybreak sample")
    settings: dict[str, object] = {"seed": _whole("seed", seed)}
    if greedy:
        settings["greedy"] = True
    else:
        for setting in SETTINGS:
            value = values.get(setting.name)
            if value is not None and value != setting.off:
                settings[setting.name] = _whole(setting.name, value) if setting.whole else value
    return Asked(prompt, count, from_person(SamplingConfig, settings), _stops(stop or ""))


def _whole(name: str, value: float | None) -> int:
    if value is None or value != int(value):
        raise UserError(f"{name} = {'nothing' if value is None else value}: give a whole number")
    return int(value)


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
