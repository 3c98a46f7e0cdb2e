"""daybreak export."""

from pathlib import Path
from typing import Annotated

import typer

from daybreak.cli.command import command
from daybreak.cli.completing import runs
from daybreak.progress import say


def export(
    run: Annotated[Path, typer.Argument(autocompletion=runs, help="The run's folder.")],
    folder: Annotated[Path, typer.Argument(help="The folder to make.")],
    license: Annotated[
        str | None, typer.Option(help="For the model card, as the hub calls it: mit, cc-by-4.0.")
    ] = None,
    evaluate: Annotated[
        bool, typer.Option("--evaluate", help="Put the loss on the whole validation split into the card.")
    ] = False,
    tasks: Annotated[str | None, typer.Option(help="Put benchmarks into the card, as lambada_openai,arc_easy.")] = None,
    local: Annotated[
        list[str] | None, typer.Option(metavar="NAME=FILE", help="Read a task's items from a file; may be repeated.")
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Only the first items of each task.")] = None,
) -> None:
    """Write a run as a model of Hugging Face's transformers.

    The folder has weights, tokenizer and a model card. transformers loads it before the command succeeds, and must
    compute the same logits.

    Example: daybreak export runs/gpt2-tiny exported/gpt2-tiny --license mit
    """
    from daybreak.errors import UserError
    from daybreak.evaluate.benchmarks import parse_local
    from daybreak.evaluate.task_choice import TaskChoice
    from daybreak.exchange.own_class import OWN
    from daybreak.exporting import export as export_run

    if tasks is None and (local or limit is not None):
        raise UserError("--local and --limit are of benchmarks; name them by --tasks")
    names = tuple(name.strip() for name in (tasks or "").split(",") if name.strip())
    choice = TaskChoice(names, local=parse_local(local or []), limit=limit) if names else None
    written = export_run(run, folder, license=license, evaluate=evaluate, tasks=choice)
    print(f"{folder}: {written.architecture}; {written.agreement}")
    if written.architecture == OWN.architecture:
        say("no class of transformers can be this model, so its own code lies beside it:")
        for reason in dict.fromkeys(written.reasons.values()):
            say(f"  no {reason}: {', '.join(name for name, its in written.reasons.items() if its == reason)}")
        say("transformers runs that code only with trust_remote_code=True, which is yours to give")
        say(f"next: {command()} import {folder} RUN, which does without")
        return
    say(f"next: {command()} evaluate hf:{folder} --text FILE")
