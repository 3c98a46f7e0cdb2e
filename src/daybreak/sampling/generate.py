"""Token after token, of one continuation or of many."""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from daybreak.data.hashing import splitmix64
from daybreak.model.gpt import GPT
from daybreak.sampling.batch import Batch, Chosen, Row, room_for
from daybreak.sampling.settings import SamplingConfig


def make_row(
    prompt: Sequence[int],
    index: int = 0,
    *,
    tokens: int,
    sampling: SamplingConfig,
    mentioned: Tensor | None = None,
) -> Row:
    """The `index`-th continuation of a prompt, which is drawn from (seed, index) whatever else is made.

    Args:
        prompt: ids.
        tokens: how many to make at most.
        mentioned: which ids a repetition penalty is for, (V,) on the CPU; that of tokens to come is noted in a copy.
    """
    seed = splitmix64(splitmix64(sampling.seed) ^ index) >> 1
    generator = torch.Generator().manual_seed(seed)
    return Row(list(prompt), tokens, generator, None if mentioned is None else mentioned.clone())


@torch.no_grad()
def generate(
    model: GPT, rows: Sequence[Row], *, vocab_size: int, sampling: SamplingConfig, room: int | None = None
) -> Iterator[list[Chosen]]:
    """Continue rows, many at once, and others as soon as those have ended; what becomes of one does not hang on others.

    Of a prompt the last `context` tokens are seen. When a row's context is full, what the model sees is cut to the
    later half, and it goes on from there.

    Args:
        vocab_size: ids from here on are padding and are never chosen.
        room: how many go on at once; as many as their cache is small enough for, unless given.

    Yields:
        The next token of each row that is under way. A row whose `left` is then set to 0 has ended.
    """
    context = model.config.context
    rows = [each for each in rows if each.left > 0]
    for each in rows:
        each.seen = each.seen[-context:]
    longest = max((min(context, len(each.seen) + each.left) for each in rows), default=0)
    waiting = sorted(rows, key=lambda each: len(each.seen))  # the longest begin: the others find room beside them
    batch = Batch(
        model,
        sampling,
        longest=longest,
        room=min(len(rows), room or room_for(model.config, longest)),
        vocab_size=vocab_size,
    )
    while waiting or batch.rows:
        begun = waiting[max(0, len(waiting) - batch.room + len(batch.rows)) :]
        if begun:
            del waiting[-len(begun) :]
            batch.admit(begun)
        chosen = batch.choose()
        yield chosen
        batch.advance(chosen)
