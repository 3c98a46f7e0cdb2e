"""Continuations as text: whole, in pieces, many at once, and drawn while training."""

from collections.abc import Sequence

import pytest

from daybreak.data.tokenizer import Tokenizer, byte_tokenizer, character_tokenizer
from daybreak.errors import UserError
from daybreak.model.gpt import GPT
from daybreak.sampling.sampler import Sampler
from daybreak.sampling.settings import SamplingConfig
from daybreak.sampling.text import Continuation, Piece, continue_texts, stream_text
from plain_sampling import GREEDY, Scripted, make_model, scripted

BYTES = byte_tokenizer()
DRAWN = SamplingConfig(seed=5)


def make_one(
    model: GPT, tokenizer: Tokenizer, prompt: str, tokens: int, stop: Sequence[str] = ()
) -> tuple[Continuation, list[Piece]]:
    """One continuation, and the same streamed."""
    streamed = list(stream_text(model, tokenizer, prompt, tokens=tokens, sampling=GREEDY, stop=stop))
    if isinstance(model, Scripted):
        model.steps = 0
    (made,) = continue_texts(model, tokenizer, [prompt], tokens=tokens, sampling=GREEDY, stop=stop)
    return made, streamed


@pytest.mark.parametrize("text", ["plain", "naïve café", "日本語 🌅 ends"])
def test_streamed_pieces_join_to_the_text_also_within_characters(text: str) -> None:
    model = scripted(BYTES, [*text.encode(), BYTES.end_of_text])
    made, streamed = make_one(model, BYTES, "A", 99)
    assert (made.completion, made.text, made.ended) == (text, "A" + text, True)
    assert made.pieces == tuple(streamed)
    assert [piece.token for piece in streamed] == [*text.encode(), BYTES.end_of_text]
    assert "".join(piece.text for piece in streamed) == text
    assert len([piece for piece in streamed if piece.text]) == len(text)


@pytest.mark.parametrize("ended", [True, False])
def test_streamed_pieces_join_to_the_text_that_breaks_off_within_a_character(ended: bool) -> None:
    script = [*"a日".encode()[:-1], *([BYTES.end_of_text] if ended else [])]
    made, streamed = make_one(scripted(BYTES, script), BYTES, "", len(script))
    assert made.completion == "".join(piece.text for piece in streamed) == "a\ufffd"
    assert made.ended == ended


@pytest.mark.parametrize(
    ("said", "tokens", "completion", "ending"),
    [
        ("one\n\ntwo", 99, "one", "stop"),
        ("one\n\n", 5, "one", "stop"),
        ("one\n\n", 4, "one\n", "tokens"),
        ("one\n", 99, "one\n", "end of text"),
        ("done!", 99, "done", "stop"),
    ],
)
def test_a_continuation_says_why_it_ends(said: str, tokens: int, completion: str, ending: str) -> None:
    model = scripted(BYTES, [*said.encode(), BYTES.end_of_text])
    made, streamed = make_one(model, BYTES, "\n", tokens, ["\n\n", "!"])
    assert (made.completion, made.ending) == (completion, ending)
    assert "".join(piece.text for piece in streamed) == completion


def test_end_of_text_ends_a_continuation_and_not_the_others() -> None:
    tokenizer = character_tokenizer(["abcdef"])
    end = tokenizer.end_of_text
    # The last row takes the place of one that has ended.
    model = scripted(tokenizer, [1, end, 5, 3, 4], [1, 2, 3, end], [1, 2, 3, 4])
    made = continue_texts(model, tokenizer, ["f"], tokens=5, count=3, sampling=SamplingConfig(top_k=1))
    assert [each.completion for each in made] == ["b", "bcd", "bcfde"]
    assert [each.ended for each in made] == [True, True, False]


def test_generation_stops_when_all_have_ended() -> None:
    tokenizer = character_tokenizer(["abcdef"])
    end = tokenizer.end_of_text
    model = scripted(tokenizer, [1, end, end], [1, 2])  # the second goes on in the first one's place
    made = continue_texts(model, tokenizer, [""], tokens=50, count=2, sampling=SamplingConfig(top_k=1))
    assert [each.completion for each in made] == ["b", "bc"]
    assert model.steps == 3


def test_a_prompt_stands_at_the_beginning_of_a_document() -> None:
    tokenizer = character_tokenizer(["abcdef"])
    for prompt, shown in (("", [6]), ("fa", [6, 5, 0])):
        model = scripted(tokenizer, [1])
        continue_texts(model, tokenizer, [prompt], tokens=1, sampling=GREEDY)
        assert model.shown[0].tolist() == [shown]


PROMPTS = ["day", "", "the light of", "day", "nü", "once upon a time there was", "a"]


