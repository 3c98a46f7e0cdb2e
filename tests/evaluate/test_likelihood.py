"""What is shared, batched and halved scores as a window alone does, for every kind of model; and text is cut as the
harness cuts it."""

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import daybreak.evaluate.likelihood as likelihood
from daybreak.evaluate.likelihood import Score, score_windows
from daybreak.evaluate.sharing import batches, families
from daybreak.evaluate.windows import Window, continuation_windows, rolling_windows
from daybreak.model.gpt import GPT, ModelConfig, build

WORDS = 61
CONTEXT = 48
MODELS: list[dict[str, Any]] = [
    {},
    {"position": {"kind": "rotary"}, "attention": {"qk_norm": True, "kv_heads": 2}},
    {"position": {"kind": "alibi"}, "residual": "parallel", "extra_norms": {"after_embedding": True}},
    {"position": {"kind": "sinusoidal", "learned_scale": True}, "mlp": {"kind": "glu", "hidden": 40}},
    {"lookup": {"ngrams": (2, 4), "rows": 97, "values": "alternate"}, "embedding_skip": True},
    {"attention": {"windows": (6, 0), "strides": (5, 0)}, "position": {"kind": "rotary"}},
    {"attention": {"windows": (7,)}, "head": {"tied": False, "soft_cap": 15.0}, "position": {"kind": "none"}},
    {"extra_norms": {"over_logits": True, "after_embedding": True, "shared": True}, "norm": {"kind": "rmsnorm"}},
]


def make_model(separator: int | None = None, **settings: Any) -> GPT:
    sizes: dict[str, Any] = {"layers": 2, "heads": 4, "dim": 32, "context": CONTEXT, "vocab_size": WORDS}
    config = ModelConfig(**(sizes | {"initialisation": {"std": 0.3}} | settings))
    return build(config, 0, torch.device("cpu"), separator=separator)


def some(count: int, seed: int) -> list[int]:
    return torch.randint(1, WORDS, (count,), generator=torch.Generator().manual_seed(seed)).tolist()


def questions() -> list[Window]:
    """Endings of several questions, one-token answers, near duplicates, and texts that share nothing."""
    windows: list[Window] = []
    for seed, length in enumerate((30, 30, 27, 18, 1)):
        context = some(length, seed)
        for ending in range(4):
            windows += continuation_windows(context, some(3 + ending + seed, 100 + ending), CONTEXT)
            windows += continuation_windows(context, some(1, 200 + ending), CONTEXT)
    header = some(24, 9)
    for seed in range(3):
        question = [*header, *some(5, 300 + seed)]
        windows += [window for end in (7, 8) for window in continuation_windows(question, [end], CONTEXT)]
    windows += continuation_windows(some(60, 7), some(8, 8), CONTEXT)  # cut to its end
    windows += rolling_windows(some(110, 11), 0, CONTEXT)
    return windows


def alone(model: GPT, window: Window) -> Score:
    """The definition: one row, all logits, no cache."""
    with torch.no_grad():
        logits = model.logits(torch.tensor([window.inputs]))[0, window.first_scored :].double()
    targets = torch.tensor(window.tokens[-window.scored :])
    log_p = logits.log_softmax(-1).gather(1, targets[:, None])
    return Score(log_p.sum().item(), bool((logits.argmax(-1) == targets).all()))


def assert_same(found: Sequence[Score], expected: Sequence[Score]) -> None:
    assert [score.greedy for score in found] == [score.greedy for score in expected]
    values = [score.log_likelihood for score in expected]
    assert [score.log_likelihood for score in found] == pytest.approx(values, rel=2e-5, abs=2e-5)


@pytest.mark.parametrize("settings", MODELS)
def test_windows_score_together_as_each_alone(settings: dict[str, Any]) -> None:
    model, windows = make_model(**settings), questions()
    found = score_windows(model, windows)
    assert_same(found, [alone(model, window) for window in windows])
    assert any(score.log_likelihood < -5 for score in found)


