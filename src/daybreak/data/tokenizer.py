"""Tokenizers: bytes, characters, GPT-2's BPE, and a BPE trained on your own text.

All four are the same thing, byte-pair encoding over a table `bytes -> rank` after a split by a
pattern, and tiktoken encodes with all of them. A tokenizer's identity is the SHA-256 of that
table, so a corpus or a run can tell whether another was made with the same one.
"""

import base64
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, final

import numpy as np
import numpy.typing as npt

from daybreak.errors import UserError
from daybreak.files import canonical_json, read_json, sha256_bytes

END_OF_TEXT = "<|endoftext|>"
GPT2_PATTERN = r"'(?:[sdmt]|ll|ve|re)| ?\p{L}++| ?\p{N}++| ?[^\s\p{L}\p{N}]++|\s++$|\s+(?!\S)|\s"
CHARACTER_PATTERN = r"(?s:.)"
_LONG_BLANKS = re.compile(r"(\s{65536})")
_LONG_RUN = re.compile(r"\S{1000}|(\s{1000})\s+")
_LARGEST_BPE = 1_000_000
_FORMAT = 1


@final
@dataclass(frozen=True)
class Tokenizer:
    """A byte-pair encoding.

    Attributes:
        name: how it was asked for: `bytes`, `chars`, `gpt2` or `bpe:SIZE`. Not part of the identity.
        pattern: the regular expression that splits text before merging.
        ranks: the bytes of each token and its id; lower ids merge first.
        specials: names of special tokens and their ids; text never encodes to them, but to those that are spelled.
        spelled: special tokens that text encodes to where it spells their names, since that was asked for.
    """

    name: str
    pattern: str
    ranks: Mapping[bytes, int] = field(repr=False)
    specials: Mapping[str, int]
    spelled: tuple[str, ...] = ()

    @cached_property
    def vocab_size(self) -> int:
        return 1 + max(max(self.ranks.values()), max(self.specials.values()))

    @property
    def padded_vocab_size(self) -> int:
        """The next multiple of 64, which matrix units like; what model.vocab_size should be."""
        return -(-self.vocab_size // 64) * 64

    @property
    def end_of_text(self) -> int:
        return self.specials[END_OF_TEXT]

    @cached_property
    def identity(self) -> str:
        """SHA-256 of the canonical JSON of pattern, ranks and special tokens, and which of them text may spell."""
        return sha256_bytes(canonical_json(self._content()))

    @cached_property
    def token_bytes(self) -> npt.NDArray[np.int64]:
        """Number of bytes of text each id stands for, (vocab_size,).

        Special tokens stand for none, but those that text spells for their names.
        """
        lengths = np.zeros(self.vocab_size, dtype=np.int64)
        for token, rank in self.ranks.items():
            lengths[rank] = len(token)
        for name in self.spelled:
            lengths[self.specials[name]] = len(name.encode())
        return lengths

    def with_specials(self, names: Sequence[str]) -> "Tokenizer":
        """The same with special tokens above its ids, which text turns into where it spells their names.

        Raises:
            UserError: a name is empty, given twice, that of a token it has, or one begins with another.
        """
        for index, name in enumerate(names):
            if not name or any(sign.isspace() for sign in name):  # text may be cut at blanks
                raise UserError(f"{name!r} cannot be a special token; give it a name without blanks, as '<|user|>'")
            if name in self.specials or name in names[:index]:
                raise UserError(f"{name} is a special token of {self.name} already; give each once")
            if any(0xD800 <= ord(sign) < 0xE000 for sign in name):
                raise UserError(f"{name!r} cannot be a special token: it is not UTF-8")
            for other in (*self.specials, *names[:index]):  # which of both text spells, libraries do not agree on
                if name.startswith(other) or other.startswith(name):
                    raise UserError(f"of the special tokens {name} and {other} one begins with the other; rename one")
        if not names:
            return self
        added = {name: self.vocab_size + number for number, name in enumerate(names)}
        name = "+".join((self.name, *names))
        return Tokenizer(name, self.pattern, self.ranks, {**self.specials, **added}, (*self.spelled, *names))

    def extends(self, other: "Tokenizer") -> bool:
        """Whether it has all tokens of another, by the same ids, and only special tokens besides."""
        return self.identity == other.identity or (
            (self.pattern, dict(self.ranks)) == (other.pattern, dict(other.ranks))
            and other.specials.items() <= self.specials.items()
        )

    @property
    def base_name(self) -> str:
        """What it was called before special tokens were added to it."""
        return self.name.partition("+")[0]

    def encode(self, text: str) -> npt.NDArray[np.uint32]:
        """Token ids of `text`. Text that spells a special token is text, unless that is one of `spelled`.

        Raises:
            UserError: a character is not in the table (only `chars` can lack one).
        """
        if not self.covers_all_bytes:
            self._require_known_characters(text)
        try:
            specials = set(self.spelled)
            return np.asarray(self._encoding.encode_to_numpy(text, allowed_special=specials, disallowed_special=()))
        except ValueError:  # a run of about a million blanks overflows the regular expression's stack
            parts = [part for part in _LONG_BLANKS.split(text) if part]
            if len(parts) == 1:
                raise
            return np.concatenate([self.encode(part) for part in parts])

    def decode_bytes(self, ids: Iterable[int]) -> bytes:
        """Bytes of a sequence of ids, special tokens spelled out."""
        return b"".join(self._token_of[int(index)] for index in ids)

    def decode(self, ids: Iterable[int]) -> str:
        """Text of a sequence of ids; bytes that are not valid UTF-8 become U+FFFD."""
        return self.decode_bytes(ids).decode("utf-8", errors="replace")

    def to_json(self) -> dict[str, Any]:
        return {"format": _FORMAT, "name": self.name, "identity": self.identity, **self._content()}

    @classmethod
    def load(cls, path: Path) -> "Tokenizer":
        """Read a tokenizer file and verify its identity.

        Raises:
            UserError: missing, damaged, or of an unknown format.
        """
        value = read_json(path)
        try:
            if value["format"] != _FORMAT:
                raise UserError(
                    f"{path}: tokenizer format {value['format']} is not known here; use the version that wrote it"
                )
            ranks = {base64.b64decode(token): rank for token, rank in value["ranks"]}
            spelled = tuple(value.get("spelled", ()))
            tokenizer = cls(value["name"], value["pattern"], ranks, value["specials"], spelled)
            tokenizer.require_sense()
            intact = tokenizer.identity == value["identity"]
        except (KeyError, TypeError, ValueError) as error:
            raise UserError(f"{path} is not a tokenizer file ({error!r})") from None
        if not intact:
            raise UserError(f"{path} is damaged: its content does not match its identity")
        return tokenizer

    def require_sense(self) -> None:
        """What tiktoken takes for granted, some of which would end the process.

        Raises:
            ValueError, TypeError: says what is wrong.
        """
        if not isinstance(self.specials, dict):
            raise TypeError("its special tokens are no table")
        ids = sorted([*self.ranks.values(), *self.specials.values()])
        if any(type(each) is not int for each in ids) or ids != list(range(len(ids))):
            raise ValueError("its ids are not 0, 1, 2 and so on, each once")
        if END_OF_TEXT not in self.specials or not all(type(name) is str and name for name in self.specials):
            raise ValueError(f"its special tokens are not {END_OF_TEXT} and other names")
        if not set(self.spelled) <= self.specials.keys():
            raise ValueError("what text may spell is no special token of it")
        if not self.ranks or any(not token for token in self.ranks):
            raise ValueError("it has no tokens, or an empty one")
        if type(self.name) is not str or type(self.pattern) is not str or not self.pattern:
            raise ValueError("its name or its pattern is no text")
        if not self.covers_all_bytes:
            _ = self._characters  # each is valid UTF-8
        _ = self._encoding  # the pattern is a regular expression

    def _content(self) -> dict[str, Any]:
        table = sorted((rank, base64.b64encode(token).decode("ascii")) for token, rank in self.ranks.items())
        return {
            "pattern": self.pattern,
            "ranks": [[token, rank] for rank, token in table],
            "specials": dict(self.specials),
            **({"spelled": list(self.spelled)} if self.spelled else {}),  # without any, identities are as they were
        }

    @cached_property
    def _encoding(self) -> Any:
        import tiktoken

        return tiktoken.Encoding(
            self.name,
            pat_str=self.pattern,
            mergeable_ranks=dict(self.ranks),
            special_tokens=dict(self.specials),
        )

    @cached_property
    def _token_of(self) -> dict[int, bytes]:
        return {rank: token for token, rank in self.ranks.items()} | {
            rank: name.encode() for name, rank in self.specials.items()
        }

    @cached_property
    def covers_all_bytes(self) -> bool:
        """Whether it has a token for each byte, and so for every text."""
        return all(bytes([value]) in self.ranks for value in range(256))

    @cached_property
    def _characters(self) -> frozenset[str]:
        return frozenset(token.decode() for token in self.ranks)

    def _require_known_characters(self, text: str) -> None:
        unknown = set(text) - self._characters
        if unknown and self.spelled:
            unknown = set(without(text, self.spelled)) - self._characters
        if unknown:
            shown = ", ".join(repr(character) for character in sorted(unknown)[:5])
            raise UserError(
                f"tokenizer {self.name} has no token for {shown}; "
                "it knows only the characters of the text it was made from"
            )


def without(text: str, names: Iterable[str]) -> str:
    """Text without what spells special tokens."""
    for name in names:
        text = text.replace(name, " ")
    return text


def byte_tokenizer() -> Tokenizer:
    """256 bytes and end-of-text."""
    return Tokenizer("bytes", GPT2_PATTERN, {bytes([value]): value for value in range(256)}, {END_OF_TEXT: 256})


def character_tokenizer(texts: Iterable[str]) -> Tokenizer:
    """The distinct characters of `texts`, in code point order, and end-of-text.

    Raises:
        UserError: there are more than 65,535 distinct characters, or none.
    """
    characters: set[str] = set()
    for text in texts:
        characters.update(text)
    if not characters:
        raise UserError("the sources hold no text, so there are no characters to make a tokenizer of")
    if len(characters) > 0xFFFF:
        raise UserError(f"{len(characters):,} distinct characters are too many for --tokenizer chars; use bpe:4096")
    ranks = {character.encode(): rank for rank, character in enumerate(sorted(characters))}
    return Tokenizer("chars", CHARACTER_PATTERN, ranks, {END_OF_TEXT: len(ranks)})


def gpt2_tokenizer() -> Tokenizer:
    """GPT-2's BPE; its ranks come from tiktoken's own cache, or are downloaded by tiktoken.

    Raises:
        UserError: the ranks are not cached and could not be downloaded.
    """
    import tiktoken

    try:
        encoding = tiktoken.get_encoding("gpt2")
    except (OSError, ValueError) as error:  # requests' errors are OSErrors; a wrong hash is a ValueError
        raise UserError(
            "GPT-2's BPE ranks are not on this machine and could not be downloaded "
            f"({type(error).__name__}). Connect once, or set TIKTOKEN_CACHE_DIR to a folder that holds "
            "tiktoken's cache of them; or use --tokenizer bpe:4096, which needs no download"
        ) from None
    return Tokenizer("gpt2", encoding._pat_str, encoding._mergeable_ranks, encoding._special_tokens)


def train_bpe(texts: Iterator[str], vocab_size: int) -> Tokenizer:
    """Train a byte-level BPE whose vocabulary, with end-of-text, has at most `vocab_size` ids.

    Fewer come out where the text has too few distinct pairs to merge.

    Runs of more than 1000 signs or blanks are cut for the learning, which takes quadratic time in their length.

    What is held are distinct words, not the text: 100 million characters of English took 0.38 GB at the peak, 300
    million 0.68 GB (32,768 ids). Text in which nearly all words are distinct and long takes more.

    Raises:
        UserError: `vocab_size` cannot hold the 256 bytes and end-of-text, or is over a million.
    """
    from tokenizers import Tokenizer as Trained
    from tokenizers import decoders, models, pre_tokenizers, trainers

    _bpe_size(f"bpe:{vocab_size}")
    trained = Trained(models.BPE())
    trained.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    trained.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size - 1,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    trained.train_from_iterator((_LONG_RUN.sub(_cut_run, text) for text in texts), trainer)
    byte_of = byte_of_printable()
    tokens = sorted(trained.get_vocab().items(), key=lambda item: item[1])
    ranks = {bytes(byte_of[character] for character in token): rank for token, rank in tokens}
    return Tokenizer(f"bpe:{vocab_size}", GPT2_PATTERN, ranks, {END_OF_TEXT: len(ranks)})


def _cut_run(run: re.Match[str]) -> str:
    return run[1] or f"{run[0]} "


def is_learned(name: str) -> bool:
    """Whether the tokenizer of this name is made from text.

    Raises:
        UserError: `bpe:SIZE` of a size that cannot be.
    """
    return name == "chars" or _bpe_size(name) is not None


def _bpe_size(name: str) -> int | None:
    """SIZE of `bpe:SIZE`; None for another name."""
    match = re.fullmatch(r"bpe:([0-9]{1,9})", name, flags=re.ASCII)
    if match is None:
        return None
    size = int(match[1])
    if size < 257:
        raise UserError(f"{name} is too small: 256 bytes and end-of-text need at least bpe:257")
    if size > _LARGEST_BPE:
        raise UserError(f"{name} is too large: the most is bpe:{_LARGEST_BPE}")
    return size


def make_tokenizer(name: str, texts: Iterator[str], specials: Sequence[str] = ()) -> Tokenizer:
    """The tokenizer called `name`, made from `texts` where it has to be.

    Args:
        name: `bytes`, `chars`, `gpt2`, `bpe:SIZE`, or the path of a tokenizer file, of a corpus or of a run.
        texts: the text to learn from; read only by `chars` and `bpe:SIZE`.
        specials: names of special tokens that it has besides, and that text may spell; nothing is learned of them.

    Raises:
        UserError: no such tokenizer, or it has such a token.
    """
    plain = (without(text, specials) for text in texts) if specials else texts
    return _without_specials(name, plain).with_specials(specials)


def _without_specials(name: str, texts: Iterator[str]) -> Tokenizer:
    if name == "bytes":
        return byte_tokenizer()
    if name == "chars":
        return character_tokenizer(texts)
    if name == "gpt2":
        return gpt2_tokenizer()
    size = _bpe_size(name)
    if size is not None:
        return train_bpe(texts, size)
    path = Path(name)
    if path.is_dir():
        path = path / "tokenizer.json"
    if path.is_file():
        return Tokenizer.load(path)
    raise UserError(f"unknown tokenizer {name!r}: use bytes, chars, gpt2, bpe:SIZE (as bpe:4096), or a path")


def byte_of_printable() -> dict[str, int]:
    """GPT-2's printable stand-in for each byte, reversed (openai/gpt-2, `bytes_to_unicode`)."""
    printable = [
        *range(ord("!"), ord("~") + 1),
        *range(ord("¡"), ord("¬") + 1),
        *range(ord("®"), ord("ÿ") + 1),
    ]
    others = [value for value in range(256) if value not in printable]
    return {chr(value): value for value in printable} | {chr(256 + i): value for i, value in enumerate(others)}
