"""A worker under observation: the beat of its loop, the gauges of its lanes, and the door they are seen through.

Without an address to listen on nothing of this runs: nobody could see it.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Iterator

import redis.asyncio as aioredis
import structlog
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from cancelq_worker.health import Health
from cancelq_worker.health_http import HealthServer
from cancelq_worker.histograms import Histogram
from cancelq_worker.lane_gauges import LaneGauges, Watch
from cancelq_worker.metrics import BOUNDS_S, Metrics

log = structlog.get_logger("cancelq.http")

BEAT_S = 0.25


@contextlib.asynccontextmanager
async def observed(
    place: str,
    metrics: Metrics,
    health: Health,
    redis: aioredis.Redis,
    watch: Watch,
) -> AsyncIterator[None]:
    """While this lasts, the worker is seen at `place` (HOST:PORT; "": not at all). Raises SettingsError at the start if
    nobody can listen there."""
    if not place:
        yield
        return
    gauges = LaneGauges(redis, watch)
    lag = Histogram(
        "cancelq_loop_lag_seconds", "How late the loop's beat came.", (), BOUNDS_S, metrics.registry
    ).labels()
    metrics.registry.register(_Worker(health))
    metrics.registry.register(gauges)
    server = HealthServer(place, health, metrics.registry)
    server.start()
    tasks: list[asyncio.Future[None]] = [
        asyncio.ensure_future(beat(health, lag.add)),
        asyncio.ensure_future(gauges.run()),
    ]
    for task in tasks:
        task.add_done_callback(_ended)
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
        await asyncio.to_thread(server.close)


async def beat(health: Health, late: Callable[[float], None]) -> None:
    """Shows that the loop runs, and by how many seconds it was late each time. Until cancelled."""
    loop = asyncio.get_running_loop()
    while True:
        health.looped()
        due_s = loop.time() + BEAT_S
        await asyncio.sleep(BEAT_S)
        late(loop.time() - due_s)


def _ended(task: asyncio.Future[None]) -> None:
    error = None if task.cancelled() else task.exception()
    if error:
        log.error("what is shown over HTTP is not kept up any more", error=repr(error)[:300], exc_info=error)


class _Worker(Collector):
    """The process itself, as it is when it is asked."""

    def __init__(self, health: Health) -> None:
        self._health = health

    def collect(self) -> Iterator[GaugeMetricFamily]:
        health = self._health
        yield GaugeMetricFamily("cancelq_up", "1: the process answers.", value=1)
        yield GaugeMetricFamily("cancelq_ready", "1 while it serves its lanes.", value=float(not health.not_ready()))
        drains = "1 from TERM on, or from a HUP that changes settings of the whole process."
        yield GaugeMetricFamily("cancelq_draining", drains, value=float(health.draining))
        yield GaugeMetricFamily("cancelq_loop_stuck_seconds", "Since the loop last ran.", value=health.stuck_s)
        yield GaugeMetricFamily("cancelq_watched_lanes", "Lanes that fall to this worker.", value=health.lanes)
        yield GaugeMetricFamily("cancelq_workers", "Live workers this one knows of.", value=health.workers)
        refused = "Lanes left alone, as their data are newer than this worker reads."
        yield GaugeMetricFamily("cancelq_refused_lanes", refused, value=health.refused)
        age = GaugeMetricFamily("cancelq_heartbeat_age_seconds", "Since Redis took the last heartbeat.")
        if health.heartbeat_age_s is not None:
            age.add_metric((), health.heartbeat_age_s)
        yield age
