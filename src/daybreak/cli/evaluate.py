"""daybreak evaluate."""

import json
from pathlib import Path
from typing import Annotated

import typer


def evaluate(
    run: Annotated[str, typer.Argument(help="The run's folder; or hf:FOLDER or hf:OWNER/NAME, of Hugging Face.")],
    data: Annotated[
        Path | None, typer.Option(help="A corpus, or the folder of a mixture's; the run's own unless given.")
    ] = None,
    tasks: Annotated[
        str | None, typer.Option(help="Benchmarks of lm-evaluation-harness, as lambada_openai,arc_easy.")
    ] = None,
    suite: Annotated[
        str | None, typer.Option(help="Tasks that make one score or table: core (DCLM's CORE), gpt-star.")
    ] = None,
    tasks_from: Annotated[Path | None, typer.Option(metavar="FOLDER", help="Task files (YAML) of your own.")] = None,
    local: Annotated[
        list[str] | None, typer.Option(metavar="NAME=FILE", help="Read a task's items from a file; may be repeated.")
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Only the first items of each task.")] = None,
    few_shot: Annotated[
        int | None, typer.Option(min=0, help="Examples before each item; the task's own number.")
    ] = None,
    context: Annotated[int | None, typer.Option(min=2, help="Tokens that the model sees at once, in tasks.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document on standard output.")] = False,
) -> None:
    """Measure the loss on a whole validation split, every token counted once; or benchmarks.

    Example: daybreak evaluate runs/gpt2-tiny --json

    Example: daybreak evaluate runs/gpt2 --tasks lambada_openai --local lambada_openai=lambada_test.jsonl
    """
    from daybreak.cli.benchmarks import Asked, evaluate_tasks
    from daybreak.run import load
    from daybreak.training.metrics import finite

    if tasks or tasks_from or suite or local:
        asked = Asked(run, tasks, tasks_from, suite, tuple(local or ()), limit, few_shot, context, as_json)
        evaluate_tasks(asked)
        return
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
                {"run": run, "corpus": corpus, "step": trained.spent.steps, **finite(figures)},
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
