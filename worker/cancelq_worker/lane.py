"""A lane: one venue account, served in rounds.

    admit ─► take ─► cancel ─► judge ─► settle
                        ▲                 │ unclear, or only acknowledged
                        └──── confirm ◄───┘

One round is one trip to Redis: it settles what came back from the venue, admits what producers asked, takes a
permit with the orders its call can carry, and reads the inbox. Each call then runs as a task of its own (`carrier.py`)
and leaves its settlement for a later round. Any number of workers may serve a lane; nothing here is owned.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass, replace
from math import inf

import structlog
from redis.exceptions import RedisError, ResponseError

from cancelq.contract import Lane, Status
from cancelq_worker.breath import Breath
from cancelq_worker.carrier import Carrier
from cancelq_worker.clocks import monotonic_ns, monotonic_s, wall_ns
from cancelq_worker.egress import Reservation, Shares
from cancelq_worker.gate import Gate
from cancelq_worker.head_start import THROUGH_US, HeadStart
from cancelq_worker.intake import Intake, entry_order
from cancelq_worker.key_trial import KeyTrial
from cancelq_worker.key_watch import KeyWatch
from cancelq_worker.lane_parts import Call, LaneParts, Outcome
from cancelq_worker.order_ends import OrderEnds
from cancelq_worker.overtaking import Overtaker
from cancelq_worker.records import (
    Admitted,
    End,
    Hold,
    LocalStep,
    Move,
    Round,
    RoundRequest,
    Settled,
    Settlement,
    Taken,
    TakeRequest,
)
from cancelq_worker.state import Work
from cancelq_worker.stream_place import StreamPlace
from cancelq_worker.streaming import LaneStream, StreamParts
from cancelq_worker.suspects import Turn
from cancelq_worker.trips import RawEntry, is_memory_full
from cancelq_worker.venues.port import Answer, Request, Route, Stage, Venue

log = structlog.get_logger("cancelq.lane")

SETTLE_TRIES = 40
SLOTS = 8  # calls in flight per stage, one connection each
INTAKE_PAUSE_NS = 500_000_000  # after Redis refused an admission
LEAP_TOLD_US = 5_000  # smaller ones belong to a clock that is slewed
GRANTED_NS = 25_000_000_000  # beyond its lease: longer than any window of an account's limit
LEAP_HOLD_US = 1_100_000  # as prelude.lua for a jump it sees itself: the longest window of an account's limit


class LaneServer:
    """Serves one lane until told to drain."""

    def __init__(self, parts: LaneParts, *, suspended: Callable[[], bool]) -> None:
        self._p = parts
        self.lane: Lane = parts.plan.lane
        self._intake = Intake(self.lane, parts.venue, parts.worker)
        self._ahead = Overtaker(self._intake)
        self._routes: dict[str, Route] = {r.name: r for r in parts.venue.routes}
        self._shares = Shares({r.name: r.address for r in parts.venue.routes})
        self._addresses = {name for route in parts.venue.routes for name in route.address}
        self._lacking: set[str] = set()  # of the address' buckets, those without a unit for any call
        self._hurried = False
        self._leapt_us = parts.redis_clock.leapt_us
        self._gate = Gate(parts, self._spawn)
        self._trial = KeyTrial(parts, self._gate)
        self._carrier = Carrier(parts, self._gate)
        self._suspended = suspended
        self._wake = asyncio.Event()
        self._wanted = False  # a round, as soon as it wakes
        self._served = False  # a round was made
        self._reopened = False  # the lane is opened anew before the next one
        self._entries: list[RawEntry] = []
        self._more_behind = False  # the entries at hand are not all there are
        self._outcomes: list[Outcome] = []
        self._calls: set[asyncio.Task[None]] = set()
        self._free = {Stage.CANCEL: SLOTS, Stage.LOOK: SLOTS}
        self._wait_us = 0
        self._out_ns = parts.plan.lease_us * 1000 + GRANTED_NS  # for so long what was granted may be out
        self._granted_ns = -self._out_ns  # when the last call was, or one by another may have been forgotten
        self._calls_left = 0  # that the last take could have filled, too
        self._batches = 0
        self._turn = Turn(parts.suspects)
        self._breath = Breath()
        self._ends = OrderEnds(parts.ledger, self._carrier, self._spawn, self._settle)
        self._draining = False
        self._closed_until_ns = 0
        self._log = log.bind(lane=str(self.lane))
        self.cursor = "0-0"
        self.head_start = HeadStart()
        self.on_rest: Callable[[], None] = lambda: None

    # -- the loop ---------------------------------------------------------------------------------------------

    async def data_version(self, raise_to: int = 0) -> int:
        """Of which version the lane's data are; raised to at least `raise_to`, if it is given. Raises RedisError."""
        return await self._p.ledger.version(raise_to)

    async def open(self) -> None:
        """Creates what is missing and learns where the lane stands. Raises RedisError."""
        self.cursor = await self._p.ledger.open()
        begun_ns = monotonic_ns()
        wall_us = await self._p.ledger.arrive(self._p.redis_clock.vouched_us)
        self._p.redis_clock.learn(begun_ns, monotonic_ns(), wall_us)

    async def serve(self) -> None:
        """Rounds until drained. A Redis that is away is waited for; nothing is sent meanwhile. Raises NewerDataError
        once the lane's data are of a newer version."""
        await self._p.egress.fill()
        await self._gate.know_venue_time()
        if self._p.new_key:
            await self._try_key()
        stream = self._open_stream()
        listening = asyncio.ensure_future(stream.serve()) if stream else None
        watching = asyncio.ensure_future(KeyWatch(self._p, self._gate, self._close).serve())
        try:
            await self._rounds()
        finally:
            self._turn.end()
            self._p.egress.wait_no_more(self.look)
            watching.cancel()
            if stream and listening:
                stream.stop()
                listening.cancel()
                await asyncio.wait({listening}, timeout=1.5)

    def _close(self, hold: Hold) -> None:
        """Closes the lane for the whole fleet, in the next round."""
        self._settle(Outcome(Settlement(None, [], holds=[hold]), monotonic_ns()))

    def _settle(self, outcome: Outcome) -> None:
        """In a round that is made at once."""
        self._outcomes.append(outcome)
        self.look()

    async def _try_key(self) -> None:
        """Where the key before this one was refused: this one is tried, as `resume` would have it."""
        with contextlib.suppress(RedisError, OSError):
            await self._p.ledger.ask_probe()

    def _open_stream(self) -> LaneStream | None:
        parts, stream = self._p, self._p.venue.stream
        if stream is None or not parts.ws_url:
            return None
        place = StreamPlace(parts.egress, stream, f"{self.lane} {parts.worker} {parts.tag}")
        return LaneStream(
            StreamParts(
                str(self.lane), stream, parts.ws_url, parts.worker, parts.ledger, place, parts.venue_clock, parts.tls,
                self._gate.call_aside, self._ends.pushed, parts.open_socket,
            )
        )  # fmt: skip

    async def _rounds(self) -> None:
        while not self._drained:
            try:
                if self._reopened:
                    await self._open_anew()
                async with self._p.rounds.turn(self._hurries):
                    done = await self._round()
            except (RedisError, OSError) as error:
                await self._redis_away(error)
                continue
            if done.granted:
                # It leaves first: one turn of the loop takes a call to its door, one through it.
                await asyncio.sleep(0)
                await asyncio.sleep(0)
            self._count(done)
            await self._rest()

    async def _open_anew(self) -> None:
        if self._served and await self._p.ledger.forgotten():
            waits_us = self._p.plan.lease_us + self._p.plan.window_us
            self._close(Hold("*", "restart", waits_us, "the server has lost the lane's data: calls may be out"))
        self._stands(await self._p.ledger.open(), monotonic_ns())
        self._reopened = False

    @property
    def _drained(self) -> bool:
        return self._draining and not self._calls and not self._outcomes

    def _hurries(self) -> bool:
        """Whether something urgent waits for the next round."""
        urgent, _ = _by_urgency(self._outcomes)
        return self._ahead.found or bool(urgent) or any(b"urgent" in fields for _, fields in self._entries)

    def drain(self) -> None:
        """Takes nothing new; `serve` returns when what was sent is settled."""
        self._draining = self._carrier.draining = True
        self._p.egress.wait_no_more(self.look)
        self.look()

    def deliver(self, after: str, entries: list[RawEntry], more: bool = False) -> None:
        """Entries the watcher has read after `after`; whether there may be more behind them."""
        if after == self.cursor and not self._entries:
            self._entries, self._more_behind = entries, more
            if self.head_start.second:
                self._wake.set()  # it sees first whether they are left to it
            else:
                self.look()

    def reopen(self) -> None:
        """The server was away for a moment: it may have lost its last writes, or be another one."""
        self._reopened = True
        self.look()

    def look(self) -> None:
        """Has the lane look at once at what there is to do."""
        self._wanted = True
        self._wake.set()

    @property
    def idle(self) -> bool:
        """Whether the lane has room for entries of its inbox."""
        return not self._entries and not self._intake_closed()

    def _intake_closed(self) -> bool:
        return monotonic_ns() < self._closed_until_ns

    async def _round(self) -> _Done:
        """One trip to Redis, and what came of it; nothing came of one that fails."""
        wanted, outcomes, reserved = self._ask()
        asked_ns = monotonic_ns()
        wanted.settlements = [_aged(o, asked_ns) for o in outcomes]
        try:
            reply = await self._p.ledger.round(wanted)
        except BaseException:
            self._outcomes = outcomes + self._outcomes
            for units in reserved:
                self._p.egress.release(units)
            self._turn.round_over()
            raise
        done = _Done(wanted, reply, asked_ns, monotonic_ns())
        self._breath.round_took(done.back_ns - asked_ns)
        self._settled(outcomes, reply.settled)
        self._ahead.scanned(reply.scanned)
        if wanted.overtaking:
            self._ahead.overtook(wanted.overtaking, reply.overtook)
        elif wanted.read_after or wanted.admission:
            self._admitted(reply, done.back_ns)
        if reply.cursor is not None:
            self._stands(reply.cursor, done.back_ns)
        self._all_taken(done, reserved)
        self._heed_leap()
        self._served = True
        return done

    def _ask(self) -> tuple[RoundRequest, list[Outcome], list[Reservation]]:
        """What the next round is for: its settlements are those of the outcomes, its takes have the address' units set
        aside beforehand."""
        # What was wanted until now is seen to here; only what comes meanwhile asks for another round.
        self._wake.clear()
        self._wanted = False
        intake = not self._draining and not self._intake_closed()
        overtaking = self._ahead.wanted() if intake else None
        wanted = RoundRequest(overtaking=overtaking)
        # What is urgent does not wait for a page of what is not: neither to be admitted nor for its next call.
        urgent, others = _by_urgency(self._outcomes)
        if self._entries and intake and not overtaking and not any(outcome.urgent for outcome in urgent):
            wanted.admission = self._intake.prepare(self.cursor, self._entries, self._ahead.overtaken)
            if self._more_behind and not self.head_start.second:
                wanted.scan_after = self._ahead.scan_after(wanted.admission.last)
        # Never twice in a row: the leases of the others do not wait for ever.
        self._hurried = bool(urgent and others) and not self._hurried
        reserved: list[Reservation] = []
        if not self._draining:
            takes = self._takes(1 if self._hurried else self._breath.takes)
            wanted.takes, reserved = [take for take, _ in takes], [units for _, units in takes]
        if intake and (wanted.admission or not (self._entries or overtaking)):
            if self.head_start.may_admit(monotonic_ns()):
                wanted.read_after = wanted.admission.last if wanted.admission else self.cursor
                wanted.among = self._p.rounds.waiting + 1
            else:
                wanted.standing = True
        outcomes, self._outcomes = (urgent, others) if self._hurried else (self._outcomes, [])
        return wanted, outcomes, reserved

    def _count(self, done: _Done) -> None:
        wanted, reply = done.wanted, done.reply
        metrics, now_us = self._p.metrics, self._p.redis_clock.at_us(done.back_ns)
        metrics.round(done.back_ns - done.asked_ns)
        metrics.admission(reply.overtook)
        metrics.admission(reply.admitted)
        for settlement, settled in zip(wanted.settlements, reply.settled, strict=True):
            if isinstance(settled, Settled):
                metrics.settled(settlement, settled, now_us)

    async def _rest(self) -> None:
        """Until something can happen: a due time, new entries, a call that came back."""
        if self._outcomes or (self._entries and not self._draining) or (self._wait_us == 0 and not self._draining):
            await asyncio.sleep(0)
            return
        if self._drained:
            return
        until_s = monotonic_s() + (self._wait_us + self.head_start.us) / 1e6
        if self.head_start.second:
            await self._stand_by(until_s)
        else:
            await self._woken(until_s)

    async def _woken(self, until_s: float) -> None:
        """Until the lane is woken, or that moment of the monotonic clock."""
        self.on_rest()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(until_s - monotonic_s()):
                await self._wake.wait()
        self._wake.clear()

    async def _stand_by(self, until_s: float) -> None:
        """As the second watcher: until there is something that the first does not do."""
        through_s = inf
        while not self._wanted:
            await self._woken(min(until_s, through_s))
            if self._wanted or monotonic_s() >= until_s:
                return
            if self._entries:
                await asyncio.sleep(self.head_start.us / 1e6)
            open_ = await self._let_first_go()
            if self._entries or (open_ and monotonic_s() >= through_s):
                return
            through_s = min(through_s, monotonic_s() + THROUGH_US / 1e6) if open_ else inf

    async def _let_first_go(self) -> bool:
        """As the second watcher: entries that the first has admitted meanwhile need nobody else. Whether intents are
        open."""
        try:
            cursor, open_ = await self._p.ledger.standing()
        except (RedisError, OSError):
            return True
        self._stands(cursor, monotonic_ns())
        return open_

    def _stands(self, cursor: str, at_ns: int) -> None:
        """Where the admission stands, which another watcher may have moved."""
        if entry_order(cursor) < entry_order(self.cursor):
            # The server has lost what it had last: others may stand between, and calls be out that it does not know.
            self._entries, self._granted_ns = [], monotonic_ns()
        self.cursor = cursor
        self.head_start.saw(cursor, at_ns)
        self._entries = [e for e in self._entries if entry_order(e[0]) > entry_order(cursor)]

    async def _redis_away(self, error: Exception) -> None:
        if isinstance(error, ResponseError):
            self._log.error("Redis refuses the lane's round; nothing is sent until it does not", error=str(error)[:200])
        else:
            self._log.warning("Redis cannot be reached; nothing is sent until it is back", error=str(error)[:200])
        self._p.metrics.redis_away()
        self._entries = []
        self._ahead.forget()
        self._drop_hopeless()
        self._reopened = True
        await asyncio.sleep(0.25)

    def _drop_hopeless(self) -> None:
        """Settlements whose lease is long over: others look after those intents."""
        for outcome in self._outcomes:
            outcome.tries += 1
        most = 10 if self._draining else 240
        if any(o.tries >= most for o in self._outcomes):
            self._turn.end()
        self._outcomes = [o for o in self._outcomes if o.tries < most]

    # -- admit --------------------------------------------------------------------------------------------------

    def _admitted(self, reply: Round, back_ns: int) -> None:
        result = reply.admitted
        self._more_behind = reply.more
        if result is None:
            self._entries = reply.entries
        elif isinstance(result, Admitted) and result.overtaken is not None:
            self._ahead.overtaken = set(result.overtaken)
        elif isinstance(result, Admitted):
            self.cursor = result.cursor
            self._ahead.passed(result.cursor)
            self._entries = reply.entries if result.applied else []
            if result.applied:
                self.head_start.moved(result.cursor)
            else:
                self.head_start.saw(result.cursor, back_ns)
        elif is_memory_full(result):
            self._log.error("Redis' memory is full: the intake is closed until there is room", error=str(result)[:200])
            self._close_intake()
        else:
            self._log.error("admission refused by Redis", error=str(result)[:300])
            self._close_intake()

    def _close_intake(self) -> None:
        """For a moment: the entries stay in the inbox and are read again."""
        self._entries = []
        self._closed_until_ns = monotonic_ns() + INTAKE_PAUSE_NS
        asyncio.get_running_loop().call_later(INTAKE_PAUSE_NS / 1e9, self.look)

    # -- take ---------------------------------------------------------------------------------------------------

    def _takes(self, most: int) -> list[tuple[TakeRequest, Reservation]]:
        """What is asked for in this round, each with its address' units set aside beforehand."""
        takes: list[tuple[TakeRequest, Reservation]] = []
        self._lacking.clear()
        for n in range(max(1, min(most, self._calls_left)) if self._wait_us == 0 else 1):
            stages = "" if self._breath.left_us else "".join(s.value for s in Stage if self._free[s] > n)
            if not stages and n:
                break
            reserved = self._p.egress.reserve(self.look)
            closed, kept = self._shares.without(reserved)
            if n and len(closed) + len(kept) >= len(self._routes):
                self._p.egress.release(reserved)
                break
            self._lacking |= self._p.egress.lacking(reserved) & self._addresses
            self._batches += 1
            suspects, batch_id = n == 0 and self._turn.ask(), f"{self._p.tag}-{self._batches:x}"
            reaches = self._p.cancel_door.reached and self._p.look_door.reached
            granted = monotonic_ns() - self._granted_ns < self._out_ns
            request = TakeRequest(stages, batch_id, self._suspended(), closed, kept, suspects, reaches, granted)
            takes.append((request, reserved))
            if not stages:
                break
        return takes

    def _all_taken(self, done: _Done, reserved: Sequence[Reservation]) -> None:
        self._wait_us = 2_000_000
        for taken, units in zip(done.reply.taken, reserved, strict=True):
            if isinstance(taken, RedisError):
                self._log.error("take refused by Redis", error=str(taken))
                self._wait_us = 500_000
            else:
                self._p.redis_clock.learn(done.asked_ns, done.back_ns, taken.wall_us)
                self._carrier.streamed = taken.streamed
                self._turn.took(taken)
                for id_ in taken.given_up:
                    self._log.error("unresolved: a person must look", id=id_, detail="every worker that took it ended")
                    self._p.metrics.given_up()
                self._taken(taken, units, done.asked_ns, done.back_ns)
            self._p.egress.release(units)
        self._turn.round_over()

    def _taken(self, taken: Taken, reserved: Reservation, asked_ns: int, back_ns: int) -> None:
        self._wait_us, self._calls_left = taken.wait_us, taken.more
        if left_us := self._breath.left_us:
            self._wait_us = min(self._wait_us, left_us)
        if self._lacking and (again_us := self._p.egress.look_again_us):
            self._wait_us = min(self._wait_us, again_us)
        elif taken.starved:
            # The address' units ran out or grew old; more are on their way, if the venue's limit allows.
            self._p.egress.wait(self._lacking, self.look, reserved if taken.urgent else None)
        if taken.steps:
            self._outcomes.append(Outcome(Settlement(None, self._local_ends(taken.steps)), back_ns))
        if taken.stopped:
            self._spawn(self._trial.on_demand())
        if taken.batch:
            self._free[taken.batch.stage] -= 1
            self._granted_ns = back_ns
            route = self._routes[taken.batch.route]
            ticket = self._p.egress.use(reserved, route.address)
            leapt = self._p.redis_clock.leapt_us != self._leapt_us
            call = Call.of(taken.batch, route, ticket, asked_ns, back_ns)
            self._spawn(self._give_back(call) if leapt else self._carry(call))

    def _heed_leap(self) -> None:
        """The server's clock may have gone ahead. Also where nothing was granted just now: what is granted next may
        stand for a permit that is still out."""
        leapt_us = self._p.redis_clock.leapt_us - self._leapt_us
        if not leapt_us:
            return
        self._leapt_us += leapt_us
        if leapt_us >= LEAP_TOLD_US:
            self._log.warning("the server's clock went ahead", by_ms=leapt_us // 1000)
        self._close(Hold("*", "leap", min(leapt_us, LEAP_HOLD_US), "the server clock went ahead"))
        self._spawn(self._p.egress.ahead(self._leapt_us))

    async def _give_back(self, call: Call) -> None:
        """The server's clock went ahead, by less than its scripts can tell from a lane at rest: permits that are out
        counted as free too early, and this one may stand for one of them. `_heed_leap` closes the lane for as long."""
        self._outcomes.append(self._carrier.given_back(call))
        self._free[call.batch.stage] += 1

    def _spawn(self, job: Coroutine[object, object, None]) -> None:
        task: asyncio.Task[None] = asyncio.ensure_future(job)
        self._calls.add(task)
        task.add_done_callback(self._call_ended)

    def _call_ended(self, task: asyncio.Task[None]) -> None:
        self._calls.discard(task)
        error = None if task.cancelled() else task.exception()
        if error:
            # Nothing was settled: the lease ends, others look, and after three such ends the intent is parked.
            self._log.error("a call ended in an error", error=repr(error)[:300], exc_info=error)
        self.look()

    def _local_ends(self, steps: Sequence[LocalStep]) -> list[End | Move]:
        ends: list[End | Move] = []
        for step in steps:
            status, detail = _LOCAL_ENDS[step.why]
            ends.append(self._local_end(step.work, status, detail))
            if step.target:
                by = f"withdrawn by {step.work.id} before anything was sent"
                ends.append(self._local_end(step.target, Status.revoked, by))
        return ends

    def _local_end(self, work: Work, status: Status, detail: str) -> End:
        state = work.before
        if status is Status.unresolved:
            self._log.error("unresolved: a person must look", id=work.id, detail=detail)
        event = self._carrier.event(work, state, status, "local", detail)
        orders = () if work.record["scope"] == "revoke" else state.orders
        return End(work, event, state.attempts > 0, False, orders)

    # -- cancel and confirm ---------------------------------------------------------------------------------------

    async def _carry(self, call: Call) -> None:
        """One call, from its permit to its settlement."""
        try:
            outcome = await self._carrier.carry(call)
            if not self._draining and not self._p.egress.is_closed(call.ticket):  # this process was not slow then
                (self._breath.late if outcome.unsent else self._breath.sent)()
            self._outcomes.append(outcome)  # not in one line: the list may be another one after the wait
        except BaseException:
            self._turn.over(call.batch.id)
            raise
        finally:
            self._free[call.batch.stage] += 1

    def _settled(self, outcomes: list[Outcome], replies: list[Settled | RedisError]) -> None:
        for outcome, reply in zip(outcomes, replies, strict=True):
            if isinstance(reply, RedisError):
                self._settle_again(outcome, reply)
                continue
            if outcome.settlement.permit:
                self._turn.over(outcome.settlement.permit.member)
            if reply.others:
                self._ends.know(outcome.ended)

    def _settle_again(self, outcome: Outcome, error: RedisError) -> None:
        """Redis refused a settlement (read-only, busy, loading): a little later, as long as its lease may live."""
        outcome.tries += 1
        self._log.error("settle refused by Redis", error=str(error)[:300], tries=outcome.tries)
        if outcome.tries < SETTLE_TRIES:
            self._spawn(self._later(outcome))
        else:
            self._turn.end()

    async def _later(self, outcome: Outcome) -> None:
        await asyncio.sleep(0.25)
        self._outcomes.append(outcome)

    @property
    def venue(self) -> Venue:
        """The adapter of the lane's account."""
        return self._p.venue

    async def call_aside(self, request: Request) -> Answer:
        """One signed call that no route makes. Raises NotSent, NoAnswer."""
        return await self._gate.call_aside(request)

    async def keep_warm(self, lanes: int) -> bool:
        """Keeps connections to the venue open, for as many lanes of its host. False if a call failed."""
        return await self._gate.keep_warm(lanes)

    async def trim(self, keep_ms: int, dedup_hours: int) -> None:
        """Drops what is old from the lane's streams and memory."""
        await self._p.ledger.trim(keep_ms, dedup_hours, wall_ns() // 1_000_000)


@dataclass(frozen=True, slots=True)
class _Done:
    """A round, and when it was asked and answered."""

    wanted: RoundRequest
    reply: Round
    asked_ns: int
    back_ns: int

    @property
    def granted(self) -> bool:
        """Whether a call may leave."""
        return any(isinstance(taken, Taken) and taken.batch for taken in self.reply.taken)


_LOCAL_ENDS = {
    "expired": (Status.expired, "expires_at_ms passed before anything was sent"),
    "struck": (Status.unresolved, "three workers ended while they had this intent; a person must look"),
    "revoke-claimed": (Status.revoked, "its target was withdrawn before anything was sent"),
    "revoke-sent": (Status.rejected, "already sent: the target was sent, or is on its way, and cannot be withdrawn"),
    "revoke-ended": (Status.rejected, "already sent, or settled without being sent: the target has its outcome"),
    "revoke-unknown": (Status.rejected, "unknown: no intent with that id was queued here"),
}


def _by_urgency(outcomes: Sequence[Outcome]) -> tuple[list[Outcome], list[Outcome]]:
    """Those with which something urgent goes on, or that close something, and the others."""
    urgent: list[Outcome] = []
    others: list[Outcome] = []
    for outcome in outcomes:
        (urgent if outcome.urgent or outcome.settlement.holds else others).append(outcome)
    return urgent, others


def _aged(outcome: Outcome, now_ns: int) -> Settlement:
    """The settlement, with its permit's answer as old as it is now."""
    settlement = outcome.settlement
    if settlement.permit:
        settlement.permit = replace(settlement.permit, ago_us=max(0, now_ns - outcome.answered_ns) // 1000)
    return settlement
