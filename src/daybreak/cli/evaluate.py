"""daybreak evaluate."""

from pathlib import Path
from typing import Annotated

import typer

from daybreak.cli.completing import corpora, runs
from daybreak.cli.json_output import print_json


def evaluate(
    run: Annotated[
        str,
        typer.Argument(autocompletion=runs, help="The run's folder; or hf:FOLDER or hf:OWNER/NAME, of Hugging Face."),
    ],
    more_text: Annotated[list[str] | None, typer.Argument(metavar="FILE", help="More texts.")] = None,
    text: Annotated[
        list[str] | None, typer.Option(metavar="FILE", help="Measure on this text: all that prepare reads; - is stdin.")
    ] = None,
    contexts: Annotated[str | None, typer.Option(help="A row for each, as 512,1024,2048.")] = None,
    stride: Annotated[
        int | None, typer.Option(min=1, help="Tokens by which a row advances; the context unless given.")
    ] = None,
    text_key: Annotated[str, typer.Option(help="Key or column that holds the text, of JSONL and tables.")] = "text",
    data: Annotated[
        Path | None,
        typer.Option(
            autocompletion=corpora, help="A corpus, or the folder of a mixture's; the run's own unless given."
        ),
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
    """Measure the loss on text it has not seen, or run benchmarks.

    On the whole validation split, or any text, every token counted once.

    Example: daybreak evaluate runs/gpt2-tiny --json

    Example: daybreak evaluate runs/gpt2-tiny --text book.txt \\
        --contexts 512,1024,2048 --stride 256

    Example: daybreak evaluate runs/gpt2 --tasks lambada_openai \\
        --local lambada_openai=lambada_test.jsonl
    """
    from daybreak.cli.benchmarks import Asked, evaluate_tasks
    from daybreak.cli.text_loss import evaluate_text
    from daybreak.errors import UserError
    from daybreak.evaluate.hugging_face import PREFIX
    from daybreak.run import load

    if more_text and not text:
        raise UserError(f"{more_text[0]} stands behind the run; texts go behind --text")
    if text and data is not None:
        raise UserError("--text and --data exclude each other: a text, or the validation split of a corpus")
    if tasks is not None or tasks_from or suite is not None or local:
        if text or contexts or stride or data is not None:
            raise UserError(
                "tasks have texts of their own; ask for them without --text, --contexts, --stride and --data"
            )
        asked = Asked(run, tasks, tasks_from, suite, tuple(local or ()), limit, few_shot, context, as_json)
        evaluate_tasks(asked)
        return
    if limit is not None or few_shot is not None or context is not None:
        raise UserError("--limit, --few-shot and --context are of benchmarks; name them by --tasks or --suite")
    if text or contexts or stride or run.startswith(PREFIX):
        evaluate_text(
            run,
            [*(text or ()), *(more_text or ())],
            data=None if data is None else str(data),
            contexts=contexts,
            stride=stride,
            text_key=text_key,
            as_json=as_json,
        )
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
        print_json({"run": run, "corpus": corpus, "step": trained.spent.steps, **figures})
        return
    print(f"loss           {result.loss:.4f} nats a token")
    print(f"perplexity     {result.perplexity:.3f}")
    print(f"bits per byte  {result.bits_per_byte:.4f}")
    print(f"measured on    {result.tokens:,} tokens, {result.bytes:,} bytes of text")
    for name, loss in result.sources.items():
        print(f"of {name:<12} {loss:.4f} nats a token")
