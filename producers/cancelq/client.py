"""The asking side: queue intents and await their outcomes, as `Client` or, with asyncio, `AsyncClient`.

An intent is queued by one plain `XADD … NOMKSTREAM`, never repeated behind the caller's back: what redis-py would send
again after a lost reply would be queued twice. The bytes therefore go through a connection taken from redis-py's pool
by hand, which also tells for each intent of a batch whether the server confirmed it.

Outcomes are read from the lane's results stream by one reader per lane, however many tickets wait for it. It works
for a client whose user may read that stream; a user who may only write an inbox can submit, not wait.

The two clients share everything but the await: `_Batch` and `_Watch` decide, the clients carry bytes.
"""

import asyncio
import math
import os
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, Self, TypeVar
from weakref import WeakValueDictionary

import redis
import redis.asyncio
from redis.asyncio.retry import Retry as AsyncRetry
from redis.backoff import NoBackoff
from redis.exceptions import (
    AuthenticationError,
    AuthorizationError,
    BusyLoadingError,
    MovedError,
    RedisError,
    ResponseError,
)
from redis.retry import Retry

from cancelq.contract import Event, Intent, Lane, Scope, check_size, wire_fields
from cancelq.errors import (
    BatchIncomplete,
    BrokerDown,
    BrokerRefused,
    CancelqError,
    EventError,
    IntentError,
    LaneError,
    NotAccepted,
    OutcomeTimeout,
    Uncertain,
)

IntentLike = Intent | Mapping[str, object]

# Intents per round trip.
CHUNK = 500
# Events per read.
PAGE = 1000
# How long one read may wait at the server; redis-py's socket gives up after 5 s.
BLOCK_MS = 2000
# How far back the outcome of an id is searched that turns out to have been queued before.
LOOK_BACK_PAGES = 100
# An outcome is looked for from this long before its intent was queued, should the server's clock have stepped back.
CLOCK_STEP_MS = 1000
# Pause before a reader that lost its connection tries again.
RECONNECT_S = 0.2
# Connections that one AsyncClient submits through at the same time; further callers wait their turn.
ASYNC_SENDERS = 16
# A cluster that moves a lane's slot is followed this often per call.
MAX_REDIRECTS = 5

# What the server itself said: the command was not executed. Some of these are connection errors to redis-py.
_STATED = (ResponseError, AuthenticationError, AuthorizationError, BusyLoadingError)
# Refusals that waiting does not mend.
_HOPELESS = frozenset({"NOPERM", "NOAUTH", "WRONGPASS", "WRONGTYPE"})


# ---------------------------------------------------------------------------------------------------------------------
# The two clients


