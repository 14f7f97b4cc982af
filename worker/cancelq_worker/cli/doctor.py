"""The command that looks for what is wrong before it hurts."""

from __future__ import annotations

from typing import Annotated

import typer

from cancelq_worker.cli.invocation import invocation_of


def doctor(
    ctx: typer.Context,
    lane: Annotated[
        list[str] | None, typer.Option(help="Only this lane; may be repeated. Left out: all.", metavar="LANE")
    ] = None,
    offline: Annotated[bool, typer.Option("--offline", help="Call no venue.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Check Redis, durability, memory, rights, scripts, lanes, keys, clocks, limits and jobs; a remedy per finding.

    Reads only, within ten seconds. Exits with 0 if nothing failed, 1 if something
    did, 69 if Redis or a venue is out of reach, 77 if a key is refused, 78 if the
    settings cannot be used. Without keys, as on an operator's machine, they are
    left out. What each finding means: docs/DOCTOR.md.
    """
    from cancelq_worker.cli.doctoring import examine_all

    raise typer.Exit(examine_all(invocation_of(ctx), lane or [], offline=offline, as_json=as_json))
