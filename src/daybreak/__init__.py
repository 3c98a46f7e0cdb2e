"""Pretrain a GPT in the time you have, on the machine you have, and know what helped.

from daybreak import Recipe, load, train

run = train(Recipe.load("gpt2-tiny", "budget=90s"), data="data/mine", out="runs/mine")
print(run.evaluate().bits_per_byte, run.sample("Once")[0].text)
"""

import time
from typing import TYPE_CHECKING, Any

IMPORTED_AT = time.monotonic()  # where the command line's time budgets count from
__version__ = "0.1.0"
__all__ = [
    "Recipe",
    "Run",
    "SamplingConfig",
    "choose_depth",
    "export",
    "extend",
    "import_model",
    "load",
    "plan",
    "prepare",
    "train",
    "write_report",
]

if TYPE_CHECKING:
    from daybreak.data.prepare import prepare
    from daybreak.exporting import export
    from daybreak.extension import extend
    from daybreak.importing import import_model
    from daybreak.planning.dial import choose_depth
    from daybreak.planning.plan import plan
    from daybreak.recipe import Recipe
    from daybreak.report.write import write_report
    from daybreak.run import Run, load, train
    from daybreak.sampling.settings import SamplingConfig

_HOMES = {
    "Recipe": "daybreak.recipe",
    "Run": "daybreak.run",
    "SamplingConfig": "daybreak.sampling.settings",
    "choose_depth": "daybreak.planning.dial",
    "export": "daybreak.exporting",
    "extend": "daybreak.extension",
    "import_model": "daybreak.importing",
    "load": "daybreak.run",
    "plan": "daybreak.planning.plan",
    "prepare": "daybreak.data.prepare",
    "train": "daybreak.run",
    "write_report": "daybreak.report.write",
}


def __getattr__(name: str) -> Any:
    """Import on first use, so that `daybreak --help` does not wait for torch."""
    if name in _HOMES:
        from importlib import import_module

        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'daybreak' has no attribute {name!r}")


def __dir__() -> list[str]:
    return [*globals(), *_HOMES]
