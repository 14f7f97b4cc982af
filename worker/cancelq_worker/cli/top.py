"""`cancelq top`: a view of the lanes that is drawn anew every second, as a screen, as tables or as JSON lines."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import signal
import sys
import termios
import time
from collections.abc import Coroutine, Iterator, Sequence
from dataclasses import replace
from typing import Any, TypeVar

import redis.asyncio as aioredis
import typer
from redis.exceptions import RedisError
from rich.console import Console
from rich.live import Live

from cancelq import Lane
from cancelq_worker.cli import top_json
from cancelq_worker.cli.border import failure_of, unknown_lane
from cancelq_worker.cli.consoles import plain_console
from cancelq_worker.cli.invocation import Invocation
from cancelq_worker.cli.top_rows import View, compose
from cancelq_worker.cli.top_screen import WIDTH_OFF_TERMINAL, draw
from cancelq_worker.dry_run import dry_workers_alive
from cancelq_worker.exits import CommandFailed, Exit
from cancelq_worker.flow import Flows
from cancelq_worker.guard_status import GuardStatus, guard_statuses
from cancelq_worker.rq_worker import rq_suspended
from cancelq_worker.settings import Settings
from cancelq_worker.snapshot import Snapshots, address_status, find_addresses, find_lanes, server_status
from cancelq_worker.trips import connect

#: Entries of the results that are read in a second, of all lanes.
READ_A_SECOND = 2_000
#: Lanes at work that are looked at in one refresh; where there are more, they take turns.
LOOK_MOST = 200
#: Looking for lanes goes through all keys: it is done so seldom, and takes at most a hundredth of the time.
SEARCH_EVERY_S, SEARCH_SHARE = 10.0, 100
SUSPENDED_EVERY_S = 2.0
_EVERY = re.compile(r"(\d{1,5}(?:\.\d{1,3})?)(ms|s|m)?")
_UNIT_S = {None: 1.0, "s": 1.0, "ms": 0.001, "m": 60.0}
EVERY_LEAST_S, EVERY_MOST_S = 0.1, 3600.0
ResultT = TypeVar("ResultT")


class Top:
    """One run of the command."""

    def __init__(self, invocation: Invocation, lanes: Sequence[str], every: str, *, once: bool, as_json: bool) -> None:
        self._settings = invocation.settings()
        self._url = self._settings.redis_url
        self._named = list(dict.fromkeys(Lane.parse(lane) for lane in lanes))
        self._every_s = every_s(every)
        self._once = once
        self._as_json = as_json

    def run(self) -> Exit:
        """Shows one refresh or one after the other, until interrupted. Raises RedisError if the server cannot be
        reached at the start; later that is shown, and gone on with."""
        try:
            return asyncio.run(self._run())
        except BrokenPipeError:
            # Whoever read has seen enough. Nothing may be written at exit either.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return Exit.OK

    async def _run(self) -> Exit:
        stop, redraw = asyncio.Event(), asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, stop.set)
        loop.add_signal_handler(signal.SIGWINCH, redraw.set)
        redis = connect(self._url, max_connections=4)
        try:
            await _unless(stop, self._show(Source(redis, self._settings, self._named, self._every_s), stop, redraw))
        finally:
            await redis.aclose()
        return Exit.OK

    async def _show(self, source: Source, stop: asyncio.Event, redraw: asyncio.Event) -> None:
        view = await source.first()
        console = plain_console(WIDTH_OFF_TERMINAL, highlight=False)
        on_screen = console.is_terminal and not (console.is_dumb_terminal or self._as_json or self._once)
        with _screen(console, stop) if on_screen else contextlib.nullcontext() as live:
            while True:
                next_s = time.monotonic() + self._every_s
                self._draw(view, console, live)
                if self._once:
                    return
                while await _set_within(redraw, next_s - time.monotonic()):
                    redraw.clear()
                    if live is not None:
                        self._draw(view, console, live)
                view = await source.next(view)

    def _draw(self, view: View, console: Console, live: Live | None) -> None:
        if live is not None:
            live.update(draw(view, console.width, console.height), refresh=True)
        elif self._as_json:
            typer.echo(top_json.as_line(view))
        else:
            # Written here: rich would end the process with 1 where nobody reads any more.
            with console.capture() as drawn:
                console.print(draw(view, console.width))
            sys.stdout.write(drawn.get() + ("" if self._once else "\n"))
        sys.stdout.flush()


class Source:
    """Where views come from: the server, looked at again and again, in good and in bad times."""

    def __init__(self, redis: aioredis.Redis, settings: Settings, named: Sequence[Lane], every_s: float) -> None:
        self._redis = redis
        self._settings = settings
        self._named = named
        self._snapshots = Snapshots(redis, look_most=LOOK_MOST, passing_by=True)
        self._flows = Flows(redis, max(100, int(READ_A_SECOND * min(every_s, 2.0))))
        self._lanes: list[Lane] = []
        self._addresses: list[tuple[str, str]] = []
        self._search_s = self._beside_s = 0.0
        self._guards: dict[Lane, GuardStatus] = {}
        self._rehearsing: list[str] = []
        self._away_s: float | None = None
        self._asking: asyncio.Task[bool | None] | None = None
        self._asked_s = 0.0
        self._suspended: bool | None = None

    async def first(self) -> View:
        """The first view. Raises RedisError, and CommandFailed for a lane that was named and is not there."""
        self._suspended = await asyncio.to_thread(rq_suspended, self._settings)
        view = await self._look()
        for row in view.rows:
            if row.status is None and not row.broken and row.lane in self._named:
                raise unknown_lane(row.lane)
        return view

    async def next(self, last: View) -> View:
        """The view after `last`: while the server is away, the same with the reason."""
        self._ask_rq()
        try:
            view = await self._look()
        except (RedisError, OSError) as error:
            now_s = time.monotonic()
            if self._away_s is None:
                self._away_s = now_s
            return replace(last, away=(failure_of(error).message, now_s - self._away_s))
        self._away_s = None
        return view

    async def _look(self) -> View:
        server = await server_status(self._redis)
        if time.monotonic() >= self._search_s or self._away_s is not None:
            await self._search(server.now_us)
        states = await self._snapshots.lanes(self._lanes, server.workers)
        await self._flows.read(list(states), server.now_us)
        addresses = await address_status(self._redis, self._addresses, server.now_us)
        await self._look_beside(list(states))
        return compose(
            server, self._lanes, states, self._flows.of, addresses,
            suspended=self._suspended, guards=self._guards, rehearsing=self._rehearsing,
            broken=self._snapshots.refused,
        )  # fmt: skip

    async def _look_beside(self, lanes: list[Lane]) -> None:
        """Guards and dry runs; of very many lanes not in every refresh."""
        now_s = time.monotonic()
        if len(lanes) > LOOK_MOST and now_s < self._beside_s:
            return
        self._beside_s = now_s + SEARCH_EVERY_S
        self._guards = await guard_statuses(self._redis, lanes)
        self._rehearsing = await dry_workers_alive(self._redis)

    async def _search(self, now_us: int) -> None:
        """Which lanes and addresses there are. `now_us`: the server's TIME."""
        begun_s = time.monotonic()
        self._lanes = list(self._named) or sorted({*await find_lanes(self._redis), *self._settings.lanes}, key=str)
        self._addresses = await find_addresses(self._redis, now_us)
        if self._named:
            venues = {lane.venue for lane in self._named}
            self._addresses = [(egress, bucket) for egress, bucket in self._addresses if bucket.split("-")[0] in venues]
        took_s = time.monotonic() - begun_s
        self._search_s = time.monotonic() + max(SEARCH_EVERY_S, SEARCH_SHARE * took_s)

    def _ask_rq(self) -> None:
        """Asks RQ's server, which may be another one and away, without waiting for it."""
        if self._asking and self._asking.done():
            self._suspended, self._asking = self._asking.result(), None
        if self._asking is None and time.monotonic() - self._asked_s >= SUSPENDED_EVERY_S:
            self._asked_s = time.monotonic()
            self._asking = asyncio.create_task(asyncio.to_thread(rq_suspended, self._settings))


