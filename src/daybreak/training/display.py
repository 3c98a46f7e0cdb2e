"""What a person sees while a run trains: a bar on a terminal, plain lines in a pipe."""

import time
from typing import Any, final

from daybreak.duration import human_seconds
from daybreak.progress import say

_SECONDS_BETWEEN_LINES = 10.0


def _figures(record: dict[str, Any]) -> str:
    mfu = "n/a" if record["mfu"] is None else f"{record['mfu']:.0%}"
    return (
        f"step {record['step']:>6,}  loss {record['loss']:.4f}  lr {record['lr']:.2e}  "
        f"norm {record['gradient_norm']:.2f}  {record['milliseconds']:,.0f} ms  "
        f"{record['tokens_per_second']:,.0f} tok/s  mfu {mfu}"
    )


def _spent(record: dict[str, Any]) -> float:
    return min(1.0, float(record["progress"]) + float(record["progress_share"]))


def _left(seconds: float | None) -> str:
    return "?" if seconds is None else human_seconds(seconds)


@final
class PlainDisplay:
    """Lines for a pipe: the first step, then one every few seconds."""

    def __init__(self) -> None:
        self._shown = -_SECONDS_BETWEEN_LINES

    def start(self) -> None:
        """Nothing to set up."""

    def stop(self) -> None:
        """Nothing to take down."""

    def step(self, record: dict[str, Any], seconds_left: float | None) -> None:
        now = time.monotonic()
        if now - self._shown >= _SECONDS_BETWEEN_LINES:
            self._shown = now
            say(f"{_figures(record)}  budget {_spent(record):.1%}  left {_left(seconds_left)}")

    def line(self, text: str) -> None:
        say(text)


@final
class LiveDisplay:
    """A bar and a line of figures that stay at the bottom of a terminal."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.live import Live

        self._live = Live(console=Console(stderr=True), refresh_per_second=4, transient=True)

    def start(self) -> None:
        self._live.start()

    def stop(self) -> None:
        self._live.stop()

    def step(self, record: dict[str, Any], seconds_left: float | None) -> None:
        from rich.console import Group
        from rich.progress_bar import ProgressBar
        from rich.table import Table
        from rich.text import Text

        bar = Table.grid(padding=(0, 1))
        bar.add_row(
            ProgressBar(total=1.0, completed=_spent(record), width=40),
            f"{_spent(record):.1%} of the budget, {_left(seconds_left)} left",
        )
        self._live.update(Group(bar, Text(_figures(record), no_wrap=True)))

    def line(self, text: str) -> None:
        self._live.console.print(text, markup=False, highlight=False)
