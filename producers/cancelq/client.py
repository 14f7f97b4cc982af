"""The asking side: queue intents and await their outcomes, as `Client` or, with asyncio, `AsyncClient`.

An intent is queued by one plain `XADD … NOMKSTREAM`, never repeated behind the caller's back. Outcomes are
read from the lane's results by one reader per lane, however many tickets wait; a user of the server who may
only write inboxes can submit, not wait.

Both clients are thin: `Batch` decides what is sent, `Watch` what is read, the links carry it.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Self, TypeVar

import redis
import redis.asyncio

from cancelq import broker, broker_async
from cancelq.batch import Batch, IntentLike, prepare_many, prepare_one, replicas_of
from cancelq.contract import Event, Lane, Scope
from cancelq.errors import (
    BrokerDown,
    BrokerRefused,
    CancelqError,
    Conflicting,
    EventError,
    LaneError,
    OutcomeTimeout,
)
from cancelq.link import AsyncLink, Command, Link, block_ms, options
from cancelq.watch import PAGE, Reads, Slot, Watch, Watches, entries, newest, pairs, read_after

# An outcome is looked for from this long before its intent was queued, should the server's clock have stepped
# back in between.
CLOCK_STEP_MS = 1000
# Pause before a reader that lost its connection tries again.
RECONNECT_S = 0.2
# How long replicas may take to confirm what was queued.
DURABLE_MS = 1000
# Connections that one AsyncClient submits through at the same time; further calls wait their turn.
ASYNC_SENDERS = 16


class Client:
    """Queues intents and awaits outcomes; safe to share between threads.

    `source` is a url (`redis://`, `redis+sentinel://`, `redis+cluster://` and others, see `broker`) or a
    `redis.Redis`, for instance the one that `Sentinel.master_for` gives. Any node of a cluster will do: where it
    points elsewhere, it is followed. `timeout_s` bounds connecting and each wait for a reply, for clients made from
    a url.
    """

    def __init__(self, source: "str | redis.Redis", *, timeout_s: float = 5.0) -> None:
        self._own = isinstance(source, str)
        if isinstance(source, str):
            source = broker.client(source, **options(timeout_s))
        self._redis = source
        self._link = Link(source.connection_pool)
        self._block_ms = block_ms(source.connection_pool)
        self._wait_ms = min(DURABLE_MS, self._block_ms)
        self._watches = Watches()

    @classmethod
    def from_url(cls, url: str, *, timeout_s: float = 5.0) -> Self:
        """A client with connections of its own; `close` ends them."""
        return cls(url, timeout_s=timeout_s)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        """Ends the connections this client made; a `redis.Redis` that was passed in is left as it is."""
        self._link.close()
        if self._own:
            self._redis.close()

    def submit(
        self, lane: Lane | str, intent: IntentLike | None = None, /, *, durable: object = False, **fields: object
    ) -> "Ticket":
        """Queues one intent (an `Intent`, a mapping, or its fields by name) and adds an id if it has none.

        Returns once the server has it; with `durable`, once so many of its replicas have it too (True: one), so that
        a failover does not lose it. `IntentError` and `LaneError` come before anything is sent; `NotAccepted`,
        `BrokerRefused` and `BrokerDown` when nothing was queued; `Uncertain` when the reply was lost; `Unconfirmed`,
        which is an `Uncertain`, when the replicas did not confirm it in time (a second, or half of `timeout_s`).
        """
        batch = Batch(_lane(lane), prepare_one(intent, fields), replicas_of(durable), self._wait_ms)
        self._send(batch)
        return batch.the_one(self._ticketing(batch.lane))

    def submit_many(
        self, lane: Lane | str, intents: Iterable[IntentLike], *, durable: object = False
    ) -> "list[Ticket]":
        """Queues many, in their order and in few round trips; returns one ticket for each. `durable` as in `submit`.

        All are checked before the first is sent. If not every one was confirmed, `BatchIncomplete` tells
        which were; if none was and none may be, the errors are those of `submit`.
        """
        batch = Batch(_lane(lane), prepare_many(intents), replicas_of(durable), self._wait_ms)
        self._send(batch)
        return batch.all(self._ticketing(batch.lane))

    def revoke(self, lane: Lane | str, id: str, /, **labels: object) -> "Ticket":
        """Asks to withdraw the intent of that id if it was not sent yet; the outcome says whether."""
        return self.submit(lane, None, scope=Scope.revoke, target=id, **labels)

    def wait_all(self, tickets: "Iterable[Ticket]", timeout_s: float = 60.0) -> list[Event]:
        """The final events of all these tickets, in their order.

        `OutcomeTimeout` names those without one, or `Conflicting` those whose ids were queued before with other
        content; the others' are in `ticket.event`. A lost connection is
        picked up again until the time is over; a server that hangs can add the client's own time-out to it.
        """
        wanted = list(tickets)
        deadline = time.monotonic() + timeout_s
        # One lane after the other: all have to be complete, and what comes meanwhile is not lost.
        troubles = [self._wait_lane(lane, some, deadline) for lane, some in _by_lane(wanted).items()]
        return _outcomes(wanted, timeout_s, troubles)

    def events(self, lane: Lane | str, from_id: str = "0", *, follow: bool = False) -> Iterator[Event]:
        """A lane's events after the entry `from_id` ("0": all there are, "$": only new ones), oldest first.

        Ends with the newest, or with `follow` goes on waiting for more. Raises whatever reading met; the
        `entry_id` of the last event says where to go on. A lane that has no results yet yields none.
        """
        lane = _lane(lane)
        position = from_id
        if from_id == "$":
            position = _last_id(self._read(lane, newest(lane)))
        while True:
            page = entries(self._read(lane, read_after(lane, position, self._block_ms if follow else 0)))
            for entry_id, flat in page:
                position = entry_id
                yield Event.read(entry_id, pairs(flat))
            if not page and not follow:
                return

    def _send(self, batch: Batch) -> None:
        for commands in batch.chunks():
            try:
                batch.book(self._link.exchange(batch.lane, commands))
            except BrokerDown as down:
                batch.book_unsent(down)

    def _ticketing(self, lane: Lane) -> "Callable[[str, str], Ticket]":
        slot = self._watches.of(lane).slot
        return lambda id, entry_id: Ticket(lane, id, entry_id, slot(id), self)

    def _read(self, lane: Lane, command: Command) -> Any:
        return self._link.exchange(lane, [command]).only()

    def _wait_lane(self, lane: Lane, tickets: "list[Ticket]", deadline: float) -> CancelqError | None:
        """Reads the lane, or lets another thread read it, until these are settled or time is over."""
        unsettled = _unsettled(tickets)
        if not unsettled:
            return None
        watch = self._watches.of(lane)
        with watch.turn:
            gap = watch.aim(_since_ms(tickets))
            watch.waiting += 1
        try:
            if gap:
                with watch.catching_up:
                    self._carry_out(watch, watch.catch_up())
            while unsettled:
                if unsettled[-1].settled:
                    unsettled.pop()
                    continue
                left_s = max(deadline - time.monotonic(), 0.0)
                # When time is over, what lies there already is still read to its end.
                if self._take_turn(watch, left_s) < PAGE and left_s == 0.0:
                    break
        finally:
            with watch.turn:
                watch.waiting -= 1
        return watch.trouble

    def _take_turn(self, watch: Watch, left_s: float) -> int:
        """One read of the lane, or the wait for the thread that is at it; how many events it read."""
        with watch.turn:
            if watch.reading:
                watch.turn.wait(left_s)
                return 0
            watch.reading = True
        try:
            count = self._carry_out(watch, watch.read_on(min(left_s * 1000, self._block_ms)))
            if count is None:
                with watch.turn:
                    watch.turn.wait(min(left_s, RECONNECT_S))
            return count or 0
        finally:
            with watch.turn:
                watch.reading = False
                watch.turn.notify_all()

    def _carry_out(self, watch: Watch, reads: Reads) -> int | None:
        """None if the server cannot be read just now."""
        try:
            command = next(reads)
            while True:
                command = reads.send(entries(self._read(watch.lane, command)))
        except StopIteration as done:
            watch.trouble = None
            count: int = done.value
            return count
        except (BrokerDown, BrokerRefused) as trouble:
            watch.stumbled(trouble)
            return None


class AsyncClient:
    """As `Client`, for asyncio; belongs to the loop it is first used in.

    `source` is a url or a `redis.asyncio.Redis`. A lane that tickets wait for is read by one background task,
    which ends with the last waiter.
    """

    def __init__(self, source: "str | redis.asyncio.Redis", *, timeout_s: float = 5.0) -> None:
        self._own = isinstance(source, str)
        if isinstance(source, str):
            source = broker_async.client(source, **options(timeout_s))
        self._redis = source
        self._link = AsyncLink(source.connection_pool)
        self._block_ms = block_ms(source.connection_pool)
        self._wait_ms = min(DURABLE_MS, self._block_ms)
        self._watches = Watches()
        self._senders = asyncio.Semaphore(ASYNC_SENDERS)

    @classmethod
    def from_url(cls, url: str, *, timeout_s: float = 5.0) -> Self:
        """A client with connections of its own; `aclose` ends them."""
        return cls(url, timeout_s=timeout_s)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Ends the readers and the connections this client made; who still waits gets a `CancelqError`."""
        readers = [watch.reader for watch in self._watches.all() if watch.reader is not None]
        for reader in readers:
            reader.cancel()
        await asyncio.gather(*readers, return_exceptions=True)
        await self._link.aclose()
        if self._own:
            await self._redis.aclose()

    async def submit(
        self, lane: Lane | str, intent: IntentLike | None = None, /, *, durable: object = False, **fields: object
    ) -> "AsyncTicket":
        """As `Client.submit`. If it is cancelled while the reply is awaited, the intent may be queued."""
        batch = Batch(_lane(lane), prepare_one(intent, fields), replicas_of(durable), self._wait_ms)
        await self._send(batch)
        return batch.the_one(self._ticketing(batch.lane))

    async def submit_many(
        self, lane: Lane | str, intents: Iterable[IntentLike], *, durable: object = False
    ) -> "list[AsyncTicket]":
        """As `Client.submit_many`."""
        batch = Batch(_lane(lane), prepare_many(intents), replicas_of(durable), self._wait_ms)
        await self._send(batch)
        return batch.all(self._ticketing(batch.lane))

    async def revoke(self, lane: Lane | str, id: str, /, **labels: object) -> "AsyncTicket":
        """As `Client.revoke`."""
        return await self.submit(lane, None, scope=Scope.revoke, target=id, **labels)

    async def wait_all(self, tickets: "Iterable[AsyncTicket]", timeout_s: float = 60.0) -> list[Event]:
        """As `Client.wait_all`."""
        wanted = list(tickets)
        deadline = time.monotonic() + timeout_s
        waits = [self._wait_lane(lane, some, deadline) for lane, some in _by_lane(wanted).items()]
        # A task for each lane, unless there is but one, as for a single ticket.
        troubles = [await waits[0]] if len(waits) == 1 else await asyncio.gather(*waits)
        return _outcomes(wanted, timeout_s, troubles)

    async def events(self, lane: Lane | str, from_id: str = "0", *, follow: bool = False) -> AsyncIterator[Event]:
        """As `Client.events`."""
        lane = _lane(lane)
        position = from_id
        if from_id == "$":
            position = _last_id(await self._read(lane, newest(lane)))
        while True:
            page = entries(await self._read(lane, read_after(lane, position, self._block_ms if follow else 0)))
            for entry_id, flat in page:
                position = entry_id
                yield Event.read(entry_id, pairs(flat))
            if not page and not follow:
                return

    async def _send(self, batch: Batch) -> None:
        for commands in batch.chunks():
            try:
                async with self._senders:
                    batch.book(await self._link.exchange(batch.lane, commands))
            except BrokerDown as down:
                batch.book_unsent(down)

    def _ticketing(self, lane: Lane) -> "Callable[[str, str], AsyncTicket]":
        slot = self._watches.of(lane).slot
        return lambda id, entry_id: AsyncTicket(lane, id, entry_id, slot(id), self)

    async def _read(self, lane: Lane, command: Command) -> Any:
        return (await self._link.exchange(lane, [command])).only()

    async def _wait_lane(self, lane: Lane, tickets: "list[AsyncTicket]", deadline: float) -> CancelqError | None:
        unsettled = _unsettled(tickets)
        if not unsettled:
            return None
        watch = self._watches.of(lane)
        gap = watch.aim(_since_ms(tickets))
        watch.waiting += 1
        try:
            if watch.reader is None or watch.reader.done():
                watch.failure = None
                watch.reader = asyncio.create_task(self._read_lane(watch), name=f"cancelq results {lane}")
            if gap:
                with suppress(TimeoutError):
                    async with asyncio.timeout(deadline - time.monotonic()), watch.reader_catching_up:
                        await self._carry_out(watch, watch.catch_up())
            # What wakes them may be word of a repeat alone.
            while unsettled and watch.failure is None:
                signals = {ticket._slot.signal() for ticket in unsettled}
                _, pending = await asyncio.wait(signals, timeout=max(deadline - time.monotonic(), 0.0))
                unsettled = _unsettled(unsettled)
                if pending:
                    break
        finally:
            watch.waiting -= 1
        if watch.failure is not None and unsettled:
            raise watch.failure
        return watch.trouble

    async def _read_lane(self, watch: Watch) -> None:
        """The one reader of a lane. Whatever ends it before its waiters are served is handed to them."""
        try:
            while watch.waiting:
                if await self._carry_out(watch, watch.read_on(self._block_ms)) is None:
                    await asyncio.sleep(RECONNECT_S)
        except asyncio.CancelledError:
            watch.fail(CancelqError("the client was closed while outcomes were awaited"))
            raise
        except Exception as failure:
            watch.fail(failure)

    async def _carry_out(self, watch: Watch, reads: Reads) -> int | None:
        try:
            command = next(reads)
            while True:
                command = reads.send(entries(await self._read(watch.lane, command)))
        except StopIteration as done:
            watch.trouble = None
            count: int = done.value
            return count
        except (BrokerDown, BrokerRefused) as trouble:
            watch.stumbled(trouble)
            return None


