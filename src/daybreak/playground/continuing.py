"""From a request to what the page shows of it, step by step."""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from threading import Event
from typing import final

from daybreak.errors import UserError
from daybreak.hardware import is_out_of_memory
from daybreak.playground import markup
from daybreak.playground.asked import Asked
from daybreak.playground.batches import in_batches
from daybreak.playground.turns import Turns
from daybreak.report.words import number
from daybreak.sampling.text import Piece

_SECONDS_BETWEEN_LOOKS = 0.2  # whether a stop was asked for, while waiting


@final
@dataclass(frozen=True)
class Player:
    """A run on the page.

    Attributes:
        name: unlike that of every other on the page.
        stream: continues a prompt.
        end_of_text: the token with which the model ends a text.
        about: its facts and its loss curve, as HTML.
    """

    name: str
    stream: Callable[[Asked], Iterator[Piece]]
    end_of_text: int
    turns: Turns
    about: str


@final
@dataclass(frozen=True)
class Shown:
    """HTML of a side of the page: the text, and what is going on."""

    text: str
    status: str


def continued(player: Player, asked: Asked, stop: Event) -> Iterator[Shown]:
    """Continue a prompt when the run is free; ends soon after `stop` is set, or when it is closed itself.

    What the person can mend becomes a message on the page; anything else is raised.
    """
    pieces: list[Piece] = []
    try:
        with player.turns.place() as before:
            while waiting := before(_SECONDS_BETWEEN_LOOKS):
                if stop.is_set():
                    yield Shown("", markup.status("Stopped before it began."))
                    return
                said = f"{player.name} is busy: {waiting} before this one."
                yield Shown(markup.continuation(asked.prompt, []), markup.status(said, busy=True))
            yield Shown(markup.continuation(asked.prompt, []), markup.status("Reading the prompt.", busy=True))
            started = time.monotonic()
            for batch in in_batches(lambda: player.stream(asked), stop):
                pieces += batch
                said = _rate(len(pieces), time.monotonic() - started)
                yield Shown(markup.continuation(asked.prompt, pieces), markup.status(f"{said}.", busy=True))
            said = (
                f"{_rate(len(pieces), time.monotonic() - started)}{_mean(pieces)}; {_end(pieces, player, asked, stop)}."
            )
    except UserError as error:
        yield Shown(markup.continuation(asked.prompt, pieces) if pieces else "", markup.problem(str(error)))
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        problem = "memory ran out; ask for a shorter continuation of a shorter prompt"
        yield Shown(markup.continuation(asked.prompt, pieces), markup.problem(problem))
    else:
        yield Shown(markup.continuation(asked.prompt, pieces), markup.status(said))


def _rate(tokens: int, seconds: float) -> str:
    return f"{tokens:,} token{'' if tokens == 1 else 's'}, {number(tokens / max(seconds, 1e-3))} a second"


def _mean(pieces: list[Piece]) -> str:
    if not pieces:
        return ""
    mean = sum(piece.log_probability for piece in pieces) / len(pieces)
    return f", log-probability {number(mean, 2)} a token"


def _end(pieces: list[Piece], player: Player, asked: Asked, stop: Event) -> str:
    """Why nothing more follows."""
    if pieces and pieces[-1].token == player.end_of_text:
        return "the model ended the text"
    if len(pieces) >= asked.tokens:
        return "as many as were asked for"
    return "stopped" if stop.is_set() else "a stop string came"
