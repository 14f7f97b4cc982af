"""What an audit counts: outcomes, how long they took, when what happened. Bounded, however many events there are."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from cancelq.contract import Status
from cancelq_worker.audit.rules import Told

#: From, to: the spans of the latency table.
SPANS = (
    ("queued", "taken"),
    ("taken", "sent"),
    ("sent", "answered"),
    ("answered", "settled"),
    ("queued", "settled"),
)
PERCENTILES = (50.0, 90.0, 99.0, 99.9)
#: Of the refusals that differ, and of the intents that are listed, so many are kept; all are counted.
REFUSALS_MOST, LISTED_MOST = 1000, 10_000
_MINUTE_US = 60_000_000
# A slot is at most 1/128 of its value wide.
_SLOT_BITS = 8


class Histogram:
    """How often which time, in microseconds. Percentiles are right to 0.4 %, the largest is exact."""

    def __init__(self) -> None:
        self.slots: Counter[int] = Counter()
        self.most = 0

    def add(self, us: int) -> None:
        us = max(us, 0)
        shift = max(0, us.bit_length() - _SLOT_BITS)
        self.slots[(shift << _SLOT_BITS) | (us >> shift)] += 1
        self.most = max(self.most, us)

    @property
    def count(self) -> int:
        return self.slots.total()

    def percentile(self, percent: float) -> int:
        """The smallest time that at least so many percent do not exceed; 0 if there is none."""
        due, seen = self.count * percent / 100, 0
        for slot in sorted(self.slots, key=_middle):
            seen += self.slots[slot]
            if seen >= due:
                return min(_middle(slot), self.most)
        return 0

    def points(self) -> list[tuple[int, int]]:
        """Times in order, and how often each."""
        return sorted((_middle(slot), count) for slot, count in self.slots.items())

    def merge(self, other: Histogram) -> None:
        self.slots.update(other.slots)
        self.most = max(self.most, other.most)


def _middle(slot: int) -> int:
    shift = slot >> _SLOT_BITS
    low = (slot & ((1 << _SLOT_BITS) - 1)) << shift
    return low + ((1 << shift) >> 1)


@dataclass(frozen=True, slots=True)
class Listed:
    """An intent that somebody should look at."""

    id: str
    entry_id: str
    order: str
    detail: str


@dataclass(slots=True)
class Numbers:
    """Of one lane. `latency` by (from, to, scope, priority); the timelines by minute since the epoch."""

    statuses: Counter[str] = field(default_factory=Counter)
    refusals: Counter[tuple[str, str]] = field(default_factory=Counter)
    unresolved: list[Listed] = field(default_factory=list)
    open: list[Listed] = field(default_factory=list)
    open_count: int = 0
    resolved: set[str] = field(default_factory=set)
    intents: int = 0
    proven: int = 0
    before_inbox: int = 0
    beyond_results: int = 0
    guards: int = 0
    calls: int = 0
    latency: dict[tuple[str, str, str, str], Histogram] = field(default_factory=lambda: defaultdict(Histogram))
    outcomes_by_minute: dict[int, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    calls_by_minute: Counter[int] = field(default_factory=Counter)
    refused_by_minute: Counter[int] = field(default_factory=Counter)

    def event(self, told: Told) -> None:
        """Counts one event by itself."""
        self.statuses[told.status.value] += 1
        minute = told.numbers.get("settled_us", 0) // _MINUTE_US
        if told.final and minute:
            self.outcomes_by_minute[minute][told.status.value] += 1
        if told.status is Status.rejected or told.fields.get("refused"):
            self._refused(told, minute)
        elif told.status is Status.unresolved and len(self.unresolved) < LISTED_MOST:
            order = told.fields.get("order_id") or told.fields.get("client_order_id") or told.fields.get("symbol", "")
            self.unresolved.append(Listed(told.id, told.entry_id, order, told.fields.get("detail", "")))
        elif told.status is Status.resolved and len(self.resolved) < LISTED_MOST:
            self.resolved.add(told.id)

    def _refused(self, told: Told, minute: int) -> None:
        key = (told.fields.get("code", ""), told.fields.get("detail", "")[:120])
        if key in self.refusals or len(self.refusals) < REFUSALS_MOST:
            self.refusals[key] += 1
        if minute:
            self.refused_by_minute[minute] += 1

    def call(self, at_us: int) -> None:
        """Counts one call, by when it was sent."""
        self.calls += 1
        self.calls_by_minute[at_us // _MINUTE_US] += 1

    def took(self, times: Mapping[str, int], due_us: int, scope: str, priority: str) -> None:
        """Adds the spans of an outcome whose intent was sent. `due_us`: when it was asked, or might be sent."""
        at = {**times, "queued": max(times.get("queued", 0), due_us)}
        for begin, end in SPANS:
            if begin in at and end in at:
                self.latency[begin, end, scope, priority].add(at[end] - at[begin])

    def merged_latency(self) -> dict[tuple[str, str], Histogram]:
        """By span, over all scopes and priorities."""
        return merge_latency([self])


def merge_latency(numbers: Iterable[Numbers]) -> dict[tuple[str, str], Histogram]:
    """By span, over all lanes given."""
    merged = {span: Histogram() for span in SPANS}
    for one in numbers:
        for (begin, end, _, _), histogram in one.latency.items():
            merged[begin, end].merge(histogram)
    return merged
