"""Freeze small runs of this version, which every later one must load: tests/frozen/VERSION, once, before a release.

python tests/frozen/make.py
"""

import json
import os
import sys
from pathlib import Path
from typing import Any

import torch

from daybreak import Recipe, __version__, export, prepare, train
from daybreak.data.reading import Reading
from daybreak.identity import write_identity
from daybreak.run import Run
from daybreak.sampling.settings import SamplingConfig

HERE = Path(__file__).resolve().parent
STEPS, KEPT_STEP = 8, 4
TEXT = "the cat sat on the mat, and the dog sat on the cat. "
PLAIN = ("model.mlp.hidden=16", "model.bias=true")
MODERN = (
    "model.embedding_skip=true",
    "model.position={kind='rotary'}",
    "model.attention={qk_norm=true, windows=[4, 0]}",
    "model.mlp={activation='relu2', hidden=16}",
    "model.norm={kind='rmsnorm'}",
    "model.head={tied=false}",
    "model.lookup={ngrams=[2], rows=64, values='alternate'}",
    "optimizer={kind='muon', lr=0.02, adam_lr=3e-3, embedding_lr=1e-2}",
)
SHAPES = {"plain": PLAIN, "modern": MODERN}


def recipe(shape: str) -> Recipe:
    """Two layers of eight numbers."""
    sizes = ("layers=2", "heads=2", "dim=8", "context=8", "vocab_size=32")
    return Recipe.load(
        "gpt2-tiny",
        f"budget={STEPS}steps",
        f"name={shape}",
        "data.window=8",
        "data.tokenizer=chars",
        "batch.tokens=64",
        "schedule={kind='wsd', warmup='2steps', decay='50%'}",
        "evaluation={every='4steps', tokens=1000}",
        f"checkpoint={{every='{KEPT_STEP}steps', keep=2}}",
        "diagnostics.every=never",
        "execution={device='cpu', precision='fp32', threads=1, compile=false, micro_batch=8}",
        *(f"model.{size}" for size in sizes),
        *SHAPES[shape],
    )


def figures(run: Run, corpus: Path) -> dict[str, Any]:
    """What a run comes to, to compare with."""
    with torch.no_grad():
        logits = run.model.next_logits(torch.tensor([run.tokenizer.encode("the cat").tolist()]))[0]
    return {
        "steps": run.spent.steps,
        "final_loss": run.final_loss,
        "loss": run.evaluate(corpus).loss,
        "text": run.sample("the ", tokens=8, sampling=SamplingConfig(greedy=True))[0].text,
        "logits": logits.tolist(),
    }


def name_no_place(run: Run) -> None:
    """A recipe names its corpus by the path that it has here, which is nobody's business."""
    recipe = run.recipe.with_data("corpus")
    (run.path / "recipe.toml").unlink()
    write_identity(run.path, recipe, Reading.open(recipe.data), None)


def main() -> None:
    folder = HERE / __version__
    if folder.exists():
        sys.exit(f"{folder} exists: a version is frozen once")
    folder.mkdir()
    os.chdir(folder)
    text, corpus = Path("text.txt"), Path("corpus")
    text.write_text(TEXT * 20)
    prepare([str(text)], corpus, tokenizer="chars", validation=0.2)
    text.unlink()
    expected = {}
    for shape in SHAPES:
        run = train(recipe(shape), data=corpus, out=Path(shape))
        expected[shape] = figures(run, corpus)
        export(run.path, Path(f"{shape}-exported"))
        (run.path / ".lock").unlink(missing_ok=True)
        name_no_place(run)
    Path("expected.json").write_text(json.dumps(expected, indent=1) + "\n")
    for code in Path().glob("*-exported/*.py"):  # which no import reads
        code.unlink()


if __name__ == "__main__":
    main()
