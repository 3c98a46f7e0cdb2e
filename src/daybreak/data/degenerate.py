"""Does a corpus look like text that a model can learn from? Warnings, each with its figure and what to do."""

from collections.abc import Iterator

import numpy as np

from daybreak.data.document_starts import Lengths
from daybreak.data.token_sample import TokenSample
from daybreak.data.tokenizer import Tokenizer
from daybreak.data.tokenizer_report import TokenizerReport

# A comma or "the" makes one in twenty tokens of a BPE; a blank one in six characters of prose, one in three of code.
_COMMON = 0.2
_COMMON_CHARACTER = 0.4
# Digits, or the letters of DNA, and not much else.
_FEW_IDS = 10
# Of bits: English has about 4.2 a letter and 9 to 10 a token of GPT-2's BPE; a dozen words at random have 3.6.
_LOW_ENTROPY = 3.0
# Of all characters: decoding with the wrong encoding makes one in ten or more; the web at large has one in 100,000.
_REPLACED = 0.001
# Of a BPE's tokens: GPT-2's gives English one in a thousand, Chinese one in three.
_FALLBACK = 0.05
# Of a BPE of a thousand merges or more, which has 2.5 or more in text of its own kind.
_SHORT_TOKENS = 1.5
_ENOUGH_MERGES = 1000
# Rows of the embedding that are never trained, and half of the softmax for nothing.
_UNUSED = 0.5
# Held-out text of the same kind compresses as well as the training text, to a few percent.
_HELD_OUT = 0.8
# The tokenizer that made the tokens agrees but at the ends of the pieces that are looked at.
_AGREEMENT = 0.98
# Such a document has nothing to predict.
_TINY = 0.05
# Of windows of 32 tokens: licences and navigation bars make a few in a hundred.
_REPEATED = 0.1
_ENOUGH_WINDOWS = 100


def look_degenerate(
    tokenizer: Tokenizer, sample: TokenSample, report: TokenizerReport, lengths: Lengths | None, replaced: float
) -> Iterator[str]:
    """What a person should know before training on it; nothing for text as it should be.

    Args:
        replaced: share of U+FFFD among the characters.
    """
    if not sample.text_tokens:
        yield "there is no text: all tokens are end-of-text"
        return
    yield from _one_sided(tokenizer, sample, report)
    yield from _ill_encoded(report, replaced)
    if lengths is not None and lengths.tiny > _TINY:
        yield (
            f"{lengths.tiny:.0%} of the documents have one token or none: are the documents lines, where they should "
            "be texts?"
        )
    if sample.windows >= _ENOUGH_WINDOWS and sample.repeated > _REPEATED * sample.windows:
        share = sample.repeated / sample.windows
        yield f"{share:.0%} of all runs of 32 tokens have come before: remove duplicates before training"


def _one_sided(tokenizer: Tokenizer, sample: TokenSample, report: TokenizerReport) -> Iterator[str]:
    counts = sample.text_counts
    highest = int(counts.argmax())
    share = int(counts[highest]) / sample.text_tokens
    if share > (_COMMON if report.merged else _COMMON_CHARACTER):
        token = visible(tokenizer.decode_bytes([highest]))
        yield f"{share:.0%} of the tokens are one, {token}: is the text padded, or a table?"
    distinct = int(np.count_nonzero(counts))
    if distinct < _FEW_IDS:
        yield f"only {distinct} distinct tokens come at all: is this text?"
    elif sample.entropy < _LOW_ENTROPY:
        yield (
            f"a token has only {sample.entropy:.1f} bits of entropy, where text has 4 and more: is it a few words, "
            "again and again?"
        )


def _ill_encoded(report: TokenizerReport, replaced: float) -> Iterator[str]:
    if replaced > _REPLACED:
        yield (
            f"{replaced:.1%} of the characters are U+FFFD, which stands for what could not be decoded: convert the "
            "text to UTF-8 and prepare it again"
        )
    if report.fallback > _FALLBACK:
        yield (
            f"{report.fallback:.0%} of the tokens are single bytes beyond ASCII: the tokenizer does not know this "
            "language; learn one on this text, as bpe:32768"
        )
    if report.merged >= _ENOUGH_MERGES and 0 < report.bytes_per_token < _SHORT_TOKENS:
        yield f"a token stands for {report.bytes_per_token:.2f} bytes only: the tokenizer does not fit this text"
    if report.unused_merged > _UNUSED * report.merged:
        share = report.unused_merged / report.merged
        yield f"{share:.0%} of the tokenizer's merged ids never come: a smaller vocabulary would do, as bpe:4096"
    if 0 < report.held_out_bytes_per_token < _HELD_OUT * report.bytes_per_token:
        yield (
            f"a token stands for {report.bytes_per_token:.2f} bytes of training text, but for "
            f"{report.held_out_bytes_per_token:.2f} of validation: they are of different kinds"
        )
    if report.agreement < _AGREEMENT:
        yield (
            f"decoded and encoded anew, {1 - report.agreement:.0%} of the tokens are others: another tokenizer than "
            f"{report.name} made them"
        )


def visible(content: bytes) -> str:
    """The bytes of a token in quotes, blanks and all: as text where they are UTF-8, else as bytes."""
    try:
        return repr(content.decode())
    except UnicodeDecodeError:
        return repr(content)
