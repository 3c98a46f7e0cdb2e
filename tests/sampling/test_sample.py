"""What is generated: the same with and without a cache, chosen as asked, and spelled out whole."""

import itertools
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

from daybreak.data.tokenizer import Tokenizer, byte_tokenizer, character_tokenizer
from daybreak.model.cache import Cache
from daybreak.model.gpt import GPT, ModelConfig, build
from daybreak.sampling.choice import choose, kept_probabilities
from daybreak.sampling.generate import generate
from daybreak.sampling.sampler import Sampler
from daybreak.sampling.settings import SamplingConfig
from daybreak.sampling.text import continue_text, stream_text

CONTEXT, VOCABULARY = 8, 23
CPU = torch.device("cpu")
GREEDY = SamplingConfig(greedy=True)


def config_of(vocab_size: int = VOCABULARY, **settings: Any) -> ModelConfig:
    sizes: dict[str, Any] = {"layers": 2, "heads": 2, "dim": 16, "context": CONTEXT, "vocab_size": vocab_size}
    return ModelConfig(**(sizes | {"initialisation": {"std": 0.3}} | settings))


def make_model(vocab_size: int = VOCABULARY, **settings: Any) -> GPT:
    return build(config_of(vocab_size, **settings), 0, CPU)


def ids(model: GPT, prompt: Sequence[int], tokens: int, sampling: SamplingConfig, **settings: Any) -> list[list[int]]:
    """The continuations, each a list of ids."""
    settings = {"vocab_size": VOCABULARY} | settings
    made = generate(model, prompt, tokens=tokens, sampling=sampling, **settings)
    return torch.stack([chosen_B for chosen_B, _ in made], dim=1).tolist()


class Scripted(GPT):
    """A model that says what it is told to, row by row, and 0 after that; remembers what it was shown."""

    def __init__(self, vocab_size: int, rows: Sequence[Sequence[int]]) -> None:
        super().__init__(config_of(vocab_size))
        self.rows, self.steps = rows, 0
        self.shown: list[Tensor] = []

    def next_logits(self, tokens_BT: Tensor, cache: Cache | None = None) -> Tensor:
        self.shown.append(tokens_BT)
        logits = torch.zeros(*tokens_BT.shape, self.config.vocab_size)
        for row, script in enumerate(self.rows):
            logits[row, -1, script[self.steps] if self.steps < len(script) else 0] = 100.0
        self.steps += 1
        if cache is not None:
            cache.advance(tokens_BT.shape[1])
        return logits[:, -1]


@pytest.mark.parametrize(
    ("position", "sampling", "prompt_length"),
    list(
        itertools.product(
            ["learned", "rotary", "alibi", "sinusoidal", "none"],
            [GREEDY, SamplingConfig(seed=3), SamplingConfig(temperature=0.7, top_k=9, top_p=0.9)],
            [1, 5, CONTEXT - 1, CONTEXT, 20],
        )
    ),
)
def test_cached_generation_is_the_uncached_also_past_the_contexts_end(
    position: str, sampling: SamplingConfig, prompt_length: int
) -> None:
    model = make_model(position={"kind": position})
    prompt = [(7 * i + 3) % VOCABULARY for i in range(prompt_length)]
    cached = ids(model, prompt, 25, sampling, count=2)
    assert cached == ids(model, prompt, 25, sampling, count=2, cached=False)
    assert len({token for row in cached for token in row}) > 1


@pytest.mark.parametrize("context", [1, 2, 3])
def test_small_contexts_do_too(context: int) -> None:
    model = make_model(context=context)
    assert ids(model, [1, 2, 3], 9, GREEDY) == ids(model, [1, 2, 3], 9, GREEDY, cached=False)


@pytest.mark.parametrize(
    "attention", [{"windows": (3, 0)}, {"kv_heads": 1}, {"windows": (2,), "strides": (3, 0)}, {"windows": (1, 0)}]
)
def test_windows_strides_and_grouped_heads_do_too(attention: dict[str, Any]) -> None:
    model = make_model(attention=attention)
    assert ids(model, [1, 2, 3], 20, GREEDY) == ids(model, [1, 2, 3], 20, GREEDY, cached=False)


