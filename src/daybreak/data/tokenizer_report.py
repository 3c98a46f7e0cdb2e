"""How well a tokenizer fits a corpus: on the text it was learned from, and on text that it never saw.

A BPE is learned from the training split alone, so the validation split is held out from it.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import final

import numpy as np
import numpy.typing as npt

from daybreak.data.document_starts import spread
from daybreak.data.shards import TokenStream
from daybreak.data.token_sample import TokenSample
from daybreak.data.tokenizer import Tokenizer

_DECODED = 1 << 16  # tokens that are decoded and encoded anew
_AT_ONCE = 1 << 12


@final
@dataclass(frozen=True)
class TokenizerReport:
    """A tokenizer at work.

    Attributes:
        merged: ids that stand for more than a byte or a character: those that were learned, or 0.
        unused: ids that come in neither split's sample; `unused_merged` are those of the merged.
        bytes_per_token: of the text of the training split; 0.0 where a split holds no text.
        held_out_bytes_per_token: the same of validation.
        fallback: share of tokens, among those of a BPE, that are single bytes beyond ASCII: of a text that the BPE does
            not know.
        agreement: share of places between tokens which are so again when the text is decoded and encoded anew: 1 for
            the tokenizer that made them.
    """

    name: str
    ids: int
    merged: int
    unused: int
    unused_merged: int
    bytes_per_token: float
    held_out_bytes_per_token: float
    fallback: float
    agreement: float


def report_on_tokenizer(
    tokenizer: Tokenizer, train: TokenSample, validation: TokenSample, stream: TokenStream
) -> TokenizerReport:
    """From samples of both splits, and from the training split's own text."""
    unused = (train.counts + validation.counts) == 0
    unused[tokenizer.end_of_text] = False
    merged = _merged(tokenizer)
    beyond_ascii = [rank for token, rank in tokenizer.ranks.items() if len(token) == 1 and token[0] >= 0x80]
    return TokenizerReport(
        name=tokenizer.name,
        ids=tokenizer.vocab_size,
        merged=len(merged),
        unused=int(unused.sum()),
        unused_merged=int(unused[merged].sum()),
        bytes_per_token=_bytes_per_token(tokenizer, train),
        held_out_bytes_per_token=_bytes_per_token(tokenizer, validation),
        fallback=int(train.counts[beyond_ascii].sum()) / max(1, train.text_tokens) if len(merged) else 0.0,
        agreement=_agreement(tokenizer, stream),
    )


def _merged(tokenizer: Tokenizer) -> npt.NDArray[np.int64]:
    """Ids of more than a byte where each byte has one, as in a BPE; those of `chars` stand for a character each."""
    if not all(bytes([value]) in tokenizer.ranks for value in range(256)):
        return np.empty(0, dtype=np.int64)
    return np.asarray([rank for token, rank in tokenizer.ranks.items() if len(token) > 1], dtype=np.int64)


def _bytes_per_token(tokenizer: Tokenizer, sample: TokenSample) -> float:
    return int(sample.counts @ tokenizer.token_bytes) / max(1, sample.text_tokens)


def _agreement(tokenizer: Tokenizer, stream: TokenStream) -> float:
    same = different = 0
    for tokens in _texts(tokenizer, stream):
        content = tokenizer.decode_bytes(tokens)
        begun = len(content) - len(content.lstrip(bytes(range(0x80, 0xC0))))  # the rest of a character that was cut
        text = content[begun:].decode("utf-8", errors="ignore")
        ours = set((np.cumsum(tokenizer.token_bytes[tokens]) - begun).tolist())
        anew = set(np.cumsum(tokenizer.token_bytes[tokenizer.encode(text)]).tolist())
        inside = range(1, len(text.encode()))
        ours, anew = ({place for place in places if place in inside} for places in (ours, anew))
        same += len(ours & anew)
        different += len(ours ^ anew)
    return same / (same + different) if same + different else 1.0


def _texts(tokenizer: Tokenizer, stream: TokenStream) -> Iterator[npt.NDArray[np.int64]]:
    """Pieces of the stream, here and there, that no special token interrupts."""
    specials = list(tokenizer.specials.values())
    for first, stop in spread(len(stream), _DECODED, _AT_ONCE):
        tokens = stream.read(first, stop)
        for piece in np.split(tokens, np.flatnonzero(np.isin(tokens, specials))):
            text = piece[~np.isin(piece, specials)]
            if len(text):
                yield text
