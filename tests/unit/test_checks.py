"""The judges of a run: a good run passes, and each way of breaking a promise is named by its number."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from cancelq.contract import Lane
from ops.checks import Ask, Bounds, Case, Told, VenueSaid, judge

LANE = Lane("bitget", "main")
T0_US = 1_700_000_000_000_000
MS = 1_000
LATE_US = str(T0_US + 450 * MS)
Row = dict[str, Any]


def entry(n: int, **fields: str) -> tuple[str, list[bytes]]:
    """An inbox entry, n ms after the beginning."""
    return f"{T0_US // 1000 + n}-0", [word.encode() for pair in fields.items() for word in pair]


def event(n: int, id_: str, status: str, *, lacks: str = "", **fields: str) -> tuple[str, list[bytes]]:
    """An event n ms after the beginning, whose intent was queued at the beginning."""
    times = {
        "queued_us": T0_US, "taken_us": T0_US + 2 * MS, "sent_us": T0_US + 3 * MS, "answered_us": T0_US + 20 * MS,
        "settled_us": T0_US + n * MS,
    }  # fmt: skip
    final = "0" if status in ("accepted", "duplicate", "retrying", "operator") else "1"
    told = {"id": id_, "status": status, "final": final, "scope": "order", "evidence": "query", "attempt": "1"}
    flat = {**told, **{name: str(at) for name, at in times.items()}, **fields}
    flat.pop(lacks, None)
    return f"{T0_US // 1000 + n}-0", [word.encode() for pair in flat.items() for word in pair]


def order(order_id: str, state: str = "cancelled", *, calls: tuple[int, ...] = (1,), **more: Any) -> Row:
    """An order in the venue's books that ended 30 ms after the beginning."""
    return {
        "order_id": order_id, "parent_id": "", "client_id": "", "symbol": "BTCUSDT", "kind": "order", "state": state,
        "open": state == "live", "filled": "0", "created_us": T0_US - 3_000_000,
        "closed_us": None if state == "live" else T0_US + 30 * MS,
        "cancels": [{"call": call, "at_us": T0_US + 5 * MS, "verdict": "accepted"} for call in calls], **more,
    }  # fmt: skip


def call(endpoint: str, at_us: int, **more: Any) -> Row:
    """A call that the venue executed."""
    return {
        "venue": "bitget", "endpoint": endpoint, "symbol": "", "ids": [], "executed": True, "steady_us": at_us, **more,
    }  # fmt: skip


def rate(bucket: str) -> Row:
    """Ten units a second were used, and no more."""
    return {"bucket": bucket, "limit": 10, "window_ms": 1000, "refused": 0, "worst_arrived": 10}


def late_call() -> tuple[str, list[bytes]]:
    """The outcome of a cancel that left a second after its permit was granted."""
    times = {name: str(T0_US + at) for name, at in (("sent_us", 1_002 * MS), ("answered_us", 1_020 * MS))}
    return event(1_040, "a", "cancelled", **times)


@dataclass
class Run:
    """A good run, to be spoilt: one cancel, one repeat with other content, one sweep."""

    inbox: list[tuple[str, list[bytes]]] = field(
        default_factory=lambda: [
            entry(0, id="a", symbol="BTCUSDT", order_id="1"),
            entry(1, id="a", symbol="BTCUSDT", order_id="9"),
            entry(2, id="s", scope="symbol", symbol="ETHUSDT"),
        ]
    )
    results: list[tuple[str, list[bytes]]] = field(
        default_factory=lambda: [
            event(21, "a", "accepted", evidence="reply"),
            event(22, "a", "duplicate", detail="the content differs", evidence="local"),
            event(40, "a", "cancelled"),
            event(50, "s", "cancelled", scope="symbol", symbol="ETHUSDT"),
            event(60, "op-1", "operator"),
        ]
    )
    asks: dict[str, Ask] = field(default_factory=lambda: {"a": Ask(("1",), spared=("9",)), "s": Ask(("2",))})
    acknowledged: list[str] = field(default_factory=lambda: [f"{T0_US // 1000 + n}-0" for n in range(3)])
    orders: list[Row] = field(
        default_factory=lambda: [order("1"), order("2", symbol="ETHUSDT"), order("9", "live", calls=())]
    )
    calls: list[Row] = field(
        default_factory=lambda: [
            call("cancel-all", 0, symbol="ETHUSDT"),
            *(call("cancel", n * 100 * MS) for n in range(20)),
            call("cancel-batch", 0, venue="bybit", ids=list("abcdefghij")),
        ]
    )
    rates: list[Row] = field(
        default_factory=lambda: [rate("bitget/cancel"), rate("bybit/cancel-batch"), rate("bitget/ip")]
    )
    healed_us: int | None = T0_US

    def case(self) -> Case:
        said = VenueSaid(self.orders, self.calls, self.rates, frozenset({"cancel-all"}))
        told = Told.read(self.inbox, self.results)
        return Case(LANE, told, self.asks, self.acknowledged, said, Bounds(send_by_us=500_000), self.healed_us)

    def row(self, order_id: str) -> Row:
        return next(row for row in self.orders if row["order_id"] == order_id)

    def becomes(self, n: int, *told: tuple[str, list[bytes]]) -> None:
        """Another event (or none, or two) in the place of the n-th."""
        self.results[n : n + 1] = told


def test_a_good_run_has_nothing_broken() -> None:
    assert judge(Run().case()) == []


