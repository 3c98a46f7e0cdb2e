"""daybreak sample."""

from pathlib import Path
from typing import Annotated

import typer

from daybreak.progress import say


def sample(
    run: Annotated[Path, typer.Argument(help="The run's folder.")],
    prompt: Annotated[str, typer.Argument(help="What to continue; a document's beginning unless given.")] = "",
    tokens: Annotated[int, typer.Option(min=1, help="How many to make.")] = 200,
    temperature: Annotated[float, typer.Option(help="Below 1 keeps to likelier tokens; for 0 use --greedy.")] = 1.0,
    top_k: Annotated[int | None, typer.Option(help="Only the K likeliest tokens.")] = None,
    top_p: Annotated[float | None, typer.Option(help="Only the likeliest tokens that sum to P.")] = None,
    greedy: Annotated[bool, typer.Option("--greedy", help="Always the likeliest token.")] = False,
    count: Annotated[int, typer.Option(min=1, max=1024, help="How many continuations.")] = 1,
    seed: Annotated[int, typer.Option(help="The same seed gives the same text.")] = 0,
    out: Annotated[Path | None, typer.Option(help="Write to a file instead.")] = None,
) -> None:
    """Continue a prompt; a single continuation streams.

    Example: daybreak sample runs/demo "def main(" --top-k 50 --temperature 0.8
    """
    from daybreak.configuration import from_person
    from daybreak.files import write_bytes
    from daybreak.run import load
    from daybreak.sampling.settings import SamplingConfig
    from daybreak.sampling.text import as_text

    settings = {"temperature": temperature, "top_k": top_k, "top_p": top_p, "greedy": greedy, "seed": seed}
    sampling = from_person(SamplingConfig, settings)
    trained = load(run)
    if out is None and count == 1:
        pieces = trained.stream(prompt, tokens=tokens, sampling=sampling)  # what is wrong is said before anything shows
        print(as_text(prompt), end="", flush=True)
        for piece in pieces:
            print(piece.text, end="", flush=True)
        print()
        return
    made = trained.sample(prompt, tokens=tokens, count=count, sampling=sampling)
    text = "\n---\n".join(continuation.text for continuation in made) + "\n"
    if out is None:
        print(text, end="")
        return
    write_bytes(out, text.encode())
    say(f"{count} x up to {tokens} tokens in {out}")
