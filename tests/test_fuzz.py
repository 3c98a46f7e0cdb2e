"""Mutated recipes, manifests, shards, runs and command lines: each ends well or with one message, never in a traceback.

All is seeded, so a failure comes again. What is sealed is sealed anew behind a mutation: a seal proves that nothing
was damaged, not that what is in it makes sense.
"""

import base64
import copy
import functools
import io
import json
import math
import random
import re
import shutil
import subprocess
import sys
import traceback
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from safetensors.torch import load_file, save_file

from daybreak import Recipe, cli, load, train
from daybreak.checkpoint import list_checkpoints
from daybreak.data.inspection import describe
from daybreak.data.prepare import prepare
from daybreak.data.shards import Corpus
from daybreak.data.tokenizer import Tokenizer
from daybreak.errors import UserError
from daybreak.files import canonical_json, sha256_bytes, sha256_file, write_sealed
from daybreak.model.gpt import count_parameters
from daybreak.recipe import recipe_names
from daybreak.sampling.settings import SamplingConfig
from daybreak.training.execution import Execution
from daybreak.training.flops import flops_per_token
from daybreak.verify import verify
from made_text import write_documents

# How many chunks, which xdist spreads, of how many mutations.
CHUNKS = {
    "recipe": (3, 200),
    "override": (2, 200),
    "corpus": (2, 150),
    "shard": (1, 150),
    "run": (4, 75),
    "command": (5, 80),
}
RECIPE = """
budget = "2 steps"
description = "tiny"
seed = 5

[data]
window = 16
tokenizer = "bytes"

[batch]
tokens = 64

[model]
layers = 1
heads = 2
dim = 16
context = 16
vocab_size = 257
position = { kind = "rotary", base = 1e4 }
mlp = { kind = "glu", activation = "silu", hidden = 16 }

[optimizer]
lr = 1e-2
betas = [0.9, 0.95]

[schedule]
kind = "cosine"
warmup = "10%"

[evaluation]
every = "50%"
tokens = 100

[checkpoint]
every = "1 step"

[execution]
device = "cpu"
precision = "fp32"
micro_batch = 2
threads = 1
"""
DEEP = functools.reduce(lambda inner, _: [inner], range(60), [1])
JUNK: list[Any] = [
    *(None, True, False, 0, 1, -1, 2, 7, 255, 65_536, 2**31, 2**63, 2**64, -(2**63), 10**30, 10**400),
    *(0.0, -0.0, 0.5, -0.5, 1.5, 1e-300, 1e300, math.nan, math.inf, -math.inf),
    *("", " ", "x", "0", "-1", "é", "日本", "\ud800", "\0", "\n", "..", ".", "/", "../x", "a/b", "\\", "a" * 5000),
    *("train-00000.bin", "manifest.json", "bytes", "<u4", "<u2", "fp16", "cuda:0", "meta", "cpu:7", "auto"),
    *([], [0], [None], [[]], ["x"], [1, 2, 3], {}, {"x": 1}, {"file": "x"}, [{}], DEEP),
]
LITERALS = [
    *("0", "1", "-1", "3", "1e3", "1e999", "-0.5", "nan", "inf", "-inf", "true", "false", "0x10", "1_000", "9" * 400),
    *('""', '"x"', '"never"', '"auto"', '"10%"', '"200%"', '"90s"', '"3 steps"', '"-3 steps"', '"1e9 tokens"', '"$5"'),
    *('"2 epochs"', '"1e18 flops"', '"20x params"', '"1e400 steps"', '"٣ steps"', "'x", '"""', "[]", "[0]", "[1, 2]"),
    *("{}", "{ kind = 'x' }", "{ kind = 'glu' }", "{ kind = 'wsd', decay = '90%' }", "{ kind = 'muon' }", "{ a = {} }"),
    *("1979-05-27", "07:32:00", "1979-05-27T07:32:00Z", "[{}]", "[[1]]", "[{ corpus = 'a' }]", "[" * 500, "{" * 500),
    *("= 3", "", " ", "#", "\\", '"\\ud800"', '"\\u0000"', "'\0'", "\x7f", "日本", '"' + "x" * 3000 + '"'),
]


@dataclass
class Tried:
    """What became of a chunk's mutations."""

    good: int = 0
    refused: int = 0
    failures: dict[str, str] = field(default_factory=dict)

    def note(self, what: str, attempt: Callable[..., object], *args: Any) -> bool:
        """Try; anything but success and a UserError is a failure. Returns whether it succeeded."""
        try:
            attempt(*args)
        except UserError as error:
            if not str(error).strip():
                self.failures["a UserError without a message"] = what
            self.refused += 1
            return False
        except (KeyboardInterrupt, GeneratorExit):
            raise
        except BaseException as error:  # a panic of a library in Rust is no Exception
            frame = traceback.extract_tb(error.__traceback__)[-1]
            place = f"{type(error).__name__}: {str(error)[:120]} at {Path(frame.filename).name}:{frame.name}"
            own = [f for f in traceback.extract_tb(error.__traceback__) if "daybreak" in f.filename]
            path = " > ".join(f"{Path(each.filename).name}:{each.name}" for each in own[-3:])
            self.failures.setdefault(f"{place} ({path})", what)
            return False
        self.good += 1
        return True

    def check(self, count: int) -> None:
        """Raises if anything failed, or too little was tried to mean anything."""
        shown = "\n".join(f"{what[:400]}\n    {how}" for how, what in self.failures.items())
        print(f"{self.good} went well, {self.refused} were refused")
        assert not self.failures, f"{len(self.failures)} kinds of traceback:\n{shown}"
        assert self.good + self.refused >= count
        assert self.refused