def test_a_prompt_has_the_same_text_alone_in_a_batch_in_another_order_and_among_several() -> None:
    model = make_model(BYTES.vocab_size, context=32)

    def made(prompts: Sequence[str], count: int = 1, room: int | None = None) -> list[str]:
        settings = SamplingConfig(seed=5, temperature=0.9, top_p=0.9)
        texts = continue_texts(
            model, BYTES, prompts, tokens=40, count=count, sampling=settings, stop=["q", "zz"], room=room
        )
        return [each.text for each in texts]

    alone = [made([prompt])[0] for prompt in PROMPTS]
    assert made(PROMPTS) == alone
    assert made(PROMPTS[::-1]) == alone[::-1]
    assert made(PROMPTS, room=2) == alone
    assert made(PROMPTS, count=3)[::3] == alone
    assert made(PROMPTS, count=3)[3:6] == made([PROMPTS[1]], count=3)
    assert alone[0] == alone[3]
    assert [text.startswith(prompt) for text, prompt in zip(alone, PROMPTS, strict=True)] == [True] * 7
    assert len({len(text) for text in alone}) > 2  # some stopped early


def test_no_tokens_make_no_text() -> None:
    model = make_model(BYTES.vocab_size)
    assert list(stream_text(model, BYTES, "day", tokens=0, sampling=GREEDY)) == []
    (made,) = continue_texts(model, BYTES, ["day"], tokens=0, sampling=GREEDY)
    assert (made.text, made.ending) == ("day", "tokens")


def test_pieces_are_the_first_continuations() -> None:
    model = make_model(BYTES.vocab_size)
    first, second = continue_texts(model, BYTES, ["day"], tokens=12, count=2, sampling=DRAWN)
    streamed = tuple(stream_text(model, BYTES, "day", tokens=12, sampling=DRAWN))
    assert [piece.token for piece in streamed] == [piece.token for piece in first.pieces]
    assert [piece.log_probability for piece in streamed] == pytest.approx(
        [piece.log_probability for piece in first.pieces], abs=1e-5
    )
    assert first.log_probability == pytest.approx(sum(piece.log_probability for piece in first.pieces))
    assert first.completion != second.completion


def test_two_streams_of_one_model_do_not_disturb_each_other() -> None:
    model = make_model(BYTES.vocab_size)
    mine, its = (stream_text(model, BYTES, prompt, tokens=20, sampling=DRAWN) for prompt in ("day", "night falls"))
    together = list(zip(mine, its, strict=True))
    assert [piece for piece, _ in together] == list(stream_text(model, BYTES, "day", tokens=20, sampling=DRAWN))


def test_a_penalty_is_for_the_prompt_too_and_not_for_the_documents_beginning() -> None:
    tokenizer = character_tokenizer(["abcdef"])
    for prompt, penalty, said in (("b", 1.0, "bbbb"), ("b", 1e4, "acde"), ("", 1e4, "bacd")):
        model = scripted(tokenizer, [1] * 4)
        sampling = SamplingConfig(greedy=True, repetition_penalty=penalty)
        (made,) = continue_texts(model, tokenizer, [prompt], tokens=4, sampling=sampling)
        assert made.completion == said
    model = scripted(tokenizer, [6])
    assert continue_texts(model, tokenizer, ["a"], tokens=4, sampling=sampling)[0].ended


def test_all_tokens_are_told_also_those_that_an_early_end_leaves() -> None:
    told: list[int] = []
    model = scripted(BYTES, [65, BYTES.end_of_text], [66] * 9)
    continue_texts(model, BYTES, [""], tokens=9, count=2, sampling=SamplingConfig(top_k=1), advance=told.append)
    assert sum(told) == 18
    assert told[:3] == [2, 9, 1]


def test_characters_that_the_tokenizer_lacks_are_said_at_once() -> None:
    tokenizer = character_tokenizer(["abc"])
    model = make_model(tokenizer.vocab_size)
    with pytest.raises(UserError, match="no token for 'x'"):
        stream_text(model, tokenizer, "ax", tokens=3, sampling=GREEDY)
    with pytest.raises(UserError, match="no token for 'x'"):
        stream_text(model, tokenizer, "a", tokens=3, sampling=GREEDY, stop=["x"])
    with pytest.raises(UserError, match="no token for 'x'"):
        continue_texts(model, tokenizer, ["a", "x"], tokens=3, sampling=GREEDY)


def test_a_sampler_draws_one_text_with_its_prompt_again_and_again() -> None:
    sampler = Sampler(None, BYTES, "day", 12, DRAWN)
    model = make_model(BYTES.vocab_size)
    (made,) = continue_texts(model, BYTES, ["day"], tokens=12, sampling=DRAWN)
    assert sampler.draw(model) == sampler.draw(model) == made.text
    assert made.text.startswith("day")
    assert len(made.completion) > 0