def every_s(text: str) -> float:
    """The seconds of a span like `1s`, `500ms`, `2` or `1m`."""
    match = _EVERY.fullmatch(text)
    seconds = float(match[1]) * _UNIT_S[match[2]] if match else 0.0
    if not EVERY_LEAST_S <= seconds <= EVERY_MOST_S:
        raise CommandFailed("--every wants a time like 1s, 500ms or 1m", "100ms to 60m are possible", Exit.USAGE)
    return seconds


@contextlib.contextmanager
def _screen(console: Console, stop: asyncio.Event) -> Iterator[Live]:
    """The terminal's other screen, on which keys leave no trace; `q` ends."""
    with _keys(stop), Live(console=console, screen=True, auto_refresh=False) as live:
        yield live


@contextlib.contextmanager
def _keys(stop: asyncio.Event) -> Iterator[None]:
    if not sys.stdin.isatty():
        yield
        return
    terminal, loop = sys.stdin.fileno(), asyncio.get_running_loop()
    before = termios.tcgetattr(terminal)
    quiet = termios.tcgetattr(terminal)
    quiet[3] &= ~(termios.ECHO | termios.ICANON)

    def read() -> None:
        keys = os.read(terminal, 64)
        if not keys or b"q" in keys.lower():
            stop.set()
            loop.remove_reader(terminal)

    termios.tcsetattr(terminal, termios.TCSADRAIN, quiet)
    loop.add_reader(terminal, read)
    try:
        yield
    finally:
        loop.remove_reader(terminal)
        termios.tcsetattr(terminal, termios.TCSAFLUSH, before)


async def _unless(stop: asyncio.Event, work: Coroutine[Any, Any, ResultT]) -> ResultT | None:
    """What comes of `work`, or None once `stop` is set, whichever is first."""
    task, stopping = asyncio.create_task(work), asyncio.create_task(stop.wait())
    try:
        await asyncio.wait((task, stopping), return_when=asyncio.FIRST_COMPLETED)
        return task.result() if task.done() else None
    finally:
        for each in (task, stopping):
            each.cancel()
        await asyncio.gather(task, stopping, return_exceptions=True)


async def _set_within(event: asyncio.Event, seconds: float) -> bool:
    """Whether `event` is set within so many seconds."""
    try:
        async with asyncio.timeout(max(0.0, seconds)):
            await event.wait()
    except TimeoutError:
        return False
    return True
