"""CANCEL, JUDGE and CONFIRM of one call: from a batch with its permit to what is to be settled.

What an answer means is the venue's to read and the judge's to decide; here they are put together, and the events
are written.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Mapping
from dataclasses import replace

import structlog

from cancelq.contract import Status
from cancelq_worker import events
from cancelq_worker.clocks import monotonic_ns
from cancelq_worker.gate import Gate
from cancelq_worker.http import Exchange, NoAnswer, NotSent, NotWhole
from cancelq_worker.lane_parts import SEND_BY_MS, Call, LaneParts, Outcome
from cancelq_worker.records import End, Move, PermitUse, Settlement
from cancelq_worker.repeating import discreet
from cancelq_worker.rulings import Finish, Moment, Silence, Verdict
from cancelq_worker.state import LOOKS_BACK, State, Work
from cancelq_worker.sweep_verdict import list_is_old
from cancelq_worker.venues.port import ABOUT_THE_CALL, SWEEPS, Bucket, Reply, Stage, Target, Word
from cancelq_worker.venues.reading import OTHERS

log = structlog.get_logger("cancelq.lane")

BOUND_DOUBT_US = 50_000  # by so much a bound in time that somebody chose may be missed
SHORTEST_S = 0.1  # for a call, where nearly all of its time is waited
OWN_SAMPLES = 5  # round trips of one's own before the fleet's fastest may be relied on
OWN_LASTS_NS = 40_000_000_000  # for how long one counts: the fleet's fastest is of the last minute (lua/settle.lua)


class Carrier:
    """Carries one lane's calls. `draining`: nothing is sent any more; `streamed`: the order stream is alive."""

    def __init__(self, parts: LaneParts, gate: Gate) -> None:
        self._p = parts
        self._gate = gate
        self._buckets: dict[str, Bucket] = {b.name: b for b in parts.venue.buckets}
        self._paged = {kind for r in parts.venue.routes if r.downwards for kind in r.kinds}
        self._samples: dict[str, deque[int]] = {}  # by bucket, when the last of them were
        self._log = log.bind(lane=str(parts.plan.lane))
        self.draining = False
        self.streamed = False

    async def carry(self, call: Call) -> Outcome:
        """One call, from its permit to what is to be settled of it."""
        batch, route = call.batch, call.route
        if batch.unconfirmed:
            self._log.warning("too few replicas have what was taken: it is given back", why=batch.unconfirmed)
            return self.given_back(call)
        if batch.stage is Stage.CANCEL and list_is_old(batch.works[0].before, batch.steady_us):
            return self._bulk_too_late(call)
        targets = [self._target(group[0], call) for group in call.groups]
        request = self._p.venue.encode(route, targets)
        waits_us = 0 if self._is_heard_of(route.bucket) else batch.fastest_us
        if waits_us:
            await asyncio.sleep(waits_us / 1e6)
        # That wait is beside the time in which it must leave, and part of the time that it may take.
        send_by_ns = call.asked_ns + SEND_BY_MS * 1_000_000 + waits_us * 1_000
        total_s = max(SHORTEST_S, self._p.total_s - waits_us / 1e6)
        if monotonic_ns() >= send_by_ns or self.draining or self._p.egress.is_closed(call.ticket):
            return self.given_back(call)
        signed = self._p.venue.sign(request, self._p.venue_clock.now_us() // 1000)
        door = self._p.cancel_door if batch.stage is Stage.CANCEL else self._p.look_door
        sent_ns = monotonic_ns()
        try:
            exchange = await door.call(signed, send_by_ns=send_by_ns, total_s=total_s)
        except NotSent as error:
            return self._not_sent(call, str(error))
        except NoAnswer as error:
            self._p.egress.ended(call.ticket, monotonic_ns(), answered=False)
            self._p.metrics.unanswered(request.path, batch.stage, len(call.groups))
            return self._no_answer(call, sent_ns, error)
        return self._answered(call, targets, exchange, request.path)

    def _is_heard_of(self, bucket: str) -> bool:
        """Whether the fleet's fastest knows of this worker's way; else it is another's, and perhaps longer."""
        samples = self._samples.get(bucket)
        return samples is not None and len(samples) == OWN_SAMPLES and monotonic_ns() - samples[0] < OWN_LASTS_NS

    def _target(self, work: Work, call: Call) -> Target:
        target = work.target
        if target.scope in SWEEPS:
            target.paid = call.batch.units
            self._date(target, work.record)
            target.may_cancel = bool(work.before.notes.get("may", 1))
            target.may_bulk = work.before.attempts == 0 and "nobulk" not in work.before.notes
        return target

    def _date(self, target: Target, record: Mapping[str, str]) -> None:
        """From when on the venue's clock an order is too new for a sweep. Until the venue has told its time nobody can
        tell: this machine's own clock may be off by any amount."""
        clock, redis_clock = self._p.venue_clock, self._p.redis_clock
        if not clock.known:
            target.age_band_ms = None
            return
        doubt_us = clock.uncertainty_us + redis_clock.uncertainty_us
        asked_us = clock.at_us(redis_clock.when_ns(int(record["queued_us"])))
        # Entry ids and creation times are both whole milliseconds, rounded down.
        target.age_band_ms = ((asked_us - doubt_us) // 1000, (asked_us + 1_000 + doubt_us) // 1000 + 1)
        if "older_than_ms" in record:
            given_us = int(record["older_than_ms"]) * 1000
            bound_us = clock.at_us(redis_clock.when_ns(given_us))
            if abs(bound_us - given_us) <= doubt_us:
                bound_us = given_us  # the clocks agree as far as is known
            doubt_us = max(0, doubt_us - BOUND_DOUBT_US)
            target.older_than_ms = ((bound_us - doubt_us) // 1000, (bound_us + doubt_us) // 1000)

    def _answered(self, call: Call, targets: list[Target], exchange: Exchange, path: str) -> Outcome:
        rtt_us = (exchange.answered_ns - exchange.sent_ns) // 1000
        decoded = self._p.venue.decode(call.route, targets, exchange.answer)
        replies = [discreet(reply, exchange.answer) for reply in decoded] if exchange.answer.quotes else decoded
        said = [*replies, *(discreet(r.over_limit, exchange.answer) for r in replies if r.over_limit)]
        refused = any(r.word is Word.REFUSED for r in said)
        opened = not any(r.whole_address for r in replies)
        self._p.egress.ended(call.ticket, exchange.answered_ns, answered=opened)
        if not refused:
            self._samples.setdefault(call.route.bucket, deque(maxlen=OWN_SAMPLES)).append(exchange.answered_ns)
        moment = self._moment(call, exchange.sent_ns, exchange.answered_ns)
        verdicts = [
            (work, self._judge(call, work, reply if work is group[0] else _heard_by(work, reply), moment))
            for group, reply in zip(call.groups, replies, strict=True)
            for work in group
        ]
        executed = not all(r.word in _NOT_EXECUTED for r in replies)
        how, error = "r" if refused else "a", next((r.error for r in replies if r.error), "")
        told, bucket = self._p.venue.told_limit(exchange.answer) or 0, self._buckets[call.route.bucket]
        if bucket.fixed:  # what the settings say of a limit is never exceeded
            told = min(told, bucket.units)
        outcome = self._outcome(call, verdicts, how, rtt_us, exchange.answered_ns, executed, error, told)
        outcome.settlement.holds = self._gate.holds(call, said)
        self._report(call, replies, rtt_us, exchange.answer.status)
        if any(reply.notes.get("sweep", {}).get("unsure") for reply in replies):
            self._gate.know_time_better()
        self._p.metrics.answered(path, call.route.stage, len(call.groups), replies, rtt_us, exchange.answer.status)
        return outcome

    def _judge(self, call: Call, work: Work, reply: Reply, moment: Moment) -> Verdict:
        taken = self._taken_state(call, work)
        if call.batch.stage is Stage.LOOK:
            taken.passed(Stage.LOOK)
        judge = self._p.judge.cancel if call.batch.stage is Stage.CANCEL else self._p.judge.look
        return judge(work.before, taken, work.record, reply, moment)

    def _taken_state(self, call: Call, work: Work) -> State:
        batch = call.batch
        size = batch.units if call.route.by_class else len(call.groups)
        return work.taken(stage=batch.stage, batch_id=batch.id, route=batch.route, size=size, taken_us=batch.taken_us)

    def _moment(self, call: Call, sent_ns: int, answered_ns: int | None) -> Moment:
        steady_us = call.batch.steady_us + (monotonic_ns() - call.back_ns) // 1000
        clock = self._p.redis_clock
        # Redis' clock is known to half of a round trip; that nothing was sent before it was taken is sure.
        sent_us = max(clock.at_us(sent_ns), call.batch.taken_us)
        answered_us = None if answered_ns is None else max(clock.at_us(answered_ns), sent_us)
        return Moment(steady_us, sent_us, answered_us, self.streamed, call.batch.opens_us)

    def given_back(self, call: Call) -> Outcome:
        """Too late to send, draining, or the address was closed: as if it had never been taken."""
        self._p.egress.unuse(call.ticket)
        self._p.metrics.given_back()
        moment = self._moment(call, call.back_ns, None)
        verdicts = [(w, self._silent(call, w, Silence.NOT_SENT, moment)) for w in call.batch.works]
        return self._outcome(call, verdicts, "u", 0, monotonic_ns(), False)

    def _bulk_too_late(self, call: Call) -> Outcome:
        self._p.egress.unuse(call.ticket)
        (work,) = call.batch.works  # a sweep travels alone
        verdict = self._p.judge.bulk_too_late(work.before, self._taken_state(call, work), work.record)
        return self._outcome(call, [(work, verdict)], "u", 0, monotonic_ns(), False)

    def _not_sent(self, call: Call, why: str) -> Outcome:
        outcome = self.given_back(call)
        outcome.settlement.holds = self._gate.unreachable(why)
        return outcome

    def _no_answer(self, call: Call, sent_ns: int, why: NoAnswer) -> Outcome:
        """The venue may have counted it in any case; that it executed what never became whole it cannot."""
        moment = self._moment(call, sent_ns, None)
        whole = not isinstance(why, NotWhole)
        silence = Silence.NO_ANSWER if whole else Silence.NOT_SENT
        verdicts = [(w, self._silent(call, w, silence, moment)) for w in call.batch.works]
        self._log.warning("no readable answer", route=call.batch.route, orders=len(call.groups), why=str(why))
        return self._outcome(call, verdicts, "n", 0, monotonic_ns(), whole)

    def _silent(self, call: Call, work: Work, why: Silence, moment: Moment) -> Verdict:
        taken = self._taken_state(call, work)
        return self._p.judge.silent(work.before, taken, work.record, call.batch.stage, why, moment)

    # -- settle -----------------------------------------------------------------------------------------------------

    def _outcome(
        self,
        call: Call,
        verdicts: list[tuple[Work, Verdict]],
        how: str,
        rtt_us: int,
        at_ns: int,
        executed: bool,
        error: str = "",
        told: int = 0,
    ) -> Outcome:
        route = call.route
        permit = PermitUse(
            self._buckets[route.bucket],
            call.batch.units,
            call.batch.id,
            how,
            rtt_us=rtt_us,
            error=error if route.errors else None,
            told=told,
        )
        ended: dict[str, Finish] = {}
        works = [self._settle(work, verdict, ended) for work, verdict in verdicts]
        keys: tuple[str, ...] = ()
        if call.batch.stage is Stage.CANCEL:
            keys = tuple(dict.fromkeys(k for w in call.batch.works for k in w.before.orders))
        gap_us = self._p.venue.timing.gap_us
        return Outcome(Settlement(permit, works, keys, executed, gap_us), at_ns, ended)

    def _settle(self, work: Work, verdict: Verdict, ended: dict[str, Finish]) -> End | Move:
        state = verdict.state
        if isinstance(verdict, Finish):
            event = self.event(
                work, state, verdict.status, verdict.evidence, verdict.detail, verdict.reply, verdict.open_orders
            )
            orders = self.orders(work, state)
            if verdict.known:
                ended.update(dict.fromkeys(orders, verdict))
            if verdict.status is Status.unresolved and event:
                self._log.error("unresolved: a person must look", id=work.id, detail=verdict.detail)
            return End(work, event, state.attempts > 0, verdict.known, orders)
        tell = None
        if verdict.tell:
            tell = self.event(work, state, verdict.tell, "reply", verdict.detail, verdict.reply)
        orders = self.orders(work, state)
        new = orders[len(state.orders) :]
        state.orders = orders
        return Move(work, state, verdict.delay_us, tell, new, self._sort(work, state))

    def _sort(self, work: Work, state: State) -> str:
        """The order id a page of looks would reach it by."""
        order_id = work.record.get("order_id") or state.notes.get("oid", "")
        paged = state.stage is Stage.LOOK and state.look_class in self._paged
        return str(order_id) if paged and str(order_id).isdigit() else ""

    def orders(self, work: Work, state: State) -> tuple[str, ...]:
        known = self._p.venue.order_keys(Target(work.record, state.notes))
        new = [key for key in known if key not in state.orders]
        return (*state.orders, *new) if new else state.orders

    def event(
        self,
        work: Work,
        state: State,
        status: Status,
        evidence: str,
        detail: str,
        reply: Reply | None = None,
        open_orders: int | None = None,
    ) -> dict[str, str]:
        told = events.event(
            self._p.plan.lane, work.id, work.record, state, status, evidence, detail,
            worker=self._p.worker, endpoint=self._p.venue.endpoint(state.route), reply=reply, open_orders=open_orders,
        )  # fmt: skip
        return events.looked_back(told, work.record[LOOKS_BACK]) if LOOKS_BACK in work.record else told

    def _report(self, call: Call, replies: list[Reply], rtt_us: int, status: int) -> None:
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


def _heard_by(work: Work, reply: Reply) -> Reply:
    """A reply that was read for another intent in the same item, as it is for this one."""
    if work.target.may_be(reply):
        return reply
    return replace(reply, word=Word.UNCLEAR, text=OTHERS, order_id="", client_order_id="")


#: Words after which the venue has surely not touched the order: no gap is owed to it.
_NOT_EXECUTED = ABOUT_THE_CALL | {Word.SPLIT}
