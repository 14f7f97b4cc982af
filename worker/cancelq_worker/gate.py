"""What closes a lane for the whole fleet, and what opens it again: limits, keys, clocks, a venue out of reach."""

from __future__ import annotations

from collections.abc import Callable, Coroutine

import structlog

from cancelq_worker.clocks import in_s, monotonic_ns
from cancelq_worker.egress import Ticket
from cancelq_worker.http import Door, Exchange, NoAnswer, NotSent, Pick
from cancelq_worker.lane_parts import Call, LaneParts
from cancelq_worker.records import Hold
from cancelq_worker.venues.port import Answer, KeyRights, Reply, Request, Signed, Word

log = structlog.get_logger("cancelq.lane")

CLOCK_HOLD_US = 300_000  # while the clock is corrected
BETTER_NS = 500_000_000
CLOCK_NS = 20_000_000_000  # how often the venue's clock is read at least
ASIDE_WITHIN_S = 0.2  # how long a call that no route makes waits for a unit of the address; some wait for each other
REFUSALS_MANY = 3
SHORTEST_CLOSED_US = 1_000_000
Spawn = Callable[[Coroutine[object, object, None]], None]


class Gate:
    """One lane's holds, and the calls that no route makes."""

    def __init__(self, parts: LaneParts, spawn: Spawn) -> None:
        self._p = parts
        self._spawn = spawn
        self._refusals: dict[str, tuple[int, int]] = {}
        self._clock_fault_ns = 0
        self._bettered_ns = -BETTER_NS
        self._time_at = 0  # which of the venue's time calls tells
        self._asked_ns = 0  # when its time was asked for last
        self._log = log.bind(lane=str(parts.plan.lane))

    def holds(self, call: Call, replies: list[Reply]) -> list[Hold]:
        """What the answer closes, for the whole fleet."""
        for reply in replies:
            said = f"{reply.code} {reply.text}".strip()[:240]
            if reply.word is Word.REFUSED:
                return [self._refused(call, reply, said)]
            if reply.word is Word.ACCOUNT:
                return [self._auth_hold(said)]
            if reply.word is Word.CLOCK:
                return self._clock_fault(said, call.back_ns)
        return []

    def _refused(self, call: Call, reply: Reply, said: str) -> Hold:
        """Over a limit that we keep: somebody else uses the key or the address, or the venue counts otherwise."""
        bucket, for_us = call.route.bucket, self._asked_to_wait_us(reply)
        self._p.metrics.refused(bucket)
        if reply.whole_address:
            for_us = self._close_address(for_us, said, call.ticket)
        tell = self._log.error if self._count(bucket) >= REFUSALS_MANY else self._log.warning
        tell(
            "over the venue's limit: does somebody else use this key?", bucket=bucket, held_ms=for_us // 1000, said=said
        )
        return Hold("*" if reply.whole_address else bucket, "rate", for_us, said)

    def _close_address(self, for_us: int, said: str, ticket: Ticket) -> int:
        """For every lane that leaves from it; longer each time where the venue does not say how long (0), by what Redis
        knows of the refusals before. Returns for how long at least."""
        refused = None if for_us else ticket
        for_us = for_us or SHORTEST_CLOSED_US
        self._p.egress.close(for_us // 1000)  # at once: the others hear of it a trip later
        self._spawn(self._p.egress.hold(for_us // 1000, said, refused))
        return for_us

    def unreachable(self, why: str) -> list[Hold]:
        """The venue could not be reached: nobody learns it twice."""
        if why == "PoolTimeout":  # this process was too slow for its own connections; the venue is not at fault
            return []
        for_us = min(5_000_000, 250_000 * 2 ** min(self._count("unreachable"), 6))
        self._log.warning("the venue could not be reached", why=why, held_ms=for_us // 1000)
        return [Hold("*", "unreachable", for_us, "the venue could not be reached")]

    def _count(self, what: str) -> int:
        """How often in a row something went wrong before, each time within ten seconds of the last."""
        now_ns = monotonic_ns()
        count, last_ns = self._refusals.get(what, (0, 0))
        count = count + 1 if now_ns - last_ns < 10_000_000_000 else 0
        self._refusals[what] = (count, now_ns)
        return count

    def _asked_to_wait_us(self, reply: Reply) -> int:
        """For how long the venue wants no call, 0 if it does not say; at most a day."""
        wait_us = reply.retry_us
        if reply.retry_at_ms:
            wait_us = max(wait_us, reply.retry_at_ms * 1000 - self._p.venue_clock.now_us())
        return min(max(wait_us, 0), 86_400_000_000)

    def _auth_hold(self, said: str) -> Hold:
        self._log.error("the venue refuses the key or the account: the lane is held, its intents are kept", said=said)
        return Hold("*", "auth", -1, f"{said}; mend it, then: cancelq resume {self._p.plan.lane}")

    def key_works(self) -> None:
        """Whatever was refused lately, it was not for the key."""
        self._clock_fault_ns = 0

    def _clock_fault(self, said: str, taken_ns: int) -> list[Hold]:
        """Once: correct the clock and try again. Refused again within a minute, signed by the corrected clock: it is
        not the clock."""
        now_ns, corrected_ns = monotonic_ns(), self._p.venue_clock.since_ns
        signed_before = corrected_ns is not None and taken_ns < corrected_ns
        lately = self._clock_fault_ns and now_ns - self._clock_fault_ns < 60_000_000_000
        if lately and corrected_ns is not None and not signed_before:
            return [self._auth_hold(f"the clock was corrected, and the time stamp refused again: {said}")]
        if not lately and not signed_before:
            self._clock_fault_ns = now_ns
            self._p.venue_clock.forget()
            self._log.warning("the venue refused our time stamp: correcting the clock", said=said)
        self._spawn(self._correct_clock())
        return [Hold("*", "clock", CLOCK_HOLD_US, said)]

    async def _correct_clock(self) -> None:
        """At once, whatever the pace: the lane goes on in 300 ms. One lane of a host does it for all."""
        async with self._p.time_lock:
            if not self._p.venue_clock.known:
                await self.read_venue_time(paced=False)

    def know_time_better(self) -> None:
        """Reads the venue's time once more, twice a second at most: a sweep waits to know how old some orders are."""
        now_ns = monotonic_ns()
        if now_ns - self._bettered_ns >= BETTER_NS:
            self._bettered_ns = now_ns
            self._spawn(self.read_venue_time())

    async def know_venue_time(self) -> None:
        """Learns the venue's clock, unless another lane of its host has; one that came while another was asking takes
        what that was told, and where it was nothing goes on without: a venue that is slow to tell must not keep a
        hundred lanes waiting for each other."""
        asked = self._p.time_lock.locked()
        async with self._p.time_lock:
            if not self._p.venue_clock.known and not asked:
                await self.read_venue_time()

    async def read_venue_time(self, *, paced: bool = True) -> None:
        """Learns the venue's clock. A venue that does not tell leaves what was known. Lanes of a host ask in turn:
        venues count these calls per address."""
        for door in (self._p.cancel_door, self._p.look_door):
            for _ in self._p.venue.time_requests:
                if not self._p.time_pace.may() and paced:
                    return
                if await self._ask_time(door):
                    break
            else:
                return

    async def keep_warm(self, lanes: int) -> bool:
        """Opens connections ahead, and uses those that rested, for so many lanes of this host: a cancel that has to
        open one is late by two or three times the way. Such a call asks for the time. False if the venue did not
        answer."""
        for door, kept in self._p.kept_open(lanes):
            while self._p.venue.time_requests and (pick := door.care(kept)) and self._p.time_pace.may():
                if await self._ask_time(door, pick) is None:
                    return False
        if monotonic_ns() - self._asked_ns > CLOCK_NS:  # no connection rested
            self._asked_ns = monotonic_ns()
            await self.read_venue_time()
        return True

    async def _ask_time(self, door: Door, pick: Pick = Pick.LATEST) -> bool | None:
        """Whether the venue told its time; None if it did not answer. If it did not tell, the next question is
        another."""
        requests, told_ms = self._p.venue.time_requests, None
        exchange = await self._call_for_time(door, requests[self._time_at % len(requests)], pick)
        if exchange:
            self._asked_ns = exchange.answered_ns
            told_ms = self._p.venue.read_time(exchange.answer)
        if exchange and told_ms is not None:
            self._p.venue_clock.learn(exchange.sent_ns, exchange.answered_ns, told_ms * 1000)
            return True
        self._time_at += 1
        return False if exchange else None

    async def _call_for_time(self, door: Door, request: Request, pick: Pick) -> Exchange | None:
        ticket = await self._p.egress.rarely(self._p.venue.time_address)
        if ticket is None:
            self._log.info("the venue's time is not read: the address has no such calls left for now")
            return None
        ended_ns: int | None = None
        try:
            exchange = await self.aside(door, Signed(request, {}), total_s=1.5, pick=pick)
            ended_ns = exchange.answered_ns
            return exchange
        except (NotSent, NoAnswer) as error:
            if isinstance(error, NoAnswer):
                ended_ns = monotonic_ns()
            self._log.info("the venue's time could not be read", why=str(error))
            return None
        finally:
            await self._p.egress.rare_ended(ticket, ended_ns, answered=True)

    async def call_aside(self, request: Request) -> Answer:
        """One signed call for the order stream. Raises NotSent, NoAnswer."""
        signed = self._p.venue.sign(request, self._p.venue_clock.now_us() // 1000)
        return (await self.aside(self._p.look_door, signed, total_s=self._p.total_s)).answer

    async def aside(
        self,
        door: Door,
        signed: Signed,
        *,
        total_s: float,
        pick: Pick = Pick.LATEST,
        address: tuple[str, ...] = (),
    ) -> Exchange:
        """A call that no take grants: it counts for our address. Raises NotSent, NoAnswer."""
        egress, address = self._p.egress, address or self._p.venue.other_address
        reserved = await egress.reserve_soon(address, ASIDE_WITHIN_S)
        if not reserved.covers(address):
            egress.release(reserved)
            raise NotSent("the address has no calls left for now")
        ticket = egress.use(reserved, address)
        if egress.is_closed(ticket):
            egress.unuse(ticket)
            raise NotSent("the venue refuses this address")
        try:
            exchange = await door.call(signed, send_by_ns=in_s(1.0), total_s=total_s, pick=pick)
        except NotSent:
            egress.unuse(ticket)
            raise
        except NoAnswer:
            egress.ended(ticket, monotonic_ns(), answered=False)
            self._p.metrics.aside(signed.request.path, 0, 0)
            raise
        reply = self._p.venue.read_probe(exchange.answer)
        egress.ended(ticket, exchange.answered_ns, answered=not reply.whole_address)
        if reply.whole_address:  # which is told to whatever call comes first, and by no other where lanes rest
            said = f"{reply.code} {reply.text}".strip()[:240]
            for_us = self._close_address(self._asked_to_wait_us(reply), said, ticket)
            self._log.warning("the venue refuses this address", path=signed.request.path, held_ms=for_us // 1000)
        took_ns = exchange.answered_ns - exchange.sent_ns
        self._p.metrics.aside(signed.request.path, exchange.answer.status, took_ns)
        return exchange

    @property
    def minds_rights(self) -> bool:
        """Whether a key that may withdraw is refused: the settings do not allow it, and the venue tells."""
        return not self._p.allow_withdraw_key and self._p.venue.rights_request() is not None

    async def key_rights(self) -> KeyRights | None:
        """What the venue says that the key may do; None where it does not say. Raises NotSent, NoAnswer."""
        request = self._p.venue.rights_request()
        if request is None:
            return None
        told = self._p.venue.read_rights(await self.call_aside(request))
        return told if isinstance(told, KeyRights) else None