@dataclass(eq=False, slots=True)
class _TicketBase:
    lane: Lane
    id: str
    entry_id: str
    _slot: Slot = field(repr=False)

    @property
    def event(self) -> Event | None:
        """The final event, if a wait has met it yet."""
        return self._slot.event_of(self.entry_id)

    @property
    def conflicting(self) -> bool:
        """Whether a wait has met that its id was queued before with other content: nothing of it is done."""
        return self.entry_id in self._slot.differing

    @property
    def settled(self) -> bool:
        """Whether a wait has met what became of it."""
        return self._slot.settles(self.entry_id)


@dataclass(eq=False, slots=True)
class Ticket(_TicketBase):
    """The receipt of one queued intent: its `lane`, its `id`, and the `entry_id` the server gave it."""

    _client: Client = field(repr=False)

    def wait(self, timeout_s: float = 60.0) -> Event:
        """The intent's final event; `OutcomeTimeout` if it does not come in time, `Conflicting` if its id was queued
        before with other content, so that nothing comes of it."""
        return self._client.wait_all([self], timeout_s)[0]


@dataclass(eq=False, slots=True)
class AsyncTicket(_TicketBase):
    """The receipt of one queued intent: its `lane`, its `id`, and the `entry_id` the server gave it."""

    _client: AsyncClient = field(repr=False)

    async def outcome(self, timeout_s: float = 60.0) -> Event:
        """As `Ticket.wait`."""
        return (await self._client.wait_all([self], timeout_s))[0]

    wait = outcome


