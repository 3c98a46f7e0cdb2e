"""A model's folder: one on this machine, or its files downloaded from the Hugging Face hub."""

from pathlib import Path

from daybreak.errors import UserError
from daybreak.evaluate.benchmarks import avoid_an_unreachable_hub
from daybreak.evaluate.hugging_face import PREFIX, place_of

# No pickles, and no code.
_FILES = (
    "config.json", "generation_config.json", "*.safetensors", "*.safetensors.index.json", "tokenizer.json",
    "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "vocab.json", "merges.txt",
)  # fmt: skip


def folder_of(source: str) -> Path:
    """Where the files of a model lie.

    Args:
        source: a folder or a name on the hub, as `gpt2`, with or without `hf:`.

    Raises:
        UserError: there is no such model, or it cannot be downloaded.
    """
    place = place_of(source)
    if Path(place).is_dir():
        return Path(place)
    try:
        from huggingface_hub import snapshot_download
        from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError
    except ImportError:
        raise UserError("models of the Hugging Face hub need: pip install 'daybreak[hf]'") from None
    avoid_an_unreachable_hub()
    try:
        return Path(snapshot_download(place, allow_patterns=list(_FILES), ignore_patterns="*/*"))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        said = str(error).strip().partition("\n")[0] or type(error).__name__
        raise UserError(f"{PREFIX}{place} cannot be downloaded: {said}") from None
