"""What the judges of replies share: their bounds, what they are told, what they may say, and how long they wait."""

from __future__ import annotations

import random
from dataclasses import dataclass
from enum import Enum

from cancelq.contract import Status
from cancelq_worker.state import State
from cancelq_worker.venues.port import ENDED, Reply, Stage, Target, Venue, Word

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
    sweep_doubt_us: int = 2_000_000  # the same where nothing but the clocks' doubt is left: some readings of them
    sweep_settle_us: int = 1_000_000  # how long an open list may hide a new order
    retry_base_us: int = 200 * MS
    retry_most_us: int = 5_000_000
    later_base_us: int = 10_000_000
    later_most_us: int = 60_000_000


class Silence(Enum):
    """A call without a readable answer."""

    NOT_SENT = "not sent"  # it surely never left, or not whole
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

#: How an order that has ended is told.
ENDS = {
    Word.CANCELLED: Status.cancelled,
    Word.FILLED: Status.filled,
    Word.TRIGGERED: Status.triggered,
    Word.CLOSED: Status.closed,
}
END_DETAIL = {
    Word.CANCELLED: "the venue states that the order is cancelled",
    Word.FILLED: "too late: the venue states that the order is filled",
    Word.TRIGGERED: "too late: the order had fired; what it placed was not touched",
    Word.CLOSED: "the venue states another end of the order",
}


def jitter(rng: random.Random, base_us: int, most_us: int, nth: int) -> int:
    """A wait before the nth try, with full jitter: anywhere between now and the capped exponential."""
    return int(rng.uniform(0, min(most_us, base_us * 2 ** min(nth, 20))))


def backoff(rng: random.Random, base_us: int, most_us: int, nth: int) -> int:
    """The same, exponential with a tenth of jitter: looks are to be spread, not delayed."""
    return int(min(most_us, base_us * 2 ** min(max(nth - 1, 0), 20)) * rng.uniform(0.9, 1.1))


def ended_by_push(reply: Reply) -> Finish | None:
    """What a push of the order stream ends; None if it tells of no end."""
    if reply.word not in ENDED:
        return None
    return Finish(ENDS[reply.word], "stream", END_DETAIL[reply.word], State(), reply, known=True)


def refused(state: State, reply: Reply) -> Go:
    """A cancel the venue refused before looking at its orders: told, and no attempt."""
    why = reply.text or f"code {reply.code}"
    return Go(state, None, reply, Status.retrying, f"refused by the venue, so it is no attempt: {why}")


def target_of(fields: dict[str, str], state: State) -> Target:
    return Target(fields, state.notes)


def to_look(venue: Venue, fields: dict[str, str], state: State) -> None:
    """Into the queue of the look that comes next."""
    state.stage = Stage.LOOK
    state.look_class = venue.next_look(target_of(fields, state)).look_class


def restored(before: State, taken: State) -> State:
    """As it was before the take, but for the fence: the call was not carried out, so it costs nothing."""
    return before.at_rest(taken.fence)


def learn(state: State, reply: Reply) -> None:
    """Keeps what an answer taught: the order's other id, and the venue's scratch notes."""
    state.notes.update(reply.notes)
    if reply.order_id:
        state.notes["oid"] = reply.order_id
    if reply.client_order_id:
        state.notes["cid"] = reply.client_order_id
