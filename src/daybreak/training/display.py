"""What a person sees while a run trains: a bar on a terminal, plain lines in a pipe."""

import time
from typing import Any, final

from daybreak.duration import human_dollars, human_seconds
from daybreak.progress import say
from daybreak.training.outlook import Prospect

_SECONDS_BETWEEN_LINES = 10.0
_SECONDS_BETWEEN_FRAMES = 0.25


def _figures(record: dict[str, Any]) -> str:
    mfu = "n/a" if record["mfu"] is None else f"{record['mfu']:.0%}"
    return (
        f"step {record['step']:>6,}  loss {record['loss']:.4f}  lr {record['lr']:.2e}  "
        f"norm {record['gradient_norm']:.2f}  {record['milliseconds']:,.0f} ms  "
        f"{record['tokens_per_second']:,.0f} tok/s  mfu {mfu}"
    )


def _spent(record: dict[str, Any]) -> float:
    return min(1.0, float(record["progress"]) + float(record["progress_share"]))


def _outlook(prospect: Prospect) -> str:
    left = "?" if prospect.seconds_left is None else human_seconds(prospect.seconds_left)
    words = [f"spent {human_seconds(prospect.seconds_spent)}", f"left {left}"]
    if prospect.dollars is not None:
        words.append(f"cost {human_dollars(prospect.dollars)}")
    if prospect.loss is not None:
        words.append("final loss {:.2f} ± {:.2f}".format(*prospect.loss))
    return "  ".join(words)


@final
class PlainDisplay:
    """Lines for a pipe: the first step, then one every few seconds."""

    def __init__(self) -> None:
        self._shown = -_SECONDS_BETWEEN_LINES

    def start(self) -> None:
        """Nothing to set up."""

    def stop(self) -> None:
        """Nothing to take down."""

    def shows_now(self) -> bool:
        return time.monotonic() - self._shown >= _SECONDS_BETWEEN_LINES

    def show(self, record: dict[str, Any], prospect: Prospect) -> None:
        self._shown = time.monotonic()
        say(f"{_figures(record)}  budget {_spent(record):.1%}  {_outlook(prospect)}")

    def line(self, text: str) -> None:
        say(text)


@final
class LiveDisplay:
    """A bar and a line of figures that stay at the bottom of a terminal."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.live import Live

        self._live = Live(console=Console(stderr=True), refresh_per_second=4, transient=True)
        self._shown = -_SECONDS_BETWEEN_FRAMES

    def start(self) -> None:
        self._live.start()

    def stop(self) -> None:
        self._live.stop()

    def shows_now(self) -> bool:
        return time.monotonic() - self._shown >= _SECONDS_BETWEEN_FRAMES

    def show(self, record: dict[str, Any], prospect: Prospect) -> None:
        self._shown = time.monotonic()
        from rich.console import Group
        from rich.progress_bar import ProgressBar
        from rich.table import Table
        from rich.text import Text

        bar = Table.grid(padding=(0, 1))
        bar.add_row(ProgressBar(total=1.0, completed=_spent(record), width=40), f"{_spent(record):.1%} of the budget")
        lines = (Text(line, no_wrap=True, overflow="ellipsis") for line in (_outlook(prospect), _figures(record)))
        self._live.update(Group(bar, *lines))

    def line(self, text: str) -> None:
        self._live.console.print(text, markup=False, highlight=False)