@dataclass(frozen=True)
class World:
    """What mutations are made of; copied where it is changed.

    Attributes:
        stopped: a run with a step to go.
        finished: the same, at its end.
    """

    recipe: Path
    corpus: Path
    stopped: Path
    finished: Path


def named(cases: Mapping[str, Any]) -> list[Any]:
    """Parameters of a test, each under its name."""
    return [pytest.param(case, id=name) for name, case in cases.items()]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    folder = tmp_path_factory.mktemp("fuzz")
    recipe = folder / "tiny.toml"
    recipe.write_text(RECIPE)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("daybreak.data.pipeline._SHARD_TOKENS", 1500)
        source = str(write_documents(folder, documents=12, words=40))
        corpus = prepare([source], folder / "corpus", tokenizer="bytes")
    assert len(corpus.train.shards) > 1
    finished = train(Recipe.load(recipe), data=corpus.path, out=folder / "finished")
    stopped = folder / "stopped"
    shutil.copytree(finished.path, stopped)
    shutil.rmtree(list_checkpoints(stopped / "checkpoints")[-1])
    (stopped / "finished.json").unlink()
    yield World(recipe, corpus.path, stopped, finished.path)
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(False)


def chunks(kind: str) -> pytest.MarkDecorator:
    """A test once for each chunk, with a generator of its own and the number of mutations; the later ones are slow."""
    number, count = CHUNKS[kind]
    values = [
        pytest.param(
            random.Random(f"{kind} {chunk}"),
            count,
            id=f"{kind}-{chunk}",
            marks=[pytest.mark.slow] if chunk > number // 2 else [],
        )
        for chunk in range(number)
    ]
    return pytest.mark.parametrize(("generator", "count"), values)


def test_over_two_thousand_mutations_are_tried() -> None:
    assert sum(number * count for number, count in CHUNKS.values()) >= 2000


# Recipes


@functools.cache
def _lines() -> list[tuple[str, str]]:
    """Every setting of every recipe that ships with Daybreak."""
    lines = [line for name in recipe_names() for line in Recipe.load(name).to_toml().split("\n")]
    return [(line.partition(" = ")[0], line.partition(" = ")[2]) for line in lines if " = " in line]


