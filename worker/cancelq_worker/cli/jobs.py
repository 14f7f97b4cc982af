"""Commands about jobs: running them, and sending unresolved intents again."""

from __future__ import annotations

import os
import sys
from typing import Annotated

import typer

from cancelq_worker.cli.invocation import invocation_of


def jobs(ctx: typer.Context) -> None:
    """Run RQ's queue "cancelq" and the periodic jobs. Needs no exchange key. TERM ends it after the job in hand."""
    from cancelq_worker import logs, redaction
    from cancelq_worker.jobs.worker import run

    settings = invocation_of(ctx).settings()
    logs.configure(sys.stderr)
    redaction.conceal(settings.secrets())
    if run(settings):
        # HUP. The same process under the same command line, so that whoever watches over it sees no end.
        sys.stderr.flush()
        os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])


def redrive(
    ctx: typer.Context,
    lane: Annotated[str | None, typer.Argument(help="Left out: every lane.", show_default=False)] = None,
    ids: Annotated[list[str] | None, typer.Option("--id", help="Only this intent; may be repeated.")] = None,
    since: Annotated[
        str, typer.Option(help="What ended at most so long ago: 30m, 2h, 7d. Not with --id.", metavar="AGE")
    ] = "1d",
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Send unresolved intents again, as new intents that name the old ones as their origin.

    What was sent again or resolved since is left alone, and twice is once. An
    intent for a pair or an account then means only orders older than itself.
    Exits with 1 if something could not be sent again.
    """
    from cancelq_worker.cli.redriving import redrive_lanes

    raise typer.Exit(redrive_lanes(invocation_of(ctx), lane, ids or [], since, yes=yes, as_json=as_json))
