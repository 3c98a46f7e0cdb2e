"""The tokens of a split, counted: all of them, or fifty million evenly spread, so that any corpus takes seconds."""

from dataclasses import dataclass
from typing import final

import numpy as np
import numpy.typing as npt

from daybreak.data.document_starts import spread
from daybreak.data.hashing import Words, splitmix64
from daybreak.data.shards import TokenStream
from daybreak.data.tokenizer import Tokenizer
from daybreak.errors import UserError

_SAMPLE = 50_000_000  # tokens
_AT_ONCE = 65_536
_WINDOW = 32  # tokens, of which long runs of two texts are alike only where one repeats the other


@final
@dataclass(frozen=True)
class TokenSample:
    """What one reading of a sample found.

    Attributes:
        counts: how often each id came, (vocab_size,).
        end_of_text: its id, which stands for no text.
        windows: runs of 32 tokens that were compared, counted from the beginnings of documents.
        repeated: those of them that had come before.
    """

    counts: npt.NDArray[np.int64]
    end_of_text: int
    windows: int
    repeated: int

    @property
    def tokens(self) -> int:
        return int(self.counts.sum())

    @property
    def text_tokens(self) -> int:
        """Tokens that are not end-of-text."""
        return self.tokens - int(self.counts[self.end_of_text])

    @property
    def text_counts(self) -> npt.NDArray[np.int64]:
        """`counts` without end-of-text."""
        counts = self.counts.copy()
        counts[self.end_of_text] = 0
        return counts

    @property
    def entropy(self) -> float:
        """Of one token of text by itself, in bits."""
        counts = self.text_counts
        shares = counts[counts > 0] / max(1, self.text_tokens)
        return float(-(shares * np.log2(shares)).sum()) + 0.0


def read_sample(stream: TokenStream, tokenizer: Tokenizer) -> TokenSample:
    """Count the tokens of a stream.

    Raises:
        UserError: an id is beyond the tokenizer's.
    """
    counts = np.zeros(tokenizer.vocab_size, dtype=np.int64)
    hashes: list[Words] = []
    for first, stop in spread(len(stream), _SAMPLE, _AT_ONCE):
        tokens = stream.read(first, stop)
        if int(tokens.max()) >= tokenizer.vocab_size:
            raise UserError(
                f"the corpus holds the id {int(tokens.max()):,}, but its tokenizer has only {tokenizer.vocab_size:,} "
                "ids; daybreak verify tells which file is damaged"
            )
        counts += np.bincount(tokens, minlength=tokenizer.vocab_size)
        hashes.append(_windows(tokens, tokenizer.end_of_text))
    windows = sum(map(len, hashes))
    distinct = len(np.unique(np.concatenate(hashes))) if windows else 0
    return TokenSample(counts, tokenizer.end_of_text, windows, windows - distinct)


def _windows(tokens: npt.NDArray[np.int64], end_of_text: int) -> Words:
    """A hash of each whole window, laid one behind the other from each end-of-text on.

    So a document that comes twice gives the same windows twice, wherever it lies.
    """
    places = np.arange(len(tokens))
    before = np.maximum.accumulate(np.where(tokens == end_of_text, places, -1))  # the last end-of-text so far
    offsets = places - before - 1
    starts = np.flatnonzero((offsets >= 0) & (offsets % _WINDOW == 0))
    starts = starts[starts + _WINDOW <= len(tokens)]
    starts = starts[before[starts + _WINDOW - 1] == before[starts]]
    rows = tokens[starts[:, None] + np.arange(_WINDOW)].astype(np.uint64)
    factors = splitmix64(np.arange(_WINDOW, dtype=np.uint64)) | np.uint64(1)
    hashes: Words = splitmix64((rows * factors).sum(axis=1, dtype=np.uint64))
    return hashes
