"""One token after another, with a cache, one position at a time.

Shape legend: B continuations, T tokens, V vocabulary.
"""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from daybreak.data.hashing import splitmix64
from daybreak.model.cache import Cache
from daybreak.model.gpt import GPT
from daybreak.sampling.choice import choose
from daybreak.sampling.settings import SamplingConfig


@torch.no_grad()
def generate(
    model: GPT,
    prompt: Sequence[int],
    *,
    tokens: int,
    count: int = 1,
    vocab_size: int,
    sampling: SamplingConfig,
    cached: bool = True,
) -> Iterator[tuple[Tensor, Tensor]]:
    """Continue a prompt `count` times at once.

    When the model's context is full, what it sees is cut to the later half, and it goes on from there.

    Args:
        prompt: ids; its last `context` are seen.
        tokens: how many to make.
        vocab_size: ids from here on are padding and are never chosen.
        cached: keep keys and values; without, every position is computed anew, with the same outcome.

    Yields:
        The next id of each continuation and its log-probability before any filter, (count,) each, on the CPU.
    """
    device, context = model.embedding.weight.device, model.config.context
    seeds = [splitmix64(splitmix64(sampling.seed) ^ row) >> 1 for row in range(count)]
    generators = [torch.Generator().manual_seed(seed) for seed in seeds]
    seen_BT = torch.tensor([list(prompt)[-context:]] * count, device=device)
    cache = Cache(model.config.layers, context) if cached else None
    new_BT = seen_BT
    for _ in range(tokens):
        logits_BV = model.next_logits(new_BT if cached else seen_BT, cache)[:, :vocab_size].cpu().float()
        chosen_B = choose(logits_BV, sampling, generators)
        yield chosen_B, logits_BV.gather(1, chosen_B[:, None])[:, 0] - logits_BV.logsumexp(1)
        if seen_BT.shape[1] == context:
            seen_BT = seen_BT[:, context - context // 2 :]
            cache = Cache(model.config.layers, context) if cached else None
        new_BT = chosen_B.to(device)[:, None]
        seen_BT = torch.cat((seen_BT, new_BT), dim=1)
        if cache is not None and cache.length == 0:
            new_BT = seen_BT
