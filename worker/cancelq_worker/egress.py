"""The limits a venue counts per address: units are taken ahead, so that no call waits for them.

A unit may be used within two seconds; what was not used is given back, and what was used is reported with the end of
its call (`lua/egress.lua`). A venue may count one call in several buckets: a call takes a unit of each.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

import redis.asyncio as aioredis
import structlog
from redis.exceptions import RedisError

from cancelq_worker.clocks import monotonic_ns, monotonic_s
from cancelq_worker.scripts import NOT_WAITED_FOR, SCRIPTS, Durability
from cancelq_worker.venues.port import Bucket

log = structlog.get_logger("cancelq.egress")

UNIT_LIVES_NS = 2_000_000_000
LONGEST_CALL_US = 10_000_000
SILENT_EXTRA_US = 1_000_000  # a call without an answer may have arrived a little after it was given up
STOCK, LEAST = 32, 4  # units a process holds of one bucket, at most and when it hardly calls
URGENT_STOCK = 3  # more of them that only urgent calls may use
URGENT_SHARE = 20  # a twentieth of a bucket is kept for each permit of `urgent_reserve`, at most a fifth
RARE_TRIES, RARE_PAUSE_S = 15, 0.1
AGAIN_NS = 10_000_000  # between two questions of which the first brought nothing
CLOSED_AGAIN_NS = 50_000_000  # the same, while the address is closed, or another's call goes alone
ROUND_US = 5_000  # how fast a unit goes round for which several processes wait
CLOSED_AGAIN_MOST_NS = 500_000_000  # the same, where lanes wait for an address that is closed for long
REPORT_NS = 250_000_000
REPORT_MOST = 1_000
TELL_S, TELL_PAUSE_S = 8.0, 0.2  # how long, and how often, Redis is told that the address is closed


Wake = Callable[[], None]


@dataclass(frozen=True, slots=True)
class Ticket:
    """One call's unit in each of its buckets."""

    units: tuple[tuple[_Stock, int], ...]


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

        def stock(bucket: Bucket, kept: int) -> _Stock:
            return _Stock(client, key(bucket), bucket, kept, durability, vouched_us)

        self._stocks = {b.name: stock(b, _kept(b, urgent_reserve)) for b in buckets if not b.rare}
        self._rare = {b.name: stock(b, 0) for b in buckets if b.rare}
        self._leapt_us = leapt_us

    def reserve(self, wake: Wake | None = None) -> Reservation:
        """Sets a unit of every bucket aside that has one, for a call of which it is not known yet what it will be.
        Asks for more in the background where a stock runs low. `wake`: who reserves, as `wait` knows it."""
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
        for stock, _ in ticket.units:
            stock.use()
        self.release(reserved)
        return ticket

    def wait(self, buckets: Iterable[str], wake: Wake) -> None:
        """Has `wake` called once, as soon as a unit of one of these is there, which is then kept until it is reserved:
        in turn, one lane for a unit. Looking for itself, each of a thousand lanes would make a trip to Redis every few
        milliseconds."""
        for name in buckets:
            self._stocks[name].wait(wake)

    def wait_no_more(self, wake: Wake) -> None:
        """Whoever waited, or was woken, reserves nothing."""
        for stock in self._stocks.values():
            stock.wait_no_more(wake)

    def release(self, reserved: Reservation) -> None:
        """There is no call."""
        for name, unit in reserved.units.items():
            self._stocks[name].put_back(unit, urgent=name in reserved.urgent)
        reserved.units.clear()

    def unuse(self, ticket: Ticket) -> None:
        """The call was not made."""
        for stock, unit in ticket.units:
            stock.unuse(unit)

    def keep_ready(self) -> None:
        """Called now and then: an idle lane must not have to wait for its first call's units."""
        for stock in self._stocks.values():
            stock.look_after()

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

    async def hold(self, for_ms: int, detail: str) -> None:
        """Closes the address for every process that leaves from it, as soon as Redis has heard of it; `close` does so
        for this one. If that takes longer than `TELL_S`, the others find out for themselves."""
        begun_s = monotonic_s()
        while (left_ms := for_ms - int((monotonic_s() - begun_s) * 1000)) > 0:
            try:
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
        units: list[tuple[_Stock, int]] = []
        for name in buckets:
            unit = await self._rare[name].one()
            if unit is None:
                for stock, had in units:
                    stock.unuse(had)
                    await stock.report()
                return None
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


