"""JUDGE, for sweeps of a pair or an account: whatever a cancel was answered with, the open lists decide."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from cancelq.contract import Status
from cancelq_worker.rulings import (
    MS,
    Finish,
    Go,
    Moment,
    Policy,
    Verdict,
    backoff,
    refused,
    restored,
    target_of,
    to_look,
)
from cancelq_worker.state import LOOKS_BACK, State
from cancelq_worker.venues.port import Reply, Stage, Venue, Word
from cancelq_worker.venues.sweeping import count_pair, keep_most

LIST_LASTS_US = 1_000_000  # how long an open list may be the reason for a bulk call


@dataclass(frozen=True, slots=True)
class SweepJudge:
    """Judges what became of sweeps at one venue under one policy."""

    venue: Venue
    policy: Policy
    rng: random.Random

    def cancelled(self, before: State, state: State, fields: dict[str, str], reply: Reply, at: Moment) -> Verdict:
        """After the bulk call or a cancel by ids: whatever it said, the open lists decide."""
        state.notes.setdefault("w0", at.steady_us)
        sweep = dict(state.notes.get("sweep", {}))
        todo = sweep.get("todo", [])
        bulk = is_bulk(before)
        if bulk and reply.word in (Word.FAILED, Word.SPLIT):
            return Finish(Status.rejected, "reply", reply.text, state, reply)
        if todo:
            target = target_of(fields, before)
            target.paid = state.size
            state.size = self.venue.sweep_named(state.route, target)
            named, sweep["todo"] = todo[: state.size], todo[state.size :]
            state.notes["sweep"], todo = sweep, sweep["todo"]
            for row in named:
                state.notes["named"] = count_pair(state.notes.get("named", {}), row["symbol"])
        tell = Status.accepted if reply.word is Word.ACKNOWLEDGED else Status.retrying
        detail = "acknowledged by the venue; the open lists decide" if tell is Status.accepted else reply.text
        first = tell if state.attempts == 1 else None
        if todo and reply.word is Word.GONE and self.venue.timing.look_before_again:
            # Orders end by themselves here, and errors lock the endpoint: the rest is seen open before it is named.
            state.notes["sweep"] = {**sweep, "again": 1}
            to_look(self.venue, fields, state)
            return Go(state, 0, reply, first, detail)
        if todo:
            state.stage = Stage.CANCEL
            state.cancel_class = self.venue.cancel_class(target_of(fields, state))
            return Go(state, 0, reply, first, detail)
        if bulk or sweep.get("end"):
            return replace(
                self._next_pass(state, fields, reply, at, self.venue.timing.look_after_us), tell=first, detail=detail
            )
        to_look(self.venue, fields, state)
        return Go(state, 0, reply, first, detail)

    def bulk_refused(self, before: State, taken: State, fields: dict[str, str], reply: Reply) -> Go:
        """The one bulk call was refused, and nothing of it was carried out. It is not made a second time all the same:
        by then it could hit orders that are newer than the intent. The lists and cancels by id serve instead."""
        return refused(self._without_bulk(before, taken, fields), reply)

    def bulk_too_late(self, before: State, taken: State, fields: dict[str, str]) -> Go:
        """The bulk call was decided upon by a list that is old by now (`list_is_old`): orders that are not meant may
        have been placed since. It was not made, and is not."""
        return Go(self._without_bulk(before, taken, fields), 0, Reply(Word.AGAIN))

    def _without_bulk(self, before: State, taken: State, fields: dict[str, str]) -> State:
        state = restored(before, taken)
        state.notes["sweep"], state.notes["nobulk"] = {}, 1
        to_look(self.venue, fields, state)
        return state

    def looked(self, state: State, fields: dict[str, str], reply: Reply, at: Moment) -> Verdict:
        state.notes.setdefault("w0", at.steady_us)
        if reply.word is not Word.LISTED:
            return self._failed(state, fields, reply)
        state.notes.update(reply.notes)
        state.notes.pop("f", None)
        sweep = state.notes["sweep"]
        target = target_of(fields, state)
        if sweep.get("end"):
            keep_most(state.notes)
        if sweep.get("bulk"):
            state.notes["listed"] = at.steady_us
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
        budget_us = self._budget_us(sweep)
        if stalled_us >= budget_us and self._just_cancelled(state, at):
            # Its cancels may have waited for permits all that time: they are counted once more before it is given up.
            return self._next_pass(state, fields, reply, at, 100 * MS, count_only=True)
        if stalled_us >= budget_us and wait_us <= 0:
            return Finish(Status.unresolved, "query", _still_open(sweep, fields), state, reply, open_orders=still)
        return self._next_pass(state, fields, reply, at, min(2_000 * MS, max(100 * MS, stalled_us // 3)))

    def _budget_us(self, sweep: Mapping[str, Any]) -> int:
        """For how long it is worth looking again at what stays open. Orders that were placed within the clocks' doubt
        of the intent stay there: how old they are no look tells, only a clock that is known better, and that is soon
        as well known as it can be. Whoever asked hears of them while it is of use: a new intent, which is surely newer,
        cancels them at once."""
        close = int(sweep.get("close", 0))
        return self.policy.sweep_doubt_us if close == int(sweep["open"]) else self.policy.sweep_budget_us

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
        to_look(self.venue, fields, state)
        return Go(state, delay_us, reply)

    def _failed(self, state: State, fields: dict[str, str], reply: Reply) -> Verdict:
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
        return Go(state, backoff(self.rng, 100 * MS, 3_000 * MS, fails), reply)


def _still_open(sweep: Mapping[str, Any], fields: Mapping[str, str]) -> str:
    unsure, close = int(sweep.get("unsure", 0)), int(sweep.get("close", 0))
    told = f"{sweep['open']} orders are still open"
    if unsure:
        told += f", of {unsure} nobody can tell whether they are meant"
    if not close:
        return told
    # A new intent moves the moment that it was asked at, but no bound that it names.
    at, way_out = ("older_than_ms or the intent", "") if "older_than_ms" in fields else ("the intent", "; ask anew")
    return f"{told}: {close} were created within {sweep['doubt']} ms of {at}, and the clocks tell no closer{way_out}"


def list_is_old(before: State, now_us: int) -> bool:
    """Whether a bulk call that a list led to would be made long after that list, by Redis' steady clock: it had to wait
    for a permit, or the lane was held."""
    decided = before.notes.get("sweep", {}).get("bulk")
    return bool(decided) and now_us - int(before.notes.get("listed", now_us)) > LIST_LASTS_US


def is_bulk(before: State) -> bool:
    """Whether a sweep's cancel call was the bulk call, not one that names what was found."""
    sweep = before.notes.get("sweep", {})
    return not sweep.get("todo") or bool(sweep.get("bulk"))
