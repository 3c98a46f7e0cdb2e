"""The micro-batch that fits."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from daybreak.model.gpt import ModelConfig, count_parameters
from daybreak.model.kernels import Kernels
from daybreak.training.microbatch import fitting_micro_batch, largest_divisor, row_bytes

MODEL = ModelConfig(layers=12, heads=12, dim=768, context=1024, vocab_size=50_304)
PARAMETER_BYTES = 16 * count_parameters(MODEL)
GIB = 1 << 30


def micro_batch(monkeypatch: pytest.MonkeyPatch, free: float, *, rows: int, device: str = "cuda", **sizes: int) -> int:
    monkeypatch.setattr("daybreak.training.microbatch.free_memory", lambda device: int(free))
    length = sizes.get("length", 1024)
    return fitting_micro_batch(
        rows,
        MODEL,
        parameter_bytes=PARAMETER_BYTES,
        length=length,
        kernels=Kernels(),
        device=torch.device(device),
        precision="bf16",
    )


@given(number=st.integers(1, 5000), limit=st.integers(1, 6000))
def test_the_largest_divisor_is_that_of_a_plain_search(number: int, limit: int) -> None:
    assert largest_divisor(number, limit) == max(d for d in range(1, number + 1) if number % d == 0 and d <= limit)


@pytest.mark.parametrize("rows", [1, 7, 480, 512])
@pytest.mark.parametrize("free", [4 * GIB, 24 * GIB, 80 * GIB])
def test_the_micro_batch_divides_the_rows_and_fits(monkeypatch: pytest.MonkeyPatch, rows: int, free: int) -> None:
    chosen = micro_batch(monkeypatch, free, rows=rows)
    assert rows % chosen == 0
    needed = PARAMETER_BYTES + chosen * row_bytes(MODEL, 1024, Kernels(), "bf16")
    assert chosen == 1 or needed <= free


def test_more_memory_never_takes_a_smaller_micro_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    chosen = [micro_batch(monkeypatch, free * GIB, rows=480) for free in (3, 6, 12, 24, 48, 96, 1000)]
    assert chosen == sorted(chosen)
    assert chosen[0] < chosen[-2] < chosen[-1] == 480


@pytest.mark.parametrize("free", [0, 1, GIB])
def test_without_memory_it_is_still_one_row(monkeypatch: pytest.MonkeyPatch, free: int) -> None:
    assert micro_batch(monkeypatch, free, rows=512) == 1


def test_a_cpu_takes_no_more_rows_than_its_caches_like(monkeypatch: pytest.MonkeyPatch) -> None:
    assert micro_batch(monkeypatch, 1000 * GIB, rows=512, device="cpu") == 8
    assert micro_batch(monkeypatch, 1000 * GIB, rows=512, device="cpu", length=16_384) == 1


def test_the_estimate_counts_at_least_what_a_backward_pass_must_keep() -> None:
    logits = 1024 * MODEL.vocab_size * 4
    activations = 12 * 1024 * 768 * 2 * 8
    assert row_bytes(MODEL, 1024, Kernels(), "bf16") > logits + activations
    assert row_bytes(MODEL, 1024, Kernels(), "fp32") > row_bytes(MODEL, 1024, Kernels(), "bf16")
