"""One bucket of an address in this process' hands: units that were taken ahead, given back, or are out in calls.

A unit may be used within two seconds; what was not used is given back, and what was used is reported with the end of
its call (`lua/egress.lua`).
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence

import redis.asyncio as aioredis
from redis.exceptions import RedisError

from cancelq_worker.clocks import monotonic_ns
from cancelq_worker.scripts import NOT_WAITED_FOR, SCRIPTS, Durability
from cancelq_worker.venues.port import Bucket

UNIT_LIVES_NS = 2_000_000_000
LONGEST_CALL_US = 10_000_000  # from when it was sent, however long its lease
SILENT_EXTRA_US = 1_000_000  # a call without an answer may have arrived a little after it was given up
STOCK, LEAST = 32, 4  # units a process holds of one bucket, at most and when it hardly calls
URGENT_STOCK = 3  # more of them that only urgent calls may use
SCARCE = 4  # where less than this part of a bucket is left, who makes no calls holds less of it, or nothing
RARE_TRIES, RARE_PAUSE_S = 15, 0.1
AGAIN_NS = 10_000_000  # between two questions of which the first brought nothing
CLOSED_AGAIN_NS = 50_000_000  # the same, while the address is closed, or another's call goes alone
CLOSED_AGAIN_MOST_NS = 500_000_000  # the same, where lanes wait for an address that is closed for long
HEARD_NS = 50_000_000  # for so long at most a process that calls has not heard whether another closed the address
REPORT_NS = 250_000_000
REPORT_MOST = 1_000

Wake = Callable[[], None]
#: A unit whose call is over: since when (ns), and for how much longer than the window it is in use (us).
_Ended = tuple[int, int, int]


class Stock:
    """Units of one bucket in this process' hands."""

    def __init__(
        self,
        client: aioredis.Redis,
        key: str,
        bucket: Bucket,
        kept: int,
        durability: Durability,
        vouched_us: Callable[[], int] | None,
        closes: Callable[[int], None],
    ) -> None:
        """`closes`: called once this stock hears that the address is closed, with for how many ms."""
        self._closes = closes
        self._vouched_us = vouched_us
        self._client = client
        self._durability = durability
        self._kept = kept
        self._urgent: deque[tuple[int, int]] = deque()  # as `_fresh`, for urgent calls
        self._keys = [key, f"{key}:note"]
        self._bucket = bucket
        # What a stock holds, others cannot use: it grows with the calls that are made, and shrinks when they end.
        self._most = max(1, min(STOCK, bucket.units // 16))
        self._left = bucket.units  # what nobody held when units were asked for last
        self._size = self._least
        self._made = 0
        self._lately, self._looked_ns = 0, 0
        self._called = False  # whether a call found none
        self._granted = 1
        self._fresh: deque[tuple[int, int]] = deque()  # unit and when it was asked for, oldest first
        self._unused: list[int] = []
        self._ended: list[_Ended] = []
        # What another server would not know: units of calls under way, and of those that are in the venue's window.
        self._out: dict[int, int] = {}  # since when
        self._over: deque[_Ended] = deque()
        self._server = b""
        self._asked_ns = 0
        self._filling: asyncio.Task[None] | None = None
        self.probing = False
        self._waiting: dict[Wake, None] = {}  # whom a unit wakes, first come first
        self._hurried: dict[Wake, None] = {}  # those among them whom also one for urgent calls wakes
        self._woken: set[Wake] = set()  # each of them has a unit here
        self._asks_again: asyncio.TimerHandle | None = None
        self._void_ns = 0  # what was asked for before may stand for units that are not free, or of a closed address
        self._arrived = False
        self.held_ms = 0
        self._held_till_ns = 0
        self.telling = 0  # how many refusals of the address Redis may not have heard of yet

    def pop(self, wake: Wake | None = None) -> tuple[int, int] | None:
        """A unit and when it was asked for; None if there is none now, or if others were woken for it."""
        self._called = self._called or not self._fresh
        self.look_after()
        if wake in self._woken:
            self._woken.discard(wake)
        elif len(self._fresh) <= len(self._woken):
            return None
        if not self._fresh:
            return None
        if wake:
            self._forget(wake)
        return self._fresh.popleft()

    def pop_urgent(self) -> tuple[int, int] | None:
        """The same for an urgent call."""
        return self._urgent.popleft() if self._urgent else None

    def put_back(self, unit: tuple[int, int], *, urgent: bool = False) -> None:
        """It was popped for nothing. Where one call is to go alone, others may have one to make: they wait for it."""
        if self.probing or unit[1] < self._void_ns:
            self._unused.append(unit[0])
            if self.probing:
                self._give_up()
        else:
            (self._urgent if urgent else self._fresh).appendleft(unit)
            self._wake()

    def wait(self, wake: Wake, *, first: bool = False, urgent: bool = False) -> None:
        """`first`: before all others; `urgent`: a unit for urgent calls is enough."""
        if first:
            self._waiting.pop(wake, None)
            self._waiting = {wake: None, **self._waiting}
        else:
            self._waiting[wake] = None
        if urgent:
            self._hurried[wake] = None
            self.look_after()
        self._wake()
        self._ask_for_waiting()

    def wait_no_more(self, wake: Wake) -> None:
        self._forget(wake)
        self._woken.discard(wake)
        self._wake()

    def _forget(self, wake: Wake) -> None:
        self._waiting.pop(wake, None)
        self._hurried.pop(wake, None)

    def _wake(self) -> None:
        while self._waiting and len(self._woken) < len(self._fresh):
            wake = next(iter(self._waiting))
            self._forget(wake)
            self._woken.add(wake)
            wake()
        # None is kept for them: who finds that another call has it waits again.
        for wake in list(self._hurried)[: len(self._urgent)]:
            self._forget(wake)
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

    def listen(self) -> None:
        """Asks whether the address was closed, unless that was asked lately."""
        if monotonic_ns() - self._asked_ns > HEARD_NS:
            self._refill()

    def keep_ready(self) -> None:
        """As `look_after`, for nobody: where one call is to go alone, its unit is left to whoever has one to make."""
        if self.probing:
            self._discard(monotonic_ns())
            self._give_up()
        else:
            self.look_after()

    def _give_up(self) -> None:
        """What is not used goes back, and nothing is asked for: whoever asks in the same breath is given it again."""
        if self._filling is None or self._filling.done():
            self._filling = asyncio.ensure_future(self.report())

    def look_after(self) -> None:
        """Gives back what is old, and asks for more where little is left."""
        now_ns = monotonic_ns()
        self._discard(now_ns - UNIT_LIVES_NS)
        reports = (self._ended or self._unused) and now_ns - self._asked_ns > REPORT_NS
        aging = now_ns - (self._fresh[-1][1] if self._fresh else self._asked_ns) > UNIT_LIVES_NS // 2
        few = self._wanted > 0 and len(self._fresh) <= self._size // 2
        wanting = reports or aging or few or (self._wanted_urgent and not self._urgent)
        if wanting and (self._granted or now_ns - self._asked_ns > (CLOSED_AGAIN_NS if self._closed else AGAIN_NS)):
            self._refill()

    def _void(self) -> int:
        """Nothing that is held, set aside or was asked for may be used any more. Returns since when (ns)."""
        self._void_ns = monotonic_ns()
        self._discard(self._void_ns)
        return self._void_ns

    def _discard(self, asked_before_ns: int) -> None:
        """Gives back units that were asked for before that."""
        for units in (self._fresh, self._urgent):
            while units and units[0][1] < asked_before_ns:
                self._unused.append(units.popleft()[0])

    def use(self, unit: int) -> None:
        """A unit that was popped is used."""
        self._made += 1
        self._out[unit] = monotonic_ns()

    def unuse(self, unit: int) -> None:
        self._out.pop(unit, None)
        self._unused.append(unit)

    def ended(self, unit: int, at_ns: int, answered: bool) -> None:
        self._out.pop(unit, None)
        ended = unit, at_ns, 0 if answered else SILENT_EXTRA_US
        self._ended.append(ended)
        self._over.append(ended)
        free_ns = at_ns - (self._bucket.window_us + SILENT_EXTRA_US) * 1000
        while self._over[0][1] < free_ns:
            self._over.popleft()

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
        asked_ns = monotonic_ns()
        self._resize(asked_ns)
        self._asked_ns = asked_ns
        for units, wanted in ((self._fresh, self._wanted), (self._urgent, self._wanted_urgent)):
            self._unused += [units.popleft()[0] for _ in range(len(units) - wanted)]
        unused, self._unused = self._unused[:REPORT_MOST], self._unused[REPORT_MOST:]
        ended, self._ended = self._ended[:REPORT_MOST], self._ended[REPORT_MOST:]
        old_ns = asked_ns - UNIT_LIVES_NS // 2
        wanted = max(0, self._wanted - sum(got_ns >= old_ns for _, got_ns in self._fresh))
        for_urgent = max(0, self._wanted_urgent - sum(got_ns >= old_ns for _, got_ns in self._urgent))
        self._called = False
        try:
            first, granted, urgent = await self._ask(wanted, unused, ended, for_urgent)
        except (RedisError, OSError):
            # Without Redis nothing may be sent: the stock runs out, and the next round asks again.
            self._unused, self._ended = unused + self._unused, ended + self._ended
        else:
            self._granted = granted
            if not self._is_news(asked_ns):
                self._unused += range(first, first + granted + urgent)
                return
            if granted:
                self._discard(old_ns)
            self._fresh += [(unit, asked_ns) for unit in range(first, first + granted)]
            self._urgent += [(unit, asked_ns) for unit in range(first + granted, first + granted + urgent)]

    def _resize(self, now_ns: int) -> None:
        """The next stock, from the calls made since the last one was asked for; less of it, from those of a while."""
        self._lately += self._made
        if self._made and 2 * self._made >= self._size:
            self._size = min(self._most, max(1, 2 * self._size))
        elif now_ns - self._looked_ns > REPORT_NS:
            if 8 * self._lately < self._size:
                self._size //= 2
            self._lately, self._looked_ns = 0, now_ns
        self._size = max(self._size, self._least)
        self._made = 0

    @property
    def _least(self) -> int:
        """How many are held ahead of the first call."""
        most = min(LEAST, self._most)
        return max(0, min(most, most * SCARCE * (self._left - self._kept) // self._bucket.units))

    @property
    def _wanted(self) -> int:
        needed = max(len(self._waiting) + len(self._woken), int(self._called))
        return max(self._size, min(self._most, needed))

    @property
    def _wanted_urgent(self) -> int:
        return URGENT_STOCK if self._kept and (self._size or self._hurried) else 0

    async def _ask(
        self,
        wanted: int,
        unused: Sequence[int],
        ended: Sequence[_Ended],
        urgent: int = 0,
        hold_ms: int = 0,
        why: str = "",
        ahead_us: int = 0,
    ) -> tuple[int, int, int]:
        window_us, now_ns = self._bucket.window_us, monotonic_ns()
        live_us = UNIT_LIVES_NS // 1000 + LONGEST_CALL_US + window_us
        args: list[int | str] = [self._bucket.units, window_us, wanted, live_us, hold_ms, why, urgent, self._kept]
        args += [ahead_us, self._vouched(), self._server.decode(), len(unused), *unused, len(ended)]
        for unit, at_ns, extra_us in ended:
            args += [unit, max(0, now_ns - at_ns) // 1000, extra_us]
        durability = self._durability if wanted or urgent else NOT_WAITED_FOR
        reply, unconfirmed = await SCRIPTS.run_durably(self._client, "egress", self._keys, args, durability)
        first, granted, held_ms, probing, granted_urgent, left, server = reply
        self._arrived = True
        before, self._server = self._server, server
        lost = before not in (b"", server)
        left_ms = max(0, self._held_till_ns - now_ns) // 1_000_000 if lost else 0
        self._hear(max(held_ms, left_ms), now_ns)
        self.probing = bool(probing)
        if not self._closed:
            self._left = left
        if lost:
            try:
                await self._tell_again(left_ms)
            except (RedisError, OSError):
                self._server = before  # the next question tells it
                raise
        if unconfirmed:  # a server that takes over may not know of them
            self._unused += range(first, first + granted + granted_urgent)
            return first, 0, 0
        return first, granted, granted_urgent

    def _hear(self, held_ms: int, asked_ns: int) -> None:
        """For how long the address is closed, by a reply to what was asked then."""
        open_before = not self.held_ms
        self._hold_here(held_ms if self._is_news(asked_ns) else max(held_ms, self.held_ms))
        if open_before and self.held_ms:
            self._closes(self.held_ms)

    def _hold_here(self, for_ms: int) -> None:
        self.held_ms = for_ms
        self._held_till_ns = monotonic_ns() + for_ms * 1_000_000

    def _is_news(self, asked_ns: int) -> bool:
        """Whether a reply to what was asked then knows all that this process knew meanwhile."""
        return asked_ns >= self._void_ns and not self.telling

    def _vouched(self) -> int:
        """For how long this process knows how the server's clock goes; -1 if that is to be left out of account."""
        if self._vouched_us is not None:
            return self._vouched_us()
        return -1 if self._arrived else 0

    async def _tell_again(self, held_ms: int) -> None:
        """Another server than before may not know what was used lately, nor what is under way, nor that the address is
        closed, for so many ms; and knows nothing of what is held here."""
        now_ns = self._void()
        if held_ms:
            await self._ask(0, (), (), hold_ms=held_ms, why="as the server before was told")
        # A call that broke off told nobody how it ended.
        self._out = {unit: at_ns for unit, at_ns in self._out.items() if now_ns - at_ns < LONGEST_CALL_US * 1000}
        self._ended += [*self._over, *((unit, now_ns, LONGEST_CALL_US) for unit in self._out)]
        await self.report()

    def close(self, for_ms: int) -> None:
        """The address is closed."""
        self._void()
        self._hold_here(max(self.held_ms, for_ms))

    async def back_off(self, detail: str) -> int:
        """The address is closed, and the venue does not say for how long: longer each time, whichever process was
        refused. Returns for how many ms."""
        await self._ask(0, (), (), hold_ms=-1, why=detail)
        return self.held_ms

    async def hold(self, for_ms: int, detail: str) -> None:
        await self._ask(0, (), (), hold_ms=for_ms, why=detail)
        self.close(for_ms)

    async def ahead(self, by_us: int) -> None:
        """What is held may stand for units that are not free yet, too."""
        self._void()
        await self._ask(0, (), (), ahead_us=by_us)

    async def leave(self) -> None:
        self._waiting.clear()
        self._hurried.clear()
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
        """Tells at once what became of units, and hears how the address stands. What Redis does not hear is told with
        the next question: until then these stay in use, at most until their calls must be over."""
        unused, self._unused = self._unused, []
        ended, self._ended = self._ended, []
        try:
            while True:
                await self._ask(0, unused[:REPORT_MOST], ended[:REPORT_MOST])
                del unused[:REPORT_MOST], ended[:REPORT_MOST]
                if not unused and not ended:
                    return
        except (RedisError, OSError):
            self._unused, self._ended = unused + self._unused, ended + self._ended
