"""What is generated: the same alone and among others, with a cache and without, also past the context's end."""

import itertools
from typing import Any

import pytest
import torch

from daybreak.errors import UserError
from daybreak.sampling.batch import room_for
from daybreak.sampling.generate import generate, make_row
from daybreak.sampling.settings import SamplingConfig
from plain_sampling import CONTEXT, GREEDY, VOCABULARY, Scripted, ids, make_model, one_without_cache, together

DRAWN = SamplingConfig(seed=3)
PENALISED = SamplingConfig(temperature=0.7, top_k=9, repetition_penalty=1.3)
PROMPTS = [[(7 * i + 3 * length) % VOCABULARY for i in range(length)] for length in (1, 5, 8, 20, 3, 5)]
ASKED = [(prompt, index % 3, 4 + 3 * index) for index, prompt in enumerate(PROMPTS)]

models: list[dict[str, Any]] = [
    {"position": {"kind": "learned"}},
    {"position": {"kind": "rotary"}},
    {"position": {"kind": "alibi"}},
    {"position": {"kind": "sinusoidal", "learned_scale": True}},
    {"position": {"kind": "none"}},
    {"lookup": {"ngrams": [2, 3], "values": "all"}},
    {"lookup": {"ngrams": [5], "rows": 64}, "position": {"kind": "rotary"}},
    {"attention": {"windows": (3, 0)}, "position": {"kind": "alibi"}},
    {"attention": {"kv_heads": 1, "qk_norm": True}, "position": {"kind": "rotary"}},
    {"attention": {"windows": (2,), "strides": (3, 0)}, "residual": "parallel"},
    {"attention": {"windows": (1, 0)}, "embedding_skip": True},
]


@pytest.mark.parametrize(
    ("settings", "sampling"), list(zip(models, itertools.cycle([DRAWN, GREEDY, PENALISED]), strict=False)), ids=str
)
def test_rows_of_all_lengths_together_are_each_what_it_is_alone_without_cache(
    settings: dict[str, Any], sampling: SamplingConfig
) -> None:
    """Some begin full, some become full at different times, some end early and make room for others."""
    model = make_model(**settings)
    alone = [one_without_cache(model, *row, sampling) for row in ASKED]
    assert together(model, ASKED, sampling) == alone
    assert together(model, ASKED[::-1], sampling, room=3) == alone[::-1]
    assert together(model, ASKED[:1], sampling) == alone[:1]
    assert len({token for row in alone for token in row}) > 1


@pytest.mark.parametrize("context", [1, 2, 3, 40])
def test_small_and_large_contexts_do_too(context: int) -> None:
    model = make_model(context=context)
    alone = [one_without_cache(model, *row, DRAWN) for row in ASKED]
    assert together(model, ASKED, DRAWN, room=4) == alone


def test_many_rows_of_random_lengths_do_too() -> None:
    """Long enough to give up columns, and to move right for a longer prompt."""
    generator = torch.Generator().manual_seed(0)
    model = make_model(context=48, position={"kind": "rotary"}, layers=1)
    asked = []
    for index, (length, tokens) in enumerate(torch.randint(1, 60, (30, 2), generator=generator).tolist()):
        asked.append((torch.randint(VOCABULARY, (length,), generator=generator).tolist(), index, tokens))
    alone = [one_without_cache(model, *row, DRAWN) for row in asked[::3]]
    assert together(model, asked, DRAWN, room=8)[::3] == alone
    assert together(model, asked, DRAWN)[::3] == alone


def test_what_several_rows_have_seen_alike_is_read_once() -> None:
    model = Scripted(VOCABULARY, [[1, 2]] * 6)
    ids(model, [4, 5, 6], 2, GREEDY, count=6)
    assert [shown.shape for shown in model.shown] == [(1, 3), (6, 1)]


def test_with_a_cache_each_new_token_costs_one_position_until_the_context_is_full() -> None:
    model = Scripted(VOCABULARY, [list(range(10, 20))])
    ids(model, [1, 2, 3], 8, GREEDY)
    lengths = [shown.shape[1] for shown in model.shown]
    assert lengths == [3, 1, 1, 1, 1, 1, CONTEXT // 2 + 1, 1]
    assert model.shown[6].tolist() == [[11, 12, 13, 14, 15]]


def test_a_row_that_slides_is_read_anew_and_the_others_go_on() -> None:
    model = Scripted(VOCABULARY, [])
    together(model, [([1, 2, 3], 0, 9), ([1, 2, 3, 4, 5], 0, 9)], GREEDY)
    shapes = [tuple(shown.shape) for shown in model.shown]
    slide = [(1, 1), (1, 5)]
    assert shapes == [(1, 5), (1, 3), (2, 1), (2, 1), (2, 1), *slide, (2, 1), *slide, (2, 1), *slide]


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


def test_log_probabilities_are_those_of_a_pass_over_the_whole_text() -> None:
    model, prompt = make_model(context=40), [3, 1, 4]
    sampling = SamplingConfig(temperature=0.5, top_k=5, repetition_penalty=1.5, seed=2)
    nothing = torch.zeros(VOCABULARY, dtype=torch.bool)
    row = make_row(prompt, tokens=20, sampling=sampling, mentioned=nothing)
    made = [step[0] for step in generate(model, [row], vocab_size=VOCABULARY, sampling=sampling)]
    assert not nothing.any()
    tokens = [chosen.token for chosen in made]
    with torch.no_grad():
        logits = model.logits(torch.tensor([[*prompt, *tokens[:-1]]]))[0, len(prompt) - 1 :].double()
    expected = logits.log_softmax(-1)[torch.arange(20), tokens]
    assert [chosen.log_probability for chosen in made] == pytest.approx(expected.tolist(), abs=1e-5)


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


def test_gradients_are_as_they_were_between_the_steps() -> None:
    steps = generate(make_model(), [make_row([1], tokens=3, sampling=GREEDY)], vocab_size=9, sampling=GREEDY)
    assert [torch.is_grad_enabled() for _ in steps] == [True] * 3


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


def test_one_row_whose_predictions_are_not_numbers_is_not_hidden_by_another() -> None:
    model = make_model()
    with torch.no_grad():
        model.embedding.weight[7] = torch.nan
    with pytest.raises(UserError, match="diverged"):
        together(model, [([1, 2], 0, 4), ([7], 0, 4)], SamplingConfig())


def test_room_is_what_a_gigabyte_holds() -> None:
    config = make_model().config
    assert room_for(config, CONTEXT) == 64
    large = config.model_copy(update={"layers": 48, "dim": 1600, "heads": 25, "context": 1024})
    assert room_for(large, 1024) == 1
    middle = config.model_copy(update={"layers": 12, "dim": 768, "heads": 12, "context": 1024})
    assert 5 <= room_for(middle, 1024) <= 12


def test_no_rows_make_no_steps() -> None:
    assert together(make_model(), [], GREEDY) == []
