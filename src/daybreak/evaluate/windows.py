"""What a benchmark asks of a model, cut into windows that fit its context: every token is scored exactly once."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import final


@final
@dataclass(frozen=True)
class Window:
    """Tokens of which the last few are scored, each from all before it.

    Attributes:
        tokens: at most one more than the context, since the last one is only predicted.
        scored: how many at the end; fewer than there are tokens.
    """

    tokens: tuple[int, ...]
    scored: int

    @property
    def inputs(self) -> tuple[int, ...]:
        """What the model reads."""
        return self.tokens[:-1]

    @property
    def first_scored(self) -> int:
        """The position among the inputs that predicts the first scored token."""
        return len(self.tokens) - self.scored - 1


def continuation_windows(context: Sequence[int], continuation: Sequence[int], length: int) -> list[Window]:
    """A continuation scored behind its context, of which only the end is kept where both do not fit.

    A continuation longer than `length` is scored in several windows, as a text is; an empty one in none.
    """
    if not continuation:
        return []
    if len(continuation) > length:
        return list(rolling_windows(continuation, context[-1], length))
    return [Window((*context, *continuation)[-(length + 1) :], len(continuation))]


def rolling_windows(tokens: Sequence[int], prefix: int, length: int) -> Iterator[Window]:
    """A whole text in windows of `length` inputs, as the language-model evaluation harness cuts it.

    The first begins with `prefix`, from which the text's first token is predicted. The last one is as long as the
    others, if the text is, but scores only what they left.
    """
    text = (prefix, *tokens)
    for start in range(0, len(tokens), length):
        end = min(start + length, len(tokens))
        yield Window(text[max(0, end - length) : end + 1], end - start)
