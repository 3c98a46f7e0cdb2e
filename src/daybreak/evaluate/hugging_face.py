"""Models of Hugging Face's transformers, measured as ours are.

Shape legend: B rows, T tokens of a row, K the last of them, N targets that count, V vocabulary.
"""

import inspect
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from daybreak.data.windows import IGNORED
from daybreak.errors import UserError
from daybreak.evaluate.benchmarks import avoid_an_unreachable_hub
from daybreak.evaluate.language_model import BYTES_PER_FEATURE, BYTES_PER_LOGIT, LanguageModel
from daybreak.hardware import choose_device, is_out_of_memory

PREFIX = "hf:"
_CONTEXT = 2048  # at most, where nothing else is asked: of long ones the logits alone take gigabytes
_TOKENS_AT_ONCE = {"cuda": 16_384, "cpu": 2048, "mps": 4096}


@final
@dataclass(frozen=True)
class HuggingFaceModel(LanguageModel):
    """A causal model of transformers, in evaluation mode."""

    model: Any
    tokenizer: Any
    keeps_logits: bool

    def encode(self, text: str) -> npt.NDArray[np.uint32]:
        encoded = self.tokenizer(text, add_special_tokens=False, split_special_tokens=True, verbose=False)
        return np.asarray(encoded["input_ids"], dtype=np.uint32)

    def decode(self, ids: npt.NDArray[np.uint32]) -> str:
        return str(self.tokenizer.decode(ids.tolist(), clean_up_tokenization_spaces=False))

    @torch.no_grad()
    def losses(self, inputs_BT: Tensor, targets_BT: Tensor) -> Tensor:
        counted_BT = targets_BT != IGNORED
        first = int(counted_BT.any(dim=0).nonzero()[0]) if counted_BT.any() else inputs_BT.shape[1] - 1
        kept = inputs_BT.shape[1] - first
        only_the_last = {"logits_to_keep": kept} if self.keeps_logits else {}
        logits_BKV = self.model(input_ids=inputs_BT, use_cache=False, **only_the_last).logits[:, -kept:]
        counted_BK = counted_BT[:, first:]
        targets_N = targets_BT[:, first:][counted_BK]
        return F.cross_entropy(logits_BKV[counted_BK].float(), targets_N, reduction="none")

    def row_bytes(self, context: int) -> int:
        config = self.model.config.get_text_config()
        return context * int(BYTES_PER_LOGIT * config.vocab_size + BYTES_PER_FEATURE * config.hidden_size)


def place_of(name: str) -> str:
    """A folder, or a name on the hub.

    Args:
        name: with or without `hf:`.

    Raises:
        UserError: it is a path, but there is no such folder.
    """
    place = name.removeprefix(PREFIX)
    if not Path(place).is_dir() and (not place or place.startswith((".", "/", "~")) or place.count("/") > 1):
        raise UserError(f"there is no folder {place or 'behind hf:'}")
    if Path(place).is_dir() and not (Path(place) / "config.json").is_file():
        raise UserError(f"{PREFIX}{place} holds no model: it has no config.json; save_pretrained writes such a folder")
    return place


def open_hugging_face(name: str) -> HuggingFaceModel:
    """A folder that `save_pretrained` wrote, or a model of the hub: safetensors alone, and nobody's code is run.

    On CUDA in the type it was saved in, elsewhere in fp32. HF_HUB_OFFLINE=1 reads what was downloaded before.

    Args:
        name: with or without `hf:`.

    Raises:
        UserError: transformers is missing, or the model cannot be had.
    """
    configurations, tokenizers, models = _transformers()
    place = place_of(name)
    if not Path(place).is_dir():
        avoid_an_unreachable_hub()
    device = choose_device("auto")
    try:
        tokenizer = tokenizers.from_pretrained(place, trust_remote_code=False)
        model = models.from_pretrained(
            place,
            config=configurations.from_pretrained(place, trust_remote_code=False),
            use_safetensors=True,
            trust_remote_code=False,
            attn_implementation=None,  # else a kernel that config.json names is fetched from the hub, and run
            dtype="auto" if device.type == "cuda" else torch.float32,
        )
    except Exception as error:  # of whatever type, at settings that make no sense
        if is_out_of_memory(error):
            raise
        said = str(error).strip().partition("\n")[0] or type(error).__name__
        raise UserError(f"{PREFIX}{place} cannot be read as a causal language model: {said}") from None
    ends = [each for each in (tokenizer.bos_token_id, tokenizer.eos_token_id) if each is not None]
    if not ends:
        raise UserError(f"the tokenizer of {PREFIX}{place} has neither a bos nor an eos token to begin a text with")
    limit = _limit(model.config)
    return HuggingFaceModel(
        name=f"{PREFIX}{place}",
        context=min(limit or getattr(model.config, "max_position_embeddings", None) or _CONTEXT, _CONTEXT),
        limit=limit,
        begin=ends[0],
        end=ends[-1],
        tokens_at_once=_TOKENS_AT_ONCE[device.type],
        device=device,
        model=model.eval().requires_grad_(False).to(device),
        tokenizer=tokenizer,
        keeps_logits="logits_to_keep" in inspect.signature(model.forward).parameters,
    )


def _limit(config: Any) -> int | None:
    """Where a table of positions ends; None for rotary positions, and where the configuration knows no end."""
    if getattr(config, "rope_parameters", None):
        return None
    return getattr(config, "max_position_embeddings", None) or getattr(config, "max_seq_len", None)


def _transformers() -> tuple[Any, Any, Any]:
    try:
        from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer
        from transformers.utils import logging
    except ImportError:
        raise UserError("models of Hugging Face need the package transformers: pip install 'daybreak[hf]'") from None
    quiet: Any = logging
    quiet.disable_progress_bar()
    quiet.set_verbosity_error()
    return AutoConfig, AutoTokenizer, AutoModelForCausalLM
