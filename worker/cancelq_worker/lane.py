"""A lane: one venue account, served in rounds.

    admit ─► take ─► cancel ─► judge ─► settle
                        ▲                 │ unclear, or only acknowledged
                        └──── confirm ◄───┘

One round is one trip to Redis: it settles what came back from the venue, admits what producers asked, takes a
permit with the orders its call can carry, and reads the inbox. Each call then runs as a task of its own and
leaves its settlement for a later round. Any number of workers may serve a lane; nothing here is owned.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import time
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass, field, replace

import structlog
from redis.exceptions import RedisError

from cancelq.contract import Lane, Status
from cancelq_worker import events
from cancelq_worker.clocks import RemoteClock
from cancelq_worker.egress import Egress, Ticket
from cancelq_worker.http import Door, Exchange, NoAnswer, NotSent
from cancelq_worker.intake import Intake
from cancelq_worker.ledger import (
    Admitted,
    Batch,
    End,
    Hold,
    LanePlan,
    Ledger,
    LocalStep,
    Move,
    PermitUse,
    RawEntry,
    Round,
    Settled,
    Settlement,
    Taken,
    TakeRequest,
    is_memory_full,
)
from cancelq_worker.state import State, Work
from cancelq_worker.streaming import LaneStream, StreamParts
from cancelq_worker.venues.port import (
    ABOUT_THE_CALL,
    Answer,
    Bucket,
    Push,
    Reply,
    Request,
    Route,
    Signed,
    Stage,
    Target,
    Venue,
    Word,
)
from cancelq_worker.verdict import Finish, Judge, Moment, Silence, Verdict, ended_by_push, learn

log = structlog.get_logger("cancelq.lane")

SEND_BY_MS = 500  # a call that has not left by then gives its permit back
MARGIN_MS = 2_000  # between the longest call and the end of its lease
SETTLE_TRIES = 40
OTHERS = 100  # intents of one order that are ended in one script
SLOTS = 8  # calls in flight per stage, one connection each
INTAKE_PAUSE_NS = 500_000_000  # after Redis refused an admission
TAKES = 4  # takes in one round under backlog
CLOCK_MENDED_NS = 300_000_000  # calls taken sooner after a clock fault were perhaps signed by the old clock
PUSH_KEPT_NS = 10_000_000_000  # how long a push waits for an intent's call to end
PUSH_AGAIN_S = 0.02
OWN_SAMPLES = 5  # round trips of one's own before the fleet's fastest may be relied on


@dataclass(slots=True)
class Outcome:
    """A call's settlement, waiting for its round. `answered_ns`: when the venue answered or was given up."""

    settlement: Settlement
    answered_ns: int
    ended: dict[str, Finish] = field(default_factory=dict)
    tries: int = 0


@dataclass(frozen=True, slots=True)
class LaneParts:
    """What a lane is made of."""

    plan: LanePlan
    ledger: Ledger
    venue: Venue
    judge: Judge
    cancel_door: Door
    look_door: Door
    venue_clock: RemoteClock
    redis_clock: RemoteClock
    egress: Egress
    worker: str
    tag: str  # short and unique to this process: batch ids begin with it
    ws_url: str | None = None
    tls: ssl.SSLContext | None = None


