"""What a run comes to, from the venue's call log, the lines its processes wrote, and a few counters. Pure."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from peers.loads import LIMIT, Load

CANCELS = ("cancel-order", "batch-cancel-order")
NO_LOOKS = ("time", "symbols", "coins")
WINDOW_US = 1_000_000
CURVE_US = 250_000

Calls = Sequence[Mapping[str, Any]]


@dataclass(slots=True)
class Counters:
    """What was spent between the start and the end of a run."""

    workers_cpu_s: float = 0.0
    broker_cpu_s: float = 0.0
    redis_us: int = 0


@dataclass(slots=True)
class Taken:
    """All that one run left behind. Times in epoch µs; `answers` and `finals` by order id."""

    start_us: int
    end_us: int
    asked: dict[str, int]
    urgent: set[str]
    calls: Calls
    answers: dict[str, int]
    codes: Counter[str]
    cancelled: set[str]
    finals: dict[str, int] | None = None
    killed_us: int | None = None
    counters: Counters = field(default_factory=Counters)


def figures(taken: Taken, load: Load) -> dict[str, Any]:
    """The run's row in the record. A time that did not come to pass is None; shares of what was asked count what is
    not done as later than everything that is."""
    cancels = [call for call in taken.calls if call["endpoint"] in CANCELS]
    doors = first_doors(cancels)
    done = [order_id for order_id in load.orders if order_id in doors and order_id in taken.cancelled]
    all_done = len(done) == len(load.orders)
    last_s = (max(doors[order_id] for order_id in done) - taken.start_us) / 1e6 if done else None
    drained_s = last_s if all_done else None
    worst = {name: worst_second([c["steady_us"] for c in cancels if c["endpoint"] == name]) for name in CANCELS}
    per = 1 / len(done) if done else None
    return {
        "orders": len(load.orders),
        "asks": load.asks,
        "done": len(done),
        "ran_s": (taken.end_us - taken.start_us) / 1e6,
        "best_s": load.best_s,
        "drained_s": drained_s,
        "drain_over_best": drained_s / load.best_s if drained_s is not None and load.best_s else None,
        "calls": len(cancels),
        "calls_per_1000": len(cancels) * per * 1000 if per else None,
        "looks": sum(c["endpoint"] not in (*CANCELS, *NO_LOOKS) for c in taken.calls),
        "refused": sum(bool(call["refused"]) for call in cancels),
        "worst_second": worst,
        "over_limit": max(0, *(count - LIMIT for count in worst.values())),
        "sent_twice": sum(count > 1 for count in times_sent(cancels).values()),
        "not_open_answers": sum(call["failed_items"] for call in cancels),
        "codes": dict(taken.codes),
        "to_door_ms": _delays(taken, doors, load.orders),
        "to_answer_ms": _delays(taken, taken.answers, load.orders),
        "to_final_ms": None if taken.finals is None else _delays(taken, taken.finals, load.orders),
        "urgent_to_door_ms": _delays(taken, doors, sorted(taken.urgent)) if taken.urgent else None,
        "urgent_delays_ms": [_ms(taken, doors, order_id) for order_id in sorted(taken.urgent)],
        "workers_cpu_us": taken.counters.workers_cpu_s * 1e6 * per if per else None,
        "broker_cpu_us": taken.counters.broker_cpu_s * 1e6 * per if per else None,
        "redis_us": taken.counters.redis_us * per if per else None,
        "recovery": _recovery(taken, doors, load),
        "curve": curve(doors.values(), taken.start_us, taken.end_us),
        "refusals": curve((c["at_us"] for c in cancels if c["refused"]), taken.start_us, taken.end_us),
    }


def first_doors(cancels: Calls) -> dict[str, int]:
    """When each order was first named by a cancel that the venue let in."""
    doors: dict[str, int] = {}
    for call in cancels:
        if call["executed"] and not call["refused"]:
            for order_id in call["ids"]:
                doors.setdefault(order_id, call["at_us"])
    return doors


def times_sent(cancels: Calls) -> Counter[str]:
    """How many cancels that the venue let in named each order."""
    return Counter(
        order_id for call in cancels if call["executed"] and not call["refused"] for order_id in set(call["ids"])
    )


def worst_second(arrivals_us: Iterable[int]) -> int:
    """The most arrivals, refused ones too, within any one second, its end left out."""
    window: deque[int] = deque()
    worst = 0
    for at_us in sorted(arrivals_us):
        window.append(at_us)
        while window[0] <= at_us - WINDOW_US:
            window.popleft()
        worst = max(worst, len(window))
    return worst


def percentile(values: Sequence[float | None], percent: float) -> float | None:
    """The nearest rank; None counts as later than all others, and is the answer where that rank did not come."""
    if not values:
        return None
    known = sorted(value for value in values if value is not None)
    rank = max(1, -(-len(values) * percent // 100))
    return known[int(rank) - 1] if rank <= len(known) else None


def curve(times_us: Iterable[int], start_us: int, end_us: int) -> list[int]:
    """How many had happened by the end of each quarter of a second of the run."""
    steps = max(1, -(-(end_us - start_us) // CURVE_US))
    fresh = [0] * steps
    for at_us in times_us:
        fresh[min(steps - 1, max(0, (at_us - start_us) // CURVE_US))] += 1
    total, told = 0, []
    for count in fresh:
        total += count
        told.append(total)
    return told


def _delays(taken: Taken, reached: Mapping[str, int], orders: Sequence[str]) -> dict[str, float | None]:
    delays = [_ms(taken, reached, order_id) for order_id in orders]
    return {"p50": percentile(delays, 50), "p99": percentile(delays, 99), "max": percentile(delays, 100)}


def _ms(taken: Taken, reached: Mapping[str, int], order_id: str) -> float | None:
    if order_id not in reached or order_id not in taken.asked:
        return None
    return (reached[order_id] - taken.asked[order_id]) / 1000


def _recovery(taken: Taken, doors: Mapping[str, int], load: Load) -> dict[str, Any] | None:
    """After a worker was killed: when the last order was at the door, and what was lost or sent again."""
    if taken.killed_us is None:
        return None
    left = [order_id for order_id in load.orders if doors.get(order_id, taken.end_us) > taken.killed_us]
    lost = [order_id for order_id in load.orders if order_id not in doors or order_id not in taken.cancelled]
    last_us = max((doors[order_id] for order_id in left if order_id in doors), default=taken.killed_us)
    told = taken.answers if taken.finals is None else taken.finals
    untold = [order_id for order_id in load.orders if order_id not in told]
    last_told_us = max(told.values(), default=taken.killed_us)
    return {
        "killed_s": (taken.killed_us - taken.start_us) / 1e6,
        "left": len(left),
        "all_done_s": None if lost else (last_us - taken.killed_us) / 1e6,
        "not_done": len(lost),
        "all_told_s": None if untold else (last_told_us - taken.killed_us) / 1e6,
        "not_told": len(untold),
    }
