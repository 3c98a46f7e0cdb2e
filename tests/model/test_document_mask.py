"""Documents in one row are computed as if each stood alone, by every part and on every path."""

import itertools
from typing import Any

import pytest
import torch
from torch import Tensor

from daybreak.data.windows import IGNORED
from daybreak.model import attention
from daybreak.model.attention import causal_attention, plain_attention
from daybreak.model.cache import Cache
from daybreak.model.gpt import GPT, ModelConfig, build
from daybreak.model.kernels import PLAIN, Kernels
from daybreak.model.mask import dense_document_mask, document_block_mask, document_places
from daybreak.model.position import alibi_slopes
from daybreak.model.prediction import PredictionConfig
from daybreak.sampling.generate import generate, make_row
from daybreak.sampling.settings import SamplingConfig

CPU = torch.device("cpu")
CONTEXT, VOCABULARY, END = 24, 23, 5
# Rows of documents of these lengths; the first row begins within one, and each ends in padding or at its brim.
ROWS = [[3, 1, 9, 1, 6, 1, 1, 1, 1], [24], [1] * 24, [7, 17]]
needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")

positions: list[dict[str, Any]] = [
    {"kind": "learned"},
    {"kind": "sinusoidal", "learned_scale": True},
    {"kind": "rotary"},
    {"kind": "alibi"},
    {"kind": "none"},
]
attentions: list[dict[str, Any]] = [
    {},
    {"kv_heads": 1, "qk_norm": True},
    {"windows": (3, 0)},
    {"windows": (1, 4), "strides": (0, 2), "kv_heads": 2},
]
others: list[dict[str, Any]] = [
    {},
    {
        "residual": "parallel",
        "embedding_skip": True,
        "lookup": {"ngrams": (2, 4), "rows": 31, "values": "all"},
        "extra_norms": {"after_embedding": True, "shared": True},
    },
]
every_model = pytest.mark.parametrize(
    ("position", "attention", "other", "fused"), list(itertools.product(positions, attentions, others, [True, False]))
)


def make_model(*, fused: bool = True, separator: int | None = END, **settings: Any) -> GPT:
    sizes: dict[str, Any] = {"layers": 2, "heads": 4, "dim": 16, "context": CONTEXT, "vocab_size": VOCABULARY}
    config = ModelConfig(**(sizes | {"initialisation": {"std": 0.3}} | settings))
    model = build(config, 0, CPU, Kernels(fused_attention=fused), separator=separator)
    if model.skip is not None:  # so that it matters
        with torch.no_grad():
            model.skip.embedding_scale.fill_(0.5)
    return model


def documents() -> list[list[Tensor]]:
    """The documents of each row, every one but the very first behind its end-of-text."""
    generator = torch.Generator().manual_seed(4)
    rows = []
    for lengths in ROWS:
        rows.append([torch.randint(END + 1, VOCABULARY, (length,), generator=generator) for length in lengths])
        for document in rows[-1]:
            document[0] = END
    rows[0][0][0] = END + 1
    return rows


def packed() -> Tensor:
    return torch.stack([torch.cat(row) for row in documents()])


def test_places_are_counted_from_each_documents_first_token() -> None:
    expected = [[place for length in lengths for place in range(length)] for lengths in ROWS]
    assert document_places(packed(), END).tolist() == expected


