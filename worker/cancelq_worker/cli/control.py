"""Commands of operators: how the lanes are, and holding and releasing one."""

from __future__ import annotations

from typing import Annotated

import typer

from cancelq_worker.cli.ask import LaneArgument, OptionalText
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


def top(
    ctx: typer.Context,
    lanes: Annotated[
        list[str] | None, typer.Argument(help="Lanes like bitget:main; left out: all.", show_default=False)
    ] = None,
    every: Annotated[str, typer.Option(help="Time between two looks: 1s, 500ms, 1m.", metavar="TIME")] = "1s",
    once: Annotated[bool, typer.Option("--once", help="Show one look and end.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, one look a line.")] = False,
) -> None:
    """The lanes as they are now, again and again: what waits, budget, outcomes a second, how long they took.

    Lanes in trouble come first. Outcomes and times are of the last seconds (rates
    ten, times thirty), read from the results; where more comes than is read, they
    are "sampled". Ends with Ctrl-C or q; off a terminal it prints a table each time.
    """
    from cancelq_worker.cli.top import Top

    raise typer.Exit(Top(invocation_of(ctx), lanes or [], every, once=once, as_json=as_json).run())


def pause(ctx: typer.Context, lane: LaneArgument) -> None:
    """Stop normal cancels of a lane, for all its workers; urgent ones and look-ups go on."""
    from cancelq_worker.cli.operating import pause_lane

    pause_lane(invocation_of(ctx), lane)


def resume(ctx: typer.Context, lane: LaneArgument) -> None:
    """End a pause; where the venue refused the key, have it tried again."""
    from cancelq_worker.cli.operating import resume_lane

    resume_lane(invocation_of(ctx), lane)


def kill(
    ctx: typer.Context,
    lane: LaneArgument,
    symbol: Annotated[OptionalText, typer.Option(help="Only this pair, as the venue spells it.")] = None,
    client_prefix: Annotated[OptionalText, typer.Option(help="Only client ids that begin so.")] = None,
    orders_only: Annotated[bool, typer.Option("--orders-only", help="Leave TP/SL and stop orders.")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    timeout: Annotated[float, typer.Option(help="Seconds to follow at most.", min=1, max=3_600)] = 120.0,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object at the end.")] = False,
) -> None:
    """The kill switch: cancel everything that is open, and follow until nothing is.

    Urgent intents that workers carry out with the fewest calls the venue allows,
    past whatever else waits. Needs Redis and one worker, no key. Exits with 0
    only if the venue shows nothing open; else says what is known to be open.
    """
    from cancelq_worker.cli.killing import kill_lane

    done = kill_lane(
        invocation_of(ctx), lane, symbol, client_prefix, timeout, orders_only=orders_only, yes=yes, as_json=as_json
    )
    raise typer.Exit(done)
