"""JUDGE: what follows from one reply, as pure functions. No clock, no I/O, no randomness of their own.

The rule that everything here keeps: an acknowledgement, a silence or anything unclear is never an outcome.
An intent ends only by the venue's word on its order, by places read to their end, or by bounds that say
`unresolved` aloud.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Any

from cancelq.contract import Status
from cancelq_worker.rulings import (
    END_DETAIL,
    ENDS,
    MS,
    Finish,
    Go,
    Moment,
    Policy,
    Silence,
    Verdict,
    backoff,
    jitter,
    learn,
    refused,
    restored,
    target_of,
    to_look,
)
from cancelq_worker.state import LOOKS_BACK, State
from cancelq_worker.sweep_verdict import SweepJudge, is_bulk
from cancelq_worker.venues.port import ABOUT_THE_CALL, ENDED, SWEEPS, Reply, Stage, Venue, Word


@dataclass(frozen=True, slots=True)
class Judge:
    """Judges replies for one venue under one policy."""

    venue: Venue
    policy: Policy
    rng: random.Random

    @property
    def _sweeps(self) -> SweepJudge:
        return SweepJudge(self.venue, self.policy, self.rng)

    def cancel(self, before: State, taken: State, fields: dict[str, str], reply: Reply, at: Moment) -> Verdict:
        """What follows from the reply to a cancel. `before` is the state ahead of the take, `taken` after it."""
        if reply.word in ABOUT_THE_CALL:
            if fields["scope"] in SWEEPS and is_bulk(before):
                return self._sweeps.bulk_refused(before, taken, fields, reply)
            return refused(restored(before, taken), reply)
        state = _with_call(before, taken, reply, at)
        if fields["scope"] in SWEEPS:
            return self._sweeps.cancelled(before, state, fields, reply, at)
        if reply.word in ENDED:
            learn(state, reply)
            return Finish(ENDS[reply.word], "reply", END_DETAIL[reply.word], state, reply, known=True)
        match reply.word:
            case Word.SPLIT if taken.size > 1:
                back = restored(before, taken)
                back.cap = max(1, taken.size // 2)
                return Go(back, None, reply)
            case Word.FAILED | Word.SPLIT:
                return self._refused_for_good(state, fields, reply)
            case Word.AGAIN | Word.DOUBTED | Word.LATER if state.attempts < self.policy.max_attempts:
                return self._again(state, fields, reply)
            case Word.DOUBTED:
                return self._refused_for_good(state, fields, reply)
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
            return Go(restored(before, taken), None, reply)
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
            return self._sweeps.looked(state, fields, reply, at)
        learn(state, reply)
        if reply.word in ENDED:
            detail = END_DETAIL[reply.word]
            return Finish(ENDS[reply.word], "query", detail, state, reply, known=True)
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
            return Go(restored(before, taken), None, reply)
        reply = Reply(Word.UNCLEAR, text="no readable answer")
        if stage is Stage.CANCEL:
            return self.cancel(before, taken, fields, reply, at)
        return self.look(before, taken, fields, reply, at)

    def bulk_too_late(self, before: State, taken: State, fields: dict[str, str]) -> Go:
        """What follows where a sweep's bulk call was not made, as the list that led to it is old."""
        return self._sweeps.bulk_too_late(before, taken, fields)

    # -- one order; sweeps: `sweep_verdict.py` -------------------------------------------------------------------

    def _again(self, state: State, fields: dict[str, str], reply: Reply) -> Go:
        policy = self.policy
        if reply.word is Word.LATER:
            delay = jitter(self.rng, policy.later_base_us, policy.later_most_us, state.attempts)
        else:
            delay = jitter(self.rng, policy.retry_base_us, policy.retry_most_us, state.attempts)
        detail = reply.text or reply.code
        if self.venue.timing.look_before_again:
            return self._look_first(state, fields, reply, delay, Status.retrying, detail)
        state = self._to_cancel(state, fields)
        return Go(state, self.venue.timing.gap_us + delay, reply, Status.retrying, detail)

    def _refused_for_good(self, state: State, fields: dict[str, str], reply: Reply) -> Verdict:
        """No cancel of it can work as it is written. But an earlier one that was acknowledged or not answered may have
        been carried out: then what became of the order is looked up, and only if it stays open the refusal stands."""
        if "maybe" not in state.notes:
            return Finish(Status.rejected, "reply", reply.text, state, reply)
        state.notes["no"] = reply.text
        detail = f"refused: {reply.text}; looking up what an earlier attempt came to"
        return self._look_first(state, fields, reply, 0, Status.retrying, detail)

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
        to_look(self.venue, fields, state)
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
        said_no = state.notes.get("no")
        if (state.notes.get("ack") or said_no is not None) and since_us < self.venue.timing.patience_us:
            # Acknowledged, perhaps by an earlier call, and still shown: the venue works asynchronously, or its list is
            # stale.
            return self._look_again(state, fields, reply, 40 * MS, 800 * MS)
        if said_no is not None:
            return Finish(Status.rejected, "query", said_no, state, reply)
        if state.attempts >= self.policy.max_attempts:
            detail = f"still open after {state.attempts} attempts"
            return Finish(Status.unresolved, "query", detail, state, reply)
        delay = max(0, self.venue.timing.gap_us - since_us) + jitter(
            self.rng, self.policy.retry_base_us, self.policy.retry_most_us, state.attempts
        )
        state = self._to_cancel(state, fields)
        return Go(state, delay, reply, Status.retrying, "the venue still shows the order open: cancelling again")

    def _not_seen(self, before: State, state: State, fields: dict[str, str], reply: Reply, at: Moment) -> Verdict:
        self._forget_early_looks(before, state, at)
        absent = dict(state.notes.get("abs", {}))
        if reply.word is Word.ABSENT:
            absent[reply.place] = absent.get(reply.place, 0) + 1
            state.notes["n"] = int(state.notes.get("n", 0)) + 1
        state.notes["abs"] = absent
        elapsed = at.steady_us - int(state.notes["t0"])
        plan = self.venue.next_look(target_of(fields, state))
        over = reply.word is Word.ABSENT and elapsed >= self.policy.lookup_budget_us
        if plan.done and (plan.gap or over):
            return self._never_seen(state, reply, plan.gap)
        if state.lookups >= self._most_lookups(state):
            return Finish(Status.unresolved, "query", "look-ups are used up, not every place was read", state, reply)
        if plan.done:
            state.notes.pop("walk", None)  # the next round walks anew
            plan = self.venue.next_look(target_of(fields, state))
        state.look_class = plan.look_class
        if reply.word is Word.UNREAD:
            unread = int(state.notes.get("u", 0)) + 1
            if "walk" not in state.notes and unread <= self.policy.max_unread:
                state.notes["u"] = unread
                state.lookups = before.lookups  # the page served another; each page settles or passes at least one
            return Go(state, 0, reply)
        base = 50 * MS if state.notes.get("ack") else 150 * MS
        delay = backoff(self.rng, base, 2_500 * MS, int(state.notes.get("n", 0)))
        return Go(state, min(delay, max(50 * MS, self.policy.lookup_budget_us - elapsed)), reply)

    def _forget_early_looks(self, before: State, state: State, at: Moment) -> None:
        """Nobody looked for a while, as the lane was held or its workers gone: what a list did not show yet when it was
        read last, it may show by now. Once is enough: whatever is read from then on is read late, also the first page
        of a walk that waited for another one to end."""
        notes = state.notes
        if at.steady_us - int(notes.get("look_at", at.steady_us)) > self.policy.look_pause_us and "late" not in notes:
            for key in ("abs", "walk", "n") if before.notes.get("walk") else ("abs", "n"):
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
        state.look_class = self.venue.next_look(target_of(fields, state)).look_class
        return Go(state, backoff(self.rng, 100 * MS, 3_000 * MS, fails), reply)

    def _look_again(self, state: State, fields: dict[str, str], reply: Reply, base: int, most: int) -> Go:
        seen = int(state.notes.get("o", 0)) + 1
        state.notes["o"] = seen
        state.notes["n"] = 0
        state.look_class = self.venue.next_look(target_of(fields, state)).look_class
        return Go(state, backoff(self.rng, base, most, seen), reply)

    def _to_cancel(self, state: State, fields: dict[str, str]) -> State:
        """Back to the cancel queue; what was noted of looks belongs to the attempt before."""
        for key in _OF_AN_ATTEMPT:
            state.notes.pop(key, None)
        state.stage = Stage.CANCEL
        state.cancel_class = self.venue.cancel_class(target_of(fields, state))
        return state

    def _most_lookups(self, state: State) -> int:
        return self.policy.max_walk_lookups if "walk" in state.notes else self.policy.max_lookups


