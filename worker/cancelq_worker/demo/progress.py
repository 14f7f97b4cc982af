"""What can be seen while the demo runs: outcomes in the results stream, calls in the venue's log."""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass, field

from cancelq import Client
from cancelq.contract import Event, Status
from cancelq_worker.demo.audit import BucketUse, CallCount, VenueCall, count_calls
from cancelq_worker.demo.scenario import LANE
from cancelq_worker.demo.venue import Venue

# The venue is asked less often than the results are read: its answers cost it time it needs for cancels.
VENUE_EVERY_S = 0.5


@dataclass(slots=True)
class Progress:
    """Counts so far. `settled` of `expected` entries have their last event: an outcome, or `duplicate`."""

    expected: int
    begun_s: float
    settled: int = 0
    outcomes: Counter[str] = field(default_factory=Counter)
    buckets: list[BucketUse] = field(default_factory=list)
    calls: CallCount = field(default_factory=lambda: CallCount(0, 0, 0, 0))
    moved_s: float = 0.0

    @property
    def elapsed_s(self) -> float:
        return time.monotonic() - self.begun_s

    @property
    def still_s(self) -> float:
        """For how long nothing has moved."""
        return time.monotonic() - self.moved_s

    @property
    def complete(self) -> bool:
        return self.settled >= self.expected

    @property
    def taken(self) -> int:
        """Calls the venue took; what it counts per address is counted elsewhere already."""
        return self.calls.cancels + self.calls.lookups

    @property
    def refused(self) -> int:
        return sum(bucket.refused for bucket in self.buckets)


class Observer:
    """Follows a run; `look` brings its `progress` up to date."""

    def __init__(self, redis_url: str, venue: Venue, expected: int) -> None:
        now_s = time.monotonic()
        self.progress = Progress(expected, now_s, moved_s=now_s)
        self.calls: list[VenueCall] = []
        self._client = Client(redis_url)
        self._venue = venue
        self._seen = "0"
        self._venue_s = 0.0

    def look(self) -> Progress:
        """Reads what is new. Raises `CancelqError` and `VenueError`."""
        progress = self.progress
        for event in self._client.events(LANE, self._seen):
            self._seen = event.entry_id
            progress.moved_s = time.monotonic()
            if event.final or event.status is Status.duplicate:
                progress.settled += 1
                progress.outcomes[event.status.value] += 1
        if time.monotonic() - self._venue_s >= VENUE_EVERY_S or progress.complete:
            self._venue_s = time.monotonic()
            progress.buckets = self._venue.buckets()
            self.calls += self._venue.new_calls()
            progress.calls = count_calls(self.calls)
        return progress

    def everything(self) -> list[Event]:
        """The whole results stream, read anew."""
        return list(self._client.events(LANE))

    def close(self) -> None:
        self._client.close()
