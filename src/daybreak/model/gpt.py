"""The GPT: embedding -> blocks -> norm -> head -> loss. The only file that assembles parts.

Shape legend: B batch, T time, D dim, V vocabulary.
"""

from collections.abc import Iterator
from functools import lru_cache
from typing import TYPE_CHECKING, Literal, Self, final

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from daybreak.configuration import Configuration, Size
from daybreak.data.windows import IGNORED
from daybreak.model.attention import Attention, AttentionConfig
from daybreak.model.block import ParallelBlock, SequentialBlock
from daybreak.model.cache import KeyValues
from daybreak.model.dropout import dropout, next_layer
from daybreak.model.head import Head, HeadConfig
from daybreak.model.initialise import InitialisationConfig, normal_, table
from daybreak.model.kernels import PLAIN, Kernels
from daybreak.model.lookup import LookupConfig, NgramEmbedding, ValueEmbeddings
from daybreak.model.mask import dense_document_mask, document_places
from daybreak.model.mlp import MLP, MLPConfig, PlainMLPConfig
from daybreak.model.norm import ExtraNormsConfig, Norm, NormConfig
from daybreak.model.position import (
    LearnedPosition,
    LearnedPositionConfig,
    PositionConfig,
    RotaryPositionConfig,
    SinusoidalPosition,
    SinusoidalPositionConfig,
)
from daybreak.model.prediction import PredictionConfig, hardest_positions, random_positions
from daybreak.model.skip import EmbeddingSkip

if TYPE_CHECKING:
    from torch.nn.attention.flex_attention import BlockMask


