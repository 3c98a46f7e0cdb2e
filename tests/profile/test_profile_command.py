"""`daybreak profile`: times, memory and routines against what is known of them; mistakes in one message."""

import ast
import gzip
import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

import daybreak
from daybreak import Recipe
from daybreak.cli import main
from daybreak.compose import choose_execution
from daybreak.data.batches import Rows
from daybreak.data.shards import Corpus
from daybreak.duration import Duration, Unit
from daybreak.memory import counted, peak_bytes
from daybreak.model.gpt import count_parameters
from daybreak.profile import profile as profiling
from daybreak.profile.memory import memory_by_part, saved_for_backward
from daybreak.profile.routines import slowest
from daybreak.profile.shares import after_evaluations, evaluation_share
from daybreak.profile.shortened import random_corpus, shortened
from daybreak.training.budget import Rates
from daybreak.training.growth import StepSize

CPU = torch.device("cpu")
TINY = (
    "data.tokenizer=bytes", "data.window=16", "batch.tokens=960", "model.layers=2", "model.heads=2", "model.dim=16",
    "model.context=16", "model.vocab_size=320", "execution.precision=fp32", "execution.micro_batch=3",
    "execution.loss_rows=0", "evaluation.tokens=100",
)  # fmt: skip
RATES = Rates(StepSize(10, 100, 10, 100.0), windows_per_epoch=1000, parameters=50)


def run_command(monkeypatch: pytest.MonkeyPatch, *words: str) -> int:
    monkeypatch.setattr(sys, "argv", ["daybreak", *words])
    monkeypatch.setattr("daybreak.hardware._PRODUCTS_TO_MEASURE_A_PEAK", 1)
    with pytest.raises(SystemExit) as ended:
        main()
    code = ended.value.code
    return code if isinstance(code, int) else 0


def test_memory_is_counted_at_its_most_and_without_what_was_there() -> None:
    before = torch.zeros(1000)

    def work() -> None:
        large = torch.ones(3000)  # 12,000 bytes
        small = large[:500] * 2  # 2,000
        del large
        small + before[:500].view(5, 100).flatten()  # 2,000, and views

    assert peak_bytes(work, CPU) == 14_000
    with counted() as memory:
        kept = before.view(10, 100) + 1
    assert memory.now == memory.peak == kept.nbytes == 4000


def test_what_is_saved_for_backward_is_counted_once_and_weights_not_at_all() -> None:
    weight = torch.nn.Parameter(torch.ones(20, 10))
    x = torch.ones(30, 10, requires_grad=True)
    with saved_for_backward() as kept:
        y = (x @ weight.T).exp()  # keeps x, a view of the weight, and the result of exp
        y.square().sum()  # keeps that again
    assert kept.bytes == 4 * (30 * 10 + 30 * 20)


@pytest.mark.parametrize("kind", ["adamw", "muon"])
def test_memory_by_part_is_what_formulas_say(kind: str) -> None:
    recipe = Recipe.load("gpt2-tiny", *TINY, f"optimizer={{ kind = '{kind}', lr = 1e-3 }}")
    tokens = torch.zeros(3, 16, dtype=torch.int64)
    rows = Rows(tokens, tokens, torch.zeros(3, dtype=torch.int64), 48, last=True)
    parts = {part.name: part for part in memory_by_part(recipe, choose_execution(recipe), rows, CPU, None)}
    size = 4 * count_parameters(recipe.model)
    assert parts["weights"].measured == parts["weights"].estimated == size
    assert parts["gradients"].measured == parts["gradients"].estimated == size
    tensors = 2 * 12 + 4  # whose steps are counted by a number each
    matrices = 2 * (3 + 1 + 4 + 4) * 16 * 16 * 4
    if kind == "adamw":
        assert parts["optimizer state"].estimated == 2 * size
        assert parts["optimizer state"].measured == 2 * size + 4 * tensors
    else:
        assert parts["optimizer state"].estimated is None
        assert parts["optimizer state"].measured == 2 * (size - matrices) + matrices + 4 * (tensors - 8)
    assert parts["activations"].measured == pytest.approx(parts["activations"].estimated, rel=0.5)
    logits = parts["logits and the head's gradients"]
    assert 2 * 48 * 320 * 4 <= logits.measured <= 2 * (logits.estimated or 0)
    lasting = sum(parts[name].measured for name in ("weights", "gradients", "optimizer state"))
    assert lasting < parts["all, at their most"].measured <= sum(part.measured for part in list(parts.values())[:-1])


