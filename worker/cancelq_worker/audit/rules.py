"""What one event must be by itself: the contract's section 4, as tests. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from cancelq.contract import FINAL, Lane, Status
from cancelq_worker.archive.canonical import Entry, order_of

#: By how much two clocks of a desk may differ unseen: a worker's clock follows Redis' through the network.
CLOCKS_US = 5_000
#: Venues whose answer to a cancel states the order's own state; elsewhere it is an acknowledgement.
REPLY_STATES = frozenset({"bingx"})

_SEEN = frozenset({"query", "stream"})
_ENDS = frozenset({Status.cancelled, Status.filled, Status.triggered, Status.closed})
_EVIDENCE = {
    Status.revoked: frozenset({"local"}),
    Status.expired: frozenset({"local"}),
    Status.not_found: frozenset({"query"}),
    Status.rejected: frozenset({"reply", "query", "local"}),
    Status.unresolved: frozenset({"reply", "query", "local"}),
    Status.accepted: frozenset({"reply"}),
    Status.retrying: frozenset({"reply", "query"}),
    Status.duplicate: frozenset({"local"}),
    Status.operator: frozenset({"local"}),
    Status.resolved: frozenset({"reply", "query", "stream", "local"}),
}
_COUNTS = ("attempt", "lookups", "http_status", "open_orders", "batch_size")
_TIMES = ("queued_us", "taken_us", "sent_us", "answered_us", "settled_us")
# The others are Redis' clock.
_BY_WORKER = frozenset({"sent_us", "answered_us"})
_OF_A_CALL = ("endpoint", "batch_id", "batch_size", "taken_us")
_WORDS = {status.value: status for status in Status}


@dataclass(frozen=True, slots=True)
class Told:
    """An event as far as it can be read. `final` is what its status makes it, whatever its own field says."""

    entry_id: str
    id: str
    status: Status
    final: bool
    fields: Mapping[str, str]
    numbers: Mapping[str, int]

    @property
    def queued_us(self) -> int | None:
        return self.numbers.get("queued_us")

    @property
    def attempt(self) -> int:
        return self.numbers.get("attempt", 0)


def read(entry: Entry) -> Told | str:
    """The event of an entry, or why it is none."""
    fields = entry.fields
    if entry.raw:
        return "a field is given twice or is not UTF-8"
    status = _WORDS.get(fields.get("status", ""))
    if status is None:
        return f"its status is {fields.get('status', 'missing')!r}, which is none"
    if not fields.get("id"):
        return "it has no id"
    numbers = {}
    for name in (*_COUNTS, *_TIMES):
        text = fields.get(name)
        if text is not None:
            if not (text.isascii() and text.isdigit() and len(text) <= 16):
                return f"{name} is {text[:40]!r}, which is no number of ours"
            numbers[name] = int(text)
    return Told(entry.entry_id, fields["id"], status, status in FINAL, fields, numbers)


def faults(told: Told, lane: Lane) -> Iterator[str]:
    """Everything that is wrong with an event, whatever others say."""
    fields = told.fields
    if fields.get("final") != ("1" if told.status in FINAL else "0"):
        yield f"final is {fields.get('final', 'missing')!r} at status {told.status}"
    if (fields.get("venue"), fields.get("account")) != (lane.venue, lane.account):
        yield f"it is of {fields.get('venue')}:{fields.get('account')}, not of this lane"
    evidence = fields.get("evidence", "nothing")
    if evidence not in _fitting(told.status, lane):
        yield f"{told.status} rests on {evidence}, which cannot prove it"
    yield from _of_kind(told)
    yield from _of_call(told)
    yield from _out_of_order(told)


def _fitting(status: Status, lane: Lane) -> frozenset[str]:
    if status in _ENDS:
        return _SEEN | {"reply"} if lane.venue in REPLY_STATES else _SEEN
    return _EVIDENCE[status]


def _of_kind(told: Told) -> Iterator[str]:
    """What this status needs, or shuts out."""
    fields = told.fields
    if told.status is Status.operator:
        if not (told.id.startswith("op-") and fields.get("act") and fields.get("actor")):
            yield "an operator's event needs an id op-…, act and actor"
        return
    if told.status is Status.resolved:
        if _WORDS.get(fields.get("outcome", "")) not in FINAL - {Status.unresolved}:
            yield f"resolved, but its outcome is {fields.get('outcome', 'missing')!r}"
        return
    if told.queued_us is None:
        yield "queued_us is missing"
    if "attempt" not in told.numbers:
        yield "attempt is missing"
    if told.attempt and told.status in (Status.revoked, Status.expired, Status.duplicate):
        yield f"{told.status} after {told.attempt} attempts: it may only be told of what was never sent"
    swept = told.status is Status.cancelled and fields.get("scope") in ("symbol", "account")
    if swept and told.numbers.get("open_orders") != 0:
        yield f"cancelled, but open_orders is {fields.get('open_orders', 'missing')}"
    if told.status is Status.accepted and not (told.attempt and "answered_us" in told.numbers):
        yield "accepted without an answer: attempt and answered_us belong to it"


def _of_call(told: Told) -> Iterator[str]:
    """The call that carried the last attempt: all of it there, or none of it."""
    if told.status in (Status.operator, Status.resolved):
        return
    there = [name for name in (*_OF_A_CALL, "sent_us", "answered_us") if name in told.fields]
    if not told.attempt and there:
        yield f"nothing was sent (attempt 0), but it has {', '.join(there)}"
    if told.attempt and told.final and not _told_by_server(told):
        lacks = [name for name in _OF_A_CALL if name not in told.fields]
        if lacks:
            yield f"it was sent, but {', '.join(lacks)} is missing"
    if "batch_size" in told.numbers and told.numbers["batch_size"] < 1:
        yield "batch_size is 0"


def _told_by_server(told: Told) -> bool:
    """After every worker that took it ended, an intent is ended by the server itself, which knows of no call."""
    return told.status is Status.unresolved and "worker" not in told.fields


def _out_of_order(told: Told) -> Iterator[str]:
    """queued ≤ taken ≤ sent ≤ answered ≤ settled ≤ written, where present."""
    if told.status is Status.operator:
        return
    earlier = ""
    for name in _TIMES:
        at = told.numbers.get(name)
        if at is None:
            continue
        if earlier:
            early_us = told.numbers[earlier] - at
            two_clocks = (earlier in _BY_WORKER) != (name in _BY_WORKER)
            if early_us > (CLOCKS_US if two_clocks else 0):
                yield f"{name} lies {early_us} µs before {earlier}"
        earlier = name
    if "answered_us" in told.numbers and "sent_us" not in told.numbers:
        yield "answered_us without sent_us"
    settled_us = told.numbers.get("settled_us")
    if settled_us is None:
        yield "settled_us is missing"
    elif settled_us // 1000 > order_of(told.entry_id)[0]:
        yield "settled_us lies after the time of its own entry id"
