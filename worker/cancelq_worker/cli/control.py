"""Commands of operators: how the lanes are, and holding and releasing one."""

from __future__ import annotations

from typing import Annotated

import typer

from cancelq_worker.cli.ask import LaneArgument
from cancelq_worker.cli.invocation import invocation_of


def status(
    ctx: typer.Context,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON array.")] = False,
) -> None:
    """How every lane is: what waits and for how long, what is under way, budget used, holds, workers.

    Exits with 1 if a lane has no live worker or its key is refused.
    """
    from cancelq_worker.cli.operating import show_status

    raise typer.Exit(show_status(invocation_of(ctx), as_json=as_json))


def pause(ctx: typer.Context, lane: LaneArgument) -> None:
    """Stop normal cancels of a lane, for all its workers; urgent ones and look-ups go on."""
    from cancelq_worker.cli.operating import pause_lane

    pause_lane(invocation_of(ctx), lane)


def resume(ctx: typer.Context, lane: LaneArgument) -> None:
    """End a pause; where the venue refused the key, have it tried again."""
    from cancelq_worker.cli.operating import resume_lane

    resume_lane(invocation_of(ctx), lane)
