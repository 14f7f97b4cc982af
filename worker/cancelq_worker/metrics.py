"""What a worker counts: events, calls, refusals, times. Scraped as Prometheus text; `docs/METRICS.md` explains each.

Labels are of few values by design: venue, account, endpoint, status, bucket, a venue's documented codes; never an id,
a pair or a text of the venue. The counters are there whether or not anybody listens: what a batch costs them is less
than what a second way through the code would cost its reader.
"""

from __future__ import annotations

import platform
from collections.abc import Collection, Sequence
from importlib.metadata import version

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    GCCollector,
    PlatformCollector,
    ProcessCollector,
    disable_created_metrics,
)

from cancelq.contract import Lane, Status
from cancelq_worker.histograms import Cells, Histogram
from cancelq_worker.records import Admitted, End, Move, Settled, Settlement
from cancelq_worker.venues.port import ABOUT_THE_CALL, Reply, Stage, Venue

LANE = ("venue", "account")
#: From a round trip within a data centre to the longest a confirmation may take; seconds.
BOUNDS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
BATCH_BOUNDS = (1, 2, 5, 10, 20, 30, 40, 50)
#: The code of a call that got no answer, and of a code that no table of the venue has.
NO_ANSWER, OTHER = "none", "other"


class Metrics:
    """The counters of one process, in a registry of their own."""

    def __init__(self) -> None:
        # When a counter began is told by cancelq_start_time_seconds; one series more for each tells nothing new.
        disable_created_metrics()  # type: ignore[no-untyped-call]  # the library leaves it unannotated
        self.registry = registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        PlatformCollector(registry=registry)
        GCCollector(registry=registry)
        self._count_events()
        self._count_calls()
        self._time_intents()
        self.rounds = Counter("cancelq_rounds", "Rounds: trips to Redis that a lane made.", LANE, registry=registry)
        self.redis_errors = Counter(
            "cancelq_redis_errors", "Rounds that failed because Redis could not be reached.", LANE, registry=registry
        )
        self.redis_s = Histogram(
            "cancelq_redis_round_seconds", "How long a round took, to Redis and back.", (), BOUNDS_S, registry
        )
        build = Gauge(
            "cancelq_build_info", "1, labelled with what runs here.", ("version", "python"), registry=registry
        )
        build.labels(version("cancelq"), platform.python_version()).set(1)
        start = Gauge("cancelq_start_time_seconds", "When this process began to serve, epoch.", registry=registry)
        start.set_to_current_time()

    def _count_events(self) -> None:
        registry, status = self.registry, (*LANE, "status")
        self.admitted = Counter("cancelq_intents_admitted", "Intents admitted to be carried.", LANE, registry=registry)
        self.outcomes = Counter("cancelq_outcomes", "Final events this process wrote.", status, registry=registry)
        self.events = Counter(
            "cancelq_events", "Events this process wrote that end nothing.", status, registry=registry
        )
        self.duplicates = Counter("cancelq_duplicates", "Entries that repeated an id.", LANE, registry=registry)
        self.stale = Counter(
            "cancelq_stale_settlements",
            "Intents of this process' settlements that another worker had settled or taken before.",
            LANE,
            registry=registry,
        )

    def _count_calls(self) -> None:
        registry, at = self.registry, (*LANE, "endpoint", "code")
        self.calls = Counter("cancelq_venue_calls", "Calls that were sent to the venue.", at, registry=registry)
        self.not_sent = Counter(
            "cancelq_calls_not_sent", "Calls given back before anything was sent.", LANE, registry=registry
        )
        self.orders = Counter("cancelq_orders_sent", "Orders named in cancel calls.", LANE, registry=registry)
        self.refusals = Counter(
            "cancelq_refusals", "Calls the venue refused for its limit.", (*LANE, "bucket"), registry=registry
        )
        self.call_s = Histogram(
            "cancelq_venue_call_seconds", "Round trip of an answered call.", ("venue", "endpoint"), BOUNDS_S, registry
        )
        self.batch = Histogram(
            "cancelq_batch_orders", "Orders named in a cancel call.", ("venue", "endpoint"), BATCH_BOUNDS, registry
        )

    def _time_intents(self) -> None:
        registry, by = self.registry, ("venue", "priority")
        self.to_sent = Histogram(
            "cancelq_queued_to_sent_seconds", "From queued to the last cancel call.", by, BOUNDS_S, registry
        )
        self.to_answered = Histogram(
            "cancelq_sent_to_answered_seconds", "From the last cancel call to its answer.", by, BOUNDS_S, registry
        )
        self.to_settled = Histogram(
            "cancelq_queued_to_settled_seconds", "From queued to the final event.", by, BOUNDS_S, registry
        )

    def lane(self, lane: Lane, venue: Venue, codes: Collection[str]) -> LaneMetrics:
        """What one lane counts. `codes`: those of the venue's tables."""
        return LaneMetrics(self, lane, venue, codes)


