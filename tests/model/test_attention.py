"""Every path of attention computes the definition, and the definition is the textbook's."""

import itertools
import math
from typing import Any

import pytest
import torch
from torch import Tensor

from daybreak.model import attention
from daybreak.model.attention import causal_attention, plain_attention
from daybreak.model.mask import block_mask, dense_mask
from daybreak.model.position import alibi_slopes

HEADS, SIZE = 4, 8
SLOPES = tuple(alibi_slopes(HEADS))
needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")

every_case = pytest.mark.parametrize(
    ("window", "slopes", "kv_heads", "queries", "keys"),
    list(itertools.product([0, 1, 3, 100], [None, SLOPES], [HEADS, 2, 1], [1, 4, 9], [9])),
)


def random_qkv(kv_heads: int, queries: int, keys: int, *, batch: int = 2, **options: Any) -> tuple[Tensor, ...]:
    generator = torch.Generator().manual_seed(keys)
    shapes = [(batch, HEADS, queries, SIZE), (batch, kv_heads, keys, SIZE), (batch, kv_heads, keys, SIZE)]
    return tuple(
        torch.randn(shape, generator=generator).to(**options).requires_grad_(options.get("dtype") is None)
        for shape in shapes
    )


def attention_in_loops(
    q: Tensor, k: Tensor, v: Tensor, window: int, slopes: tuple[float, ...] | None, stride: int = 0
) -> Tensor:
    """The textbook's sum for one query of one head at a time, in plain numbers."""
    B, H, T, K = q.shape
    S, group = k.shape[2], H // k.shape[1]
    out = torch.zeros(B, H, T, K)
    for b, h, t in itertools.product(range(B), range(H), range(T)):
        here = S - T + t
        weights = {}
        for s in range(here + 1):
            distance = here - s
            if window and distance >= window and not (stride and distance % stride == 0):
                continue
            score = sum(q[b, h, t, i].item() * k[b, h // group, s, i].item() for i in range(K)) / math.sqrt(K)
            weights[s] = math.exp(score - (slopes[h] * distance if slopes else 0.0))
        total = sum(weights.values())
        for s, weight in weights.items():
            out[b, h, t] += weight / total * v[b, h // group, s]
    return out


@every_case
def test_the_definition_is_the_textbooks(
    window: int, slopes: tuple[float, ...] | None, kv_heads: int, queries: int, keys: int
) -> None:
    with torch.no_grad():
        q, k, v = random_qkv(kv_heads, queries, keys, batch=1)
        expected = attention_in_loops(q, k, v, window, slopes)
        torch.testing.assert_close(plain_attention(q, k, v, window, slopes), expected, rtol=1e-5, atol=1e-5)


@every_case
def test_every_path_is_the_definition_in_value_and_gradients(
    window: int, slopes: tuple[float, ...] | None, kv_heads: int, queries: int, keys: int
) -> None:
    qkv = random_qkv(kv_heads, queries, keys)
    got = causal_attention(*qkv, window=window, slopes=slopes)
    expected = plain_attention(*qkv, window, slopes)
    torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-6)
    upstream = torch.randn(expected.shape, generator=torch.Generator().manual_seed(3))
    got_grads = torch.autograd.grad(got, qkv, upstream)
    for got_grad, grad in zip(got_grads, torch.autograd.grad(expected, qkv, upstream), strict=True):
        torch.testing.assert_close(got_grad, grad, rtol=1e-4, atol=1e-5)


every_stride = pytest.mark.parametrize(
    ("window", "stride", "slopes", "kv_heads", "queries"),
    list(itertools.product([1, 3], [1, 2, 4, 100], [None, SLOPES], [HEADS, 2], [1, 4, 9])),
)


def with_gradients(out: Tensor, qkv: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    upstream = torch.randn(out.shape, generator=torch.Generator().manual_seed(3))
    return (out, *torch.autograd.grad(out, qkv, upstream))


@every_stride
def test_strides_are_a_mask_written_out_by_loops_in_value_and_gradients(
    window: int, stride: int, slopes: tuple[float, ...] | None, kv_heads: int, queries: int
) -> None:
    qkv = random_qkv(kv_heads, queries, 9)
    q, k, v = qkv
    scores = q @ k.repeat_interleave(HEADS // kv_heads, dim=1).mT / math.sqrt(SIZE)
    mask = torch.full((HEADS, queries, 9), -torch.inf)
    for t, s in itertools.product(range(queries), range(9)):
        distance = 9 - queries + t - s
        if distance >= 0 and (distance < window or distance % stride == 0):
            mask[:, t, s] = 0.0 if slopes is None else -distance * torch.tensor(slopes)
    expected = with_gradients((scores + mask).softmax(-1) @ v.repeat_interleave(HEADS // kv_heads, dim=1), qkv)
    for got in (
        causal_attention(*qkv, window=window, slopes=slopes, stride=stride),
        plain_attention(*qkv, window, slopes, stride=stride),
    ):
        for mine, its in zip(with_gradients(got, qkv), expected, strict=True):
            torch.testing.assert_close(mine, its, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("slopes", [None, SLOPES])
def test_the_definition_with_strides_is_the_textbooks(slopes: tuple[float, ...] | None) -> None:
    with torch.no_grad():
        q, k, v = random_qkv(2, 9, 9, batch=1)
        expected = attention_in_loops(q, k, v, 2, slopes, stride=3)
        torch.testing.assert_close(plain_attention(q, k, v, 2, slopes, stride=3), expected, rtol=1e-5, atol=1e-5)
        later = [torch.cat((each[:, :, :5], torch.randn_like(each[:, :, 5:])), dim=2) for each in (q, k, v)]
        got = causal_attention(*later, window=2, slopes=slopes, stride=3)
        torch.testing.assert_close(got[:, :, :5], expected[:, :, :5], rtol=1e-5, atol=1e-5)  # what follows is not seen


@pytest.mark.parametrize("slopes", [None, SLOPES])
@pytest.mark.parametrize("window", [0, 3])
def test_bf16_is_near_the_definition(window: int, slopes: tuple[float, ...] | None) -> None:
    q, k, v = random_qkv(2, 9, 9, dtype=torch.bfloat16)
    got = causal_attention(q, k, v, window=window, slopes=slopes)
    expected = plain_attention(q.float(), k.float(), v.float(), window, slopes)
    assert got.dtype == torch.bfloat16
    torch.testing.assert_close(got.float(), expected, rtol=0.03, atol=0.03)


@pytest.mark.parametrize(("window", "slopes"), [(0, None), (3, None), (0, SLOPES), (3, SLOPES)])
def test_training_goes_on_after_an_evaluation_of_the_same_shape(window: int, slopes: tuple[float, ...] | None) -> None:
    """Masks are kept between calls; one made in inference mode must not spoil the backward pass."""
    dense_mask.cache_clear()
    qkv = random_qkv(HEADS, 9, 9)
    with torch.inference_mode():
        evaluated = causal_attention(*qkv, window=window, slopes=slopes)
    trained = causal_attention(*qkv, window=window, slopes=slopes)
    trained.sum().backward()
    torch.testing.assert_close(trained.detach(), evaluated.clone())


def test_a_window_sees_itself_and_those_before_it() -> None:
    """With one-hot values and equal scores, the output is the share each key gets."""
    T, window = SIZE, 3
    scoreless = torch.zeros(1, 1, T, SIZE)
    values = torch.eye(T)[None, None]
    shares = causal_attention(scoreless, scoreless, values, window=window)[0, 0]
    for t in range(T):
        seen = range(max(0, t - window + 1), t + 1)
        expected = torch.tensor([1 / len(seen) if s in seen else 0.0 for s in range(T)])
        torch.testing.assert_close(shares[t], expected)


@pytest.mark.parametrize(("window", "slopes"), [(0, None), (3, SLOPES)])
def test_dropout_keeps_the_expectation(window: int, slopes: tuple[float, ...] | None) -> None:
    with torch.no_grad():
        q, k, v = random_qkv(2, 6, 6, batch=1)
        rows = 8000
        many = [tensor.expand(rows, -1, -1, -1) for tensor in (q, k, v)]
        noise = torch.randint(2**31, (rows,), generator=torch.Generator().manual_seed(5))
        dropped = causal_attention(*many, window=window, slopes=slopes, dropout_rate=0.3, seeds_B=noise)
        whole = plain_attention(q, k, v, window, slopes)
    assert (dropped[0] - whole[0]).abs().max() > 0.05
    error = dropped.std(dim=0) / math.sqrt(rows)
    assert ((dropped.mean(dim=0) - whole[0]).abs() < 5 * error + 1e-5).all()


def test_dropout_is_a_function_of_the_rows_noise_and_not_of_the_batch() -> None:
    qkv = random_qkv(2, 6, 6, batch=5)
    noise = torch.tensor([11, 12, 13, 14, 2**31 - 1])
    whole = causal_attention(*qkv, dropout_rate=0.4, seeds_B=noise)
    for rows in (slice(0, 1), slice(1, 4), slice(4, 5)):
        part = causal_attention(*(tensor[rows] for tensor in qkv), dropout_rate=0.4, seeds_B=noise[rows])
        torch.testing.assert_close(part, whole[rows])
    others = causal_attention(*qkv, dropout_rate=0.4, seeds_B=noise + torch.tensor([0, 1, 1, 1, -1]))
    changed = [not torch.allclose(mine, its) for mine, its in zip(whole, others, strict=True)]
    assert changed == [False, True, True, True, True]


def test_without_noise_nothing_is_dropped() -> None:
    qkv = random_qkv(2, 6, 6)
    torch.testing.assert_close(causal_attention(*qkv, dropout_rate=0.9), plain_attention(*qkv, 0, None))


@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
@pytest.mark.parametrize("kv_heads", [HEADS, 2])
@pytest.mark.parametrize("slopes", [None, SLOPES])
@pytest.mark.parametrize(("window", "stride"), [(0, 0), (7, 0), (130, 0), (7, 40), (7, 3)])
def test_flex_attentions_mask_and_bias_are_the_definition(
    window: int, stride: int, slopes: tuple[float, ...] | None, kv_heads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not compiled, so that what CUDA is asked for is checked on a machine without it."""
    from torch.nn.attention.flex_attention import flex_attention

    monkeypatch.setattr(attention, "_compiled_flex", lambda: flex_attention)
    q, k, v = (tensor.detach() for tensor in random_qkv(kv_heads, 150, 150))
    blocks = block_mask(150, window, stride, q.device)
    got = attention._flex_attention(q, k, v, blocks, slopes, kv_heads != HEADS)
    torch.testing.assert_close(got, plain_attention(q, k, v, window, slopes, stride=stride), rtol=1e-5, atol=1e-5)


@pytest.mark.gpu
@needs_cuda
@pytest.mark.parametrize("kv_heads", [HEADS, 2])
@pytest.mark.parametrize(
    ("window", "stride", "slopes"), [(100, 0, None), (0, 0, SLOPES), (100, 0, SLOPES), (40, 64, None), (40, 7, SLOPES)]
)
def test_cuda_attention_is_the_definition_in_value_and_gradients(
    window: int, stride: int, slopes: tuple[float, ...] | None, kv_heads: int
) -> None:
    generator = torch.Generator().manual_seed(0)
    shapes = [(2, heads, 256, 32) for heads in (HEADS, kv_heads, kv_heads)]
    qkv = [torch.randn(shape, generator=generator).cuda().requires_grad_() for shape in shapes]
    with torch.inference_mode():  # as an evaluation in front of training would
        evaluated = causal_attention(*qkv, window=window, slopes=slopes, stride=stride)
    got = causal_attention(*qkv, window=window, slopes=slopes, stride=stride)
    expected = plain_attention(*qkv, window, slopes, stride=stride)
    torch.testing.assert_close(evaluated.clone(), got.detach())
    torch.testing.assert_close(got, expected, rtol=1e-3, atol=1e-3)
    upstream = torch.randn(expected.shape, generator=generator).cuda()
    got_grads = torch.autograd.grad(got, qkv, upstream)
    for got_grad, grad in zip(got_grads, torch.autograd.grad(expected, qkv, upstream), strict=True):
        torch.testing.assert_close(got_grad, grad, rtol=5e-3, atol=5e-3)