class Client:
    """Queues intents and awaits outcomes; safe to share between threads.

    `source` is the url of a server (`redis://`, `rediss://`, `unix://`) or a `redis.Redis`, for instance the one that
    `Sentinel.master_for` gives. Any node of a cluster will do: where it points elsewhere, it is followed. The time-out
    bounds connecting, and each wait for a reply; it applies to clients made from a url.
    """

    def __init__(self, source: "str | redis.Redis", *, timeout_s: float = 5.0) -> None:
        self._own = isinstance(source, str)
        if isinstance(source, str):
            source = redis.Redis.from_url(source, retry=Retry(NoBackoff(), 0), **_options(timeout_s))
        self._redis = source
        self._link = _Link(source.connection_pool)
        self._watches = _Watches()

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

    def submit(self, lane: Lane | str, intent: IntentLike | None = None, /, **fields: object) -> "Ticket":
        """Queues one intent, given as `Intent`, as a mapping of its fields, or by name; adds an id if it has none.

        Returns once the server has it. Raises `IntentError` or `LaneError` before anything is sent, `NotAccepted`,
        `BrokerRefused` or `BrokerDown` when nothing was queued, `Uncertain` when the reply was lost.
        """
        batch = _Batch(lane, [_one_intent(intent, fields)])
        self._send(batch)
        return self._ticket(*batch.the_one())

    def submit_many(self, lane: Lane | str, intents: Iterable[IntentLike]) -> "list[Ticket]":
        """Queues many, in few round trips and in their order; returns one ticket for each.

        All are checked before the first is sent. If not every one was confirmed, `BatchIncomplete` tells which were;
        if none was and none may be, the errors of `submit`.
        """
        batch = _Batch(lane, intents)
        self._send(batch)
        return batch.all(self._ticket)

    def revoke(self, lane: Lane | str, id: str, /, **labels: object) -> "Ticket":
        """Asks to withdraw the intent of that id if it was not sent yet; the outcome of the ticket says whether."""
        return self.submit(lane, None, scope=Scope.revoke, target=id, **labels)

    def wait_all(self, tickets: "Iterable[Ticket]", timeout_s: float = 60.0) -> list[Event]:
        """The final events of all these tickets, in their order.

        `OutcomeTimeout` names those without one; the others' are in `ticket.event`. A lost connection is picked up
        again until the time is over.
        """
        wanted = list(tickets)
        deadline = time.monotonic() + timeout_s
        troubles = [self._wait_lane(lane, some, deadline) for lane, some in _by_lane(wanted).items()]
        return _outcomes(wanted, timeout_s, troubles)

    def events(self, lane: Lane | str, from_id: str = "0", *, follow: bool = False) -> Iterator[Event]:
        """Events of a lane after the entry `from_id` ("0": all there are, "$": only new ones), oldest first.

        Ends with the newest, or goes on waiting for more if `follow`. Raises what reading met; the `entry_id` of the
        last event is where to go on. A lane that has no results yet yields none.
        """
        lane = _lane(lane)
        position = from_id
        if from_id == "$":
            newest = _entries(self._read(lane, _newest(lane)))
            position = newest[0][0] if newest else "0"
        while True:
            page = _entries(self._read(lane, _read_on(lane, position, BLOCK_MS if follow else 0)))
            for entry_id, flat in page:
                position = entry_id
                yield Event.read(entry_id, _pairs(flat))
            if not page and not follow:
                return

    def _send(self, batch: "_Batch") -> None:
        for commands in batch.chunks():
            try:
                batch.book(self._link.exchange(batch.lane, commands))
            except BrokerDown as down:
                batch.book_failure(down)

    def _ticket(self, lane: Lane, id: str, entry_id: str) -> "Ticket":
        return Ticket(lane, id, entry_id, self._watches.of(lane).slot(id), self)

    def _read(self, lane: Lane, command: "_Command") -> Any:
        return _only(self._link.exchange(lane, [command]))

    def _wait_lane(self, lane: Lane, tickets: "list[Ticket]", deadline: float) -> CancelqError | None:
        """Reads the lane, or lets another thread read it, until these are settled or time is over."""
        watch = self._watches.of(lane)
        open_slots = [ticket._slot for ticket in tickets if ticket._slot.outcome is None]
        if not open_slots:
            return None
        since_ms = min(ticket._since_ms for ticket in tickets)
        with watch.turn:
            gap = watch.aim(since_ms)
            watch.waiting += 1
        try:
            if gap:
                self._tolerate(watch, self._catch_up)
            while open_slots:
                if open_slots[-1].outcome is not None:
                    open_slots.pop()
                    continue
                left_s = deadline - time.monotonic()
                if self._read_turn(watch, max(left_s, 0.0)) < PAGE and left_s <= 0:
                    break
        finally:
            with watch.turn:
                watch.waiting -= 1
        return watch.trouble

    def _read_turn(self, watch: "_Watch", left_s: float) -> int:
        """One read of the lane, or a wait for the thread that is reading it; the number of events read."""
        with watch.turn:
            if watch.reading:
                watch.turn.wait(left_s)
                return 0
            watch.reading = True
        try:
            read = self._tolerate(watch, lambda watch: self._read_page(watch, left_s))
            if read is None:
                with watch.turn:
                    watch.turn.wait(min(RECONNECT_S, left_s))
            return read or 0
        finally:
            with watch.turn:
                watch.reading = False
                watch.turn.notify_all()

    def _read_page(self, watch: "_Watch", left_s: float) -> int:
        if watch.has_gap:
            self._catch_up(watch)
        asked = watch.position
        page = _entries(self._read(watch.lane, _read_on(watch.lane, asked, left_s * 1000)))
        watch.advance(asked, page)
        for slot, entry_id in watch.take(page):
            self._look_back(watch, slot, entry_id)
        return len(page)

    def _catch_up(self, watch: "_Watch") -> int:
        with watch.catching_up:
            for command in watch.gap_reads():
                watch.take_gap(_entries(self._read(watch.lane, command)))
        return 0

    def _look_back(self, watch: "_Watch", slot: "_Slot", entry_id: str) -> None:
        for command in watch.look_back_reads(slot, entry_id):
            watch.take_back(_entries(self._read(watch.lane, command)))

    def _tolerate(self, watch: "_Watch", read: "Callable[[_Watch], int]") -> int | None:
        """None if the server could not be read just now, which is remembered for the time-out's message."""
        try:
            read_events = read(watch)
        except (BrokerDown, BrokerRefused) as trouble:
            watch.stumbled(trouble)
            return None
        watch.trouble = None
        return read_events


