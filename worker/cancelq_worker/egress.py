"""The limits a venue counts per address: units are taken ahead, so that no call waits for them.

A venue may count one call in several buckets (`egress_stock.py`): a call takes a unit of each.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import redis.asyncio as aioredis
import structlog
from redis.exceptions import RedisError

from cancelq_worker.clocks import monotonic_s
from cancelq_worker.egress_stock import CLOSED_AGAIN_MOST_NS, Stock, Wake
from cancelq_worker.scripts import NOT_WAITED_FOR, SCRIPTS, Durability
from cancelq_worker.venues.port import Bucket

log = structlog.get_logger("cancelq.egress")

URGENT_SHARE = 20  # a twentieth of a bucket is kept for each permit of `urgent_reserve`, at most a fifth
ROUND_US = 5_000  # how fast a unit goes round for which several processes wait
TELL_S, TELL_PAUSE_S = 8.0, 0.2  # how long, and how often, Redis is told that the address is closed
SOCKET_LEASE_US = 15_000_000  # longer than a connection is opened, or stays open that cannot be held any more


@dataclass(frozen=True, slots=True)
class Ticket:
    """One call's unit in each of its buckets."""

    units: tuple[tuple[Stock, int], ...]


@dataclass(slots=True)
class Reservation:
    """Units set aside: bucket → unit and when it was asked for. `urgent`: buckets whose unit is for urgent calls."""

    units: dict[str, tuple[int, int]]
    urgent: set[str] = field(default_factory=set)

    def covers(self, buckets: Iterable[str]) -> bool:
        """Whether a call may be made that takes a unit of each of these; any call, if none of them is `urgent`."""
        return all(name in self.units for name in buckets)

    def only_urgent(self, buckets: Iterable[str]) -> bool:
        """Whether a call that takes a unit of each of these must be urgent."""
        return not self.urgent.isdisjoint(buckets)


