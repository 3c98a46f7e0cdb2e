"""Text that goes on: all at once, or piece by piece."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, final

import torch

from daybreak.data.tokenizer import Tokenizer
from daybreak.model.gpt import GPT
from daybreak.sampling.batch import Chosen
from daybreak.sampling.generate import generate, make_row
from daybreak.sampling.settings import SamplingConfig
from daybreak.sampling.transcript import Transcript

Ending = Literal["tokens", "stop", "end of text"]


@final
@dataclass(frozen=True)
class Piece:
    """One token of a continuation, and the text that may be shown since the one before.

    Attributes:
        text: whole characters, and nothing of a stop string; empty while what came is held back.
        token: its id.
        log_probability: of that token in nats, at temperature 1 and before any filter.
    """

    text: str
    token: int
    log_probability: float


@final
@dataclass(frozen=True)
class Continuation:
    """A prompt and what followed.

    Attributes:
        ending: why nothing more follows: all tokens were spent, a stop string came, or the model ended the text.
    """

    prompt: str
    pieces: tuple[Piece, ...]
    ending: Ending

    @property
    def completion(self) -> str:
        return "".join(piece.text for piece in self.pieces)

    @property
    def text(self) -> str:
        return self.prompt + self.completion

    @property
    def log_probability(self) -> float:
        """Of all its tokens, in nats, at temperature 1 and before any filter."""
        return math.fsum(piece.log_probability for piece in self.pieces)

    @property
    def ended(self) -> bool:
        """Whether the model ended the text itself."""
        return self.ending == "end of text"


@final
class _Draft:
    """A continuation while it is made."""

    def __init__(
        self, tokenizer: Tokenizer, prompt: str, index: int, tokens: int, sampling: SamplingConfig, stop: Sequence[str]
    ) -> None:
        self.prompt = as_text(prompt)
        ids = tokenizer.encode(self.prompt).tolist()
        mentioned = None
        if sampling.repetition_penalty != 1:
            mentioned = torch.zeros(tokenizer.vocab_size, dtype=torch.bool)
            mentioned[ids] = True
        begun = [tokenizer.end_of_text, *ids]
        self.row = make_row(begun, index, tokens=tokens, sampling=sampling, mentioned=mentioned)
        self.pieces: list[Piece] = []
        self.ending: Ending = "tokens"
        self._end_of_text = tokenizer.end_of_text
        self._transcript = Transcript(tokenizer, stop)

    def take(self, chosen: Chosen) -> Piece:
        """Go on by a token, which may be the last."""
        ended = chosen.token == self._end_of_text
        text = "" if ended else self._transcript.add(chosen.token)
        if (ended or self.row.left == 0) and not self._transcript.stopped:
            text += self._transcript.finish()
        if ended:
            self.ending, self.row.left = "end of text", 0
        elif self._transcript.stopped:
            self.ending, self.row.left = "stop", 0
        piece = Piece(text, chosen.token, chosen.log_probability)
        self.pieces.append(piece)
        return piece

    def finished(self) -> Continuation:
        return Continuation(self.prompt, tuple(self.pieces), self.ending)


def stream_text(
    model: GPT, tokenizer: Tokenizer, prompt: str, *, tokens: int, sampling: SamplingConfig, stop: Sequence[str] = ()
) -> Iterator[Piece]:
    """The first continuation that `continue_texts` makes of a prompt, token by token.

    Raises:
        UserError: as `continue_texts`, at once.
    """
    draft = _Draft(tokenizer, prompt, 0, tokens, sampling, stop)
    steps = generate(model, [draft.row], vocab_size=tokenizer.vocab_size, sampling=sampling)
    return (draft.take(chosen) for (chosen,) in steps)


def continue_texts(
    model: GPT,
    tokenizer: Tokenizer,
    prompts: Sequence[str],
    *,
    tokens: int,
    count: int = 1,
    sampling: SamplingConfig,
    stop: Sequence[str] = (),
    room: int | None = None,
    advance: Callable[[int], None] = lambda _: None,
) -> list[Continuation]:
    """Continue each text `count` times, from the beginning of a document.

    A continuation ends when its tokens are spent, a stop string has come, or the model has ended the text.

    Args:
        room: how many go on at once; as many as there is memory for, unless given. It changes no text.
        advance: told how many tokens were spent, those that an ended continuation leaves included.

    Returns:
        Those of the first prompt, then those of the second, and so on.

    Raises:
        UserError: a prompt or a stop string holds characters that the tokenizer lacks, or a stop string is empty.
    """
    drafts = [_Draft(tokenizer, prompt, index, tokens, sampling, stop) for prompt in prompts for index in range(count)]
    draft_of = {draft.row: draft for draft in drafts}
    rows = list(draft_of)
    for step in generate(model, rows, vocab_size=tokenizer.vocab_size, sampling=sampling, room=room):
        before = sum(chosen.row.left for chosen in step) + len(step)
        for chosen in step:
            draft_of[chosen.row].take(chosen)
        advance(before - sum(chosen.row.left for chosen in step))
    return [draft.finished() for draft in drafts]


def as_text(prompt: str) -> str:
    """What can be written as UTF-8; a lone surrogate becomes U+FFFD."""
    return prompt.encode("utf-8", "surrogatepass").decode("utf-8", "replace")
