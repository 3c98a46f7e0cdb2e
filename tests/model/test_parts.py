"""What must hold for every combination of parts, and each part against its formula."""

import itertools
import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from daybreak.model.cache import Cache
from daybreak.model.gpt import GPT, ModelConfig, build, count_multiplied, count_parameters
from daybreak.model.mlp import MLP, GatedMLPConfig, PlainMLPConfig
from daybreak.model.norm import Norm, NormConfig

CPU = torch.device("cpu")
CONTEXT, VOCABULARY = 9, 23

positions: list[dict[str, Any]] = [
    {"kind": "learned"},
    {"kind": "sinusoidal", "learned_scale": True},
    {"kind": "rotary"},
    {"kind": "alibi"},
    {"kind": "none"},
]
norms: list[dict[str, Any]] = [
    {"norm": {"kind": "layernorm"}},
    {"norm": {"kind": "rmsnorm"}, "extra_norms": {"after_embedding": True, "shared": True, "over_logits": True}},
]
mlps: list[dict[str, Any]] = [{"kind": "plain"}, {"kind": "glu", "activation": "silu", "hidden": 24}]
attentions: list[dict[str, Any]] = [
    {},
    {"kv_heads": 1, "qk_norm": True},
    {"windows": (3, 0)},
    {"windows": (1, 4), "strides": (0, 2), "kv_heads": 2},
]

every_combination = pytest.mark.parametrize(
    ("position", "residual", "norm", "mlp", "attention"),
    [
        pytest.param(
            *parts,
            id="-".join(str(part.get("kind", part) if isinstance(part, dict) else part) for part in parts),
        )
        for parts in itertools.product(positions, ["sequential", "parallel"], norms, mlps, attentions)
    ],
)


def make_model(seed: int = 0, **settings: Any) -> GPT:
    """A model whose weights are large enough for every part to matter."""
    sizes: dict[str, Any] = {"layers": 2, "heads": 4, "dim": 16, "context": CONTEXT, "vocab_size": VOCABULARY}
    return build(ModelConfig(**(sizes | {"initialisation": {"std": 0.3}} | settings)), seed, CPU)


def some_tokens(rows: int = 2, length: int = CONTEXT) -> Tensor:
    return torch.randint(VOCABULARY, (rows, length), generator=torch.Generator().manual_seed(4))


@every_combination
@torch.no_grad()
def test_a_token_changes_no_logits_before_it(position: Any, residual: Any, norm: Any, mlp: Any, attention: Any) -> None:
    model = make_model(position=position, residual=residual, mlp=mlp, attention=attention, **norm)
    tokens = some_tokens()
    before = model.logits(tokens)
    for t in (1, 5, CONTEXT - 1):
        changed = tokens.clone()
        changed[:, t] = (changed[:, t] + 1) % VOCABULARY
        after = model.logits(changed)
        torch.testing.assert_close(after[:, :t], before[:, :t], rtol=0, atol=1e-6)
        assert ((after[:, t] - before[:, t]).abs().amax(-1) > 1e-2).all()


@every_combination
@torch.no_grad()
def test_cached_logits_are_the_uncached(position: Any, residual: Any, norm: Any, mlp: Any, attention: Any) -> None:
    """In a first part and single steps behind it, in single steps alone, and in chunks."""
    model = make_model(position=position, residual=residual, mlp=mlp, attention=attention, **norm)
    tokens = some_tokens()
    whole = model.logits(tokens)
    for lengths in ([4, 1, 1, 1, 1, 1], [1] * CONTEXT, [3, 4, 2], [CONTEXT]):
        cache = Cache(model.config.layers, CONTEXT)
        parts = [model.logits(part, cache) for part in tokens.split(lengths, dim=1)]
        assert cache.length == CONTEXT
        torch.testing.assert_close(torch.cat(parts, dim=1), whole, rtol=1e-4, atol=1e-5)


def test_an_earlier_token_reaches_every_later_logit() -> None:
    model = make_model()
    tokens = some_tokens()
    changed = tokens.clone()
    changed[:, 0] = (changed[:, 0] + 1) % VOCABULARY
    with torch.no_grad():
        assert ((model.logits(changed) - model.logits(tokens)).abs().amax(-1) > 1e-3).all()


def test_windows_repeat_over_the_layers_and_add_up() -> None:
    """Windows of 2 and 3 see 1 and 2 back, so a token reaches 3 positions on and no further."""
    model = make_model(position={"kind": "none"}, attention={"windows": (2, 3)})
    tokens = some_tokens()
    changed = tokens.clone()
    changed[:, 1] = (changed[:, 1] + 1) % VOCABULARY
    with torch.no_grad():
        difference = (model.logits(changed) - model.logits(tokens)).abs().amax(-1).amax(0)
    assert [bool(each > 1e-4) for each in difference] == [False, True, True, True, True, *[False] * 4]
    windows = [block.attention.window for block in make_model(layers=5, attention={"windows": (2, 0)}).blocks]
    assert windows == [2, 0, 2, 0, 2]
    for cycles in ({"windows": (2,), "strides": (3, 0)}, {"windows": (2, 2), "strides": (3, 0)}):
        blocks = make_model(layers=5, attention=cycles).blocks
        assert [block.attention.stride for block in blocks] == [3, 0, 3, 0, 3]
    blocks = make_model(layers=3, attention={"windows": (2, 4), "strides": (3,)}).blocks
    assert [(block.attention.window, block.attention.stride) for block in blocks] == [(2, 3), (4, 3), (2, 3)]


