"""Gradients accumulated over micro-batches are those of the full batch, and the logged loss is the true mean."""

import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from daybreak.checkpoint import list_checkpoints, open_checkpoint, restore
from daybreak.data.batches import Batches, Rows
from daybreak.data.order import Order
from daybreak.data.shards import Corpus
from daybreak.data.windows import IGNORED, StreamWindows
from daybreak.distributed import ALONE
from daybreak.duration import Duration, Unit
from daybreak.errors import UserError
from daybreak.evaluate.loss import Validation, row_starts
from daybreak.model.gpt import GPT, ModelConfig, build
from daybreak.model.kernels import Kernels
from daybreak.recipe import Recipe
from daybreak.run import Run, train
from daybreak.sampling.sampler import Sampler
from daybreak.sampling.settings import SamplingConfig
from daybreak.saving import CheckpointConfig, Checkpoints
from daybreak.training import loop
from daybreak.training.budget import Clock, CountBudget, Rates
from daybreak.training.diagnostics import Diagnostics
from daybreak.training.early_stopping import Standstill
from daybreak.training.forecast import CurveLaw, Forecast
from daybreak.training.growth import StepSize
from daybreak.training.guard import Guard, GuardConfig
from daybreak.training.metrics import Metrics
from daybreak.training.optimizer import AdamWConfig, unscale_and_clip
from daybreak.training.outlook import Outlook
from daybreak.training.parts import Parts
from daybreak.training.schedule import ConstantConfig
from daybreak.training.signals import StopRequest
from daybreak.training.spent import Spent

CPU = torch.device("cpu")
WINDOW, ROWS = 16, 8
MODEL = ModelConfig(layers=2, heads=2, dim=16, context=WINDOW, vocab_size=257)


def model() -> GPT:
    return build(MODEL, 7, CPU)


def batches(corpus: Corpus, micro_batch: int, seed: int = 3) -> Batches:
    windows = StreamWindows(corpus.stream("train"), WINDOW)
    return Batches(
        windows,
        Order(len(windows), seed),
        length=WINDOW,
        windows_per_step=ROWS,
        micro_batch=micro_batch,
        seed=seed,
        device=CPU,
    )


def ignoring(rows: Rows, first: int) -> Rows:
    """Row i of a step keeps only its first 2 i + 1 targets, so that micro-batches count unequally many."""
    targets = rows.targets.clone()
    for row in range(len(targets)):
        targets[row, 2 * (first + row) + 1 :] = IGNORED
    return replace(rows, targets=targets, counted=int((targets != IGNORED).sum()))


@dataclass
class MaskedBatches:
    """Real batches of a step with some of their targets ignored."""

    real: Batches

    @property
    def micro_batch(self) -> int:
        return self.real.micro_batch

    def step(self, place: int, **size: int) -> Iterator[Rows]:
        first = 0
        for rows in self.real.step(place, **size):
            yield ignoring(rows, first)
            first += len(rows.inputs)


def mean_gradients(rows: Rows) -> tuple[float, dict[str, Tensor]]:
    """The mean loss over counted targets and its gradients, in one pass over all rows, by torch's own mean."""
    gpt = model()
    loss = F.cross_entropy(gpt.logits(rows.inputs).flatten(0, 1), rows.targets.flatten(), ignore_index=IGNORED)
    loss.backward()
    return loss.item(), {name: p.grad for name, p in gpt.named_parameters() if p.grad is not None}


class RecordingSGD(torch.optim.SGD):
    """Keeps the gradients that the loop hands it."""

    seen: dict[str, Tensor]
    names: dict[Tensor, str]

    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        self.seen = {name: p.grad.clone() for p, name in self.names.items() if p.grad is not None}


