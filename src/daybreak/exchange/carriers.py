"""Which class of transformers carries a model: the first of a fixed list that fits exactly."""

from collections.abc import Mapping
from typing import Any

from daybreak.exchange.carrier import Carrier
from daybreak.exchange.gpt2 import GPT2
from daybreak.exchange.pieces import MisfitError
from daybreak.model.gpt import ModelConfig

CARRIERS: tuple[Carrier, ...] = (GPT2,)


def carrier_of(config: ModelConfig) -> tuple[Carrier | None, dict[str, str]]:
    """The class that holds a model, None if none does; and of the classes before it why they do not."""
    reasons: dict[str, str] = {}
    for carrier in CARRIERS:
        try:
            carrier.describe(config)
        except MisfitError as reason:
            reasons[carrier.architecture] = str(reason)
        else:
            return carrier, reasons
    return None, reasons


def carrier_named(settings: Mapping[str, Any]) -> Carrier:
    """The class that a `config.json` is of.

    Raises:
        MisfitError: we know none of this name.
    """
    for carrier in CARRIERS:
        if settings.get("model_type") == carrier.model_type:
            return carrier
    known = ", ".join(carrier.model_type for carrier in CARRIERS)
    raise MisfitError(f"its model_type is {settings.get('model_type')!r}; known here are {known}")
