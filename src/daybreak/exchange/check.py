"""Whether a folder computes in transformers what our model computes: the same logits, to rounding.

Shape legend: B rows, T tokens of a row, V vocabulary.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

import torch
from torch import Tensor

from daybreak.errors import UserError
from daybreak.evaluate.quiet import quiet
from daybreak.exchange.own_class import OWN
from daybreak.exchange.pieces import Weights
from daybreak.hardware import is_out_of_memory
from daybreak.model.gpt import GPT, ModelConfig
from daybreak.progress import progress

_TOLERANCE = 1e-4
_OF_LARGEST = 1e-5  # fp32 rounds a logit of 100 to 4e-6 at each of thousands of additions
_LONGEST = 4096  # of longer contexts the logits alone take gigabytes


@final
@dataclass(frozen=True)
class Agreement:
    """How far apart logits were, at most, and over how many.

    Attributes:
        difference: the largest of a logit; NaN if one was no number.
        largest: the largest logit.
        lengths: of the rows that were compared.
    """

    difference: float
    largest: float
    lengths: tuple[int, ...]

    @property
    def allowed(self) -> float:
        """1e-4, or a hundred-thousandth of the largest logit where that is more."""
        return max(_TOLERANCE, _OF_LARGEST * self.largest)

    def __str__(self) -> str:
        return (
            f"logits of up to {self.largest:.1f} differ by at most {self.difference:.1e}, "
            f"in rows of {', '.join(map(str, self.lengths))} tokens"
        )


def require_same_logits(folder: Path, architecture: str, model: GPT) -> Agreement:
    """Load a folder with its class of transformers, on the CPU in fp32, and compare.

    Raises:
        UserError: transformers is missing, or does not take the folder, or the logits differ: it says by how much.
    """
    theirs = load_with_transformers(folder, architecture)

    def logits(tokens_BT: Tensor) -> Tensor:
        try:
            return theirs(input_ids=tokens_BT, use_cache=False, return_dict=True).logits  # type: ignore[no-any-return]
        except Exception as error:
            raise _refusal(error, f"{architecture} of transformers does not compute with {folder}") from None

    agreement = compare(model, logits)
    if not agreement.difference <= agreement.allowed:  # NaN is no agreement
        raise UserError(f"{architecture} does not compute what the model of {folder} does here: {agreement}")
    return agreement


@torch.no_grad()
def compare(model: GPT, theirs: Callable[[Tensor], Tensor]) -> Agreement:
    """Logits of random tokens, in rows of several lengths up to the whole context.

    Args:
        theirs: tokens (B, T) to logits (B, T, V).
    """
    config = model.config
    longest = min(config.context, _LONGEST)
    lengths = tuple(sorted({1, min(2, longest), min(7, longest), longest // 2 + 1, longest}))
    generator = torch.Generator().manual_seed(0)
    difference = largest = 0.0
    with progress("comparing", sum(lengths), "tok") as advance:
        for T in lengths:
            tokens_BT = torch.randint(config.vocab_size, (1 if T > 256 else 2, T), generator=generator)
            ours_BTV, theirs_BTV = model.logits(tokens_BT), theirs(tokens_BT).float()
            largest = max(largest, float(ours_BTV.abs().max()))
            apart = float((ours_BTV - theirs_BTV).abs().max())
            if math.isnan(apart):
                return Agreement(apart, largest, lengths)
            difference = max(difference, apart)
            advance(T)
    return Agreement(difference, largest, lengths)


def load_with_transformers(folder: Path, architecture: str) -> Any:
    """The model in a folder, on the CPU in fp32; safetensors alone, and nobody's code is run.

    Raises:
        UserError: transformers is missing, or reads the folder otherwise than it was written.
    """
    require_transformers()
    try:
        with quiet():
            kind = _class(architecture)
            model, report = kind.from_pretrained(
                folder,
                dtype=torch.float32,
                use_safetensors=True,
                trust_remote_code=False,
                attn_implementation=None,  # else a kernel that config.json names is fetched from the hub, and run
                output_loading_info=True,
            )
    except Exception as error:
        raise _refusal(error, f"{architecture} of transformers does not read {folder}") from None
    for what in ("missing_keys", "unexpected_keys", "mismatched_keys"):
        if report.get(what):
            raise UserError(f"{architecture} of transformers reads {folder} with {what} {sorted(report[what])[:3]}")
    return model.eval().requires_grad_(False)


def _refusal(error: Exception, what: str) -> Exception:
    """A UserError that says why, of whatever type transformers raises at settings that make no sense."""
    if isinstance(error, UserError) or is_out_of_memory(error):
        return error
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return UserError(f"{what}: {' '.join(line.strip() for line in lines[:2])}")


def require_transformers() -> None:
    """Raises UserError if the package is missing."""
    try:
        with quiet():
            import transformers  # noqa: F401
    except ImportError:
        raise UserError(
            "whether a model is the same in transformers can only be seen with it: pip install 'daybreak[hf]'"
        ) from None


def _class(architecture: str) -> Any:
    """A class of transformers; our own from this package, so that what lies in the folder is not run."""
    if architecture == OWN.architecture:
        from daybreak.exchange.own.modeling_daybreak import DaybreakForCausalLM

        return DaybreakForCausalLM
    import transformers

    kind = getattr(transformers, architecture, None)
    if kind is None:
        raise UserError(f"transformers {transformers.__version__} has no {architecture}; pip install -U transformers")
    return kind


def model_of(config: ModelConfig, weights: Weights) -> GPT:
    """Our model with these weights, which it does not copy; on the CPU.

    Raises:
        ValueError: they are another model's.
    """
    if {name: tensor.shape for name, tensor in weights.items()} != shapes_of(config):
        raise ValueError("these are the weights of another model")
    with torch.device("meta"):
        model = GPT(config)
    model.load_state_dict(dict(weights), assign=True)
    return model.requires_grad_(False)


def shapes_of(config: ModelConfig) -> dict[str, torch.Size]:
    """Of every tensor of our model, by its name."""
    with torch.device("meta"):
        return {name: tensor.shape for name, tensor in GPT(config).state_dict().items()}
