"""How long a process takes from its start until it has trained on a first micro-batch, in parts; without the folder
of a run, and without trying micro-batches, which a long run does besides.

Each measurement is a process of its own, since most of what it does is done once: `python -m daybreak.bench.startup`.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

from daybreak.errors import UserError
from daybreak.recipe import Recipe
from daybreak.training.execution import Execution

_PATIENCE = 600.0
_COMPILE = "compile"


def time_startup(recipe: Recipe, execution: Execution, corpus: Path | None) -> dict[str, float]:
    """Seconds of each part, by its name; where a run compiles, with nothing in the cache and once more with it.

    Raises:
        UserError: the process failed.
    """
    with tempfile.TemporaryDirectory(prefix="daybreak-bench-") as name:
        folder = Path(name)
        (folder / "recipe.toml").write_text(recipe.to_toml())
        (folder / "execution.json").write_text(execution.model_dump_json())
        words = [str(folder), "" if corpus is None else str(corpus)]
        if not execution.compile:
            return _in_a_process(words, {})
        cache = {"TORCHINDUCTOR_CACHE_DIR": str(folder / "compiled"), "TRITON_CACHE_DIR": str(folder / "triton")}
        cold = _in_a_process(words, cache)
        warm = _in_a_process(words, cache)
    return {**warm, _COMPILE: cold[_COMPILE], f"{_COMPILE} again, from the cache": warm[_COMPILE]}


def _in_a_process(words: list[str], environment: Mapping[str, str]) -> dict[str, float]:
    began = time.monotonic()
    try:
        done = subprocess.run(
            [sys.executable, "-m", "daybreak.bench.startup", *words, repr(began)],
            env={**os.environ, **environment},
            capture_output=True,
            text=True,
            timeout=_PATIENCE,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise UserError(f"a process that starts this recipe took longer than {_PATIENCE:.0f} s") from None
    if done.returncode:
        said = (done.stderr.strip() or "it said nothing").splitlines()[-1]
        raise UserError(f"a process that starts this recipe failed: {said}")
    seconds: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return seconds


def _start(folder: Path, corpus_path: str, began: float) -> dict[str, float]:
    """From imports to a first micro-batch, each part timed."""
    from daybreak.bench.subject import make_subject, some_tokens
    from daybreak.data.shards import Corpus

    seconds = {"python and imports": time.monotonic() - began}

    def lap(name: str) -> None:
        seconds[name] = time.monotonic() - began - sum(seconds.values())

    recipe = Recipe.load(folder / "recipe.toml")
    execution = Execution.model_validate_json((folder / "execution.json").read_text())
    lap("recipe")
    corpus = Corpus.open(Path(corpus_path)) if corpus_path else None
    tokens_RT = some_tokens(recipe, corpus, execution.micro_batch, recipe.model.vocab_size)
    lap("corpus" if corpus_path else "random tokens")
    subject = make_subject(recipe, execution, tokens_RT)
    lap("model")
    if execution.compile:
        subject.compile()
        lap(_COMPILE)
    subject.time(subject.rows(execution.micro_batch))
    lap("first micro-batch and update")
    return seconds


if __name__ == "__main__":
    print(json.dumps(_start(Path(sys.argv[1]), sys.argv[2], float(sys.argv[3]))))
