"""The settings of sampling as the page shows them: sliders, what they do, and where they do nothing."""

from dataclasses import dataclass
from typing import final


@final
@dataclass(frozen=True)
class Setting:
    """A slider of the page.

    Attributes:
        name: of the field of `SamplingConfig`.
        off: the value at which the setting is left out; None if it always counts.
    """

    name: str
    label: str
    explains: str
    low: float
    high: float
    step: float
    start: float
    off: float | None = None


FEW = 3  # of them are seen at once, the others on request
SETTINGS = (
    Setting(
        "temperature", "Temperature", "Divides the logits: below 1 keeps to likelier tokens, above 1 dares more.",
        0.1, 2.0, 0.05, 0.8,
    ),
    Setting("top_k", "Top-k", "Only the k likeliest tokens. 0: all.", 0, 200, 1, 0, off=0),
    Setting("top_p", "Top-p", "Only the likeliest tokens that sum to p. 1: all.", 0.05, 1.0, 0.01, 0.95, off=1.0),
)  # fmt: skip
