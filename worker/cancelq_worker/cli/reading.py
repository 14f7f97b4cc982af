"""`cancelq results`: the newest events, all after an entry, or those to come; of one lane or of all."""

from __future__ import annotations

import asyncio
import heapq
import queue
import re
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import cast

import typer
from redis.exceptions import AuthenticationError, RedisError

from cancelq import Client, Event, EventError, Lane
from cancelq.errors import BrokerDown, BrokerRefused
from cancelq_worker.cli import showing
from cancelq_worker.cli.border import failure_of, unknown_lane
from cancelq_worker.cli.invocation import Invocation
from cancelq_worker.exits import CommandFailed, Exit
from cancelq_worker.operate import find_lanes
from cancelq_worker.trips import connect

NEWEST = 100
NEWEST_BEFORE = 10
PAGE = 1000
_ENTRY = re.compile(r"[0-9]{1,20}(-[0-9]{1,20})?|\$")

#: After this a server that is away is asked again.
AGAIN_S = 0.5

_Page = list[tuple[bytes, dict[bytes, bytes]]]


@dataclass(frozen=True, slots=True)
class _Away:
    """The server cannot be asked just now."""

    why: str


class Reading:
    """One run of the command: which lanes, which of their events, and how they are shown."""

    def __init__(self, invocation: Invocation, lane: str | None, *, id: str | None, final: bool, as_json: bool) -> None:
        self._settings = invocation.settings()
        self._redis = invocation.redis(self._settings)
        self._lane = Lane.parse(lane) if lane else None
        self._id = id
        self._final = final
        self._as_json = as_json
        self._shown = 0
        # Per lane, where `follow` goes on.
        self._last: dict[Lane, str] = {}

    def run(self, from_id: str | None, limit: int | None, *, follow: bool) -> Exit:
        """Shows what there is, at most `limit` of it; then, with `follow`, what comes, until interrupted."""
        if from_id is not None and not _ENTRY.fullmatch(from_id):
            raise CommandFailed(
                "--from wants an entry id like 1763690000000-0", "0 shows all there are, $ none", Exit.USAGE
            )
        with self._redis, Client(self._redis) as client:
            lanes = self._lanes()
            self._last = {lane: self._newest_id(lane) if from_id == "$" else from_id or "0" for lane in lanes}
            if from_id is None and self._id is None:
                events: Iterable[Event] = self._newest(lanes, limit or (NEWEST_BEFORE if follow else NEWEST))
            else:
                whole = (self._forward(client, lane, from_id or "0") for lane in lanes)
                merged = heapq.merge(*whole, key=_position)
                events = islice(merged, limit)
            for event in events:
                self._show(event)
            if follow:
                for event in self._coming(client, lanes):
                    self._show(event)
        if self._id is not None and not self._shown:
            raise CommandFailed(
                f"no event of {self._id} in the results of {', '.join(map(str, lanes)) or 'any lane'}",
                "if it was queued just now, wait for it: --follow; else check the id and the lane",
                Exit.UNHEALTHY,
            )
        return Exit.OK

    def _lanes(self) -> list[Lane]:
        if self._lane is None:
            return asyncio.run(self._found())
        if not self._redis.exists(self._lane.inbox, self._lane.results):
            raise unknown_lane(self._lane)
        return [self._lane]

    async def _found(self) -> list[Lane]:
        client = connect(self._settings.redis_url)
        try:
            return await find_lanes(client)
        finally:
            await client.aclose()

    def _newest_id(self, lane: Lane) -> str:
        """Where `$` is now: after an outage it would be somewhere else."""
        page = cast(_Page, self._redis.xrevrange(lane.results, count=1))
        return page[0][0].decode() if page else "0"

    def _newest(self, lanes: list[Lane], limit: int) -> list[Event]:
        """The last events that are wanted, oldest first; looks back until there are enough or no more."""
        newest = heapq.merge(*(self._backward(lane) for lane in lanes), key=_position, reverse=True)
        return list(islice(newest, limit))[::-1]

    def _backward(self, lane: Lane) -> Iterator[Event]:
        end = "+"
        while True:
            page = cast(_Page, self._redis.xrevrange(lane.results, max=end, count=PAGE))
            if end == "+" and page:
                self._last[lane] = page[0][0].decode()
            yield from self._wanted(_read(entry_id.decode(), fields) for entry_id, fields in page)
            if len(page) < PAGE:
                return
            end = f"({page[-1][0].decode()}"

    def _forward(self, client: Client, lane: Lane, from_id: str, *, follow: bool = False) -> Iterator[Event]:
        """Events after an entry; one that cannot be read is told and passed over."""
        position = from_id
        while True:
            try:
                for event in client.events(lane, position, follow=follow):
                    position = self._last[lane] = event.entry_id
                    yield from self._wanted([event])
                return
            except EventError as error:
                position = error.entry_id
                typer.echo(f"warning: {error}", err=True)

    def _coming(self, client: Client, lanes: list[Lane]) -> Iterator[Event]:
        """New events of all lanes in the order they arrive; a server that is away is waited for. Ends only with an
        error or an interrupt."""
        arrived: queue.SimpleQueue[Event | _Away | Exception] = queue.SimpleQueue()
        for lane in lanes:
            threading.Thread(target=self._carry, args=(client, lane, arrived.put), daemon=True).start()
        told = False
        while True:
            match arrived.get():
                case Event() as event:
                    told = False
                    yield event
                case _Away(why=why):
                    if not told:
                        typer.echo(f"warning: {why}; waiting for it, and going on from there", err=True)
                    told = True
                case Exception() as error:
                    raise error

    def _carry(self, client: Client, lane: Lane, tell: Callable[[Event | _Away | Exception], None]) -> None:
        """What comes on one lane, from its last event on, however often the server goes away."""
        try:
            while True:
                try:
                    for event in self._forward(client, lane, self._last[lane], follow=True):
                        tell(event)
                except (BrokerDown, BrokerRefused) as error:
                    if not _passes(error):
                        raise
                    # Its own words are for who sends.
                    cause = error.__cause__
                    tell(_Away(failure_of(cause if isinstance(cause, RedisError) else error).message))
                time.sleep(AGAIN_S)
        except Exception as error:
            tell(error)

    def _wanted(self, events: Iterable[Event | None]) -> Iterator[Event]:
        for event in events:
            if event and (event.final or not self._final) and self._id in (None, event.id):
                yield event

    def _show(self, event: Event) -> None:
        if not self._shown and not self._as_json:
            typer.echo(showing.header())
        self._shown += 1
        typer.echo(showing.as_json(event) if self._as_json else showing.as_line(event, colour=sys.stdout.isatty()))


def _passes(error: BrokerDown | BrokerRefused) -> bool:
    """Whether a server that is away, or loads its data, may come back by itself."""
    if isinstance(error, BrokerRefused):
        return error.code == "LOADING"
    return not isinstance(error.__cause__, AuthenticationError)


def _read(entry_id: str, fields: dict[bytes, bytes]) -> Event | None:
    try:
        return Event.read(entry_id, fields)
    except EventError as error:
        typer.echo(f"warning: {error}", err=True)
        return None


def _position(event: Event) -> tuple[int, int]:
    ms, _, number = event.entry_id.partition("-")
    return int(ms), int(number)