class AsyncClient:
    """As `Client`, for asyncio; belongs to the loop it is first used in.

    `source` is a url or a `redis.asyncio.Redis`. Each lane that tickets wait for is read by one background task, which
    ends with the last waiter.
    """

    def __init__(self, source: "str | redis.asyncio.Redis", *, timeout_s: float = 5.0) -> None:
        self._own = isinstance(source, str)
        if isinstance(source, str):
            source = redis.asyncio.Redis.from_url(
                source, retry=AsyncRetry(NoBackoff(), 0), **_options(timeout_s)
            )
        self._redis = source
        self._link = _AsyncLink(source.connection_pool)
        self._watches = _Watches()
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
        """Ends the readers and the connections this client made; a client that was passed in is left as it is."""
        readers = [watch.reader for watch in self._watches.all() if watch.reader is not None]
        for reader in readers:
            reader.cancel()
        await asyncio.gather(*readers, return_exceptions=True)
        await self._link.aclose()
        if self._own:
            await self._redis.aclose()

    async def submit(
        self, lane: Lane | str, intent: IntentLike | None = None, /, **fields: object
    ) -> "AsyncTicket":
        """As `Client.submit`. If it is cancelled while the reply is awaited, the intent may be queued."""
        batch = _Batch(lane, [_one_intent(intent, fields)])
        await self._send(batch)
        return self._ticket(*batch.the_one())

    async def submit_many(self, lane: Lane | str, intents: Iterable[IntentLike]) -> "list[AsyncTicket]":
        """As `Client.submit_many`."""
        batch = _Batch(lane, intents)
        await self._send(batch)
        return batch.all(self._ticket)

    async def revoke(self, lane: Lane | str, id: str, /, **labels: object) -> "AsyncTicket":
        """As `Client.revoke`."""
        return await self.submit(lane, None, scope=Scope.revoke, target=id, **labels)

    async def wait_all(self, tickets: "Iterable[AsyncTicket]", timeout_s: float = 60.0) -> list[Event]:
        """As `Client.wait_all`."""
        wanted = list(tickets)
        deadline = time.monotonic() + timeout_s
        by_lane = _by_lane(wanted)
        waits = (self._wait_lane(lane, some, deadline) for lane, some in by_lane.items())
        return _outcomes(wanted, timeout_s, await asyncio.gather(*waits))

    async def events(
        self, lane: Lane | str, from_id: str = "0", *, follow: bool = False
    ) -> AsyncIterator[Event]:
        """As `Client.events`."""
        lane = _lane(lane)
        position = from_id
        if from_id == "$":
            newest = _entries(await self._read(lane, _newest(lane)))
            position = newest[0][0] if newest else "0"
        while True:
            page = _entries(await self._read(lane, _read_on(lane, position, BLOCK_MS if follow else 0)))
            for entry_id, flat in page:
                position = entry_id
                yield Event.read(entry_id, _pairs(flat))
            if not page and not follow:
                return

    async def _send(self, batch: "_Batch") -> None:
        for commands in batch.chunks():
            try:
                async with self._senders:
                    batch.book(await self._link.exchange(batch.lane, commands))
            except BrokerDown as down:
                batch.book_failure(down)

    def _ticket(self, lane: Lane, id: str, entry_id: str) -> "AsyncTicket":
        return AsyncTicket(lane, id, entry_id, self._watches.of(lane).slot(id), self)

    async def _read(self, lane: Lane, command: "_Command") -> Any:
        return _only(await self._link.exchange(lane, [command]))

    async def _wait_lane(
        self, lane: Lane, tickets: "list[AsyncTicket]", deadline: float
    ) -> CancelqError | None:
        watch = self._watches.of(lane)
        open_slots = [ticket._slot for ticket in tickets if ticket._slot.outcome is None]
        if not open_slots:
            return None
        gap = watch.aim(min(ticket._since_ms for ticket in tickets))
        watch.waiting += 1
        try:
            signals = {slot.signal() for slot in open_slots}
            if watch.reader is None or watch.reader.done():
                watch.reader = asyncio.create_task(self._read_lane(watch), name=f"cancelq results {lane}")
            if gap:
                await self._tolerate(watch, self._catch_up)
            await asyncio.wait(signals, timeout=max(deadline - time.monotonic(), 0.0))
        finally:
            watch.waiting -= 1
        if watch.failure is not None:
            raise watch.failure
        return watch.trouble

    async def _read_lane(self, watch: "_Watch") -> None:
        """The one reader of a lane. Whatever ends it before its waiters are served is handed to them."""
        watch.failure = None
        try:
            while watch.waiting:
                if await self._tolerate(watch, self._read_page) is None:
                    await asyncio.sleep(RECONNECT_S)
        except Exception as failure:
            watch.fail(failure)

    async def _read_page(self, watch: "_Watch") -> int:
        if watch.has_gap:
            await self._catch_up(watch)
        asked = watch.position
        page = _entries(await self._read(watch.lane, _read_on(watch.lane, asked, BLOCK_MS)))
        watch.advance(asked, page)
        for slot, entry_id in watch.take(page):
            await self._look_back(watch, slot, entry_id)
        return len(page)

    async def _catch_up(self, watch: "_Watch") -> int:
        async with watch.catching_up_async:
            for command in watch.gap_reads():
                watch.take_gap(_entries(await self._read(watch.lane, command)))
        return 0

    async def _look_back(self, watch: "_Watch", slot: "_Slot", entry_id: str) -> None:
        for command in watch.look_back_reads(slot, entry_id):
            watch.take_back(_entries(await self._read(watch.lane, command)))

    async def _tolerate(self, watch: "_Watch", read: Any) -> int | None:
        try:
            read_events: int = await read(watch)
        except (BrokerDown, BrokerRefused) as trouble:
            watch.stumbled(trouble)
            return None
        watch.trouble = None
        return read_events


