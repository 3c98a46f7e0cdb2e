"""daybreak demo."""

import time
from pathlib import Path
from typing import Annotated

import typer

from daybreak.cli.command import command
from daybreak.progress import say

_PROMPTS = ("def", "class", "import")


def demo(
    minutes: Annotated[float, typer.Option(min=0.05, help="How long to train.")] = 3.0,
    out: Annotated[Path, typer.Option(help="The run's folder.")] = Path("runs/demo"),
) -> None:
    """Train a small GPT for three minutes, and show what it writes.

    On text that is here: the source of Python's standard library. Prepares the corpus and a BPE tokenizer, trains a
    small GPT, evaluates it and prints samples.

    Example: daybreak demo --minutes 3
    """
    from daybreak.data import prepare as preparation
    from daybreak.data.inspection import describe
    from daybreak.data.shards import Corpus
    from daybreak.recipe import Recipe
    from daybreak.run import train
    from daybreak.sampling.settings import SamplingConfig

    recipe = Recipe.load("demo", f"budget={minutes * 60:g}s")
    corpus_path = out.with_name(f"{out.name}-corpus")
    if corpus_path.exists():
        corpus = Corpus.open(corpus_path)
    else:
        say("1. Preparing the source text of Python's standard library")
        tokenizer = recipe.data.tokenizer or "bpe:4096"
        corpus = preparation.prepare(["stdlib"], corpus_path, tokenizer=tokenizer, validation=0.03)
    say(describe(corpus))

    say(f"2. Training for {minutes:g} minutes; Ctrl-C saves, the same command goes on")
    run = train(recipe, data=corpus_path, out=out, started=time.monotonic())
    if not run.finished:
        say(f"stopped and saved at step {run.spent.steps:,}; go on with the same command")
        raise typer.Exit(3)

    say("3. Evaluating on text it has not seen")
    result = run.evaluate()
    print(f"loss {result.loss:.4f} nats a token, {result.bits_per_byte:.4f} bits a byte, {result.tokens:,} tokens\n")

    for prompt in _PROMPTS:
        sampling = SamplingConfig(temperature=0.8, top_p=0.95)
        print(f"{'-' * 20} {prompt!r}\n{run.sample(prompt, tokens=80, sampling=sampling)[0].text}\n")
    print(f"The run lies in {out}, its corpus in {corpus_path}. Try next:")
    print(f'  {command()} sample {out} "class" --temperature 0.7 --tokens 300')
    print(f"  {command()} train gpt2-tiny --data {corpus_path} budget=10m")
    print(f"  {command()} prepare YOUR-TEXT --tokenizer bpe:4096 --out data/mine")