def one_step(folder: Path, corpus: Corpus, source: Any, guard: Guard) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """One step of the real training loop: the gradients the optimizer saw, and the record in the metrics."""
    gpt = model()
    optimizer = RecordingSGD([{"params": list(gpt.parameters()), "peak_lr": 0.1}], lr=0.1)
    optimizer.names = {parameter: name for name, parameter in gpt.named_parameters()}
    clock = Clock(0.0)
    every = Recipe.load("demo").evaluation.every
    stream = corpus.stream("validation")
    with (
        Metrics(folder / "metrics.jsonl", 1) as metrics,
        Checkpoints(folder / "checkpoints", CheckpointConfig(every=None, keep=1)) as checkpoints,
    ):
        budget = CountBudget(Duration(1, Unit.STEPS), Rates(StepSize(ROWS, WINDOW * ROWS, WINDOW, 1.0), 1000, 1))
        parts = Parts(
            model=gpt,
            forward=gpt,
            optimizers=(optimizer,),
            batches=source,
            budget=budget,
            outlook=Outlook(budget, ConstantConfig(kind="constant"), None, Forecast(CurveLaw.fitted())),
            schedule=ConstantConfig(kind="constant"),
            optimization=AdamWConfig(lr=0.1, clip=0.0),
            guard=guard,
            standstill=Standstill(None),
            validation=Validation(
                every=every,
                stream=stream,
                starts=row_starts(len(stream), WINDOW, 64),
                length=WINDOW,
                batch=4,
                token_bytes=corpus.tokenizer.token_bytes,
                device=CPU,
                precision="fp32",
            ),
            diagnostics=Diagnostics(None, torch.zeros(1, WINDOW, dtype=torch.long), 1, "fp32"),
            sampler=Sampler(None, corpus.tokenizer, "", 1, SamplingConfig()),
            tasks=None,
            checkpoints=checkpoints,
            metrics=metrics,
            ranks=ALONE,
            stop=StopRequest(),
            clock=clock,
            device=CPU,
            precision="fp32",
            peak_flops=None,
        )
        loop.train(parts, Spent())
    record = json.loads((folder / "metrics.jsonl").read_text().splitlines()[0])
    return optimizer.seen, record


@pytest.mark.parametrize("micro_batch", [1, 2, 4, 8])
@pytest.mark.parametrize("masked", [False, True], ids=["all targets", "unequal targets"])
@pytest.mark.parametrize("scale", [1.0, 1024.0])
def test_the_loop_gives_the_optimizer_the_true_means_gradients(
    tmp_path: Path, corpus: Corpus, micro_batch: int, masked: bool, scale: float
) -> None:
    whole = next(batches(corpus, ROWS).step(0))
    loss, expected = mean_gradients(ignoring(whole, 0) if masked else whole)
    real = batches(corpus, micro_batch)
    source = MaskedBatches(real) if masked else real
    seen, record = one_step(tmp_path, corpus, source, Guard(GuardConfig(), scaling=False, scale=scale))
    real.close()
    assert seen.keys() == expected.keys()
    for name, gradient in expected.items():
        torch.testing.assert_close(seen[name], gradient, rtol=1e-4, atol=1e-7, msg=lambda text, n=name: f"{n}: {text}")
    assert record["loss"] == pytest.approx(loss, rel=1e-5)
    norm = torch.stack([gradient.square().sum() for gradient in expected.values()]).sum().sqrt().item()
    assert record["gradient_norm"] == pytest.approx(norm, rel=1e-4)


def accumulate(parts: list[Rows], divide: Callable[[Rows], float]) -> dict[str, Tensor]:
    """Gradients of micro-batches' summed losses, each divided by what `divide` says."""
    gpt = model()
    for rows in parts:
        (gpt(rows.inputs, rows.targets) / divide(rows)).backward()
    unscale_and_clip(gpt, 0.0, scale=1.0)
    return {name: p.grad for name, p in gpt.named_parameters() if p.grad is not None}


def worst_gap(ours: dict[str, Tensor], theirs: dict[str, Tensor]) -> float:
    """The largest relative difference of any parameter's gradient."""
    return max(((ours[name] - theirs[name]).norm() / theirs[name].norm()).item() for name in theirs)


def test_losses_that_are_not_divided_give_other_gradients(corpus: Corpus) -> None:
    _, expected = mean_gradients(next(batches(corpus, ROWS).step(0)))
    parts = list(batches(corpus, 2).step(0))
    count = len(parts)
    assert worst_gap(accumulate(parts, lambda rows: rows.counted * count), expected) < 1e-4
    # Each micro-batch's mean without the division by their number: four times too large.
    undivided = accumulate(parts, lambda rows: rows.counted)
    assert worst_gap(undivided, expected) == pytest.approx(count - 1, rel=1e-3)


