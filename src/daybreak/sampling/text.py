"""Text that goes on."""

import codecs
from collections.abc import Callable
from dataclasses import dataclass
from typing import final

from daybreak.data.tokenizer import Tokenizer
from daybreak.model.gpt import GPT
from daybreak.sampling.generate import generate
from daybreak.sampling.settings import SamplingConfig


@final
@dataclass(frozen=True)
class Continuation:
    """A prompt and what followed; `ended` says that the model ended the text itself."""

    prompt: str
    completion: str
    ended: bool

    @property
    def text(self) -> str:
        return self.prompt + self.completion


def continue_text(
    model: GPT,
    tokenizer: Tokenizer,
    prompt: str,
    *,
    tokens: int,
    count: int = 1,
    sampling: SamplingConfig,
    stream: Callable[[str], None] | None = None,
) -> list[Continuation]:
    """Continue a text, from the beginning of a document.

    Args:
        stream: given each new bit of the first continuation as it is made.
    """
    prompt = prompt.encode("utf-8", "surrogatepass").decode("utf-8", "replace")
    ids = [tokenizer.end_of_text, *tokenizer.encode(prompt).tolist()]
    decoders = [codecs.getincrementaldecoder("utf-8")(errors="replace") for _ in range(count)]
    texts, ended = [""] * count, [False] * count
    steps = generate(model, ids, tokens=tokens, count=count, vocab_size=tokenizer.vocab_size, sampling=sampling)
    for chosen_B in steps:
        for row, token in enumerate(chosen_B.tolist()):
            ended[row] = ended[row] or token == tokenizer.end_of_text
            if ended[row]:
                continue
            bit = decoders[row].decode(tokenizer.decode_bytes([token]))
            texts[row] += bit
            if stream is not None and row == 0:
                stream(bit)
        if all(ended):
            break
    for row, decoder in enumerate(decoders):  # a text may break off within a character
        bit = decoder.decode(b"", final=True)
        texts[row] += bit
        if stream is not None and row == 0 and bit:
            stream(bit)
    return [Continuation(prompt, text, end) for text, end in zip(texts, ended, strict=True)]
