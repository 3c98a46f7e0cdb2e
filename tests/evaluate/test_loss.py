"""Every token is counted once, and what is reported is what a plain loop finds."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from daybreak.data.shards import Corpus, TokenStream
from daybreak.data.tokenizer import Tokenizer, byte_tokenizer, character_tokenizer, train_bpe
from daybreak.duration import Duration, Unit
from daybreak.evaluate.loss import Loss, Validation, row_starts
from daybreak.model.gpt import GPT, ModelConfig, build
from daybreak.model.kernels import Kernels

LENGTH = 8
CPU = torch.device("cpu")
TEXTS = ["Naïve café at daybreak.", "日本語 and 🌅, the light of the day", "the light of the day", "x"]


def make_model(vocab_size: int, loss_rows: int = 0, **settings: Any) -> GPT:
    sizes: dict[str, Any] = {"layers": 1, "heads": 2, "dim": 16, "context": LENGTH, "vocab_size": vocab_size}
    return build(ModelConfig(**(sizes | {"initialisation": {"std": 0.3}} | settings)), 0, CPU, Kernels(loss_rows))


def make_stream(tokens: Sequence[int], shard: int = 10) -> TokenStream:
    ids = np.asarray(tokens, dtype=np.uint16)
    return TokenStream([ids[start : start + shard] for start in range(0, len(ids), shard)])


def make_validation(stream: TokenStream, tokenizer: Tokenizer, **settings: Any) -> Validation:
    values: dict[str, Any] = {
        "every": Duration(1, Unit.STEPS),
        "stream": stream,
        "starts": row_starts(len(stream), LENGTH),
        "length": LENGTH,
        "batch": 3,
        "token_bytes": tokenizer.token_bytes,
        "device": CPU,
        "precision": "fp32",
    }
    return Validation(**(values | settings))


def random_tokens(count: int, vocab_size: int = 257) -> list[int]:
    return np.random.default_rng(0).integers(vocab_size, size=count).tolist()


def loss_row_by_row(model: GPT, stream: TokenStream, starts: Sequence[int]) -> tuple[float, int]:
    total, count = 0.0, 0
    for start in starts:
        tokens = torch.from_numpy(stream.read(start, min(start + LENGTH + 1, len(stream))))
        with torch.no_grad():
            logits = model.logits(tokens[None, :-1])[0].double()
        total += F.cross_entropy(logits, tokens[1:], reduction="sum").item()
        count += len(tokens) - 1
    return total / count, count


@given(tokens=st.integers(2, 300), length=st.integers(1, 40))
def test_every_token_but_the_first_is_a_target_exactly_once(tokens: int, length: int) -> None:
    targets = [
        target for start in row_starts(tokens, length) for target in range(start + 1, min(start + length + 1, tokens))
    ]
    assert targets == list(range(1, tokens))


@pytest.mark.parametrize("tokens", [0, 1])
def test_a_stream_without_a_target_has_no_rows(tokens: int) -> None:
    assert row_starts(tokens, 8) == []


@given(tokens=st.integers(2, 3000), length=st.integers(1, 40), sample=st.integers(1, 3000))
def test_a_sample_is_whole_rows_spread_evenly_and_about_as_long_as_asked(tokens: int, length: int, sample: int) -> None:
    every, starts = row_starts(tokens, length), row_starts(tokens, length, sample)
    assert starts == row_starts(tokens, length, sample)
    assert set(starts) <= set(every)
    assert len(set(starts)) == len(starts)
    if sample >= tokens - 1:
        assert starts == every
        return
    counted = sum(min(length, tokens - 1 - start) for start in starts)
    assert sample - length < counted < sample + length
    gaps = np.diff([*starts, every[-1] + length])
    assert gaps.max() - gaps.min() <= length


@pytest.mark.parametrize("count", [2, 5, 9, 10, 24, 25, 26, 61])
@pytest.mark.parametrize("batch", [1, 3, 50])
def test_the_loss_is_that_of_a_loop_over_single_rows_whatever_the_batch(count: int, batch: int) -> None:
    model, stream, tokenizer = make_model(257), make_stream(random_tokens(count)), byte_tokenizer()
    measured = make_validation(stream, tokenizer, batch=batch).measure(model)
    expected, tokens = loss_row_by_row(model, stream, row_starts(count, LENGTH))
    assert measured.tokens == tokens == count - 1
    assert measured.loss == pytest.approx(expected, rel=1e-6)


def test_a_samples_loss_is_that_of_its_rows() -> None:
    model, stream = make_model(257), make_stream(random_tokens(203))
    starts = row_starts(203, LENGTH, 40)
    measured = make_validation(stream, byte_tokenizer(), starts=starts).measure(model)
    expected, tokens = loss_row_by_row(model, stream, starts)
    assert measured.tokens == tokens == 40
    assert measured.loss == pytest.approx(expected, rel=1e-6)


def test_measuring_again_gives_the_same_bits_and_leaves_the_model_as_it_was() -> None:
    model = make_model(257, loss_rows=5, dropout=0.5)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    validation = make_validation(make_stream(random_tokens(60)), byte_tokenizer())
    assert validation.measure(model) == validation.measure(model)
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name])
    assert all(parameter.grad is None and parameter.requires_grad for parameter in model.parameters())


@pytest.mark.parametrize("position", ["learned", "alibi"])
@pytest.mark.parametrize("loss_rows", [0, 7])
def test_training_goes_on_after_a_measurement(position: str, loss_rows: int) -> None:
    def gradient(*, measured: bool) -> torch.Tensor:
        model = make_model(257, loss_rows, position={"kind": position})
        tokens = torch.tensor(random_tokens(3 * LENGTH)).view(3, LENGTH)
        if measured:
            make_validation(make_stream(random_tokens(60)), byte_tokenizer()).measure(model)
        model(tokens, tokens).backward()
        assert model.embedding.weight.grad is not None
        return model.embedding.weight.grad

    assert torch.equal(gradient(measured=True), gradient(measured=False))


def test_chunks_of_the_loss_change_no_measurement() -> None:
    validation = make_validation(make_stream(random_tokens(60)), byte_tokenizer())
    whole, chunked = (validation.measure(make_model(257, rows)) for rows in (0, 5))
    assert chunked.loss == pytest.approx(whole.loss, rel=1e-6)


def test_bf16_is_near_fp32() -> None:
    stream, model = make_stream(random_tokens(60)), make_model(257)
    single = make_validation(stream, byte_tokenizer()).measure(model)
    half = make_validation(stream, byte_tokenizer(), precision="bf16").measure(model)
    assert half.loss != single.loss
    assert half.loss == pytest.approx(single.loss, rel=0.02)


tokenizers = {
    "bytes": byte_tokenizer,
    "chars": lambda: character_tokenizer(TEXTS),
    "bpe": lambda: train_bpe(iter(TEXTS), 300),
}


@pytest.mark.parametrize("name", list(tokenizers))
def test_bits_per_byte_counts_the_bytes_of_the_text_itself(name: str) -> None:
    tokenizer = tokenizers[name]()
    ids = [token for text in TEXTS for token in (tokenizer.end_of_text, *tokenizer.encode(text).tolist())]
    stream, model = make_stream(ids), make_model(tokenizer.vocab_size + 3)
    measured = make_validation(stream, tokenizer).measure(model)
    loss, tokens = loss_row_by_row(model, stream, row_starts(len(ids), LENGTH))
    text_bytes = len("".join(TEXTS).encode())
    assert measured.bytes == text_bytes
    assert measured.tokens == len(ids) - 1
    assert measured.bits_per_byte == pytest.approx(loss * tokens / (math.log(2) * text_bytes), rel=1e-6)


def test_bytes_of_a_part_are_those_of_its_decoded_targets() -> None:
    tokenizer = train_bpe(iter(TEXTS), 300)
    ids = tokenizer.encode("".join(TEXTS)).tolist()
    starts = row_starts(len(ids), LENGTH, 12)
    stream = make_stream(ids)
    measured = make_validation(stream, tokenizer, starts=starts).measure(make_model(tokenizer.vocab_size))
    targets = [ids[start + 1 : start + LENGTH + 1] for start in starts]
    assert measured.bytes == sum(len(tokenizer.decode_bytes(row)) for row in targets) < len("".join(TEXTS).encode())


def test_the_whole_split_of_a_corpus_has_the_bytes_of_its_manifest(corpus: Corpus) -> None:
    stream = corpus.stream("validation")
    starts = row_starts(len(stream), LENGTH)
    validation = make_validation(stream, corpus.tokenizer, starts=starts, batch=256)
    measured = validation.measure(make_model(corpus.tokenizer.vocab_size))
    assert (measured.tokens, measured.bytes) == (len(stream) - 1, corpus.validation.bytes)


@pytest.mark.parametrize("stop_before", [0, 1, 5, 7])
def test_a_measurement_that_is_interrupted_measures_nothing(stop_before: int) -> None:
    """Eight rows, one a batch: asked before each."""
    validation, asked, counted = make_validation(make_stream(random_tokens(60)), byte_tokenizer(), batch=1), 0, []

    def interrupted() -> bool:
        nonlocal asked
        asked += 1
        return asked > stop_before

    assert validation.measure(make_model(257), counted.append, interrupted=interrupted) is None
    assert asked == stop_before + 1
    assert len(counted) == stop_before
    assert validation.measure(make_model(257), interrupted=lambda: False) == validation.measure(make_model(257))


@pytest.mark.parametrize("rows", [1, 2, 3, 8])
def test_without_memory_a_batch_is_halved_until_it_fits(rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A device that holds no more than `rows` rows at once."""
    validation, model = make_validation(make_stream(random_tokens(60)), byte_tokenizer(), batch=8), make_model(257)
    expected, forward, seen = validation.measure(model), GPT.forward, []

    def allocate(self: GPT, tokens: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        seen.append(len(tokens))
        if len(tokens) > rows:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return forward(self, tokens, targets)

    monkeypatch.setattr(GPT, "forward", allocate)
    measured = validation.measure(model)
    assert measured is not None
    assert expected is not None
    assert measured.loss == pytest.approx(expected.loss, rel=1e-6)
    assert (measured.tokens, measured.bytes) == (expected.tokens, expected.bytes)
    assert sum(count for count in seen if count <= rows) == 8


def test_without_memory_for_one_row_a_measurement_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    def allocate(self: GPT, tokens: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        raise torch.OutOfMemoryError("CUDA out of memory")

    validation, model = make_validation(make_stream(random_tokens(60)), byte_tokenizer()), make_model(257)
    monkeypatch.setattr(GPT, "forward", allocate)
    with pytest.raises(torch.OutOfMemoryError):
        validation.measure(model)


def test_a_model_that_knows_nothing_loses_the_logarithm_of_its_vocabulary() -> None:
    model = make_model(257)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    measured = make_validation(make_stream(random_tokens(60, 256)), byte_tokenizer()).measure(model)
    assert measured.loss == pytest.approx(math.log(257), rel=1e-6)
    assert measured.perplexity == pytest.approx(257, rel=1e-5)
    assert measured.bits_per_byte == pytest.approx(math.log2(257), rel=1e-6)


def test_perplexity_is_the_exponential_of_the_loss_and_has_no_overflow() -> None:
    assert Loss(2.0, 10, 10).perplexity == pytest.approx(7.389056)
    assert Loss(1e4, 10, 10).perplexity == math.inf


def test_bits_per_byte_of_no_text_is_not_a_number() -> None:
    assert Loss(2.0, 10, 5).bits_per_byte == pytest.approx(2 * 2.0 / math.log(2))
    assert math.isnan(Loss(2.0, 10, 0).bits_per_byte)
