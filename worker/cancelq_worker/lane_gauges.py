"""How lanes stand, and the limits per address that they share, as gauges: read from Redis every couple of seconds, a
lane by its first watcher, a limit by each that watches a lane behind the address first.

What is not known lately is absent, never stale: of a lane that another worker watches first, and of all while Redis
does not answer. A pass over the lanes costs one script a lane, 32 to a trip, and next to nothing for lanes at rest; two
trips more are for all limits. It is never more than a twentieth of the time.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import redis.asyncio as aioredis
import structlog
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector
from redis.exceptions import RedisError

from cancelq.contract import Lane
from cancelq_worker.guard_ledger import GuardStanding
from cancelq_worker.snapshot import ENDLESS, AddressStatus, LaneStatus, Snapshots, address_status

log = structlog.get_logger("cancelq.gauges")

EVERY_S = 2.0
SHARE = 20  # a pass may take this part of the time
FRESH_PASSES = 3  # so many passes may fail before what was read counts as stale
COUNT_MOST = 2_000  # entries of all inboxes that are counted in a pass
LANE = ("venue", "account")

#: What is one number of each lane: name, meaning, where it is read.
_PLAIN: tuple[tuple[str, str, Callable[[LaneStatus], float]], ...] = (
    ("cancelq_lane_queued", "Intents waiting to be sent.", lambda s: s.queued),
    ("cancelq_lane_confirming", "Intents sent, waiting for the venue's word.", lambda s: s.confirming),
    ("cancelq_lane_in_flight", "Intents in a worker's hands.", lambda s: s.in_flight),
    ("cancelq_lane_timed", "Intents that wait for their time.", lambda s: s.timed),
    ("cancelq_lane_not_admitted", "Entries no worker has read yet, at least.", lambda s: s.not_admitted),
    ("cancelq_lane_oldest_age_seconds", "Age of what waits longest unsent.", lambda s: _oldest_s(s)),
    (
        "cancelq_lane_unconfirmed_age_seconds",
        "Since the last cancel call for what has waited longest for its end since.",
        lambda s: (s.unconfirmed_ms or 0) / 1000,
    ),
    ("cancelq_lane_inbox_length", "Entries of the inbox, old ones too.", lambda s: s.inbox_length),
    ("cancelq_lane_results_length", "Entries of the results.", lambda s: s.results_length),
)


@dataclass(frozen=True, slots=True)
class Watch:
    """What a process tells of, as it knows it at this moment. `lanes`: those it watches first, which another thread may
    ask for; `closed`: the lanes whose address the venue has closed, and for how many ms; `addresses`: (egress, bucket)
    of the limits per address that `lanes` are behind; `guards`: how those of `lanes` are."""

    lanes: Callable[[], Sequence[Lane]]
    closed: Callable[[], Mapping[Lane, int]] = dict
    addresses: Callable[[], Sequence[tuple[str, str]]] = tuple
    guards: Callable[[], Mapping[Lane, GuardStanding]] = dict


@dataclass(frozen=True, slots=True)
class _Pass:
    """What a pass saw, and until when that holds. `closed`, `guards`: as `Watch` has them."""

    lanes: Mapping[Lane, LaneStatus]
    closed: Mapping[Lane, int]
    addresses: Sequence[AddressStatus]
    guards: Mapping[Lane, GuardStanding]
    until_ns: int


class LaneGauges(Collector):
    """The gauges of the lanes that this process watches first, and of the limits per address that they are behind."""

    def __init__(
        self, redis: aioredis.Redis, watch: Watch, monotonic_ns: Callable[[], int] = time.monotonic_ns
    ) -> None:
        self._redis = redis
        self._snapshots = Snapshots(redis, count_most=COUNT_MOST, passing_by=True, around_nodes=True)
        self._watch = watch
        self._monotonic_ns = monotonic_ns
        self._took_s = 0.0  # the last pass
        self._told: Mapping[Lane, str] = {}  # lanes of which it was logged why they have no gauges
        self._seen = _Pass({}, {}, (), {}, 0)

    async def run(self) -> None:
        """Passes until cancelled. A Redis that is away is waited for."""
        while True:
            rest_s = await self.look()
            await asyncio.sleep(rest_s)

    async def look(self) -> float:
        """One pass; for how many seconds to rest after it."""
        begun_ns = self._monotonic_ns()
        lanes = self._watch.lanes()
        try:
            seen = await self._snapshots.lanes(lanes, ()) if lanes else {}
        except (RedisError, OSError) as error:
            log.debug("the lanes could not be looked at", error=str(error)[:100])
            return EVERY_S
        addresses = await self._look_at_addresses()
        self._tell_refused(self._snapshots.refused)
        took_s = (self._monotonic_ns() - begun_ns) / 1e9
        # The shorter of two: one in which Redis or this process stood still tells nothing of what a pass costs.
        costs_s, self._took_s = min(took_s, self._took_s), took_s
        rest_s = max(EVERY_S, costs_s * SHARE)
        until_ns = self._monotonic_ns() + int(FRESH_PASSES * rest_s * 1e9)
        self._seen = _Pass(seen, self._watch.closed(), addresses, self._watch.guards(), until_ns)
        return rest_s

    def _tell_refused(self, refused: Mapping[Lane, str]) -> None:
        """Once, as it begins."""
        for lane in refused.keys() - self._told.keys():
            log.warning("a lane cannot be looked at: it has no gauges", lane=str(lane), error=refused[lane][:100])
        self._told = refused

    async def _look_at_addresses(self) -> Sequence[AddressStatus]:
        """None of them, where the node of a cluster that has one is away."""
        addresses = self._watch.addresses()
        if not addresses:
            return ()
        try:
            seconds, micros = await self._redis.time()
            return await address_status(self._redis, addresses, seconds * 1_000_000 + micros)
        except (RedisError, OSError) as error:
            log.debug("the addresses could not be looked at", error=str(error)[:100])
            return ()

    def describe(self) -> list[GaugeMetricFamily]:
        return [*_families().values()]

    def collect(self) -> Iterator[GaugeMetricFamily]:
        families = _families()
        seen = self._seen
        if self._monotonic_ns() <= seen.until_ns:
            self._add_lanes(families, seen)
            self._add_addresses(families, seen)
        yield from families.values()

    def _add_lanes(self, families: Mapping[str, GaugeMetricFamily], seen: _Pass) -> None:
        """Those that are still this process' to watch first."""
        watched = set(self._watch.lanes())
        for lane, status in seen.lanes.items():
            if lane not in watched:
                continue
            at = (lane.venue, lane.account)
            for name, _, read in _PLAIN:
                families[name].add_metric(at, read(status))
            for scope, reason, until in status.holds:
                where = (*at, "all" if scope == "*" else scope, reason)
                families["cancelq_lane_hold"].add_metric(where, 1)
                if not until.startswith(ENDLESS):
                    families["cancelq_lane_hold_seconds"].add_metric(where, float(until.split(maxsplit=1)[0]))
            if closed_ms := seen.closed.get(lane):
                where = (*at, "all", "address")
                families["cancelq_lane_hold"].add_metric(where, 1)
                families["cancelq_lane_hold_seconds"].add_metric(where, closed_ms / 1000)
            if guard := seen.guards.get(lane):
                if guard.state:
                    families["cancelq_lane_guard"].add_metric((*at, guard.state), 1)
                if guard.fired_ms is not None:
                    families["cancelq_lane_guard_fired_timestamp_seconds"].add_metric(at, guard.fired_ms / 1000)
            for bucket, (used, limit) in status.budget.items():
                families["cancelq_lane_budget_used"].add_metric((*at, bucket), used)
                if limit is not None:
                    families["cancelq_lane_budget_limit"].add_metric((*at, bucket), limit)

    def _add_addresses(self, families: Mapping[str, GaugeMetricFamily], seen: _Pass) -> None:
        for address in seen.addresses:
            at = (address.egress, address.venue, address.bucket)
            families["cancelq_address_used"].add_metric(at, address.used)
            if address.limit is not None:
                families["cancelq_address_limit"].add_metric(at, address.limit)


