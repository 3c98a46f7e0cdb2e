"""daybreak evaluate."""

import json
from pathlib import Path
from typing import Annotated

import typer


def evaluate(
    run: Annotated[str, typer.Argument(help="The run's folder; or hf:FOLDER or hf:OWNER/NAME, of Hugging Face.")],
    more_text: Annotated[list[str] | None, typer.Argument(metavar="[FILE]...", help="More texts.")] = None,
    text: Annotated[
        list[str] | None, typer.Option(metavar="FILE", help="Measure on this text: all that prepare reads; - is stdin.")
    ] = None,
    contexts: Annotated[str | None, typer.Option(help="A row for each, as 512,1024,2048.")] = None,
    stride: Annotated[
        int | None, typer.Option(min=1, help="Tokens by which a row advances; the context unless given.")
    ] = None,
    text_key: Annotated[str, typer.Option(help="Key or column that holds the text, of JSONL and tables.")] = "text",
    data: Annotated[
        Path | None, typer.Option(help="A corpus, or the folder of a mixture's; the run's own unless given.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document on standard output.")] = False,
) -> None:
    """Measure the loss on a whole validation split, or on any text, every token counted once.

    Example: daybreak evaluate runs/gpt2-tiny --json

    Example: daybreak evaluate runs/gpt2-tiny --text book.txt --contexts 512,1024,2048 --stride 256
    """
    from daybreak.cli.text_loss import evaluate_text
    from daybreak.errors import UserError
    from daybreak.evaluate.hugging_face import PREFIX
    from daybreak.run import load
    from daybreak.training.metrics import finite

    if more_text and not text:
        raise UserError(f"{more_text[0]} stands behind the run; texts go behind --text")
    if text and data is not None:
        raise UserError("--text and --data exclude each other: a text, or the validation split of a corpus")
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
