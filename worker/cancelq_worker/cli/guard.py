"""The command of the dead man's switch."""

from __future__ import annotations

from typing import Annotated

import typer

from cancelq_worker.cli.ask import LaneArgument
from cancelq_worker.cli.invocation import invocation_of
from cancelq_worker.exits import CommandFailed, Exit


def guard(
    ctx: typer.Context,
    lane: LaneArgument,
    ttl: Annotated[
        str | None,
        typer.Option(help="Arm it and keep it; the lane is flattened so long after the last beat.", metavar="TIME"),
    ] = None,
    off: Annotated[bool, typer.Option("--off", help="Disarm it: nothing is flattened.")] = False,
    once: Annotated[bool, typer.Option("--once", help="Arm it once and end, instead of keeping it.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Without --ttl and --off: print JSON.")] = False,
) -> None:
    """The dead man's switch: while it is armed and nobody keeps it, workers cancel everything on the lane.

    With --ttl it is kept until this command ends, in whatever way; the lane is
    flattened then unless somebody else keeps it or disarms it with --off. With
    neither it shows how the guard is, and exits with 1 while a missed deadline
    has not emptied the lane.
    """
    if off and (ttl is not None or once):
        raise CommandFailed("--off disarms, --ttl and --once arm", "give one of them", Exit.USAGE)
    if once and ttl is None:
        raise CommandFailed("--once needs --ttl", "cancelq guard LANE --ttl 10s --once", Exit.USAGE)
    from cancelq_worker.cli.guard_keeping import disarm_guard, keep_guard, show_guard

    if off:
        raise typer.Exit(disarm_guard(invocation_of(ctx), lane))
    if ttl is not None:
        raise typer.Exit(keep_guard(invocation_of(ctx), lane, ttl, once=once))
    raise typer.Exit(show_guard(invocation_of(ctx), lane, as_json=as_json))
