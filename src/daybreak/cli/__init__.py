"""The command line: verbs, and nothing but verbs. Each parses, calls, prints.

Exit codes: 0 done; 1 a check found something wrong; 2 a mistake that the person can mend, said in one
message; 3 stopped as asked, saved, and ready to go on; 4 another rank was lost; 130 stopped where there was nothing to
save.
"""

import io
import os
import signal
import sys
from collections.abc import Callable
from inspect import getdoc
from pathlib import Path
from typing import Annotated

import typer

from daybreak import __version__
from daybreak.cli import (
    bench,
    compare,
    demo,
    doctor,
    evaluate,
    export,
    extend,
    importing,
    inspect,
    plan,
    play,
    prepare,
    profile,
    recipes,
    report,
    sample,
    study,
    train,
    verify,
)
from daybreak.errors import LostRankError, Stopped, UserError

app = typer.Typer(
    name="daybreak",
    help="Pretrain a GPT in the time you have, on the machine you have, and know what helped.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _add(panel: str, verb: Callable[..., None], name: str | None = None) -> None:
    """Make a function a verb. Each paragraph of its docstring becomes a line, which wraps as the terminal is wide."""
    paragraphs = (getdoc(verb) or "").split("\n\n")
    shown = (each if each.startswith("Example:") else each.replace("\n", " ") for each in paragraphs)
    app.command(name, help="\n\n".join(shown), rich_help_panel=panel)(verb)


_add("Text", prepare.prepare)
_add("Text", importing.import_files, "import")
_add("Text", inspect.inspect)
_add("Train", demo.demo)
_add("Train", recipes.recipes)
_add("Train", plan.plan)
_add("Train", train.train)
_add("Train", extend.extend)
_add("Measure and try", evaluate.evaluate)
_add("Measure and try", sample.sample)
_add("Measure and try", play.play)
_add("Measure and try", export.export)
_add("Compare", study.study)
_add("Compare", compare.compare)
_add("Compare", report.report)
_add("Look into", bench.bench)
_add("Look into", profile.profile)
_add("Look into", doctor.doctor)
_add("Look into", verify.verify)


def _print_version(asked: bool) -> None:
    if asked:
        print(f"daybreak {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Pretrain a GPT in the time you have, on the machine you have, and know what helped."""


def _stop(*_: object) -> None:
    """Termination, where nobody else waits for it, cleans up as Ctrl-C does."""
    raise Stopped


def main() -> None:
    """Run the command line; a person's mistake becomes one message and exit code 2."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:  # closed by the caller, as with >&-
            setattr(sys, name, Path(os.devnull).open("w"))  # noqa: SIM115
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a name that is no text is shown, not stumbled over
    for ending in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(ending) is not signal.SIG_IGN:  # as nohup has it
            signal.signal(ending, _stop)
    try:
        app(prog_name="daybreak")  # however it was called, so that completion is installed under this name
    except (UserError, LostRankError) as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(error.exit_code) from None
    except (MemoryError, RuntimeError) as error:
        from daybreak.hardware import is_out_of_memory

        if not is_out_of_memory(error):
            raise
        print(f"error: out of memory: {error}; use a smaller model or batch", file=sys.stderr)
        raise SystemExit(UserError.exit_code) from None
    except OSError as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(UserError.exit_code) from None
