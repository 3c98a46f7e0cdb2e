"""Trained weights resized: what the old words and places give stays as it was."""

from typing import Any

import pytest
import torch
from torch import Tensor

from daybreak.model.gpt import GPT, ModelConfig, build
from daybreak.model.resize import Words, resized

CPU = torch.device("cpu")
WORDS = 24
TOKENS = torch.arange(2 * 8).reshape(2, 8) % WORDS
SIZES: dict[str, Any] = {"layers": 2, "heads": 2, "dim": 16, "context": 8, "vocab_size": WORDS}
SHAPES: dict[str, dict[str, Any]] = {
    "tied": {},
    "untied": {"head": {"tied": False}},
    "values": {"lookup": {"values": "all"}, "position": {"kind": "rotary"}},
    "logit-norm": {"extra_norms": {"over_logits": True}},
}


def trained(**settings: Any) -> GPT:
    """A model whose every number is its own."""
    model = build(ModelConfig(**(SIZES | settings)), 1, CPU)
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.3)
    return model


def weights_of(model: GPT) -> dict[str, Tensor]:
    return {name: parameter.detach().clone() for name, parameter in model.named_parameters()}


def with_weights(config: ModelConfig, weights: dict[str, Tensor]) -> GPT:
    model = build(config, 0, CPU)
    model.load_state_dict(weights)
    return model


def after(model: GPT, *, known: int = WORDS, needed: int = WORDS, **sizes: int) -> GPT:
    config = model.config.model_copy(update=sizes)
    return with_weights(config, resized(weights_of(model), model.config, config, Words(known, needed), seed=7))


@pytest.mark.parametrize("shape", SHAPES)
def test_more_words_leave_the_logits_of_the_old_ones(shape: str) -> None:
    model = trained(**SHAPES[shape])
    more = after(model, needed=WORDS + 6, vocab_size=WORDS + 6)
    before, now = model.logits(TOKENS), more.logits(TOKENS)
    assert now.shape[-1] == WORDS + 6
    # eps, 1e-5, weighs differently against a variance that is smaller.
    torch.testing.assert_close(now[..., :WORDS], before, rtol=0, atol=1e-4 if shape == "logit-norm" else 0)


@pytest.mark.parametrize("shape", ["tied", "untied", "values"])
def test_a_new_word_is_no_likelier_than_words_are_on_average(shape: str) -> None:
    """Hewitt 2021: by Jensen's inequality exp of a mean is at most the mean of exp."""
    model = trained(**SHAPES[shape])
    more = after(model, needed=WORDS + 1, vocab_size=WORDS + 1)
    before, now = model.logits(TOKENS), more.logits(TOKENS)
    torch.testing.assert_close(now[..., WORDS], before.mean(-1), rtol=1e-4, atol=1e-4)
    assert bool((now.softmax(-1)[..., WORDS] <= 1 / WORDS).all())


def test_padding_that_became_words_begins_at_the_mean_of_those_that_were() -> None:
    model = trained(head={"tied": False})
    more = after(model, known=20, needed=22)
    old = weights_of(model)
    for name in ("embedding.weight", "head.weight"):
        now = weights_of(more)[name]
        torch.testing.assert_close(now[20:22], old[name][:20].mean(0).expand(2, -1))
        assert torch.equal(now[:20], old[name][:20])
        assert torch.equal(now[22:], old[name][22:])


def test_padding_under_a_norm_over_the_logits_stays() -> None:
    model = trained(extra_norms={"over_logits": True})
    old, now = weights_of(model), weights_of(after(model, known=20, needed=22))
    assert all(torch.equal(old[name], now[name]) for name in old)


def test_fewer_words_leave_the_logits_of_those_that_stay() -> None:
    model = trained(head={"tied": False}, lookup={"values": "alternate"})
    fewer = after(model, known=16, needed=16, vocab_size=16)
    tokens = TOKENS % 16
    torch.testing.assert_close(fewer.logits(tokens), model.logits(tokens)[..., :16], rtol=0, atol=0)


def test_more_positions_leave_the_first_ones_and_begin_as_in_a_new_model() -> None:
    model = trained()
    longer = after(model, context=12)
    assert torch.equal(longer.logits(TOKENS), model.logits(TOKENS))
    new = build(longer.config, 7, CPU).state_dict()["position.weight"]
    assert torch.equal(weights_of(longer)["position.weight"][8:], new[8:])
    shorter = after(model, context=5)
    assert torch.equal(shorter.logits(TOKENS[:, :5]), model.logits(TOKENS[:, :5]))


@pytest.mark.parametrize("kind", ["rotary", "alibi", "sinusoidal", "none"])
def test_positions_without_a_table_need_nothing(kind: str) -> None:
    model = trained(position={"kind": kind})
    assert torch.equal(after(model, context=12).logits(TOKENS), model.logits(TOKENS))


@pytest.mark.parametrize(
    ("settings", "words", "said"),
    [
        ({"lookup": {"ngrams": [2]}}, 30, "model.lookup.ngrams"),
        ({"extra_norms": {"over_logits": True}}, 16, "trained on all of them"),
        ({"extra_norms": {"over_logits": True}, "norm": {"kind": "rmsnorm"}}, 30, "RMSNorm"),
    ],
)
def test_what_would_change_every_logit_is_refused(settings: dict[str, Any], words: int, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        after(trained(**settings), known=16, needed=16, vocab_size=words)