# ---------------------------------------------------------------------------------------------------------------------
# Tickets


@dataclass(eq=False, slots=True)
class _TicketBase:
    """The receipt of one queued intent: `lane`, its `id`, and the `entry_id` the server gave it."""

    lane: Lane
    id: str
    entry_id: str
    _slot: "_Slot" = field(repr=False)

    @property
    def event(self) -> Event | None:
        """The final event, if a wait has met it yet."""
        outcome = self._slot.outcome
        return outcome if isinstance(outcome, Event) else None

    @property
    def _since_ms(self) -> int:
        return max(_ms(self.entry_id) - CLOCK_STEP_MS, 0)


@dataclass(eq=False, slots=True)
class Ticket(_TicketBase):
    """The receipt of one queued intent: `lane`, its `id`, and the `entry_id` the server gave it."""

    _client: Client = field(repr=False)

    def wait(self, timeout_s: float = 60.0) -> Event:
        """The intent's final event; `OutcomeTimeout` if it does not come in time."""
        return self._client.wait_all([self], timeout_s)[0]


@dataclass(eq=False, slots=True)
class AsyncTicket(_TicketBase):
    """The receipt of one queued intent: `lane`, its `id`, and the `entry_id` the server gave it."""

    _client: AsyncClient = field(repr=False)

    async def outcome(self, timeout_s: float = 60.0) -> Event:
        """The intent's final event; `OutcomeTimeout` if it does not come in time."""
        return (await self._client.wait_all([self], timeout_s))[0]


TicketT = TypeVar("TicketT", bound=_TicketBase)


class _Slot:
    """Where the outcome of one id arrives; shared by all tickets of that id, and gone with the last of them."""

    __slots__ = ("__weakref__", "_signal", "duplicate", "looked_back", "outcome")

    def __init__(self) -> None:
        self.outcome: Event | EventError | None = None
        # An event said that this id was queued before.
        self.duplicate = False
        self.looked_back = False
        self._signal: asyncio.Future[None] | None = None

    def settle(self, outcome: Event | EventError) -> None:
        if self.outcome is None:
            self.outcome = outcome
            self.wake()

    def wake(self) -> None:
        if self._signal is not None and not self._signal.done():
            self._signal.set_result(None)

    def signal(self) -> "asyncio.Future[None]":
        """Done when there is an outcome, or none can be read any more."""
        if self._signal is None or self._signal.done():
            self._signal = asyncio.get_running_loop().create_future()
        return self._signal