def _families() -> dict[str, GaugeMetricFamily]:
    held, bucket, address = (*LANE, "bucket", "reason"), (*LANE, "bucket"), ("egress", "venue", "bucket")
    guard = (*LANE, "state")
    made = [GaugeMetricFamily(name, about, labels=LANE) for name, about, _ in _PLAIN]
    made += [
        GaugeMetricFamily("cancelq_lane_hold", "1 while the lane or a bucket is closed.", labels=held),
        GaugeMetricFamily("cancelq_lane_hold_seconds", "How long it stays closed, where that is known.", labels=held),
        GaugeMetricFamily("cancelq_lane_guard", "1 while a guard is armed, or was not kept.", labels=guard),
        GaugeMetricFamily("cancelq_lane_guard_fired_timestamp_seconds", "When it fired last, epoch.", labels=LANE),
        GaugeMetricFamily("cancelq_lane_budget_used", "Units of the venue's limit in use.", labels=bucket),
        GaugeMetricFamily("cancelq_lane_budget_limit", "Units of the venue's limit.", labels=bucket),
        GaugeMetricFamily("cancelq_address_used", "Units in use of a limit per address.", labels=address),
        GaugeMetricFamily("cancelq_address_limit", "Units of a limit per address.", labels=address),
    ]
    return {family.name: family for family in made}


def _oldest_s(status: LaneStatus) -> float:
    """Of intents that were not sent and of entries that nobody has read."""
    return (status.waits_ms or 0) / 1000
