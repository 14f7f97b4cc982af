"""What can be seen while the demo runs: outcomes in the results streams, calls in the venues' log."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from cancelq import Client
from cancelq.contract import Event, Lane, Status
from cancelq_worker.demo.markets import Market
from cancelq_worker.demo.script import Script
from cancelq_worker.demo.tables import BucketUse, CallCount, VenueCall, count_calls
from cancelq_worker.demo.venue import Venues

# The venues are asked less often than the results are read: their answers cost time they need for cancels.
VENUES_EVERY_S = 0.5


@dataclass(slots=True)
class LaneProgress:
    """One lane so far. `settled` of `expected` entries have their last event: an outcome, or `duplicate`."""

    market: Market
    expected: int
    settled: int = 0
    outcomes: Counter[str] = field(default_factory=Counter)
    buckets: list[BucketUse] = field(default_factory=list)
    calls: CallCount = field(default_factory=CallCount)

    @property
    def lane(self) -> Lane:
        return self.market.lane

    @property
    def refused(self) -> int:
        """Over a limit, which may count orders, or at an endpoint that the venue had closed."""
        return max(self.calls.refused, sum(bucket.refused for bucket in self.buckets))


@dataclass(slots=True)
class Progress:
    """All lanes so far."""

    lanes: list[LaneProgress]
    begun_s: float
    moved_s: float

    @property
    def expected(self) -> int:
        return sum(lane.expected for lane in self.lanes)

    @property
    def settled(self) -> int:
        return sum(lane.settled for lane in self.lanes)

    @property
    def outcomes(self) -> Counter[str]:
        return sum((lane.outcomes for lane in self.lanes), Counter())

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
    def calls(self) -> int:
        return sum(lane.calls.cancels + lane.calls.lookups for lane in self.lanes)

    @property
    def refused(self) -> int:
        return sum(lane.refused for lane in self.lanes)


class Observer:
    """Follows a run; `look` brings its `progress` up to date."""

    def __init__(self, redis_url: str, venues: Venues, script: Script) -> None:
        now_s = time.monotonic()
        self.progress = Progress([LaneProgress(part.market, part.size) for part in script.parts], now_s, now_s)
        self._calls: list[VenueCall] = []
        self._client = Client(redis_url)
        self._venues = venues
        self._seen = dict.fromkeys(script.lanes, "0")
        self._venues_s = 0.0

    def look(self) -> Progress:
        """Reads what is new. Raises `CancelqError` and `VenueError`."""
        progress = self.progress
        for of_lane in progress.lanes:
            for event in self._client.events(of_lane.lane, self._seen[of_lane.lane]):
                self._seen[of_lane.lane] = event.entry_id
                progress.moved_s = time.monotonic()
                if event.final or event.status is Status.duplicate:
                    of_lane.settled += 1
                    of_lane.outcomes[event.status.value] += 1
        if time.monotonic() - self._venues_s >= VENUES_EVERY_S or progress.complete:
            self._venues_s = time.monotonic()
            self._look_at_venues()
        return progress

    def _look_at_venues(self) -> None:
        buckets = self._venues.buckets()
        self._calls += self._venues.new_calls()
        for of_lane in self.progress.lanes:
            of_lane.buckets = self._of(of_lane.market, buckets)
            of_lane.calls = count_calls(self.calls(of_lane.market))

    def _of(self, market: Market, buckets: Sequence[BucketUse]) -> list[BucketUse]:
        """What a venue counts per account, and, for the first lane of a venue, what it counts per address."""
        uids = [lane.market.uid for lane in self.progress.lanes if lane.lane.venue == market.lane.venue]
        return [
            bucket
            for bucket in buckets
            if bucket.venue == market.lane.venue
            and (bucket.owner == market.uid or (bucket.owner not in uids and market.uid == uids[0]))
        ]

    def calls(self, market: Market) -> list[VenueCall]:
        """What the market's account has called so far."""
        return [call for call in self._calls if (call.venue, call.uid) == (market.lane.venue, market.uid)]

    def everything(self, lane: Lane) -> list[Event]:
        """A lane's whole results stream, read anew."""
        return list(self._client.events(lane))

    def close(self) -> None:
        self._client.close()
