"""A study small enough to be made many times."""

from collections.abc import Callable
from pathlib import Path

import pytest

from made_study import write_study


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    """Write a study's file, with other lines in place of some of its own."""
    return lambda **lines: write_study(tmp_path / "study.toml", **lines)