@every_model
@torch.no_grad()
def test_logits_are_those_of_each_document_alone(position: Any, attention: Any, other: Any, fused: bool) -> None:
    settings = {"position": position, "attention": attention, **other}
    together = make_model(fused=fused, **settings).logits(packed())
    alone = make_model(fused=fused, separator=None, **settings)
    for row, parts in enumerate(documents()):
        expected = torch.cat([alone.logits(part[None])[0] for part in parts])
        torch.testing.assert_close(together[row], expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize("position", positions)
def test_gradients_are_the_sums_of_those_of_each_document_alone(position: Any, fused: bool) -> None:
    settings: dict[str, Any] = {"position": position, "attention": {"windows": (0, 4)}, **others[1]}
    targets = torch.randint(VOCABULARY, packed().shape, generator=torch.Generator().manual_seed(1))
    targets[0, 3] = targets[3, 10:] = IGNORED
    model, alone = make_model(fused=fused, **settings), make_model(fused=fused, separator=None, **settings)
    loss = model(packed(), targets)
    expected = torch.zeros(())
    for row, parts in enumerate(documents()):
        for part, target in zip(parts, targets[row].split(ROWS[row]), strict=True):
            expected = expected + alone(part[None], target[None])
    torch.testing.assert_close(loss, expected)
    loss.backward()
    expected.backward()
    for (name, mine), its in zip(model.named_parameters(), alone.parameters(), strict=True):
        assert mine.grad is not None, name
        assert its.grad is not None, name
        torch.testing.assert_close(mine.grad, its.grad, rtol=1e-4, atol=1e-4, msg=name)


@pytest.mark.parametrize("fused", [True, False])
def test_nothing_of_another_document_is_seen_and_every_number_is_finite(fused: bool) -> None:
    model, tokens = make_model(fused=fused, **others[1]), packed()
    changed = tokens.clone()
    changed[0, 4:13] = torch.randint(END + 1, VOCABULARY, (9,))
    changed[0, 4] = END  # the third document of the first row
    with torch.no_grad():
        before, after = model.logits(tokens), model.logits(changed)
    assert before.isfinite().all()
    assert torch.equal(before[0, :5], after[0, :5])
    assert torch.equal(before[0, 13:], after[0, 13:])
    assert not torch.equal(before[0, 5:13], after[0, 5:13])


def test_dropout_is_as_without_other_documents() -> None:
    """It is a function of the place in the row, so one document in front of others drops what it drops alone."""
    settings: dict[str, Any] = {"dropout": 0.3, "position": {"kind": "rotary"}}
    seeds = torch.tensor([11, 12, 13, 14])
    together = make_model(**settings).features(packed(), seeds_B=seeds)
    changed = packed()
    changed[3, 7:] = END
    again = make_model(**settings).features(changed, seeds_B=seeds)
    assert torch.equal(together[3, :7], again[3, :7])
    plain = make_model(separator=None, **settings).features(packed(), seeds_B=seeds)
    torch.testing.assert_close(together[1], plain[1])  # the row that is one document
    assert (together[3, 7:] - plain[3, 7:]).abs().max() > 1e-3


@torch.no_grad()
def test_a_sample_is_one_document() -> None:
    prompt = [END, 9, 8, 7]
    apart, whole = make_model(), make_model(separator=None)
    sampling = SamplingConfig(seed=3)
    made = [
        [chosen.token for (chosen,) in generate(model, [row], vocab_size=END, sampling=sampling)]
        for model in (apart, whole)
        for row in [make_row(prompt, tokens=12, sampling=sampling)]
    ]
    assert made[0] == made[1]
    tokens = torch.tensor([prompt])
    torch.testing.assert_close(apart.logits(tokens, Cache(2, CONTEXT)), apart.logits(tokens))


@pytest.mark.parametrize("choose", ["random", "hardest"])
def test_a_share_of_positions_is_taken_of_those_with_a_target(choose: Any) -> None:
    """With few targets left, as padding has none, all of them are predicted."""
    tokens = packed()
    targets = torch.full_like(tokens, IGNORED)
    kept = torch.randint(2, tokens.shape, generator=torch.Generator().manual_seed(0)).bool()
    kept[2] = torch.arange(CONTEXT) == 20
    targets[kept] = tokens[kept]
    few = build(make_model().config, 0, CPU, PLAIN, PredictionConfig(share=0.9, choose=choose), END)
    torch.testing.assert_close(few(tokens, targets, torch.arange(4)), make_model()(tokens, targets))
    fewer = build(make_model().config, 0, CPU, PLAIN, PredictionConfig(share=1 / CONTEXT, choose=choose), END)
    loss = fewer(tokens[2:3], targets[2:3], torch.arange(1))
    torch.testing.assert_close(loss, make_model()(tokens[2:3], targets[2:3]))
    assert loss > 0


def random_qkv(kv_heads: int, length: int, batch: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(length)
    shapes = [(batch, heads, length, 16) for heads in (4, kv_heads, kv_heads)]
    return [torch.randn(shape, generator=generator) for shape in shapes]


def random_places(batch: int, length: int) -> Tensor:
    tokens = torch.randint(40, (batch, length), generator=torch.Generator().manual_seed(0))
    return document_places(tokens, 0)


every_attention = pytest.mark.parametrize(
    ("sight", "slopes", "kv_heads"),
    list(itertools.product([(0, 0), (7, 0), (130, 0), (7, 40)], [None, tuple(alibi_slopes(4))], [4, 2])),
)


def attention_in_pieces(
    qkv: list[Tensor], places: Tensor, window: int, slopes: tuple[float, ...] | None, stride: int
) -> Tensor:
    """Each document of each row by itself, by the definition without a mask of documents."""
    out = torch.empty_like(qkv[0])
    for row in range(len(places)):
        starts = (places[row] == 0).nonzero().flatten().tolist()
        for start, end in itertools.pairwise([*starts, places.shape[1]]):
            part = [each[row : row + 1, :, start:end] for each in qkv]
            out[row : row + 1, :, start:end] = plain_attention(*part, window, slopes, stride=stride)
    return out


@every_attention
@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
def test_every_path_of_attention_keeps_documents_apart(
    sight: tuple[int, int], slopes: tuple[float, ...] | None, kv_heads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """FlexAttention is not compiled here, so that what CUDA is asked for is checked on a machine without it."""
    from torch.nn.attention.flex_attention import flex_attention

    monkeypatch.setattr(attention, "_compiled_flex", lambda: flex_attention)
    window, stride = sight
    qkv, places = random_qkv(kv_heads, 150, 3), random_places(3, 150)
    expected = attention_in_pieces(qkv, places, window, slopes, stride)
    dense, blocks = dense_document_mask(places), document_block_mask(places, window, stride)
    for documents, fused in ((dense, True), (dense, False), (blocks, True)):
        got = causal_attention(*qkv, window=window, stride=stride, slopes=slopes, fused=fused, documents=documents)
        torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-5)


@torch.no_grad()
def test_blocks_compiled_with_blocks_of_a_mask_meet_each_batch_without_compiling_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As on CUDA, but with a backend that only traces, and without gradients, which FlexAttention has none of here."""
    from torch.nn.attention.flex_attention import flex_attention

    traced_flex = torch.compile(flex_attention, dynamic=False, backend="aot_eager")
    settings: dict[str, Any] = {"context": 128, "position": {"kind": "alibi"}, "attention": {"windows": (50, 0)}}
    dense, blocked = make_model(**settings), make_model(**settings)
    for block in blocked.blocks:
        block.forward = torch.compile(block.forward, dynamic=False, backend="aot_eager")
    expected = [dense(batch, batch) for batch in random_batches()]
    monkeypatch.setattr(attention, "_compiled_flex", lambda: traced_flex)
    monkeypatch.setattr(
        attention.Attention, "document_mask", lambda self, places, _: document_block_mask(places, *self.sight)
    )
    frames = []
    for batch, loss in zip(random_batches(), expected, strict=True):
        torch.testing.assert_close(blocked(batch, batch), loss)
        frames.append(torch._dynamo.utils.counters["stats"]["unique_graphs"])
    assert len(set(frames)) == 1
    assert frames[0] > 0


def random_batches() -> list[Tensor]:
    return [torch.randint(VOCABULARY, (3, 128), generator=torch.Generator().manual_seed(seed)) for seed in range(3)]


@pytest.mark.gpu
@needs_cuda
@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("position", [{"kind": "rotary"}, {"kind": "alibi"}, {"kind": "learned"}])
def test_on_cuda_a_model_is_that_of_the_cpu_and_meets_each_batch_without_compiling_again(
    position: Any, compiled: bool
) -> None:
    settings: dict[str, Any] = {"dim": 64, "context": 256, "position": position, "attention": {"windows": (100, 0)}}
    written_out = make_model(fused=False, **settings)
    model = make_model(**settings).cuda()
    if compiled:
        for block in model.blocks:
            block.forward = torch.compile(block.forward, dynamic=False)
    frames = None
    for seed in range(4):
        generator = torch.Generator().manual_seed(seed)
        tokens = torch.randint(VOCABULARY, (3, 257), generator=generator)
        inputs, targets = tokens[:, :-1], tokens[:, 1:]
        found = []
        for each in (written_out, model):
            each.zero_grad(set_to_none=True)
            device = each.embedding.weight.device
            loss = each(inputs.to(device), targets.to(device))
            loss.backward()
            found.append([loss.detach().cpu(), *(p.grad.cpu() for p in each.parameters() if p.grad is not None)])
        for mine, its in zip(*found, strict=True):
            torch.testing.assert_close(mine, its, rtol=2e-3, atol=2e-2)
        now = torch._dynamo.utils.counters["stats"]["unique_graphs"]
        assert frames is None or now == frames
        frames = now
