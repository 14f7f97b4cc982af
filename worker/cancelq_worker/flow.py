"""What comes out of the lanes: outcomes per second and how long they took, from reading the results as they come.

Reading is bounded: the newest entries are read first, and those that a refresh has no room for are never read. What is
known is then a sample, and says so; a rate counts only the time that was read.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import redis.asyncio as aioredis

from cancelq.contract import Lane, Status
from cancelq_worker.snapshot import batched, pipelined

WINDOW_MS = 30_000
RATE_MS = 10_000
#: Entries of one lane that are read with one command: 200 keep the server for less than a millisecond.
PAGE = 200
PAGE_LEAST = 5
TRIP = 600
FIRST_MOST = 10_000
UNRESOLVED_MOST = 1_000

GROUPS = ("cancelled", "too late", "unresolved", "other")
_GROUP_OF = {
    b"cancelled": "cancelled",
    b"filled": "too late",
    b"triggered": "too late",
    b"unresolved": "unresolved",
}
_RESOLVED = Status.resolved.value.encode()

Entry = tuple[bytes, Mapping[bytes, bytes]]


@dataclass(frozen=True, slots=True)
class Outcome:
    """One final event. `at_ms`: when it was written; `sent_ms`, `settled_ms`: since it was queued, as far as known."""

    at_ms: int
    group: str
    status: str
    sent_ms: float | None
    settled_ms: float | None


@dataclass(frozen=True, slots=True)
class FlowNumbers:
    """What a lane did lately. `per_s`: outcomes a second by group, over the last ten seconds; `statuses`: outcomes by
    status, and `sent_ms`, `settled_ms`: (p50, p99) since an intent was queued, over the last thirty. `sampled`: not all
    was read. `unresolved`: ids seen to end so, and neither resolved nor sent again since, the latest last."""

    per_s: Mapping[str, float]
    statuses: Mapping[str, int]
    sent_ms: tuple[float, float] | None
    settled_ms: tuple[float, float] | None
    sampled: bool = False
    unresolved: tuple[str, ...] = ()


@dataclass(slots=True)
class Flow:
    """One lane's outcomes of the last thirty seconds. `position`: the newest entry that was read."""

    position: str
    seen_ms: int
    since_ms: int
    outcomes: deque[Outcome] = field(default_factory=deque)
    gaps: deque[tuple[int, int]] = field(default_factory=deque)
    unresolved: dict[str, None] = field(default_factory=dict)

    @classmethod
    def beginning(cls, now_ms: int) -> Flow:
        """One that looks back over the whole window at first."""
        return cls(f"{now_ms - WINDOW_MS}-0", now_ms - WINDOW_MS, now_ms - WINDOW_MS)

    def add(self, entries: Sequence[Entry], now_ms: int, *, whole: bool) -> None:
        """Takes in what was read since the last time, newest first. Unless it is the `whole`, what lies between the
        last time and the oldest of these was passed over."""
        if entries:
            self.position = entries[0][0].decode()
            if not whole:
                self.gaps.append((self.seen_ms, max(self.seen_ms, _ms(entries[-1][0]))))
        for entry_id, fields in reversed(entries):
            self._add(entry_id, fields)
        self.seen_ms = max(now_ms, self.seen_ms)
        self._forget(now_ms - WINDOW_MS)

    def _add(self, entry_id: bytes, fields: Mapping[bytes, bytes]) -> None:
        status, id_ = fields.get(b"status", b""), fields.get(b"id", b"").decode(errors="backslashreplace")
        if origin := fields.get(b"origin"):  # it was sent again: what comes of it is told of that one
            self.unresolved.pop(origin.decode(errors="backslashreplace"), None)
        if fields.get(b"final") == b"1":
            queued_us, at_ms = _number(fields, b"queued_us"), _ms(entry_id)
            spans = [_span_ms(queued_us, _number(fields, name)) for name in (b"sent_us", b"settled_us")]
            group = _GROUP_OF.get(status, "other")
            self.outcomes.append(Outcome(at_ms, group, status.decode(errors="backslashreplace"), *spans))
            if group == "unresolved":
                self.unresolved[id_] = None
                if len(self.unresolved) > UNRESOLVED_MOST:
                    del self.unresolved[next(iter(self.unresolved))]
        elif status == _RESOLVED:
            self.unresolved.pop(id_, None)

    def _forget(self, before_ms: int) -> None:
        while self.outcomes and self.outcomes[0].at_ms < before_ms:
            self.outcomes.popleft()
        while self.gaps and self.gaps[0][1] < before_ms:
            self.gaps.popleft()

    def numbers(self) -> FlowNumbers:
        """As of the last reading."""
        from_ms = max(self.seen_ms - RATE_MS, self.since_ms)
        passed_over = sum(max(0, to - max(at, from_ms)) for at, to in self.gaps)
        seconds = max(1, self.seen_ms - from_ms - passed_over) / 1000
        counts = Counter(outcome.group for outcome in self.outcomes if outcome.at_ms > from_ms)
        return FlowNumbers(
            per_s={group: counts[group] / seconds for group in GROUPS},
            statuses=Counter(outcome.status for outcome in self.outcomes),
            sent_ms=percentiles(o.sent_ms for o in self.outcomes if o.sent_ms is not None),
            settled_ms=percentiles(o.settled_ms for o in self.outcomes if o.settled_ms is not None),
            sampled=bool(self.gaps),
            unresolved=tuple(self.unresolved),
        )