def test_a_mean_of_means_is_wrong_where_micro_batches_count_unequally_many(corpus: Corpus) -> None:
    _, expected = mean_gradients(ignoring(next(batches(corpus, ROWS).step(0)), 0))
    masked = MaskedBatches(batches(corpus, 2))
    parts = list(masked.step(0))
    total = sum(rows.counted for rows in parts)
    assert len({rows.counted for rows in parts}) > 1
    assert worst_gap(accumulate(parts, lambda rows: total), expected) < 1e-4
    assert worst_gap(accumulate(parts, lambda rows: rows.counted * len(parts)), expected) > 0.05


RECIPE = f"""
budget = "5 steps"
seed = 11
data = {{ window = {WINDOW} }}
batch = {{ tokens = {WINDOW * ROWS} }}
model = {{ layers = 1, heads = 2, dim = 16, context = {WINDOW}, vocab_size = 257 }}
optimizer = {{ lr = 1e-2 }}
checkpoint = {{ every = "1 steps", keep = 100 }}
evaluation = {{ tokens = 64 }}
execution = {{ micro_batch = 2, threads = 1 }}
"""


def trained(folder: Path, corpus: Corpus, name: str, *overrides: str) -> Run:
    (folder / "recipe.toml").write_text(RECIPE)
    return train(Recipe.load(folder / "recipe.toml", *overrides), data=corpus.path, out=folder / name)


