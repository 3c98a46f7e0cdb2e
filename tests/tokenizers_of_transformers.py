"""Our tokenizer of bytes as `transformers` has it, made by hand: the same ids for the same text."""

from typing import Any

from daybreak.data.tokenizer import END_OF_TEXT


def bytes_of_transformers(begin: str = END_OF_TEXT, end: str = END_OF_TEXT) -> Any:
    """Ids 0 to 255 are bytes and 256 is end-of-text, as in `byte_tokenizer`; or 256 begins texts and 257 ends them."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE(vocab=_ids_of_characters(), merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token=begin, eos_token=end, pad_token=end)


def _ids_of_characters() -> dict[str, int]:
    """The byte that each printable character of GPT-2's files stands for."""
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {chr(256 + place): byte for place, byte in enumerate(others)}
