"""Six kills of `make soak`: three at named points, three at random moments, with SIGKILL in a real process."""

from pathlib import Path

import pytest

from soak import Kill, soak

FOREGROUND = [
    Kill("half-model"),
    Kill(share=0.2),
    Kill("half-metrics-line"),
    Kill(share=0.8),
]
BACKGROUND = [Kill("before-rename", 3), Kill(share=0.6)]


@pytest.mark.slow
def test_six_kills_lose_nothing(tmp_path: Path) -> None:
    tally = soak(tmp_path, FOREGROUND, BACKGROUND, jobs=1, quiet=False)
    assert tally.lost == []
    assert str(tally) == "6 kills, 0 lost"
