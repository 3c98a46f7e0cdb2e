"""What a corpus holds, for people: what went in and came out, how long, which tokens, and what looks wrong.

Counts are exact. The rest is measured on a sample that is bounded and evenly spread, so that a corpus of any size takes
seconds and constant memory. Hashes are not checked here; `daybreak verify` does.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, final

import numpy as np

from daybreak.data.degenerate import look_degenerate
from daybreak.data.document_starts import DocumentStarts, Lengths, measure_lengths, spread
from daybreak.data.hashing import splitmix64
from daybreak.data.shards import SPLITS, Corpus, Split, SplitName, TokenStream
from daybreak.data.token_sample import TokenSample, read_sample
from daybreak.data.tokenizer import Tokenizer
from daybreak.data.tokenizer_report import TokenizerReport, report_on_tokenizer
from daybreak.errors import UserError
from daybreak.files import file_problem, read_json, read_sealed

_COMMONEST = 20
_EXCERPT = 100  # tokens
_DECODED = 1 << 20  # tokens in which U+FFFD is looked for
_AT_ONCE = 1 << 16
_REPLACEMENT = "\ufffd".encode()


@final
@dataclass(frozen=True)
class Source:
    """What one source gave; None where the corpus does not say."""

    name: str
    documents: int | None
    bytes: int | None


@final
@dataclass(frozen=True)
class Counts:
    """Of a whole split; `bytes` are those of its text."""

    tokens: int
    documents: int
    bytes: int
    bytes_per_token: float


@final
@dataclass(frozen=True)
class CommonToken:
    """An id, the bytes it stands for, and its share of all tokens."""

    id: int
    content: bytes
    share: float


@final
@dataclass(frozen=True)
class Excerpt:
    """Tokens [first, first + tokens) of a split as text."""

    first: int
    tokens: int
    text: str


@final
@dataclass(frozen=True)
class Inspection:
    """A corpus, looked into.

    Attributes:
        split: the one that lengths, tokens and excerpts are of.
        dropped: documents by reason; None where the corpus does not say.
        sampled: tokens that were counted.
        entropy: of one token of text by itself, in bits.
        replaced: share of U+FFFD among the characters.
        repeated: share of runs of 32 tokens that had come before.
        warnings: what looks wrong; empty for text as it should be.
    """

    split: SplitName
    sources: tuple[Source, ...]
    dropped: Mapping[str, int] | None
    counts: Mapping[str, Counts]
    lengths: Lengths | None
    sampled: int
    distinct: int
    end_of_text: float
    entropy: float
    replaced: float
    repeated: float
    commonest: tuple[CommonToken, ...]
    tokenizer: TokenizerReport
    excerpts: tuple[Excerpt, ...]
    warnings: tuple[str, ...]


def inspect_corpus(corpus: Corpus, *, split: SplitName = "train", excerpts: int = 3, seed: int = 0) -> Inspection:
    """Look into a corpus.

    Args:
        excerpts: pieces of text to show, at places that `seed` chooses.

    Raises:
        UserError: a file is missing or of another size, or holds what it cannot.
    """
    require_sizes(corpus)
    sources, dropped = _went_in(corpus)
    streams = {name: corpus.stream(name) for name in SPLITS}
    samples = {name: read_sample(stream, corpus.tokenizer) for name, stream in streams.items()}
    sample, stream = samples[split], streams[split]
    report = report_on_tokenizer(corpus.tokenizer, samples["train"], samples["validation"], streams["train"])
    lengths = measure_lengths(DocumentStarts(corpus, split))
    replaced = _replaced(corpus.tokenizer, stream)
    return Inspection(
        split=split,
        sources=sources,
        dropped=dropped,
        counts={name: _counts(corpus.split(name)) for name in SPLITS},
        lengths=lengths,
        sampled=sample.tokens,
        distinct=int(np.count_nonzero(sample.text_counts)),
        end_of_text=int(sample.counts[sample.end_of_text]) / max(1, sample.tokens),
        entropy=sample.entropy,
        replaced=replaced,
        repeated=sample.repeated / max(1, sample.windows),
        commonest=_commonest(corpus.tokenizer, sample),
        tokenizer=report,
        excerpts=tuple(_at_random(corpus.tokenizer, stream, excerpts, seed)),
        warnings=tuple(look_degenerate(corpus.tokenizer, sample, report, lengths, replaced)),
    )


def window(corpus: Corpus, number: int, *, size: int, split: SplitName = "train") -> Excerpt:
    """Window `number` of `size` tokens, counted from 0; the last may be shorter.

    Raises:
        UserError: there is no such window, or a file is missing or of another size.
    """
    require_sizes(corpus)
    stream = corpus.stream(split)
    windows = -(-len(stream) // size)
    if not 0 <= number < windows:
        raise UserError(
            f"{corpus.path} has {windows:,} windows of {size:,} tokens in {split}, numbered from 0: no {number:,}"
        )
    return _excerpt(corpus.tokenizer, stream, number * size, min(len(stream), (number + 1) * size))


def document(corpus: Corpus, number: int, *, split: SplitName = "train") -> Excerpt:
    """Document `number`, counted from 0, with its end-of-text.

    Raises:
        UserError: there is no such document, or a file is missing or of another size.
    """
    require_sizes(corpus)
    starts = DocumentStarts(corpus, split)
    if not 0 <= number < len(starts):
        raise UserError(f"{corpus.path} has {len(starts):,} documents in {split}, numbered from 0: no {number:,}")
    first, stop = (int(place) for place in starts.read(number, number + 1))
    return _excerpt(corpus.tokenizer, corpus.stream(split), first, stop)


def describe(corpus: Corpus) -> str:
    """How much a corpus holds, in three lines."""
    lines = [f"{corpus.path}: tokenizer {corpus.tokenizer.name}, {corpus.tokenizer.vocab_size:,} ids"]
    for name in SPLITS:
        counts = _counts(corpus.split(name))
        unit = "document " if counts.documents == 1 else "documents"
        lines.append(
            f"  {name:<10} {counts.tokens:>14,} tokens {counts.documents:>10,} {unit} "
            f"{counts.bytes / 1e6:>11,.2f} MB of text {counts.bytes_per_token:>6.2f} bytes a token"
        )
    return "\n".join(lines)


def require_sizes(corpus: Corpus) -> None:
    """Raises UserError for the first file that is missing or not of the size that the manifest states."""
    for path, size, _ in corpus.files():
        found = path.stat().st_size if path.is_file() else None
        if found != size:
            raise UserError(
                f"{path} is {'missing' if found is None else 'damaged'}; daybreak verify {corpus.path} tells all"
            )


def _counts(split: Split) -> Counts:
    """A document has one end-of-text, which stands for no bytes."""
    return Counts(split.tokens, split.documents, split.bytes, split.bytes / max(1, split.tokens - split.documents))


def _went_in(corpus: Corpus) -> tuple[tuple[Source, ...], Mapping[str, int] | None]:
    """From the report of the preparation, which is trusted by its hash; without one only names are known."""
    path = corpus.path / "report.json"
    if corpus.report_sha256 is None:
        manifest = read_sealed(corpus.path / "manifest.json")
        return tuple(Source(name, None, None) for name in manifest["sources"]), None
    problem = file_problem(path, corpus.report_sha256)
    if problem is not None:
        raise UserError(problem)
    report: dict[str, Any] = read_json(path)
    try:
        sources = tuple(Source(each["name"], each["documents"], each["bytes"]) for each in report["sources"])
        return sources, {str(reason): int(documents) for reason, documents in report["dropped"].items()}
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise UserError(f"{path} is not a report of daybreak prepare ({error!r})") from None


def _commonest(tokenizer: Tokenizer, sample: TokenSample) -> tuple[CommonToken, ...]:
    order = np.argsort(-sample.counts, kind="stable")[:_COMMONEST]
    found = [(int(index), int(sample.counts[index])) for index in order if sample.counts[index]]
    return tuple(CommonToken(index, tokenizer.decode_bytes([index]), count / sample.tokens) for index, count in found)


def _replaced(tokenizer: Tokenizer, stream: TokenStream) -> float:
    characters = replaced = 0
    for first, stop in spread(len(stream), _DECODED, _AT_ONCE):
        content = tokenizer.decode_bytes(stream.read(first, stop))
        replaced += content.count(_REPLACEMENT)
        characters += int(np.count_nonzero(np.frombuffer(content, np.uint8) & 0xC0 != 0x80))
    return replaced / max(1, characters)


def _at_random(tokenizer: Tokenizer, stream: TokenStream, number: int, seed: int) -> list[Excerpt]:
    places = max(1, len(stream) - _EXCERPT + 1)
    firsts = (splitmix64(splitmix64(seed) ^ each) % places for each in range(number))
    return [_excerpt(tokenizer, stream, first, min(len(stream), first + _EXCERPT)) for first in firsts]


def _excerpt(tokenizer: Tokenizer, stream: TokenStream, first: int, stop: int) -> Excerpt:
    return Excerpt(first, stop - first, tokenizer.decode(stream.read(first, stop)))
