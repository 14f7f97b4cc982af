"""`cancelq redrive`: shows what would be sent again, asks, sends."""

from __future__ import annotations

import sys
from collections.abc import Sequence

import typer
from redis import Redis

from cancelq import Lane
from cancelq_worker.cli import showing
from cancelq_worker.cli.border import unknown_lane
from cancelq_worker.cli.invocation import Invocation
from cancelq_worker.cli.lanes_asked import age_ms, lanes_asked
from cancelq_worker.exits import CommandFailed, Exit
from cancelq_worker.jobs import redrive
from cancelq_worker.operate import UnknownLane, default_actor


def redrive_lanes(
    invocation: Invocation, lane: str | None, ids: Sequence[str], since: str, *, yes: bool, as_json: bool
) -> Exit:
    """Sends again what is unresolved in one lane, or in every lane there is; unhealthy if something is left."""
    settings, young_ms = invocation.settings(), age_ms(since, "--since")
    with invocation.redis(settings) as redis:
        lanes = lanes_asked(redis, settings.redis_url, [lane] if lane else [])
        seconds, _ = redis.time()
        since_ms = 0 if ids else seconds * 1000 - young_ms
        plans = [_plan(redis, one, since_ms, ids) for one in lanes]
        if not lane:  # an id is of one lane; that others do not have it is no news
            plans = [plan for plan in plans if plan.again or (plan.left and not ids)]
        count = sum(len(plan.again) for plan in plans)
        if not as_json:
            _show(plans)
        if count and not yes:
            _ask_leave(count)
        for plan in plans:
            redrive.send(redis, plan, default_actor())
    if as_json:
        typer.echo(showing.dumps({str(plan.lane): _object(plan) for plan in plans}, indent=True))
    elif count:
        typer.echo(f"{count} sent again")
    missing = bool(ids) and count < len(set(ids))
    return Exit.UNHEALTHY if missing or any(plan.left for plan in plans) else Exit.OK


def _plan(redis: Redis, lane: Lane, since_ms: int, ids: Sequence[str]) -> redrive.Redrive:
    try:
        return redrive.plan(redis, lane, since_ms=since_ms, ids=ids)
    except UnknownLane as unknown:
        raise unknown_lane(unknown.lane) from None


def _show(plans: Sequence[redrive.Redrive]) -> None:
    for plan in plans:
        for old, entry in plan.again.items():
            of = entry.get("order_id") or entry.get("client_order_id") or ""
            what = " ".join(part for part in (entry["scope"], entry.get("symbol", ""), of) if part)
            typer.echo(showing.printable(f"{plan.lane} {old}: {what}, again as {entry['id']}"), err=True)
        for old, why in plan.left.items():
            typer.echo(showing.printable(f"{plan.lane} {old}: left alone: {why}"), err=True)
    if not plans or not any(plan.again or plan.left for plan in plans):
        typer.echo("nothing is unresolved", err=True)


def _ask_leave(count: int) -> None:
    if not sys.stdin.isatty():
        raise CommandFailed("nobody to ask whether this is meant", "add --yes", Exit.USAGE)
    if not typer.confirm(f"Send {count} again?", err=True):
        raise CommandFailed("not confirmed, nothing was sent", "cancelq redrive again, or add --yes", Exit.UNHEALTHY)


def _object(plan: redrive.Redrive) -> dict[str, object]:
    return {"sent": {old: entry["id"] for old, entry in plan.again.items()}, "left": plan.left}