def test_some_are_greedy_and_some_are_not() -> None:
    model, context = make_model(), some(20, 3)
    with torch.no_grad():
        likeliest = int(model.next_logits(torch.tensor([context])).argmax())
    windows = [Window((*context, token), 1) for token in (likeliest, (likeliest + 1) % WORDS)]
    assert [score.greedy for score in score_windows(model, windows)] == [True, False]


def test_a_model_of_documents_reads_one_document() -> None:
    model, windows = make_model(separator=0), [Window((0, *window.tokens[-40:]), 3) for window in questions()[:16]]
    assert_same(score_windows(model, windows), [alone(model, window) for window in windows])


@pytest.fixture
def passed(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, ...]]:
    """The shapes of all tokens that pass through a model."""
    shapes, features = list[tuple[int, ...]](), GPT.features

    def counted(self: GPT, tokens: torch.Tensor, **settings: Any) -> torch.Tensor:
        shapes.append(tuple(tokens.shape))
        return features(self, tokens, **settings)

    monkeypatch.setattr(GPT, "features", counted)
    return shapes


def test_the_prefix_of_a_question_is_computed_once(passed: list[tuple[int, ...]]) -> None:
    context = some(30, 1)
    windows = [window for end in range(4) for window in continuation_windows(context, some(5, 50 + end), CONTEXT)]
    score_windows(make_model(), windows)
    assert passed == [(1, 30), (4, 4)]


def test_answers_of_one_token_need_one_pass(passed: list[tuple[int, ...]]) -> None:
    windows = [Window((*some(30, 1), answer), 1) for answer in (3, 4, 5, 6)]
    score_windows(make_model(), windows)
    assert passed == [(1, 30)]


@pytest.mark.parametrize("largest", [1, 3])
def test_a_batch_that_does_not_fit_is_halved(largest: int, monkeypatch: pytest.MonkeyPatch) -> None:
    model, windows = make_model(), questions()
    expected, features = score_windows(model, windows), GPT.features

    def short_of_memory(self: GPT, tokens: torch.Tensor, **settings: Any) -> torch.Tensor:
        if len(tokens) > largest:
            raise torch.OutOfMemoryError("no room")
        return features(self, tokens, **settings)

    monkeypatch.setattr(GPT, "features", short_of_memory)
    assert_same(score_windows(model, windows), expected)


def test_few_logits_at_once_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    model, windows = make_model(), questions()
    expected = score_windows(model, windows)
    monkeypatch.setattr(likelihood, "_LOGITS_AT_ONCE", {"cpu": 3 * WORDS})
    assert_same(score_windows(model, windows), expected)


def test_batches_stay_small() -> None:
    windows, most = questions(), 150
    for batch in batches(families(windows, most), most):
        rows = [row for family in batch for row in family.rows]
        assert len(rows) == 1 or len(rows) * max(len(row.inputs) for row in rows) <= most


@given(st.integers(1, 70), st.integers(2, 12))
def test_a_text_is_cut_as_the_harness_cuts_it(count: int, length: int) -> None:
    from lm_eval.utils import get_rolling_token_windows

    tokens = list(range(1, count + 1))
    windows = list(rolling_windows(tokens, 0, length))
    theirs = list(get_rolling_token_windows(tokens, 0, length, 1))
    assert [(list(window.inputs), window.tokens[-window.scored :]) for window in windows] == [
        (inputs, tuple(scored)) for inputs, scored in theirs
    ]
    assert [token for window in windows for token in window.tokens[-window.scored :]] == tokens


def test_long_and_empty_continuations() -> None:
    assert continuation_windows([1, 2], [], 8) == []
    windows = continuation_windows([1, 2], list(range(10, 30)), 8)
    assert [token for window in windows for token in window.tokens[-window.scored :]] == list(range(10, 30))
    assert windows[0].tokens[0] == 2
    (cut,) = continuation_windows(list(range(20)), [50, 51], 8)
    assert cut == Window((*range(13, 20), 50, 51), 2)
