"""daybreak sample."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from daybreak.cli.completing import runs
from daybreak.errors import UserError
from daybreak.progress import progress, say

if TYPE_CHECKING:
    from daybreak.data.tokenizer import Tokenizer
    from daybreak.sampling.text import Continuation

_ESCAPES = {r"\n": "\n", r"\t": "\t", r"\\": "\\"}


def sample(
    run: Annotated[Path, typer.Argument(autocompletion=runs, help="The run's folder.")],
    prompt: Annotated[
        str | None,
        typer.Argument(help="What to continue; - for standard input; a document's beginning unless given."),
    ] = None,
    prompts: Annotated[
        str | None,
        typer.Option(help='Prompts of a file, or - for standard input: one a line, or JSONL {"prompt": …}.'),
    ] = None,
    tokens: Annotated[int, typer.Option(min=1, help="How many to make at most.")] = 200,
    temperature: Annotated[float, typer.Option(help="Below 1 keeps to likelier tokens; for 0 use --greedy.")] = 1.0,
    top_k: Annotated[int | None, typer.Option(help="Only the K likeliest tokens.")] = None,
    top_p: Annotated[float | None, typer.Option(help="Only the likeliest tokens that sum to P.")] = None,
    min_p: Annotated[float | None, typer.Option(help="Only tokens P times as likely as the likeliest.")] = None,
    typical_p: Annotated[
        float | None, typer.Option(help="Only tokens that sum to P, as surprising as is to be expected.")
    ] = None,
    eta_cutoff: Annotated[
        float | None, typer.Option(help="Only tokens likelier than E, or less where the next one is uncertain.")
    ] = None,
    repetition_penalty: Annotated[float, typer.Option(help="Above 1 makes what was there before less likely.")] = 1.0,
    greedy: Annotated[bool, typer.Option("--greedy", help="Always the likeliest token.")] = False,
    stop: Annotated[
        list[str] | None, typer.Option(help=r"End in front of this text; may be given again. \n is an end of line.")
    ] = None,
    count: Annotated[int, typer.Option(min=1, max=1024, help="How many continuations of each prompt.")] = 1,
    seed: Annotated[int, typer.Option(help="The same seed gives the same text.")] = 0,
    logprobs: Annotated[bool, typer.Option("--logprobs", help="List each token with its log-probability.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
    out: Annotated[Path | None, typer.Option(help="Write to a file instead.")] = None,
) -> None:
    """Continue a prompt, or many; a single continuation streams.

    Example: daybreak sample runs/demo "def main(" --top-k 50 --temperature 0.8
    """
    from daybreak.cli.json_output import as_json
    from daybreak.configuration import from_person
    from daybreak.files import write_bytes
    from daybreak.run import load
    from daybreak.sampling.prompts import STANDARD_INPUT, read_prompt, read_prompts
    from daybreak.sampling.settings import SamplingConfig
    from daybreak.sampling.text import as_text

    sampling = from_person(
        SamplingConfig,
        {
            "repetition_penalty": repetition_penalty,
            "temperature": temperature,
            "top_k": top_k,
            "top_p": top_p,
            "min_p": min_p,
            "typical_p": typical_p,
            "eta_cutoff": eta_cutoff,
            "greedy": greedy,
            "seed": seed,
        },
    )
    if prompt is not None and prompts is not None:
        raise UserError(f"a prompt, {prompt!r}, and --prompts {prompts} exclude each other; give one of them")
    if greedy and count > 1:
        raise UserError(f"--greedy makes the same text each time; leave out --count {count}, or draw with --top-k 50")
    if out is not None and not out.resolve().parent.is_dir():
        raise UserError(f"--out {out}: there is no folder {out.parent}; make it first")
    if out is not None and out.is_dir():
        raise UserError(f"--out {out} is a folder; name the file to write")
    stops = [_unescaped(each) for each in stop or ()]
    trained = load(run)
    if prompts is not None:
        asked = read_prompts(prompts)
    else:
        asked = [read_prompt() if prompt == STANDARD_INPUT else prompt or ""]

    _say_what_is_cut(asked, trained.tokenizer, trained.recipe.model.context)
    if len(asked) == count == 1 and out is None and not logprobs and not json:
        pieces = trained.stream(asked[0], tokens=tokens, sampling=sampling, stop=stops)
        print(as_text(asked[0]), end="", flush=True)
        for piece in pieces:
            print(piece.text, end="", flush=True)
        print()
        return
    with progress("sampling", len(asked) * count * tokens, "tok") as advance:
        made = trained.sample(asked, tokens=tokens, count=count, sampling=sampling, stop=stops, advance=advance)
    if json:
        said = {"sampling": sampling.model_dump(), "tokens": tokens, "stop": stops}
        shown = as_json({**said, "continuations": [_content(each, trained.tokenizer, logprobs) for each in made]})
    else:
        shown = "\n---\n".join(_lines(each, trained.tokenizer, logprobs) for each in made)
    if out is None:
        print(shown)
        return
    write_bytes(out, f"{shown}\n".encode())
    say(f"{len(made):,} x up to {tokens:,} tokens in {out}")


def _say_what_is_cut(prompts: Sequence[str], tokenizer: "Tokenizer", context: int) -> None:
    from daybreak.sampling.text import as_text

    longest = 1 + max(len(tokenizer.encode(as_text(each))) for each in prompts)  # end-of-text stands in front
    if longest > context:
        which = "prompt" if len(prompts) == 1 else "longest prompt"
        say(f"of the {longest:,} tokens of the {which} the model sees the last {context:,}")


def _unescaped(stop: str) -> str:
    r"""A shell passes no end of line easily: `\n`, `\t` and `\\` stand for what they do elsewhere."""
    return re.sub(r"\\[nt\\]", lambda found: _ESCAPES[found[0]], stop)


def _lines(made: "Continuation", tokenizer: "Tokenizer", logprobs: bool) -> str:
    """The text; with log-probabilities, one line for each token below it."""
    if not logprobs:
        return made.text
    tokens = [f"{piece.log_probability:9.4f}  {tokenizer.decode([piece.token])!r}" for piece in made.pieces]
    return "\n".join([made.text, "", *tokens, f"{made.log_probability:9.4f}  nats in {len(tokens)} tokens"])


def _content(made: "Continuation", tokenizer: "Tokenizer", logprobs: bool) -> dict[str, Any]:
    content: dict[str, Any] = {
        "prompt": made.prompt,
        "completion": made.completion,
        "ending": made.ending,
        "log_probability": made.log_probability,
    }
    if logprobs:
        content["tokens"] = [
            {"id": piece.token, "text": tokenizer.decode([piece.token]), "log_probability": piece.log_probability}
            for piece in made.pieces
        ]
    return content
