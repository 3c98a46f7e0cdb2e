"""The optimisations that can be switched off in turn: what a run without each would be, or why there is none."""

from dataclasses import dataclass
from typing import final

import torch

from daybreak.recipe import Recipe
from daybreak.training.execution import Execution

GPT2_VOCABULARY = 50_257


@final
@dataclass(frozen=True)
class Switch:
    """An optimisation that is on, and the same run without it.

    Attributes:
        off: the setting that switches it off, as on the command line.
    """

    name: str
    off: str
    recipe: Recipe
    execution: Execution


@final
@dataclass(frozen=True)
class NotHere:
    """An optimisation that there is nothing to switch off of, and why."""

    name: str
    reason: str


def switches(recipe: Recipe, execution: Execution, vocab_size: int | None) -> list[Switch | NotHere]:
    """Every optimisation, in the order in which they were first tried on GPT-2.

    Args:
        vocab_size: ids of the tokenizer; None if it is not known.
    """
    on_gpu = torch.device(execution.device).type == "cuda"
    precision = execution.precision

    def without(name: str, **change: object) -> Switch:
        off = " ".join(f"execution.{key}={str(value).lower()}" for key, value in change.items())
        return Switch(name, off, recipe, execution.model_copy(update=change))

    found: list[Switch | NotHere] = []
    if precision == "tf32":
        found.append(without("TF32", precision="fp32"))
    elif on_gpu:
        found.append(NotHere("TF32", f"products are in {precision}"))
    else:
        found.append(NotHere("TF32", "a mode of CUDA's tensor cores"))
    if precision in ("bf16", "fp16"):
        wider = "tf32" if on_gpu else "fp32"
        copies = {"weights": "fp32"} if execution.weights == "bf16" else {}
        found.append(without(f"{precision} autocast", precision=wider, **copies))
    else:
        found.append(NotHere("bf16 autocast", f"this trains in {precision}"))
    if recipe.model.dropout:
        found.append(NotHere("fused attention", "no fused kernel takes our dropout of attention weights"))
    elif not execution.fused_attention:
        found.append(NotHere("fused attention", "it is off; on a CPU that is faster for short rows in bf16"))
    else:
        found.append(without("fused attention", fused_attention=False))
    found.append(_vocabulary(recipe, execution, vocab_size))
    if execution.compile:
        found.append(without("torch.compile", compile=False))
    else:
        found.append(NotHere("torch.compile", "it is off here; execution.compile=true turns it on"))
    if recipe.optimizer.kind == "adamw8bit":
        found.append(NotHere("fused AdamW", "the optimizer is 8-bit AdamW"))
    elif not execution.fused_optimizer:
        found.append(NotHere("fused AdamW", "it is off"))
    else:
        found.append(without("fused AdamW", fused_optimizer=False))
    found.append(NotHere("synchronising gradients once a step", "there is one rank, which has nothing to synchronise"))
    if execution.loss_rows:
        found.append(without("chunked loss", loss_rows=0))
    else:
        found.append(NotHere("chunked loss", "it is off"))
    if execution.recompute:
        found.append(without("recomputed blocks", recompute=False))
    if execution.weights == "bf16":
        found.append(without("bf16 copies of the weights", weights="fp32"))
    return found


def tokenizer_size(name: str | None) -> int | None:
    """How many ids the tokenizer of a recipe has, by its name alone; None if that does not say."""
    if name == "gpt2":
        return GPT2_VOCABULARY
    if name == "bytes":
        return 257
    kind, _, size = (name or "").partition(":")
    return int(size) if kind == "bpe" and size.isdecimal() else None


def _vocabulary(recipe: Recipe, execution: Execution, vocab_size: int | None) -> Switch | NotHere:
    name, padded = "padded vocabulary", recipe.model.vocab_size
    if vocab_size is None:
        return NotHere(name, "the tokenizer's size is not known without --data")
    if padded <= vocab_size:
        words = "as many words as" if padded == vocab_size else f"{padded:,} words, fewer than"
        return NotHere(name, f"the model has {words} the tokenizer, {vocab_size:,}")
    model = recipe.model.model_copy(update={"vocab_size": vocab_size})
    return Switch(name, f"model.vocab_size={vocab_size}", recipe.model_copy(update={"model": model}), execution)
