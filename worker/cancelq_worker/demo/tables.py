"""What the closing audit joins: what was asked on a lane, what was told, and what the venue knows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from cancelq.contract import Event, Status


@dataclass(frozen=True, slots=True)
class Asked:
    """One inbox entry: what it asked and what has to come of it.

    `orders` are the venue's ids of the orders it may close, `spared` those it must leave as they are; `says` is what
    the detail of its outcome has to hold. `repeats` marks an entry whose `id` was used before: it gets a `duplicate`
    event and no outcome of its own; `differs` if its content is another one. `not_before_us` is a timed cancel's time.
    """

    kind: str
    id: str
    entry_id: str
    expected: Status
    orders: tuple[str, ...] = ()
    spared: tuple[str, ...] = ()
    target: str = ""
    says: str = ""
    repeats: bool = False
    differs: bool = False
    not_before_us: int = 0


@dataclass(frozen=True, slots=True)
class Naming:
    """One cancel call that named an order: when it reached the venue, and what came of it for this order."""

    at_us: int
    verdict: str


@dataclass(frozen=True, slots=True)
class OrderTruth:
    """An order as the venue knows it. `closed_by` is who ended it: `call:…` for a cancel call, else the market."""

    order_id: str
    state: str
    open: bool
    filled: str = "0"
    client_id: str = ""
    child_id: str = ""
    closed_by: str = ""
    namings: tuple[Naming, ...] = ()


@dataclass(frozen=True, slots=True)
class BucketUse:
    """What a venue counted against one of its limits, in calls or, where it counts so, in orders. `owner` is an
    account's UID or an address; `worst` is the most it took within any one window."""

    venue: str
    name: str
    owner: str
    limit: int | None
    window_ms: int
    taken: int
    refused: int
    worst: int


@dataclass(frozen=True, slots=True)
class VenueCall:
    """One call in a venue's own log, and how many orders it named. `uid` is "" where no key was asked for; `code` is
    what it was answered with, as text; `refused`: it, or a part of it, was over a limit or came to a closed endpoint;
    `fault` is how the venue misbehaved on purpose, "" if it did not."""

    venue: str
    uid: str
    endpoint: str
    posts: bool
    orders: int
    code: str = ""
    refused: bool = False
    fault: str = ""


@dataclass(frozen=True, slots=True)
class CallCount:
    """Calls in the venue's log: cancels, look-ups, how full the batches were, how many were refused, and how often
    one endpoint answered with one and the same error at most."""

    cancels: int = 0
    lookups: int = 0
    batches: int = 0
    in_batches: int = 0
    refused: int = 0
    equal_errors: int = 0

    @property
    def per_batch(self) -> float:
        return self.in_batches / self.batches if self.batches else 0.0


# Where a call cancels a list of orders, at any of the venues.
BATCHES = frozenset({"batch-cancel-order", "cancel-batch", "cancelOrders"})
# How the venues say that nothing is wrong.
GOOD_CODES = frozenset({"", "0", "00000"})


def count_calls(calls: Sequence[VenueCall]) -> CallCount:
    """Cancels are calls that change orders, look-ups those that ask for them with a key."""
    cancels = [call for call in calls if call.posts and "cancel" in call.endpoint]
    batches = [call.orders for call in cancels if call.endpoint in BATCHES]
    lookups = sum(not call.posts and call.uid != "" for call in calls)
    refused = sum(call.refused for call in calls)
    errors = Counter((call.endpoint, call.code) for call in calls if call.code not in GOOD_CODES and not call.refused)
    return CallCount(len(cancels), lookups, len(batches), sum(batches), refused, max(errors.values(), default=0))


@dataclass(slots=True)
class Tables:
    """All of one lane. `inbox_length` is how many entries its stream holds; `reply_proves`: its venue's answer to a
    cancel may state the order's end, and is no mere acknowledgement; `keeps_ids`: what a trigger places goes by the
    trigger's own id there; `locked_at`: so many equal errors lock an endpoint, 0: no number does."""

    lane: str
    asked: Sequence[Asked]
    events: Sequence[Event]
    truth: Sequence[OrderTruth]
    buckets: Sequence[BucketUse] = ()
    calls: Sequence[VenueCall] = field(default_factory=list)
    inbox_length: int = 0
    reply_proves: bool = False
    keeps_ids: bool = False
    locked_at: int = 0
