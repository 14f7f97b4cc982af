"""Where it happens: each venue's lane, endpoints, and the ways in which it may misbehave."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Any

from cancelq.contract import Lane
from cancelq_worker.simulator.faults import Fault
from cancelq_worker.simulator.settings import Settings


@dataclass(frozen=True)
class Place:
    """Where it happens: a venue's lane, its endpoints and words, and how many intents a second it can take."""

    lane: Lane
    cancels: tuple[str, ...]
    looks: tuple[str, ...]
    cancel_codes: tuple[str, ...]
    look_codes: tuple[str, ...]
    bulk: tuple[str, ...]
    stream_path: str
    per_s: float

    def spelt(self, base: str) -> str:
        """A pair against USDT, as the venue writes it."""
        return f"{base}-USDT" if self.lane.venue == "bingx" else f"{base}USDT"

    def some_fault(self, rng: random.Random) -> Fault:
        """One way for the next calls of one endpoint to go wrong."""
        if rng.random() < 0.6:
            endpoint, kind = rng.choice(self.cancels), rng.choice([*FAULTS_OF_CANCELS, *self.cancel_codes])
        else:
            endpoint, kind = rng.choice(self.looks), rng.choice([*FAULTS_OF_LOOKS, *self.look_codes])
        where, count = f"{self.lane.venue}/{endpoint}", rng.choice([1, 1, 2, 4])
        return Fault(kind, endpoint=where, count=count, delay_ms=delay_of(kind))


def delay_of(kind: str) -> int | None:
    """How late a late execution is: no later than what a permit without answer allows for."""
    return 600 if kind == "late_ms" else None


def lags_and_races(rng: random.Random) -> dict[str, Any]:
    """How late a venue's books are for a while, and how often a fill comes first; nothing of it is a fault."""
    return {
        "cancel_delay_ms": rng.choice([0, 0, 50, 400]),
        "race_fill": rng.choice([0.0, 0.05, 0.3]),
        "race_partial": rng.choice([0.0, 0.2]),
        "history_lag_ms": rng.choice([0, 0, 300, 1500]),
        "info_lag_ms": rng.choice([0, 0, 300]),
        "open_lag_ms": rng.choice([0, 0, 500]),
        "symbol_cancel_miss": rng.choice([0.0, 0.3]),
    }


def no_shorter(ways: dict[str, Any], settings: Settings) -> dict[str, Any]:
    """Other ways to the venue, from its new settings: with more jitter or less, but none shorter than it may be now.
    The first calls after a way became shorter all at once are early by the difference; that is not promised."""
    for name in ("latency_before_ms", "latency_after_ms"):
        least_ms = getattr(settings, name)[0]
        ways[name] = (least_ms, max(least_ms, ways[name][1]))
    return ways


PLACES = {
    "bitget": Place(
        Lane("bitget", "main"),
        ("cancel-order", "batch-cancel-order", "cancel-plan-order"),
        ("orderInfo", "history-orders", "unfilled-orders", "current-plan-order", "history-plan-order"),
        ("code:45129", "code:40725", "code:40808"),
        ("code:40725",),
        ("cancel-symbol-order",),
        "/v2/ws/private",
        40.0,
    ),
    "bybit": Place(
        Lane("bybit", "main"),
        ("cancel", "cancel-batch"),
        ("realtime", "history"),
        ("code:170191", "code:10016", "code:170213"),
        ("code:10016",),
        ("cancel-all",),
        "/v5/private",
        12.0,
    ),
    "bingx": Place(
        Lane("bingx", "main"),
        ("cancel", "cancelOrders"),
        ("query", "openOrders", "historyOrders"),
        ("code:100500", "code:80019", "code:100410:The current system is busy"),
        ("code:100500",),
        ("cancelOpenOrders",),
        "/market",
        6.0,
    ),
}

#: Lies that no client could find out (a row under a neighbour's id, a list that leaves one out) would make a false
#: outcome the venue's own; so lists are only repeated, dropped, delayed and broken.
FAULTS_OF_CANCELS = [
    "execute_and_drop",
    "drop",
    "reset",
    "half_body",
    "http_500",
    "http_500_executed",
    "http_429",
    "html_200",
    "html_502",
    "empty_200",
    "garbage_200",
    "slow_ms",
    "late_ms",
    "hang",
    "wrong_ids",
    "missing_items",
    "repeat_items",
    "unknown_code",
]
FAULTS_OF_LOOKS = [
    "drop",
    "reset",
    "half_body",
    "http_500",
    "http_429",
    "html_200",
    "html_502",
    "empty_200",
    "garbage_200",
    "slow_ms",
    "slow_drip",
    "hang",
    "repeat_items",
    "unknown_code",
]
