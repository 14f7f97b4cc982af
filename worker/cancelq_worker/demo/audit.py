"""The closing audit: what was asked, what was answered and what the venue knows, joined and judged.

Pure: tables in, report out. Nothing of the workers' own bookkeeping is read, only the entries producers added,
the results stream and the venue's truth, so that a worker that lies, forgets or repeats itself is found out.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal

from cancelq.contract import FINAL, Event, Status
from cancelq_worker.demo.latency import Latency, latencies

NOBODY = "nobody asked"
VENUE = "the venue"
STREAM = "results"


@dataclass(frozen=True, slots=True)
class Asked:
    """One inbox entry: what it asked and what has to come of it.

    `orders` are the venue's ids of the orders it may close, `spared` those it must leave as they are.
    `repeats` marks an entry whose `id` was used before: it gets a `duplicate` event and no outcome of its own;
    `differs` if its content is another one. `not_before_us` is a timed cancel's time.
    """

    kind: str
    id: str
    entry_id: str
    expected: Status
    orders: tuple[str, ...] = ()
    spared: tuple[str, ...] = ()
    target: str = ""
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
    """What the venue counted against one of its limits; `worst` is the most it took within any one window."""

    name: str
    limit: int | None
    window_ms: int
    taken: int
    refused: int
    worst: int


@dataclass(frozen=True, slots=True)
class VenueCall:
    """One call in the venue's own log, and how many orders it named."""

    endpoint: str
    posts: bool
    orders: int


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that must not be: whom it concerns and what is wrong."""

    kind: str
    id: str
    problem: str


@dataclass(slots=True)
class Row:
    """The books of one kind of entry."""

    kind: str
    expected: Status
    sent: int = 0
    agree: int = 0
    missing: int = 0
    doubled: int = 0
    got: Counter[str] = field(default_factory=Counter)


@dataclass(frozen=True, slots=True)
class Report:
    """What the audit found. `rows` are in the order of the first entry of their kind."""

    rows: list[Row]
    findings: list[Finding]
    buckets: Sequence[BucketUse]
    calls: CallCount
    latency: list[Latency]
    settled_by: Counter[str]

    @property
    def ok(self) -> bool:
        """Every entry has its one answer, the venue's truth agrees with each, and it refused nothing."""
        return not self.findings

    @property
    def sent(self) -> int:
        return sum(row.sent for row in self.rows)


@dataclass(frozen=True, slots=True)
class CallCount:
    """Calls in the venue's log: cancels, look-ups, and how full the batches were."""

    cancels: int
    lookups: int
    batches: int
    in_batches: int

    @property
    def per_batch(self) -> float:
        return self.in_batches / self.batches if self.batches else 0.0


def audit(
    asked: Sequence[Asked],
    events: Iterable[Event],
    truth: Iterable[OrderTruth],
    buckets: Sequence[BucketUse],
    calls: Iterable[VenueCall],
    *,
    order: Sequence[str] = (),
    inbox_length: int | None = None,
) -> Report:
    """Joins the tables. `order` sorts the rows by kind; `inbox_length` is how many entries the stream holds."""
    books = _Books(asked, list(events), {one.order_id: one for one in truth})
    for entry in asked:
        books.judge(entry)
    findings = [*books.findings, *_strays(books), *_unasked(books), *_of_venue(books, buckets)]
    if inbox_length is not None and inbox_length != len(asked):
        findings.append(Finding(STREAM, "inbox", f"it holds {inbox_length} entries, {len(asked)} were sent"))
    place = {kind: at for at, kind in enumerate(order)}
    rows = sorted(books.rows.values(), key=lambda row: place.get(row.kind, len(place)))
    return Report(rows, findings, buckets, count_calls(calls), _latency(books), _settled_by(books))


