"""The reading side: what became of the intents of one or many lanes, each event at least once, over restarts.

    from cancelq.results import ResultsReader

    with ResultsReader(url, ["bitget:main", "bybit:main"], group="pnl", consumer="pnl-1") as reader:
        for event in reader:
            book(event)

All readers of a group share the events among them; two groups do not touch each other. An event counts as handled when
the next one is asked for, and is acknowledged soon after. What a reader that died had in hand comes again: to a reader
of its name at once, to the others of the group after `claim_after_s`. So an event may come twice (after a crash the
last `page` of them), and a handler has to bear that: `event.entry_id` is the same both times.

`AsyncResultsReader` is the same for asyncio. What is asked of the server is decided in `_Group`, which does no I/O.
"""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Self

import redis
import redis.asyncio

from cancelq import broker, broker_async
from cancelq.contract import Event, Lane
from cancelq.errors import BrokerDown, BrokerRefused, CancelqError, EventError, GroupMissing, NoResults
from cancelq.link import AsyncLink, Command, Link, block_ms, options

logger = logging.getLogger("cancelq.results")

# Pause before a reader that lost its connection tries again.
RECONNECT_S = 0.2
# How long each lane is waited at where one read cannot wait for several: on a cluster.
TURN_MS = 100
# How often at least it is looked what dead readers left.
CLAIM_EVERY_S = 30.0

# Refusals that waiting does not mend.
_HOPELESS = frozenset({"NOPERM", "NOAUTH", "WRONGPASS", "WRONGTYPE"})

# A command, and a lane of the server that it is for; sent back: the server's reply, or its error thrown.
_Ask = tuple[Lane, Command]
_Steps = Generator[_Ask, Any, list["Delivery"]]
OnUnreadable = Callable[[Lane, EventError], None]


@dataclass(frozen=True, slots=True)
class Delivery:
    """One event that is to be handled and acknowledged."""

    lane: Lane
    event: Event

    @property
    def entry_id(self) -> str:
        return self.event.entry_id


def _tell_unreadable(lane: Lane, error: EventError) -> None:
    logger.warning("%s: passed over: %s", lane, error)


class ResultsReader:
    """Reads the results of `lanes` as one `consumer` of a `group`; for one thread.

    source          a url, or a `redis.Redis`; any node of a cluster will do
    consumer        this reader's name: one for each process of the group, the same after a restart
    start           where a group begins that does not exist yet: "$" (latest) with what comes from now on, "0" with all
                    there is, or after an entry id. A group that exists goes on where it stands
    claim_after_s   how long an event may be in hand before another reader takes it for abandoned; more than the
                    slowest handler takes
    page            events that are fetched, and acknowledged, at once
    on_unreadable   called with an entry that is no event this version can read, which is then passed over; left out, a
                    warning is logged

    A lost connection is picked up again. Raises `NoResults` for a lane that no worker has ever served, `GroupMissing`
    where the group has to be made by an operator, `BrokerDown` if the server cannot be reached at the start, and
    `BrokerRefused` for what waiting does not mend.
    """

    def __init__(
        self,
        source: "str | redis.Redis",
        lanes: Lane | str | Iterable[Lane | str],
        *,
        group: str,
        consumer: str,
        start: str = "$",
        claim_after_s: float = 60.0,
        page: int = 100,
        timeout_s: float = 5.0,
        on_unreadable: OnUnreadable = _tell_unreadable,
    ) -> None:
        self._group = _Group(_lanes(lanes), group, consumer, start, claim_after_s, page, on_unreadable)
        self._own = isinstance(source, str)
        if isinstance(source, str):
            source = broker.client(source, **options(timeout_s))
        self._redis = source
        self._link = Link(source.connection_pool)
        self._block_ms = block_ms(source.connection_pool)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def __iter__(self) -> Iterator[Event]:
        """Events as they come, without end until `stop`. The one before counts as handled when the next is asked for;
        whatever ends the loop leaves the last one unhandled, and it comes again in the next."""
        self._group.begin()
        while not self._group.stopped:
            for delivery in self.read():
                yield delivery.event
                self._group.handled(delivery)
            self._acknowledge()

    def run(self, handle: Callable[[Event], None]) -> None:
        """Has every event handled, until `stop` is called or `handle` raises: then its event comes again."""
        for event in self:
            handle(event)

    def stop(self) -> None:
        """Ends the iteration after the events in hand, at the latest when its read comes back (2 s)."""
        self._group.stopped = True

    def read(self, wait_s: float = 2.0) -> list[Delivery]:
        """The next events, oldest first; waits for some at most that long. They are this reader's until `ack`."""
        found = self._carry_out(self._group.read(min(wait_s * 1000, self._block_ms)))
        return [] if found is None else found

    def ack(self, deliveries: Iterable[Delivery]) -> None:
        """These are handled and do not come again, unless the connection is lost just now."""
        for delivery in deliveries:
            self._group.handled(delivery)
        self._acknowledge()

    def close(self) -> None:
        """Acknowledges what was handled, and ends the connections this reader made."""
        try:
            self._acknowledge()
        finally:
            self._link.close()
            if self._own:
                self._redis.close()

    def _acknowledge(self) -> None:
        self._carry_out(self._group.acknowledge())

    def _carry_out(self, steps: _Steps) -> list[Delivery] | None:
        """What the steps found; None if the server was away."""
        try:
            lane, command = next(steps)
            while True:
                try:
                    reply = self._link.exchange(lane, [command]).only()
                except CancelqError as trouble:
                    lane, command = steps.throw(trouble)
                else:
                    lane, command = steps.send(reply)
        except StopIteration as done:
            found: list[Delivery] = done.value
            return found
        except (BrokerDown, BrokerRefused) as trouble:
            self._group.stumbled(trouble)
            time.sleep(RECONNECT_S)
            return None


