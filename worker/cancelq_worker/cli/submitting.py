"""`cancelq submit`: one intent, and its outcome if that is waited for."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import cast

import typer

from cancelq import Client, Lane
from cancelq_worker.cli import showing
from cancelq_worker.cli.invocation import Invocation
from cancelq_worker.cli.spans import span_ms
from cancelq_worker.exits import Exit

SEND_IN_MOST_MS = 30 * 86_400_000


def submit_one(
    invocation: Invocation,
    lane: str,
    fields: Mapping[str, str | None],
    timeout_s: float | None,
    *,
    send_in: str | None,
    durable: bool,
    as_json: bool,
) -> Exit:
    """Queues the intent; with a time-out, waits for its outcome, and is only content with one as asked. `send_in`: not
    sent before so long from now, by the server's clock; `durable`: a replica must have it."""
    asked = Lane.parse(lane)
    wait_ms = span_ms(send_in, "--in", least_ms=0, most_ms=SEND_IN_MOST_MS) if send_in is not None else None
    with invocation.redis(invocation.settings()) as redis, Client(redis) as client:
        if wait_ms is not None:
            seconds, micros = cast("tuple[int, int]", redis.time())  # its clock is the one the lane goes by
            fields = {**fields, "not_before_ms": str(seconds * 1000 + micros // 1000 + wait_ms)}
        given = {name: value for name, value in fields.items() if value is not None}
        ticket = client.submit(asked, given, durable=durable)
        receipt = {"lane": lane, "id": ticket.id, "entry_id": ticket.entry_id}
        if timeout_s is None:
            typer.echo(showing.dumps(receipt) if as_json else f"queued {ticket.id} on {lane}")
            return Exit.OK
        typer.echo(f"queued {ticket.id} on {lane}, waiting for its outcome", err=True)
        event = ticket.wait(timeout_s)
    typer.echo(showing.as_json(event) if as_json else showing.as_line(event, colour=sys.stdout.isatty()))
    return Exit.OK if showing.as_asked(event) else Exit.UNHEALTHY