def test_the_loss_of_every_step_is_the_mean_over_all_its_tokens(tmp_path: Path, corpus: Corpus) -> None:
    run = trained(tmp_path, corpus, "run")
    stream = corpus.stream("train")
    order = Order((len(stream) - 1) // WINDOW, 11)
    gpt = build(run.recipe.model, 11, CPU)
    logged, recomputed = [record["loss"] for record in run.metrics()], []
    for step in range(5):
        if step:
            restore(open_checkpoint(tmp_path / "run" / "checkpoints" / f"step-{step:08d}"), gpt)
        losses: list[float] = []
        for window in order.windows_at(step * ROWS, ROWS):
            start = int(window) * WINDOW
            tokens = torch.from_numpy(stream.read(start, start + WINDOW + 1))
            with torch.no_grad():
                chances = gpt.logits(tokens[None, :-1])[0].double().log_softmax(-1)
            losses += (-chances[torch.arange(WINDOW), tokens[1:]]).tolist()
        assert len(losses) == WINDOW * ROWS
        recomputed.append(sum(losses) / len(losses))
    assert logged == pytest.approx(recomputed, rel=1e-5)


@pytest.mark.parametrize("choose", ["random", "hardest"])
def test_a_share_of_the_targets_is_the_same_step_whatever_the_micro_batch(
    tmp_path: Path, corpus: Corpus, choose: str
) -> None:
    sparse = ["prediction.share=0.3", f"prediction.choose={choose}", "budget=3steps", "checkpoint.every=never"]
    runs = [trained(tmp_path, corpus, f"by-{rows}", f"execution.micro_batch={rows}", *sparse) for rows in (1, 8)]
    for by_one, whole in zip(*(run.metrics() for run in runs), strict=True):
        assert by_one["loss"] == pytest.approx(whole["loss"], rel=1e-5)
        assert by_one["gradient_norm"] == pytest.approx(whole["gradient_norm"], rel=1e-4)
    # The mean is over what was chosen, 5 of 16, and so is its gradient.
    first, gpt = runs[0].metrics()[0], build(runs[0].recipe.model, 11, CPU, Kernels(), runs[0].recipe.prediction)
    whole = next(batches(corpus, ROWS, seed=11).step(0))
    loss = gpt(whole.inputs, whole.targets, whole.dropout_seeds) / (5 * ROWS)
    loss.backward()
    assert first["loss"] == pytest.approx(loss.item(), rel=1e-5)
    assert first["gradient_norm"] == pytest.approx(unscale_and_clip(gpt, 0.0, scale=1.0), rel=1e-4)


def short_of_memory(patch: pytest.MonkeyPatch, error: Exception, *, rows: int, calls: int) -> None:
    """A device without memory for a training pass of `rows` rows or more, from the call of this number on."""
    passed, forward = 0, GPT.forward

    def allocate(self: GPT, tokens: Tensor, targets: Tensor, noise: Tensor | None = None) -> Tensor:
        nonlocal passed
        if torch.is_grad_enabled():
            passed += 1
            if passed >= calls and len(tokens) >= rows:
                raise error
        return forward(self, tokens, targets, noise)

    patch.setattr(GPT, "forward", allocate)


SHORT = [
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB"),
    RuntimeError("[enforce fail at alloc_cpu.cpp:113] . DefaultCPUAllocator: can't allocate memory: you tried"),
    MemoryError(),
]


@pytest.mark.parametrize("error", SHORT, ids=lambda error: type(error).__name__)
def test_without_memory_the_micro_batch_is_halved_and_the_step_is_the_same(
    tmp_path: Path,
    corpus: Corpus,
    error: Exception,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    plain = trained(tmp_path, corpus, "plain", "execution.micro_batch=4")
    # Each step has two passes: it is the second one of step 3, behind a backward pass, that does not fit any more.
    with monkeypatch.context() as patch:
        short_of_memory(patch, error, rows=2, calls=6)
        short = trained(tmp_path, corpus, "short", "execution.micro_batch=4")
    assert short.finished
    events = [(event["step"], event["micro_batch"]) for event in short.metrics("micro_batch")]
    assert events[-1] == (2, 1)
    assert "ran out of memory in step 3; on with 2 rows at once" in capsys.readouterr().err
    for ours, theirs in zip(short.metrics(), plain.metrics(), strict=True):
        assert ours["loss"] == pytest.approx(theirs["loss"], rel=1e-5)
        assert ours["gradient_norm"] == pytest.approx(theirs["gradient_norm"], rel=1e-4)
        assert ours["tokens"] == theirs["tokens"]
    folder = tmp_path / "short" / "checkpoints"
    in_steps = [open_checkpoint(folder / f"step-{step:08d}").state["micro_batch"] for step in (1, 2, 3, 4, 5)]
    assert in_steps == [4, 4, 1, 1, 1]


def test_a_micro_batch_that_was_halved_stays_so_in_the_next_sitting(
    tmp_path: Path, corpus: Corpus, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        short_of_memory(patch, SHORT[0], rows=4, calls=1)
        trained(tmp_path, corpus, "run", "execution.micro_batch=8")
    shutil.rmtree(tmp_path / "run" / "checkpoints" / "step-00000005")
    seen: list[int] = []
    forward = GPT.forward

    def watch(self: GPT, tokens: Tensor, targets: Tensor, noise: Tensor | None = None) -> Tensor:
        seen.extend([len(tokens)] if torch.is_grad_enabled() else [])
        return forward(self, tokens, targets, noise)

    monkeypatch.setattr(GPT, "forward", watch)
    assert trained(tmp_path, corpus, "run", "execution.micro_batch=8").finished
    assert seen == [2, 2, 2, 2]


def test_without_memory_before_the_first_step_the_micro_batch_is_halved_too(
    tmp_path: Path, corpus: Corpus, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A budget of seconds times a micro-batch first."""
    short_of_memory(monkeypatch, SHORT[0], rows=2, calls=1)
    run = trained(tmp_path, corpus, "run", "budget=2s", "execution.micro_batch=4", "checkpoint.every=50%")
    assert run.finished
    assert run.spent.steps > 1


def test_without_memory_for_one_row_there_is_one_message_and_the_last_checkpoint(
    tmp_path: Path, corpus: Corpus, monkeypatch: pytest.MonkeyPatch
) -> None:
    short_of_memory(monkeypatch, SHORT[0], rows=1, calls=9)
    with pytest.raises(UserError, match=r"ran out of memory with a micro-batch of 1; use a smaller model"):
        trained(tmp_path, corpus, "run")
    assert [path.name for path in list_checkpoints(tmp_path / "run" / "checkpoints")] == [
        "step-00000001",
        "step-00000002",
    ]


def test_another_error_of_a_step_is_not_taken_for_a_lack_of_memory(
    tmp_path: Path, corpus: Corpus, monkeypatch: pytest.MonkeyPatch
) -> None:
    short_of_memory(monkeypatch, RuntimeError("CUDA error: an illegal memory access was encountered"), rows=1, calls=9)
    with pytest.raises(RuntimeError, match="illegal memory access"):
        trained(tmp_path, corpus, "run")
