"""A tokenizer of transformers as ours: byte-level BPE or single characters, where it gives the same ids."""

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from daybreak.data.tokenizer import CHARACTER_PATTERN, END_OF_TEXT, GPT2_PATTERN, Tokenizer, byte_of_printable
from daybreak.errors import UserError
from daybreak.exchange.merges import merges_of
from daybreak.exchange.pieces import MisfitError
from daybreak.exchange.tokenizer_out import EACH_CHARACTER
from daybreak.files import read_json

# Texts on which two tokenizers that differ anywhere are likely to differ.
_PROBES = (
    "",
    " ",
    "  two  spaces   and more \n\n\n\tand lines\r\n ",
    "I'm it's THEY'RE we'll I'd can't I'VE",
    "The quick brown fox jumps over 13 lazy dogs, 1234567890 times; 3.14159!",
    "def f(x):\n        return x**2  # so",
    "naïve Ærøskøbing Straße ﬁnance e\u0301 Å",
    "日本語のテキスト 中文 한국어 ไทย हिन्दी العربية עברית",
    "\U0001f469\u200d\U0001f467\u200d\U0001f466 \U0001f1f3\U0001f1f1 \U0001f600\ufe0f",
    "\u00a0\u2003\u200b\ufeff\u0085\x00\x7f",
    "½ Ⅷ ² ٣ ௧",
    "<|endoftext|> <s> </s> [PAD] <unk>",
    "https://example.org/?q=a_b-c",
)


def read_tokenizer(folder: Path, name: str, end: int | None) -> Tokenizer:
    """The tokenizer in a folder of transformers.

    Args:
        name: what the tokenizer is to be called.
        end: the id that ends a text, by the model's configuration; None if it names none.

    Raises:
        UserError: there is none, or it does something that ours does not.
    """
    try:
        if (folder / "tokenizer.json").is_file():
            content = read_json(folder / "tokenizer.json")
            spelled = _spelled(content)
            tokenizer = _sensible(replace(_of_json(content, name, end), spelled=spelled))
            _require_same_ids(tokenizer, content)
            return tokenizer
        if (folder / "vocab.json").is_file() and (folder / "merges.txt").is_file():
            return _of_vocabulary(folder, name, end)
    except MisfitError as reason:
        raise UserError(f"the tokenizer in {folder} is not one that Daybreak can be: {reason}") from None
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise UserError(f"the tokenizer in {folder} is damaged ({error!r})") from None
    raise UserError(f"{folder} has neither a tokenizer.json nor a vocab.json with a merges.txt")


def _of_json(content: Mapping[str, Any], name: str, end: int | None) -> Tokenizer:
    model = content["model"]
    specials = _specials(content)
    if model.get("type") == "WordLevel":
        return _of_characters(content, name, specials, end)
    if model.get("type", "BPE") != "BPE":
        raise MisfitError(f"it is {model['type']}, not byte-level BPE")
    for key in ("unk_token", "continuing_subword_prefix", "end_of_word_suffix", "byte_fallback", "dropout"):
        if model.get(key):
            raise MisfitError(f"its {key} is {model[key]!r}; only byte-level BPE is read")
    merges = [tuple(pair.split(" ")) if isinstance(pair, str) else tuple(pair) for pair in model["merges"]]
    pattern = _pattern(content.get("pre_tokenizer"), merges)
    return _byte_level_bpe(name, pattern, model["vocab"], merges, specials, end)


def _specials(content: Mapping[str, Any]) -> dict[str, int]:
    """The special tokens of a text that is taken as it is."""
    if content.get("normalizer") is not None:
        raise MisfitError(f"it changes the text before it splits it ({content['normalizer'].get('type')})")
    return {token["content"]: token["id"] for token in content.get("added_tokens") or []}


def _spelled(content: Mapping[str, Any]) -> tuple[str, ...]:
    """Added tokens that text may spell: those that are not special there."""
    found = [token for token in content.get("added_tokens") or [] if not token.get("special")]
    for token in found:
        if any(token.get(key) for key in ("single_word", "lstrip", "rstrip")) or len(token["content"].split()) != 1:
            raise MisfitError(f"it reads {token['content']!r} in text in a way of its own")
    return tuple(token["content"] for token in sorted(found, key=lambda token: int(token["id"])))


def _of_characters(content: Mapping[str, Any], name: str, specials: Mapping[str, int], end: int | None) -> Tokenizer:
    """A vocabulary of words that are one character each."""
    words = content["model"]["vocab"]
    if any(len(word) != 1 for word in words) or content.get("pre_tokenizer") != EACH_CHARACTER:
        raise MisfitError("it is a list of words, not byte-level BPE")
    ranks = {word.encode(): rank for word, rank in words.items()}
    return _sensible(Tokenizer(name, CHARACTER_PATTERN, ranks, _with_end(specials, end)))


