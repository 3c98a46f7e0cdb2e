"""Tables read by token: what they add costs memory and a lookup, but next to no FLOPs.

Shape legend: B batch, T time, D dim, L layers with a table, E width of a layer's values, P tokens in front.
"""

from collections.abc import Iterator
from typing import Literal, Self, final

import torch
from pydantic import model_validator
from torch import Tensor, nn

from daybreak.configuration import Configuration, Size
from daybreak.model.dropout import mix
from daybreak.model.initialise import normal_, table

_LONGEST_NGRAM = 16


@final
class LookupConfig(Configuration):
    """Tables besides the embedding.

    Attributes:
        ngrams: lengths of the token sequences that have an embedding of their own, added to the token's: 2 for pairs
            (as modded-nanogpt's bigram embedding).
        rows: of the table of each length, which sequences share by a hash, unless it holds them all.
        values: which layers mix an embedding of the token into their attention values (value embeddings; after Zhou
            et al. 2024, "Value residual learning", and modded-nanogpt): the last, and from there every other, or all.
    """

    ngrams: tuple[int, ...] = ()
    rows: Size = 16_384
    values: Literal["none", "alternate", "all"] = "none"

    @model_validator(mode="after")
    def _lengths_differ(self) -> Self:
        lengths = set(self.ngrams)
        if not lengths <= set(range(2, _LONGEST_NGRAM + 1)) or len(lengths) < len(self.ngrams):
            raise ValueError(
                f"model.lookup.ngrams = {list(self.ngrams)} must be different lengths from 2 to {_LONGEST_NGRAM}"
            )
        return self

    def value_layers(self, layers: int) -> list[int]:
        """The layers, counted from 0, that have a table of values."""
        every = {"none": 0, "alternate": 2, "all": 1}[self.values]
        return [layer for layer in range(layers) if every and (layers - 1 - layer) % every == 0]


@final
class NgramEmbedding(nn.Module):
    """The sum of the embeddings of the last n tokens, one for each length n: (B, T) to (B, T, D).

    A table that has a row for every sequence gives each its own; a smaller one is shared by a hash of them.
    """

    def __init__(self, lengths: tuple[int, ...], rows: int, vocab_size: int, dim: int) -> None:
        super().__init__()
        self.lengths, self.words = lengths, vocab_size + 1  # the last one stands in front of the first token
        self.tables = nn.ModuleList(table(min(rows, self.words**length), dim) for length in lengths)

    @property
    def reach(self) -> int:
        """How many tokens in front of a token matter."""
        return max(self.lengths) - 1

    @torch.no_grad()
    def initialise(self, seed: int, name: str, std: float) -> None:
        for length, ngrams in self._tables():
            normal_(ngrams.weight, std, seed=seed, name=f"{name}.{length}.weight")

    def forward(self, tokens_BT: Tensor, before_BP: Tensor | None = None, places_BT: Tensor | None = None) -> Tensor:
        """Embed tokens; `before_BP` stand in front of them, as many as are known.

        Args:
            places_BT: of tokens in their documents, none of which then looks back into the one before.
        """
        behind = torch.cat((self._start(tokens_BT, before_BP), tokens_BT), dim=1)
        x_BTD: Tensor | None = None
        for length, ngrams in self._tables():
            added_BTD = ngrams(self.rows(behind, length, tokens_BT.shape[1], ngrams.num_embeddings, places_BT))
            x_BTD = added_BTD if x_BTD is None else x_BTD + added_BTD
        assert x_BTD is not None
        return x_BTD

    def rows(self, tokens: Tensor, length: int, count: int, table_rows: int, places_BT: Tensor | None = None) -> Tensor:
        """Where the sequences of `length` that end at the last `count` tokens lie in a table, (B, count)."""
        end = tokens.shape[1]
        shared = self.words**length > table_rows
        row = torch.zeros_like(tokens[:, end - count :])
        for back in reversed(range(length)):
            word = tokens[:, end - count - back : end - back]
            if places_BT is not None:
                word = torch.where(places_BT >= back, word, self.words - 1)
            row = row * self.words + word
            if shared:
                row = mix(row & 0xFFFFFFFF)
        return row % table_rows

    def _tables(self) -> Iterator[tuple[int, nn.Embedding]]:
        yield from zip(self.lengths, self.tables, strict=True)

    def _start(self, tokens_BT: Tensor, before_BP: Tensor | None) -> Tensor:
        """`reach` tokens to stand in front: those before, and where there are none the one that says so."""
        known = 0 if before_BP is None else min(self.reach, before_BP.shape[1])
        start = tokens_BT.new_full((len(tokens_BT), self.reach - known), self.words - 1)
        return start if before_BP is None or not known else torch.cat((start, before_BP[:, -known:]), dim=1)


@final
class ValueEmbeddings(nn.Module):
    """A table for each of some layers: tokens (B, T) to what its attention adds to its values, (B, T, E)."""

    def __init__(self, layers: list[int], vocab_size: int, width: int) -> None:
        super().__init__()
        self.tables = nn.ModuleDict({str(layer): table(vocab_size, width) for layer in layers})

    @torch.no_grad()
    def initialise(self, seed: int, name: str, std: float) -> None:
        for layer, values in self.tables.items():
            normal_(values.weight, std, seed=seed, name=f"{name}.{layer}.weight")  # type: ignore[arg-type]

    def forward(self, tokens_BT: Tensor, layer: int) -> Tensor | None:
        """What layer `layer` adds; None if it has no table."""
        return self.tables[str(layer)](tokens_BT) if str(layer) in self.tables else None