class _Books:
    """The tables, findable by id, and what the audit writes down."""

    def __init__(self, asked: Sequence[Asked], events: list[Event], truth: Mapping[str, OrderTruth]) -> None:
        self.asked = asked
        self.truth = truth
        self.client_ids = {order.client_id for order in truth.values() if order.client_id}
        self.finals: dict[str, list[Event]] = defaultdict(list)
        self.duplicates: dict[str, list[Event]] = defaultdict(list)
        self.rows: dict[str, Row] = {}
        self.findings: list[Finding] = []
        self._repeats: Counter[str] = Counter(entry.id for entry in asked if entry.repeats)
        for event in events:
            if event.final:
                self.finals[event.id].append(event)
            elif event.status is Status.duplicate:
                self.duplicates[event.id].append(event)

    def judge(self, entry: Asked) -> None:
        row = self.rows.setdefault(entry.kind, Row(entry.kind, entry.expected))
        row.sent += 1
        problem = self._of_repeat(entry, row) if entry.repeats else self._of_intent(entry, row)
        if problem:
            self.findings.append(Finding(entry.kind, entry.id, problem))
        else:
            row.agree += 1

    def _of_intent(self, entry: Asked, row: Row) -> str:
        finals = self.finals.get(entry.id, [])
        if not finals:
            row.missing += 1
            return "no final event"
        row.got[finals[0].status.value] += 1
        if len(finals) > 1:
            row.doubled += 1
            return f"{len(finals)} final events: {', '.join(event.status for event in finals)}"
        return _disagreement(entry, finals[0], self)

    def _of_repeat(self, entry: Asked, row: Row) -> str:
        """Repeats of one id cannot be told apart by their events, so they are counted."""
        told, sent = self.duplicates.get(entry.id, []), self._repeats[entry.id]
        if len(told) < sent:
            row.missing += 1
            return f"{sent} repeats of this id, {len(told)} duplicate events"
        row.got[Status.duplicate.value] += 1
        if len(told) > sent:
            row.doubled += 1
            return f"{sent} repeats of this id, {len(told)} duplicate events"
        if entry.differs and not any("differs" in (event.detail or "") for event in told):
            return "its content differs from the first, and no event says so"
        return _touched(entry.spared, self.truth)


# ---------------------------------------------------------------------------
# One outcome against the truth


def _disagreement(entry: Asked, event: Event, books: _Books) -> str:
    """What is wrong with an outcome; empty if nothing is."""
    if event.status not in FINAL:
        return f"its final event says {event.status}, which is not final"
    return (
        _against_truth(entry, event, books)
        or _touched(entry.spared, books.truth)
        or _too_early(entry, books.truth)
        or ("" if event.status is entry.expected else f"expected {entry.expected}, got {event.status}")
    )


def _against_truth(entry: Asked, event: Event, books: _Books) -> str:
    match event.status:
        case Status.cancelled | Status.filled | Status.triggered | Status.closed:
            return _end_against_truth(entry, event, books.truth)
        case Status.not_found:
            known = [o for o in (event.order_id, event.client_order_id) if o in books.truth or o in books.client_ids]
            return f"not_found, but the venue knows {known[0]}" if known else ""
        case Status.rejected | Status.expired | Status.revoked:
            return _untouched_target(entry, event, books) or _touched(entry.orders, books.truth)
        case _:
            return f"{event.status}: {event.detail or 'no detail'}"


# What an outcome says about the order, in the words of the venue's truth.
_STATES = {
    Status.cancelled: frozenset({"cancelled"}),
    Status.filled: frozenset({"filled"}),
    Status.triggered: frozenset({"triggered"}),
    Status.closed: frozenset({"failed"}),
}


def _end_against_truth(entry: Asked, event: Event, truth: Mapping[str, OrderTruth]) -> str:
    if not entry.orders:
        return f"{event.status}, but it names no order the venue has"
    sweep = event.scope in ("symbol", "account")
    if sweep and event.open_orders != 0:
        return f"cancelled, but open_orders is {event.open_orders}"
    for order_id in entry.orders:
        order = truth.get(order_id)
        if order is None:
            return f"{event.status}, but the venue does not know {order_id}"
        # Of a whole pair it is only claimed that nothing is open any more.
        if order.open or (not sweep and order.state not in _STATES[event.status]):
            return f"{event.status}, but the venue says that {order_id} is {order.state}"
        wrong = "" if sweep else _wrong_amount(event, order) or _wrong_child(event, order, truth)
        if wrong:
            return wrong
    return ""