def _of_vocabulary(folder: Path, name: str, end: int | None) -> Tokenizer:
    """Of the two files that GPT-2 came in, where each special token stands in the vocabulary too."""
    vocabulary = read_json(folder / "vocab.json")
    lines = (folder / "merges.txt").read_text(encoding="utf-8").splitlines()
    merges = [tuple(line.split(" ")) for line in lines if line and not line.startswith("#version")]
    added = folder / "added_tokens.json"
    specials = read_json(added) if added.is_file() else {}
    byte_of = byte_of_printable()
    made = {"".join(pair) for pair in merges}
    specials |= {token: rank for token, rank in vocabulary.items() if token not in made and token not in byte_of}
    return _byte_level_bpe(name, GPT2_PATTERN, vocabulary, merges, specials, end)


def _pattern(pre_tokenizer: Mapping[str, Any] | None, merges: list[Any]) -> str:
    """How text is split before bytes are merged."""
    steps = _steps(pre_tokenizer)
    kinds = [step["type"] for step in steps]
    if kinds not in (["ByteLevel"], ["Split", "ByteLevel"]):
        raise MisfitError(
            f"it splits text by {' and '.join(kinds) or 'nothing'}; only ByteLevel, with a Split or without, is read"
        )
    if steps[-1].get("add_prefix_space"):
        raise MisfitError("it puts a space in front of a text")
    if kinds == ["ByteLevel"] and steps[0].get("use_regex", True):
        return GPT2_PATTERN
    if kinds == ["ByteLevel"]:
        if merges:
            raise MisfitError("it merges across words")
        return GPT2_PATTERN  # where nothing is merged, nothing depends on it
    split = steps[0]
    pattern = split["pattern"].get("Regex")
    if steps[-1].get("use_regex", True) or split.get("behavior") != "Isolated" or split.get("invert") or not pattern:
        raise MisfitError("it splits text in a way of its own")
    return str(pattern)


def _steps(pre_tokenizer: Mapping[str, Any] | None) -> list[Mapping[str, Any]]:
    if pre_tokenizer is None:
        return []
    return list(pre_tokenizer["pretokenizers"]) if pre_tokenizer["type"] == "Sequence" else [pre_tokenizer]


def _byte_level_bpe(
    name: str,
    pattern: str,
    vocabulary: Mapping[str, int],
    merges: list[Any],
    specials: Mapping[str, int],
    end: int | None,
) -> Tokenizer:
    byte_of = byte_of_printable()
    try:
        ranks = {
            bytes(byte_of[character] for character in token): rank
            for token, rank in vocabulary.items()
            if token not in specials
        }
        pairs = [tuple(bytes(byte_of[character] for character in part) for part in pair) for pair in merges]
    except KeyError as error:
        raise MisfitError(f"the character {error.args[0]!r} of its vocabulary stands for no byte") from None
    if pairs != merges_of(ranks):
        raise MisfitError("its merges do not come in the order of their ids")
    return _sensible(Tokenizer(name, pattern, ranks, _with_end(specials, end)))


def _sensible(tokenizer: Tokenizer) -> Tokenizer:
    try:
        tokenizer.require_sense()
    except (TypeError, ValueError) as error:
        raise MisfitError(str(error)) from None
    return tokenizer


def _with_end(specials: Mapping[str, int], end: int | None) -> dict[str, int]:
    """The special tokens, that which ends a text under our name of it.

    Raises:
        MisfitError: it is none of them.
    """
    if end is None:
        if END_OF_TEXT in specials:
            return dict(specials)
        raise MisfitError("the model's configuration does not say which token ends a text")
    for token, rank in specials.items():
        if rank == end:
            others = {name: number for name, number in specials.items() if name != token}
            if END_OF_TEXT in others:
                raise MisfitError(f"{token!r} ends a text, and {END_OF_TEXT} is another token")
            return {**others, END_OF_TEXT: end}
    raise MisfitError(f"the token that ends a text, {end}, is not a special one")


def _require_same_ids(tokenizer: Tokenizer, content: Mapping[str, Any]) -> None:
    from tokenizers import Tokenizer as Theirs

    try:
        theirs = Theirs.from_str(json.dumps(content))
    except Exception as error:  # it has no type of its own
        raise UserError(f"its tokenizer.json is damaged: {error}") from None
    theirs.encode_special_tokens = True
    theirs.no_truncation()
    theirs.no_padding()
    texts = _PROBES if tokenizer.covers_all_bytes else ("".join(map(bytes.decode, tokenizer.ranks)),)
    for text in (*texts, *(f"{texts[-1]}{name}{name}{texts[-1]}" for name in tokenizer.spelled)):
        expected = theirs.encode(text, add_special_tokens=False).ids
        if tokenizer.encode(text).tolist() != expected:
            raise MisfitError(f"ours and theirs encode {text!r} differently")