def _by_lane(tickets: list[TicketT]) -> dict[Lane, list[TicketT]]:
    lanes: dict[Lane, list[TicketT]] = {}
    for ticket in tickets:
        lanes.setdefault(ticket.lane, []).append(ticket)
    return lanes


def _outcomes(
    tickets: Sequence[_TicketBase], timeout_s: float, troubles: Sequence[CancelqError | None]
) -> list[Event]:
    events: list[Event] = []
    missing: list[_TicketBase] = []
    for ticket in tickets:
        outcome = ticket._slot.outcome
        if isinstance(outcome, EventError):
            raise outcome
        if outcome is None:
            missing.append(ticket)
        else:
            events.append(outcome)
    if not missing:
        return events
    trouble = next((trouble for trouble in troubles if trouble is not None), None)
    hint = f"; {trouble}" if trouble is not None else ""
    if any(ticket._slot.duplicate for ticket in missing):
        hint += "; a duplicate event says that such an id was queued before, perhaps long ago"
    raise OutcomeTimeout([ticket.id for ticket in missing], timeout_s, hint) from trouble


# ---------------------------------------------------------------------------------------------------------------------
# Deciding what to send, and what the answers mean

_Command = Sequence[str | int]


@dataclass(frozen=True, slots=True)
class _Answers:
    """Replies to the first commands of a round trip, in order; refusals are among them as exceptions.

    `lost` is what cut the rest off: those commands may or may not have been executed.
    """

    replies: list[Any]
    lost: BaseException | None = None


class _Batch:
    """Intents on their way into one lane: what to send next, what was confirmed, how it ended."""

    def __init__(self, lane: Lane | str, intents: Iterable[IntentLike]) -> None:
        self.lane = _lane(lane)
        self._prepared = _prepared(intents)
        # One for each intent that was sent: its entry id, None if the server refused it.
        self._entry_ids: list[str | None] = []
        self._unanswered = 0
        self._failure: BaseException | None = None

    def chunks(self) -> Iterator[list[_Command]]:
        """The commands of each round trip; the caller books one before it asks for the next."""
        head = ("XADD", self.lane.inbox, "NOMKSTREAM", "*")
        unsent = iter(self._prepared)
        while self._failure is None and (chunk := list(islice(unsent, CHUNK))):
            self._sent = len(chunk)
            yield [(*head, *[text for pair in fields.items() for text in pair]) for fields in chunk]

    def book(self, answers: _Answers) -> None:
        for reply in answers.replies:
            if isinstance(reply, bytes):
                self._entry_ids.append(reply.decode())
                continue
            self._entry_ids.append(None)
            refused = BrokerRefused(reply) if isinstance(reply, RedisError) else NotAccepted(str(self.lane))
            self._failure = self._failure or refused
        self._unanswered = self._sent - len(answers.replies)
        self._failure = self._failure or answers.lost

    def book_failure(self, failure: BrokerDown) -> None:
        """Nothing of this round trip was sent."""
        self._failure = failure

    def the_one(self) -> tuple[Lane, str, str]:
        """Lane, id and entry id of a batch of one; else the error that says why there is none."""
        if self._unanswered:
            raise Uncertain(str(self.lane), self._prepared[0], self._failure) from self._failure
        if self._failure is not None:
            raise self._failure
        return self.lane, self._prepared[0]["id"], str(self._entry_ids[0])

    def all(self, ticket: Callable[[Lane, str, str], TicketT]) -> list[TicketT]:
        """A ticket for each intent; else the error that says which are missing and why."""
        lane = self.lane
        answered = len(self._entry_ids)
        tickets = [
            ticket(lane, fields["id"], entry_id)
            for fields, entry_id in zip(self._prepared, self._entry_ids, strict=False)
            if entry_id is not None
        ]
        if len(tickets) == len(self._prepared):
            return tickets
        uncertain = self._prepared[answered : answered + self._unanswered]
        if not tickets and not uncertain and self._failure is not None:
            raise self._failure
        refused = [
            fields
            for fields, entry_id in zip(self._prepared, self._entry_ids, strict=False)
            if entry_id is None
        ]
        raise BatchIncomplete(
            str(lane),
            queued=tickets,
            uncertain=uncertain,
            not_queued=[*refused, *self._prepared[answered + self._unanswered :]],
            cause=self._failure,
        ) from self._failure


