"""The command `cancelq`: what there is to ask for, how errors are told, how it exits.

This module and those of the groups import nothing that is slow to load; each command loads what it needs when
it runs, so that `cancelq --help` answers at once.
"""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated

import typer
from typer.main import get_command

from cancelq_worker.cli import ask, auditing, control, doctor, guard, jobs, start
from cancelq_worker.cli.invocation import Invocation
from cancelq_worker.exits import CommandFailed, Exit

app = typer.Typer(
    name="cancelq",
    no_args_is_help=True,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)
for panel, commands in (
    ("Try it", (start.demo, start.simulate)),
    ("Run", (start.worker, jobs.jobs)),
    ("Ask", (ask.submit, ask.feed, ask.results, ask.trace)),
    ("Operate", (control.status, control.top, doctor.doctor, control.pause, control.resume)),
    ("Operate", (control.kill, guard.guard, jobs.redrive)),
    ("Keep records", (auditing.archive, auditing.audit)),
):
    for command in commands:
        app.command(rich_help_panel=panel)(command)


def main() -> None:
    """The console script: reads the process' arguments and environment, and exits."""
    sys.exit(run(sys.argv[1:], os.environ))


def run(args: Sequence[str], env: Mapping[str, str]) -> int:
    """Runs one command line and returns its exit code; whatever goes wrong is told on stderr."""
    invocation = Invocation(dict(env))
    try:
        # Not standalone, so that errors come here instead of being printed in a style of their own.
        code = get_command(app).main(args=list(args), prog_name="cancelq", standalone_mode=False, obj=invocation)
        return int(code or Exit.OK)
    except KeyboardInterrupt:
        return Exit.INTERRUPTED
    except typer.TyperException as error:
        if not error.format_message():
            # Called without a command: the help was printed instead.
            return Exit.USAGE
        failure = _misuse(error)
    except CommandFailed as error:
        failure = error
    except Exception as error:
        if invocation.traceback:
            from cancelq_worker.redaction import redacted_text

            sys.stderr.write(redacted_text(traceback.format_exc()))
        # Here, because naming the errors means importing the libraries that raise them.
        from cancelq_worker.cli.border import failure_of

        failure = failure_of(error, invocation.redis_user)
    _tell(failure)
    return failure.code


def _print_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        typer.echo(f"cancelq {version('cancelq')}")
        raise typer.Exit(Exit.OK)


@app.callback()
def cancelq(
    ctx: typer.Context,
    config: Annotated[
        Path | None,
        typer.Option(help="Settings file (TOML); else the one CANCELQ_CONFIG names.", metavar="FILE"),
    ] = None,
    with_traceback: Annotated[
        bool, typer.Option("--traceback", help="On an error, also print where it happened.")
    ] = False,
    version: Annotated[
        bool,
        typer.Option("--version", help="Print the version and exit.", is_eager=True, callback=_print_version),
    ] = False,
) -> None:
    """Cancels orders at exchanges: one confirmed outcome for every intent, within the venue's limits.

    A lane is one account at one venue, written [bold]bitget:main[/bold].
    """
    invocation = ctx.ensure_object(Invocation)
    invocation.config = config
    invocation.traceback = with_traceback


def _misuse(error: typer.TyperException) -> CommandFailed:
    ctx = getattr(error, "ctx", None)
    path = ctx.command_path if ctx else "cancelq"
    return CommandFailed(error.format_message(), f"{path} --help shows how to write it", Exit.USAGE)


def _tell(failure: CommandFailed) -> None:
    for line in failure.message.splitlines():
        typer.echo(f"{typer.style('error:', fg='red', bold=True)} {line}", err=True)
    for line in failure.remedy.splitlines():
        typer.echo(f"{typer.style('remedy:', bold=True)} {line}", err=True)
