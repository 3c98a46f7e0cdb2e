"""Tokens as text that may be shown: whole characters, and nothing of a stop string."""

import codecs
from collections.abc import Sequence
from typing import final

from daybreak.data.tokenizer import Tokenizer
from daybreak.errors import UserError


@final
class Transcript:
    """The text of one continuation, as its tokens come.

    A stop string may begin in one token and end in a later one, and so may a character. What may be the beginning of
    either is held back until it is known. Of several stop strings the one that is complete first counts, of those the
    longest: the same, however the text falls into tokens.

    Attributes:
        stopped: a stop string has come; no text follows.

    Raises:
        UserError: a stop string is empty, or holds a character that the tokenizer lacks.
    """

    def __init__(self, tokenizer: Tokenizer, stops: Sequence[str] = ()) -> None:
        require_stops(tokenizer, stops)
        self.stopped = False
        self._tokenizer, self._stops = tokenizer, tuple(stops)
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        self._held = ""

    def add(self, token: int) -> str:
        """What may be shown now that this token has come."""
        return self._shown(self._decoder.decode(self._tokenizer.decode_bytes([token])))

    def finish(self) -> str:
        """What was held back, once no token follows; of a character that broke off, U+FFFD."""
        text = self._shown(self._decoder.decode(b"", final=True))
        return text if self.stopped else text + self._held

    def _shown(self, new: str) -> str:
        text = self._held + new
        complete = [(text.index(stop) + len(stop), text.index(stop)) for stop in self._stops if stop in text]
        if complete:
            self.stopped = True
            _, start = min(complete)
            return text[:start]
        held = max((_overlap(text, stop) for stop in self._stops), default=0)
        self._held = text[len(text) - held :]
        return text[: len(text) - held]


def require_stops(tokenizer: Tokenizer, stops: Sequence[str]) -> None:
    """Raises UserError if one is empty, or holds a character that the tokenizer lacks, so that it could never come."""
    if isinstance(stops, str):
        raise UserError(f"stop = {stops!r} is one text; write stop = [{stops!r}]")
    for stop in stops:
        if not stop:
            raise UserError("a stop string is empty: every text would end before it begins; leave it out")
        try:
            tokenizer.encode(stop)
        except UnicodeEncodeError:  # bytes of the command line that are no UTF-8
            raise UserError(f"the stop string {stop!r} is not UTF-8, so it can never come") from None


def _overlap(text: str, stop: str) -> int:
    """How many characters at the end of `text` may be the beginning of `stop`."""
    longest = min(len(text), len(stop) - 1)
    return next((length for length in range(longest, 0, -1) if text.endswith(stop[:length])), 0)