def _wrong_amount(event: Event, order: OrderTruth) -> str:
    told, true = Decimal(event.filled or "0"), Decimal(order.filled)
    # A trigger's own fill is its child's affair.
    if event.status is Status.triggered or told == true:
        return ""
    return f"filled {told}, but at the venue {true} of {order.order_id} are filled"


def _wrong_child(event: Event, order: OrderTruth, truth: Mapping[str, OrderTruth]) -> str:
    if event.child_order_id and event.child_order_id != order.child_id:
        return f"child_order_id {event.child_order_id}, but at the venue it is {order.child_id or 'none'}"
    child = truth.get(order.child_id)
    return f"the order its trigger placed, {child.order_id}, was touched" if child and not child.open else ""


def _untouched_target(entry: Asked, event: Event, books: _Books) -> str:
    """A revocation against the outcome of what it names."""
    if not entry.target or event.status is Status.expired:
        return ""
    withdrawn = any(final.status is Status.revoked for final in books.finals.get(entry.target, []))
    if withdrawn == (event.status is Status.revoked):
        return ""
    return f"{event.status}, but its target was {'' if withdrawn else 'not '}withdrawn"


def _touched(order_ids: Iterable[str], truth: Mapping[str, OrderTruth]) -> str:
    for order_id in order_ids:
        order = truth.get(order_id)
        if order and not order.open:
            return f"nothing may happen to order {order_id}, but it is {order.state}"
    return ""


def _too_early(entry: Asked, truth: Mapping[str, OrderTruth]) -> str:
    named = [naming.at_us for order_id in entry.orders if order_id in truth for naming in truth[order_id].namings]
    early_us = entry.not_before_us - min(named, default=entry.not_before_us)
    return f"sent {early_us / 1000:.1f} ms before its time" if entry.not_before_us and early_us > 0 else ""


# ---------------------------------------------------------------------------
# What concerns no single entry


def _strays(books: _Books) -> Iterable[Finding]:
    known = {entry.id for entry in books.asked}
    for id_ in books.finals:
        if id_ not in known:
            yield Finding(STREAM, id_, "a final event of an intent that nobody sent")


def _unasked(books: _Books) -> Iterable[Finding]:
    """Orders that a cancel call ended although no entry asked for it."""
    asked_for = {order_id for entry in books.asked for order_id in entry.orders}
    for order in books.truth.values():
        if order.closed_by.startswith("call:") and order.order_id not in asked_for:
            yield Finding(NOBODY, order.order_id, f"{order.state} by a cancel call, and nobody asked for it")


def _of_venue(books: _Books, buckets: Iterable[BucketUse]) -> Iterable[Finding]:
    for bucket in buckets:
        if bucket.refused:
            yield Finding(VENUE, bucket.name, f"{bucket.refused} calls were refused: over the limit of {bucket.limit}")
        if bucket.limit is not None and bucket.worst > bucket.limit:
            yield Finding(VENUE, bucket.name, f"{bucket.worst} calls in one window, the limit is {bucket.limit}")
    for order in books.truth.values():
        if any(naming.verdict == "too_soon" for naming in order.namings):
            yield Finding(VENUE, order.order_id, "cancelled again before the venue's gap was over")


def count_calls(calls: Iterable[VenueCall]) -> CallCount:
    """Cancels are calls that change something, look-ups those that only ask."""
    cancels = lookups = batches = in_batches = 0
    for call in calls:
        if not call.posts:
            lookups += 1
            continue
        cancels += 1
        if call.endpoint.startswith("batch-"):
            batches += 1
            in_batches += call.orders
    return CallCount(cancels, lookups, batches, in_batches)


def _latency(books: _Books) -> list[Latency]:
    """Of cancels that were to be sent at once: a timed one waits because it was told to."""
    timed = {entry.id for entry in books.asked if entry.not_before_us}
    return latencies(events[0] for id_, events in books.finals.items() if id_ not in timed)


def _settled_by(books: _Books) -> Counter[str]:
    return Counter(events[0].worker or "?" for events in books.finals.values())
