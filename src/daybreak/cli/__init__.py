"""The command line: verbs, and nothing but verbs. Each parses, calls, prints.

Exit codes: 0 done; 1 a check found something wrong; 2 a mistake that the person can mend, said in one
message; 3 stopped as asked, saved, and ready to go on; 4 another rank was lost; 130 stopped where there was nothing to
save.
"""

import io
import os
import signal
import sys
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
app.command()(demo.demo)
app.command()(prepare.prepare)
app.command("import")(importing.import_files)
app.command()(inspect.inspect)
app.command()(plan.plan)
app.command()(train.train)
app.command()(extend.extend)
app.command()(evaluate.evaluate)
app.command()(sample.sample)
app.command()(play.play)
app.command()(study.study)
app.command()(compare.compare)
app.command()(report.report)
app.command()(recipes.recipes)
app.command()(bench.bench)
app.command()(profile.profile)
app.command()(doctor.doctor)
app.command()(verify.verify)


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
        app()
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
