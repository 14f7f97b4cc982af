"""Promises that the venue's own log proves: 5, 6 and the one bulk call."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator

from ops.checks.case import Broken, Case

#: Endpoints whose calls count a unit for each order in them.
PER_ORDER = frozenset({"bybit/cancel-batch"})


def unrecorded_calls(case: Case) -> Iterator[Broken]:
    """5: calls that arrived and named an order were on record as attempts before they were sent."""
    attempts = case.attempts
    for row in case.venue.orders:
        arrived = len({naming["call"] for naming in row["cancels"]})
        # At Bybit an order that fired goes on under the id of the trigger.
        known = attempts[row["order_id"]] + attempts[row["parent_id"]]
        if arrived > known:
            yield Broken("5", f"order {row['order_id']} was named by {arrived} calls, {known} attempts are on record")


def over_the_limit(case: Case) -> Iterator[Broken]:
    """6: no window saw more than the limit."""
    for row in case.venue.rates:
        if row["refused"] or (row["limit"] is not None and row["worst_arrived"] > row["limit"]):
            yield Broken("6", f"{row['bucket']}: {row['refused']} refused, {row['worst_arrived']} arrived in a window")


def over_by_the_log(case: Case) -> Iterator[Broken]:
    """6 once more, from the log of calls alone: of the units that arrived at an endpoint, each is a whole window after
    the one that came as many before it as the limit allows."""
    arrived: dict[str, list[int]] = defaultdict(list)
    for call in case.venue.calls:
        bucket = f"{call['venue']}/{call['endpoint']}"
        arrived[bucket] += [call["steady_us"]] * (len(call["ids"]) if bucket in PER_ORDER else 1)
    for row in case.venue.rates:
        times, limit = sorted(arrived.get(row["bucket"], [])), row["limit"]
        if limit is None:
            continue
        for first, next_over in zip(times, times[limit:], strict=False):
            if next_over - first < row["window_ms"] * 1000:
                yield Broken("6", f"{row['bucket']}: {limit + 1} units arrived within {next_over - first} us")
                break


def bulk_calls(case: Case) -> Iterator[Broken]:
    """9: at most one bulk call for each intent that could make one. Calls without a pair count for the account."""
    made: Counter[str] = Counter(
        call["symbol"] or "" for call in case.venue.calls if call["endpoint"] in case.venue.bulk and call["executed"]
    )
    asked: Counter[str] = Counter()
    for id_ in case.told.intents:
        fields = case.first(id_).fields
        if fields.get("scope") in ("symbol", "account"):
            asked[fields.get("symbol", "")] += 1
    for symbol, calls in made.items():
        if calls > asked[symbol] + (asked[""] if symbol else 0):
            yield Broken("9", f"{calls} bulk calls for {symbol or 'the account'}, {asked[symbol]} intents")
