"""The limits a venue counts per address: units are taken ahead, so that no call waits for them.

A unit may be used within two seconds; what was not used is given back, and what was used is reported with the end of
its call (`lua/egress.lua`). A venue may count one call in several buckets: a call takes a unit of each.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import redis.asyncio as aioredis
from redis.exceptions import RedisError

from cancelq_worker.ledger import SCRIPTS
from cancelq_worker.venues.port import Bucket

UNIT_LIVES_NS = 2_000_000_000
LONGEST_CALL_US = 10_000_000
SILENT_EXTRA_US = 1_000_000  # a call without an answer may have arrived a little after it was given up
STOCK, LEAST = 32, 4  # units a process holds of one bucket, at most and when it hardly calls
AGAIN_NS = 10_000_000  # between two questions of which the first brought nothing
REPORT_NS = 250_000_000
REPORT_MOST = 1_000


@dataclass(frozen=True, slots=True)
class Ticket:
    """One call's unit in each of its buckets."""

    units: tuple[tuple[_Stock, int], ...]


@dataclass(slots=True)
class Reservation:
    """Units set aside: bucket → unit and when it was asked for."""

    units: dict[str, tuple[int, int]]

    def covers(self, buckets: Iterable[str]) -> bool:
        """Whether a call may be made that takes a unit of each of these."""
        return all(name in self.units for name in buckets)


class Egress:
    """This process' stock of the limits one venue counts for our address."""

    def __init__(self, client: aioredis.Redis, name: str, buckets: Sequence[Bucket]) -> None:
        self._stocks = {b.name: _Stock(client, f"cancelq:{{egress:{name}}}:{b.name}", b) for b in buckets}

    def reserve(self) -> Reservation:
        """Sets a unit of every bucket aside that has one, for a call of which it is not known yet what it will be.
        Asks for more in the background where a stock runs low."""
        found = {name: stock.pop() for name, stock in self._stocks.items()}
        return Reservation({name: unit for name, unit in found.items() if unit is not None})

    def use(self, reserved: Reservation, buckets: Sequence[str]) -> Ticket:
        """The call is made and takes a unit of these; the others go back. They must be among what was reserved."""
        ticket = Ticket(tuple((self._stocks[name], reserved.units.pop(name)[0]) for name in buckets))
        for stock, _ in ticket.units:
            stock.use()
        self.release(reserved)
        return ticket

    def release(self, reserved: Reservation) -> None:
        """There is no call."""
        for name, unit in reserved.units.items():
            self._stocks[name].put_back(unit)
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

    async def fill(self) -> None:
        """Fresh units in every bucket."""
        await asyncio.gather(*(stock.fill() for stock in self._stocks.values()))

    async def hold(self, for_ms: int, detail: str) -> None:
        """Closes the address for every process that leaves from it."""
        for stock in self._stocks.values():
            await stock.hold(for_ms, detail)


class _Stock:
    """Units of one bucket in this process' hands."""

    def __init__(self, client: aioredis.Redis, key: str, bucket: Bucket) -> None:
        self._client = client
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
        self._probing = False
        self.held_ms = 0

    def pop(self) -> tuple[int, int] | None:
        """A unit and when it was asked for; None if there is none now."""
        self.look_after()
        return self._fresh.popleft() if self._fresh else None

    def put_back(self, unit: tuple[int, int]) -> None:
        """It was popped for nothing. Where one call is to go alone, others may have one to make: they wait for it."""
        if self._probing:
            self._unused.append(unit[0])
            self._refill()
        else:
            self._fresh.appendleft(unit)

    def look_after(self) -> None:
        """Gives back what is old, and asks for more where little is left."""
        now_ns = time.monotonic_ns()
        self._discard(now_ns - UNIT_LIVES_NS)
        reports = (self._ended or self._unused) and now_ns - self._asked_ns > REPORT_NS
        aging = not self._fresh or now_ns - self._fresh[-1][1] > UNIT_LIVES_NS // 2
        wanting = reports or aging or len(self._fresh) <= self._size // 2
        if wanting and (self._granted or now_ns - self._asked_ns > AGAIN_NS):
            self._refill()

    def _discard(self, asked_before_ns: int) -> None:
        """Gives back units that were asked for before that."""
        while self._fresh and self._fresh[0][1] < asked_before_ns:
            self._unused.append(self._fresh.popleft()[0])

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
        """Reports what became of units and asks for as many as are missing or old. The old ones are of use until the
        new ones are here."""
        unused, self._unused = self._unused[:REPORT_MOST], self._unused[REPORT_MOST:]
        ended, self._ended = self._ended[:REPORT_MOST], self._ended[REPORT_MOST:]
        asked_ns = time.monotonic_ns()
        self._resize(asked_ns - self._asked_ns)
        self._asked_ns = asked_ns
        old_ns = asked_ns - UNIT_LIVES_NS // 2
        young = sum(got_ns >= old_ns for _, got_ns in self._fresh)
        try:
            first, granted = await self._ask(max(0, self._size - young), unused, ended)
        except (RedisError, OSError):
            # Without Redis nothing may be sent: the stock runs out, and the next round asks again.
            self._unused, self._ended = unused + self._unused, ended + self._ended
        else:
            self._granted = granted
            if granted:
                self._discard(old_ns)
            self._fresh += [(unit, asked_ns) for unit in range(first, first + granted)]

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
        hold_ms: int = 0,
        why: str = "",
    ) -> tuple[int, int]:
        window_us, now_ns = self._bucket.window_us, time.monotonic_ns()
        live_us = UNIT_LIVES_NS // 1000 + LONGEST_CALL_US + window_us
        args: list[int | str] = [self._bucket.units, window_us, wanted, live_us, hold_ms, why]
        args += [len(unused), *unused, len(ended)]
        for unit, at_ns, answered in ended:
            args += [unit, max(0, now_ns - at_ns) // 1000, 0 if answered else SILENT_EXTRA_US]
        first, granted, self.held_ms, probing = await SCRIPTS.run(self._client, "egress", self._keys, args)
        self._probing = bool(probing)
        return first, granted

    async def hold(self, for_ms: int, detail: str) -> None:
        await self._ask(0, (), (), for_ms, detail)
        self._discard(time.monotonic_ns())
        self.held_ms = for_ms