#: Notes on what followed one cancel, void with the next.
_OF_AN_ATTEMPT = ("n", "o", "f", "abs", "look_at", "late", "walk", "t0", "ack", "no", "unmet")
_ACKNOWLEDGED = "acknowledged by the venue; to be confirmed"


def _unmet(state: State, fields: dict[str, str], reply: Reply) -> bool:
    """Whether the venue refused a conditional cancel, and the order is indeed not as the condition wants it. A call
    that was not answered was not refused."""
    wanted = fields.get("only_if")
    return wanted is not None and "unmet" in state.notes and reply.venue_state != wanted


def _with_call(before: State, taken: State, reply: Reply, at: Moment) -> State:
    """The state after a cancel call that may have been executed, with that call's times on record. Noted as well:
    whether this one or an earlier one may have changed the order (`maybe`)."""
    notes: dict[str, Any] = taken.notes
    # Of a worker that did not live to tell what came of its call.
    untold = before.attempts and before.notes.get("call", {}).get("b") != before.batch_id
    if untold or reply.word in (Word.ACKNOWLEDGED, Word.UNCLEAR):
        notes["maybe"] = 1
    for key in (*_OF_AN_ATTEMPT, "seen"):
        notes.pop(key, None)
    call: dict[str, Any] = {"b": taken.batch_id, "s": at.sent_us, "code": reply.code, "http": reply.http_status}
    if at.answered_us is not None:
        call["a"] = at.answered_us
    notes["call"] = call
    notes["t0"] = notes["sent_at"] = at.steady_us
    return taken