#: What is done to the run, and the promise that is then broken; with 5, where an attempt is on record no more.
SPOILT: dict[str, tuple[str, Callable[[Run], object]]] = {
    "an acknowledged entry is gone": ("1", lambda r: r.acknowledged.append("1-0")),
    "an intent has no outcome": ("1 5", lambda r: r.becomes(3)),
    "an intent has two outcomes": ("2", lambda r: r.results.append(event(70, "a", "cancelled"))),
    "an event of nobody": ("3", lambda r: r.results.append(event(70, "x", "cancelled"))),
    "an intent of nobody": ("3 5", lambda r: r.asks.pop("s")),
    "cancelled, but it is live": ("4", lambda r: r.row("1").update(state="live", open=True)),
    "cancelled, but it filled": ("4", lambda r: r.row("1").update(state="filled", filled="1")),
    "cancelled, but partly filled": ("4", lambda r: r.row("1").update(filled="0.5")),
    "cancelled before it was true": ("4", lambda r: r.row("1").update(closed_us=T0_US + 90 * MS)),
    "filled, but it was cancelled": ("4", lambda r: r.becomes(2, event(40, "a", "filled", filled="1"))),
    "not_found, but it is known": ("4", lambda r: r.becomes(2, event(40, "a", "not_found"))),
    "rejected, but it is known": ("4", lambda r: r.becomes(2, event(40, "a", "rejected"))),
    "expired, but it was named": ("4", lambda r: r.becomes(2, event(40, "a", "expired"))),
    "a sweep left its order": ("4", lambda r: r.row("2").update(state="live", open=True)),
    "a sweep left an older order": ("4", lambda r: r.orders.append(order("3", "live", calls=(), symbol="ETHUSDT"))),
    "a call that is on no record": ("5", lambda r: r.row("1").update(order("1", calls=(1, 2)))),
    "more than the limit arrived": ("6", lambda r: r.rates[0].update(worst_arrived=11)),
    "more than the limit, by the log": ("6", lambda r: r.calls.append(call("cancel", 50 * MS))),
    "more orders than the limit": ("6", lambda r: r.calls.append(call("cancel-batch", 1, venue="bybit", ids=["k"]))),
    "the venue refused": ("6", lambda r: r.rates[0].update(refused=1)),
    "a permit used too late": ("7", lambda r: r.becomes(2, late_call())),
    "too many attempts": ("9", lambda r: r.becomes(2, event(40, "a", "cancelled", attempt="6"))),
    "too many look-ups": ("9", lambda r: r.becomes(2, event(40, "a", "cancelled", lookups="161"))),
    "a bulk call twice": ("9", lambda r: r.calls.append(dict(r.calls[0]))),
    "settled late": ("11", lambda r: r.becomes(2, event(19_000, "a", "cancelled"))),
    "a repeat is not told": ("15", lambda r: r.becomes(1)),
    "a repeat hides its content": ("15", lambda r: r.becomes(1, event(22, "a", "duplicate", detail="the same"))),
    "a repeat was carried out": ("15", lambda r: r.row("9").update(state="cancelled", open=False)),
    "times in another order": ("21", lambda r: r.becomes(2, event(40, "a", "cancelled", sent_us=LATE_US))),
    "a time is missing": ("21", lambda r: r.becomes(0, event(21, "a", "accepted", lacks="queued_us"))),
}  # fmt: skip


@pytest.mark.parametrize(("promise", "spoil"), SPOILT.values(), ids=SPOILT)
def test_each_way_of_breaking_a_promise_is_named(promise: str, spoil: Callable[[Run], object]) -> None:
    run = Run()
    spoil(run)
    broken = judge(run.case())
    assert broken, "nobody noticed"
    assert {one.promise for one in broken} == set(promise.split()), broken


def test_what_is_in_the_lanes_books_when_a_run_gives_up_is_late_and_what_is_in_none_is_lost() -> None:
    run = Run()
    run.becomes(3)
    for waiting, promise in ((frozenset({"s"}), "11"), (frozenset({"x"}), "1")):
        assert [one.promise for one in judge(replace(run.case(), waiting=waiting)) if "final" in one.what] == [promise]


def test_a_revocation_that_says_so_must_be_true() -> None:
    run = Run()
    run.inbox.append(entry(5, id="r", scope="revoke", target="a"))
    run.results.append(event(45, "r", "revoked", attempt="0"))
    run.asks["r"] = Ask(target="a")
    assert [one.promise for one in judge(run.case())] == ["4"]
    run.results[-1] = event(45, "r", "rejected", attempt="0")
    assert judge(run.case()) == []


def test_a_narrowed_sweep_means_only_what_fits_it() -> None:
    run = Run()
    run.inbox[2] = entry(
        2, id="s", scope="symbol", symbol="ETHUSDT", client_prefix="mine", older_than_ms="1699999999000"
    )
    run.row("2")["client_id"] = "mine-2"
    run.orders += [
        order("3", "live", calls=(), symbol="ETHUSDT", client_id="other"),
        order("4", "live", calls=(), symbol="ETHUSDT", client_id="mine", created_us=T0_US - 500 * MS),
    ]
    run.asks["s"] = replace(run.asks["s"], spared=("3", "4"))
    assert judge(run.case()) == []


def test_lateness_is_not_judged_of_what_was_asked_after_healing() -> None:
    run = Run(healed_us=T0_US - 60_000_000)
    assert judge(run.case()) == []


def test_the_judges_know_nothing_of_faults_workers_or_venues() -> None:
    ask = "import sys, ops.checks; print(*sorted(sys.modules))"
    told = subprocess.run([sys.executable, "-c", ask], capture_output=True, text=True, check=True).stdout.split()
    known = [name for name in told if name.startswith(("ops.", "cancelq_worker"))]
    assert known == ["ops.checks", *(f"ops.checks.{name}" for name in ("case", "judge", "told", "truth", "venue"))]