def _prepared(intents: Iterable[IntentLike]) -> list[dict[str, str]]:
    """The fields of each entry, every one with an id."""
    prepared: list[dict[str, str]] = []
    without_id: list[dict[str, str]] = []
    for position, intent in enumerate(intents):
        try:
            fields = intent.to_fields() if isinstance(intent, Intent) else wire_fields(intent)
            if "id" not in fields:
                fields["id"] = _ID_SHAPE
                without_id.append(fields)
                check_size(fields)
        except IntentError as error:
            raise IntentError(error.field, error.detail, position) from None
        prepared.append(fields)
    _name(without_id)
    return prepared


# As random as a UUID; the letter in front tells ids made here from a desk's own.
_ID_BYTES = 16
_ID_SHAPE = "c-" + "0" * 2 * _ID_BYTES


def _name(intents: list[dict[str, str]]) -> None:
    """Gives each an id of its own; one call for all, as each asks the system for randomness."""
    digits = os.urandom(_ID_BYTES * len(intents)).hex()
    for at, fields in enumerate(intents):
        fields["id"] = f"c-{digits[at * 2 * _ID_BYTES : (at + 1) * 2 * _ID_BYTES]}"


def _one_intent(intent: IntentLike | None, fields: Mapping[str, object]) -> IntentLike:
    if intent is None:
        return fields
    if fields:
        raise TypeError("give an intent or its fields by name, not both")
    return intent


def _lane(lane: Lane | str) -> Lane:
    if isinstance(lane, Lane):
        return lane
    if isinstance(lane, str):
        return Lane.parse(lane)
    raise LaneError(f"a lane is a Lane or text like bitget:main, not {type(lane).__name__}")


# ---------------------------------------------------------------------------------------------------------------------
# Deciding what to read, and what it settles

_Entry = tuple[str, list[bytes]]


class _Watch:
    """What one client has read of one lane's results, and who waits for more of it.

    Covered without a hole is what lies between `start_ms` and `position`. A ticket older than that needs the gap before
    it; a ticket newer than it, while nobody reads, moves the watch forward rather than reading what nobody asked for.
    """

    def __init__(self, lane: Lane) -> None:
        self.lane = lane
        self.position = "0-0"
        self.start_ms: int | None = None
        self.waiting = 0
        self.trouble: CancelqError | None = None
        self._wanted_ms = 0
        self._gap_from = "-"
        self._slots: WeakValueDictionary[str, _Slot] = WeakValueDictionary()
        # Threads: one reads, the others wait for it.
        self.turn = threading.Condition()
        self.reading = False
        self.catching_up = threading.Lock()
        # Tasks: one background reader.
        self.reader: asyncio.Task[None] | None = None
        self.catching_up_async = asyncio.Lock()
        self.failure: Exception | None = None

    def slot(self, id: str) -> _Slot:
        """Where the outcome of that id will arrive."""
        slot = self._slots.get(id)
        if slot is None:
            self._slots[id] = slot = _Slot()
        return slot

    def aim(self, since_ms: int) -> bool:
        """Makes sure that events from then on are read; True if that takes reading a gap."""
        untouched = self.start_ms is None or self.position == f"{self.start_ms}-0"
        if not self.waiting and (self.start_ms is None or untouched or since_ms > _ms(self.position)):
            self.start_ms = self._wanted_ms = since_ms
            self.position = f"{since_ms}-0"
        self._wanted_ms = min(self._wanted_ms, since_ms)
        return self.has_gap

    @property
    def has_gap(self) -> bool:
        return self.start_ms is not None and self._wanted_ms < self.start_ms

    def gap_reads(self) -> Iterator[_Command]:
        """Reads until the gap is closed; the caller hands each page to `take_gap` before it asks for the next."""
        while self.has_gap and self.start_ms is not None:
            wanted_ms, end_ms = self._wanted_ms, self.start_ms
            self._gap_from = str(wanted_ms)
            while self._gap_from:
                yield ("XRANGE", self.lane.results, self._gap_from, str(end_ms), "COUNT", PAGE)
            self.start_ms = min(self.start_ms, wanted_ms)

    def take_gap(self, page: list[_Entry]) -> None:
        self._gap_from = f"({page[-1][0]}" if len(page) == PAGE else ""
        self.take(page)

    def look_back_reads(self, slot: _Slot, entry_id: str) -> Iterator[_Command]:
        """Reads backwards from an event that called the id a duplicate, until its outcome is met or nothing is left."""
        self._back_from = f"({entry_id}"
        for _ in range(LOOK_BACK_PAGES):
            if slot.outcome is not None or not self._back_from:
                return
            yield ("XREVRANGE", self.lane.results, self._back_from, "-", "COUNT", PAGE)

    def take_back(self, page: list[_Entry]) -> None:
        self._back_from = f"({page[-1][0]}" if len(page) == PAGE else ""
        self.take(page)

    def advance(self, asked: str, page: list[_Entry]) -> None:
        """Moves on behind a page, unless somebody aimed elsewhere while it was read."""
        if page and self.position == asked:
            self.position = page[-1][0]

    def take(self, page: list[_Entry]) -> list[tuple[_Slot, str]]:
        """Settles whatever these events settle; returns the ids whose outcome lies further back, with the event."""
        further_back: list[tuple[_Slot, str]] = []
        for entry_id, flat in page:
            fields = _pairs(flat)
            slot = self._slots.get(fields.get(b"id", b"").decode(errors="replace"))
            if slot is None or slot.outcome is not None:
                continue
            if fields.get(b"final") == b"1":
                try:
                    slot.settle(Event.read(entry_id, fields))
                except EventError as unreadable:
                    slot.settle(unreadable)
            elif fields.get(b"status") == b"duplicate":
                slot.duplicate = True
                if not slot.looked_back:
                    slot.looked_back = True
                    further_back.append((slot, entry_id))
        return further_back

    def stumbled(self, trouble: BrokerDown | BrokerRefused) -> None:
        """Remembers why nothing could be read; raises it if trying again is of no use."""
        self.trouble = trouble
        if isinstance(trouble, BrokerRefused) and trouble.code in _HOPELESS:
            raise trouble

    def fail(self, failure: Exception) -> None:
        """Hands what ended the reader to all that wait."""
        self.failure = failure
        for slot in list(self._slots.values()):
            slot.wake()


