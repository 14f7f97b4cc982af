"""`cancelq guard`: keeps a lane's guard, disarms it, or shows how it is."""

from __future__ import annotations

import asyncio
import signal
import threading
from types import FrameType

import typer

from cancelq import Guard, Lane
from cancelq.errors import CancelqError
from cancelq.guard import TTL_LEAST_S, TTL_MOST_S
from cancelq_worker.cli import showing
from cancelq_worker.cli.invocation import Invocation
from cancelq_worker.cli.spans import span_ms
from cancelq_worker.exits import Exit
from cancelq_worker.guard_status import GuardStatus, guard_statuses
from cancelq_worker.operate import default_actor
from cancelq_worker.trips import connect


def keep_guard(invocation: Invocation, lane: str, ttl: str, *, once: bool) -> Exit:
    """Arms, and keeps until TERM or INT, which leave it armed: what this command stands for is gone then."""
    asked = Lane.parse(lane)
    ttl_ms = span_ms(ttl, "--ttl", least_ms=int(TTL_LEAST_S * 1000), most_ms=int(TTL_MOST_S * 1000))
    guard = Guard(invocation.settings().redis_url, asked, ttl_s=ttl_ms / 1000, keep=False, actor=default_actor())
    try:
        guard.arm(told=True)
        if once:
            typer.echo(f"{lane} is guarded: flattened in {ttl} unless it is kept, or disarmed with --off")
            return Exit.OK
        typer.echo(f"{lane} is guarded: flattened {ttl} after this command ends, unless disarmed with --off", err=True)
        _keep(guard, lane)
    finally:
        guard.close()
    typer.echo(f"no longer kept: {lane} is flattened in {ttl}; to prevent it: cancelq guard {lane} --off", err=True)
    return Exit.OK


def disarm_guard(invocation: Invocation, lane: str) -> Exit:
    """Disarms, in the name of whoever runs the command."""
    guard = Guard(invocation.settings().redis_url, Lane.parse(lane), actor=default_actor())
    try:
        guard.disarm()
    finally:
        guard.close()
    typer.echo(f"{lane} is not guarded any more")
    return Exit.OK


def show_guard(invocation: Invocation, lane: str, *, as_json: bool) -> Exit:
    """How the guard is; unhealthy while a missed deadline has not emptied the lane."""
    asked, url = Lane.parse(lane), invocation.settings().redis_url

    async def look() -> GuardStatus:
        redis = connect(url)
        try:
            return (await guard_statuses(redis, [asked]))[asked]
        finally:
            await redis.aclose()

    status = asyncio.run(look())
    typer.echo(showing.dumps(status.as_object()) if as_json else f"{lane}: {status.text or 'not guarded'}")
    return Exit.UNHEALTHY if status.trouble else Exit.OK


def _keep(guard: Guard, lane: str) -> None:
    """Beats until a signal. A server that is away is told once, and tried again."""
    ended = threading.Event()

    def end(*_: int | FrameType | None) -> None:
        ended.set()

    before = {number: signal.signal(number, end) for number in (signal.SIGTERM, signal.SIGINT)}
    trouble: CancelqError | None = None
    try:
        while not ended.wait(guard.pause_s(trouble)):
            try:
                kept = guard.beat()
            except CancelqError as error:
                if trouble is None:
                    typer.echo(f"the guard could not be kept, it is tried again: {error}", err=True)
                trouble = error
                continue
            if trouble is not None:
                typer.echo("the guard is kept again", err=True)
            trouble = None
            if not kept:
                typer.echo(f"the guard had expired: {lane} is being flattened; it is armed again", err=True)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