def test_with_a_cache_each_new_token_costs_one_position_until_the_context_is_full() -> None:
    model = Scripted(VOCABULARY, [list(range(10, 20))])
    ids(model, [1, 2, 3], 8, GREEDY)
    lengths = [shown.shape[1] for shown in model.shown]
    assert lengths == [3, 1, 1, 1, 1, 1, CONTEXT // 2 + 1, 1]
    assert model.shown[6].tolist() == [[11, 12, 13, 14, 15]]


def test_greedy_takes_the_likeliest_token_of_all_that_came_before() -> None:
    model, seen = make_model(), [4, 9]
    made = ids(model, seen, CONTEXT - 2, GREEDY)[0]
    with torch.no_grad():
        for token in made:
            assert token == model.logits(torch.tensor([seen]))[0, -1].argmax().item()
            seen = [*seen, token]


def test_past_the_contexts_end_the_model_sees_the_later_half() -> None:
    model, seen = make_model(position={"kind": "rotary"}), [4, 9]
    with torch.no_grad():
        for token in ids(model, seen, 3 * CONTEXT, GREEDY)[0]:
            assert token == model.logits(torch.tensor([seen]))[0, -1].argmax().item()
            seen = [*(seen[-(CONTEXT // 2) :] if len(seen) == CONTEXT else seen), token]


def test_of_a_long_prompt_the_last_tokens_are_seen() -> None:
    model = make_model()
    prompt = [i % VOCABULARY for i in range(50)]
    assert ids(model, prompt, 5, GREEDY) == ids(model, prompt[-CONTEXT:], 5, GREEDY)
    assert ids(model, prompt, 5, GREEDY) != ids(model, prompt[:CONTEXT], 5, GREEDY)


some_logits = 3 * torch.randn(6, VOCABULARY, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("temperature", [0.5, 1.0, 1.7])
@pytest.mark.parametrize("top_k", [None, 1, 5, VOCABULARY, 1000])
@pytest.mark.parametrize("top_p", [None, 0.01, 0.3, 0.9, 0.999])
def test_what_is_kept_is_what_transformers_keeps(temperature: float, top_k: int | None, top_p: float | None) -> None:
    from transformers import TemperatureLogitsWarper, TopKLogitsWarper, TopPLogitsWarper

    scores = TemperatureLogitsWarper(temperature)(None, some_logits)
    if top_k:
        scores = TopKLogitsWarper(top_k)(None, scores)
    if top_p:
        scores = TopPLogitsWarper(top_p)(None, scores)
    kept = kept_probabilities(some_logits, SamplingConfig(temperature=temperature, top_k=top_k, top_p=top_p))
    torch.testing.assert_close(kept, scores.softmax(-1))


def test_top_p_of_one_keeps_all() -> None:
    torch.testing.assert_close(kept_probabilities(some_logits, SamplingConfig(top_p=1.0)), some_logits.softmax(-1))


def test_top_p_keeps_the_fewest_that_sum_to_p() -> None:
    logits = torch.tensor([[0.5, 0.1, 0.25, 0.15]]).log()
    for top_p, kept in ((0.4, [0]), (0.6, [0, 2]), (0.8, [0, 2, 3]), (0.95, [0, 1, 2, 3])):
        probabilities = kept_probabilities(logits, SamplingConfig(top_p=top_p))[0]
        assert probabilities.nonzero().flatten().tolist() == kept
        assert probabilities.sum().item() == pytest.approx(1.0)


def test_draws_have_the_probabilities_kept() -> None:
    draws, sampling = 4000, SamplingConfig(temperature=1.5, top_k=4)
    logits = torch.tensor([2.0, 1.0, 0.0, 1.5, -1.0, -3.0])
    generators = [torch.Generator().manual_seed(row) for row in range(draws)]
    chosen = choose(logits.expand(draws, -1), sampling, generators)
    shares = chosen.bincount(minlength=6) / draws
    expected = torch.tensor([2.0, 1.0, 0.0, 1.5, -torch.inf, -torch.inf]).div(1.5).softmax(-1)
    error = (expected * (1 - expected) / draws).sqrt()
    assert ((shares - expected).abs() <= 5 * error).all()


def test_what_has_no_probability_is_never_drawn() -> None:
    logits = torch.full((500, 9), -torch.inf)
    logits[:, [2, 5]] = 0.0  # with words of no probability first, between and last
    generators = [torch.Generator().manual_seed(row) for row in range(500)]
    assert set(choose(logits, SamplingConfig(), generators).tolist()) == {2, 5}


def test_a_seed_repeats_and_seeds_differ() -> None:
    model = make_model()
    first, again, other = (ids(model, [1], 20, SamplingConfig(seed=seed), count=3) for seed in (1, 1, 2))
    assert first == again
    assert all(mine != its for mine, its in itertools.product(first, other))


@pytest.mark.parametrize("seed", [0, 2**32, 2**63 - 1])
def test_every_seed_that_is_accepted_can_be_drawn_from(seed: int) -> None:
    assert len(ids(make_model(), [1], 3, SamplingConfig(seed=seed), count=2)) == 2


def test_a_continuation_does_not_depend_on_how_many_there_are() -> None:
    model = make_model()
    three = ids(model, [1, 2], 20, SamplingConfig(), count=3)
    assert ids(model, [1, 2], 20, SamplingConfig(), count=1) == three[:1]
    assert ids(model, [1, 2], 20, SamplingConfig(), count=2) == three[:2]
    assert three[0] != three[1] != three[2] != three[0]


def test_the_global_random_state_is_neither_read_nor_changed() -> None:
    model = make_model()
    torch.manual_seed(1)
    before = torch.get_rng_state()
    first = ids(model, [1], 10, SamplingConfig())
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(2)
    assert ids(model, [1], 10, SamplingConfig()) == first


@pytest.mark.parametrize("sampling", [GREEDY, SamplingConfig(), SamplingConfig(top_k=3), SamplingConfig(top_p=0.9)])
def test_padding_ids_are_never_chosen_however_likely(sampling: SamplingConfig) -> None:
    model = make_model(head={"tied": False})
    with torch.no_grad():
        assert model.head.weight is not None
        assert model.final_norm is not None
        model.final_norm.bias.fill_(1.0)
        model.head.weight[15:] = 100.0  # times features that sum to 16
        assert model.logits(torch.tensor([[1]]))[0, -1, 15:].min() > 1000
    made = ids(model, [1], 30, sampling, count=3, vocab_size=15)
    assert max(max(row) for row in made) < 15
    assert max(max(row) for row in ids(model, [1], 30, sampling, count=3)) >= 15


def scripted(tokenizer: Tokenizer, *rows: Sequence[int]) -> Scripted:
    return Scripted(tokenizer.vocab_size, rows)


def streamed(model: GPT, tokenizer: Tokenizer, prompt: str, tokens: int) -> list[str]:
    return [piece.text for piece in stream_text(model, tokenizer, prompt, tokens=tokens, sampling=GREEDY)]


@pytest.mark.parametrize("text", ["plain", "naïve café", "日本語 🌅 ends"])
def test_streamed_bits_join_to_the_text_also_within_characters(text: str) -> None:
    tokenizer = byte_tokenizer()
    script = [*text.encode(), tokenizer.end_of_text]
    (made,) = continue_text(scripted(tokenizer, script), tokenizer, "A", tokens=99, sampling=GREEDY)
    bits = streamed(scripted(tokenizer, script), tokenizer, "A", 99)
    assert (made.completion, made.text, made.ended) == (text, "A" + text, True)
    assert "".join(bits) == text
    assert len([bit for bit in bits if bit]) == len(text)


@pytest.mark.parametrize("ended", [True, False])
def test_streamed_bits_join_to_the_text_that_breaks_off_within_a_character(ended: bool) -> None:
    tokenizer = byte_tokenizer()
    script = [*"a日".encode()[:-1], *([tokenizer.end_of_text] if ended else [])]
    (made,) = continue_text(scripted(tokenizer, script), tokenizer, "", tokens=len(script), sampling=GREEDY)
    bits = streamed(scripted(tokenizer, script), tokenizer, "", len(script))
    assert made.completion == "a\ufffd"
    assert made.ended == ended
    assert "".join(bits) == made.completion


def test_end_of_text_ends_a_continuation_and_not_the_others() -> None:
    tokenizer = character_tokenizer(["abcdef"])
    end = tokenizer.end_of_text
    model = scripted(tokenizer, [1, end, 2, 3, 4], [1, 2, 3, end, 4], [1, 2, 3, 4, 5])
    made = continue_text(model, tokenizer, "f", tokens=5, count=3, sampling=GREEDY)
    assert [each.completion for each in made] == ["b", "bcd", "bcdef"]
    assert [each.ended for each in made] == [True, True, False]


def test_generation_stops_when_all_have_ended() -> None:
    tokenizer = character_tokenizer(["abcdef"])
    model = scripted(tokenizer, [1, tokenizer.end_of_text], [tokenizer.end_of_text])
    made = continue_text(model, tokenizer, "", tokens=50, count=2, sampling=GREEDY)
    assert [each.completion for each in made] == ["b", ""]
    assert model.steps == 2


def test_a_prompt_stands_at_the_beginning_of_a_document() -> None:
    tokenizer = character_tokenizer(["abcdef"])
    for prompt, shown in (("", [6]), ("fa", [6, 5, 0])):
        model = scripted(tokenizer, [1])
        continue_text(model, tokenizer, prompt, tokens=1, sampling=GREEDY)
        assert model.shown[0].tolist() == [shown]


def test_a_sampler_draws_one_text_with_its_prompt_again_and_again() -> None:
    tokenizer = byte_tokenizer()
    sampler = Sampler(None, tokenizer, "day", 12, SamplingConfig(seed=5))
    model = make_model(tokenizer.vocab_size)
    (made,) = continue_text(model, tokenizer, "day", tokens=12, sampling=SamplingConfig(seed=5))
    assert sampler.draw(model) == sampler.draw(model) == made.text
    assert made.text.startswith("day")
    assert len(made.completion) > 0


@pytest.mark.parametrize(
    "settings",
    [
        {"greedy": True, "temperature": 0.5},
        {"greedy": True, "top_k": 3},
        {"greedy": True, "top_p": 0.9},
    ],
)
def test_greedy_excludes_the_settings_of_drawing(settings: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="greedy takes the likeliest token"):
        SamplingConfig(**settings)


@pytest.mark.parametrize(
    "settings",
    [
        {"temperature": 0.0},
        {"temperature": -1.0},
        {"top_k": 0},
        {"top_p": 0.0},
        {"top_p": 1.1},
        {"seed": -1},
        {"temprature": 1.0},
    ],
)
def test_settings_out_of_range_or_unknown_are_refused_by_name(settings: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(settings))):
        SamplingConfig(**settings)