def test_routines_are_ranked_by_their_own_time() -> None:
    averages = [SimpleNamespace(key=f"r{time}", count=2, self_cpu_time_total=float(time)) for time in range(100)]
    found = slowest(averages, "self_cpu_time_total")
    assert [routine.name for routine in found] == [f"r{time}" for time in range(99, 67, -1)]
    assert found[0].milliseconds == 0.099
    assert found[0].share == pytest.approx(99 / sum(range(100)))
    assert slowest([], "self_cpu_time_total") == []


def test_steps_behind_evaluations_are_told_from_others() -> None:
    times = {1: 90.0, 2: 10.0, 3: 25.0, 4: 12.0, 5: 21.0, 6: 11.0}
    steps = [{"step": step, "milliseconds": time} for step, time in times.items()]
    assert after_evaluations(steps, [{"step": 2}, {"step": 4}, {"step": 6}]) == (23.0, 11.0)


@pytest.mark.parametrize(
    ("every", "budget", "share"),
    [
        (Duration(10, Unit.PERCENT), Duration(200, Unit.STEPS), 10 * 3 / (10 * 3 + 200 * 0.5)),
        (Duration(50, Unit.STEPS), Duration(20_000, Unit.TOKENS), 4 * 3 / (4 * 3 + 200 * 0.5)),
        (None, Duration(2, Unit.EPOCHS), 3 / (3 + 200 * 0.5)),
        (Duration(10, Unit.PERCENT), Duration(120, Unit.SECONDS), 30 / 120),
        (Duration(60, Unit.SECONDS), Duration(120, Unit.SECONDS), 6 / 120),
        # 4.5 s of training, then an evaluation of 3 s, and so on
        (Duration(9, Unit.STEPS), Duration(30, Unit.SECONDS), 3 / (9 * 0.5 + 3)),
        (Duration(1, Unit.PERCENT), Duration(30, Unit.SECONDS), 1.0),
        # at most one behind each step
        (Duration(10, Unit.PERCENT), Duration(2, Unit.STEPS), 2 * 3 / (2 * 3 + 2 * 0.5)),
    ],
)
def test_the_share_of_evaluations(every: Duration | None, budget: Duration, share: float) -> None:
    assert evaluation_share(every, budget, RATES, 0.5, 3.0) == pytest.approx(share)


def test_a_shortened_recipe_is_the_same_but_for_its_length() -> None:
    recipe = Recipe.load("gpt2-tiny", *TINY, "schedule.warmup=5000 steps", "samples.every=10%")
    short = shortened(recipe, choose_execution(recipe), steps=13, evaluate_every=4)
    assert (short.model, short.optimizer, short.data) == (recipe.model, recipe.optimizer, recipe.data)
    assert (short.budget, short.evaluation.every) == (Duration(13, Unit.STEPS), Duration(4, Unit.STEPS))
    assert (short.samples.every, short.checkpoint.every) == (None, None)
    assert short.batch.tokens == 4 * 3 * 16
    assert choose_execution(short).micro_batch == 3


def test_random_text_is_enough_to_train_and_to_evaluate(tmp_path: Path) -> None:
    recipe = Recipe.load("gpt2-tiny", *TINY)
    corpus = random_corpus(recipe, tmp_path)
    assert corpus.train.tokens > 2 * 960
    assert corpus.validation.tokens >= 100


