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
        draws: whether it has no meaning where always the likeliest token is taken.
    """

    name: str
    label: str
    explains: str
    low: float
    high: float
    step: float
    start: float
    off: float | None = None
    draws: bool = True


FEW = 3  # of them are seen at once, the others on request
SETTINGS = (
    Setting(
        "temperature", "Temperature", "Divides the logits: below 1 keeps to likelier tokens, above 1 dares more.",
        0.1, 2.0, 0.05, 0.8,
    ),
    Setting("top_k", "Top-k", "Only the k likeliest tokens. 0: all.", 0, 200, 1, 0, off=0),
    Setting("top_p", "Top-p", "Only the likeliest tokens that sum to p. 1: all.", 0.05, 1.0, 0.01, 0.95, off=1.0),
    Setting(
        "min_p", "Min-p", "Only tokens at least p times as likely as the likeliest. 0: all.",
        0.0, 0.5, 0.01, 0.0, off=0.0,
    ),
    Setting(
        "typical_p", "Typical", "Only tokens that sum to p, of a surprise nearest to the mean. 1: all.",
        0.05, 1.0, 0.01, 1.0, off=1.0,
    ),
    Setting(
        "eta_cutoff", "Eta", "Only tokens above a cut-off, which is lower where many are likely. 0: all.",
        0.0, 0.01, 0.0001, 0.0, off=0.0,
    ),
    Setting(
        "repetition_penalty", "Repetition penalty", "Makes tokens less likely that were there before. 1: none.",
        1.0, 2.0, 0.05, 1.0, off=1.0, draws=False,
    ),
)  # fmt: skip
