"""Each switch of execution computes what its plain reference does, and does what it is for."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from daybreak import Recipe, load, train
from daybreak.data.batches import Rows
from daybreak.data.shards import Corpus
from daybreak.errors import UserError
from daybreak.hardware import PrecisionName, autocast
from daybreak.model.gpt import GPT, ModelConfig, build
from daybreak.model.kernels import PLAIN, Kernels
from daybreak.training.compiling import compile_blocks, keep_compiled_code, wrap_blocks
from daybreak.training.execution import Execution, ExecutionConfig
from daybreak.training.microbatch import row_bytes
from daybreak.training.optimizer import AdamWConfig, MuonConfig, build_optimizers

CPU = torch.device("cpu")
LENGTH, VOCABULARY = 24, 61
TINY = (
    "data.tokenizer=bytes", "data.window=16", "batch.tokens=64", "model.layers=2", "model.heads=2", "model.dim=16",
    "model.context=16", "model.vocab_size=257", "budget=4steps", "evaluation.tokens=100", "execution.precision=bf16",
)  # fmt: skip
MODELS: dict[str, dict[str, Any]] = {
    "default": {},
    "dropout, windows and grouped heads": {"dropout": 0.2, "attention": {"windows": (5, 0), "kv_heads": 1}},
    "alibi, rmsnorm and parallel": {
        "position": {"kind": "alibi"},
        "norm": {"kind": "rmsnorm"},
        "residual": "parallel",
        "mlp": {"kind": "glu", "hidden": 24},
    },
    "sinusoidal, norms everywhere, untied": {
        "position": {"kind": "sinusoidal", "learned_scale": True},
        "extra_norms": {"after_embedding": True, "over_logits": True},
        "head": {"tied": False, "soft_cap": 5.0},
    },
    "rotary and qk norm": {"position": {"kind": "rotary"}, "attention": {"qk_norm": True}},
}
every_model = pytest.mark.parametrize("name", list(MODELS))


def make_model(name: str, kernels: Kernels = PLAIN) -> GPT:
    sizes = {"layers": 3, "heads": 2, "dim": 32, "context": LENGTH, "vocab_size": VOCABULARY}
    return build(ModelConfig(**(sizes | {"initialisation": {"std": 0.2}} | MODELS[name])), 0, CPU, kernels)


def some_rows(batch: int = 3) -> Rows:
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randint(VOCABULARY, (batch, LENGTH + 1), generator=generator)
    noise = torch.randint(2**31, (batch,), generator=generator)
    return Rows(tokens[:, :-1], tokens[:, 1:], noise, batch * LENGTH, last=True)


def loss_and_gradients(model: GPT, precision: PrecisionName = "fp32") -> dict[str, Tensor]:
    rows = some_rows()
    with autocast(CPU, precision):
        loss = model(rows.inputs, rows.targets, rows.dropout_seeds)
    loss.backward()
    gradients = {name: parameter.grad for name, parameter in model.named_parameters()}
    return {"loss": loss.detach(), **{name: grad for name, grad in gradients.items() if grad is not None}}


@contextmanager
def saved_bytes() -> Iterator[list[int]]:
    """Bytes of all that is kept for the backward pass inside, parameters left out, as the list's one number."""
    storages: dict[int, Any] = {}
    total = [0]

    def keep(tensor: Tensor) -> Tensor:
        if not isinstance(tensor, torch.nn.Parameter):
            storages[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        yield total
    total[0] = sum(storage.nbytes() for storage in storages.values())


@every_model
def test_attention_written_out_has_the_loss_and_gradients_of_the_fused(name: str) -> None:
    plain = loss_and_gradients(make_model(name, Kernels(fused_attention=False)))
    fused = loss_and_gradients(make_model(name))
    for key, expected in fused.items():
        torch.testing.assert_close(plain[key], expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("precision", "length", "said", "fused"),
    [("bf16", 128, "auto", False), ("bf16", 129, "auto", True), ("fp32", 64, "auto", True), ("bf16", 64, True, True),
     ("bf16", 256, False, False)],
)  # fmt: skip
def test_attention_is_written_out_where_that_is_faster(
    precision: PrecisionName, length: int, said: Any, fused: bool
) -> None:
    model = ModelConfig(layers=1, heads=1, dim=16, context=length, vocab_size=16)
    config = ExecutionConfig(device="cpu", precision=precision, fused_attention=said)
    execution = Execution.choose(config, model, parameter_bytes=0, rows=4, length=length, seconds=None, ranks=1)
    assert execution.fused_attention is execution.kernels.fused_attention is fused


def test_attention_written_out_calls_no_fused_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise AssertionError("a fused kernel was called")

    monkeypatch.setattr(torch.nn.functional, "scaled_dot_product_attention", fail)
    loss_and_gradients(make_model("default", Kernels(fused_attention=False)))
    with pytest.raises(AssertionError, match="fused kernel"):
        loss_and_gradients(make_model("default"))


@pytest.mark.parametrize(
    "config", [AdamWConfig(lr=1e-2, eps=1e-6), MuonConfig(kind="muon", eps=1e-6)], ids=["adamw", "muon"]
)
def test_the_fused_optimizer_takes_the_steps_of_the_default_one(config: AdamWConfig | MuonConfig) -> None:
    ends = []
    for fused in (True, False):
        model = make_model("default")
        optimizers = build_optimizers(config, model, fused=fused)
        assert optimizers[-1].defaults["fused"] is (True if fused else None)
        generator = torch.Generator().manual_seed(0)
        for _ in range(3):
            for parameter in model.parameters():
                parameter.grad = torch.randn(parameter.shape, generator=generator)
            for optimizer in optimizers:
                optimizer.step()
        ends.append([parameter.detach() for parameter in model.parameters()])
    for ours, theirs in zip(*ends, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


@every_model
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("copies", [False, True])
def test_recomputed_blocks_have_the_same_bits_and_keep_less(name: str, precision: PrecisionName, copies: bool) -> None:
    kernels = Kernels(bf16_copies=copies and precision == "bf16")
    with saved_bytes() as all_kept:
        expected = loss_and_gradients(make_model(name, kernels), precision)
    model = make_model(name, kernels)
    wrap_blocks(model, compiled=False, recompute=True)
    with saved_bytes() as kept:
        recomputed = loss_and_gradients(model, precision)
    assert recomputed.keys() == expected.keys()
    assert all(torch.equal(recomputed[key], expected[key]) for key in expected)
    assert kept[0] < 0.6 * all_kept[0]


def test_without_gradients_nothing_is_recomputed() -> None:
    model, rows = make_model("default"), some_rows()
    expected = model(rows.inputs, rows.targets)
    wrap_blocks(model, compiled=False, recompute=True)
    with torch.no_grad():
        assert torch.equal(model(rows.inputs, rows.targets), expected)
    wrap_blocks(model, compiled=False, recompute=False)
    assert not any("forward" in vars(block) for block in model.blocks)


def test_the_estimate_of_a_rows_memory_knows_of_the_switches() -> None:
    model = ModelConfig(layers=12, heads=12, dim=768, context=1024, vocab_size=50_304)
    chunked = Kernels(512)
    every = row_bytes(model, 1024, chunked, "bf16")
    assert row_bytes(model, 1024, chunked, "bf16", recompute=True) < 0.25 * every
    assert row_bytes(model, 1024, Kernels(512, bf16_copies=True), "bf16") == every - 12 * 1024 * 768 * 2 * 2
    scores = 12 * 12 * 1024 * 1024 * 4
    assert row_bytes(model, 1024, Kernels(512, fused_attention=False), "bf16") >= every + scores


@every_model
def test_bf16_copies_give_the_loss_and_gradients_of_fp32_within_bf16(name: str) -> None:
    model = make_model(name, Kernels(bf16_copies=True))
    outputs: list[torch.dtype] = []
    for block in model.blocks:
        block.register_forward_hook(lambda _module, _inputs, output: outputs.append(output.dtype))
    copies, cast, exact = (
        loss_and_gradients(model, "bf16"),
        loss_and_gradients(make_model(name), "bf16"),
        loss_and_gradients(make_model(name)),
    )
    assert outputs == [torch.bfloat16] * 3
    assert all(tensor.dtype == torch.float32 for tensor in (*copies.values(), *model.parameters()))
    assert copies["loss"].item() == pytest.approx(exact["loss"].item(), rel=0.01)
    for key in exact:
        # As near to fp32 as what autocast alone comes to, whose error is of the same kind.
        off = float((copies[key] - exact[key]).norm() / exact[key].norm())
        allowed = float((cast[key] - exact[key]).norm() / exact[key].norm())
        assert off < 3 * allowed + 0.01, key


def test_bf16_copies_are_not_what_is_evaluated() -> None:
    rows = some_rows()
    with torch.no_grad(), autocast(CPU, "bf16"):
        ours, theirs = (
            make_model("default", kernels)(rows.inputs, rows.targets) for kernels in (PLAIN, Kernels(bf16_copies=True))
        )
    assert torch.equal(ours, theirs)


def test_bf16_copies_need_bf16() -> None:
    model = ModelConfig(layers=1, heads=1, dim=16, context=16, vocab_size=16)
    config = ExecutionConfig(precision="fp32", weights="bf16")
    with pytest.raises(UserError, match=r"execution\.weights = bf16 needs execution\.precision = bf16"):
        Execution.choose(config, model, parameter_bytes=0, rows=4, length=16, seconds=None, ranks=1)


@pytest.mark.parametrize(
    ("setting", "tolerance"),
    [("fused_attention=true", 2e-3), ("fused_optimizer=false", 2e-3), ("recompute=true", 0.0), ("weights=bf16", 5e-3)],
)
def test_a_run_with_a_switch_has_the_losses_of_the_run_without(
    setting: str, tolerance: float, corpus: Corpus, tmp_path: Path
) -> None:
    losses = []
    for settings in ((), (f"execution.{setting}",)):
        recipe = Recipe.load("gpt2-tiny", *TINY, *settings)
        run = train(recipe, data=corpus.path, out=tmp_path / f"run{len(settings)}")
        losses.append([record["loss"] for record in run.metrics()])
    assert losses[1] == pytest.approx(losses[0], rel=tolerance, abs=0.0)
    key, value = setting.split("=")
    assert str(getattr(load(tmp_path / "run1").execution, key)).lower() == value
    assert run.checkpoint.weights()["embedding.weight"].dtype == torch.float32


@pytest.fixture
def _compiler_as_it_was() -> Iterator[None]:
    before = torch._dynamo.config.fail_on_recompile_limit_hit
    torch._dynamo.reset()
    yield
    torch._dynamo.config.fail_on_recompile_limit_hit = before
    torch._dynamo.reset()


@pytest.mark.slow
@pytest.mark.usefixtures("_compiler_as_it_was")
@pytest.mark.parametrize(("name", "copies"), [("default", True), ("dropout, windows and grouped heads", False)])
def test_compiled_blocks_are_recomputed_to_the_bit(name: str, copies: bool) -> None:
    precision: PrecisionName = "bf16" if copies else "fp32"
    results, kept = [], []
    for recompute in (False, True):
        model = make_model(name, Kernels(bf16_copies=copies))
        assert compile_blocks(model, [some_rows()], CPU, precision, recompute=recompute)
        with saved_bytes() as total:
            results.append(loss_and_gradients(model, precision))
        kept += total
    eager = loss_and_gradients(make_model(name, Kernels(bf16_copies=copies)), precision)
    assert all(torch.equal(results[0][key], results[1][key]) for key in eager)
    assert kept[1] < 0.6 * kept[0]
    for key, expected in eager.items():
        off = float((results[0][key] - expected).norm() / expected.norm())
        assert off < (0.05 if copies else 1e-4), key


def test_compiled_code_goes_to_the_users_cache_unless_a_place_is_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", "named")
    keep_compiled_code()
    assert os.environ["TORCHINDUCTOR_CACHE_DIR"] == "named"

    monkeypatch.delenv("TORCHINDUCTOR_CACHE_DIR")
    monkeypatch.delenv("DAYBREAK_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    keep_compiled_code()
    assert os.environ["TORCHINDUCTOR_CACHE_DIR"] == str(tmp_path / "daybreak" / "compiled")

    monkeypatch.delenv("TORCHINDUCTOR_CACHE_DIR")
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    keep_compiled_code()
    assert "TORCHINDUCTOR_CACHE_DIR" not in os.environ
    assert "cannot be made" in capsys.readouterr().err


COMPILE = """
import sys, torch
from pathlib import Path
sys.path.insert(0, str(Path(sys.argv[1])))
from test_execution import CPU, compile_blocks, keep_compiled_code, make_model, some_rows
keep_compiled_code()
assert compile_blocks(make_model("default"), [some_rows()], CPU, "fp32")
counters = torch._dynamo.utils.counters["inductor"]
print(counters["fxgraph_cache_hit"], counters["fxgraph_cache_miss"])
"""


@pytest.mark.slow
def test_a_second_process_finds_what_the_first_compiled(tmp_path: Path) -> None:
    environment = {name: value for name, value in os.environ.items() if name != "TORCHINDUCTOR_CACHE_DIR"}
    environment["DAYBREAK_CACHE"] = str(tmp_path)
    words = [sys.executable, "-c", COMPILE, str(Path(__file__).parent)]
    counts = []
    for _ in range(2):
        done = subprocess.run(words, env=environment, capture_output=True, text=True, check=True)
        counts.append([int(word) for word in done.stdout.split()])
    (cold_hits, cold_misses), (warm_hits, warm_misses) = counts
    assert cold_misses > 0
    assert cold_hits < cold_misses + cold_hits == warm_hits
    assert warm_misses == 0
