"""Runs that say what a test wants, and a page of them that is served."""

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from daybreak.playground.asked import Asked, Limits
from daybreak.playground.continuing import Player
from daybreak.playground.page import build_page
from daybreak.playground.serve import listen, make_server, url_of
from daybreak.playground.stops import Stops
from daybreak.playground.turns import Turns
from daybreak.sampling.text import Piece

END = 256
SAID = (
    "<script>document.title = 'taken'</script>",
    "<img src=x onerror=\"document.title='taken'\">",
    "${1+1} {{value}} &amp; \\n",
)


@dataclass
class Speech:
    """Says the same pieces to everybody, and keeps what was asked and how far it came.

    Attributes:
        most_at_once: of its continuations that were made at the same time.
    """

    pieces: Sequence[Piece]
    seconds: float = 0.0  # between two of them
    fault: Exception | None = None  # behind the last
    asked: list[Asked] = field(default_factory=list)
    made: int = 0
    at_once: int = 0
    most_at_once: int = 0

    def __call__(self, asked: Asked) -> Iterator[Piece]:
        self.asked.append(asked)
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        try:
            for piece in self.pieces[: asked.tokens]:
                self.made += 1
                yield piece
                time.sleep(self.seconds)
            if self.fault is not None:
                raise self.fault
        finally:
            self.at_once -= 1


def words(count: int) -> list[Piece]:
    return [Piece(f"word-{number} ", number % END, -(number % 9)) for number in range(count)]


def player(name: str, stream: Callable[[Asked], Iterator[Piece]], waiting: int = 8) -> Player:
    return Player(name, stream, END, Turns(waiting), f"<p>about {name}</p>")


@contextmanager
def served(players: Sequence[Player], limits: Limits) -> Iterator[str]:
    """The address of a page of these runs."""
    stops = Stops()
    with listen(None) as listening:
        server = make_server(build_page(players, limits, stops))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        while not server.started:
            time.sleep(0.01)
        yield url_of(listening)
        stops.close()
        server.should_exit = True
        thread.join()


def eventually(holds: Callable[[], bool], seconds: float = 10.0) -> bool:
    """Whether it comes to hold."""
    until = time.monotonic() + seconds
    while not holds() and time.monotonic() < until:
        time.sleep(0.01)
    return holds()
