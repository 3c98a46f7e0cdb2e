"""Parts of a model that keep their values while the rest is trained."""

import re
from collections.abc import Sequence
from functools import lru_cache

import torch
from torch import nn

from daybreak.model.gpt import GPT, ModelConfig

_RANGE = re.compile(r"([0-9]+)-([0-9]+)", flags=re.ASCII)


@lru_cache(maxsize=64)
def frozen_names(model: ModelConfig, parts: tuple[str, ...]) -> frozenset[str]:
    """Names of the parameters of some parts.

    Args:
        parts: the beginning of a parameter's name, as `embedding`, `blocks.0` or `blocks.3.attention`; a range of
            numbers, as `blocks.0-5`, and `*` for any name, as `blocks.*.mlp`, stand for several.

    Raises:
        ValueError: there is no such part, or nothing is left to train.
    """
    if not parts:
        return frozenset()
    names = _sizes(model)
    found: set[str] = set()
    for part in parts:
        if any(int(numbers[2]) >= model.layers for numbers in map(_RANGE.fullmatch, part.split(".")) if numbers):
            raise ValueError(f"freeze: {part} goes beyond this model, whose blocks are 0 to {model.layers - 1}")
        below = {name for name in names if _is_part(part.split("."), name.split("."))}
        if not below:
            raise ValueError(f"freeze: {part} is no part of this model; it has {', '.join(_parts(model))}")
        found |= below
    if found == set(names):
        raise ValueError(f"freeze = {list(parts)} leaves nothing to train")
    return frozenset(found)


def count_trained(model: ModelConfig, parts: tuple[str, ...]) -> int:
    """Numbers that are not frozen."""
    frozen = frozen_names(model, parts)
    return sum(size for name, size in _sizes(model).items() if name not in frozen)


def freeze(model: nn.Module, names: frozenset[str]) -> None:
    """Let parameters keep their values: they get no gradient, and no optimizer has state of them."""
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name not in names)


@lru_cache(maxsize=64)
def _sizes(model: ModelConfig) -> dict[str, int]:
    with torch.device("meta"):
        return {name: parameter.numel() for name, parameter in GPT(model).named_parameters()}


def _is_part(part: Sequence[str], name: Sequence[str]) -> bool:
    return len(part) <= len(name) and all(map(_is_word, part, name))


def _is_word(word: str, own: str) -> bool:
    numbers = _RANGE.fullmatch(word)
    if numbers is not None and own.isdecimal():
        return int(numbers[1]) <= int(own) <= int(numbers[2])
    return word in ("*", own)


def _parts(model: ModelConfig) -> list[str]:
    """What could be named, but for what lies deeper."""
    words = [name.split(".") for name in _sizes(model)]
    outer = dict.fromkeys(word[0] for word in words if word[0] != "blocks")
    inner = dict.fromkeys(word[2] for word in words if word[0] == "blocks")
    last = model.layers - 1
    blocks = f"blocks.0-{last}" if last else "blocks.0"
    return [*outer, blocks, *(f"{blocks}.{part}" for part in inner)]
