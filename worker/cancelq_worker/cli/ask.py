"""Commands of those who ask for cancels: one intent, a file of them, and what became of them."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

from cancelq_worker.cli.invocation import invocation_of
from cancelq_worker.exits import CommandFailed, Exit

LaneArgument = Annotated[str, typer.Argument(help="venue:account, like bitget:main.", show_default=False)]
Json = Annotated[bool, typer.Option("--json", help="Print JSON, one object a line.")]
Wait = Annotated[bool, typer.Option("--wait", help="Wait for the outcome; exit 0 only if it is as asked.")]
Timeout = Annotated[float, typer.Option(help="Seconds that --wait waits at most.", min=0, max=86_400)]
Durable = Annotated[
    bool, typer.Option("--durable", help="Queued only once a replica has it too; else it exits with 69.")
]
OptionalText = str | None
Symbol = Annotated[OptionalText, typer.Option(help="Pair as the venue spells it: BTCUSDT, BTC-USDT.")]
OrderId = Annotated[OptionalText, typer.Option(help="The venue's order id.")]
ClientOrderId = Annotated[OptionalText, typer.Option(help="Your own order id.")]
Scope = Annotated[OptionalText, typer.Option(help="order (default), tpsl, stop, symbol, account, revoke.")]
Id = Annotated[OptionalText, typer.Option(help="Idempotency key; left out, one is made.")]
Priority = Annotated[OptionalText, typer.Option(help="normal (default) or urgent.")]
NotBefore = Annotated[OptionalText, typer.Option(help="Epoch ms: not sent earlier.")]
SendIn = Annotated[
    OptionalText, typer.Option("--in", help="Not sent before so long from now: 500ms, 10s, 5m, 1h.", metavar="TIME")
]
ExpiresAt = Annotated[OptionalText, typer.Option(help="Epoch ms: not sent later.")]
Target = Annotated[OptionalText, typer.Option(help="revoke: the id of the intent to withdraw.")]
Kinds = Annotated[OptionalText, typer.Option(help="symbol, account: comma list of order, tpsl, stop.")]
OlderThan = Annotated[OptionalText, typer.Option(help="symbol, account: only orders from before, epoch ms.")]
ClientPrefix = Annotated[OptionalText, typer.Option(help="symbol, account: only client ids that begin so.")]
OnlyIf = Annotated[OptionalText, typer.Option(help="BingX: NEW, PENDING or PARTIALLY_FILLED.")]
Label = Annotated[OptionalText, typer.Option(help="A free label, copied to every result.")]


def submit(
    ctx: typer.Context,
    lane: LaneArgument,
    symbol: Symbol = None,
    order_id: OrderId = None,
    client_order_id: ClientOrderId = None,
    scope: Scope = None,
    id: Id = None,
    priority: Priority = None,
    not_before_ms: NotBefore = None,
    send_in: SendIn = None,
    expires_at_ms: ExpiresAt = None,
    target: Target = None,
    kinds: Kinds = None,
    older_than_ms: OlderThan = None,
    client_prefix: ClientPrefix = None,
    only_if: OnlyIf = None,
    strategy: Label = None,
    reason: Label = None,
    durable: Durable = False,
    wait: Wait = False,
    timeout: Timeout = 60.0,
    as_json: Json = False,
) -> None:
    """Ask for one cancel."""
    fields = {
        "id": id,
        "scope": scope,
        "kinds": kinds,
        "older_than_ms": older_than_ms,
        "client_prefix": client_prefix,
        "target": target,
        "symbol": symbol,
        "order_id": order_id,
        "client_order_id": client_order_id,
        "only_if": only_if,
        "priority": priority,
        "not_before_ms": not_before_ms,
        "expires_at_ms": expires_at_ms,
        "strategy": strategy,
        "reason": reason,
    }
    if send_in is not None and not_before_ms is not None:
        raise CommandFailed("--in and --not-before-ms say the same", "give one of them", Exit.USAGE)
    from cancelq_worker.cli.submitting import submit_one

    limit_s = timeout if wait else None
    made = submit_one(invocation_of(ctx), lane, fields, limit_s, send_in=send_in, durable=durable, as_json=as_json)
    raise typer.Exit(made)


def feed(
    ctx: typer.Context,
    file: Annotated[str, typer.Argument(help="Path, or - for standard input.", show_default=False)],
    lane: Annotated[OptionalText, typer.Option(help="Lane of every line that names none.")] = None,
    format: Annotated[Literal["auto", "jsonl", "csv"], typer.Option(help="JSON lines, or CSV with a header.")] = "auto",
    durable: Durable = False,
    wait: Wait = False,
    timeout: Timeout = 60.0,
    as_json: Json = False,
) -> None:
    """Ask for many cancels: JSON lines or CSV, one intent a line, with the fields of `submit` and lane.

    A bad line is told with its number and field; the good ones are sent all the same.
    """
    from cancelq_worker.cli.feeding import Feed

    limit_s = timeout if wait else None
    job = Feed(invocation_of(ctx), file, format, lane, limit_s, durable=durable, as_json=as_json)
    raise typer.Exit(job.run())


def results(
    ctx: typer.Context,
    lane: Annotated[OptionalText, typer.Argument(help="Left out: every lane.", show_default=False)] = None,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on with new events as they come.")] = False,
    from_id: Annotated[
        OptionalText,
        typer.Option("--from", help="After this entry id, oldest first; 0: all. Left out: the newest."),
    ] = None,
    id: Annotated[OptionalText, typer.Option(help="Only events of this intent.")] = None,
    final: Annotated[bool, typer.Option("--final", help="Only outcomes.")] = False,
    limit: Annotated[
        int | None,
        typer.Option(help="At most so many of what is there; 100 unless --from or --id is given.", min=1),
    ] = None,
    as_json: Json = False,
) -> None:
    """What became of the intents: the newest events, or all after an entry."""
    from cancelq_worker.cli.reading import Reading

    reading = Reading(invocation_of(ctx), lane, id=id, final=final, as_json=as_json)
    raise typer.Exit(reading.run(from_id, limit, follow=follow))


def trace(
    ctx: typer.Context,
    id: Annotated[
        str,
        typer.Argument(help="Of an intent, an order (the venue's or your own), or an entry.", show_default=False),
    ],
    lane: Annotated[OptionalText, typer.Option(help="Look in this lane only, else in every lane.")] = None,
    since: Annotated[
        OptionalText,
        typer.Option(help="Only entries younger than this: 90s, 30m, 2h, 7d. Left out: all there are.", metavar="AGE"),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, one step a line.")] = False,
) -> None:
    """Everything known of one id: when it was asked, taken, sent, answered and settled, by whom, on what evidence.

    With it come its repeats, revocations and redriven copies, other intents of
    the same order, and what is still open, with the reason it waits.
    Exits with 1 if nothing is known of the id.

    What it costs: streams have no index, so the inbox and the results of every
    lane are read to their end, in small pages that hold nobody up. A million
    intents take some 20 s; --lane and --since make it shorter. An entry id
    like 1763690000000-0 is fetched directly, also if it is older than --since.
    """
    from cancelq_worker.cli.tracing import Tracing

    raise typer.Exit(Tracing(invocation_of(ctx), id, lane, since, as_json=as_json).run())
