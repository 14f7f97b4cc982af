"""JUDGE: what follows from one reply, as pure functions. No clock, no I/O, no randomness of their own.

The rule that everything here keeps: an acknowledgement, a silence or anything unclear is never an outcome.
An intent ends only by the venue's word on its order, by places read to their end, or by bounds that say
`unresolved` aloud.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, replace
from enum import Enum
from typing import Any

from cancelq.contract import Status
from cancelq_worker.state import LOOKS_BACK, State
from cancelq_worker.venues.port import ABOUT_THE_CALL, ENDED, SWEEPS, Reply, Stage, Target, Venue, Word
from cancelq_worker.venues.sweeping import count_pair

MS = 1_000


@dataclass(frozen=True, slots=True)
class Policy:
    """Bounds, in counts and microseconds. Attempts and look-ups per intent never exceed them."""

    max_attempts: int = 5
    max_lookups: int = 40
    max_walk_lookups: int = 160
    max_unread: int = 400
    lookup_budget_us: int = 10_000_000
    look_pause_us: int = 3_000_000  # longer than two looks are ever apart while somebody looks
    seen_again_us: int = 60_000_000  # how often an open order is looked at that waits, as its endpoints are locked
    sweep_budget_us: int = 20_000_000
    sweep_settle_us: int = 1_000_000  # how long an open list may hide a new order
    retry_base_us: int = 200 * MS
    retry_most_us: int = 5_000_000
    later_base_us: int = 10_000_000
    later_most_us: int = 60_000_000


class Silence(Enum):
    """A call without a readable answer."""

    NOT_SENT = "not sent"  # it surely never left
    NO_ANSWER = "no answer"  # it may have been executed


@dataclass(frozen=True, slots=True)
class Moment:
    """When a call was made: Redis' steady clock now, and the call's times in UTC µs (None: no answer). `streamed`:
    the lane's order stream is alive, and will most likely tell the end before a look does. `opens_us`: when an order
    that was only looked at, as its endpoints are locked, may be sent; 0 if that is not known."""

    steady_us: int
    sent_us: int
    answered_us: int | None
    streamed: bool = False
    opens_us: int = 0


@dataclass(slots=True)
class Finish:
    """The intent ends. `known`: the order's own end is known, so every intent that names it ends with it."""

    status: Status
    evidence: str
    detail: str
    state: State
    reply: Reply
    known: bool = False
    open_orders: int | None = None


@dataclass(slots=True)
class Go:
    """The intent goes on in `state`'s queue after `delay_us` (None: at its old place). `tell`: an event of it."""

    state: State
    delay_us: int | None
    reply: Reply
    tell: Status | None = None
    detail: str = ""


Verdict = Finish | Go

_ENDS = {
    Word.CANCELLED: Status.cancelled,
    Word.FILLED: Status.filled,
    Word.TRIGGERED: Status.triggered,
    Word.CLOSED: Status.closed,
}