class LaneMetrics:
    """One lane's counters, bound to their labels at first use. Written by the event loop only."""

    def __init__(self, metrics: Metrics, lane: Lane, venue: Venue, codes: Collection[str]) -> None:
        self._m = metrics
        self._at = (lane.venue, lane.account)
        self._codes = frozenset(codes)
        self._counters: dict[tuple[str, ...], Counter] = {}
        self._cells: dict[tuple[str, ...], Cells] = {}
        self._admitted = metrics.admitted.labels(*self._at)
        self._duplicates = metrics.duplicates.labels(*self._at)
        self._stale = metrics.stale.labels(*self._at)
        self._not_sent = metrics.not_sent.labels(*self._at)
        self._orders = metrics.orders.labels(*self._at)
        self._rounds = metrics.rounds.labels(*self._at)
        self._redis_errors = metrics.redis_errors.labels(*self._at)
        self._redis_s = metrics.redis_s.labels()
        self._waits = {
            priority: (
                metrics.to_sent.labels(lane.venue, priority),
                metrics.to_answered.labels(lane.venue, priority),
                metrics.to_settled.labels(lane.venue, priority),
            )
            for priority in ("normal", "urgent")
        }
        # What alerts watch must be there before it first happens: a counter that begins at 1 never rose.
        self._bound("outcome", Status.unresolved.value)
        for bucket in venue.buckets:
            self._bound("refusal", bucket.name)

    # -- rounds -----------------------------------------------------------------------------------------------

    def round(self, took_ns: int) -> None:
        """A round came back."""
        self._rounds.inc()
        self._redis_s.add(took_ns / 1e9)

    def redis_away(self) -> None:
        """A round failed: Redis could not be reached."""
        self._redis_errors.inc()

    def admission(self, result: object) -> None:
        """What became of an admission, if there was one."""
        if not isinstance(result, Admitted) or not result.applied:
            return
        self._admitted.inc(result.admitted)
        if result.duplicates:
            self._duplicates.inc(result.duplicates)
            self._event("duplicate", result.duplicates)
        if result.rejected:
            self._outcome(Status.rejected.value, result.rejected)

    def settled(self, settlement: Settlement, result: Settled, now_us: int) -> None:
        """A settlement was written. `now_us`: Redis time. What was another's by then is told by that one."""
        works, ends, moves = settlement.works, dict[str, int](), dict[str, int]()
        if result.stale:
            self._stale.inc(len(result.stale))
            works = [work for n, work in enumerate(works) if n not in result.stale]
        for work in works:
            event = work.event
            if event:
                counts = ends if event["final"] == "1" else moves
                status = event["status"]
                counts[status] = counts.get(status, 0) + 1
        if ends:
            self._time(works, now_us)
        for status, count in ends.items():
            self._outcome(status, count)
        for status, count in moves.items():
            self._event(status, count)

    def given_up(self) -> None:
        """An intent was told as unresolved by a script."""
        self._outcome("unresolved", 1)

    def _time(self, works: Sequence[End | Move], now_us: int) -> None:
        """How long each that ended has waited. One that was to wait (`not_before_ms`) or that nothing was sent for
        tells nothing of how fast cancels are."""
        waits: dict[str | None, tuple[list[float], list[float], list[float]]] = {}
        for work in works:
            event = work.event
            if not event or "sent_us" not in event or event["final"] != "1" or "not_before_ms" in work.work.record:
                continue
            priority = event.get("priority")
            if priority not in waits:
                waits[priority] = ([], [], [])
            to_sent, to_answered, to_settled = waits[priority]
            queued_us, sent_us = int(event["queued_us"]), int(event["sent_us"])
            to_sent.append((sent_us - queued_us) / 1e6)
            to_settled.append((now_us - queued_us) / 1e6)
            if "answered_us" in event:
                to_answered.append((int(event["answered_us"]) - sent_us) / 1e6)
        for priority, lists in waits.items():
            for cells, values in zip(self._waits["urgent" if priority == "urgent" else "normal"], lists, strict=True):
                cells.add_all(values)

    def _outcome(self, status: str, count: int) -> None:
        self._bound("outcome", status).inc(count)

    def _event(self, status: str, count: int) -> None:
        self._bound("event", status).inc(count)

    # -- calls ------------------------------------------------------------------------------------------------

    def answered(
        self, path: str, stage: Stage, orders: int, replies: Sequence[Reply], took_us: int, http_status: int
    ) -> None:
        """A call of a route was answered. `path`: as it was called, without its query."""
        self._bound("call", path, self._code(replies, http_status)).inc()
        self._timed(path).add(took_us / 1e6)
        self._sent(path, stage, orders)

    def unanswered(self, path: str, stage: Stage, orders: int) -> None:
        """A call of a route was sent, and no whole answer came."""
        self._bound("call", path, NO_ANSWER).inc()
        self._sent(path, stage, orders)

    def aside(self, path: str, http_status: int, took_ns: int) -> None:
        """A call that no route makes (the venue's time, a probe, a stream's key); status 0: it was not answered."""
        self._bound("call", path, _class_of(http_status) if http_status else NO_ANSWER).inc()
        if http_status:
            self._timed(path).add(took_ns / 1e9)

    def given_back(self) -> None:
        """A call was granted its permit and not sent."""
        self._not_sent.inc()

    def refused(self, bucket: str) -> None:
        """The venue refused a call for its limit."""
        self._bound("refusal", bucket).inc()

    def _sent(self, path: str, stage: Stage, orders: int) -> None:
        if stage is Stage.CANCEL:
            self._orders.inc(orders)
            key = ("batch", path)
            cells = self._cells.get(key)
            if cells is None:
                cells = self._cells[key] = self._m.batch.labels(self._at[0], path)
            cells.add(orders)

    def _code(self, replies: Sequence[Reply], http_status: int) -> str:
        """The venue's code of a call: what it says about the call itself, or of every order alike; else the class of
        the HTTP status."""
        first = next((reply for reply in replies if reply.word in ABOUT_THE_CALL), replies[0] if replies else None)
        if first is None or not first.code:
            return _class_of(http_status)
        if first.word not in ABOUT_THE_CALL and any(reply.code != first.code for reply in replies):
            return _class_of(http_status)
        return first.code if first.code in self._codes else OTHER

    def _timed(self, path: str) -> Cells:
        key = ("call", path)
        cells = self._cells.get(key)
        if cells is None:
            cells = self._cells[key] = self._m.call_s.labels(self._at[0], path)
        return cells

    def _bound(self, what: str, *values: str) -> Counter:
        key = (what, *values)
        counter = self._counters.get(key)
        if counter is None:
            families = {
                "outcome": self._m.outcomes,
                "event": self._m.events,
                "call": self._m.calls,
                "refusal": self._m.refusals,
            }
            counter = self._counters[key] = families[what].labels(*self._at, *values)
        return counter


def _class_of(http_status: int) -> str:
    return f"{http_status // 100}xx"
