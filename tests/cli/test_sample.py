"""daybreak sample: every setting reaches the text, and each mistake is one message before anything is shown."""

import io
import json
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch

from daybreak import Run, cli, load, train
from daybreak.data.prepare import prepare
from daybreak.sampling.settings import SamplingConfig

Command = Callable[..., tuple[int, str, str]]
RECIPE = """
budget = "1 step"
[data]
window = 16
[optimizer]
lr = 1e-2
[batch]
tokens = 64
[model]
layers = 1
heads = 2
dim = 16
context = 16
vocab_size = 64
initialisation = { std = 0.5 }
[evaluation]
every = "100%"
tokens = 64
[execution]
device = "cpu"
micro_batch = 2
threads = 1
"""


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run whose model has hardly learned, so that each setting changes what it says."""
    folder = tmp_path_factory.mktemp("sampled")
    (folder / "tiny.toml").write_text(RECIPE)
    (folder / "text.txt").write_text("the light of day, once upon a time.\n" * 60)
    corpus = prepare([str(folder / "text.txt")], folder / "corpus", tokenizer="chars")
    return train(folder / "tiny.toml", data=corpus.path, out=folder / "run")


@pytest.fixture
def sample(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], run: Run) -> Command:
    """Runs `daybreak sample RUN …` in this process, and gives exit code, output and errors."""

    def call(*words: str | Path, stdin: str = "") -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["daybreak", "sample", str(run.path), *map(str, words)])
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin.encode())))
        capsys.readouterr()
        code = 0
        try:
            cli.main()
        except SystemExit as end:
            code = int(end.code or 0)
        return code, *capsys.readouterr()

    return call


SETTINGS: list[tuple[Sequence[str], SamplingConfig]] = [
    ((), SamplingConfig()),
    (("--temperature", "0.7"), SamplingConfig(temperature=0.7)),
    (("--top-k", "3"), SamplingConfig(top_k=3)),
    (("--top-p", "0.5"), SamplingConfig(top_p=0.5)),
    (("--min-p", "0.3"), SamplingConfig(min_p=0.3)),
    (("--typical-p", "0.4"), SamplingConfig(typical_p=0.4)),
    (("--eta-cutoff", "0.2"), SamplingConfig(eta_cutoff=0.2)),
    (("--repetition-penalty", "5", "--greedy"), SamplingConfig(repetition_penalty=5, greedy=True)),
    (("--greedy",), SamplingConfig(greedy=True)),
    (("--seed", "7"), SamplingConfig(seed=7)),
]


def test_every_setting_reaches_the_text(run: Run, sample: Command) -> None:
    shown = []
    for words, sampling in SETTINGS:
        code, out, _ = sample("the", "--tokens", "30", *words)
        assert code == 0
        assert out == run.sample("the", tokens=30, sampling=sampling)[0].text + "\n"
        shown.append(out)
    assert len(set(shown)) == len(SETTINGS)


def test_a_stop_string_ends_the_text_and_may_be_an_end_of_line(run: Run, sample: Command) -> None:
    def completion(seed: int) -> str:
        return run.sample("the", tokens=60, sampling=SamplingConfig(seed=seed))[0].completion

    seed = next(seed for seed in range(99) if "\n" in completion(seed) and "m" in completion(seed))
    _, out, _ = sample("the", "--tokens", "60", "--seed", str(seed), "--stop", r"\n", "--stop", "m")
    assert out == "the" + re.split("[m\n]", completion(seed))[0] + "\n"


def test_prompts_of_a_file_and_of_standard_input_have_the_texts_that_each_has_alone(
    tmp_path: Path, run: Run, sample: Command
) -> None:
    prompts = ["the light", "a", "once upon"]
    (tmp_path / "prompts.txt").write_text("\n".join(prompts))
    alone = [run.sample(prompt, tokens=30)[0].text for prompt in prompts]
    for words, stdin in ((("--prompts", tmp_path / "prompts.txt"), ""), (("--prompts", "-"), "\n".join(prompts))):
        code, out, err = sample(*words, "--tokens", "30", stdin=stdin)
        assert (code, out) == (0, "\n---\n".join(alone) + "\n")
        assert "sampling" in err
    assert sample("-", "--tokens", "30", stdin="a\nonce\n")[1] == run.sample("a\nonce", tokens=30)[0].text + "\n"


def test_json_holds_what_python_gives(tmp_path: Path, run: Run, sample: Command) -> None:
    words = ("the", "--tokens", "9", "--count", "2", "--json", "--stop", "m", "--min-p", "0.1")
    code, out, _ = sample(*words, "--logprobs")
    said, made = json.loads(out), run.sample("the", tokens=9, count=2, sampling=SamplingConfig(min_p=0.1), stop=["m"])
    assert code == 0
    assert (said["tokens"], said["stop"], said["sampling"]["min_p"]) == (9, ["m"], 0.1)
    for its, mine in zip(said["continuations"], made, strict=True):
        assert (its["prompt"], its["completion"], its["ending"]) == ("the", mine.completion, mine.ending)
        assert its["log_probability"] == pytest.approx(mine.log_probability)
        ids = [piece.token for piece in mine.pieces]
        assert [token["id"] for token in its["tokens"]] == ids
        assert [token["text"] for token in its["tokens"]] == [run.tokenizer.decode([each]) for each in ids]
    assert sample(*words, "--out", tmp_path / "made.json")[1] == ""
    plain = json.loads((tmp_path / "made.json").read_text())
    assert "tokens" not in plain["continuations"][0]


def test_log_probabilities_are_listed_below_the_text(run: Run, sample: Command) -> None:
    _, out, _ = sample("the", "--tokens", "5", "--logprobs")
    (made,) = run.sample("the", tokens=5)
    text, listed = out.split("\n\n", 1)
    assert text == made.text
    *tokens, total = listed.strip().split("\n")
    assert [float(line.split()[0]) for line in tokens] == pytest.approx(
        [piece.log_probability for piece in made.pieces], abs=1e-4
    )
    assert [line.split("  ")[-1] for line in tokens] == [repr(piece.text) for piece in made.pieces]
    assert total.split() == [f"{made.log_probability:.4f}", "nats", "in", "5", "tokens"]


def test_a_prompt_longer_than_the_context_is_said_to_be_cut(run: Run, sample: Command) -> None:
    code, out, err = sample("the light of day", "--tokens", "5")
    assert (code, err) == (0, "of the 17 tokens of the prompt the model sees the last 16\n")
    assert out == run.sample("the light of day", tokens=5)[0].text + "\n"
    assert sample("he light of day", "--tokens", "5")[2] == ""


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (("--greedy", "--min-p", "0.1"), "greedy takes the likeliest token"),
        (("--greedy", "--count", "2"), "leave out --count 2"),
        (("--temperature", "0"), "temperature = 0.0"),
        (("--eta-cutoff", "1.5"), "eta_cutoff = 1.5"),
        (("--stop", ""), "a stop string is empty"),
        (("--stop", "\udcff"), "no token for"),
        (("--stop", "Z"), "no token for 'Z'"),
        (("Zeus",), "no token for 'Z'"),
        (("the", "--prompts", "prompts.txt"), "exclude each other"),
        (("--prompts", "none.txt"), "none.txt cannot be read"),
        (("--prompts", "-"), "standard input holds no prompts"),
        (("--out", "nowhere/text.txt"), "there is no folder nowhere"),
        (("--out", "."), "--out . is a folder; name the file to write"),
    ],
)
def test_a_mistake_is_one_message_before_anything_is_shown(sample: Command, words: Sequence[str], problem: str) -> None:
    code, out, err = sample(*words)
    assert (code, out) == (2, "")
    assert err.startswith("error: ")
    assert problem in err
    assert len(err.splitlines()) == 1


def test_a_stream_gives_text_before_it_is_finished(run: Run) -> None:
    pieces = load(run.path).stream("the", tokens=1000)
    first = [next(pieces) for _ in range(3)]
    assert len("".join(piece.text for piece in first)) == 3
    assert torch.is_grad_enabled()
