"""Promise 4: whether an outcome is what the venue knew to be true when it was told."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from cancelq.contract import Event, Status
from ops.checks.case import Ask, Case, Row

_TRUE_STATES = {
    Status.cancelled: {"cancelled"},
    Status.filled: {"filled"},
    Status.triggered: {"triggered"},
    Status.closed: {"failed"},
}
#: The contract's words for kinds of orders, in the venue's books.
_KINDS = {"order": "order", "tpsl": "tpsl", "stop": "plan"}


def false_outcome(case: Case, event: Event, ask: Ask) -> Iterator[str]:
    """What is wrong with a final event, in words that follow it."""
    truth = case.venue.of(ask.orders)
    states = [str(row["state"]) for row in truth]
    match event.status:
        case Status.cancelled if event.scope in ("symbol", "account"):
            yield from _of_sweep(case, event, truth)
        case Status.cancelled | Status.filled | Status.triggered | Status.closed:
            yield from _of_order(case, event, truth)
        case Status.not_found if not ask.unknown:
            yield f"but the venue has it as {states}"
        case Status.rejected if ask.orders and not _refused_for_good(case, event, ask):
            yield f"code {event.code}, but it could have been cancelled: {states}"
        case Status.expired | Status.revoked if any(row["cancels"] for row in truth):
            yield f"but a cancel named its order: {truth[0]['cancels']}"
        case _:
            pass
    if ask.target:
        yield from _of_revoke(case, event, ask)


def _refused_for_good(case: Case, event: Event, ask: Ask) -> bool:
    """Whether every attempt that there may be was made, and the venue itself said that to the last."""
    if event.attempt != case.bounds.attempts:
        return False
    orders = set(ask.orders)
    return any(call["code"] == event.code and orders & set(call["ids"]) for call in case.venue.calls)


def _of_order(case: Case, event: Event, truth: Sequence[Row]) -> Iterator[str]:
    states = {str(row["state"]) for row in truth}
    if not states or not states <= _TRUE_STATES[event.status]:
        yield f"but it is {sorted(states)}"
        return
    if event.status is not Status.triggered and float(event.filled or 0) != float(truth[0]["filled"]):
        yield f"filled {event.filled}, but {truth[0]['filled']} are"
    yield from _too_soon(case, event, truth)


def _too_soon(case: Case, event: Event, truth: Sequence[Row]) -> Iterator[str]:
    """An outcome that came true only after it was told was a guess."""
    for row in truth:
        ahead_us = (row["closed_us"] or 0) - (event.settled_us or 0)
        if ahead_us > case.bounds.clocks_us:
            yield f"but order {row['order_id']} ended {ahead_us} us after that was told"


def _of_sweep(case: Case, event: Event, truth: Sequence[Row]) -> Iterator[str]:
    """Nothing of what was asked for, and nothing older than the intent that fits it, is open any more."""
    opened = [row["order_id"] for row in truth if row["open"]]
    if opened:
        yield f"but of its orders are open: {opened}"
    left = [row["order_id"] for row in _meant(case, event) if row["open"]]
    if left and not opened:
        yield f"but older orders of the same kind are open: {left[:10]}"
    yield from _too_soon(case, event, [row for row in truth if not row["open"]])


def _meant(case: Case, event: Event) -> Iterator[Row]:
    """The orders in the venue's books that a sweep means, by what its entry says and nothing else."""
    fields = case.first(event.id).fields
    kinds = {_KINDS[kind] for kind in fields.get("kinds", "order").split(",")}
    before_us = case.first(event.id).queued_us - case.bounds.clocks_us
    if "older_than_ms" in fields:
        before_us = min(before_us, int(fields["older_than_ms"]) * 1000)
    for row in case.venue.orders:
        if row["kind"] not in kinds or row["created_us"] >= before_us:
            continue
        if "symbol" in fields and row["symbol"] != fields["symbol"]:
            continue
        if row.get("client_id", "").startswith(fields.get("client_prefix", "")):
            yield row


def _of_revoke(case: Case, event: Event, ask: Ask) -> Iterator[str]:
    finals = case.told.finals
    withdrawn = any(e.status is Status.revoked for e in finals.get(ask.target, []))
    rivals = 0
    for id_ in finals:
        other = case.ask_of(id_)
        rivals += other is not None and other.target == ask.target
    if (event.status is Status.revoked) != withdrawn and rivals == 1:
        yield f"but its target was {'' if withdrawn else 'not '}withdrawn"
