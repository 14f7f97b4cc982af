"""How long cancels took, from their final events alone."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

from cancelq.contract import Event


@dataclass(frozen=True, slots=True)
class Latency:
    """Milliseconds from being queued until sent to the venue, and until settled, of one priority's cancels."""

    priority: str
    count: int
    sent_p50_ms: float
    sent_p99_ms: float
    settled_p50_ms: float
    settled_p99_ms: float


def latencies(finals: Iterable[Event]) -> list[Latency]:
    """One entry per priority, urgent first; only of intents that named one order and were sent."""
    waits: dict[str, list[tuple[int, int]]] = defaultdict(list)
    for event in finals:
        if event.scope == "order" and event.priority and event.queued_us and event.sent_us and event.settled_us:
            waits[event.priority].append((event.sent_us - event.queued_us, event.settled_us - event.queued_us))
    return [_latency(priority, waits[priority]) for priority in sorted(waits, key=lambda name: name != "urgent")]


def _latency(priority: str, waits: list[tuple[int, int]]) -> Latency:
    sent, settled = (sorted(column) for column in zip(*waits, strict=True))
    return Latency(
        priority,
        len(waits),
        percentile(sent, 50) / 1000,
        percentile(sent, 99) / 1000,
        percentile(settled, 50) / 1000,
        percentile(settled, 99) / 1000,
    )


def percentile(ordered: list[int], percent: int) -> int:
    """The smallest of some sorted numbers that at least so many percent of them do not exceed."""
    return ordered[max(0, -(-len(ordered) * percent // 100) - 1)]
