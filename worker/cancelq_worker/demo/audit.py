"""The closing audit of each lane: what was asked, what was answered and what the venue knows, joined and judged.

Pure: tables in, report out. Nothing of the workers' own bookkeeping is read, only the entries producers added,
the results stream and the venue's truth, so that a worker that lies, forgets or repeats itself is found out.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal

from cancelq.contract import FINAL, Event, Status
from cancelq_worker.demo.latency import Latency, latencies
from cancelq_worker.demo.tables import Asked, BucketUse, CallCount, OrderTruth, Tables, count_calls

NOBODY = "nobody asked"
VENUE = "the venue"
STREAM = "results"


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that must not be: on which lane, whom it concerns and what is wrong."""

    lane: str
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


@dataclass(frozen=True, slots=True)
class LaneReport:
    """What the audit found on one lane. `outcomes` counts final events and duplicates, `evidence` final events."""

    lane: str
    rows: list[Row]
    findings: list[Finding]
    buckets: Sequence[BucketUse]
    calls: CallCount
    latency: list[Latency]
    outcomes: Counter[str]
    evidence: Counter[str]
    settled_by: Counter[str]
    troubles: Counter[str]
    locked_at: int = 0

    @property
    def sent(self) -> int:
        return sum(row.sent for row in self.rows)


@dataclass(frozen=True, slots=True)
class Report:
    """What the audit found on every lane."""

    lanes: list[LaneReport]

    @property
    def findings(self) -> list[Finding]:
        return [finding for lane in self.lanes for finding in lane.findings]

    @property
    def ok(self) -> bool:
        """Every entry has its one answer, the venues' truth agrees with each, and they refused nothing."""
        return not self.findings

    @property
    def sent(self) -> int:
        return sum(lane.sent for lane in self.lanes)


def audit(tables: Tables) -> LaneReport:
    """Joins the tables of a lane."""
    books = _Books(tables)
    for entry in tables.asked:
        books.judge(entry)
    findings = [*books.findings, *_strays(books), *_unasked(books), *_of_venue(books)]
    if tables.inbox_length != len(tables.asked):
        problem = f"it holds {tables.inbox_length} entries, {len(tables.asked)} were sent"
        findings.append(books.finding(STREAM, "inbox", problem))
    finals = [events[0] for events in books.finals.values()]
    outcomes = Counter(event.status.value for event in finals)
    outcomes[Status.duplicate.value] = sum(map(len, books.duplicates.values()))
    return LaneReport(
        tables.lane,
        list(books.rows.values()),
        findings,
        tables.buckets,
        count_calls(tables.calls),
        _latency(books),
        outcomes,
        Counter(event.evidence or "?" for event in finals),
        Counter(event.worker or "?" for event in finals),
        Counter(call.fault for call in tables.calls if call.fault),
        tables.locked_at,
    )


class _Books:
    """The tables, findable by id, and what the audit writes down."""

    def __init__(self, tables: Tables) -> None:
        self.tables = tables
        self.truth = {order.order_id: order for order in tables.truth}
        self.client_ids = {order.client_id for order in tables.truth if order.client_id}
        self.finals: dict[str, list[Event]] = defaultdict(list)
        self.duplicates: dict[str, list[Event]] = defaultdict(list)
        self.rows: dict[str, Row] = {}
        self.findings: list[Finding] = []
        self._repeats: Counter[str] = Counter(entry.id for entry in tables.asked if entry.repeats)
        for event in tables.events:
            if event.final:
                self.finals[event.id].append(event)
            elif event.status is Status.duplicate:
                self.duplicates[event.id].append(event)

    def judge(self, entry: Asked) -> None:
        row = self.rows.setdefault(entry.kind, Row(entry.kind, entry.expected))
        row.sent += 1
        problem = self._of_repeat(entry, row) if entry.repeats else self._of_intent(entry, row)
        if problem:
            self.findings.append(self.finding(entry.kind, entry.id, problem))
        else:
            row.agree += 1

    def finding(self, kind: str, id_: str, problem: str) -> Finding:
        return Finding(self.tables.lane, kind, id_, problem)

    def _of_intent(self, entry: Asked, row: Row) -> str:
        finals = self.finals.get(entry.id, [])
        if not finals:
            row.missing += 1
            return "no final event"
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
        or _unproven(event, books.tables)
        or ("" if entry.says in (event.detail or "") else f"its detail does not say {entry.says!r}: {event.detail}")
    )