@final
class ModelConfig(Configuration):
    """The sizes of a GPT and its parts.

    Attributes:
        layers: blocks, one behind the other.
        heads: of attention, in each block; `dim` is a multiple.
        dim: numbers that stand for a token, D.
        context: tokens the model sees at once; also the length of a learned position table.
        vocab_size: width of embedding and head; ids above the tokenizer's are padding.
        bias: of every linear layer and LayerNorm, but for the head, which has none.
        dropout: on embeddings, attention weights, and residual branches, while training.
        residual: attention and MLP one behind the other (GPT-2), or both on the same input (GPT-J).
        embedding_skip: each layer sees the embedding again, and scales the residual stream.
    """

    layers: int = Field(gt=0, le=10_000)
    heads: Size
    dim: Size
    context: Size
    vocab_size: Size
    bias: bool = True
    dropout: float = Field(default=0.0, ge=0, lt=1)
    residual: Literal["sequential", "parallel"] = "sequential"
    embedding_skip: bool = False
    lookup: LookupConfig = LookupConfig()
    position: PositionConfig = LearnedPositionConfig()
    attention: AttentionConfig = AttentionConfig()
    mlp: MLPConfig = PlainMLPConfig()
    norm: NormConfig = NormConfig()
    extra_norms: ExtraNormsConfig = ExtraNormsConfig()
    head: HeadConfig = HeadConfig()
    initialisation: InitialisationConfig = InitialisationConfig()

    @property
    def positions(self) -> int | None:
        """The longest context that there are positions for; None where they have no end."""
        return self.context if isinstance(self.position, LearnedPositionConfig) else None

    @property
    def value_width(self) -> int:
        """Numbers that a layer's attention values take for one token."""
        return (self.attention.kv_heads or self.heads) * (self.dim // self.heads)

    @model_validator(mode="after")
    def _sizes_fit(self) -> Self:
        if self.dim % self.heads:
            raise ValueError(f"model.dim = {self.dim} is not a multiple of model.heads = {self.heads}")
        kv_heads = self.attention.kv_heads
        if kv_heads and self.heads % kv_heads:
            raise ValueError(f"model.heads = {self.heads} is not a multiple of model.attention.kv_heads = {kv_heads}")
        if isinstance(self.position, RotaryPositionConfig) and (self.dim // self.heads) % 2:
            raise ValueError(
                f"rotary positions turn pairs, but model.dim = {self.dim} / model.heads = {self.heads} is odd"
            )
        if isinstance(self.position, SinusoidalPositionConfig) and self.dim % 2:
            raise ValueError(f"sinusoidal positions come in pairs, but model.dim = {self.dim} is odd")
        if self.extra_norms.shared and not self.extra_norms.after_embedding:
            raise ValueError(
                "model.extra_norms.shared = true needs model.extra_norms.after_embedding = true, whose norm it shares"
            )
        return self


@final
class GPT(nn.Module):
    """A decoder-only transformer. Make one with `build`: the constructor leaves its parameters unset.

    `forward` is the forward pass of a training step: tokens and targets to the **sum** of the loss. `logits` and
    `next_logits` read predictions, with or without a cache. Dropout happens where `seeds_B` is passed, and only there:
    `train()` and `eval()` change nothing.

    Args:
        kernels: how it computes; the values are the same.
        prediction: the positions whose targets the training loss counts; all unless given.
        separator: what each document begins with, if a token is to see its own document alone, as if no other were in
            its row; a cache holds one document. All of the row unless given.
    """

    def __init__(
        self,
        config: ModelConfig,
        kernels: Kernels = PLAIN,
        prediction: PredictionConfig | None = None,
        separator: int | None = None,
    ) -> None:
        super().__init__()
        self.config, self.kernels, self.prediction = config, kernels, prediction or PredictionConfig()
        self.separator = separator
        extra = config.extra_norms
        self.embedding = table(config.vocab_size, config.dim)
        self.position = _position(config)
        self.ngrams = _ngrams(config)
        value_layers = config.lookup.value_layers(config.layers)
        self.values = ValueEmbeddings(value_layers, config.vocab_size, config.value_width) if value_layers else None
        self.skip = EmbeddingSkip(config.layers) if config.embedding_skip else None
        self.embedding_norm = self._norm() if extra.after_embedding else None
        self.blocks = nn.ModuleList(self._block(layer) for layer in range(config.layers))
        self.final_norm = None if extra.shared else self._norm()
        logit_norm = Norm(config.norm, config.vocab_size, config.bias) if extra.over_logits else None
        self.head = Head(config.head, config.dim, config.vocab_size, logit_norm, kernels.loss_rows)

    def forward(self, tokens_BT: Tensor, targets_BT: Tensor, seeds_B: Tensor | None = None) -> Tensor:
        """Sum over (B, T) of -log p(target) in nats, a scalar; targets that are IGNORED count nothing.

        Args:
            seeds_B: one integer below 2^31 a row, which seeds its dropout and the choice of predicted positions; None
                drops nothing and predicts all.
        """
        x_ND = self.features(tokens_BT, seeds_B=seeds_B).flatten(0, 1)
        targets_N = targets_BT.flatten()
        if seeds_B is not None and self.prediction.share < 1:
            chosen = self._chosen(x_ND, targets_BT, seeds_B)
            x_ND, targets_N = x_ND.index_select(0, chosen), targets_N.index_select(0, chosen)
        return self.head.loss(x_ND, self.embedding.weight, targets_N)

    def logits(self, tokens_BT: Tensor, cache: KeyValues | None = None) -> Tensor:
        """Logits (B, T, V) of each next token, in fp32; with a cache, `tokens_BT` go on behind it."""
        logits_BTV: Tensor = self.head(self.features(tokens_BT, cache=cache), self.embedding.weight)
        return logits_BTV

    def next_logits(self, tokens_BT: Tensor, cache: KeyValues | None = None) -> Tensor:
        """Logits (B, V) of the token behind the last one, in fp32."""
        logits_BV: Tensor = self.head(self.features(tokens_BT, cache=cache)[:, -1], self.embedding.weight)
        return logits_BV

    def features(self, tokens_BT: Tensor, *, cache: KeyValues | None = None, seeds_B: Tensor | None = None) -> Tensor:
        """What the head reads, (B, T, D)."""
        for x_BTD in self._residual_stream(tokens_BT, cache, seeds_B):
            last_BTD = x_BTD
        if cache is not None:
            cache.advance(tokens_BT.shape[1])
        return self._normed_for_head(last_BTD)

    @torch.no_grad()
    def largest_logits(self, tokens_BT: Tensor, rows: int) -> Tensor:
        """The largest number that a softmax gets in the attention of each layer, and in the head: (layers + 1,).

        Args:
            rows: how many of the first are looked at; all pass through the blocks.
        """
        separator = self.separator
        documents = None if separator is None else dense_document_mask(document_places(tokens_BT[:rows], separator))
        stream = self._residual_stream(tokens_BT)
        largest = [block.largest_logit(next(stream)[:rows], documents) for block in self._blocks()]
        x_RTD = self._normed_for_head(next(stream)[:rows])
        heads = [self.head(x_TD, self.embedding.weight).amax() for x_TD in x_RTD]
        return torch.stack([*largest, torch.stack(heads).amax()])

    def _residual_stream(
        self, tokens_BT: Tensor, cache: KeyValues | None = None, seeds_B: Tensor | None = None
    ) -> Iterator[Tensor]:
        """What comes into each block, one behind the other, and what comes out of the last: (B, T, D) each."""
        places_BT = self._places(tokens_BT, cache)
        x_BTD = self.embedding(tokens_BT)
        if self.ngrams is not None:
            before_BP = None if cache is None else cache.recent(tokens_BT, self.ngrams.reach)
            x_BTD = x_BTD + self.ngrams(tokens_BT, before_BP, places_BT)
        if self.position is not None:
            x_BTD = self.position(x_BTD, 0 if cache is None else cache.length, places_BT)
        if self.embedding_norm is not None:
            x_BTD = self.embedding_norm(x_BTD)
        x_BTD = dropout(x_BTD, self.config.dropout, seeds_B, site=0)
        if self.kernels.bf16_copies and torch.is_grad_enabled():
            x_BTD = x_BTD.bfloat16()  # what the blocks add to it is bf16 already, by autocast
        x0_BTD = x_BTD
        documents = {} if places_BT is None else self._seen(places_BT, cache, seeds_B)
        for layer, block in enumerate(self._blocks()):
            seeds_B = next_layer(seeds_B)
            if self.skip is not None:
                x_BTD = self.skip(x_BTD, x0_BTD, layer)
            yield x_BTD
            extra_BTE = None if self.values is None else self.values(tokens_BT, layer)
            x_BTD = block(x_BTD, seeds_B, cache, extra_BTE, documents.get(block.attention.sight))
        yield x_BTD

    def _normed_for_head(self, x_BTD: Tensor) -> Tensor:
        final_norm = self.final_norm or self.embedding_norm
        assert final_norm is not None  # a shared final norm is the embedding's
        return final_norm(x_BTD)  # type: ignore[no-any-return]

    @torch.no_grad()
    def initialise(self, seed: int) -> None:
        """Give every parameter its initial value, a function of (seed, its name)."""
        init = self.config.initialisation
        std, output_std = init.std, init.output_std(self.config.layers)
        normal_(self.embedding.weight, std, seed=seed, name="embedding.weight")
        if self.position is not None:
            self.position.initialise(seed, "position", std)
        if self.ngrams is not None:
            self.ngrams.initialise(seed, "ngrams", std)
        if self.values is not None:
            self.values.initialise(seed, "values", std)
        if self.skip is not None:
            self.skip.initialise()
        for layer, block in enumerate(self._blocks()):
            block.initialise(seed, f"blocks.{layer}", std, output_std)
        self.head.initialise(seed, "head", std)
        for norm in (self.embedding_norm, self.final_norm):
            if norm is not None:
                norm.initialise()

    def _chosen(self, x_ND: Tensor, targets_BT: Tensor, seeds_B: Tensor) -> Tensor:
        """Which of the B · T rows are predicted, the same number of each row of the batch."""
        B, T = targets_BT.shape
        count = self.prediction.count(T)
        if self.prediction.choose == "random":
            positions_BC = random_positions(seeds_B, T, count, targets_BT != IGNORED)
        else:
            losses_N = self.head.losses(x_ND, self.embedding.weight, targets_BT.flatten())
            positions_BC = hardest_positions(losses_N.view(B, T), count)  # what is IGNORED has a loss of 0
        return (positions_BC + T * torch.arange(B, device=positions_BC.device)[:, None]).flatten()

    def _places(self, tokens_BT: Tensor, cache: KeyValues | None) -> Tensor | None:
        """Where tokens stand in their documents, (B, T); None where a document is a row, or what is in front of it."""
        if cache is not None:
            return cache.places(tokens_BT.shape[1])
        return None if self.separator is None else document_places(tokens_BT, self.separator)

    def _seen(
        self, places_BT: Tensor, cache: KeyValues | None, seeds_B: Tensor | None
    ) -> dict[tuple[int, int], "Tensor | BlockMask"]:
        """What keeps documents, or the rows of a cache, apart in layers of each sight."""
        attentions = {block.attention.sight: block.attention for block in self._blocks()}
        seen = None if cache is None else cache.seen(places_BT.shape[1])
        if seen is not None:
            return dict.fromkeys(attentions, seen)
        return {sight: attention.document_mask(places_BT, seeds_B) for sight, attention in attentions.items()}

    def _blocks(self) -> Iterator[SequentialBlock | ParallelBlock]:
        yield from self.blocks  # type: ignore[misc]

    def _norm(self) -> Norm:
        return Norm(self.config.norm, self.config.dim, self.config.bias)

    def _block(self, layer: int) -> SequentialBlock | ParallelBlock:
        config = self.config
        attention = Attention(
            config.attention,
            config.position,
            layer=layer,
            dim=config.dim,
            heads=config.heads,
            bias=config.bias,
            dropout=config.dropout,
            gated_values=layer in config.lookup.value_layers(config.layers),
            fused=self.kernels.fused_attention,
        )
        mlp = MLP(config.mlp, config.dim, config.bias, config.dropout)
        if config.residual == "parallel":
            return ParallelBlock(attention, mlp, self._norm())
        return SequentialBlock(attention, mlp, self._norm(), self._norm())


def build(
    config: ModelConfig,
    seed: int,
    device: torch.device,
    kernels: Kernels = PLAIN,
    prediction: PredictionConfig | None = None,
    separator: int | None = None,
) -> GPT:
    """An initialised model on a device; the same values on every device."""
    with torch.device("meta"):
        model = GPT(config, kernels, prediction, separator)
    model.to_empty(device=device)
    model.initialise(seed)
    return model


@lru_cache(maxsize=64)
def count_parameters(config: ModelConfig) -> int:
    """Trainable numbers, each shared one counted once; built on the `meta` device, so nothing is allocated."""
    with torch.device("meta"):
        return sum(parameter.numel() for parameter in GPT(config).parameters())


@lru_cache(maxsize=64)
def count_multiplied(config: ModelConfig) -> int:
    """Trainable numbers but for those that are only looked up: the N of the usual FLOPs formula.

    Positions, n-grams and values are looked up, and so is an embedding that is not the head's as well.
    """
    with torch.device("meta"):
        model = GPT(config)
    looked_up = [model.ngrams, model.values, model.position if isinstance(model.position, LearnedPosition) else None]
    tables = [*looked_up, None if config.head.tied else model.embedding]
    return count_parameters(config) - sum(p.numel() for part in tables if part is not None for p in part.parameters())


def _ngrams(config: ModelConfig) -> NgramEmbedding | None:
    lookup = config.lookup
    return NgramEmbedding(lookup.ngrams, lookup.rows, config.vocab_size, config.dim) if lookup.ngrams else None


def _position(config: ModelConfig) -> LearnedPosition | SinusoidalPosition | None:
    """What is added to the embedding; rotary and ALiBi act inside attention instead."""
    if isinstance(config.position, LearnedPositionConfig):
        return LearnedPosition(config.context, config.dim)
    if isinstance(config.position, SinusoidalPositionConfig):
        return SinusoidalPosition(config.dim, config.position.learned_scale)
    return None