class _Watches:
    """One watch per lane."""

    def __init__(self) -> None:
        self._by_lane: dict[Lane, _Watch] = {}
        self._adding = threading.Lock()

    def of(self, lane: Lane) -> _Watch:
        watch = self._by_lane.get(lane)
        if watch is None:
            with self._adding:
                watch = self._by_lane.setdefault(lane, _Watch(lane))
        return watch

    def all(self) -> list[_Watch]:
        return list(self._by_lane.values())


def _read_on(lane: Lane, position: str, wait_ms: float) -> _Command:
    """Reads what comes after a position, waiting for it at most that long (and not longer than `BLOCK_MS`)."""
    # BLOCK 0 would wait for ever.
    block = ("BLOCK", min(int(wait_ms), BLOCK_MS)) if wait_ms >= 1 else ()
    return ("XREAD", "COUNT", PAGE, *block, "STREAMS", lane.results, position)


def _newest(lane: Lane) -> _Command:
    return ("XREVRANGE", lane.results, "+", "-", "COUNT", 1)


def _entries(reply: Any) -> list[_Entry]:
    """The entries of one stream, whichever command (XRANGE, XREVRANGE, XREAD) and protocol (2, 3) they came by."""
    if not reply:
        return []
    if isinstance(reply, dict):
        (reply,) = reply.values()
    elif len(reply) == 1 and isinstance(reply[0][1][0], list):
        reply = reply[0][1]
    return [(entry_id.decode(), flat) for entry_id, flat in reply]


def _pairs(flat: list[bytes]) -> dict[bytes, bytes]:
    texts = iter(flat)
    return dict(zip(texts, texts, strict=False))


def _ms(entry_id: str) -> int:
    return int(entry_id.partition("-")[0])


def _only(answers: _Answers) -> Any:
    """The reply to the one command of a read."""
    if answers.lost is not None:
        raise BrokerDown(answers.lost)
    (reply,) = answers.replies
    if isinstance(reply, RedisError):
        raise BrokerRefused(reply)
    return reply


# ---------------------------------------------------------------------------------------------------------------------
# Carrying bytes


def _options(timeout_s: float) -> dict[str, Any]:
    # Protocol 2 needs no greeting, which is one round trip and one permission less; both are understood.
    return {"protocol": 2, "socket_timeout": timeout_s, "socket_connect_timeout": timeout_s}


