"""A model in the form of transformers, read without it: `config.json`, tokenizer, safetensors. Nobody's code is run."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, final

from pydantic import ValidationError
from torch import Tensor

from daybreak.data.tokenizer import Tokenizer
from daybreak.errors import UserError
from daybreak.exchange.carrier import FORMAT, Carrier
from daybreak.exchange.carriers import carrier_named
from daybreak.exchange.check import model_of, require_same_logits, shapes_of
from daybreak.exchange.hub import folder_of
from daybreak.exchange.own_class import OWN
from daybreak.exchange.pieces import MisfitError, to_ours
from daybreak.exchange.tensors import read_tensors
from daybreak.exchange.tokenizer_in import read_tokenizer
from daybreak.files import read_json
from daybreak.hardware import is_out_of_memory
from daybreak.model.gpt import ModelConfig
from daybreak.progress import say

_GPT2 = "ce016d6e74ae7d986187faf27f115c7b2e59bb809ce6e5fd1af2e9527c521d69"  # the identity of GPT-2's tokenizer
# Masks and tables that older versions of transformers saved beside the weights.
_BUFFERS = re.compile(r"(^|\.)(attn\.(bias|masked_bias)|attention\.(bias|masked_bias)|rotary_emb\.inv_freq)$")
# What a setting of another type, or of an absurd size, leads to.
_WRONG = (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError)


@final
@dataclass(frozen=True)
class ForeignModel:
    """A model of transformers, as ours.

    Attributes:
        source: where it was read.
        architecture: the class of transformers.
        weights: in fp32, by the names of `GPT.state_dict()`.
    """

    source: str
    architecture: str
    config: ModelConfig
    tokenizer: Tokenizer
    weights: Mapping[str, Tensor]


def read_model(source: str) -> ForeignModel:
    """Read a model of transformers, and see that it computes the same logits here as there.

    Args:
        source: `hf:FOLDER`, or `hf:NAME` of the hub.

    Raises:
        UserError: there is no such model, or ours cannot be it exactly, or transformers is missing; it says why.
    """
    folder = folder_of(source)
    read = read_folder(folder, source)
    require_same(read, folder)
    return read


def require_same(read: ForeignModel, folder: Path) -> None:
    """Say how far a model's logits are from those that transformers computes from the folder it was read from.

    Raises:
        UserError: they are too far apart, or transformers is missing.
    """
    agreement = require_same_logits(folder, read.architecture, model_of(read.config, read.weights))
    say(f"{read.source}: {agreement}")


def read_folder(folder: Path, source: str) -> ForeignModel:
    """What lies in a folder, not compared with anything.

    Raises:
        UserError: ours cannot be it exactly.
    """
    settings = read_json(folder / "config.json")
    try:
        tokenizer = _with_known_name(read_tokenizer(folder, source, _end(settings)), settings)
        carrier = carrier_named(settings)
        config, weights = _config_and_weights(carrier, settings, read_tensors(folder), source)
    except MisfitError as reason:
        raise UserError(f"{source} cannot be read exactly: {reason}") from None
    except _WRONG as error:
        if is_out_of_memory(error):
            raise
        raise UserError(f"{folder / 'config.json'} is damaged ({error!r})") from None
    if tokenizer.vocab_size > config.vocab_size:
        raise UserError(f"{source}: its tokenizer has {tokenizer.vocab_size:,} ids, its model {config.vocab_size:,}")
    return ForeignModel(source, carrier.architecture, config, tokenizer, weights)


def _config_and_weights(
    carrier: Carrier, settings: Mapping[str, Any], tensors: dict[str, Tensor], source: str
) -> tuple[ModelConfig, dict[str, Tensor]]:
    """The model as we wrote it, if we did and nobody changed it since; else as the settings describe it.

    Raises:
        MisfitError: ours cannot be it.
    """
    stated = _stated(settings, source)
    if stated is not None:
        try:
            if carrier is not OWN and carrier.recognise(settings) != carrier.recognise(carrier.settings(stated)):
                raise MisfitError("its settings are others")
            return stated, _weights(carrier, stated, tensors)
        except MisfitError as reason:
            if carrier is OWN:
                raise
            say(f"{source} is no more as Daybreak wrote it ({reason}); it is read as any other {carrier.architecture}")
    config = carrier.recognise(settings)
    return config, _weights(carrier, config, tensors)


def _weights(carrier: Carrier, config: ModelConfig, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """By the names of ours, and of its shapes.

    Raises:
        MisfitError: they are another model's.
    """
    weights = to_ours(carrier.placed(config), _named(carrier, config, tensors))
    for name, shape in shapes_of(config).items():
        if weights[name].shape != shape:
            raise MisfitError(f"{name} has the shape {tuple(weights[name].shape)}, not {tuple(shape)}")
    return weights


def _stated(settings: Mapping[str, Any], source: str) -> ModelConfig | None:
    """The model that our export put into the settings; None if it did not write them.

    Raises:
        UserError: it is of a format that is not known here, or damaged.
    """
    stated = settings.get("daybreak")
    if stated is None:
        return None
    if stated.get("format") != FORMAT:
        raise UserError(
            f"{source} was written by another Daybreak: format {stated.get('format')} is not known here; update it"
        )
    try:
        return ModelConfig.model_validate(stated.get("model"))
    except ValidationError as error:
        raise UserError(f"{source}: its model is damaged: {error.errors()[0]['msg']}") from None


def _with_known_name(tokenizer: Tokenizer, settings: Mapping[str, Any]) -> Tokenizer:
    """The same under the name that corpora prepared with it have, where it is known."""
    stated = (settings.get("daybreak") or {}).get("tokenizer") or {}
    names = {_GPT2: "gpt2", stated.get("identity"): stated.get("name")}
    return replace(tokenizer, name=names.get(tokenizer.identity) or tokenizer.name)


def _end(settings: Mapping[str, Any]) -> int | None:
    """The id that ends a text; of several the first."""
    end: int | list[int] | None = settings.get("eos_token_id")
    return end[0] if isinstance(end, list) else end


def _named(carrier: Carrier, config: ModelConfig, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The tensors that count, by the names that the class with a head has.

    Raises:
        MisfitError: a head that should be the embedding is something else.
    """
    tensors = {name: tensor for name, tensor in tensors.items() if not _BUFFERS.search(name)}
    prefix = carrier.prefix
    if not any(name.startswith(prefix) for name in tensors):  # saved by the class without a head
        tensors = {name if name == carrier.head else prefix + name: tensor for name, tensor in tensors.items()}
    if config.head.tied and carrier.head in tensors:
        if not tensors[carrier.head].equal(tensors[carrier.embedding]):
            raise MisfitError(f"{carrier.head} is not the embedding, though tie_word_embeddings says so")
        del tensors[carrier.head]
    return tensors