class LaneServer:
    """Serves one lane until told to drain."""

    def __init__(self, parts: LaneParts, *, suspended: Callable[[], bool]) -> None:
        self._p = parts
        self.lane: Lane = parts.plan.lane
        self._intake = Intake(self.lane, parts.venue, parts.worker)
        self._routes: dict[str, Route] = {r.name: r for r in parts.venue.routes}
        self._addresses = {r.address for r in parts.venue.routes}
        self._short_of_address = False
        self._buckets: dict[str, Bucket] = {b.name: b for b in parts.venue.buckets}
        self._paged = {kind for r in parts.venue.routes if r.downwards for kind in r.kinds}
        self._suspended = suspended
        self._total_s = (parts.plan.lease_us // 1000 - SEND_BY_MS - MARGIN_MS) / 1000
        self._wake = asyncio.Event()
        self._entries: list[RawEntry] = []
        self._outcomes: list[Outcome] = []
        self._calls: set[asyncio.Task[None]] = set()
        self._free = {Stage.CANCEL: SLOTS, Stage.LOOK: SLOTS}
        self._samples: dict[str, int] = {}
        self._wait_us = 0
        self._batches = 0
        self._refusals: dict[str, tuple[int, int]] = {}
        self._clock_fault_ns = 0
        self._streamed = False
        self._told: dict[str, tuple[Finish, int]] = {}
        self._telling = False
        self._draining = False
        self._closed_until_ns = 0
        self._log = log.bind(lane=str(self.lane))
        self.cursor = "0-0"
        self.hesitate_us = 0  # set for the second watcher of a lane: it leaves the first one a head start
        self.on_rest: Callable[[], None] = lambda: None

    # -- the loop ---------------------------------------------------------------------------------------------

    async def open(self) -> None:
        """Creates what is missing and learns where the lane stands. Raises RedisError."""
        self.cursor = await self._p.ledger.open()

    async def serve(self) -> None:
        """Rounds until drained. A Redis that is away is waited for; nothing is sent meanwhile."""
        await self._p.egress.fill()
        if not self._p.venue_clock.known:
            await self.read_venue_time()
        stream = self._open_stream()
        listening = asyncio.ensure_future(stream.serve()) if stream else None
        try:
            await self._rounds()
        finally:
            if stream and listening:
                stream.stop()
                await asyncio.wait({listening}, timeout=2.0)
                listening.cancel()

    def _open_stream(self) -> LaneStream | None:
        parts, stream = self._p, self._p.venue.stream
        if stream is None or not parts.ws_url:
            return None
        return LaneStream(
            StreamParts(
                str(self.lane), stream, parts.ws_url, parts.worker, parts.ledger, parts.venue_clock, parts.tls,
                self.call_aside, self.pushed,
            )
        )  # fmt: skip

    async def _rounds(self) -> None:
        while not (self._draining and not self._calls and not self._outcomes):
            try:
                await self._round()
            except (RedisError, OSError) as error:
                await self._redis_away(error)
                continue
            await self._rest()

    def drain(self) -> None:
        """Takes nothing new; `serve` returns when what was sent is settled."""
        self._draining = True
        self._wake.set()

    def deliver(self, after: str, entries: list[RawEntry]) -> None:
        """Entries the watcher has read after `after`."""
        if after == self.cursor and not self._entries:
            self._entries = entries
            self._wake.set()

    def keep_ready(self) -> None:
        """Called by the engine's heartbeat: an idle lane must not have to wait for its first call's share."""
        for route in self._p.venue.routes:
            self._p.egress.left(route.address)

    @property
    def idle(self) -> bool:
        """Whether the lane has room for entries of its inbox."""
        return not self._entries and not self._intake_closed()

    def _intake_closed(self) -> bool:
        return time.monotonic_ns() < self._closed_until_ns

    async def _round(self) -> None:
        intake = not self._draining and not self._intake_closed()
        admission = self._intake.prepare(self.cursor, self._entries) if self._entries and intake else None
        takes = [] if self._draining else self._takes()
        read_after = (admission.last if admission else self.cursor) if intake else None
        outcomes, self._outcomes = self._outcomes, []
        now_ns = time.monotonic_ns()
        settlements = [_aged(o, now_ns) for o in outcomes]
        try:
            reply = await self._p.ledger.round(settlements, admission, takes, read_after)
        except BaseException:
            self._outcomes = outcomes + self._outcomes
            raise
        back_ns = time.monotonic_ns()
        self._settled(outcomes, reply.settled)
        self._admitted(reply)
        self._wait_us = 2_000_000
        for taken in reply.taken:
            if isinstance(taken, RedisError):
                self._log.error("take refused by Redis", error=str(taken))
                self._wait_us = 500_000
            else:
                self._p.redis_clock.learn(now_ns, back_ns, taken.wall_us)
                self._streamed = taken.streamed
                self._taken(taken, now_ns, back_ns)

    async def _rest(self) -> None:
        """Until something can happen: a due time, new entries, a call that came back."""
        if self._outcomes or (self._entries and not self._draining) or (self._wait_us == 0 and not self._draining):
            await asyncio.sleep(0)
            return
        if self._calls:
            # What was granted leaves first: one turn of the loop takes a call to its door, one through it.
            await asyncio.sleep(0)
            await asyncio.sleep(0)
        self.on_rest()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout((self._wait_us + self.hesitate_us) / 1e6):
                await self._wake.wait()
        self._wake.clear()
        if self.hesitate_us and self._entries:
            await self._let_first_go()

    async def _let_first_go(self) -> None:
        """As the second watcher: entries that the first has admitted meanwhile need nobody else."""
        await asyncio.sleep(self.hesitate_us / 1e6)
        try:
            self.cursor = await self._p.ledger.cursor()
        except (RedisError, OSError):
            return
        self._entries = [e for e in self._entries if entry_order(e[0]) > entry_order(self.cursor)]

    async def _redis_away(self, error: Exception) -> None:
        self._log.warning("Redis cannot be reached; nothing is sent until it is back", error=str(error)[:200])
        self._entries = []
        self._drop_hopeless()
        await asyncio.sleep(0.25)
        with contextlib.suppress(RedisError, OSError):
            self.cursor = await self._p.ledger.open()
        self._entries = []  # whatever the watcher read meanwhile was read after another cursor

    def _drop_hopeless(self) -> None:
        """Settlements whose lease is long over: others look after those intents."""
        for outcome in self._outcomes:
            outcome.tries += 1
        most = 10 if self._draining else 240
        self._outcomes = [o for o in self._outcomes if o.tries < most]

    # -- admit --------------------------------------------------------------------------------------------------

    def _admitted(self, reply: Round) -> None:
        result = reply.admitted
        if result is None:
            self._entries = reply.entries
        elif isinstance(result, Admitted):
            self.cursor = result.cursor
            self._entries = reply.entries if result.applied else []
            if not result.applied:
                self._wait_us = 0
        elif is_memory_full(result):
            self._log.error("Redis' memory is full: the intake is closed until there is room", error=str(result)[:200])
            self._close_intake()
        else:
            self._log.error("admission refused by Redis", error=str(result)[:300])
            self._close_intake()

    def _close_intake(self) -> None:
        """For a moment: the entries stay in the inbox and are read again."""
        self._entries = []
        self._closed_until_ns = time.monotonic_ns() + INTAKE_PAUSE_NS
        asyncio.get_running_loop().call_later(INTAKE_PAUSE_NS / 1e9, self._wake.set)

    # -- take ---------------------------------------------------------------------------------------------------

    def _takes(self) -> list[TakeRequest]:
        most = TAKES if self._wait_us == 0 else 1
        left = {address: self._p.egress.left(address) for address in self._addresses}
        requests = []
        for n in range(most):
            closed = tuple(r.name for r in self._routes.values() if left[r.address] <= n)
            open_ = len(closed) < len(self._routes)
            stages = "".join(s.value for s in Stage if self._free[s] > n) if open_ else ""
            if stages or n == 0:
                self._batches += 1
                requests.append(TakeRequest(stages, f"{self._p.tag}-{self._batches:x}", self._suspended(), closed))
        self._short_of_address = any(count < 1 for count in left.values())
        return requests

    def _taken(self, taken: Taken, asked_ns: int, back_ns: int) -> None:
        self._wait_us = taken.wait_us
        if self._short_of_address:
            # The address' units ran out or grew old; more are on their way, if the venue's limit allows.
            self._wait_us = min(self._wait_us, max(5_000, min(self._p.egress.held_ms, 500) * 1000))
        if taken.steps:
            self._outcomes.append(Outcome(Settlement(None, self._local_ends(taken.steps)), back_ns))
        if taken.stopped:
            self._spawn(self._probe())
        if taken.batch:
            self._free[taken.batch.stage] -= 1
            ticket = self._p.egress.use(self._routes[taken.batch.route].address)
            self._spawn(self._carry(taken.batch, ticket, asked_ns, back_ns))

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
        self._wake.set()

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
        event = self._event(work, state, status, "local", detail)
        orders = () if work.record["scope"] == "revoke" else state.orders
        return End(work, event, state.attempts > 0, False, orders)

    # -- cancel and confirm ---------------------------------------------------------------------------------------

    async def _carry(self, batch: Batch, ticket: Ticket, asked_ns: int, back_ns: int) -> None:
        """One call, from its permit to its settlement."""
        call = _Call(batch, self._routes[batch.route], _by_order(batch.works), ticket, asked_ns, back_ns)
        try:
            outcome = await self._exchange(call)
            self._outcomes.append(outcome)  # not in one line: the list may be another one after the wait
        finally:
            self._free[batch.stage] += 1

    async def _exchange(self, call: _Call) -> Outcome:
        batch, route = call.batch, call.route
        targets = [self._target(group[0], call) for group in call.groups]
        request = self._p.venue.encode(route, targets)
        if batch.fastest_us and self._samples.get(route.bucket, 0) < OWN_SAMPLES:
            await asyncio.sleep(batch.fastest_us / 1e6)
        left_s = SEND_BY_MS / 1000 - (time.monotonic_ns() - call.asked_ns) / 1e9
        if left_s <= 0 or self._draining:
            return self._given_back(call)
        signed = self._p.venue.sign(request, self._p.venue_clock.now_us() // 1000)
        door = self._p.cancel_door if batch.stage is Stage.CANCEL else self._p.look_door
        sent_ns = time.monotonic_ns()
        try:
            exchange = await door.call(signed, connect_s=left_s, total_s=self._total_s)
        except NotSent as error:
            return self._not_sent(call, str(error))
        except NoAnswer as error:
            self._p.egress.ended(call.ticket, time.monotonic_ns(), answered=False)
            return self._no_answer(call, sent_ns, str(error))
        self._p.egress.ended(call.ticket, exchange.answered_ns, answered=True)
        return self._answered(call, targets, exchange)

    def _target(self, work: Work, call: _Call) -> Target:
        target = work.target
        if target.scope in ("symbol", "account"):
            clock = self._p.venue_clock
            asked_us = clock.at_us(self._p.redis_clock.when_ns(int(work.record["queued_us"])))
            # Entry ids and creation times are both whole milliseconds, rounded down.
            doubt_us = clock.uncertainty_us + self._p.redis_clock.uncertainty_us
            target.age_band_ms = ((asked_us - doubt_us) // 1000, (asked_us + 1_000 + doubt_us) // 1000 + 1)
            target.may_cancel = bool(work.before.notes.get("may", 1))
            target.may_bulk = work.before.attempts == 0
        return target

    def _answered(self, call: _Call, targets: list[Target], exchange: Exchange) -> Outcome:
        rtt_us = (exchange.answered_ns - exchange.sent_ns) // 1000
        replies = self._p.venue.decode(call.route, targets, exchange.answer)
        refused = any(r.word is Word.REFUSED for r in replies)
        self._samples[call.route.bucket] = self._samples.get(call.route.bucket, 0) + 1
        moment = self._moment(call, exchange.sent_ns, exchange.answered_ns)
        verdicts = [
            (work, self._judge(call, work, reply, moment))
            for group, reply in zip(call.groups, replies, strict=True)
            for work in group
        ]
        executed = not all(r.word in _NOT_EXECUTED for r in replies)
        how, error = "r" if refused else "a", next((r.error for r in replies if r.error), "")
        outcome = self._outcome(call, verdicts, how, rtt_us, exchange.answered_ns, executed, error)
        outcome.settlement.holds = self._holds(call, replies)
        self._report(call, replies, rtt_us, exchange.answer.status)
        return outcome

    def _judge(self, call: _Call, work: Work, reply: Reply, moment: Moment) -> Verdict:
        taken = self._taken_state(call, work)
        judge = self._p.judge.cancel if call.batch.stage is Stage.CANCEL else self._p.judge.look
        return judge(work.before, taken, work.record, reply, moment)

    def _taken_state(self, call: _Call, work: Work) -> State:
        batch = call.batch
        return work.taken(
            stage=batch.stage, batch_id=batch.id, route=batch.route, size=len(call.groups), taken_us=batch.taken_us
        )

    def _moment(self, call: _Call, sent_ns: int, answered_ns: int | None) -> Moment:
        steady_us = call.batch.steady_us + (time.monotonic_ns() - call.back_ns) // 1000
        clock = self._p.redis_clock
        answered_us = None if answered_ns is None else clock.at_us(answered_ns)
        return Moment(steady_us, clock.at_us(sent_ns), answered_us, self._streamed)

    def _given_back(self, call: _Call) -> Outcome:
        """Too late to send, or draining: as if it had never been taken."""
        self._p.egress.unuse(call.ticket)
        moment = self._moment(call, call.back_ns, None)
        verdicts = [(w, self._silent(call, w, Silence.NOT_SENT, moment)) for w in call.batch.works]
        return self._outcome(call, verdicts, "u", 0, time.monotonic_ns(), False)

    def _not_sent(self, call: _Call, why: str) -> Outcome:
        outcome = self._given_back(call)
        if why == "PoolTimeout":  # this process was too slow for its own connections; the venue is not at fault
            return outcome
        nth = self._count("unreachable")
        for_us = min(5_000_000, 250_000 * 2 ** min(nth, 6))
        outcome.settlement.holds = [Hold("*", "unreachable", for_us, "the venue could not be reached")]
        self._log.warning("the venue could not be reached", why=why, held_ms=for_us // 1000)
        return outcome

    def _no_answer(self, call: _Call, sent_ns: int, why: str) -> Outcome:
        moment = self._moment(call, sent_ns, None)
        verdicts = [(w, self._silent(call, w, Silence.NO_ANSWER, moment)) for w in call.batch.works]
        self._log.warning("no readable answer", route=call.batch.route, orders=len(call.groups), why=why)
        return self._outcome(call, verdicts, "n", 0, time.monotonic_ns(), True)

    def _silent(self, call: _Call, work: Work, why: Silence, moment: Moment) -> Verdict:
        taken = self._taken_state(call, work)
        return self._p.judge.silent(work.before, taken, work.record, call.batch.stage, why, moment)

    # -- settle -----------------------------------------------------------------------------------------------------

    def _outcome(
        self,
        call: _Call,
        verdicts: list[tuple[Work, Verdict]],
        how: str,
        rtt_us: int,
        at_ns: int,
        executed: bool,
        error: str = "",
    ) -> Outcome:
        route = call.route
        permit = PermitUse(
            self._buckets[route.bucket],
            call.units,
            call.batch.id,
            how,
            rtt_us=rtt_us,
            error=error if route.errors else None,
        )
        ended: dict[str, Finish] = {}
        works = [self._settle(work, verdict, ended) for work, verdict in verdicts]
        keys: tuple[str, ...] = ()
        if call.batch.stage is Stage.CANCEL:
            keys = tuple({k for w in call.batch.works for k in w.before.orders})
        gap_us = self._p.venue.timing.gap_us
        return Outcome(Settlement(permit, works, keys, executed, gap_us), at_ns, ended)

    def _settle(self, work: Work, verdict: Verdict, ended: dict[str, Finish]) -> End | Move:
        state = verdict.state
        if isinstance(verdict, Finish):
            event = self._event(
                work, state, verdict.status, verdict.evidence, verdict.detail, verdict.reply, verdict.open_orders
            )
            orders = self._orders(work, state)
            if verdict.known:
                ended.update(dict.fromkeys(orders, verdict))
            if verdict.status is Status.unresolved:
                self._log.error("unresolved: a person must look", id=work.id, detail=verdict.detail)
            return End(work, event, state.attempts > 0, verdict.known, orders)
        tell = None
        if verdict.tell:
            tell = self._event(work, state, verdict.tell, "reply", verdict.detail, verdict.reply)
        orders = self._orders(work, state)
        new = orders[len(state.orders) :]
        state.orders = orders
        return Move(work, state, verdict.delay_us, tell, new, self._sort(work, state))

    def _sort(self, work: Work, state: State) -> str:
        """The order id a page of looks would reach it by."""
        order_id = work.record.get("order_id") or state.notes.get("oid", "")
        paged = state.stage is Stage.LOOK and state.look_class in self._paged
        return str(order_id) if paged and str(order_id).isdigit() else ""

    def _orders(self, work: Work, state: State) -> tuple[str, ...]:
        known = self._p.venue.order_keys(Target(work.record, state.notes))
        new = [key for key in known if key not in state.orders]
        return (*state.orders, *new) if new else state.orders

    def _event(
        self,
        work: Work,
        state: State,
        status: Status,
        evidence: str,
        detail: str,
        reply: Reply | None = None,
        open_orders: int | None = None,
    ) -> dict[str, str]:
        return events.event(
            self.lane, work.id, work.record, state, status, evidence, detail,
            worker=self._p.worker, endpoint=self._p.venue.endpoint(state.route), reply=reply, open_orders=open_orders,
        )  # fmt: skip

    def _settled(self, outcomes: list[Outcome], replies: list[Settled | RedisError]) -> None:
        for outcome, reply in zip(outcomes, replies, strict=True):
            if isinstance(reply, RedisError):
                self._settle_again(outcome, reply)
            elif reply.others:
                self._spawn(self._end_others(reply.others, outcome.ended))

    def _settle_again(self, outcome: Outcome, error: RedisError) -> None:
        """Redis refused a settlement (read-only, busy, loading): a little later, as long as its lease may live."""
        outcome.tries += 1
        self._log.error("settle refused by Redis", error=str(error)[:300], tries=outcome.tries)
        if outcome.tries < SETTLE_TRIES:
            self._spawn(self._later(outcome))

    async def _later(self, outcome: Outcome) -> None:
        await asyncio.sleep(0.25)
        self._outcomes.append(outcome)

    async def _end_others(self, ids: list[str], ended: dict[str, Finish]) -> None:
        """The end of an order ends every open intent that names it."""
        for at in range(0, len(ids), OTHERS):
            self._end_works(await self._p.ledger.claim(ids[at : at + OTHERS]), ended)

    def pushed(self, pushes: list[Push]) -> None:
        """What the order stream told: an order's end ends every intent that names it, also one not yet sent."""
        until_ns = time.monotonic_ns() + PUSH_KEPT_NS
        for push in pushes:
            finish = ended_by_push(push.reply)
            if finish:
                self._told.update(dict.fromkeys(push.keys, (finish, until_ns)))
        if self._told and not self._telling:
            self._telling = True
            self._spawn(self._tell_pushes())

    async def _tell_pushes(self) -> None:
        """Ends what pushes have named. An intent that is in a call at this moment is left to its call, which knows
        its own times, and ended right after it."""
        try:
            while self._told:
                keys = list(self._told)[:OTHERS]
                try:
                    works, left_alone = await self._p.ledger.claim_orders(keys)
                except (RedisError, OSError):
                    left_alone, works = 1, []
                self._end_works(works, {key: self._told[key][0] for key in keys})
                now_ns = time.monotonic_ns()
                for key in keys:
                    if not left_alone or self._told[key][1] < now_ns or self._draining:
                        del self._told[key]
                if left_alone:
                    await asyncio.sleep(PUSH_AGAIN_S)
        finally:
            self._telling = False

    def _end_works(self, works: Sequence[Work], ended: dict[str, Finish]) -> None:
        ends: list[End | Move] = []
        for work in works:
            orders = self._orders(work, work.before)
            finish = next((ended[key] for key in orders if key in ended), None)
            if finish:
                state = work.before.at_rest(work.fence)
                learn(state, finish.reply)
                event = self._event(work, state, finish.status, finish.evidence, finish.detail, finish.reply)
                ends.append(End(work, event, state.attempts > 0, True, orders))
            else:
                back = work.before.at_rest(work.fence)
                if work.before.taken == 1:  # its call may have been sent
                    back.stage = Stage.LOOK
                ends.append(Move(work, back, None))
        if ends:
            self._wake.set()
            self._outcomes.append(Outcome(Settlement(None, ends), time.monotonic_ns(), ended))

    # -- limits, keys, clocks -----------------------------------------------------------------------------------------

    def _count(self, what: str) -> int:
        """How often in a row something went wrong within ten seconds of the last time."""
        now_ns = time.monotonic_ns()
        count, last_ns = self._refusals.get(what, (0, 0))
        count = count + 1 if now_ns - last_ns < 10_000_000_000 else 0
        self._refusals[what] = (count, now_ns)
        return count

    def _holds(self, call: _Call, replies: list[Reply]) -> list[Hold]:
        """What the answer closes, for the whole fleet."""
        for reply in replies:
            said = f"{reply.code} {reply.text}".strip()[:160]
            if reply.word is Word.REFUSED:
                nth = self._count(call.route.bucket)
                for_us = self._asked_to_wait_us(reply) or min(300_000_000, 1_000_000 * 2 ** max(0, min(nth - 1, 9)))
                if reply.whole_address:
                    self._spawn(self._p.egress.hold(for_us // 1000, said))
                self._log.warning("over the venue's limit", bucket=call.route.bucket, held_ms=for_us // 1000, said=said)
                return [Hold("*" if reply.whole_address else call.route.bucket, "rate", for_us, said)]
            if reply.word is Word.ACCOUNT:
                return [self._auth_hold(said)]
            if reply.word is Word.CLOCK:
                return self._clock_fault(said, call.back_ns)
        return []

    def _asked_to_wait_us(self, reply: Reply) -> int:
        """For how long the venue wants no call, 0 if it does not say; at most a day."""
        wait_us = reply.retry_us
        if reply.retry_at_ms:
            wait_us = max(wait_us, reply.retry_at_ms * 1000 - self._p.venue_clock.now_us())
        return min(max(wait_us, 0), 86_400_000_000)

    def _auth_hold(self, said: str) -> Hold:
        self._log.error("the venue refuses the key or the account: the lane is held, its intents are kept", said=said)
        return Hold("*", "auth", -1, f"{said}; mend it, then: cancelq resume {self.lane}")

    def _clock_fault(self, said: str, taken_ns: int) -> list[Hold]:
        """Once: correct the clock and try again. Again within a minute, signed after the correction: it is not the
        clock."""
        now_ns = time.monotonic_ns()
        if taken_ns < self._clock_fault_ns + CLOCK_MENDED_NS:
            return [Hold("*", "clock", 300_000, said)]
        if self._clock_fault_ns and now_ns - self._clock_fault_ns < 60_000_000_000:
            return [self._auth_hold(said)]
        self._clock_fault_ns = now_ns
        self._p.venue_clock.forget()
        self._log.warning("the venue refused our time stamp: correcting the clock", said=said)
        self._spawn(self.read_venue_time())
        return [Hold("*", "clock", 300_000, said)]

    async def read_venue_time(self) -> None:
        """Learns the venue's clock, and keeps a connection of each door warm by the way. A venue that does not
        tell leaves what was known."""
        for door in (self._p.cancel_door, self._p.look_door):
            try:
                exchange = await self._aside(door, Signed(self._p.venue.time_request(), {}), total_s=1.5)
            except (NotSent, NoAnswer) as error:
                self._log.info("the venue's time could not be read", why=str(error))
                return
            told_ms = self._p.venue.read_time(exchange.answer)
            if told_ms is not None:
                self._p.venue_clock.learn(exchange.sent_ns, exchange.answered_ns, told_ms * 1000)

    async def call_aside(self, request: Request) -> Answer:
        """One signed call for the order stream. Raises NotSent, NoAnswer."""
        signed = self._p.venue.sign(request, self._p.venue_clock.now_us() // 1000)
        return (await self._aside(self._p.look_door, signed, total_s=self._total_s)).answer

    async def _aside(self, door: Door, signed: Signed, *, total_s: float) -> Exchange:
        """A call that no route makes: it has no permit, but counts for our address. Raises NotSent, NoAnswer."""
        egress, address = self._p.egress, self._p.venue.other_address
        if egress.left(address) < 1:
            raise NotSent("the address has no calls left for now")
        ticket = egress.use(address)
        try:
            exchange = await door.call(signed, connect_s=1.0, total_s=total_s)
        except NotSent:
            egress.unuse(ticket)
            raise
        except NoAnswer:
            egress.ended(ticket, time.monotonic_ns(), answered=False)
            raise
        egress.ended(ticket, exchange.answered_ns, answered=True)
        return exchange

    async def trim(self, keep_ms: int, dedup_hours: int) -> None:
        """Drops what is old from the lane's streams and memory."""
        await self._p.ledger.trim(keep_ms, dedup_hours, time.time_ns() // 1_000_000)

    async def _probe(self) -> None:
        """An operator wants the lane resumed: one harmless signed read shows whether the key works again."""
        if not await self._p.ledger.take_probe():
            return
        request = self._p.venue.probe_request()
        await self.read_venue_time()
        signed = self._p.venue.sign(request, self._p.venue_clock.now_us() // 1000)
        try:
            exchange = await self._aside(self._p.look_door, signed, total_s=self._total_s)
        except (NotSent, NoAnswer) as error:
            self._log.error("the lane stays held: the venue did not answer", why=str(error))
            return
        reply = self._p.venue.read_probe(exchange.answer)
        if reply.word is Word.OPEN:
            self._clock_fault_ns = 0
            await self._p.ledger.lift("auth")
            self._log.info("the key works: the lane is open")
        else:
            self._log.error("the lane stays held: the key was refused again", code=reply.code, said=reply.text)

    def _report(self, call: _Call, replies: list[Reply], rtt_us: int, status: int) -> None:
        words: dict[str, int] = {}
        for reply in replies:
            words[reply.word.value] = words.get(reply.word.value, 0) + 1
        self._log.debug(
            "call",
            route=call.batch.route,
            batch=call.batch.id,
            orders=len(call.groups),
            rtt_us=rtt_us,
            http=status,
            **words,
        )


@dataclass(frozen=True, slots=True)
class _Call:
    """A batch on its way: its intents by order, when it was asked for and when it was granted."""

    batch: Batch
    route: Route
    groups: list[list[Work]]
    ticket: Ticket
    asked_ns: int
    back_ns: int

    @property
    def units(self) -> int:
        """What the call costs in its bucket, as take.lua reckoned it."""
        route = self.route
        if route.by_class:
            counted = self.batch.works[0].before.cancel_class.rpartition(":")[2]
            return int(counted) if counted.isdigit() else 1
        return route.per_call + route.per_order * len(self.groups)


#: Words after which the venue has surely not touched the order: no gap is owed to it.
_NOT_EXECUTED = ABOUT_THE_CALL | {Word.SPLIT}

_LOCAL_ENDS = {
    "expired": (Status.expired, "expires_at_ms passed before anything was sent"),
    "struck": (Status.unresolved, "three workers ended while they had this intent; a person must look"),
    "revoke-claimed": (Status.revoked, "its target was withdrawn before anything was sent"),
    "revoke-sent": (Status.rejected, "already sent: the target was sent, or is on its way, and cannot be withdrawn"),
    "revoke-ended": (Status.rejected, "already sent, or settled without being sent: the target has its outcome"),
    "revoke-unknown": (Status.rejected, "unknown: no intent with that id was queued here"),
}


def _by_order(works: list[Work]) -> list[list[Work]]:
    """Intents that name one order travel as one item."""
    groups: list[list[Work]] = []
    at: dict[str, list[Work]] = {}
    for work in works:
        orders = work.before.orders
        group: list[Work] | None = None
        for key in orders:
            group = group or at.get(key)
        if group is None:
            group = []
            groups.append(group)
        group.append(work)
        for key in orders:
            at[key] = group
    return groups


def _aged(outcome: Outcome, now_ns: int) -> Settlement:
    """The settlement, with its permit's answer as old as it is now."""
    settlement = outcome.settlement
    if settlement.permit:
        settlement.permit = replace(settlement.permit, ago_us=max(0, now_ns - outcome.answered_ns) // 1000)
    return settlement


def entry_order(entry_id: str) -> tuple[int, int]:
    """Stream entry ids in their order."""
    ms, _, seq = entry_id.partition("-")
    return int(ms), int(seq or 0)
