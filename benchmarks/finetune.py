"""Fine-tuning shown end to end: pre-train on Wikipedia, teach it Shakespeare, and see what it learned and forgot.

    python benchmarks/finetune.py wikipedia_en.jsonl.xz input.txt --out FOLDER

Two models, a small `daybreak-small` and one in the shape of the crammed GPT-2, are pre-trained and then fine-tuned in
several ways. Every run is a folder of its own: stopped, the same command goes on. At the end come a table of losses on
both texts, and samples before and after.
"""

import argparse
import json
import lzma
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch

from daybreak import Recipe, train
from daybreak.compose import build_validation
from daybreak.data.prepare import prepare
from daybreak.data.reading import Reading
from daybreak.evaluate.loss import Loss
from daybreak.run import Run
from daybreak.sampling.settings import SamplingConfig

ARTICLES = 5000
MEASURED = 150_000  # held-out tokens of each text
PROMPTS = ("ROMEO:\n", "The history of ")
SMALL = ("execution.threads=1",)
CRAMMED = (
    "model.layers=2", "model.heads=2", "model.dim=128", "model.context=256", "model.vocab_size=4096",
    "model.mlp.hidden=256", "data.window=256", "data.tokenizer=bpe:4096", "batch.tokens=2048", "optimizer.lr=5e-3",
    "schedule.warmup=4%", "evaluation.every=25%", "evaluation.tokens=100000", "checkpoint.every=25%",
    "execution.threads=1",
)  # fmt: skip
MODELS = {
    "small": ("daybreak-small", "budget=800 steps", SMALL),
    "crammed": ("crammed-gpt2", "budget=3000 steps", CRAMMED),
}
# 32 windows of the context a step, as the recipe has; an epoch of Shakespeare is 50 steps.
TUNING = ("data.window=256", "batch.tokens=8192", "budget=50 steps", "evaluation.tokens=20000", "execution.threads=1")


@dataclass(frozen=True)
class Way:
    """One way to fine-tune.

    Attributes:
        mixed: half of what it reads is Wikipedia, and it reads twice as much.
        anew: from random values, to see what the pre-training was worth.
    """

    name: str
    settings: tuple[str, ...] = ()
    mixed: bool = False
    anew: bool = False


WAYS = (
    Way("recipe, 3e-5"),
    Way("3e-4", ("optimizer.lr=3e-4",)),
    Way("1e-3", ("optimizer.lr=1e-3",)),
    Way("1e-3, half Wikipedia", ("optimizer.lr=1e-3", "budget=100 steps"), mixed=True),
    Way("1e-3, embedding and first layer frozen", ("optimizer.lr=1e-3", "freeze=embedding,blocks.0")),
    Way("1e-3, from random values", ("optimizer.lr=1e-3",), anew=True),
)


def corpora(wikipedia: Path, shakespeare: Path, out: Path) -> None:
    """Both texts as tokens of one tokenizer, learned from Wikipedia."""
    if not (out / "wiki").exists():
        articles = out / "wikipedia.jsonl"
        with lzma.open(wikipedia, "rt", encoding="utf-8") as source, articles.open("w", encoding="utf-8") as target:
            target.writelines(line for _, line in zip(range(ARTICLES), source, strict=False))
        prepare([str(articles)], out / "wiki", tokenizer="bpe:4096")
    if not (out / "shakespeare").exists():
        prepare([str(shakespeare)], out / "shakespeare", tokenizer=str(out / "wiki"))


def pretrained(name: str, out: Path) -> Run:
    recipe, budget, settings = MODELS[name]
    return train(Recipe.load(recipe, budget, *settings), data=out / "wiki", out=out / name)


def finetuned(name: str, way: Way, out: Path) -> Run:
    """The run of one way, from the pre-trained model of this name."""
    recipe = Recipe.load("shakespeare-finetune", f"init={out / name}", *TUNING, *way.settings)
    if way.anew:
        recipe = recipe.model_copy(update={"init": None})
    folder = out / f"{name}-{''.join(sign if sign.isalnum() else '-' for sign in way.name)}"
    if way.mixed:
        mixture = [{"corpus": str(out / each), "share": 0.5} for each in ("wiki", "shakespeare")]
        content = recipe.model_dump(mode="json")
        content["data"] |= {"mixture": mixture}
        return train(Recipe.model_validate(content), out=folder)
    return train(recipe, data=out / "shakespeare", out=folder)


def loss_on(run: Run, corpus: Path) -> Loss:
    """On the same held-out tokens for every run."""
    recipe = run.recipe.with_data(corpus)
    reading = Reading.open(recipe.data)
    loss = build_validation(recipe, run.execution, reading, torch.device("cpu"), sample=MEASURED).measure(run.model)
    assert loss is not None  # nothing interrupts it
    return loss


def rows(out: Path, models: list[str]) -> Iterator[tuple[str, Run]]:
    for name in models:
        yield f"{name}, before", pretrained(name, out)
        for way in WAYS:
            yield f"{name}, {way.name}", finetuned(name, way, out)


def main() -> None:
    asked = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    asked.add_argument("wikipedia", type=Path)
    asked.add_argument("shakespeare", type=Path)
    asked.add_argument("--out", type=Path, required=True)
    asked.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS))
    given = asked.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    corpora(given.wikipedia, given.shakespeare, given.out)
    found = []
    print("| model | Wikipedia | Shakespeare |\n| --- | ---: | ---: |")
    for name, run in rows(given.out, given.models):
        losses = {each: loss_on(run, given.out / each) for each in ("wiki", "shakespeare")}
        shown = " | ".join(f"{loss.loss:.3f} ({loss.bits_per_byte:.3f})" for loss in losses.values())
        print(f"| {name} | {shown} |", flush=True)
        samples = [
            run.sample(prompt, tokens=60, sampling=SamplingConfig(temperature=0.8, top_k=50))[0].text
            for prompt in PROMPTS
        ]
        found.append(
            {
                "run": name,
                "steps": run.spent.steps,
                "losses": {each: loss.loss for each, loss in losses.items()},
                "bits_per_byte": {each: loss.bits_per_byte for each, loss in losses.items()},
                "samples": samples,
            }
        )
        (given.out / "results.json").write_text(json.dumps(found, indent=1, ensure_ascii=False))


if __name__ == "__main__":
    main()