def test_the_command_on_a_corpus(
    corpus: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("profile", "gpt2-tiny", *TINY, "--data", str(corpus.path), "--out", str(tmp_path / "out"), "--json")
    assert run_command(monkeypatch, *words) == 0
    document: dict[str, Any] = json.loads(capsys.readouterr().out)
    assert (document["steps"], document["tokens_per_step"], document["recipe_tokens_per_step"]) == (4, 192, 960)
    routines = document["on_cpu"]
    assert len(routines) == 32
    assert document["on_gpu"] == []
    times = [routine["milliseconds"] for routine in routines]
    assert times == sorted(times, reverse=True)
    assert 0.5 < sum(routine["share"] for routine in routines) <= 1.0001
    # Four steps of four passes, and evaluations of seven rows by three behind steps 2 and 4, in two layers each.
    attention = [each for each in routines if each["name"] == "aten::_scaled_dot_product_flash_attention_for_cpu"]
    assert [each["calls"] for each in attention] == [2 * (4 * 4 + 2 * 3)]
    assert document["shares"]["evaluation_seconds"] > 0
    assert 0 < document["shares"]["evaluation_share"] <= 1
    (file,) = document["files"]
    trace = json.loads(gzip.decompress(Path(file).read_bytes()))
    assert any(event.get("name") == "aten::addmm" for event in trace["traceEvents"])
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["trace.json.gz"]


def test_the_tables_are_printed_and_need_no_corpus(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_command(monkeypatch, "profile", "gpt2-tiny", *TINY, "--out", str(tmp_path)) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].endswith("on random text")
    start = next(number for number, line in enumerate(lines) if line.startswith("routines by their own time"))
    assert lines[start + 33] == ""
    assert [line.split()[0] for line in lines[start + 35 : start + 38]] == ["weights", "gradients", "optimizer"]
    assert lines[-1] == str(tmp_path / "trace.json.gz")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("no-such-recipe",), "unknown recipe"),
        (("gpt2-tiny", "--data", "nowhere"), "not a corpus"),
        (("shakespeare-char-cpu",), "give a corpus with --data"),
    ],
)
def test_a_mistake_is_one_message(
    words: tuple[str, ...],
    said: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run_command(monkeypatch, "profile", *words, "--out", str(tmp_path)) == 2
    assert said in capsys.readouterr().err


def test_only_the_snapshot_of_a_shortage_is_written_as_torchs_viewer_wants_it() -> None:
    """torch pickles it; nothing of ours reads it, or writes another."""
    callers = [
        source.relative_to(Path(daybreak.__file__).parent).as_posix()
        for source in Path(daybreak.__file__).parent.rglob("*.py")
        for node in ast.walk(ast.parse(source.read_text()))
        if isinstance(node, ast.Call) and ast.unparse(node.func).endswith("_dump_snapshot")
    ]
    assert callers == ["profile/profile.py"]


def test_a_shortage_on_a_gpu_leaves_a_snapshot(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    recorded: list[Any] = []
    monkeypatch.setattr(torch.cuda.memory, "_record_memory_history", lambda *_, **words: recorded.append(words))
    monkeypatch.setattr(torch.cuda.memory, "_dump_snapshot", lambda path: Path(path).write_text("snapshot"))
    gpu = torch.device("cuda")
    with (
        pytest.raises(torch.OutOfMemoryError),
        profiling._snapshot_of_a_shortage(tmp_path / "raised", gpu),
    ):
        raise torch.OutOfMemoryError("CUDA out of memory")
    with profiling._snapshot_of_a_shortage(tmp_path / "gone on from", gpu) as shortage:
        shortage.found = True
    with profiling._snapshot_of_a_shortage(tmp_path / "none", gpu):
        pass
    assert sorted(path.name for path in tmp_path.iterdir()) == ["gone on from", "raised"]
    assert recorded[1::2] == [{"enabled": None}] * 3