@dataclass(frozen=True, slots=True)
class Judge:
    """Judges replies for one venue under one policy."""

    venue: Venue
    policy: Policy
    rng: random.Random

    def cancel(self, before: State, taken: State, fields: dict[str, str], reply: Reply, at: Moment) -> Verdict:
        """What follows from the reply to a cancel. `before` is the state ahead of the take, `taken` after it."""
        if reply.word in ABOUT_THE_CALL:
            if fields["scope"] in SWEEPS and _is_bulk(before):
                return self._bulk_refused(before, taken, fields, reply)
            return _refused(_restored(before, taken), reply)
        state = _with_call(taken, reply, at)
        if fields["scope"] in SWEEPS:
            return self._sweep_cancelled(before, state, fields, reply, at)
        if reply.word in ENDED:
            learn(state, reply)
            return Finish(_ENDS[reply.word], "reply", _END_DETAIL[reply.word], state, reply, known=True)
        match reply.word:
            case Word.SPLIT if taken.size > 1:
                back = _restored(before, taken)
                back.cap = max(1, taken.size // 2)
                return Go(back, None, reply)
            case Word.FAILED | Word.SPLIT:
                return Finish(Status.rejected, "reply", reply.text, state, reply)
            case Word.AGAIN | Word.DOUBTED | Word.LATER if state.attempts < self.policy.max_attempts:
                return self._again(state, fields, reply)
            case Word.DOUBTED:
                return Finish(Status.rejected, "reply", reply.text, state, reply)
            case Word.ACKNOWLEDGED:
                state.notes["ack"] = state.notes["known"] = 1
                timing = self.venue.timing
                delay = timing.look_after_push_us if at.streamed else timing.look_after_us
                return self._look_first(state, fields, reply, delay, Status.accepted, _ACKNOWLEDGED)
            case Word.GONE:
                return self._look_first(state, fields, reply, 0)
            case _:
                detail = f"unclear: {reply.text or reply.code}; looking it up"
                return self._look_first(state, fields, reply, 0, Status.retrying, detail)

    def look(self, before: State, taken: State, fields: dict[str, str], reply: Reply, at: Moment) -> Verdict:
        """What follows from the reply to a look. A look back never leads to a cancel."""
        verdict = self._looked(before, taken, fields, reply, at)
        if LOOKS_BACK in fields and verdict.state.stage is Stage.CANCEL:
            return Finish(Status.unresolved, "query", "still open, or not to be seen", verdict.state, reply)
        return verdict

    def _looked(self, before: State, taken: State, fields: dict[str, str], reply: Reply, at: Moment) -> Verdict:
        if reply.word in ABOUT_THE_CALL:
            return Go(_restored(before, taken), None, reply)
        state = taken
        if before.stage is Stage.CANCEL and "seen" in before.notes and reply.word not in (*ENDED, Word.ABSENT):
            # Seen open before, and not gone now: it goes on waiting for an endpoint that takes its cancel. As long as
            # that lasts it is looked at once a minute, which costs none of its look-ups.
            state.lookups = before.lookups
            opens_us = at.opens_us - at.steady_us if at.opens_us else self.policy.seen_again_us
            delay_us = min(self.policy.seen_again_us, max(0, opens_us))
            return Go(self._to_cancel(state, fields), delay_us, reply)
        state.stage = Stage.LOOK  # also of an order that was looked for instead of being sent
        state.notes.setdefault("t0", at.steady_us)
        if fields["scope"] in SWEEPS:
            return self._sweep_looked(state, fields, reply, at)
        learn(state, reply)
        if reply.word in ENDED:
            detail = _END_DETAIL[reply.word]
            return Finish(_ENDS[reply.word], "query", detail, state, reply, known=True)
        if reply.word is Word.FAILED:
            return Finish(Status.rejected, "query", reply.text, state, reply)
        if reply.word is Word.OPEN:
            return self._still_open(state, fields, reply, at)
        if reply.word is Word.UNSEEABLE and state.attempts == 0:
            state.notes["blind"] = 1
            return Go(self._to_cancel(state, fields), 0, reply)
        if reply.word in (Word.ABSENT, Word.UNREAD):
            return self._not_seen(before, state, fields, reply, at)
        return self._look_failed(state, fields, reply)

    def silent(
        self, before: State, taken: State, fields: dict[str, str], stage: Stage, why: Silence, at: Moment
    ) -> Verdict:
        """What follows from a call without a readable answer."""
        if why is Silence.NOT_SENT:
            reply = Reply(Word.AGAIN, text="the venue could not be reached; nothing was sent")
            return Go(_restored(before, taken), None, reply)
        reply = Reply(Word.UNCLEAR, text="no readable answer")
        if stage is Stage.CANCEL:
            return self.cancel(before, taken, fields, reply, at)
        return self.look(before, taken, fields, reply, at)

    # -- one order --------------------------------------------------------------------------------------------

    def _again(self, state: State, fields: dict[str, str], reply: Reply) -> Go:
        policy = self.policy
        if reply.word is Word.LATER:
            delay = self._jitter(policy.later_base_us, policy.later_most_us, state.attempts)
        else:
            delay = self._jitter(policy.retry_base_us, policy.retry_most_us, state.attempts)
        detail = reply.text or reply.code
        if self.venue.timing.look_before_again:
            return self._look_first(state, fields, reply, delay, Status.retrying, detail)
        state = self._to_cancel(state, fields)
        return Go(state, self.venue.timing.gap_us + delay, reply, Status.retrying, detail)

    def _look_first(
        self,
        state: State,
        fields: dict[str, str],
        reply: Reply,
        delay_us: int,
        tell: Status | None = None,
        detail: str = "",
    ) -> Go:
        learn(state, reply)
        state.stage = Stage.LOOK
        state.look_class = self.venue.next_look(_target(fields, state)).look_class
        return Go(state, delay_us, reply, tell, detail)

    def _still_open(self, state: State, fields: dict[str, str], reply: Reply, at: Moment) -> Verdict:
        sent = int(state.notes.get("sent_at", state.notes["t0"]))
        since_us = at.steady_us - sent
        state.notes["known"] = state.notes["seen"] = 1
        if state.attempts == 0:  # looked at before anything was sent
            return Go(self._to_cancel(state, fields), 0, reply)
        if _unmet(state, fields, reply):
            detail = f"only_if: the order was not {fields['only_if']} but {reply.venue_state}; it stays open"
            return Finish(Status.rejected, "query", detail, state, reply)
        if state.lookups >= self._most_lookups(state):
            return Finish(Status.unresolved, "query", "still open, and the look-ups are used up", state, reply)
        if state.notes.get("ack") and since_us < self.venue.timing.patience_us:
            # Acknowledged and still shown: the venue works asynchronously, or its list is stale.
            return self._look_again(state, fields, reply, 40 * MS, 800 * MS)
        if state.attempts >= self.policy.max_attempts:
            detail = f"still open after {state.attempts} attempts"
            return Finish(Status.unresolved, "query", detail, state, reply)
        delay = max(0, self.venue.timing.gap_us - since_us) + self._jitter(
            self.policy.retry_base_us, self.policy.retry_most_us, state.attempts
        )
        state = self._to_cancel(state, fields)
        return Go(state, delay, reply, Status.retrying, "the venue still shows the order open: cancelling again")

    def _not_seen(self, before: State, state: State, fields: dict[str, str], reply: Reply, at: Moment) -> Verdict:
        self._forget_early_looks(state, at)
        absent = dict(state.notes.get("abs", {}))
        if reply.word is Word.ABSENT:
            absent[reply.place] = absent.get(reply.place, 0) + 1
            state.notes["n"] = int(state.notes.get("n", 0)) + 1
        state.notes["abs"] = absent
        elapsed = at.steady_us - int(state.notes["t0"])
        plan = self.venue.next_look(_target(fields, state))
        over = reply.word is Word.ABSENT and elapsed >= self.policy.lookup_budget_us
        if plan.done and (plan.gap or over):
            return self._never_seen(state, reply, plan.gap)
        if state.lookups >= self._most_lookups(state):
            return Finish(Status.unresolved, "query", "look-ups are used up, not every place was read", state, reply)
        if plan.done:
            state.notes.pop("walk", None)  # the next round walks anew
            plan = self.venue.next_look(_target(fields, state))
        state.look_class = plan.look_class
        if reply.word is Word.UNREAD:
            unread = int(state.notes.get("u", 0)) + 1
            if "walk" not in state.notes and unread <= self.policy.max_unread:
                state.notes["u"] = unread
                state.lookups = before.lookups  # the page served another; each page settles or passes at least one
            return Go(state, 0, reply)
        base = 50 * MS if state.notes.get("ack") else 150 * MS
        delay = self._backoff(base, 2_500 * MS, int(state.notes.get("n", 0)))
        return Go(state, min(delay, max(50 * MS, self.policy.lookup_budget_us - elapsed)), reply)

    def _forget_early_looks(self, state: State, at: Moment) -> None:
        """Nobody looked for a while, as the lane was held or its workers gone: what a list did not show yet when it was
        read last, it may show by now. Once is enough: whatever is read from then on is read late."""
        notes = state.notes
        if at.steady_us - int(notes.get("look_at", at.steady_us)) > self.policy.look_pause_us and "late" not in notes:
            for key in ("abs", "walk", "n"):
                notes.pop(key, None)
            notes["late"] = 1
        notes["look_at"] = at.steady_us

    def _never_seen(self, state: State, reply: Reply, gap: str) -> Finish:
        if gap:
            return Finish(Status.unresolved, "query", f"not seen, but {gap}", state, reply)
        if state.notes.get("known"):
            detail = "the venue knew this order, and now shows it nowhere"
            return Finish(Status.unresolved, "query", detail, state, reply)
        return Finish(Status.not_found, "query", "every place that could hold this order was read", state, reply)

    def _look_failed(self, state: State, fields: dict[str, str], reply: Reply) -> Verdict:
        fails = int(state.notes.get("f", 0)) + 1
        state.notes["f"] = fails
        if state.lookups >= self._most_lookups(state):
            detail = f"look-ups are used up; the last said: {reply.text or reply.code or 'nothing readable'}"
            return Finish(Status.unresolved, "query", detail, state, reply)
        state.look_class = self.venue.next_look(_target(fields, state)).look_class
        return Go(state, self._backoff(100 * MS, 3_000 * MS, fails), reply)

    def _look_again(self, state: State, fields: dict[str, str], reply: Reply, base: int, most: int) -> Go:
        seen = int(state.notes.get("o", 0)) + 1
        state.notes["o"] = seen
        state.notes["n"] = 0
        state.look_class = self.venue.next_look(_target(fields, state)).look_class
        return Go(state, self._backoff(base, most, seen), reply)

    def _to_cancel(self, state: State, fields: dict[str, str]) -> State:
        """Back to the cancel queue; what was noted of looks belongs to the attempt before."""
        for key in ("n", "o", "f", "abs", "look_at", "late", "walk", "t0", "ack"):
            state.notes.pop(key, None)
        state.stage = Stage.CANCEL
        state.cancel_class = self.venue.cancel_class(_target(fields, state))
        return state

    def _most_lookups(self, state: State) -> int:
        return self.policy.max_walk_lookups if "walk" in state.notes else self.policy.max_lookups

    # -- sweeps: symbol and account -----------------------------------------------------------------------------

    def _sweep_cancelled(
        self, before: State, state: State, fields: dict[str, str], reply: Reply, at: Moment
    ) -> Verdict:
        """After the bulk call or a cancel by ids: whatever it said, the open lists decide."""
        state.notes.setdefault("w0", at.steady_us)
        sweep = dict(state.notes.get("sweep", {}))
        todo = sweep.get("todo", [])
        bulk = _is_bulk(before)
        if bulk and reply.word in (Word.FAILED, Word.SPLIT):
            return Finish(Status.rejected, "reply", reply.text, state, reply)
        if todo:
            state.size = self.venue.sweep_named(state.route, _target(fields, before))
            named, sweep["todo"] = todo[: state.size], todo[state.size :]
            state.notes["sweep"], todo = sweep, sweep["todo"]
            for row in named:
                state.notes["named"] = count_pair(state.notes.get("named", {}), row["symbol"])
        tell = Status.accepted if reply.word is Word.ACKNOWLEDGED else Status.retrying
        detail = "acknowledged by the venue; the open lists decide" if tell is Status.accepted else reply.text
        first = tell if state.attempts == 1 else None
        if todo:
            state.stage = Stage.CANCEL
            state.cancel_class = self.venue.cancel_class(_target(fields, state))
            return Go(state, 0, reply, first, detail)
        if bulk or sweep.get("end"):
            return replace(
                self._next_pass(state, fields, reply, at, self.venue.timing.look_after_us), tell=first, detail=detail
            )
        state.stage = Stage.LOOK
        state.look_class = self.venue.next_look(_target(fields, state)).look_class
        return Go(state, 0, reply, first, detail)

    def _bulk_refused(self, before: State, taken: State, fields: dict[str, str], reply: Reply) -> Go:
        """The one bulk call was refused, and nothing of it was carried out. It is not made a second time all the same:
        by then it could hit orders that are newer than the intent. The lists and cancels by id serve instead."""
        state = _restored(before, taken)
        state.notes["sweep"], state.notes["nobulk"] = {}, 1
        state.stage = Stage.LOOK
        state.look_class = self.venue.next_look(_target(fields, state)).look_class
        return _refused(state, reply)

    def _sweep_looked(self, state: State, fields: dict[str, str], reply: Reply, at: Moment) -> Verdict:
        state.notes.setdefault("w0", at.steady_us)
        if reply.word is not Word.LISTED:
            return self._sweep_failed(state, fields, reply)
        state.notes.update(reply.notes)
        state.notes.pop("f", None)
        sweep = state.notes["sweep"]
        target = _target(fields, state)
        if sweep.get("todo") or sweep.get("bulk"):
            state.stage = Stage.CANCEL
            state.cancel_class = self.venue.cancel_class(target)
            return Go(state, 0, reply)
        if not sweep.get("end"):
            state.look_class = self.venue.next_look(target).look_class
            return Go(state, 0, reply)
        return self._pass_ended(state, fields, reply, at)

    def _pass_ended(self, state: State, fields: dict[str, str], reply: Reply, at: Moment) -> Verdict:
        """Every list was read. Nothing that was meant is open: done. Else another pass, as long as it helps."""
        sweep = state.notes["sweep"]
        still = int(sweep.get("open", 0))
        wait_us = int(state.notes["w0"]) + self.policy.sweep_settle_us - int(state.notes.get("p0", state.notes["w0"]))
        if still == 0 and wait_us > 0:
            return self._next_pass(state, fields, reply, at, max(wait_us, 0))
        if still == 0:
            newer = int(sweep.get("newer", 0))
            detail = "nothing older than the intent is open any more" + (f"; {newer} newer orders are" if newer else "")
            return Finish(Status.cancelled, "query", detail, state, reply, open_orders=0)
        if LOOKS_BACK in fields:  # what is open now stays so: it is asked after again in the next period
            return Finish(Status.unresolved, "query", f"{still} orders are still open", state, reply, open_orders=still)
        best = state.notes.get("best")
        if best is None or still < best:
            state.notes["best"], state.notes["moved"] = still, at.steady_us
        stalled_us = at.steady_us - int(state.notes["moved"])
        if stalled_us >= self.policy.sweep_budget_us and self._just_cancelled(state, at):
            # Its cancels may have waited for permits all that time: they are counted once more before it is given up.
            return self._next_pass(state, fields, reply, at, 100 * MS, count_only=True)
        if stalled_us >= self.policy.sweep_budget_us:
            unsure = int(sweep.get("unsure", 0))
            detail = f"{still} orders are still open" + (
                f", of {unsure} nobody can tell whether they are meant" if unsure else ""
            )
            return Finish(Status.unresolved, "query", detail, state, reply, open_orders=still)
        return self._next_pass(state, fields, reply, at, min(2_000 * MS, max(100 * MS, stalled_us // 3)))

    def _just_cancelled(self, state: State, at: Moment) -> bool:
        """Whether this pass cancelled something itself, or came too soon after a cancel to tell what became of it."""
        if "sent_at" not in state.notes:
            return False
        sent, begun = int(state.notes["sent_at"]), int(state.notes.get("p0", state.notes["w0"]))
        return sent >= begun or at.steady_us - sent < self.venue.timing.patience_us

    def _next_pass(
        self,
        state: State,
        fields: dict[str, str],
        reply: Reply,
        at: Moment,
        delay_us: int,
        *,
        count_only: bool = False,
    ) -> Go:
        """All lists once more. Within the gap after a cancel they are only counted: what was cancelled is given
        the time to close, and no order is named twice within it."""
        sent_at = state.notes.get("sent_at")
        may = sent_at is None or at.steady_us + delay_us - int(sent_at) >= self.venue.timing.gap_us
        if state.notes.get("sweep", {}).get("end"):
            state.notes["still"] = state.notes["sweep"].get("pairs", {})
        state.notes["sweep"], state.notes["may"] = {}, int(may and not count_only)
        state.notes["p0"] = at.steady_us + delay_us
        state.stage = Stage.LOOK
        state.look_class = self.venue.next_look(_target(fields, state)).look_class
        return Go(state, delay_us, reply)

    def _sweep_failed(self, state: State, fields: dict[str, str], reply: Reply) -> Verdict:
        untouched = not state.attempts and not state.notes.get("sweep")
        if reply.word is Word.FAILED and fields["scope"] == "symbol" and untouched:
            # Nothing was read, and nothing done: a pair the venue does not know.
            return Finish(Status.rejected, "query", f"refused by the venue: {reply.text or reply.code}", state, reply)
        fails = int(state.notes.get("f", 0)) + 1
        state.notes["f"] = fails
        if fails >= self.policy.max_lookups:
            detail = f"the open lists cannot be read: {reply.text or reply.code}"
            known = state.notes.get("best")
            return Finish(Status.unresolved, "query", detail, state, reply, open_orders=known)
        return Go(state, self._backoff(100 * MS, 3_000 * MS, fails), reply)

    # -- waits ---------------------------------------------------------------------------------------------------

    def _jitter(self, base_us: int, most_us: int, nth: int) -> int:
        """Full jitter: anywhere between now and the capped exponential."""
        return int(self.rng.uniform(0, min(most_us, base_us * 2 ** min(nth, 20))))

    def _backoff(self, base_us: int, most_us: int, nth: int) -> int:
        """Exponential, with a tenth of jitter: looks are to be spread, not delayed."""
        return int(min(most_us, base_us * 2 ** min(max(nth - 1, 0), 20)) * self.rng.uniform(0.9, 1.1))


def ended_by_push(reply: Reply) -> Finish | None:
    """What a push of the order stream ends; None if it tells of no end."""
    if reply.word not in ENDED:
        return None
    return Finish(_ENDS[reply.word], "stream", _END_DETAIL[reply.word], State(), reply, known=True)


def _refused(state: State, reply: Reply) -> Go:
    """A cancel the venue refused before looking at its orders: told, and no attempt."""
    why = reply.text or f"code {reply.code}"
    return Go(state, None, reply, Status.retrying, f"refused by the venue, so it is no attempt: {why}")


_ACKNOWLEDGED = "acknowledged by the venue; to be confirmed"
_END_DETAIL = {
    Word.CANCELLED: "the venue states that the order is cancelled",
    Word.FILLED: "too late: the venue states that the order is filled",
    Word.TRIGGERED: "too late: the order had fired; what it placed was not touched",
    Word.CLOSED: "the venue states another end of the order",
}


def _is_bulk(before: State) -> bool:
    """Whether a sweep's cancel call was the bulk call, not one that names what was found."""
    sweep = before.notes.get("sweep", {})
    return not sweep.get("todo") or bool(sweep.get("bulk"))


def _unmet(state: State, fields: dict[str, str], reply: Reply) -> bool:
    """Whether the venue refused a conditional cancel, and the order is indeed not as the condition wants it."""
    wanted = fields.get("only_if")
    return wanted is not None and not state.notes.get("ack") and reply.venue_state != wanted


def _target(fields: dict[str, str], state: State) -> Target:
    return Target(fields, state.notes)


def _restored(before: State, taken: State) -> State:
    """As it was before the take, but for the fence: the call was not carried out, so it costs nothing."""
    return before.at_rest(taken.fence)


def _with_call(taken: State, reply: Reply, at: Moment) -> State:
    """The state after a cancel call that may have been executed, with that call's times on record."""
    notes: dict[str, Any] = taken.notes
    for key in ("n", "o", "f", "abs", "look_at", "late", "walk", "t0", "ack", "seen"):
        notes.pop(key, None)
    call: dict[str, Any] = {"b": taken.batch_id, "s": at.sent_us, "code": reply.code, "http": reply.http_status}
    if at.answered_us is not None:
        call["a"] = at.answered_us
    notes["call"] = call
    notes["t0"] = notes["sent_at"] = at.steady_us
    return taken


def learn(state: State, reply: Reply) -> None:
    """Keeps what an answer taught: the order's other id, and the venue's scratch notes."""
    state.notes.update(reply.notes)
    if reply.order_id:
        state.notes["oid"] = reply.order_id
    if reply.client_order_id:
        state.notes["cid"] = reply.client_order_id