_T = TypeVar("_T", bound=_TicketBase)


def _lane(lane: Lane | str) -> Lane:
    if isinstance(lane, Lane):
        return lane
    if isinstance(lane, str):
        return Lane.parse(lane)
    raise LaneError(f"a lane is a Lane or text like bitget:main, not {type(lane).__name__}")


def _last_id(reply: Any) -> str:
    page = entries(reply)
    return page[-1][0] if page else "0"


def _by_lane(tickets: list[_T]) -> dict[Lane, list[_T]]:
    lanes: dict[Lane, list[_T]] = {}
    for ticket in tickets:
        lanes.setdefault(ticket.lane, []).append(ticket)
    return lanes


def _unsettled(tickets: Sequence[_T]) -> list[_T]:
    return [ticket for ticket in tickets if not ticket.settled]


def _since_ms(tickets: Sequence[_TicketBase]) -> int:
    """From when on the outcomes of these can have been written."""
    oldest_ms = min(int(ticket.entry_id.partition("-")[0]) for ticket in tickets)
    return max(oldest_ms - CLOCK_STEP_MS, 0)


def _outcomes(tickets: Sequence[_TicketBase], timeout_s: float, troubles: Sequence[CancelqError | None]) -> list[Event]:
    events: list[Event] = []
    missing: list[_TicketBase] = []
    for ticket in tickets:
        if isinstance(ticket._slot.outcome, EventError):
            raise ticket._slot.outcome
        if ticket.event is not None:
            events.append(ticket.event)
        elif not ticket.settled:
            missing.append(ticket)
    if not missing:
        if len(events) < len(tickets):
            raise Conflicting([ticket.id for ticket in tickets if ticket.conflicting])
        return events
    trouble = next((trouble for trouble in troubles if trouble is not None), None)
    hint = f"; {trouble}" if trouble is not None else ""
    if any(ticket._slot.repeats for ticket in missing):
        hint += "; a duplicate event says that such an id was queued before, perhaps long ago"
    raise OutcomeTimeout([ticket.id for ticket in missing], timeout_s, hint) from trouble