def test_a_cache_refuses_what_does_not_fit() -> None:
    cache = Cache(2, 4)
    with torch.no_grad(), pytest.raises(ValueError, match="5 positions do not fit into a cache of 4"):
        make_model().logits(some_tokens(length=5), cache)


@pytest.mark.parametrize("bias", [True, False])
def test_layernorm_is_torchs(bias: bool) -> None:
    ours, theirs = Norm(NormConfig(eps=1e-3), 16, bias), nn.LayerNorm(16, eps=1e-3, bias=bias)
    assert [name for name, _ in ours.named_parameters()] == [name for name, _ in theirs.named_parameters()]
    with torch.no_grad():
        for mine, its in zip(ours.parameters(), theirs.parameters(), strict=True):
            mine.copy_(its.normal_())
    x = torch.randn(3, 5, 16)
    torch.testing.assert_close(ours(x), theirs(x))


def test_rmsnorm_is_torchs_and_has_no_bias() -> None:
    ours, theirs = Norm(NormConfig(kind="rmsnorm", eps=1e-3), 16, bias=True), nn.RMSNorm(16, eps=1e-3)
    assert ours.bias is None
    with torch.no_grad():
        ours.weight.copy_(theirs.weight.normal_())
    x = torch.randn(3, 5, 16)
    torch.testing.assert_close(ours(x), theirs(x))


@pytest.mark.parametrize("kind", ["layernorm", "rmsnorm"])
def test_a_norm_begins_with_mean_square_one(kind: Any) -> None:
    norm = Norm(NormConfig(kind=kind), 64, bias=True)
    norm.initialise()
    out = norm(5 * torch.randn(7, 64))
    torch.testing.assert_close(out.square().mean(-1), torch.ones(7), rtol=1e-4, atol=1e-4)


def test_rmsnorm_squares_in_fp32() -> None:
    norm = Norm(NormConfig(kind="rmsnorm"), 8, bias=False)
    norm.initialise()
    huge = torch.full((1, 8), 1000.0, dtype=torch.float16)  # whose square overflows fp16
    torch.testing.assert_close(norm(huge).float(), torch.ones(1, 8))


activation_formulas = {
    "gelu": lambda x: x * 0.5 * (1 + math.erf(x / math.sqrt(2))),
    "gelu_tanh": lambda x: 0.5 * x * (1 + math.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))),
    "silu": lambda x: x / (1 + math.exp(-x)),
    "relu": lambda x: max(x, 0.0),
    "relu2": lambda x: max(x, 0.0) ** 2,
}


@pytest.mark.parametrize("activation", list(activation_formulas))
@pytest.mark.parametrize("gated", [False, True])
@pytest.mark.parametrize("bias", [False, True])
@torch.no_grad()
def test_an_mlp_is_its_formula(activation: Any, gated: bool, bias: bool) -> None:
    hidden, dim = 12, 8
    config = (
        GatedMLPConfig(kind="glu", activation=activation, hidden=hidden)
        if gated
        else PlainMLPConfig(activation=activation, hidden=hidden)
    )
    mlp = MLP(config, dim, bias, dropout=0.0)
    x = torch.randn(2, 3, dim)
    up = x @ mlp.up.weight.T + (mlp.up.bias if bias else 0.0)
    activated = up[..., :hidden].clone().apply_(activation_formulas[activation])
    if gated:
        activated = activated * up[..., hidden:]
    expected = activated @ mlp.down.weight.T + (mlp.down.bias if bias else 0.0)
    torch.testing.assert_close(mlp(x), expected, rtol=1e-5, atol=1e-6)


def test_a_plain_mlp_is_four_times_as_wide_unless_stated() -> None:
    assert MLP(PlainMLPConfig(), 8, True, 0.0).up.out_features == 32
    assert MLP(PlainMLPConfig(hidden=11), 8, True, 0.0).up.out_features == 11


@torch.no_grad()
def test_the_soft_cap_is_c_tanh_of_logits_over_c() -> None:
    plain, capped = make_model().logits(some_tokens()), make_model(head={"soft_cap": 0.5}).logits(some_tokens())
    assert plain.abs().max() > 1.0
    assert capped.abs().max() <= 0.5
    torch.testing.assert_close(capped, 0.5 * torch.tanh(plain / 0.5))


@torch.no_grad()
def test_a_tied_head_reads_the_embedding_and_an_untied_its_own_weight() -> None:
    for tied in (True, False):
        model = make_model(head={"tied": tied})
        weight = model.embedding.weight if tied else model.head.weight
        assert weight is not None
        torch.testing.assert_close(model.logits(some_tokens()), model.features(some_tokens()) @ weight.T)
    names = {name for name, _ in make_model().named_parameters()}
    untied_names = {name for name, _ in make_model(head={"tied": False}).named_parameters()}
    assert untied_names - names == {"head.weight"}


