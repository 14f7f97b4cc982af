"""`cancelq status`, `pause` and `resume`."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TypeVar

import redis.asyncio as aioredis
import typer
from rich.table import Table

from cancelq import Lane
from cancelq_worker import operate
from cancelq_worker.cli import showing
from cancelq_worker.cli.border import unknown_lane
from cancelq_worker.cli.consoles import plain_console
from cancelq_worker.cli.invocation import Invocation
from cancelq_worker.cli.top_json import broken_object, healthy, lane_object, unserved_object
from cancelq_worker.cli.top_rows import UNATTENDED, refused, unreadable
from cancelq_worker.cli.top_screen import WIDTH_OFF_TERMINAL, address_hold
from cancelq_worker.dry_run import dry_workers_alive
from cancelq_worker.exits import CommandFailed, Exit
from cancelq_worker.growth import Growth, growth, growth_lines, growth_object
from cancelq_worker.guard_status import GuardStatus, guard_statuses
from cancelq_worker.records import KeyWord
from cancelq_worker.rq_worker import rq_suspended
from cancelq_worker.settings import Settings
from cancelq_worker.snapshot import AddressStatus, LaneStatus, address_status, find_addresses, find_lanes
from cancelq_worker.trips import connect

ResultT = TypeVar("ResultT")


@dataclass(frozen=True, slots=True)
class _Looked:
    """What one look at the server showed. `rehearsing`: dry-run workers that live."""

    states: list[LaneStatus]
    broken: dict[Lane, str]
    unserved: list[Lane]
    addresses: list[AddressStatus]
    guards: dict[Lane, GuardStatus]
    rehearsing: list[str]
    grown: Growth

    def more_of(self, state: LaneStatus) -> dict[str, object]:
        """What JSON tells of a lane beside its snapshot."""
        more = {"guard": self.guards[state.lane].as_object(), "dry_run_workers": self.rehearsing}
        return {**more, **growth_object(self.grown, state.lane)}

    def banners(self) -> list[str]:
        told = [f"{lane}: {guard.text}" for lane, guard in self.guards.items() if guard.text]
        if self.rehearsing:
            told.append(f"DRY RUN by {', '.join(self.rehearsing)}: nothing it tells in …:dryrun is real")
        return told


def show_status(invocation: Invocation, *, as_json: bool) -> Exit:
    """One snapshot of every lane that is configured or has an inbox; unhealthy if one of them is."""
    settings = invocation.settings()

    async def look(redis: aioredis.Redis) -> _Looked:
        found = await find_lanes(redis)
        seconds, micros = await redis.time()
        now_us = seconds * 1_000_000 + micros
        addresses = await address_status(redis, await find_addresses(redis, now_us), now_us)
        unknown = [lane for lane in settings.lanes if lane not in found]
        states, broken = await operate.whole_status(redis, [*found, *unknown])
        unserved, whole = [lane for lane in unknown if lane not in states and lane not in broken], list(states)
        guards, rehearsing = await guard_statuses(redis, whole), await dry_workers_alive(redis)
        grown = await growth(redis, whole)
        return _Looked(list(states.values()), broken, unserved, addresses, guards, rehearsing, grown)

    seen = _with_redis(settings, look)
    states, unserved, addresses = seen.states, seen.unserved, seen.addresses
    suspended = rq_suspended(settings) if states else None
    if as_json:
        rows = [{**lane_object(state, addresses), "rq_suspended": suspended, **seen.more_of(state)} for state in states]
        rows += [broken_object(lane, why) for lane, why in seen.broken.items()]
        rows += [unserved_object(lane) for lane in unserved]
        typer.echo(showing.dumps(rows, indent=True))
    else:
        _print_table(states)
        _print_addresses(addresses)
        for line in growth_lines(seen.grown):
            typer.echo(line)
        for line in (*seen.banners(), *_warnings(states)):
            typer.echo(line, err=True)
        for lane, why in seen.broken.items():
            typer.echo(f"{lane} {unreadable(why)}", err=True)
        for lane in unserved:
            typer.echo(f"{lane} is configured, but no worker has ever served it here", err=True)
        if suspended:
            typer.echo("suspended by `rq suspend`, which pauses every lane until `rq resume`", err=True)
        if not states and not unserved and not seen.broken:
            typer.echo("no lane on this server yet: a worker creates its lanes when it starts", err=True)
    well = bool(states) and not unserved and not seen.broken and all(healthy(state) for state in states)
    well = well and not any(guard.trouble for guard in seen.guards.values())
    return Exit.OK if well else Exit.UNHEALTHY


def pause_lane(invocation: Invocation, lane: str) -> None:
    """Pauses, in the name of whoever runs the command."""
    asked = Lane.parse(lane)
    _with_redis(invocation.settings(), lambda redis: operate.pause(redis, asked, operate.default_actor()))
    typer.echo(f"{lane} is paused: normal cancels wait, urgent ones and look-ups go on")


def resume_lane(invocation: Invocation, lane: str) -> None:
    """Resumes, in the name of whoever runs the command, and says what that did; where a key has to be tried, only when
    a worker has tried it."""
    asked = Lane.parse(lane)

    async def work(redis: aioredis.Redis) -> None:
        refused, word = await operate.key_refused(redis, asked), secrets.token_hex(8)
        typer.echo(f"{lane}: {await operate.resume(redis, asked, operate.default_actor(), word)}")
        if refused:
            await _key_tried(redis, asked, word)

    _with_redis(invocation.settings(), work)


async def _key_tried(redis: aioredis.Redis, lane: Lane, word: str) -> None:
    tried, again = await operate.key_tried(redis, lane, word), f"then: cancelq resume {lane}"
    if tried is None and await operate.being_tried(redis, lane):
        told, remedy = "a worker is still trying its key", f"look at `cancelq status` and at its log; {again}"
        raise CommandFailed(f"{lane} stays held for now: {told}", remedy, Exit.UNHEALTHY)
    if tried is None:
        told = f"no worker has tried its key within {operate.KEY_TRIED_S:.0f} s"
        raise CommandFailed(
            f"{lane} stays held: {told}", f"start a worker that has this account; {again}", Exit.UNHEALTHY
        )
    if tried.what is KeyWord.REFUSED:
        told = f"the venue refuses its key: {showing.printable(tried.why)}"
        raise CommandFailed(
            f"{lane} stays held: {told}", f"mend the key or give the lane another; {again}", Exit.KEY_REFUSED
        )
    if tried.what is KeyWord.UNTRIED:
        told = f"its key could not be tried: {showing.printable(tried.why)}"
        raise CommandFailed(f"{lane} stays held: {told}", f"wait a moment; {again}", Exit.UNREACHABLE)
    typer.echo(f"{lane}: the key works, and the lane is open")


def _with_redis(settings: Settings, work: Callable[[aioredis.Redis], Awaitable[ResultT]]) -> ResultT:
    async def carried_out() -> ResultT:
        redis = connect(settings.redis_url)
        try:
            return await work(redis)
        except operate.UnknownLane as unknown:
            raise unknown_lane(unknown.lane) from None
        finally:
            await redis.aclose()

    return asyncio.run(carried_out())


COUNTS = ("queued", "oldest", "in flight", "confirming", "timed", "not admitted")
TEXTS = ("budget used", "holds", "workers")
WIDTH_MOST = 10_000  # wider than any table


def _print_table(states: list[LaneStatus]) -> None:
    """A line for each lane; a few for each where the terminal is too narrow for that, as nothing may be left out."""
    if not states:
        return
    console = plain_console(WIDTH_OFF_TERMINAL)
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("lane", *COUNTS):
        table.add_column(name, justify="left" if name == "lane" else "right", no_wrap=True)
    for name in TEXTS:
        table.add_column(name)
    for state in states:
        table.add_row(str(state.lane), *_counts(state), *_texts(state))
    wide = console.measure(table, options=console.options.update(max_width=WIDTH_MOST)).maximum
    if console.is_terminal and wide > console.width:
        for state in states:
            counts = ", ".join(f"{name} {count}" for name, count in zip(COUNTS, _counts(state), strict=True))
            texts = [f"{name}: {text}" for name, text in zip(TEXTS, _texts(state), strict=True) if text]
            typer.echo("\n  ".join((str(state.lane), counts, *texts)))
    else:
        console.print(table, markup=False, highlight=False)


def _counts(state: LaneStatus) -> tuple[str, ...]:
    age = "-" if state.waits_ms is None else showing.duration(state.waits_ms)
    counts = (state.in_flight, state.confirming, state.timed)
    unread = f"{'≥' * state.not_admitted_more}{state.not_admitted}"
    return str(state.queued), age, *map(str, counts), unread


def _texts(state: LaneStatus) -> tuple[str, ...]:
    nobody = "none serves it" if state.unattended else "none alive"
    workers = "" if state.unattended else ", ".join(state.workers)
    return tuple(map(showing.printable, (_budget(state), _holds(state), workers or nobody)))


def _print_addresses(addresses: list[AddressStatus]) -> None:
    """Those of which something is in use, or which are closed."""
    for address in addresses:
        if address.used or address.held_ms:
            limit = "" if address.limit is None else f"/{address.limit}"
            held = f", {address_hold(address)}" if address.held_ms else ""
            typer.echo(showing.printable(f"address {address.egress}: {address.bucket} {address.used}{limit}{held}"))


def _warnings(states: list[LaneStatus]) -> list[str]:
    return [f"{state.lane}: {UNATTENDED}" for state in states if state.workers and state.unattended] + [
        f"{state.lane}: {refused(bucket, refusals)}"
        for state in states
        for bucket, refusals in state.refusals.items()
        if refusals.lately
    ]


def _budget(state: LaneStatus) -> str:
    """The buckets of which something is in use; JSON has all of them."""
    used = ((name, units, limit) for name, (units, limit) in state.budget.items() if units)
    return ", ".join(f"{name} {units}" if limit is None else f"{name} {units}/{limit}" for name, units, limit in used)


def _holds(state: LaneStatus) -> str:
    return "; ".join(f"{'lane' if scope == '*' else scope} {reason} ({until})" for scope, reason, until in state.holds)
