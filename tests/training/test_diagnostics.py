"""Sizes by layer: those that two checkpoints and a softmax written out by hand have; and training is as without."""

import math
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from daybreak import train
from daybreak.checkpoint import checkpoint_path
from daybreak.data.shards import Corpus
from daybreak.model.gpt import GPT, ModelConfig, build
from daybreak.recipe import Recipe
from daybreak.run import Run
from daybreak.training.diagnostics import ROWS

SETTINGS = (
    "budget=6 steps", "data.tokenizer=bytes", "data.window=16", "batch.tokens=64", "model.layers=2", "model.heads=2",
    "model.dim=16", "model.context=16", "model.vocab_size=257", "evaluation.tokens=64", "execution.threads=1",
    "checkpoint={every='1 steps', keep=10}", "optimizer.lr=1e-2",
)  # fmt: skip
MUON = ("optimizer={ kind = 'muon' }", "model.head.tied=false", "model.lookup={ ngrams = [2], rows = 32 }")
BLOCK = ("attention.output.weight", "attention.qkv.weight", "mlp.down.weight", "mlp.up.weight")
SIZES = {"layers": 2, "heads": 4, "dim": 32, "context": 12, "vocab_size": 61}


@pytest.fixture(scope="module")
def runs(corpus: Corpus, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Run]:
    folder = tmp_path_factory.mktemp("runs")

    def run(name: str, *settings: str) -> Run:
        return train(Recipe.load("gpt2-tiny", *SETTINGS, *settings), data=corpus.path, out=folder / name)

    return {
        "adamw": run("adamw", "diagnostics.every=1 steps"),
        "muon": run("muon", *MUON, "diagnostics.every=1 steps"),
        "without": run("without", "diagnostics.every=never"),
        "seldom": run("seldom", "diagnostics.every=3 steps"),
    }


def root_of_squares(*tensors: Tensor) -> float:
    return math.sqrt(sum(float(tensor.double().square().sum()) for tensor in tensors))


@pytest.mark.parametrize("kind", ["adamw", "muon"])
def test_the_size_of_an_update_is_the_difference_of_two_checkpoints(runs: dict[str, Run], kind: str) -> None:
    run = runs[kind]
    matrices = {"embedding": ["embedding.weight"], "position": ["position.weight"]}
    matrices |= {f"blocks.{layer}": [f"blocks.{layer}.{name}" for name in BLOCK] for layer in range(2)}
    if kind == "muon":
        matrices |= {"head": ["head.weight"], "ngrams": [name for name in weights(run, 1) if name.startswith("ngrams")]}
    records = run.metrics("layers")
    assert [record["step"] for record in records] == list(range(1, 7))
    for record in records[1:]:
        before, after = (weights(run, step) for step in (record["step"] - 1, record["step"]))
        assert set(record["update_size"]) == set(matrices)
        for layer, names in matrices.items():
            change = root_of_squares(*(after[name] - before[name] for name in names))
            expected = change / root_of_squares(*(before[name] for name in names))
            assert record["update_size"][layer] == pytest.approx(expected, rel=1e-4)
            assert expected > 1e-3


def weights(run: Run, step: int) -> dict[str, Tensor]:
    return load_file(checkpoint_path(run.path / "checkpoints", step) / "model.safetensors")


def test_training_has_the_same_bits_with_and_without(runs: dict[str, Run]) -> None:
    for name in ("adamw", "seldom"):
        for file in ("model.safetensors", "optimizer.safetensors"):
            assert (runs[name].checkpoint.path / file).read_bytes() == (
                runs["without"].checkpoint.path / file
            ).read_bytes()
    assert runs["without"].metrics("layers") == []


def test_steps_at_multiples_are_measured(runs: dict[str, Run]) -> None:
    assert [record["step"] for record in runs["seldom"].metrics("layers")] == [3, 6]