class AsyncResultsReader:
    """As `ResultsReader`, for asyncio; for one task. `source` is a url or a `redis.asyncio.Redis`."""

    def __init__(
        self,
        source: "str | redis.asyncio.Redis",
        lanes: Lane | str | Iterable[Lane | str],
        *,
        group: str,
        consumer: str,
        start: str = "$",
        claim_after_s: float = 60.0,
        page: int = 100,
        timeout_s: float = 5.0,
        on_unreadable: OnUnreadable = _tell_unreadable,
    ) -> None:
        self._group = _Group(_lanes(lanes), group, consumer, start, claim_after_s, page, on_unreadable)
        self._own = isinstance(source, str)
        if isinstance(source, str):
            source = broker_async.client(source, **options(timeout_s))
        self._redis = source
        self._link = AsyncLink(source.connection_pool)
        self._block_ms = block_ms(source.connection_pool)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.aclose()

    async def __aiter__(self) -> AsyncIterator[Event]:
        """As iterating a `ResultsReader`."""
        self._group.begin()
        while not self._group.stopped:
            for delivery in await self.read():
                yield delivery.event
                self._group.handled(delivery)
            await self._acknowledge()

    async def run(self, handle: Callable[[Event], Awaitable[None]]) -> None:
        """As `ResultsReader.run`."""
        async for event in self:
            await handle(event)

    def stop(self) -> None:
        """As `ResultsReader.stop`."""
        self._group.stopped = True

    async def read(self, wait_s: float = 2.0) -> list[Delivery]:
        """As `ResultsReader.read`."""
        found = await self._carry_out(self._group.read(min(wait_s * 1000, self._block_ms)))
        return [] if found is None else found

    async def ack(self, deliveries: Iterable[Delivery]) -> None:
        """As `ResultsReader.ack`."""
        for delivery in deliveries:
            self._group.handled(delivery)
        await self._acknowledge()

    async def aclose(self) -> None:
        """As `ResultsReader.close`."""
        try:
            await self._acknowledge()
        finally:
            await self._link.aclose()
            if self._own:
                await self._redis.aclose()

    async def _acknowledge(self) -> None:
        await self._carry_out(self._group.acknowledge())

    async def _carry_out(self, steps: _Steps) -> list[Delivery] | None:
        try:
            lane, command = next(steps)
            while True:
                try:
                    reply = (await self._link.exchange(lane, [command])).only()
                except CancelqError as trouble:
                    lane, command = steps.throw(trouble)
                else:
                    lane, command = steps.send(reply)
        except StopIteration as done:
            found: list[Delivery] = done.value
            return found
        except (BrokerDown, BrokerRefused) as trouble:
            self._group.stumbled(trouble)
            await asyncio.sleep(RECONNECT_S)
            return None
        finally:
            steps.close()


