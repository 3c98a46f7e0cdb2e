"""Whole runs on a GPU: losses of a CPU, the same bits when stopped, samples, ranks, memory that is short."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from daybreak import Recipe, Run, load, train
from daybreak.data.shards import Corpus
from daybreak.hardware import is_out_of_memory
from daybreak.sampling.settings import SamplingConfig
from test_exact import bits
from test_run import stopping_after

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]

RECIPE = """
budget = "12 steps"
seed = 3

[data]
window = 64

[batch]
tokens = 512

[model]
layers = 2
heads = 2
dim = 64
context = 64
vocab_size = 320

[optimizer]
lr = 3e-3

[evaluation]
every = "50%"
tokens = 1024

[execution]
device = "cuda"
precision = "fp32"
micro_batch = 4
"""
KINDS = {
    "gpt2": (),
    "dropout": ("model.dropout=0.2",),
    "gpt-star": ("model.residual=parallel", "model.position={kind='alibi'}"),
    "crammed": (
        "model.bias=false",
        "model.position={kind='sinusoidal', learned_scale=true}",
        "model.mlp={kind='glu', activation='gelu', hidden=96}",
        "model.extra_norms={after_embedding=true, over_logits=true, shared=false}",
    ),
    "sparse": ("model.attention={windows=[16,0], strides=[8,0]}", "prediction={share=0.5, choose='random'}"),
    "packed": ("data.packing=documents", "model.position={kind='rotary'}"),
    "daybreak": (
        "model.bias=false",
        "model.embedding_skip=true",
        "model.position={kind='rotary'}",
        "model.attention={qk_norm=true}",
        "model.mlp={activation='relu2'}",
        "model.norm={kind='rmsnorm'}",
        "model.head={tied=false, soft_cap=15}",
        "model.lookup={ngrams=[2], rows=1024, values='alternate'}",
        "optimizer={kind='muon', lr=0.02}",
    ),
}


@pytest.fixture(scope="module")
def recipe_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("recipe") / "cuda.toml"
    path.write_text(RECIPE)
    return path


@pytest.fixture(autouse=True)
def _switches() -> Iterator[None]:
    """What a run switches on for its process is off again for the next test."""
    yield
    torch.use_deterministic_algorithms(False)


def losses(run: Run) -> list[float]:
    return [record["loss"] for record in run.metrics()]


@pytest.mark.parametrize("kind", KINDS)
def test_losses_are_those_of_a_cpu(kind: str, recipe_file: Path, corpus: Corpus, tmp_path: Path) -> None:
    settings = KINDS[kind]
    here = train(Recipe.load(recipe_file, *settings), data=corpus.path, out=tmp_path / "cuda")
    there = train(
        Recipe.load(recipe_file, *settings, "execution.device=cpu", "execution.threads=2"),
        data=corpus.path,
        out=tmp_path / "cpu",
    )
    assert losses(here) == pytest.approx(losses(there), rel=2e-3)
    assert here.evaluate().loss == pytest.approx(there.evaluate().loss, rel=2e-3)
    assert losses(here)[-1] < losses(here)[0] - 0.1


@pytest.mark.parametrize("settings", [(), ("execution.weights=bf16",), ("execution.compile=true",)])
def test_bf16_comes_near_fp32(settings: tuple[str, ...], recipe_file: Path, corpus: Corpus, tmp_path: Path) -> None:
    exact = train(Recipe.load(recipe_file), data=corpus.path, out=tmp_path / "fp32")
    recipe = Recipe.load(recipe_file, "execution.precision=bf16", *settings)
    assert losses(train(recipe, data=corpus.path, out=tmp_path / "bf16")) == pytest.approx(losses(exact), rel=2e-2)


@pytest.mark.parametrize("kind", ["dropout", "gpt-star", "daybreak"])
def test_a_deterministic_run_that_was_stopped_ends_with_the_same_bits(
    kind: str, recipe_file: Path, corpus: Corpus, tmp_path: Path
) -> None:
    settings = (*KINDS[kind], "execution.deterministic=true", "execution.precision=bf16")
    recipe = Recipe.load(recipe_file, *settings)
    undisturbed = train(recipe, data=corpus.path, out=tmp_path / "undisturbed")
    with stopping_after(3, 7):
        for _ in range(2):
            assert not train(recipe, data=corpus.path, out=tmp_path / "stopped").finished
    again = train(recipe, data=corpus.path, out=tmp_path / "stopped")
    assert again.finished
    assert losses(again) == losses(undisturbed)
    assert bits(again) == bits(undisturbed)


def test_a_run_is_sampled_alike_on_both_devices(recipe_file: Path, corpus: Corpus, tmp_path: Path) -> None:
    run = train(Recipe.load(recipe_file, "budget=60 steps"), data=corpus.path, out=tmp_path / "run")
    there = load(tmp_path / "run")
    assert run.model.embedding.weight.is_cuda
    greedy = SamplingConfig(greedy=True)
    (made,) = run.sample("a", tokens=40, sampling=greedy)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("daybreak.run.is_here", lambda device: device.type == "cpu")
        (expected,) = there.sample("a", tokens=40, sampling=greedy)
    assert made.text == expected.text


@pytest.mark.parametrize("parallel", ["ddp", "fsdp"])
def test_a_rank_over_nccl_trains_as_one_process(
    parallel: str, recipe_file: Path, corpus: Corpus, tmp_path: Path
) -> None:
    alone = train(Recipe.load(recipe_file), data=corpus.path, out=tmp_path / "alone")
    words = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "1", "-m", "daybreak"]
    words += ["train", str(recipe_file), "--data", str(corpus.path), "--out", str(tmp_path / "rank")]
    done = subprocess.run([*words, f"parallel.kind={parallel}"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert losses(load(tmp_path / "rank")) == pytest.approx(losses(alone), rel=1e-4)


def test_real_shortage_of_memory_halves_the_micro_batch(recipe_file: Path, corpus: Corpus, tmp_path: Path) -> None:
    settings = ("model.vocab_size=50304", "batch.tokens=32768", "execution.loss_rows=0", "execution.micro_batch=512")
    recipe = Recipe.load(recipe_file, *settings, "budget=2 steps", "evaluation.tokens=64")
    torch.cuda.empty_cache()
    total = torch.cuda.get_device_properties(0).total_memory
    torch.cuda.set_per_process_memory_fraction((torch.cuda.memory_reserved() + (4 << 30)) / total)
    try:
        with pytest.raises(torch.OutOfMemoryError) as raised:  # so the limit is one
            torch.empty(6 << 30, dtype=torch.uint8, device="cuda")
        assert is_out_of_memory(raised.value)
        run = train(recipe, data=corpus.path, out=tmp_path / "run")
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert run.finished
    assert run.execution.micro_batch < 512


def test_bench_and_profile_look_at_the_gpu(recipe_file: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "daybreak"]
    for words, said in (
        (["bench", str(recipe_file), "budget=2 steps"], "tokens/s"),
        (["profile", str(recipe_file), "--out", str(tmp_path / "profile")], "routines by their own time on the GPU"),
        (["doctor"], torch.cuda.get_device_name()),
    ):
        done = subprocess.run([*command, *words], capture_output=True, text=True, check=False, env=os.environ)
        assert done.returncode in (0, 1), done.stderr  # the doctor ends with 1 where something is missing
        assert said in done.stdout, done.stdout
