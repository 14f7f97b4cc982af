"""The promises, one function each. Pure: nothing is read here but the case."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator
from itertools import pairwise

from cancelq.contract import Event, Status
from ops.checks.case import Ask, Broken, Case
from ops.checks.truth import false_outcome
from ops.checks.venue import bulk_calls, over_by_the_log, over_the_limit, unrecorded_calls

#: A worker's clock follows Redis' through the network: it is off by half of what one way takes longer, and
#: the links of a run hold pieces back for up to 300 ms.
WORKERS_CLOCK_US = 300_000


def judge(case: Case) -> list[Broken]:
    """Every broken promise of a run; none: the run was good."""
    return [broken for check in CHECKS for broken in check(case)]


def lost(case: Case) -> Iterator[Broken]:
    """1: what was acknowledged is in the inbox, and what is in the inbox has its outcome, or (11) is late."""
    kept = {entry.entry_id for entry in case.told.entries}
    for entry_id in case.acknowledged:
        if entry_id not in kept:
            yield Broken("1", f"entry {entry_id} was acknowledged and is not in the inbox")
    for id_ in case.told.open_ids:
        what = f"{id_} has no final event: {case.told.story(id_)}"
        yield Broken("11", f"{what} (it is still in the lane's books)") if id_ in case.waiting else Broken("1", what)


def doubled(case: Case) -> Iterator[Broken]:
    """2: one outcome each."""
    for id_, events in case.told.finals.items():
        if len(events) > 1:
            yield Broken("2", f"{id_} has {len(events)} final events: {case.told.story(id_)}")


def invented(case: Case) -> Iterator[Broken]:
    """3: nothing is told of what nobody asked, and nothing is asked that nobody sent."""
    for event in case.told.events:
        if event.id not in case.told.intents:
            yield Broken("3", f"{event.status} of {event.id}, which nobody asked for")
    for id_ in case.told.intents:
        if case.ask_of(id_) is None:
            yield Broken("3", f"{id_} is in the inbox and nobody sent it")


def false(case: Case) -> Iterator[Broken]:
    """4: each outcome is what the venue knows to be true."""
    for event, ask in _outcomes(case):
        for what in false_outcome(case, event, ask):
            yield Broken("4", f"{event.id}: {event.status} ({event.evidence}: {event.detail}), {what}")


def sent_late(case: Case) -> Iterator[Broken]:
    """7: no call left after its permit's time to be used."""
    if case.bounds.send_by_us is None:
        return
    for event in case.told.events:
        if event.sent_us is None or event.taken_us is None:
            continue
        took_us = event.sent_us - event.taken_us
        if took_us > case.bounds.send_by_us + case.bounds.clocks_us + WORKERS_CLOCK_US:
            yield Broken("7", f"{event.id}: {event.status}, sent {took_us} us after its permit was granted")


def too_often(case: Case) -> Iterator[Broken]:
    """9: attempts and look-ups are bounded. A sweep counts an attempt for each of its batches of cancels."""
    for event, _ in _outcomes(case):
        if (event.attempt or 0) > case.bounds.attempts and event.scope not in ("symbol", "account"):
            yield Broken("9", f"{event.id}: {event.status} after {event.attempt} attempts")
        if (event.lookups or 0) > case.bounds.lookups:
            yield Broken("9", f"{event.id}: {event.status} after {event.lookups} look-ups")


def late(case: Case) -> Iterator[Broken]:
    """11: what was asked before the last fault ended is settled soon after it."""
    if case.healed_us is None:
        return
    for event, _ in _outcomes(case):
        late_s = ((event.settled_us or 0) - case.healed_us) / 1e6
        if case.first(event.id).queued_us <= case.healed_us and late_s > case.bounds.settle_s:
            yield Broken(
                "11", f"{event.id}: {event.status} {late_s:.1f} s after healing, {case.bounds.settle_s} s are promised"
            )


def repeated(case: Case) -> Iterator[Broken]:
    """15: a repeat is told as one, says so if its content differs, and does nothing."""
    duplicates: dict[str, list[Event]] = defaultdict(list)
    for event in case.told.events:
        if event.status is Status.duplicate:
            duplicates[event.id].append(event)
    for id_, entries in case.told.intents.items():
        events = duplicates.get(id_, [])
        if len(events) != len(entries) - 1:
            yield Broken("15", f"{id_}: {len(entries)} entries, {len(events)} duplicate events")
        others = sum(entry.digest != entries[0].digest for entry in entries[1:])
        differing = sum("differs" in (event.detail or "") for event in events)
        if others != differing:
            yield Broken("15", f"{id_}: {others} repeats had other content, {differing} events say so")


def touched(case: Case) -> Iterator[Broken]:
    """15 and 4: orders that an intent must leave alone are open, and no cancel named them."""
    for id_ in case.told.intents:
        ask = case.ask_of(id_)
        for row in case.venue.of(ask.spared) if ask else ():
            if not row["open"] or row["cancels"]:
                yield Broken("15", f"{id_}: order {row['order_id']} was to be left alone and was touched")


def disordered(case: Case) -> Iterator[Broken]:
    """21: the times of an event are those of its story: queued, taken, sent, answered, settled."""
    slack_us = case.bounds.clocks_us
    for event in case.told.events:
        steps = [event.queued_us, event.taken_us, event.sent_us, event.answered_us, event.settled_us]
        known = [at_us for at_us in steps if at_us is not None]
        if event.settled_us is None or event.queued_us is None:
            yield Broken("21", f"{event.id}: {event.status} lacks a time: {steps}")
        elif any(after < before - slack_us - WORKERS_CLOCK_US for before, after in pairwise(known)):
            yield Broken("21", f"{event.id}: {event.status} has its times in another order: {steps}")


def _outcomes(case: Case) -> Iterator[tuple[Event, Ask]]:
    """The last final event of each intent that somebody asked for."""
    for id_, events in case.told.finals.items():
        ask = case.ask_of(id_)
        if ask is not None:
            yield events[-1], ask


CHECKS: tuple[Callable[[Case], Iterator[Broken]], ...] = (
    lost,
    doubled,
    invented,
    false,
    unrecorded_calls,
    over_the_limit,
    over_by_the_log,
    sent_late,
    too_often,
    bulk_calls,
    late,
    repeated,
    touched,
    disordered,
)