class _Group:
    """What one reader asks of the server, and what it knows of its place. No I/O.

    A reader's own list of what it was given and has not acknowledged is read first, at the start and after every lost
    reply: the server may have given more than arrived.
    """

    def __init__(
        self,
        lanes: Sequence[Lane],
        group: str,
        consumer: str,
        start: str,
        claim_after_s: float,
        page: int,
        on_unreadable: OnUnreadable,
    ) -> None:
        self.stopped = False
        self._lanes = lanes
        self._by_stream = {lane.results.encode(): lane for lane in lanes}
        self._group = group
        self._consumer = consumer
        # Where a group is made, lane by lane; what has been read since, should the server lose the group.
        self._start = dict.fromkeys(lanes, start)
        self._claim_after_ms = max(1, int(claim_after_s * 1000))
        self._claim_every_s = min(CLAIM_EVERY_S, claim_after_s / 2)
        self._claim_at_s = 0.0
        self._page = page
        self._on_unreadable = on_unreadable
        # Lanes of which this reader's own list is yet to be read, and from where.
        self._own: dict[Lane, str] = dict.fromkeys(lanes, "0")
        self._in_hand: dict[Lane, dict[str, None]] = {lane: {} for lane in lanes}
        self._handled: dict[Lane, list[str]] = {lane: [] for lane in lanes}
        self._one_read = True
        self._met = False
        self._trouble = ""

    def begin(self) -> None:
        """What was handed out and not handled is forgotten here, and so comes again."""
        self._in_hand = {lane: dict.fromkeys(ids) for lane, ids in self._handled.items()}
        self._own = dict.fromkeys(self._lanes, "0")

    def read(self, wait_ms: float) -> _Steps:
        """The next events: what is this reader's already, what the dead left, what is new."""
        while True:
            try:
                found = yield from self._own_list()
                if not found:
                    found = yield from self._left_by_the_dead()
                if not found:
                    found = yield from self._new(wait_ms)
                self._met, self._trouble = True, ""
                return found
            except BrokerRefused as refused:
                if refused.code != "NOGROUP":
                    raise
            yield from self._make_groups()

    def acknowledge(self) -> _Steps:
        """Acknowledges what was handled."""
        for lane, ids in self._handled.items():
            while ids:
                some = ids[: self._page]
                yield lane, ("XACK", lane.results, self._group, *some)
                del ids[: len(some)]
                for id_ in some:
                    self._in_hand[lane].pop(id_, None)
        return []

    def handled(self, delivery: Delivery) -> None:
        self._handled[delivery.lane].append(delivery.entry_id)

    def stumbled(self, trouble: BrokerDown | BrokerRefused) -> None:
        """After a lost reply or a refusal: raises it if trying again is of no use."""
        if not self._met or (isinstance(trouble, BrokerRefused) and trouble.code in _HOPELESS):
            raise trouble
        if str(trouble) != self._trouble:
            logger.warning("reading is interrupted: %s", trouble)
        self._trouble = str(trouble)
        self._own = dict.fromkeys(self._lanes, "0")

    def _own_list(self) -> _Steps:
        for lane, after in list(self._own.items()):
            reply = yield lane, (*self._reading(), "STREAMS", lane.results, after)
            entries = [entry for _, some in _streams(reply) for entry in some]
            if not entries:
                del self._own[lane]
                continue
            self._own[lane] = entries[-1][0].decode()
            found = yield from self._deliveries(lane, entries)
            if found:
                return found
        return []

    def _left_by_the_dead(self) -> _Steps:
        now_s = time.monotonic()
        if now_s < self._claim_at_s:
            return []
        for lane in self._lanes:
            at = "0-0"
            while True:
                claim = ("XAUTOCLAIM", lane.results, self._group, self._consumer, str(self._claim_after_ms), at)
                reply = yield lane, (*claim, "COUNT", str(self._page))
                found = yield from self._deliveries(lane, reply[1])
                if found:
                    return found
                at = reply[0].decode()
                if at == "0-0":
                    break
        self._claim_at_s = now_s + self._claim_every_s
        return []

    def _new(self, wait_ms: float) -> _Steps:
        if self._one_read:
            try:
                return (yield from self._new_of(self._lanes, wait_ms))
            except BrokerRefused as refused:
                if refused.code != "CROSSSLOT":
                    raise
                self._one_read = False
        for lane in self._lanes:
            found = yield from self._new_of([lane], min(wait_ms, TURN_MS))
            if found:
                return found
        return []

    def _new_of(self, lanes: Sequence[Lane], wait_ms: float) -> _Steps:
        block = ("BLOCK", str(int(wait_ms))) if wait_ms >= 1 else ()  # BLOCK 0 would wait for ever
        streams = [lane.results for lane in lanes]
        reply = yield lanes[0], (*self._reading(), *block, "STREAMS", *streams, *([">"] * len(streams)))
        found: list[Delivery] = []
        for stream, entries in _streams(reply):
            found += yield from self._deliveries(self._by_stream[stream], entries)
        return sorted(found, key=lambda delivery: _order(delivery.entry_id))

    def _deliveries(self, lane: Lane, entries: Sequence[Any]) -> _Steps:
        """The events among these entries that this reader does not have in hand; what is none is acknowledged."""
        found, in_hand, passed = [], self._in_hand[lane], []
        for raw_id, flat in entries:
            entry_id = raw_id.decode()
            if entry_id in in_hand:
                continue
            self._start[lane] = max(self._start[lane], entry_id, key=_order)
            texts = iter(flat or ())
            fields = dict(zip(texts, texts, strict=False))
            try:
                event = Event.read(entry_id, fields)
            except EventError as error:
                if flat:  # else it was trimmed before it was handled
                    self._on_unreadable(lane, error)
                passed.append(entry_id)
                continue
            in_hand[entry_id] = None
            found.append(Delivery(lane, event))
        if passed:
            yield lane, ("XACK", lane.results, self._group, *passed)
        return found

    def _make_groups(self) -> _Steps:
        for lane in self._lanes:
            command = ("XGROUP", "CREATE", lane.results, self._group, self._start[lane])
            try:
                yield lane, command
            except BrokerRefused as refused:
                if refused.code == "NOPERM":
                    raise GroupMissing(str(lane), self._group, " ".join(_quoted(command))) from refused
                if "requires the key to exist" in str(refused) and not self._met:
                    raise NoResults(str(lane)) from refused
                if refused.code != "BUSYGROUP":
                    raise
        return []

    def _reading(self) -> Command:
        return ("XREADGROUP", "GROUP", self._group, self._consumer, "COUNT", str(self._page))


def _lanes(lanes: Lane | str | Iterable[Lane | str]) -> tuple[Lane, ...]:
    some = [lanes] if isinstance(lanes, Lane | str) else list(lanes)
    if not some:
        raise ValueError("a reader needs at least one lane")
    return tuple(dict.fromkeys(lane if isinstance(lane, Lane) else Lane.parse(lane) for lane in some))


def _streams(reply: Any) -> list[tuple[bytes, list[Any]]]:
    """The entries by stream, whichever protocol brought them."""
    if not reply:
        return []
    return list(reply.items()) if isinstance(reply, dict) else [(stream, entries) for stream, entries in reply]


def _order(position: str) -> tuple[int, int]:
    """Entry ids in their order; "$" comes before all of them, as whatever was read is behind it."""
    ms, _, seq = position.partition("-")
    return (int(ms), int(seq or 0)) if ms.isdigit() else (-1, 0)


def _quoted(words: Iterable[str]) -> Iterator[str]:
    return (f"'{word}'" if "{" in word or "$" in word else word for word in words)