class Flows:
    """Reads what is new in the results of lanes, `most` entries of all of them in one go, and `FIRST_MOST` at first."""

    def __init__(self, redis: aioredis.Redis, most: int) -> None:
        self._redis = redis
        self._most = most
        self._begun = False
        self.of: dict[Lane, Flow] = {}

    async def read(self, lanes: Sequence[Lane], now_us: int) -> None:
        """Brings `of` up to date for these lanes, and drops the others. `now_us`: the server's TIME. Raises
        RedisError; then what was not read is read the next time."""
        now_ms = now_us // 1000
        self.of = {lane: self.of.get(lane) or Flow.beginning(now_ms) for lane in lanes}
        for lane, flow in self.of.items():
            if _ms(flow.position.encode()) > now_ms + RATE_MS:  # another server, or its clock went back
                self.of[lane] = Flow.beginning(now_ms)
        read: dict[Lane, list[Entry]] = {lane: [] for lane in lanes}
        unfinished, left = list(lanes), self._most
        if not self._begun:
            self._begun, left = True, FIRST_MOST
        while unfinished and left > 0:
            page = max(PAGE_LEAST, min(PAGE, left // len(unfinished)))
            left -= page * len(unfinished)
            unfinished = await self._read_page(unfinished, page, read)
        for lane, entries in read.items():
            self.of[lane].add(entries, now_ms, whole=lane not in unfinished)

    async def _read_page(self, lanes: Sequence[Lane], page: int, read: dict[Lane, list[Entry]]) -> list[Lane]:
        """Reads a page more of each, backwards; those that have more."""
        more = []
        for some in batched(lanes, max(1, TRIP // page)):
            commands: list[tuple[Any, ...]] = []
            for lane in some:
                end = f"({read[lane][-1][0].decode()}" if read[lane] else "+"
                commands.append(("XREVRANGE", lane.results, end, f"({self.of[lane].position}", "COUNT", page))
            for lane, entries in zip(some, await pipelined(self._redis, commands), strict=True):
                read[lane] += entries
                if len(entries) == page:
                    more.append(lane)
        return more


def together(flows: Sequence[Flow], numbers: Sequence[FlowNumbers]) -> FlowNumbers:
    """Several lanes as if they were one, from their flows and what these said: rates add up, times are of all
    outcomes."""
    outcomes = [outcome for flow in flows for outcome in flow.outcomes]
    return FlowNumbers(
        per_s={group: sum(lane.per_s[group] for lane in numbers) for group in GROUPS},
        statuses=Counter(outcome.status for outcome in outcomes),
        sent_ms=percentiles(o.sent_ms for o in outcomes if o.sent_ms is not None),
        settled_ms=percentiles(o.settled_ms for o in outcomes if o.settled_ms is not None),
        sampled=any(lane.sampled for lane in numbers),
        unresolved=tuple(id_ for lane in numbers for id_ in lane.unresolved),
    )


def percentiles(values: Iterable[float]) -> tuple[float, float] | None:
    """Median and 99th percentile, by nearest rank; None of nothing."""
    found = sorted(values)
    if not found:
        return None
    return found[(len(found) - 1) // 2], found[-(-99 * len(found) // 100) - 1]


def _ms(entry_id: bytes) -> int:
    return int(entry_id.partition(b"-")[0])


def _number(fields: Mapping[bytes, bytes], name: bytes) -> int | None:
    value = fields.get(name, b"")
    return int(value) if value.isdigit() and len(value) < 20 else None


def _span_ms(from_us: int | None, to_us: int | None) -> float | None:
    return None if from_us is None or to_us is None else max(0, to_us - from_us) / 1000
