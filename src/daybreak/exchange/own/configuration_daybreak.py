"""What a GPT trained with Daybreak is made of, for transformers."""

from typing import Any

from transformers import PreTrainedConfig


class DaybreakConfig(PreTrainedConfig):
    """Sizes and parts.

    Args:
        daybreak: `{"format": 1, "model": …}`: sizes and parts by the names that Daybreak's recipes have for them.
    """

    model_type = "daybreak"

    def __init__(self, daybreak: dict[str, Any] | None = None, **others: Any) -> None:
        self.daybreak = daybreak or {}
        model = self.daybreak.get("model", {})
        if model and self.daybreak.get("format") != 1:
            raise ValueError(f"format {self.daybreak.get('format')} of Daybreak's models is not known here")
        self.num_hidden_layers = model.get("layers", 0)
        self.num_attention_heads = model.get("heads", 0)
        self.hidden_size = model.get("dim", 0)
        self.max_position_embeddings = model.get("context", 0)
        self.vocab_size = model.get("vocab_size", 0)
        # A tied head reads the embedding where it lies, so there is no second tensor to tie.
        super().__init__(**{"use_cache": False, **others, "tie_word_embeddings": False})
