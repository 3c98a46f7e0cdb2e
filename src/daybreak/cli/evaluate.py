"""daybreak evaluate."""

import json
from pathlib import Path
from typing import Annotated

import typer


def evaluate(
    run: Annotated[Path, typer.Argument(help="The run's folder.")],
    data: Annotated[
        Path | None, typer.Option(help="A corpus, or the folder of a mixture's; the run's own unless given.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document on standard output.")] = False,
) -> None:
    """Measure the loss on a whole validation split, every token counted once.

    Example: daybreak evaluate runs/gpt2-tiny --json
    """
    from daybreak.run import load
    from daybreak.training.metrics import finite

    trained = load(run)
    result = trained.evaluate(data)
    figures = {
        **result.figures,
        "perplexity": result.perplexity,
        "tokens": result.tokens,
        "bytes": result.bytes,
    }
    if as_json:
        corpus = str(data) if data is not None else trained.recipe.data.corpus
        print(
            json.dumps(
                {"run": str(run), "corpus": corpus, "step": trained.spent.steps, **finite(figures)},
                indent=2,
                allow_nan=False,
            )
        )
        return
    print(f"loss           {result.loss:.4f} nats a token")
    print(f"perplexity     {result.perplexity:.3f}")
    print(f"bits per byte  {result.bits_per_byte:.4f}")
    print(f"measured on    {result.tokens:,} tokens, {result.bytes:,} bytes of text")
    for name, loss in result.sources.items():
        print(f"of {name:<12} {loss:.4f} nats a token")
