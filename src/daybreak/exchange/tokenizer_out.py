"""Our tokenizers as `tokenizer.json` and `tokenizer_config.json`: the same ids for the same text.

Text that spells a special token is text there too (`split_special_tokens`), or the token, as in ours. What differs is
in docs/exchange.md.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from daybreak.data.tokenizer import END_OF_TEXT, GPT2_PATTERN, Tokenizer, byte_of_printable
from daybreak.errors import UserError
from daybreak.exchange.merges import merges_of
from daybreak.exchange.pieces import MisfitError
from daybreak.files import write_json

_UNKNOWN = "<unknown>"  # a word that is in no vocabulary of characters, so that an unknown one is an error


def _split(pattern: str) -> dict[str, Any]:
    return {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False}


EACH_CHARACTER = _split(r"[\s\S]")  # as our pattern, in the dialect of Oniguruma


def write_tokenizer(folder: Path, tokenizer: Tokenizer, context: int) -> None:
    """Both files.

    Args:
        context: the longest text that the model takes, in tokens.

    Raises:
        UserError: no tokenizer of transformers does the same.
    """
    try:
        content = _bytes(tokenizer) if tokenizer.covers_all_bytes else _characters(tokenizer)
    except MisfitError as reason:
        raise UserError(f"tokenizer {tokenizer.name} cannot be one of transformers: {reason}") from None
    by_rank = sorted(tokenizer.specials.items(), key=lambda item: item[1])
    added = [(rank, _added(name, spelled=name in tokenizer.spelled)) for name, rank in by_rank]
    whole = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [{"id": rank, **token} for rank, token in added],
        "normalizer": None,
        "post_processor": None,
        **content,
    }
    write_json(folder / "tokenizer.json", whole)
    write_json(
        folder / "tokenizer_config.json",
        {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "added_tokens_decoder": {str(rank): token for rank, token in added},
            **dict.fromkeys(("bos_token", "eos_token", "pad_token"), END_OF_TEXT),
            "add_bos_token": False,
            "add_prefix_space": False,
            "clean_up_tokenization_spaces": False,
            "split_special_tokens": True,
            "model_max_length": context,
        },
    )


def _added(name: str, *, spelled: bool) -> dict[str, Any]:
    """A special token of ours; one that text may spell is not special to transformers, which then reads it in text."""
    plain = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    return {"content": name, **plain, "special": not spelled}


def _bytes(tokenizer: Tokenizer) -> dict[str, Any]:
    """Byte-level BPE."""
    printable = {byte: character for character, byte in byte_of_printable().items()}

    def spelled(token: bytes) -> str:
        return "".join(printable[byte] for byte in token)

    merges = merges_of(tokenizer.ranks)
    by_words = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    if tokenizer.pattern != GPT2_PATTERN:
        steps = [_split(tokenizer.pattern), {**by_words, "use_regex": False}]
        by_words = {"type": "Sequence", "pretokenizers": steps}
    return {
        "pre_tokenizer": by_words,
        "decoder": {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True},
        "model": {
            **_model("BPE", {spelled(token): rank for token, rank in tokenizer.ranks.items()}),
            "dropout": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            "ignore_merges": False,
            "merges": [[spelled(left), spelled(right)] for left, right in merges],
        },
    }


def _characters(tokenizer: Tokenizer) -> dict[str, Any]:
    """A word for each character; one that has none is an error there, as it is in ours."""
    return {
        "pre_tokenizer": EACH_CHARACTER,
        "decoder": {"type": "Fuse"},
        "model": _model("WordLevel", {token.decode(): rank for token, rank in tokenizer.ranks.items()}),
    }


def _model(kind: str, vocabulary: Mapping[str, int]) -> dict[str, Any]:
    return {"type": kind, "vocab": dict(vocabulary), "unk_token": None if kind == "BPE" else _UNKNOWN}