class Shares:
    """Which of a lane's routes a reservation leaves no call for, and which for urgent calls alone."""

    def __init__(self, addresses: Mapping[str, Sequence[str]]) -> None:
        """`addresses`: by route, the buckets of the address that its calls take a unit of."""
        self._addresses = addresses
        self._known: dict[tuple[frozenset[str], frozenset[str]], tuple[tuple[str, ...], tuple[str, ...]]] = {}

    def without(self, reserved: Reservation) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Routes that it does not cover, and those whose call must be urgent. Every round asks, and mostly the same."""
        asked = frozenset(reserved.units), frozenset(reserved.urgent)
        if (known := self._known.get(asked)) is None:
            closed = tuple(name for name, buckets in self._addresses.items() if not reserved.covers(buckets))
            kept = tuple(name for name, buckets in self._addresses.items() if reserved.only_urgent(buckets))
            known = self._known[asked] = closed, kept
        return known


class Egress:
    """This process' stock of the limits one venue counts for our address."""

    def __init__(
        self,
        client: aioredis.Redis,
        name: str,
        buckets: Sequence[Bucket],
        *,
        urgent_reserve: int = 0,
        durability: Durability = NOT_WAITED_FOR,
        leapt_us: int | None = 0,
        vouched_us: Callable[[], int] | None = None,
    ) -> None:
        """`leapt_us`: by how much the server's clock had gone ahead before; None: nobody watches that clock.
        `vouched_us`: for how long it has been known how that clock goes; None: nobody knows."""

        def key(bucket: Bucket) -> str:
            return f"cancelq:{{egress:{name}}}:{bucket.name}"

        def stock(bucket: Bucket, kept: int) -> Stock:
            return Stock(client, key(bucket), bucket, kept, durability, vouched_us, self.close)

        self._stocks = {b.name: stock(b, _kept(b, urgent_reserve)) for b in buckets if not b.rare}
        self._rare = {b.name: stock(b, 0) for b in buckets if b.rare and b.window_us}
        self._sockets = {b.name: (key(b), b.units) for b in buckets if not b.window_us}
        self._client = client
        self._leapt_us = leapt_us
        self.limits = [(name, bucket.name) for bucket in buckets]  # as `address_status` takes them

    def reserve(self, wake: Wake | None = None) -> Reservation:
        """Sets a unit of every bucket aside that has one, for a call of which it is not known yet what it will be.
        Asks for more in the background where a stock runs low. `wake`: who reserves, as `wait` knows it."""
        next(iter(self._stocks.values())).listen()  # one hears for all
        reserved = Reservation({})
        for name, stock in self._stocks.items():
            if (unit := stock.pop(wake)) is not None:
                reserved.units[name] = unit
            elif (unit := stock.pop_urgent()) is not None:
                reserved.units[name] = unit
                reserved.urgent.add(name)
        return reserved

    async def reserve_soon(self, buckets: Sequence[str], within_s: float) -> Reservation:
        """Units of these for a call that no lane's round makes, as soon as there are any: such calls are few, and go
        before all lanes that wait. It covers them unless there were none in that time."""
        reserved = self.reserve()
        if reserved.covers(buckets):
            return reserved
        self.release(reserved)
        await self.fill()
        came, begun_s = asyncio.Event(), monotonic_s()
        try:
            while True:
                reserved = self.reserve(came.set)
                left_s = within_s - (monotonic_s() - begun_s)
                if reserved.covers(buckets) or left_s <= 0 or self.held_ms > left_s * 1000:
                    return reserved
                came.clear()
                for name in buckets:
                    if name not in reserved.units:
                        self._stocks[name].wait(came.set, first=True)
                self.release(reserved)
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(left_s):
                        await came.wait()
        finally:  # also where its lane ends meanwhile
            self.wait_no_more(came.set)

    def lacking(self, reserved: Reservation) -> set[str]:
        """The buckets of which it holds no unit that any call may use."""
        return {name for name in self._stocks if name not in reserved.units or name in reserved.urgent}

    def use(self, reserved: Reservation, buckets: Sequence[str]) -> Ticket:
        """The call is made and takes a unit of these; the others go back. They must be among what was reserved."""
        ticket = Ticket(tuple((self._stocks[name], reserved.units.pop(name)[0]) for name in buckets))
        for stock, unit in ticket.units:
            stock.use(unit)
        self.release(reserved)
        return ticket

    def wait(self, buckets: Collection[str], wake: Wake, urgent: Reservation | None = None) -> None:
        """Has `wake` called once, as soon as a unit of one of these is there, which is then kept until it is reserved:
        in turn, one lane for a unit. Looking for itself, each of a thousand lanes would make a trip to Redis every few
        milliseconds. `urgent`: what was set aside for an urgent call that could not be made; a unit for urgent calls of
        what it lacks wakes, too."""
        for name, stock in self._stocks.items():
            if name in buckets:
                stock.wait(wake, urgent=urgent is not None and name not in urgent.units)

    def wait_no_more(self, wake: Wake) -> None:
        """Whoever waited, or was woken, reserves nothing."""
        for stock in self._stocks.values():
            stock.wait_no_more(wake)

    def release(self, reserved: Reservation) -> None:
        """There is no call."""
        for name, unit in reserved.units.items():
            self._stocks[name].put_back(unit, urgent=name in reserved.urgent)
        reserved.units.clear()

    def is_closed(self, ticket: Ticket) -> bool:
        """Whether the address is closed: it was not when these units were handed out, and the call must not be made."""
        return any(stock.held_ms for stock, _ in ticket.units)

    def unuse(self, ticket: Ticket) -> None:
        """The call was not made."""
        for stock, unit in ticket.units:
            stock.unuse(unit)

    def keep_ready(self) -> None:
        """Called now and then: an idle lane must not have to wait for its first call's units."""
        for stock in self._stocks.values():
            stock.keep_ready()

    def ended(self, ticket: Ticket, at_ns: int, *, answered: bool) -> None:
        """The call is over since `at_ns` of the monotonic clock. `answered`: and not refused for its address."""
        for stock, unit in ticket.units:
            stock.ended(unit, at_ns, answered)

    @property
    def held_ms(self) -> int:
        """For how long the address is closed."""
        return max(stock.held_ms for stock in self._stocks.values())

    @property
    def look_again_us(self) -> int:
        """When a lane that found no unit is to look for itself, 0 if it will be told: while the address is closed, and
        while one call of each bucket goes alone. A call takes a unit of several buckets, and of each there is but one:
        it goes round among all processes until one has them all, also by those that have nothing to send."""
        if self.held_ms > 0:
            return max(ROUND_US, min(self.held_ms * 1000, CLOSED_AGAIN_MOST_NS // 1000))
        return ROUND_US if any(stock.probing for stock in self._stocks.values()) else 0

    async def fill(self) -> None:
        """Fresh units in every bucket."""
        await asyncio.gather(*(stock.fill() for stock in self._stocks.values()))

    def close(self, for_ms: int) -> None:
        """This process makes no further call; `hold` tells the others."""
        for stock in self._stocks.values():
            stock.close(for_ms)

    async def hold(self, for_ms: int, detail: str, refused: Ticket | None = None) -> None:
        """Closes the address for every process that leaves from it, as soon as Redis has heard of it; `close` does so
        for this one. If that takes longer than `TELL_S`, the others find out for themselves. `refused`: of a call whose
        refusal does not say for how long; then for longer with each one in a row, at least for `for_ms`."""
        for stock in self._stocks.values():
            stock.telling += 1
        try:
            await self._tell(for_ms, detail, refused.units[0][0] if refused else None)
        finally:
            for stock in self._stocks.values():
                stock.telling -= 1

    async def _tell(self, for_ms: int, detail: str, backs_off: Stock | None) -> None:
        begun_s = monotonic_s()
        while (left_ms := for_ms - int((monotonic_s() - begun_s) * 1000)) > 0:
            try:
                if backs_off:
                    for_ms = left_ms = max(left_ms, await backs_off.back_off(detail))
                    begun_s, backs_off = monotonic_s(), None
                await asyncio.gather(*(stock.hold(left_ms, detail) for stock in self._stocks.values()))
                return
            except (RedisError, OSError) as error:
                if monotonic_s() - begun_s > TELL_S:
                    log.error("other processes were not told that the address is closed", why=str(error)[:200])
                    return
            await asyncio.sleep(TELL_PAUSE_S)

    async def ahead(self, leapt_us: int) -> None:
        """The server's clock was found to have gone ahead, by so much since this process began: units became free that
        much too early."""
        if self._leapt_us is None or leapt_us <= self._leapt_us:
            return
        by_us, self._leapt_us = leapt_us - self._leapt_us, leapt_us
        try:
            await asyncio.gather(*(s.ahead(by_us) for s in (*self._stocks.values(), *self._rare.values())))
        except (RedisError, OSError):
            self._leapt_us -= by_us  # with the next one; without Redis nothing is handed out

    async def leave(self) -> None:
        """Gives back what is held, as this process ends: above all the unit of a call that was to go alone."""
        await asyncio.gather(*(stock.leave() for stock in self._stocks.values()))

    async def rarely(self, buckets: Sequence[str]) -> Ticket | None:
        """Units of buckets too small to keep a stock of, for a call that is made at once; waits a moment for them. None
        if they cannot be had. To be returned by `rare_ended`."""
        units: list[tuple[Stock, int]] = []
        for name in buckets:
            unit = await self._rare[name].one()
            if unit is None:
                for stock, had in units:
                    stock.unuse(had)
                    await stock.report()
                return None
            self._rare[name].use(unit)
            units.append((self._rare[name], unit))
        return Ticket(tuple(units))

    async def rare_ended(self, ticket: Ticket, at_ns: int | None, *, answered: bool) -> None:
        """The call is over since `at_ns`, or was not made (None)."""
        for stock, unit in ticket.units:
            if at_ns is None:
                stock.unuse(unit)
            else:
                stock.ended(unit, at_ns, answered)
            await stock.report()

    async def hold_socket(self, bucket: str, holder: str) -> bool:
        """Whether one of the bucket's open connections is the holder's, from now on for a lease; always, if the venue
        counts none (""). Raises RedisError, OSError."""
        return not bucket or await self._socket(bucket, holder, "hold")

    async def leave_socket(self, bucket: str, holder: str) -> None:
        """The holder's connection is closed. Raises RedisError, OSError."""
        if bucket:
            await self._socket(bucket, holder, "leave")

    async def _socket(self, bucket: str, holder: str, what: str) -> bool:
        key, places = self._sockets[bucket]
        args = [holder, SOCKET_LEASE_US, places, what]
        return bool(await SCRIPTS.run(self._client, "sockets", [key, f"{key}:note"], args))


def _kept(bucket: Bucket, urgent_reserve: int) -> int:
    """Units of a bucket that only urgent calls may use."""
    return min(bucket.units // 5, urgent_reserve * max(1, bucket.units // URGENT_SHARE))