def _kept(bucket: Bucket, urgent_reserve: int) -> int:
    """Units of a bucket that only urgent calls may use."""
    return min(bucket.units // 5, urgent_reserve * max(1, bucket.units // URGENT_SHARE))


class _Stock:
    """Units of one bucket in this process' hands."""

    def __init__(
        self,
        client: aioredis.Redis,
        key: str,
        bucket: Bucket,
        kept: int,
        durability: Durability,
        vouched_us: Callable[[], int] | None,
    ) -> None:
        self._vouched_us = vouched_us
        self._client = client
        self._durability = durability
        self._kept = kept
        self._urgent: deque[tuple[int, int]] = deque()  # as `_fresh`, for urgent calls
        self._keys = [key, f"{key}:note"]
        self._bucket = bucket
        # What a stock holds, others cannot use: it grows with the calls that are made, and shrinks when they end.
        self._most = max(1, min(STOCK, bucket.units // 16))
        self._size = min(LEAST, self._most)
        self._made = 0
        self._granted = 1
        self._fresh: deque[tuple[int, int]] = deque()  # unit and when it was asked for, oldest first
        self._unused: list[int] = []
        self._ended: list[tuple[int, int, bool]] = []
        self._asked_ns = 0
        self._filling: asyncio.Task[None] | None = None
        self.probing = False
        self._waiting: dict[Wake, None] = {}  # whom a unit wakes, first come first
        self._woken: set[Wake] = set()  # each of them has a unit here
        self._asks_again: asyncio.TimerHandle | None = None
        self._leapt_ns = 0  # since when units may stand for others that are not free
        self._arrived = False
        self.held_ms = 0

    def pop(self, wake: Wake | None = None) -> tuple[int, int] | None:
        """A unit and when it was asked for; None if there is none now, or if others were woken for it."""
        self.look_after()
        if wake in self._woken:
            self._woken.discard(wake)
        elif len(self._fresh) <= len(self._woken):
            return None
        if not self._fresh:
            return None
        if wake:
            self._waiting.pop(wake, None)
        return self._fresh.popleft()

    def pop_urgent(self) -> tuple[int, int] | None:
        """The same for an urgent call."""
        return self._urgent.popleft() if self._urgent else None

    def put_back(self, unit: tuple[int, int], *, urgent: bool = False) -> None:
        """It was popped for nothing. Where one call is to go alone, others may have one to make: they wait for it."""
        if self.probing:
            self._unused.append(unit[0])
            self._refill()
        elif urgent:
            self._urgent.appendleft(unit)
        else:
            self._fresh.appendleft(unit)
            self._wake()

    def wait(self, wake: Wake, *, first: bool = False) -> None:
        if first:
            self._waiting.pop(wake, None)
            self._waiting = {wake: None, **self._waiting}
        else:
            self._waiting[wake] = None
        self._wake()
        self._ask_for_waiting()

    def wait_no_more(self, wake: Wake) -> None:
        self._waiting.pop(wake, None)
        self._woken.discard(wake)
        self._wake()

    def _wake(self) -> None:
        while self._waiting and len(self._woken) < len(self._fresh):
            wake = next(iter(self._waiting))
            del self._waiting[wake]
            self._woken.add(wake)
            wake()

    def _ask_for_waiting(self) -> None:
        """While anybody waits, one for all asks for units again and again."""
        if not self._waiting or self._asks_again:
            return
        after_ns = AGAIN_NS
        if self._closed:
            after_ns = max(CLOSED_AGAIN_NS, min(self.held_ms * 1_000_000, CLOSED_AGAIN_MOST_NS))
        self._asks_again = asyncio.get_running_loop().call_later(after_ns / 1e9, self._ask_again)

    def _ask_again(self) -> None:
        self._asks_again = None
        if self._waiting:
            self._refill()

    @property
    def _closed(self) -> bool:
        """Whether no unit can be had, or one that goes alone."""
        return self.held_ms > 0 or self.probing

    def look_after(self) -> None:
        """Gives back what is old, and asks for more where little is left."""
        now_ns = monotonic_ns()
        self._discard(now_ns - UNIT_LIVES_NS)
        reports = (self._ended or self._unused) and now_ns - self._asked_ns > REPORT_NS
        aging = not self._fresh or now_ns - self._fresh[-1][1] > UNIT_LIVES_NS // 2
        wanting = reports or aging or len(self._fresh) <= self._size // 2 or (self._kept and not self._urgent)
        if wanting and (self._granted or now_ns - self._asked_ns > (CLOSED_AGAIN_NS if self._closed else AGAIN_NS)):
            self._refill()

    def _discard(self, asked_before_ns: int) -> None:
        """Gives back units that were asked for before that."""
        for units in (self._fresh, self._urgent):
            while units and units[0][1] < asked_before_ns:
                self._unused.append(units.popleft()[0])

    def use(self) -> None:
        """A unit that was popped is used."""
        self._made += 1

    def unuse(self, unit: int) -> None:
        self._unused.append(unit)

    def ended(self, unit: int, at_ns: int, answered: bool) -> None:
        self._ended.append((unit, at_ns, answered))

    def _refill(self) -> asyncio.Task[None]:
        if self._filling is None or self._filling.done():
            self._filling = asyncio.ensure_future(self._fill())
        return self._filling

    async def fill(self) -> None:
        """Until the stock was filled once more."""
        await asyncio.shield(self._refill())

    async def _fill(self) -> None:
        """A fresh stock, and those who waited for it told."""
        await self._exchange()
        self._wake()
        self._ask_for_waiting()

    async def _exchange(self) -> None:
        """Reports what became of units and asks for as many as are missing or old. The old ones are of use until the
        new ones are here."""
        unused, self._unused = self._unused[:REPORT_MOST], self._unused[REPORT_MOST:]
        ended, self._ended = self._ended[:REPORT_MOST], self._ended[REPORT_MOST:]
        asked_ns = monotonic_ns()
        self._resize(asked_ns - self._asked_ns)
        self._asked_ns = asked_ns
        old_ns = asked_ns - UNIT_LIVES_NS // 2
        young = sum(got_ns >= old_ns for _, got_ns in self._fresh)
        young_urgent = sum(got_ns >= old_ns for _, got_ns in self._urgent)
        for_urgent = max(0, URGENT_STOCK - young_urgent) if self._kept else 0
        try:
            first, granted, urgent = await self._ask(max(0, self._size - young), unused, ended, for_urgent)
        except (RedisError, OSError):
            # Without Redis nothing may be sent: the stock runs out, and the next round asks again.
            self._unused, self._ended = unused + self._unused, ended + self._ended
        else:
            self._granted = granted
            if asked_ns < self._leapt_ns:
                self._unused += range(first, first + granted + urgent)
                return
            if granted:
                self._discard(old_ns)
            self._fresh += [(unit, asked_ns) for unit in range(first, first + granted)]
            self._urgent += [(unit, asked_ns) for unit in range(first + granted, first + granted + urgent)]

    def _resize(self, span_ns: int) -> None:
        """The next stock, from the calls made since the last one was asked for."""
        if 2 * self._made >= self._size:
            self._size = min(self._most, 2 * self._size)
        elif 8 * self._made < self._size and span_ns > REPORT_NS:
            self._size = max(min(LEAST, self._most), self._size // 2)
        self._made = 0

    async def _ask(
        self,
        wanted: int,
        unused: Sequence[int],
        ended: Sequence[tuple[int, int, bool]],
        urgent: int = 0,
        hold_ms: int = 0,
        why: str = "",
        ahead_us: int = 0,
    ) -> tuple[int, int, int]:
        window_us, now_ns = self._bucket.window_us, monotonic_ns()
        live_us = UNIT_LIVES_NS // 1000 + LONGEST_CALL_US + window_us
        args: list[int | str] = [self._bucket.units, window_us, wanted, live_us, hold_ms, why, urgent, self._kept]
        args += [ahead_us, self._vouched(), len(unused), *unused, len(ended)]
        for unit, at_ns, answered in ended:
            args += [unit, max(0, now_ns - at_ns) // 1000, 0 if answered else SILENT_EXTRA_US]
        durability = self._durability if wanted or urgent else NOT_WAITED_FOR
        reply, unconfirmed = await SCRIPTS.run_durably(self._client, "egress", self._keys, args, durability)
        first, granted, self.held_ms, probing, granted_urgent = reply
        self._arrived = True
        self.probing = bool(probing)
        if unconfirmed:  # a server that takes over may not know of them
            self._unused += range(first, first + granted + granted_urgent)
            return first, 0, 0
        return first, granted, granted_urgent

    def _vouched(self) -> int:
        """For how long this process knows how the server's clock goes; -1 if that is to be left out of account."""
        if self._vouched_us is not None:
            return self._vouched_us()
        return -1 if self._arrived else 0

    def close(self, for_ms: int) -> None:
        """Nothing that is held may be used any more."""
        self._discard(monotonic_ns())
        self.held_ms = max(self.held_ms, for_ms)

    async def hold(self, for_ms: int, detail: str) -> None:
        await self._ask(0, (), (), hold_ms=for_ms, why=detail)
        self.close(for_ms)

    async def ahead(self, by_us: int) -> None:
        """What is held may stand for units that are not free yet, too."""
        self._leapt_ns = monotonic_ns()
        self._discard(self._leapt_ns)
        await self._ask(0, (), (), ahead_us=by_us)

    async def leave(self) -> None:
        self._waiting.clear()
        if self._filling is not None:
            await asyncio.shield(self._filling)
        self._discard(monotonic_ns())
        await self.report()

    async def one(self) -> int | None:
        """A unit that is used at once; waits a moment for it. None if there is none, or Redis is away."""
        for nth in range(RARE_TRIES):
            if nth:
                await asyncio.sleep(RARE_PAUSE_S)
            try:
                first, granted, _ = await self._ask(1, (), ())
            except (RedisError, OSError):
                return None
            if granted:
                return first
        return None

    async def report(self) -> None:
        """Tells at once what became of units."""
        unused, self._unused = self._unused, []
        ended, self._ended = self._ended, []
        with contextlib.suppress(RedisError, OSError):  # they stay in use until their calls must be over
            await self._ask(0, unused, ended)
