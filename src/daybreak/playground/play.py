"""`play(paths)`: from folders of runs to a page that is served."""

import webbrowser
from collections.abc import Iterator, Sequence
from pathlib import Path

from daybreak.errors import UserError
from daybreak.playground.about import about
from daybreak.playground.asked import Asked, Limits
from daybreak.playground.continuing import Player
from daybreak.playground.page import build_page
from daybreak.playground.serve import listen, make_server, url_of
from daybreak.playground.stops import Stops
from daybreak.playground.turns import Turns
from daybreak.report.observed import names_of, observe
from daybreak.run import Run, load
from daybreak.sampling.text import Piece


def play(
    paths: Sequence[Path], *, port: int | None = None, limits: Limits | None = None, browser: bool = False
) -> None:
    """Serve a page to try runs, on this machine only, until it is interrupted.

    Args:
        port: a free one unless given.
        browser: open the page in one.

    Raises:
        UserError: a path is no run, the port is taken, or gradio or matplotlib is missing.
        KeyboardInterrupt: the person ended it.
    """
    limits = limits or Limits()
    names, stops = names_of(list(paths)), Stops()
    with listen(port) as listening:
        runs = [load(path) for path in paths]
        _require_gradio()
        players = [player_of(run, name, at, limits) for at, (run, name) in enumerate(zip(runs, names, strict=True))]
        server = make_server(build_page(players, limits, stops))
        print(f"{url_of(listening)}  (this machine only; Ctrl-C ends it)", flush=True)
        if browser:
            webbrowser.open(url_of(listening))
        try:
            server.run(sockets=[listening])
        finally:
            stops.close()


def player_of(run: Run, name: str, place: int, limits: Limits) -> Player:
    """A run as the page has it.

    Raises:
        UserError: matplotlib is missing.
    """

    def stream(asked: Asked) -> Iterator[Piece]:
        return run.stream(asked.prompt, tokens=asked.tokens, sampling=asked.sampling, stop=asked.stop)

    shown = about(observe(run.path, name), run.tokenizer.name, place)
    return Player(name, stream, run.tokenizer.end_of_text, Turns(limits.waiting), shown)


def _require_gradio() -> None:
    """Raises UserError if it is missing."""
    try:
        import gradio  # noqa: F401
    except ImportError:
        raise UserError("the page needs the package gradio: pip install 'daybreak[play]'") from None