def _against_truth(entry: Asked, event: Event, books: _Books) -> str:
    match event.status:
        case Status.cancelled | Status.filled | Status.triggered | Status.closed:
            return _end_against_truth(entry, event, books)
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


def _end_against_truth(entry: Asked, event: Event, books: _Books) -> str:
    truth = books.truth
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
        wrong = "" if sweep else _wrong_amount(event, order) or _wrong_child(event, order, books)
        if wrong:
            return wrong
    return ""


def _wrong_amount(event: Event, order: OrderTruth) -> str:
    told, true = Decimal(event.filled or "0"), Decimal(order.filled)
    # A trigger's own fill is its child's affair.
    if event.status is Status.triggered or told == true:
        return ""
    return f"filled {told}, but at the venue {true} of {order.order_id} are filled"


def _wrong_child(event: Event, order: OrderTruth, books: _Books) -> str:
    right = order.order_id if order.child_id and books.tables.keeps_ids else order.child_id
    if event.child_order_id and event.child_order_id != right:
        return f"child_order_id {event.child_order_id}, but at the venue it is {right or 'none'}"
    child = books.truth.get(order.child_id)
    return f"the order its trigger placed, {child.order_id}, was touched" if child and not child.open else ""


# What may prove an order's end.
_PROOFS = frozenset({"query", "stream"})


def _unproven(event: Event, tables: Tables) -> str:
    """An end that rests on less than the venue's word about the order."""
    proofs = _PROOFS | {"reply"} if tables.reply_proves else _PROOFS
    if event.status not in _STATES or event.evidence in proofs:
        return ""
    return f"{event.status} rests on {event.evidence or 'nothing'}, which proves no order's end at this venue"


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
    known = {entry.id for entry in books.tables.asked}
    for id_ in books.finals:
        if id_ not in known:
            yield books.finding(STREAM, id_, "a final event of an intent that nobody sent")


def _unasked(books: _Books) -> Iterable[Finding]:
    """Orders that a cancel call ended although no entry asked for it."""
    asked_for = {order_id for entry in books.tables.asked for order_id in entry.orders}
    for order in books.truth.values():
        if order.closed_by.startswith("call:") and order.order_id not in asked_for:
            yield books.finding(NOBODY, order.order_id, f"{order.state} by a cancel call, and nobody asked for it")


def _of_venue(books: _Books) -> Iterable[Finding]:
    for bucket in books.tables.buckets:
        if bucket.refused:
            problem = f"{bucket.refused} calls were refused: over the limit of {bucket.limit}"
            yield books.finding(VENUE, bucket.name, problem)
        if bucket.limit is not None and bucket.worst > bucket.limit:
            problem = f"{bucket.worst} calls in one window, the limit is {bucket.limit}"
            yield books.finding(VENUE, bucket.name, problem)
    over_limit = {bucket.name for bucket in books.tables.buckets if bucket.refused}
    closed = Counter(c.endpoint for c in books.tables.calls if c.refused and c.endpoint not in over_limit)
    for endpoint, count in closed.items():
        yield books.finding(VENUE, endpoint, f"{count} calls came to an endpoint that the venue had closed")
    for order in books.truth.values():
        if any(naming.verdict == "too_soon" for naming in order.namings):
            yield books.finding(VENUE, order.order_id, "cancelled again before the venue's gap was over")


def _latency(books: _Books) -> list[Latency]:
    """Of cancels that were to be sent at once: a timed one waits because it was told to."""
    timed = {entry.id for entry in books.tables.asked if entry.not_before_us}
    return latencies(events[0] for id_, events in books.finals.items() if id_ not in timed)