@functools.cache
def _values(key: str) -> list[str]:
    """What a setting of this name is in some recipe, and as much that it never is."""
    found = sorted({value for name, value in _lines() if name == key})
    return found * (1 + len(LITERALS) // len(found)) + LITERALS if found else []


def mutated_text(generator: random.Random, text: str) -> str:
    """A TOML text with one to three mistakes in it."""
    for _ in range(generator.choice((1, 1, 1, 2, 3))):
        lines = text.split("\n")
        at = generator.randrange(len(lines))
        position = generator.randrange(len(text) + 1)
        kind = generator.randrange(12)
        key, equals, _ = lines[at].partition("=")
        if kind <= 4 and equals:
            lines[at] = f"{key}= {generator.choice(_values(key.strip()) or LITERALS)}"
        elif kind == 5 and equals:
            other = generator.choice(lines).partition("=")[0].strip(" []") or "x"
            lines[at] = f"{other} = {lines[at].partition('=')[2]}"
        elif kind == 6:
            del lines[at]
        elif kind == 7:
            lines.insert(generator.randrange(len(lines)), lines[at])
        elif kind == 8:
            text = text[:position] + generator.choice("={}[]\"'#.,\\\n\0\x7fé1 -_") + text[position:]
            continue
        elif kind == 9:
            text = text[:position] + text[position + generator.randint(1, 20) :]
            continue
        elif kind == 10:
            extends = generator.choice(
                ["gpt2", "gpt2-tiny", "x", "", ".", "base.toml", "self.toml", "é.toml", "a\\u0000"]
            )
            lines.insert(0, f'extends = "{extends}"')
        else:
            lines.insert(at, f"{generator.choice(['x', 'a.b', 'model', '[model', '[[batch]]', '[x.y]'])} = 3")
        text = "\n".join(lines)
    return text


def load_and_use(folder: Path, name: str | Path, *overrides: str) -> None:
    """What is done to a recipe: it is read, compared, written, read again, and its sizes are counted."""
    recipe = Recipe.load(name, *overrides)
    again = folder / "again.toml"
    again.write_text(recipe.to_toml(), encoding="utf-8")
    assert Recipe.load(again) == recipe, "it does not read back"
    assert Recipe.load(again).fingerprint == recipe.fingerprint
    assert recipe.differences(recipe) == []
    if recipe.model.layers <= 48:
        count_parameters(recipe.model)
        flops_per_token(recipe.model, recipe.row_length)


@chunks("recipe")
def test_a_mutated_recipe_loads_or_is_refused(
    generator: random.Random, count: int, world: World, tmp_path: Path
) -> None:
    texts = [RECIPE, *(Recipe.load(name).to_toml() for name in recipe_names())]
    (tmp_path / "base.toml").write_text(RECIPE)
    path, tried = tmp_path / "self.toml", Tried()
    for number in range(count):
        text = mutated_text(generator, generator.choice(texts))
        content = text.encode("utf-8", "surrogatepass")
        if generator.random() < 0.1:
            position = generator.randrange(len(content))
            content = content[:position] + generator.randbytes(generator.randint(1, 4)) + content[position:]
        path.write_bytes(content)
        tried.note(f"recipe {number}: {_difference(text, texts)!r}", load_and_use, tmp_path, path)
    tried.check(count)


def _difference(text: str, texts: Sequence[str]) -> str:
    """The lines of a mutated text that are in none of the texts it may come from."""
    known = {line for each in texts for line in each.split("\n")}
    return " | ".join(line[:200] for line in text.split("\n") if line not in known)


def some_overrides(generator: random.Random) -> list[str]:
    keys = [key for key in _all_keys() if not key.endswith((".corpus",))]
    words = []
    for _ in range(generator.choice((1, 1, 2, 3))):
        key = generator.choice(keys)
        kind = generator.randrange(10)
        if kind == 0:
            key = key.rsplit(".", 1)[0]
        elif kind == 1:
            key = f"{key}.{generator.choice(['x', 'kind', 'é', '0'])}"
        elif kind == 2:
            key = generator.choice(["", ".", "a..b", "model.", ".model", "__class__", "kind", "x" * 500, "é", "\ud800"])
        value = generator.choice(_values(key.rsplit(".", 1)[-1]) or LITERALS)
        words.append(
            generator.choice([f"{key}={value}"] * 12 + [f"{key} = {value}", key, f"{key}=={value}", f"={value}"])
        )
    return words


@functools.cache
def _all_keys() -> list[str]:
    content = Recipe.load("gpt-star-1b").model_dump(mode="json")
    flat = [key if not isinstance(value, dict) else f"{key}." for key, value in content.items()]
    inner = [f"{key}.{name}" for key, value in content.items() if isinstance(value, dict) for name in value]
    return sorted({*(key.rstrip(".") for key in flat), *inner, "curriculum", "batch.ramp", "data.mixture"})


@chunks("override")
def test_mutated_overrides_load_or_are_refused(
    generator: random.Random, count: int, world: World, tmp_path: Path
) -> None:
    bases, tried = [str(world.recipe), *recipe_names()], Tried()
    for number in range(count):
        base, words = generator.choice(bases), some_overrides(generator)
        tried.note(f"override {number}: {base} {words!r}", load_and_use, tmp_path, base, *words)
    tried.check(count)


# JSON


def mutated(generator: random.Random, value: Any) -> tuple[Any, str]:
    """A JSON value with one thing changed at a random place, and what that was."""
    value = copy.deepcopy(value)
    places = list(_places(value))
    at, container, key = generator.choice(places)
    old = container[key]
    kind = generator.randrange(12)
    if kind <= 4:
        container[key] = copy.deepcopy(generator.choice(JUNK))
    elif kind == 5:
        del container[key]
        return value, f"without {at}"
    elif kind == 6:
        other_at, other, other_key = generator.choice(places)
        container[key], other[other_key] = copy.deepcopy(other[other_key]), copy.deepcopy(old)
        return value, f"{at} and {other_at} swapped"
    elif kind == 7 and isinstance(container, list):
        container.insert(key, copy.deepcopy(old))
        return value, f"{at} twice"
    elif kind == 8 and isinstance(container, dict):
        container[generator.choice(["x", "", "é", "kind", "self", "config", "__class__"])] = old
        return value, f"{at} under another name too"
    elif kind == 9:
        container[key] = generator.choice([[old], {"x": old}, str(old), [old, old]])
    elif isinstance(old, bool):
        container[key] = not old
    elif isinstance(old, int):
        container[key] = generator.choice([old + 1, old - 1, -old, old * 5000, float(old), old + 0.5, old // 2])
    elif isinstance(old, float):
        container[key] = generator.choice([-old, old * 1e6, int(old), old / 2])
    elif isinstance(old, str):
        container[key] = generator.choice([old[:-1], old + "x", old.upper(), old[::-1], f"./{old}", f"{old}\n"])
    else:
        container[key] = generator.choice([None, [], {}, ""])
    return value, f"{at} = {str(container[key])[:80]!r}"


def _places(value: Any, at: str = "") -> Iterator[tuple[str, Any, Any]]:
    """Every entry inside, with the container and the key that hold it; of a long list, its ends."""
    if isinstance(value, dict):
        keys: Sequence[Any] = list(value)
    elif isinstance(value, list):
        keys = [0, 1, len(value) - 1] if len(value) > 3 else range(len(value))
    else:
        return
    for key in keys:
        yield f"{at}.{key}", value, key
        yield from _places(value[key], f"{at}.{key}")


def unsealed(path: Path) -> dict[str, Any]:
    value: dict[str, Any] = json.loads(path.read_bytes())
    value.pop("seal", None)
    return value


def seal(path: Path, value: Any) -> None:
    """Write with a seal that fits; where none can, as of NaN, with one that does not."""
    try:
        write_sealed(path, value)
    except ValueError:
        path.write_text(json.dumps({**value, "seal": "0" * 64}, indent=2))


@contextmanager
def copied(source: Path, folder: Path) -> Iterator[Path]:
    target = folder / "copy"
    shutil.copytree(source, target)
    try:
        yield target
    finally:
        shutil.rmtree(target)


# Corpora


def write_tokenizer(path: Path, value: dict[str, Any]) -> None:
    """Write a tokenizer file with an identity that fits, and make the corpus or run around it vouch for it."""
    content = {key: value.get(key) for key in ("pattern", "ranks", "specials")}
    with suppress(TypeError, ValueError, RecursionError):
        value["identity"] = sha256_bytes(canonical_json(content))
        ranks = {base64.b64decode(token): rank for token, rank in content["ranks"]}
        value["identity"] = Tokenizer("", content["pattern"], ranks, content["specials"]).identity
    path.write_text(json.dumps(value))
    holder = path.with_name("manifest.json" if (path.parent / "manifest.json").exists() else "identity.json")
    vouch = {"tokenizer": value.get("identity"), "tokenizer_sha256": sha256_file(path)}
    seal(holder, unsealed(holder) | vouch)


def mutate_tokenizer(generator: random.Random, path: Path) -> str:
    """Change a tokenizer in what it says."""
    value, what = mutated(generator, json.loads(path.read_bytes()))
    write_tokenizer(path, value)
    return f"tokenizer.json {what}"


def mutate_corpus(generator: random.Random, corpus: Path) -> str:
    """Change a corpus in what its manifest or its tokenizer says, sealed and hashed anew."""
    if generator.random() < 0.3:
        return mutate_tokenizer(generator, corpus / "tokenizer.json")
    manifest, what = mutated(generator, unsealed(corpus / "manifest.json"))
    if generator.random() < 0.3:
        manifest, more = mutated(generator, manifest)
        what += f", {more}"
    seal(corpus / "manifest.json", manifest)
    return what


def use_corpus(world: World, path: Path, out: Path) -> None:
    """Open, describe, read, and train on a corpus."""
    corpus = Corpus.open(path)
    describe(corpus)
    for name in ("train", "validation"):
        stream = corpus.stream(name)
        corpus.tokenizer.decode(stream.read(0, len(stream)))
    assert corpus.identity
    recipe = Recipe.load(world.recipe, f"model.vocab_size={max(257, min(corpus.tokenizer.vocab_size, 1000))}")
    train(recipe, data=path, out=out, stop_after="1h")


def look(path: Path) -> None:
    """As `daybreak verify`, which prints what it finds."""
    for each in verify(path):
        print(each.path.relative_to(path), each.problem)


@chunks("corpus")
def test_a_mutated_corpus_is_used_or_refused(
    generator: random.Random, count: int, world: World, tmp_path: Path
) -> None:
    tried = Tried()
    for number in range(count):
        with copied(world.corpus, tmp_path) as corpus:
            what = f"corpus {number}: {mutate_corpus(generator, corpus)}"
            tried.note(f"verify {what}", look, corpus)
            tried.note(what, use_corpus, world, corpus, tmp_path / "run")
            shutil.rmtree(tmp_path / "run", ignore_errors=True)
    tried.check(count)


def mutate_shards(generator: random.Random, corpus: Path) -> str:
    """Change files of tokens and of offsets; the manifest has their hashes, and sometimes their counts."""
    manifest = unsealed(corpus / "manifest.json")
    split = generator.choice(["train", "validation"])
    shards = manifest["splits"][split]["shards"]
    shard = generator.choice(shards)
    documents = generator.random() < 0.3
    file = corpus / (shard["file"].replace(".bin", ".documents.bin") if documents else shard["file"])
    content = file.read_bytes()
    kind = generator.randrange(9)
    if kind == 0:
        content = generator.randbytes(len(content))
    elif kind == 1:
        content = b""
    elif kind == 2:
        content = content[: generator.randrange(len(content) + 1)]
    elif kind == 3:
        content += generator.randbytes(generator.choice([1, 2, 3, 8, 1000]))
    elif kind == 4:
        content = generator.choice([b"\xff\xff", b"\0\0", b"\1\1", b"\0\1"]) * (len(content) // 2)
    elif kind == 5:
        position = generator.randrange(len(content) // 2)
        content = content[: 2 * position] + generator.randbytes(2) + content[2 * position + 2 :]
    elif kind == 6:
        content = content[: generator.choice([2, 4, 8, 16, 32, 34])]
    elif kind == 7:
        shards.append(dict(shard))  # the same file twice
    else:
        shards.remove(shard)
    file.write_bytes(content)
    for each in shards:
        if each["file"] == shard["file"]:
            each["documents_sha256" if documents else "sha256"] = sha256_bytes(content)
            if generator.random() < 0.8:
                each["documents" if documents else "tokens"] = len(content) // (8 if documents else 2)
    if generator.random() < 0.8:
        for what in ("tokens", "documents"):
            manifest["splits"][split][what] = sum(each[what] for each in shards)
    seal(corpus / "manifest.json", manifest)
    return f"{file.name} {kind}, {len(content)} bytes, {len(shards)} shards"


@chunks("shard")
def test_mutated_shards_are_used_or_refused(generator: random.Random, count: int, world: World, tmp_path: Path) -> None:
    tried = Tried()
    for number in range(count):
        with copied(world.corpus, tmp_path) as corpus:
            what = f"shard {number}: {mutate_shards(generator, corpus)}"
            tried.note(f"verify {what}", look, corpus)
            tried.note(what, use_corpus, world, corpus, tmp_path / "run")
            shutil.rmtree(tmp_path / "run", ignore_errors=True)
    tried.check(count)


# Runs


def mutate_run(generator: random.Random, run: Path) -> str:
    """Change one of a run's files in what it says, and whatever holds its hash."""
    checkpoint = list_checkpoints(run / "checkpoints")[-1]
    names = ["identity.json", "execution.json", "tokenizer.json", "metrics.jsonl", "recipe.toml"]
    names += ["manifest.json", "state.json", "state.json", "state.json", "tensors"]
    names += ["finished.json"] * 3 if (run / "finished.json").exists() else []
    name = generator.choice(names)
    if name == "state.json":
        value, what = mutated(generator, json.loads((checkpoint / name).read_bytes()))
        (checkpoint / name).write_text(json.dumps(value))
        rehash(checkpoint, name)
    elif name == "tensors":
        name, what = mutate_tensors(generator, checkpoint)
    elif name == "tokenizer.json":
        what = mutate_tokenizer(generator, run / name)
    elif name == "recipe.toml":
        text = (run / name).read_text()
        (run / name).write_text(mutated_text(generator, text), encoding="utf-8", errors="replace")
        what = _difference((run / name).read_text(), [text])
        identity = unsealed(run / "identity.json")
        identity["recipe_sha256"] = sha256_file(run / name)
        seal(run / "identity.json", identity)
    elif name == "metrics.jsonl":
        lines = (run / name).read_bytes().splitlines()
        at = generator.randrange(len(lines))
        record = json.loads(lines[at])
        del record["crc32"]
        value, what = mutated(generator, record)
        body = json.dumps(value).encode()
        lines[at] = body[:-1] + b', "crc32": "%08x"}' % zlib.crc32(body)
        (run / name).write_bytes(b"\n".join(lines) + b"\n")
    else:
        path = checkpoint / name if name == "manifest.json" else run / name
        value, what = mutated(generator, unsealed(path))
        if name == "execution.json":
            value = _uncompiled(value)
        seal(path, value)
    return f"{run.name} {name} {what}"


def _uncompiled(value: Any) -> Any:
    """Compiling takes a minute."""
    try:
        return {**value, "compile": False} if Execution.model_validate(value).compile else value
    except ValidationError:
        return value


def rehash(checkpoint: Path, name: str) -> None:
    manifest = unsealed(checkpoint / "manifest.json")
    manifest["sha256"][name] = sha256_file(checkpoint / name)
    seal(checkpoint / "manifest.json", manifest)


def mutate_tensors(generator: random.Random, checkpoint: Path) -> tuple[str, str]:
    """Change a tensor or its name, or the file as such."""
    file = generator.choice(["model.safetensors", "optimizer.safetensors"])
    tensors = load_file(checkpoint / file)
    name = generator.choice(sorted(tensors))
    tensor = tensors[name]
    # A moment of another shape ends the process where it is not refused: it is tried below, in a process of its own.
    kind = generator.choice([0, 1, 3, 4, 6, 7] if file.startswith("optimizer") else range(8))
    if kind == 0:
        del tensors[name]
    elif kind == 1:
        tensors[generator.choice(["x", "", "/", "a/b", name.split("/")[0], f"{name}/x"])] = tensors.pop(name)
    elif kind == 2:
        tensors[name] = tensor.flatten()[:1].clone()
    elif kind == 3:
        tensors[name] = tensor.to(generator.choice([torch.float64, torch.int32, torch.bool, torch.bfloat16]))
    elif kind == 4:
        tensors[name] = torch.full_like(tensor, generator.choice([math.nan, math.inf, -1.0, 1e30]))
    elif kind == 5:
        tensors[name] = tensor.reshape(1, *tensor.shape)
    elif kind == 6:
        tensors[f"{name}x"] = tensor.clone()
    if kind < 7:
        save_file(tensors, checkpoint / file)
    else:
        content = bytearray((checkpoint / file).read_bytes())
        content[generator.randrange(300)] = generator.randrange(256)
        (checkpoint / file).write_bytes(content)
    rehash(checkpoint, file)
    return file, f"{kind} {name}"


def use_run(path: Path, recipe_is_its_own: bool) -> None:
    """Open a run and take it apart."""
    run = load(path)
    assert repr(run)
    for kind in ("train", "validation", "sample"):
        run.metrics(kind)
    assert run.final_loss is None or isinstance(run.final_loss, float)
    if recipe_is_its_own:  # another may be of any size
        run.sample("day", tokens=2)


def resume(recipe: Recipe, world: World, run: Path) -> None:
    train(recipe, data=world.corpus, out=run)


@chunks("run")
def test_a_mutated_run_is_used_or_refused(generator: random.Random, count: int, world: World, tmp_path: Path) -> None:
    recipe, tried = Recipe.load(world.recipe), Tried()
    for number in range(count):
        with copied(generator.choice([world.stopped, world.stopped, world.finished]), tmp_path) as run:
            what = f"run {number}: {mutate_run(generator, run)}"
            tried.note(f"verify {what}", look, run)
            tried.note(f"load {what}", use_run, run, "recipe.toml" not in what)
            tried.note(f"resume {what}", resume, recipe, world, run)
            torch.set_num_threads(1)
    tried.check(count)


@pytest.mark.parametrize("depth", [100, 300, 600, 900, 990, 5000])
def test_deep_nesting_in_any_file_is_no_traceback(depth: int, world: World, tmp_path: Path) -> None:
    tried, recipe = Tried(), Recipe.load(world.recipe)
    for name in ("manifest.json", "tokenizer.json"):
        with copied(world.corpus, tmp_path) as corpus:
            deepen(corpus / name, depth)
            tried.note(f"verify {name}", look, corpus)
            tried.note(f"use {name}", use_corpus, world, corpus, tmp_path / "run")
    for name in ("identity.json", "execution.json", "finished.json", "tokenizer.json", "manifest.json", "state.json"):
        with copied(world.finished, tmp_path) as run:
            checkpoint = list_checkpoints(run / "checkpoints")[-1]
            deepen((checkpoint if name in ("manifest.json", "state.json") else run) / name, depth)
            if name == "state.json":
                rehash(checkpoint, name)
            tried.note(f"verify {name}", look, run)
            tried.note(f"load {name}", use_run, run, True)
            tried.note(f"resume {name}", resume, recipe, world, run)
    tried.check(0)


def deepen(path: Path, depth: int) -> None:
    """Put one more entry into a JSON object, nested as deep as this."""
    text = json.dumps({**json.loads(path.read_bytes()), "deep": "here"})
    path.write_text(text.replace('"here"', "[" * depth + "]" * depth))


# What fuzzing found, each by its least input

END_OF_TEXT = "<|endoftext|>"
TOKENIZERS = {
    "a pattern that is no text": {"pattern": 3},
    "a pattern that is no regular expression": {"pattern": "("},
    "a pattern that matches nothing": {"pattern": ""},
    "a negative id": {"ranks": [["AA==", -1]]},
    "half an id": {"ranks": [["AA==", 0.5]]},
    "an id that is a list": {"ranks": [["AA==", [1]]]},
    "a token that is no text": {"ranks": [["/w==", 0]]},
    "no special token": {"specials": {}},
    "no end of text": {"specials": {"x": 256}},
    "an end of text that is no id": {"specials": {END_OF_TEXT: 256.0}},
    "an end of text that is a list": {"specials": {END_OF_TEXT: [256]}},
    "an end of text behind a hole": {"specials": {END_OF_TEXT: 257}},
    "special tokens that are a list": {"specials": []},
    "one id of two tokens": {
        "ranks": [[base64.b64encode(bytes([value])).decode(), value % 255] for value in range(256)]
    },
    "no tokens": {"ranks": []},
}
STATES: dict[str, dict[str, Any]] = {
    "nothing spent": {"spent": None},
    "spent is a list": {"spent": []},
    "spent of something else": {"spent": {"x": 1}},
    "steps that are text": {"spent": {"steps": "1"}},
    "half a step": {"spent": {"steps": 1.5}},
    "windows that are none": {"spent": {"windows": None}},
    "progress that is text": {"spent": {"progress": "x"}},
    "seconds that are text": {"spent": {"elapsed_seconds": "x"}},
    "no guard": {"guard": []},
    "a guard of something else": {"guard": {"x": 1}},
    "a guard's scale that is text": {"guard": {"scale": "x"}},
    "a guard's count that is text": {"guard": {"good_in_a_row": "x"}},
    "a micro-batch that is text": {"micro_batch": "x"},
    "windows below zero": {"spent": {"windows": -1}},
    "more windows than can be counted": {"spent": {"windows": 10**30}},
    "tokens that are a list": {"spent": {"tokens": []}},
    "seconds of training that are text": {"spent": {"train_seconds": ""}},
    "a guard's scale of nothing": {"guard": {"scale": 0}},
    "an evaluation owed that is a list": {"owes_validation": [[]]},
}


def settle(attempt: Callable[..., object], *args: Any) -> None:
    """Succeed or be refused."""
    tried = Tried()
    tried.note("found", attempt, *args)
    assert not tried.failures, tried.failures


@pytest.mark.parametrize("edit", named(TOKENIZERS))
def test_a_tokenizer_that_cannot_be_is_refused(edit: dict[str, Any], world: World, tmp_path: Path) -> None:
    with copied(world.corpus, tmp_path) as corpus:
        path = corpus / "tokenizer.json"
        write_tokenizer(path, json.loads(path.read_bytes()) | edit)
        settle(look, corpus)
        settle(use_corpus, world, corpus, tmp_path / "run")
    with copied(world.finished, tmp_path) as run:
        write_tokenizer(run / "tokenizer.json", json.loads((run / "tokenizer.json").read_bytes()) | edit)
        settle(use_run, run, True)


@pytest.mark.parametrize("number", ["x", [1], None])
def test_bytes_that_are_no_number_are_refused(number: Any, world: World, tmp_path: Path) -> None:
    with copied(world.corpus, tmp_path) as corpus:
        manifest = unsealed(corpus / "manifest.json")
        manifest["splits"]["train"]["bytes"] = number
        seal(corpus / "manifest.json", manifest)
        settle(use_corpus, world, corpus, tmp_path / "run")


def test_a_shard_of_nothing_is_used_or_refused(world: World, tmp_path: Path) -> None:
    with copied(world.corpus, tmp_path) as corpus:
        manifest = unsealed(corpus / "manifest.json")
        split = manifest["splits"]["train"]
        shard = split["shards"][-1]
        split["tokens"] -= shard["tokens"]
        shard |= {"tokens": 0, "sha256": sha256_bytes(b"")}
        (corpus / shard["file"]).write_bytes(b"")
        seal(corpus / "manifest.json", manifest)
        settle(look, corpus)
        settle(use_corpus, world, corpus, tmp_path / "run")


@pytest.mark.parametrize("edit", named(STATES))
def test_a_state_that_cannot_be_is_refused(edit: dict[str, Any], world: World, tmp_path: Path) -> None:
    for source in (world.stopped, world.finished):
        with copied(source, tmp_path) as run:
            checkpoint = list_checkpoints(run / "checkpoints")[-1]
            state = json.loads((checkpoint / "state.json").read_bytes())
            for key, value in edit.items():
                state[key] = state[key] | value if isinstance(value, dict) else value
            (checkpoint / "state.json").write_text(json.dumps(state))
            rehash(checkpoint, "state.json")
            settle(use_run, run, True)
            settle(resume, Recipe.load(world.recipe), world, run)


@pytest.mark.parametrize("loss", [[1], "x", {}])
def test_a_final_loss_that_is_no_number_is_refused(loss: Any, world: World, tmp_path: Path) -> None:
    with copied(world.finished, tmp_path) as run:
        result = unsealed(run / "finished.json")
        result["validation"]["loss"] = loss
        seal(run / "finished.json", result)
        settle(use_run, run, True)


def test_a_result_without_validation_is_refused(world: World, tmp_path: Path) -> None:
    with copied(world.finished, tmp_path) as run:
        result = unsealed(run / "finished.json")
        del result["validation"]
        seal(run / "finished.json", result)
        settle(use_run, run, True)


def test_a_validation_loss_that_is_no_number_is_refused(world: World, tmp_path: Path) -> None:
    with copied(world.stopped, tmp_path) as run:
        checkpoint = list_checkpoints(run / "checkpoints")[-1]
        seal(checkpoint / "manifest.json", unsealed(checkpoint / "manifest.json") | {"validation_loss": "x"})
        settle(use_run, run, True)
        settle(resume, Recipe.load(world.recipe, "checkpoint.keep_best=true"), world, run)


def edit_tensors(run: Path, file: str, edit: Callable[[dict[str, torch.Tensor]], None]) -> None:
    checkpoint = list_checkpoints(run / "checkpoints")[-1]
    tensors = load_file(checkpoint / file)
    edit(tensors)
    save_file(tensors, checkpoint / file)
    rehash(checkpoint, file)


def rename_a_moment(moments: dict[str, torch.Tensor]) -> None:
    moments["x"] = moments.popitem()[1]


def retype_the_moments(moments: dict[str, torch.Tensor]) -> None:
    moments.update({name: tensor.to(torch.int32) for name, tensor in moments.items()})


def reshape_the_moments(moments: dict[str, torch.Tensor]) -> None:
    moments.update({name: tensor.flatten()[:1].clone() for name, tensor in moments.items()})


def drop_the_moments(moments: dict[str, torch.Tensor]) -> None:
    for name in [name for name in moments if name.endswith("exp_avg")]:
        del moments[name]


@pytest.mark.parametrize("edit", [rename_a_moment, retype_the_moments, drop_the_moments])
def test_moments_that_do_not_fit_are_refused(edit: Callable[..., None], world: World, tmp_path: Path) -> None:
    with copied(world.stopped, tmp_path) as run:
        edit_tensors(run, "optimizer.safetensors", edit)
        settle(resume, Recipe.load(world.recipe), world, run)


def test_moments_of_another_shape_are_refused(world: World, tmp_path: Path) -> None:
    """Fused optimizers read beyond their ends."""
    with copied(world.stopped, tmp_path) as run:
        edit_tensors(run, "optimizer.safetensors", reshape_the_moments)
        words = ["-m", "daybreak", "train", str(world.recipe), "--data", str(world.corpus), "--out", str(run)]
        ended = subprocess.run([sys.executable, *words], capture_output=True, text=True, timeout=120)
    assert ended.returncode == 2, (ended.returncode, ended.stderr[-300:])
    assert "Traceback" not in ended.stderr


@pytest.mark.parametrize("setting", ["checkpoint.keep_best=true", "checkpoint.keep_best=false", "samples.every=1"])
def test_a_run_whose_loss_is_no_number_is_saved(setting: str, world: World, tmp_path: Path) -> None:
    settings = ("optimizer.lr=1e30", "optimizer.clip=0", "schedule.warmup=0%", setting)
    run = train(Recipe.load(world.recipe, *settings), data=world.corpus, out=tmp_path / "run")
    assert run.finished
    assert run.final_loss is not None
    assert math.isnan(run.final_loss)


@pytest.mark.parametrize("sampling", [{}, {"top_k": 3}, {"top_p": 0.5}], ids=str)
def test_weights_that_are_no_numbers_are_sampled_or_refused(
    sampling: dict[str, Any], world: World, tmp_path: Path
) -> None:
    with copied(world.finished, tmp_path) as run:
        edit_tensors(run, "model.safetensors", lambda weights: [tensor.fill_(math.nan) for tensor in weights.values()])
        settle(lambda: load(run).sample("day", tokens=2, sampling=SamplingConfig(**sampling)))


# Command lines


def some_words(generator: random.Random) -> list[str]:
    """A command line. Nothing in it takes long: one step, small files, no `demo`, no `doctor`."""
    paths = ["corpus", "stopped", "finished", "tiny.toml", "missing", "text.txt", "more.jsonl", "folder", "", ".", "é"]
    paths += [
        "corpus/manifest.json",
        "corpus/train-00000.bin",
        "finished/recipe.toml",
        "a" * 300,
        "x/y/z",
        "text.txt/x",
    ]
    paths += [
        "corpus\udcff",
        "finished\udcff",
        "new\udcff",
        "broken.toml",
        "broken.jsonl",
        "bytes.bin",
        "\udcff",
        "-",
        "~",
        "*.txt",
        "[",
        "**",
        "new-1",
        "new-2/x",
    ]
    numbers = ["0", "1", "-1", "2", "x", "", "nan", "inf", "1e3", "0.5", "1e-300", "٣", "9" * 30, "1.5", "-0.0"]
    verb = generator.choice(
        ["train", "train", "train", "prepare", "prepare", "evaluate", "sample", "recipes", "verify"]
    )
    if generator.random() < 0.04:
        verb = generator.choice(["", "x", "TRAIN", "-h", "--version", "--help", "-x", "trian", "é", "--", "\udcff"])
    words = [verb]

    def path() -> str:
        return generator.choice(paths)

    def number() -> str:
        return generator.choice(numbers)

    def likely(words: Sequence[str], chance: float = 0.6) -> str:
        return generator.choice(words) if generator.random() < chance else path()

    match verb:
        case "train":
            words.append(likely(["tiny.toml"]))
            words += ["--data", likely(["corpus"])] if generator.random() < 0.9 else []
            words += ["--out", likely(["new-1", "new-2", "stopped", "finished"])] if generator.random() < 0.95 else []
            words += ["--stop-after", generator.choice(["1h", "0s", "x", "-1s", "3 steps", ""])] * (
                generator.random() < 0.1
            )
            words += ["--accept-changes"] * (generator.random() < 0.2)
            words += [word for word in some_overrides(generator) if _is_quick(word)] if generator.random() < 0.5 else []
        case "prepare":
            words += [likely(["text.txt", "more.jsonl", "folder"]) for _ in range(generator.choice([1, 1, 2]))]
            words += ["--out", likely(["made-1", "made-2", "made/3"])] if generator.random() < 0.95 else []
            kinds = ["bytes", "chars", "bpe:260", "bpe:300", "bpe:1", "bpe:x", "bpe:", "x"]
            words += ["--tokenizer", likely(kinds, 0.8)]
            words += ["--val", number()] * (generator.random() < 0.3)
        case "evaluate":
            words.append(likely(["finished", "stopped"]))
            words += ["--data", path()] * (generator.random() < 0.3)
        case "sample":
            words += [likely(["finished", "stopped"]), generator.choice(["day", "", "é", "\udcff", "x" * 500, "\0"])]
            words += (
                ["--tokens", generator.choice(["3", "0", "-1", "x", "", "9" * 30])] if generator.random() < 0.9 else []
            )
            for option in ("--temperature", "--top-k", "--top-p", "--seed"):
                words += [option, number()] * (generator.random() < 0.3)
            words += ["--count", generator.choice(["2", "0", "x", "1025"])] * (generator.random() < 0.3)
            words += ["--greedy"] * (generator.random() < 0.2)
            words += ["--out", path()] * (generator.random() < 0.2)
        case "recipes":
            names = [*recipe_names(), "gpt3", "é"]
            words += [likely(names, 0.7)] if generator.random() < 0.9 else []
        case "verify":
            words.append(likely(["corpus", "finished", "stopped"]))
    words += ["--json"] * (generator.random() < (0.4 if verb in ("evaluate", "recipes", "verify") else 0.03))
    for _ in range(generator.choice([0, 0, 0, 1, 2])):
        odd = generator.choice(
            ["-x", "--bogus", "--out", "--data", "--", "-", "=", "a=b", "--out=", "-h", path(), number()]
        )
        words.insert(generator.randrange(1, len(words) + 1), odd)
    return [*words, "budget=1step"] if "train" in words else words


def _is_quick(word: str) -> bool:
    """Whether an override leaves a step small: what is large or compiled would only take long."""
    key = word.partition("=")[0].strip()
    slow = ("budget", "counts", "model", "execution", "batch", "data.window", "evaluation", "samples", "parallel")
    return not key.startswith(slow) or key.startswith(("model.norm", "model.bias", "execution.device", "batch.ramp"))


@pytest.fixture
def place(world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder that commands are called in."""
    for folder in (world.corpus, world.stopped, world.finished):
        shutil.copytree(folder, tmp_path / folder.name)
    shutil.copyfile(world.recipe, tmp_path / "tiny.toml")
    (tmp_path / "text.txt").write_text("the light of day. " * 60)
    (tmp_path / "more.jsonl").write_text('{"text": "the order of the day"}\n' * 20)
    (tmp_path / "broken.jsonl").write_text('{"text": 3}\n{')
    (tmp_path / "broken.toml").write_text("[model\n= 3")
    (tmp_path / "bytes.bin").write_bytes(bytes(range(256)))
    (tmp_path / "folder").mkdir()
    shutil.copyfile(tmp_path / "text.txt", tmp_path / "folder" / "text.txt")
    for name in ("corpus", "finished"):  # where file names may be any bytes
        with suppress(OSError):
            shutil.copytree(tmp_path / name, tmp_path / f"{name}\udcff")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def call(words: Sequence[str], patch: pytest.MonkeyPatch) -> None:
    """The command line, in this process, with streams as a shell's; raises what leaves it, but for the end it asks for.

    Raises:
        UserError: it ended with another code than 0.
    """
    out, err = io.BytesIO(), io.BytesIO()
    patch.setattr(sys, "argv", ["daybreak", *words])
    patch.setattr(sys, "stdout", io.TextIOWrapper(out, "utf-8"))
    patch.setattr(sys, "stderr", io.TextIOWrapper(err, "utf-8", "backslashreplace"))
    code: Any = 0
    try:
        cli.main()
    except SystemExit as end:
        code = 0 if end.code is None else end.code
    sys.stdout.flush()
    sys.stderr.flush()
    said = err.getvalue().decode()
    assert "Traceback" not in said
    assert code in (0, 1, 2, 3, 130), f"exit code {code}: {said[-300:]}"
    if code:
        assert code != 2 or re.search(r"(?i)error", said), f"exit code 2 without a message: {said!r}"
        raise UserError(f"exit code {code}")


@pytest.mark.parametrize(
    "words",
    [
        ["verify", "corpus\udcff"],
        ["prepare", "text.txt", "--tokenizer", "bytes", "--out", "new\udcff"],
        ["train", "tiny.toml", "--data", "corpus\udcff", "--out", "new", "budget=1step"],
        ["train", "tiny.toml", "--data", "corpus", "--out", "new\udcff", "budget=1step"],
    ],
    ids=["verify", "prepare", "train on it", "train into it"],
)
def test_a_folder_whose_name_is_not_utf8_is_used_or_refused(
    words: list[str], place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not (place / "corpus\udcff").exists():
        pytest.skip("file names are UTF-8 here")
    settle(call, words, monkeypatch)


@chunks("command")
def test_any_command_line_ends_without_a_traceback(
    generator: random.Random,
    count: int,
    place: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    tried = Tried()
    for number in range(count):
        words = some_words(generator)
        tried.note(f"command {number}: {words!r}", call, words, monkeypatch)
    torch.set_num_threads(1)
    tried.check(count)
