"""Trained weights for a longer or shorter context, and for more or fewer words.

Shape legend: V words before, W words after, D dim.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from daybreak.model.gpt import ModelConfig
from daybreak.model.initialise import normal_

_POSITIONS = "position.weight"
_LOGIT_NORM = ("head.norm.weight", "head.norm.bias")


@final
@dataclass(frozen=True)
class Words:
    """Ids that are tokens, not padding: those the weights were trained with, and those that are needed of them."""

    known: int
    needed: int


def resized(
    weights: Mapping[str, Tensor], before: ModelConfig, after: ModelConfig, words: Words, seed: int
) -> dict[str, Tensor]:
    """Weights of a model of `before` for one of `after`, which differ in context and vocabulary at most.

    A learned table of positions keeps those that both have; more begin as in a new model. Words that were no tokens
    before begin at the mean of those that were (Hewitt 2021, "Initializing new word embeddings for pretrained language
    models"): each is then at most as likely as words are on average, and no logit of another word changes.

    A LayerNorm over the logits sees more of them, of which new words have the mean: their variance falls by V / W,
    which its gain makes up for, so that its logits too are the same, but for what eps adds. Padding that became tokens
    stays as it is there, since no value of its own would leave the others alone.

    Raises:
        ValueError: logits or rows would be others, whatever was done.
    """
    _require_possible(before, after)
    kept = dict(weights)
    if _POSITIONS in kept and before.context != after.context:
        table = torch.empty(after.context, after.dim)
        normal_(table, after.initialisation.std, seed=seed, name=_POSITIONS)
        both = min(before.context, after.context)
        table[:both] = kept[_POSITIONS][:both]
        kept[_POSITIONS] = table
    normed = after.extra_norms.over_logits
    counted = before.vocab_size if normed else words.known
    anew = range(0) if normed else range(words.known, words.needed)
    for name in _tables(kept):
        kept[name] = _with_rows(kept[name], after.vocab_size, counted, anew)
    if normed and before.vocab_size != after.vocab_size:
        for name in _LOGIT_NORM:
            if name in kept:
                kept[name] = _with_rows(kept[name], after.vocab_size, counted, anew)
        kept[_LOGIT_NORM[0]] = kept[_LOGIT_NORM[0]] * (before.vocab_size / after.vocab_size) ** 0.5
    return kept


def _require_possible(before: ModelConfig, after: ModelConfig) -> None:
    if before.vocab_size == after.vocab_size:
        return
    change = f"model.vocab_size = {after.vocab_size} in place of {before.vocab_size}"
    if after.lookup.ngrams:
        raise ValueError(
            f"{change}: which row of model.lookup.ngrams a sequence has is worked out from the number of words, so "
            "with another all rows would be those of other sequences"
        )
    if after.extra_norms.over_logits and after.norm.kind != "layernorm":
        raise ValueError(f"{change}: an RMSNorm over the logits would change all of them")
    if after.extra_norms.over_logits and after.vocab_size < before.vocab_size:
        raise ValueError(f"{change}: the norm over the logits was trained on all of them")


def _tables(weights: Mapping[str, Tensor]) -> Iterable[str]:
    """Tables that have a row for every word."""
    return [name for name in weights if name in ("embedding.weight", "head.weight") or name.startswith("values.")]


def _with_rows(table_VD: Tensor, count: int, counted: int, anew: range) -> Tensor:
    """`count` rows of a table; those of `anew`, and all beyond it, are the mean of its first `counted`."""
    mean_D = table_VD[:counted].float().mean(0, keepdim=True).to(table_VD.dtype)
    rows = len(table_VD)
    table_WD = torch.cat([table_VD[:count], mean_D.expand(max(0, count - rows), *table_VD.shape[1:])])
    table_WD[anew.start : anew.stop] = mean_D
    return table_WD
