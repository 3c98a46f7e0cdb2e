"""Text that goes on: all at once, or piece by piece."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, final

from torch import Tensor

from daybreak.data.tokenizer import Tokenizer
from daybreak.model.gpt import GPT
from daybreak.sampling.generate import generate
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
    def ended(self) -> bool:
        """Whether the model ended the text itself."""
        return self.ending == "end of text"


def stream_text(
    model: GPT,
    tokenizer: Tokenizer,
    prompt: str,
    *,
    tokens: int,
    sampling: SamplingConfig,
    stop: Sequence[str] = (),
) -> Iterator[Piece]:
    """Continue a text from the beginning of a document, token by token.

    Ends once the tokens are spent, a stop string has come, or the model has ended the text.

    Raises:
        UserError: the prompt or a stop string holds characters that the tokenizer lacks.
    """
    transcript, ids = Transcript(tokenizer, stop), _ids(tokenizer, prompt)
    steps = generate(model, ids, tokens=tokens, vocab_size=tokenizer.vocab_size, sampling=sampling)
    return _pieces(tokenizer, transcript, steps, tokens)


def _pieces(
    tokenizer: Tokenizer, transcript: Transcript, steps: Iterator[tuple[Tensor, Tensor]], tokens: int
) -> Iterator[Piece]:
    for step, (chosen_B, log_probabilities_B) in enumerate(steps, start=1):
        token, log_probability = int(chosen_B[0]), float(log_probabilities_B[0])
        ended = token == tokenizer.end_of_text
        text = "" if ended else transcript.add(token)
        if not transcript.stopped and (ended or step == tokens):
            text += transcript.finish()
        yield Piece(text, token, log_probability)
        if ended or transcript.stopped:
            return


def continue_text(
    model: GPT,
    tokenizer: Tokenizer,
    prompt: str,
    *,
    tokens: int,
    count: int = 1,
    sampling: SamplingConfig,
    stop: Sequence[str] = (),
) -> list[Continuation]:
    """Continue a text `count` times, from the beginning of a document.

    Raises:
        UserError: as `stream_text`.
    """
    prompt = as_text(prompt)
    transcripts, ids = [Transcript(tokenizer, stop) for _ in range(count)], _ids(tokenizer, prompt)
    pieces: list[list[Piece]] = [[] for _ in range(count)]
    endings: list[Ending | None] = [None] * count
    steps = generate(model, ids, tokens=tokens, count=count, vocab_size=tokenizer.vocab_size, sampling=sampling)
    for step, (chosen_B, log_probabilities_B) in enumerate(steps, start=1):
        for row, (token, log_probability) in enumerate(
            zip(chosen_B.tolist(), log_probabilities_B.tolist(), strict=True)
        ):
            if endings[row] is not None:
                continue
            ended = token == tokenizer.end_of_text
            text = "" if ended else transcripts[row].add(token)
            if transcripts[row].stopped:
                endings[row] = "stop"
            elif ended or step == tokens:
                text += transcripts[row].finish()
                endings[row] = "end of text" if ended else "tokens"
            pieces[row].append(Piece(text, token, log_probability))
        if all(endings):
            break
    return [
        Continuation(prompt, tuple(made), ending)
        for made, ending in zip(pieces, endings, strict=True)
        if ending is not None
    ]


def _ids(tokenizer: Tokenizer, prompt: str) -> list[int]:
    return [tokenizer.end_of_text, *tokenizer.encode(as_text(prompt)).tolist()]


def as_text(prompt: str) -> str:
    """What can be written as UTF-8; a lone surrogate becomes U+FFFD."""
    return prompt.encode("utf-8", "surrogatepass").decode("utf-8", "replace")
