"""A model as a folder of transformers: configuration, tensors, tokenizer, generation settings.

It is compared with ours by transformers itself before it gets its name.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

from daybreak.data.tokenizer import Tokenizer
from daybreak.exchange.carrier import FORMAT
from daybreak.exchange.carriers import carrier_of
from daybreak.exchange.check import Agreement, require_same_logits
from daybreak.exchange.own_class import OWN, write_code
from daybreak.exchange.pieces import to_theirs
from daybreak.exchange.tensors import write_tensors
from daybreak.exchange.tokenizer_out import write_tokenizer
from daybreak.files import write_json
from daybreak.model.gpt import GPT, ModelConfig


@final
@dataclass(frozen=True)
class Written:
    """What was written.

    Attributes:
        architecture: the class of transformers.
        reasons: why classes that come before it are not it, by their names.
    """

    architecture: str
    reasons: dict[str, str]
    agreement: Agreement


def write_model(folder: Path, model: GPT, tokenizer: Tokenizer) -> Written:
    """Fill a folder that exists, and load it again.

    Raises:
        UserError: transformers is missing, or computes something else.
    """
    config = model.config
    carrier, reasons = carrier_of(config)
    ids = dict.fromkeys(("bos_token_id", "eos_token_id", "pad_token_id"), tokenizer.end_of_text)
    settings = {
        "architectures": [carrier.architecture],
        "model_type": carrier.model_type,
        "dtype": "float32",
        **ids,
        "use_cache": True,
        **carrier.settings(config),
        "daybreak": _ours(config, tokenizer),
    }
    write_json(folder / "config.json", settings)
    write_json(folder / "generation_config.json", _generation(config, tokenizer, ids, cached=carrier is not OWN))
    write_tokenizer(folder, tokenizer, config.context)
    if carrier is OWN:
        write_code(folder)
    write_tensors(folder, to_theirs(carrier.placed(config), model.state_dict()))
    return Written(carrier.architecture, reasons, require_same_logits(folder, carrier.architecture, model))


def _ours(config: ModelConfig, tokenizer: Tokenizer) -> dict[str, Any]:
    """What our own import reads first; transformers passes over it."""
    named = {"name": tokenizer.name, "identity": tokenizer.identity}
    return {"format": FORMAT, "model": config.model_dump(mode="json"), "tokenizer": named}


def _generation(config: ModelConfig, tokenizer: Tokenizer, ids: dict[str, int], *, cached: bool) -> dict[str, Any]:
    """Ids that pad the vocabulary stand for no text, so they are never drawn."""
    padding = list(range(tokenizer.vocab_size, config.vocab_size))
    return {**ids, "use_cache": cached, **({"suppress_tokens": padding} if padding else {})}