def test_a_tied_embedding_has_one_gradient_of_both_uses() -> None:
    tokens = torch.zeros(1, 2, dtype=torch.long)
    model = make_model()
    model(tokens, tokens).backward()
    grad = model.embedding.weight.grad
    assert grad is not None
    assert (grad.abs().amax(-1) > 0).all()  # of ids that are never read too: the head's softmax reaches all


def test_gpt2_has_124_million_parameters() -> None:
    sizes: dict[str, Any] = {"layers": 12, "heads": 12, "dim": 768, "context": 1024, "vocab_size": 50_257}
    config = ModelConfig(**sizes)
    assert count_parameters(config) == 124_439_808
    assert count_multiplied(config) == 124_439_808 - 1024 * 768
    assert count_parameters(ModelConfig(**sizes, head={"tied": False})) == 124_439_808 + 50_257 * 768
    rotary = ModelConfig(**sizes, position={"kind": "rotary"})
    assert count_parameters(rotary) == count_multiplied(rotary) == count_multiplied(config)


def test_a_shared_norm_is_used_twice_and_counted_once() -> None:
    own, shared = {"after_embedding": True}, {"after_embedding": True, "shared": True}
    model = make_model(extra_norms=shared)
    assert model.final_norm is None
    assert model.embedding_norm is not None
    assert count_parameters(make_model(extra_norms=own).config) - count_parameters(model.config) == 2 * 16
    calls: list[Tensor] = []
    model.embedding_norm.register_forward_hook(lambda _module, _inputs, out: calls.append(out))
    features = model.features(some_tokens())
    assert len(calls) == 2
    assert torch.equal(calls[1], features)


@pytest.mark.parametrize("kind", ["layernorm", "rmsnorm"])
@torch.no_grad()
def test_the_norm_over_logits_normalises_each_positions_logits(kind: str) -> None:
    model = make_model(norm={"kind": kind}, extra_norms={"over_logits": True})
    assert model.head.norm is not None
    assert model.head.norm.weight.shape == (VOCABULARY,)
    model.head.norm.weight.normal_()
    raw = model.features(some_tokens()) @ model.embedding.weight.T
    layer = nn.LayerNorm(VOCABULARY) if kind == "layernorm" else nn.RMSNorm(VOCABULARY, eps=1e-5)
    layer.weight.copy_(model.head.norm.weight)
    torch.testing.assert_close(model.logits(some_tokens()), layer(raw), rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_qk_norm_makes_attention_blind_to_the_length_of_queries_and_keys() -> None:
    def output(qk_norm: bool, scale: float) -> Tensor:
        model = make_model(attention={"qk_norm": qk_norm}, layers=1)
        model.blocks[0].attention.qkv.weight[:32] *= scale  # queries and keys
        return model.logits(some_tokens())

    torch.testing.assert_close(output(True, 3.0), output(True, 1.0), rtol=1e-3, atol=1e-4)
    assert not torch.allclose(output(False, 3.0), output(False, 1.0), rtol=1e-2, atol=1e-2)


@torch.no_grad()
def test_logits_are_fp32_under_autocast() -> None:
    with torch.autocast("cpu", torch.bfloat16):
        logits = make_model().logits(some_tokens())
    assert logits.dtype == torch.float32
    torch.testing.assert_close(logits, make_model().logits(some_tokens()), rtol=0.1, atol=0.2)


@torch.no_grad()
def test_the_loss_is_the_sum_over_the_targets_of_the_logits_cross_entropy() -> None:
    model, tokens = make_model(), some_tokens()
    targets = tokens.roll(-1, dims=1)
    log_p = model.logits(tokens).log_softmax(-1)
    expected = -sum(log_p[b, t, targets[b, t]].item() for b in range(2) for t in range(CONTEXT))
    assert model(tokens, targets).item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"dim": 18}, "model.heads = 4"),
        ({"attention": {"kv_heads": 3}}, "model.attention.kv_heads = 3"),
        ({"dim": 12, "position": {"kind": "rotary"}}, "rotary"),
        ({"dim": 15, "heads": 3, "position": {"kind": "sinusoidal"}}, "sinusoidal"),
        ({"extra_norms": {"shared": True}}, "model.extra_norms.after_embedding"),
        ({"attention": {"windows": ()}}, "model.attention.windows"),
        ({"attention": {"windows": (4, -1)}}, "model.attention.windows"),
        ({"attention": {"windows": (4,), "strides": (2, -1)}}, "model.attention.strides"),
        ({"attention": {"windows": (4,), "strides": ()}}, "model.attention.strides"),
        ({"attention": {"strides": (2,)}}, "needs a window"),
        ({"attention": {"windows": (4, 0), "strides": (2,)}}, "needs a window"),
        ({"attention": {"windows": (4,) * 3, "strides": (2, 0)}}, "as many as model.attention.windows"),
    ],
)
def test_sizes_that_do_not_fit_are_refused_by_name(settings: dict[str, Any], named: str) -> None:
    with pytest.raises(ValueError, match=named):
        make_model(**settings)