class _Link:
    """One round trip of any number of commands to the server that holds a lane, each sent once."""

    def __init__(self, pool: "redis.ConnectionPool") -> None:
        self._pool = pool
        self._moved: dict[Lane, redis.ConnectionPool] = {}

    def close(self) -> None:
        for pool in self._moved.values():
            pool.disconnect()

    def exchange(self, lane: Lane, commands: Sequence[_Command]) -> _Answers:
        """`BrokerDown` if nothing was sent."""
        for _ in range(MAX_REDIRECTS):
            pool = self._moved.get(lane, self._pool)
            answers = self._round_trip(pool, commands)
            moved = _moved(answers)
            if moved is None:
                return answers
            self._moved[lane] = redis.ConnectionPool(**_elsewhere(pool.connection_kwargs, moved))
        return answers

    def _round_trip(self, pool: "redis.ConnectionPool", commands: Sequence[_Command]) -> _Answers:
        answers = _Answers([])
        with self._connection(pool) as connection:
            try:
                connection.send_packed_command(connection.pack_commands(commands))
                for _ in commands:
                    try:
                        reply = connection.read_response(disable_decoding=True, disconnect_on_error=False)
                    except _STATED as refused:
                        reply = refused
                    answers.replies.append(reply)
            except (RedisError, OSError) as lost:
                connection.disconnect()
                return _Answers(answers.replies, lost)
            except BaseException:
                # An interrupt between command and reply: the next user would read our replies.
                connection.disconnect()
                raise
        return answers

    @contextmanager
    def _connection(self, pool: "redis.ConnectionPool") -> Iterator[Any]:
        try:
            connection = pool.get_connection()
        except (RedisError, OSError) as down:
            raise BrokerDown(down) from down
        try:
            yield connection
        finally:
            pool.release(connection)


class _AsyncLink:
    """As `_Link`, with awaits."""

    def __init__(self, pool: "redis.asyncio.ConnectionPool") -> None:
        self._pool = pool
        self._moved: dict[Lane, redis.asyncio.ConnectionPool] = {}

    async def aclose(self) -> None:
        for pool in self._moved.values():
            await pool.disconnect()

    async def exchange(self, lane: Lane, commands: Sequence[_Command]) -> _Answers:
        """`BrokerDown` if nothing was sent."""
        for _ in range(MAX_REDIRECTS):
            pool = self._moved.get(lane, self._pool)
            answers = await self._round_trip(pool, commands)
            moved = _moved(answers)
            if moved is None:
                return answers
            self._moved[lane] = redis.asyncio.ConnectionPool(**_elsewhere(pool.connection_kwargs, moved))
        return answers

    async def _round_trip(
        self, pool: "redis.asyncio.ConnectionPool", commands: Sequence[_Command]
    ) -> _Answers:
        answers = _Answers([])
        async with self._connection(pool) as connection:
            try:
                # One time-out for all replies: one each costs more than reading them.
                async with asyncio.timeout(connection.socket_timeout):
                    await connection.send_packed_command(connection.pack_commands(commands))
                    for _ in commands:
                        try:
                            reply = await connection.read_response(
                                disable_decoding=True, timeout=math.inf, disconnect_on_error=False
                            )
                        except _STATED as refused:
                            reply = refused
                        answers.replies.append(reply)
            except (RedisError, OSError) as lost:
                await connection.disconnect(nowait=True)
                return _Answers(answers.replies, lost)
            except BaseException:
                await connection.disconnect(nowait=True)
                raise
        return answers

    @asynccontextmanager
    async def _connection(self, pool: "redis.asyncio.ConnectionPool") -> AsyncIterator[Any]:
        try:
            connection = await pool.get_connection()
        except (RedisError, OSError) as down:
            raise BrokerDown(down) from down
        try:
            yield connection
        finally:
            await pool.release(connection)


def _moved(answers: _Answers) -> MovedError | None:
    """Where a cluster says the lane lives, if it executed nothing here. A half-moved batch is left to its caller."""
    replies = answers.replies
    if answers.lost is None and replies and all(isinstance(reply, MovedError) for reply in replies):
        last: MovedError = replies[-1]
        return last
    return None


def _elsewhere(connection_kwargs: Mapping[str, Any], moved: MovedError) -> dict[str, Any]:
    # A node that does not know its own name leaves the host empty: the host it was reached by.
    return {**connection_kwargs, "host": moved.host or connection_kwargs["host"], "port": moved.port}
