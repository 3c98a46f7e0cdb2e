"""Which class of transformers carries a model: the first of a fixed list that fits exactly; the last fits any."""

from collections.abc import Mapping
from typing import Any

from daybreak.exchange.bloom import BLOOM
from daybreak.exchange.carrier import Carrier
from daybreak.exchange.falcon import FALCON
from daybreak.exchange.gpt2 import GPT2
from daybreak.exchange.gpt_neox import GPT_NEOX
from daybreak.exchange.llama import ARCEE, LLAMA, MISTRAL, QWEN2, QWEN3
from daybreak.exchange.mpt import MPT
from daybreak.exchange.own_class import OWN
from daybreak.exchange.pieces import MisfitError
from daybreak.exchange.starcoder2 import STABLELM, STARCODER2
from daybreak.model.gpt import ModelConfig

CARRIERS: tuple[Carrier, ...] = (
    GPT2, LLAMA, MISTRAL, QWEN2, QWEN3, ARCEE, GPT_NEOX, STARCODER2, STABLELM, FALCON, MPT, BLOOM, OWN,
)  # fmt: skip


def carrier_of(config: ModelConfig) -> tuple[Carrier, dict[str, str]]:
    """The class that holds a model; and of the classes before it why they do not."""
    reasons: dict[str, str] = {}
    for carrier in CARRIERS:
        try:
            carrier.settings(config)
        except MisfitError as reason:
            reasons[carrier.architecture] = str(reason)
        else:
            return carrier, reasons
    raise AssertionError("our own class holds every model")


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