def test_the_largest_logits_are_those_of_the_rows_of_validation(runs: dict[str, Run], corpus: Corpus) -> None:
    stream = corpus.stream("validation")
    starts = [index * len(range(0, len(stream) - 1, 16)) // 4 * 16 for index in range(4)]
    tokens = torch.stack([torch.from_numpy(stream.read(start, start + 16).astype("int64")) for start in starts])
    run = runs["adamw"]
    assert len(tokens) == ROWS
    largest = run.metrics("layers")[-1]["largest_logit"]
    assert largest == pytest.approx(by_hand(run.model, tokens), rel=2e-2)  # trained in bf16 where the CPU has it


def by_hand(model: GPT, tokens: Tensor) -> dict[str, float]:
    """Largest logits, one score after the other, from what comes into each block and its weights."""
    entering: dict[str, Tensor] = {}
    handles = [
        block.register_forward_pre_hook(lambda _, inputs, name=f"blocks.{layer}": entering.update({name: inputs[0]}))
        for layer, block in enumerate(model.blocks)
    ]
    with torch.no_grad():
        found = {"head": float(model.logits(tokens).max())}
    for handle in handles:
        handle.remove()
    for layer, block in enumerate(model.blocks):
        name = f"blocks.{layer}"
        found[name] = max(scores(model, block, layer, entering[name].detach(), tokens))
    return found


def scores(model: GPT, block: Any, layer: int, x: Tensor, tokens: Tensor) -> Iterator[float]:
    """Every logit of a query and a key that it sees."""
    config, state = model.config, block.state_dict()
    size, heads, kv_heads = config.dim // config.heads, config.heads, config.attention.kv_heads or config.heads
    norm: nn.Module = block.attention_norm if config.residual == "sequential" else block.norm
    with torch.no_grad():
        qkv = norm(x) @ state["attention.qkv.weight"].T + state.get("attention.qkv.bias", 0.0)
    window = config.attention.windows[layer % len(config.attention.windows)]
    stride = config.attention.strides[layer % len(config.attention.strides)]
    for row in range(len(x)):
        for head in range(heads):
            queries = qkv[row, :, head * size : (head + 1) * size]
            place = (heads + head * kv_heads // heads) * size
            keys = qkv[row, :, place : place + size]
            for query in range(x.shape[1]):
                for key in range(query + 1):
                    distance = query - key
                    if window and distance >= window and not (stride and distance % stride == 0):
                        continue
                    if model.separator is not None and model.separator in tokens[row, key + 1 : query + 1].tolist():
                        continue
                    yield score(config, queries[query], keys[key], query, key, head)


def score(config: ModelConfig, query: Tensor, key: Tensor, query_at: int, key_at: int, head: int) -> float:
    if config.attention.qk_norm:
        query, key = (vector / vector.square().mean().sqrt() for vector in (query, key))
    if config.position.kind == "rotary":
        query, key = turned(query, query_at), turned(key, key_at)
    bias = 2 ** (-8 * (head + 1) / config.heads) * (query_at - key_at) if config.position.kind == "alibi" else 0.0
    return float(query @ key) / math.sqrt(len(query)) - bias


def turned(vector: Tensor, place: int) -> Tensor:
    """Pairs (first half, second half) as complex numbers, turned by their angles."""
    half = len(vector) // 2
    pairs = torch.complex(vector[:half], vector[half:])
    angles = place * 10_000.0 ** (-torch.arange(half) / half)
    turned_pairs = pairs * torch.polar(torch.ones(half), angles)
    return torch.cat([turned_pairs.real, turned_pairs.imag])


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"position": {"kind": "alibi"}, "residual": "parallel", "attention": {"kv_heads": 2}, "bias": False},
        {
            "position": {"kind": "rotary"},
            "attention": {"qk_norm": True, "windows": [3, 0], "strides": [2, 0], "kv_heads": 1},
            "embedding_skip": True,
            "lookup": {"ngrams": [2], "rows": 32, "values": "alternate"},
            "head": {"tied": False, "soft_cap": 2.0},
        },
        {"norm": {"kind": "rmsnorm"}, "extra_norms": {"after_embedding": True, "shared": True}},
    ],
    ids=["gpt2", "alibi, parallel, grouped heads", "rotary, QK norm, windows, strides, skip, lookups", "shared norm"],
)
@pytest.mark.parametrize("separator", [None, 7], ids=["stream", "documents"])
def test_the_largest_logits_are_the_largest_that_a_softmax_gets(
    settings: dict[str, Any], separator: int | None
) -> None:
    model = build(ModelConfig(**(SIZES | settings)), 0, torch.device("cpu"), separator=separator)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn(parameter.shape, generator=generator))
    tokens = torch.randint(SIZES["vocab_size"], (3, SIZES["context"]), generator=generator)
    tokens[:, 5] = 7
    largest = model.largest_logits(tokens, 2).tolist()
    expected = by_hand(model, tokens[:2])
    assert largest == pytest.approx([expected["blocks.0"], expected["blocks.1"], expected["head"]], rel=1e-4)


def test_short_memory_is_said_and_stops_nothing(
    corpus: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def short(_: Tensor) -> Tensor:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr("daybreak.training.diagnostics.own_part", short)
    settings = (*SETTINGS, "diagnostics.every=3 steps")
    run = train(Recipe.load("gpt2-tiny", *settings), data=corpus.path, out=tmp_path / "run")
    assert run.finished
    assert run.metrics("layers") == []
    assert capsys.readouterr().err.count("memory does not suffice to measure this step's update") == 2


def test_a_run_goes_on_with_another_interval(runs: dict[str, Run], corpus: Corpus, tmp_path: Path) -> None:
    shutil.copytree(runs["without"].path, tmp_path / "run")
    (tmp_path / "run" / "finished.json").unlink()
    shutil.rmtree(checkpoint_path(tmp_path / "run" / "checkpoints", 6))
    recipe = Recipe.load("gpt2-tiny", *SETTINGS, "diagnostics.every=1 steps")
    assert recipe.fingerprint == runs["without"].recipe.fingerprint
    again = train(recipe, data=corpus.path, out=tmp_path / "run")
    assert again.finished
    for file in ("model.safetensors", "optimizer.safetensors"):
        assert (again.checkpoint.path / file).read_bytes() == (runs["without"].checkpoint.path / file).read_bytes()
