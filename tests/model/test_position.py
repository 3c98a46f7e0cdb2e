"""Positions against the papers that introduced them, written out again here."""

import cmath
import math

import pytest
import torch
from torch import Tensor

from daybreak.model.attention import dense_mask
from daybreak.model.gpt import ModelConfig, build
from daybreak.model.position import (
    LearnedPosition,
    SinusoidalPosition,
    alibi_slopes,
    rotary_tables,
    rotate,
    sinusoids,
)

CPU = torch.device("cpu")


def slopes_of_press_et_al(heads: int) -> list[float]:
    """The recursion of the paper's reference code: a geometric sequence that starts at its own ratio."""

    def of_power_of_two(n: int) -> list[float]:
        ratio = 2 ** (-(2 ** -(math.log2(n) - 3)))
        return [ratio * ratio**i for i in range(n)]

    if heads & (heads - 1) == 0:
        return of_power_of_two(heads)
    lower = 1
    while lower * 2 < heads:
        lower *= 2
    return of_power_of_two(lower) + slopes_of_press_et_al(2 * lower)[0::2][: heads - lower]


@pytest.mark.parametrize("heads", [*range(1, 34), 40, 64, 71, 96, 128])
def test_alibi_slopes_are_the_papers(heads: int) -> None:
    assert alibi_slopes(heads) == pytest.approx(slopes_of_press_et_al(heads), rel=1e-12)


def test_alibi_slopes_of_8_and_12_heads_are_those_known() -> None:
    eight = [1 / 2, 1 / 4, 1 / 8, 1 / 16, 1 / 32, 1 / 64, 1 / 128, 1 / 256]
    assert alibi_slopes(8) == pytest.approx(eight)
    assert alibi_slopes(12) == pytest.approx([*eight, 2**-0.5, 2**-1.5, 2**-2.5, 2**-3.5])


@pytest.mark.parametrize(("queries", "keys", "window"), [(5, 5, 0), (2, 5, 0), (5, 5, 2), (1, 6, 4)])
def test_the_alibi_bias_falls_with_distance_and_hides_what_is_not_seen(queries: int, keys: int, window: int) -> None:
    slopes = tuple(alibi_slopes(3))
    mask = dense_mask(queries, keys, window, slopes, torch.float32, CPU)
    assert mask.shape == (3, queries, keys)
    for head in range(3):
        for query in range(queries):
            for key in range(keys):
                distance = keys - queries + query - key
                seen = distance >= 0 and (window == 0 or distance < window)
                expected = -slopes[head] * distance if seen else -math.inf
                assert mask[head, query, key].item() == pytest.approx(expected)


def rotated_as_complex_numbers(x: Tensor, start: int, base: float) -> Tensor:
    """Su et al. 2021, section 3.4: pair i at position m is a complex number times exp(i m base^(-2i/d))."""
    B, H, T, K = x.shape
    out = torch.empty_like(x)
    for t in range(T):
        for pair in range(K // 2):
            turn = cmath.exp(1j * (start + t) * base ** (-2 * pair / K))
            for b in range(B):
                for h in range(H):
                    number = complex(x[b, h, t, pair].item(), x[b, h, t, pair + K // 2].item()) * turn
                    out[b, h, t, pair], out[b, h, t, pair + K // 2] = number.real, number.imag
    return out


@pytest.mark.parametrize("base", [10_000.0, 100.0])
@pytest.mark.parametrize("start", [0, 37])
def test_rotary_is_the_papers_product_of_complex_numbers(start: int, base: float) -> None:
    x = torch.randn(2, 2, 5, 8, generator=torch.Generator().manual_seed(0))
    turned = rotate(x, *rotary_tables(start, 5, 8, base, CPU))
    torch.testing.assert_close(turned, rotated_as_complex_numbers(x, start, base), rtol=1e-5, atol=1e-5)


def test_rotary_scores_depend_on_the_distance_alone() -> None:
    generator = torch.Generator().manual_seed(0)
    query, key = torch.randn(2, 1, 1, 1, 16, generator=generator)

    def score(query_position: int, key_position: int) -> float:
        turned_query = rotate(query, *rotary_tables(query_position, 1, 16, 10_000.0, CPU))
        turned_key = rotate(key, *rotary_tables(key_position, 1, 16, 10_000.0, CPU))
        return float((turned_query * turned_key).sum())

    for distance in (0, 1, 5, 30):
        for shift in (1, 10, 200):
            assert score(distance + shift, shift) == pytest.approx(score(distance, 0), abs=1e-3)
    assert abs(score(5, 0) - score(0, 0)) > 0.1


def test_rotary_keeps_lengths_and_the_type() -> None:
    x = torch.randn(1, 2, 6, 8, generator=torch.Generator().manual_seed(0))
    tables = rotary_tables(3, 6, 8, 10_000.0, CPU)
    torch.testing.assert_close(rotate(x, *tables).norm(dim=-1), x.norm(dim=-1))
    assert rotate(x.bfloat16(), *tables).dtype == torch.bfloat16


@pytest.mark.parametrize(("start", "dim"), [(0, 16), (50, 16), (1000, 6)])
def test_the_sinusoidal_table_is_the_formula_of_vaswani_et_al(start: int, dim: int) -> None:
    table = sinusoids(torch.arange(start, start + 7), dim)
    for row in range(7):
        for i in range(dim // 2):
            angle = (start + row) / 10_000 ** (2 * i / dim)
            assert table[row, 2 * i].item() == pytest.approx(math.sin(angle), abs=2e-4)
            assert table[row, 2 * i + 1].item() == pytest.approx(math.cos(angle), abs=2e-4)


@pytest.mark.parametrize("learned_scale", [False, True])
def test_the_sinusoidal_table_is_added_times_its_scale(learned_scale: bool) -> None:
    position = {"kind": "sinusoidal", "learned_scale": learned_scale}
    model = build(ModelConfig(layers=1, heads=2, dim=16, context=8, vocab_size=9, position=position), 0, CPU)
    assert isinstance(model.position, SinusoidalPosition)
    scale = 1.0
    if model.position.scale is not None:
        assert model.position.scale.item() == pytest.approx(16**-0.5)
        with torch.no_grad():
            scale = model.position.scale.fill_(0.7).item()
    x = torch.randn(2, 8, 16)
    torch.testing.assert_close(
        model.position(x, start=3) - x, (scale * sinusoids(torch.arange(3, 11), 16)).expand(2, -1, -1)
    )


def test_the_learned_table_is_read_from_where_the_cache_ends() -> None:
    model = build(ModelConfig(layers=1, heads=2, dim=16, context=8, vocab_size=9), 0, CPU)
    assert isinstance(model.position, LearnedPosition)
    added = model.position(torch.zeros(1, 3, 16), start=4)
    assert torch.equal(added[0], model.position.weight[4:7])
