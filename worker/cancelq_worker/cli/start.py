"""Commands that run something: the workers, the simulated venues, the demo."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Annotated

import typer

from cancelq_worker.cli.invocation import invocation_of
from cancelq_worker.exits import CommandFailed, Exit

if TYPE_CHECKING:
    from cancelq_worker.settings import Settings


def worker(
    ctx: typer.Context,
    http: Annotated[
        str | None,
        typer.Option(
            help="Show /livez, /readyz and /metrics there; else where CANCELQ_HTTP says.", metavar="HOST:PORT"
        ),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Do everything but send; results go to …:dryrun, beside real workers.")
    ] = False,
    from_start: Annotated[
        bool, typer.Option("--from-start", help="With --dry-run: the whole inbox, not only what comes from now on.")
    ] = False,
) -> None:
    """Serve every configured lane. TERM drains and exits; HUP re-reads accounts and secrets."""
    from cancelq_worker import logs
    from cancelq_worker.rq_worker import rehearse, run

    if from_start and not dry_run:
        remedy = "a real worker goes on where the last one stood"
        raise CommandFailed("--from-start needs --dry-run", remedy, Exit.USAGE)
    settings = invocation_of(ctx).settings(need_keys=True)
    if http is not None:
        settings = _shown_at(settings, http)
    logs.configure(sys.stderr)
    if rehearse(settings, from_start=from_start) if dry_run else run(settings):
        # HUP. The same process under the same command line, so that whoever watches over it sees no end.
        sys.stderr.flush()
        os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])


def _shown_at(settings: Settings, http: str) -> Settings:
    from cancelq_worker.settings import SettingsError, listen_place

    try:
        listen_place(http)
    except ValueError as error:
        raise SettingsError([f"--http {error}"]) from error
    return settings.with_http(http)


def simulate(
    port: Annotated[int, typer.Option(help="TCP port to listen on.", min=1, max=65535)],
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
) -> None:
    """Run the simulated venues on one port: order books, limits, signatures and, on request, misbehaviour."""
    from cancelq_worker.simulator import run

    try:
        run(port=port, host=host)
    except OSError as error:
        raise CommandFailed(
            f"cannot listen on {host}:{port}: {error.strerror or error}",
            "choose another --port, or an address of this machine as --host",
            Exit.UNHEALTHY,
        ) from error


def demo(
    # How many it can do, the demo says itself.
    orders: Annotated[int, typer.Option(help="How many cancels to send.")] = 5000,
) -> None:
    """All of it on this machine: server, venues, workers, producers, and an audit at the end. No keys."""
    from cancelq_worker.demo import run

    raise typer.Exit(run(orders=orders))
