"""`daybreak bench`: figures against formulas, tables row by row, mistakes in one message."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from daybreak import Recipe
from daybreak.bench import measure
from daybreak.bench.subject import Subject, Timing, make_subject, some_tokens
from daybreak.bench.switches import NotHere, Switch, switches, tokenizer_size
from daybreak.cli import main
from daybreak.compose import choose_execution
from daybreak.data.shards import Corpus
from daybreak.model.gpt import count_parameters

TINY = (
    "data.tokenizer=bytes", "data.window=16", "batch.tokens=96", "model.layers=1", "model.heads=2", "model.dim=16",
    "model.context=16", "model.vocab_size=320", "execution.precision=bf16", "execution.micro_batch=3",
    "execution.loss_rows=32", "execution.fused_attention=true",
)  # fmt: skip
OPTIMISATIONS = [
    "TF32", "bf16 autocast", "fused attention", "padded vocabulary", "torch.compile", "fused AdamW",
    "synchronising gradients once a step", "chunked loss",
]  # fmt: skip


def run_command(monkeypatch: pytest.MonkeyPatch, *words: str) -> int:
    monkeypatch.setattr(sys, "argv", ["daybreak", *words])
    with pytest.raises(SystemExit) as ended:
        main()
    code = ended.value.code
    return code if isinstance(code, int) else 0


@pytest.fixture
def _no_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measure, "time_startup", lambda *_: {"python and imports": 1.5, "model": 0.5})
    monkeypatch.setattr("daybreak.hardware._PRODUCTS_TO_MEASURE_A_PEAK", 1)


@pytest.mark.usefixtures("_no_process")
def test_figures_follow_from_one_another(corpus: Corpus, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a step of two micro-batches that take 20 ms each, and an update of 10 ms."""
    monkeypatch.setattr(Subject, "time", lambda self, rows: (self.gradient(rows), self.update(), Timing(0.02, 0.01))[2])
    recipe = Recipe.load("gpt2-tiny", *TINY)
    found = measure.bench(recipe, corpus.path)
    speed = found.speed
    assert found.micro_batches == 2
    assert speed.milliseconds == pytest.approx(50.0)
    assert speed.tokens_per_second == pytest.approx(96 / 0.05)
    parameters = 320 * 16 + 16 * 16 + 12 * 16 * 16 + 13 * 16 + 2 * 16  # embedding, positions, block, its biases, norms
    assert found.parameters == parameters == count_parameters(recipe.model)
    flops = 6 * (parameters - 16 * 16) + 12 * 1 * 16 * 16
    assert speed.flops == pytest.approx(flops * 96 / 0.05)
    assert speed.peak_flops is not None
    assert speed.mfu == pytest.approx(speed.flops / speed.peak_flops)
    assert [row.rows for row in found.by_micro_batch] == [1, 2, 3]
    assert [row.tokens_per_second for row in found.by_micro_batch] == pytest.approx([16 / 0.03, 32 / 0.03, 48 / 0.03])
    assert all(each.gain in (None, 1.0) for each in found.comparisons)


def test_peak_memory_grows_by_what_rows_keep_on_top_of_what_lasts() -> None:
    recipe = Recipe.load("gpt2-tiny", *TINY)
    tokens = some_tokens(recipe, None, 8, 257)
    subject = make_subject(recipe, choose_execution(recipe), tokens)
    subject.time(subject.rows(1))
    one, four, eight = (subject.peak_bytes(subject.rows(count)) for count in (1, 4, 8))
    lasting = 3 * 4 * count_parameters(recipe.model)
    assert lasting + 4 * count_parameters(recipe.model) <= one < four < eight
    assert eight - four >= 4 * 16 * (4 + 4 + 2) * 16  # at least a few activations of four rows of 16 tokens, 16 wide


def test_every_optimisation_has_its_row_and_a_switched_off_one_its_setting() -> None:
    recipe = Recipe.load("gpt2-tiny", *TINY, "execution.compile=true")
    execution = choose_execution(recipe)
    found = {switch.name: switch for switch in switches(recipe, execution, 257)}
    assert list(found) == OPTIMISATIONS
    off = {name: switch.off for name, switch in found.items() if isinstance(switch, Switch)}
    assert off == {
        "bf16 autocast": "execution.precision=fp32",
        "fused attention": "execution.fused_attention=false",
        "padded vocabulary": "model.vocab_size=257",
        "torch.compile": "execution.compile=false",
        "fused AdamW": "execution.fused_optimizer=false",
        "chunked loss": "execution.loss_rows=0",
    }
    for name, switch in found.items():
        if isinstance(switch, Switch):  # the setting that is shown is the one that was tried
            again = Recipe.load("gpt2-tiny", *TINY, "execution.compile=true", *switch.off.split())
            assert choose_execution(again) == switch.execution, name
            assert again.model == switch.recipe.model, name
        else:
            assert switch.reason


def test_what_is_off_already_is_not_switched_off() -> None:
    settings = (
        "execution.precision=fp32", "execution.fused_attention=false", "execution.fused_optimizer=false",
        "execution.loss_rows=0", "model.vocab_size=257", "execution.recompute=true",
    )  # fmt: skip
    recipe = Recipe.load("gpt2-tiny", *TINY, *settings)
    found = switches(recipe, choose_execution(recipe), 257)
    assert [each.name for each in found if isinstance(each, NotHere)] == OPTIMISATIONS
    assert [each.name for each in found if isinstance(each, Switch)] == ["recomputed blocks"]


