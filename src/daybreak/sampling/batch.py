"""Continuations that pass through the model together, whatever their lengths, and come and go as they begin and end.

Shape legend: B rows, T tokens, V vocabulary.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import NamedTuple, final

import torch
from torch import Tensor

from daybreak.model.cache import Cache
from daybreak.model.gpt import GPT, ModelConfig
from daybreak.model.shared_cache import SharedCache
from daybreak.sampling.choice import choose
from daybreak.sampling.settings import SamplingConfig

_TOKENS_READ_AT_ONCE = 8192
_MOST_ROWS = 64
_CACHE_BYTES = 2**30


@final
@dataclass(eq=False)
class Row:
    """A continuation on its way.

    Attributes:
        seen: ids that the model sees, the newest last; when there are `context` of them, the later half goes on.
        left: how many may still be made; whoever reads them may end the row by 0.
        generator: what it is drawn from.
        mentioned: which ids a repetition penalty is for, (V,); None without one.
    """

    seen: list[int]
    left: int
    generator: torch.Generator
    mentioned: Tensor | None = None


class Chosen(NamedTuple):
    """The next token of a row, and its log-probability in nats at temperature 1, before any filter."""

    row: Row
    token: int
    log_probability: float


@final
class Batch:
    """Rows that go on together.

    Args:
        longest: how many tokens of a row are ever seen at once.
        room: how many rows there may be.
        vocab_size: ids from here on are padding and are never chosen.
    """

    def __init__(self, model: GPT, sampling: SamplingConfig, *, longest: int, room: int, vocab_size: int) -> None:
        self.rows: list[Row] = []
        self.room = room
        self._model, self._sampling, self._vocab_size = model, sampling, vocab_size
        self._device = model.embedding.weight.device
        self._slack = _slack(longest)
        self._cache = SharedCache(model.config.layers, longest + self._slack, room)
        self._logits: list[Tensor] = []  # of the rows, (B, V) in parts

    def admit(self, rows: Sequence[Row]) -> None:
        """Let rows join, and the model read what they have seen; those that saw the same are read once."""
        in_order = sorted(rows, key=lambda row: (-len(row.seen), row.seen))
        for length, group in groupby(in_order, lambda row: len(row.seen)):
            alike = [list(same) for _, same in groupby(group, lambda row: row.seen)]
            at_once = max(1, _TOKENS_READ_AT_ONCE // length)
            for start in range(0, len(alike), at_once):
                self._logits.append(self._read(alike[start : start + at_once]))

    def choose(self) -> list[Chosen]:
        """The next token of each row, which takes it in."""
        logits_BV = self._logits[0] if len(self._logits) == 1 else torch.cat(self._logits)
        mentioned = [row.mentioned for row in self.rows if row.mentioned is not None]
        tokens, log_probabilities = choose(
            logits_BV,
            self._sampling,
            [row.generator for row in self.rows],
            torch.stack(mentioned).to(logits_BV.device) if mentioned else None,
        )
        chosen = list(map(Chosen, self.rows, tokens, log_probabilities))
        for row, token, _ in chosen:
            row.left -= 1
            if row.mentioned is not None:
                row.mentioned[token] = True
        return chosen

    def advance(self, chosen: Sequence[Chosen]) -> None:
        """Let go of rows that have ended, and look at the tokens of the others."""
        full: list[Row] = []
        context = self._model.config.context
        tokens = [token for _, token, _ in chosen]
        for index in reversed(range(len(self.rows))):
            row = self.rows[index]
            going_on, is_full = row.left > 0, len(row.seen) == context
            if going_on and is_full:
                row.seen = row.seen[context - context // 2 :]
                full.append(row)
            if going_on:
                row.seen.append(tokens[index])
            if is_full or not going_on:
                self._drop(index)
                tokens[index] = tokens[-1]  # as its row does
                tokens.pop()
        self._logits = []
        if self.rows:
            self._give_up_columns()
            self._logits.append(self._next_logits(torch.tensor(tokens, device=self._device)[:, None], self._cache))
        self.admit(full)

    def _read(self, alike: Sequence[Sequence[Row]]) -> Tensor:
        """Logits of rows that have seen equally many tokens, (B, V); of each group all saw the same."""
        tokens_BT = torch.tensor([same[0].seen for same in alike], device=self._device)
        repeats = torch.tensor([len(same) for same in alike], device=self._device)
        chosen = torch.arange(len(alike), device=self._device).repeat_interleave(repeats)
        cache = Cache(self._model.config.layers, tokens_BT.shape[1])
        logits_BV = self._next_logits(tokens_BT, cache)
        self._cache.append(cache, chosen)
        self.rows += [row for same in alike for row in same]
        return logits_BV.index_select(0, chosen)

    def _next_logits(self, tokens_BT: Tensor, cache: Cache | SharedCache) -> Tensor:
        logits_BV = self._model.next_logits(tokens_BT, cache)[:, : self._vocab_size]
        return logits_BV.cpu() if self._device.type == "mps" else logits_BV  # which has no float64 to draw with

    def _drop(self, index: int) -> None:
        """Let go of a row; the last one takes its place."""
        self._cache.drop(index)
        self.rows[index] = self.rows[-1]
        self.rows.pop()

    def _give_up_columns(self) -> None:
        """Move all to the left, where enough columns are in front of every row."""
        longest = max(len(row.seen) for row in self.rows) - 1  # the newest token is not in the cache yet
        if self._cache.length - longest >= self._slack:
            self._cache.shift(longest - self._cache.length)


def room_for(config: ModelConfig, longest: int) -> int:
    """How many rows that see `longest` tokens go on at once: what a gigabyte of keys and values holds, at most 64."""
    row_bytes = 2 * 4 * config.layers * config.value_width * (longest + _slack(longest))
    return max(1, min(_MOST_ROWS, _CACHE_BYTES // row_bytes))


def _slack(longest: int) -> int:
    """Columns in front of every row at which they are given up: few of them cost little, and moving all costs more."""
    return max(16, longest // 4)
