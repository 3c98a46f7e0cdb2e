"""Every token counts once, predicted from what it should be, and sums are divided by what was summed."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from daybreak.data.shards import TokenStream
from daybreak.data.windows import IGNORED
from daybreak.errors import UserError
from daybreak.evaluate.language_model import DaybreakModel
from daybreak.evaluate.sweep import Rows, TextLoss, Unmeasured, measure, sweep
from daybreak.evaluate.text import Amount, Text, read_text
from daybreak.model.mask import dense_mask
from small_models import CONTEXT, make_gpt, make_model


def make_text(tokens: int, vocab_size: int = 257) -> Text:
    ids = np.random.default_rng(0).integers(vocab_size, size=tokens).astype(np.uint32)
    return Text(TokenStream([ids[:5], ids[5:]]), None, Amount(1, tokens - 1, tokens - 1, 3))


def one_by_one(model: DaybreakModel, text: Text, context: int, stride: int) -> float:
    """The sum of losses by the definition: each target alone, from the tokens of the first row that reaches it."""
    ids = torch.from_numpy(text.tokens.read(0, len(text.tokens)))
    total = 0.0
    for target in range(1, len(ids)):
        start = max(0, -(-(target - context) // stride)) * stride
        with torch.no_grad():
            logits = model.model.logits(ids[None, start:target])[0, -1].double()
        total -= logits.log_softmax(-1)[ids[target]].item()
    return total


@given(st.integers(2, 90), st.integers(1, 20), st.data())
def test_every_target_counts_exactly_once_and_sees_at_least_the_context_less_the_stride(
    tokens: int, context: int, data: st.DataObject
) -> None:
    stride = data.draw(st.integers(1, context))
    rows = Rows(TokenStream([np.arange(tokens, dtype=np.uint32)]), context, stride)
    inputs, targets = rows.read(0, len(rows))
    counted = targets != IGNORED
    assert targets[counted].tolist() == list(range(1, tokens))
    assert torch.equal(inputs[counted] + 1, targets[counted])
    seen = counted.nonzero()[:, 1] + 1
    assert all(have >= min(target, context - stride + 1) for have, target in zip(seen, range(1, tokens), strict=True))
    assert inputs.shape[1] <= context
    read_in_parts = torch.cat([rows.read(first, 2)[1] for first in range(0, len(rows), 2)])
    assert torch.equal(read_in_parts, targets)


@pytest.mark.parametrize(
    ("tokens", "context", "stride"), [(2, 8, 8), (9, 8, 8), (10, 8, 8), (43, 8, 8), (43, 7, 3), (43, 8, 1), (29, 5, 4)]
)
@pytest.mark.parametrize("tokens_at_once", [1, 24, 1000])
def test_the_loss_is_that_of_each_token_alone(tokens: int, context: int, stride: int, tokens_at_once: int) -> None:
    model, text = make_model(tokens_at_once=tokens_at_once), make_text(tokens)
    found = measure(model, [text], context, stride)
    assert found.tokens == tokens - 1
    assert found.nll == pytest.approx(one_by_one(model, text, context, stride), rel=1e-6)
    assert found.loss == found.nll / (tokens - 1)


@pytest.mark.parametrize("position", ["alibi", "rotary", "sinusoidal", "none"])
def test_positions_that_have_no_end_go_beyond_the_context_of_training(position: str) -> None:
    model, text = make_model(position={"kind": position}), make_text(50)
    found = list(sweep(model, [text], [5, 3 * CONTEXT, 100], stride=10))
    for row, (context, stride) in zip(found, [(5, 5), (24, 10), (100, 10)], strict=True):
        assert isinstance(row, TextLoss)
        assert (row.context, row.stride) == (context, stride)
        assert row.nll == pytest.approx(one_by_one(model, text, context, stride), rel=1e-6)


def test_windows_and_separated_documents_are_seen_as_in_training() -> None:
    gpt = make_gpt(attention={"windows": [3, 0]}, position={"kind": "rotary"})
    gpt.separator = 7
    model, text = make_model(gpt), make_text(40, vocab_size=12)
    assert 7 in text.tokens.read(1, 40)
    found = measure(model, [text], 20, 6)
    assert found.nll == pytest.approx(one_by_one(model, text, 20, 6), rel=1e-6)


@pytest.mark.parametrize("context", [1, 3, 7, 8, 64])
def test_a_model_that_knows_nothing_has_the_perplexity_of_its_vocabulary_at_any_context(context: int) -> None:
    """Of 264 ids, padding among them. Dropping the last partial row would show as a dip where rows do not fit."""
    gpt = make_gpt(position={"kind": "none"})
    with torch.no_grad():
        for parameter in gpt.parameters():
            parameter.zero_()
    found = measure(make_model(gpt), [make_text(30)], context)
    assert found.loss == pytest.approx(math.log(264), rel=1e-6)
    assert found.perplexity == pytest.approx(264, rel=1e-5)
    assert found.bits_per_byte == pytest.approx(math.log2(264), rel=1e-6)
    assert found.word_perplexity == pytest.approx(math.exp(29 * math.log(264) / 3), rel=1e-4)


def test_texts_are_measured_apart_and_added() -> None:
    model, texts = make_model(), [make_text(20), make_text(31)]
    both, apart = measure(model, texts, 6, 4), [measure(model, [text], 6, 4) for text in texts]
    assert both.nll == pytest.approx(sum(each.nll for each in apart), rel=1e-12)
    assert both.tokens == 49
    assert both.amount == Amount(2, 49, 49, 6)


def test_an_id_that_does_not_count_is_seen_and_not_predicted() -> None:
    text = make_text(40, vocab_size=5)
    ids, model = text.tokens.read(0, 40), make_model()
    found = measure(model, [Text(text.tokens, 3, text.amount)], 8)
    assert found.tokens == int((ids[1:] != 3).sum()) < 39
    assert found.nll < measure(model, [text], 8).nll


def test_learned_positions_end_and_the_other_contexts_go_on() -> None:
    model, text = make_model(), make_text(30)
    short, beyond, other = sweep(model, [text], [4, CONTEXT + 1, CONTEXT])
    assert beyond == Unmeasured(CONTEXT + 1, f"its positions end at {CONTEXT}")
    assert isinstance(short, TextLoss)
    assert isinstance(other, TextLoss)
    with pytest.raises(UserError, match=f"positions end at {CONTEXT}"):
        measure(model, [text], CONTEXT + 1)


def without_memory_beyond(tokens: int, monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, ...]]:
    """A device that holds no more than so many tokens; returns the shapes that went through."""
    losses, shapes = DaybreakModel.losses, []

    def allocate(self: DaybreakModel, inputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        if inputs.numel() > tokens:
            raise torch.OutOfMemoryError("CUDA out of memory")
        shapes.append(tuple(inputs.shape))
        return losses(self, inputs, targets)

    monkeypatch.setattr(DaybreakModel, "losses", allocate)
    return shapes


def test_a_context_without_memory_says_so_and_the_others_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    model, text = make_model(position={"kind": "alibi"}), make_text(60)
    expected = [row.nll for row in sweep(model, [text], [8, 16]) if isinstance(row, TextLoss)]
    without_memory_beyond(16, monkeypatch)
    first, lost, last = sweep(model, [text], [8, 32, 16])
    assert lost == Unmeasured(32, "out of memory on cpu")
    assert [row.nll for row in (first, last) if isinstance(row, TextLoss)] == pytest.approx(expected, rel=1e-6)


def test_a_batch_without_memory_is_halved_until_it_fits(monkeypatch: pytest.MonkeyPatch) -> None:
    model, text = make_model(tokens_at_once=1000), make_text(60)
    expected = measure(model, [text], 8).nll
    shapes = without_memory_beyond(16, monkeypatch)
    assert measure(model, [text], 8).nll == pytest.approx(expected, rel=1e-6)
    assert sum(rows for rows, _ in shapes) == 8


def test_what_cannot_fit_is_not_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    model, text = make_model(position={"kind": "alibi"}), make_text(500)
    monkeypatch.setattr("daybreak.evaluate.sweep.free_memory", lambda _: 1_000_000)
    shapes = without_memory_beyond(10**9, monkeypatch)
    small, large = sweep(model, [text], [8, 400])
    assert isinstance(small, TextLoss)
    assert isinstance(large, Unmeasured)
    assert "1.0 MB are free" in large.reason
    assert {length for _, length in shapes} == {8}


@pytest.mark.parametrize("settings", [{"position": {"kind": "alibi"}}, {"attention": {"windows": [40]}}, {}])
def test_the_bytes_of_a_row_are_at_least_its_masks(settings: dict[str, Any]) -> None:
    model = make_model(context=128, **settings)
    masks = {"position": 2, "attention": 1}.get(next(iter(settings), ""), 0)
    assert model.row_bytes(128) - model.row_bytes(64) >= masks * 4 * (128**2 - 64**2)


def test_masks_of_one_context_are_not_kept_for_the_next() -> None:
    list(sweep(make_model(position={"kind": "alibi"}), [make_text(60)], [8, 16, 32]))
    assert dense_mask.cache_info().currsize == 0


def test_bits_per_byte_of_characters_of_many_bytes(tmp_path: Path) -> None:
    text = "Naïve 日本語 🌅"
    (tmp_path / "a.txt").write_text(text)
    model = make_model()
    read = read_text(model, [str(tmp_path / "a.txt")])
    found = measure(model, [read], 7, 3)
    bits = one_by_one(model, read, 7, 3) / math.log(2)
    assert found.tokens == len(text.encode()) > len(text)
    assert found.bits_per_byte == pytest.approx(bits / len(text.encode()), rel=1e-6)
    assert found.bits_per_character == pytest.approx(bits / len(text), rel=1e-6)
    assert found.word_perplexity == pytest.approx(2 ** (bits / 3), rel=1e-4)