@pytest.mark.parametrize(
    ("name", "size"), [("gpt2", 50_257), ("bytes", 257), ("bpe:4096", 4096), ("chars", None), (None, None)]
)
def test_a_tokenizers_name_tells_its_size(name: str | None, size: int | None) -> None:
    assert tokenizer_size(name) == size


def test_rows_are_the_corpus_or_random(corpus: Corpus) -> None:
    recipe = Recipe.load("gpt2-tiny", *TINY)
    rows = some_tokens(recipe, corpus, 5, 257)
    assert rows.shape == (5, 17)
    assert rows[:, :-1].flatten().tolist() == corpus.stream("train").read(0, 80).tolist()
    many = some_tokens(recipe, corpus, 3000, 257)
    assert len(many) == 3000
    random = some_tokens(recipe, None, 50, 7)
    assert random.unique().tolist() == list(range(7))
    assert torch.equal(random, some_tokens(recipe, None, 50, 7))


@pytest.mark.usefixtures("_no_process")
def test_the_tables_are_printed(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command(monkeypatch, "bench", "gpt2-tiny", *TINY) == 0
    output = capsys.readouterr().out
    lines = output.splitlines()
    assert lines[0].startswith("gpt2-tiny: 8,688 parameters on cpu")
    assert "random tokens" in output
    for name in OPTIMISATIONS:
        (row,) = [line for line in lines if line.startswith(f"{name} ") and ("…" in line or "n/a" in line)]
        assert ("n/a" in row) == (name in ("TF32", "torch.compile", "synchronising gradients once a step"))
    assert sum(line.endswith("   not compiled, an update each") for line in lines) == 1
    assert any(line.split() == ["model", "0.50"] for line in lines)


@pytest.mark.usefixtures("_no_process")
def test_json_is_one_document(
    corpus: Corpus, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_command(monkeypatch, "bench", "gpt2-tiny", *TINY, "--data", str(corpus.path), "--json") == 0
    document: dict[str, Any] = json.loads(capsys.readouterr().out)
    assert document["execution"]["micro_batch"] == 3
    speed = document["speed"]
    assert speed["tokens_per_second"] * speed["milliseconds"] / 1000 == pytest.approx(96)
    steps = 2 * speed["gradient_milliseconds"] + speed["update_milliseconds"]
    assert steps == pytest.approx(speed["milliseconds"])
    assert [each["name"] for each in document["comparisons"]] == OPTIMISATIONS
    for each in document["comparisons"]:
        assert (each["gain"] is None) == bool(each["remark"])
        if each["gain"]:
            assert each["gain"] == pytest.approx(each["within"] / each["without"])
            assert len(each["gains"]) == 5


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("no-such-recipe",), "unknown recipe"),
        (("gpt2-tiny", "model.layers=100", "model.dim=4096"), "takes"),
        (("gpt2-tiny", "model.context=1048576", "data.window=1048576", "batch.tokens=1048576",
          "model.layers=500"), "one row of 1,048,576 tokens"),
        (("gpt2-tiny", *TINY, "--data", "nowhere"), "not a corpus"),
    ],
)  # fmt: skip
def test_a_mistake_is_one_message(
    words: tuple[str, ...], said: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("daybreak.bench.measure.free_memory", lambda device: 8 << 30)
    monkeypatch.setattr("daybreak.compose.free_memory", lambda device: 8 << 30)
    assert run_command(monkeypatch, "bench", *words) == 2
    assert said in capsys.readouterr().err


def test_several_ranks_are_refused(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert run_command(monkeypatch, "bench", "gpt2-tiny") == 2
    assert "without torchrun" in capsys.readouterr().err


@pytest.mark.slow
def test_where_a_run_compiles_it_is_timed_compiled_and_compiling_cold_and_warm(tmp_path: Path) -> None:
    """In a process of its own, since the compiler remembers."""
    words = [sys.executable, "-m", "daybreak", "bench", "gpt2-tiny", *TINY, "execution.compile=true", "--json"]
    environment = {**os.environ, "TORCHINDUCTOR_CACHE_DIR": str(tmp_path)}
    done = subprocess.run(words, env=environment, capture_output=True, text=True, check=True)
    document = json.loads(done.stdout)
    compared = {each["name"]: each for each in document["comparisons"]}
    assert document["execution"]["compile"] is True
    assert compared["torch.compile"]["gain"] > 0
    assert compared["fused attention"]["gain"] > 0
    startup = document["startup"]
    assert 0 < startup["compile again, from the cache"] < startup["compile"]


def test_start_up_is_measured_in_a_process_of_its_own(corpus: Corpus, tmp_path: Path) -> None:
    from daybreak.bench.startup import time_startup

    recipe = Recipe.load("gpt2-tiny", *TINY)
    seconds = time_startup(recipe, choose_execution(recipe), corpus.path)
    assert list(seconds) == ["python and imports", "recipe", "corpus", "model", "first micro-batch and update"]
    assert all(each >= 0 for each in seconds.values())
    assert seconds["python and imports"] > 0.2
