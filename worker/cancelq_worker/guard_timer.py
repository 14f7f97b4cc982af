"""The venue's own timer, where it has one: set while a guard is kept, so that a dead fleet is covered too.

The first watcher of a lane sets it anew every few seconds to the guard's time and a margin, at least to the venue's
shortest; it closes it when the guard was disarmed, and when the lane was flattened after a missed deadline. That it is
set is kept in Redis (`timer`) for as long as it runs, so that whoever watches the lane next can close it.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from typing import cast

import redis.asyncio as aioredis
import structlog
from redis.exceptions import RedisError

from cancelq.contract import Lane
from cancelq_worker.clocks import monotonic_s
from cancelq_worker.guard_ledger import Seen
from cancelq_worker.http import NoAnswer, NotSent
from cancelq_worker.lane import LaneServer
from cancelq_worker.venues.port import VenueTimer
from cancelq_worker.venues.registry import KINDS

log = structlog.get_logger("cancelq.guard")

AGAIN_S = 3.0
MARGIN_S = 5.0  # the fleet is to be first: what it does is told order by order


class GuardTimers:
    """The timers of the lanes for which `wanted` says so. `clock`: seconds, monotonic."""

    def __init__(
        self, client: aioredis.Redis, wanted: Callable[[Lane], bool], clock: Callable[[], float] = monotonic_s
    ) -> None:
        self._client = client
        self._wanted = wanted
        self._clock = clock
        self._asked_s: dict[Lane, float] = {}
        self._calls: dict[Lane, asyncio.Task[None]] = {}

    def attend(self, lane: LaneServer, seen: Seen) -> None:
        """Sets or closes the lane's timer if it is time to; beside everything else, as a call may take long."""
        timer, now_s = KINDS[lane.lane.venue].timer, self._clock()
        if timer is None or lane.lane in self._calls or now_s - self._asked_s.get(lane.lane, -AGAIN_S) < AGAIN_S:
            return
        job = None
        if seen.left_ms is not None and self._wanted(lane.lane):
            left_s = seen.left_ms / 1000 if seen.left_ms >= 0 else timer.longest_s
            job = self._set(lane, timer, math.ceil(max(timer.shortest_s, min(timer.longest_s, left_s + MARGIN_S))))
        elif seen.timer and seen.left_ms is None and not seen.missed and not (seen.fired and seen.fired.open):
            job = self._close(lane, timer)
        if job:
            self._asked_s[lane.lane] = now_s
            task = self._calls[lane.lane] = asyncio.ensure_future(job)
            task.add_done_callback(lambda _: self._calls.pop(lane.lane, None))

    async def _set(self, lane: LaneServer, timer: VenueTimer, seconds: int) -> None:
        """First the key, then the call: a timer that may run is never forgotten."""
        try:
            await self._client.set(lane.lane.key("timer"), str(seconds), ex=seconds + 1)
            refused = timer.refusal(await lane.call_aside(timer.set_request(seconds)))
        except (RedisError, OSError, NotSent, NoAnswer) as error:
            refused = f"{type(error).__name__}: {error}"
        if refused:
            log.error("the venue's timer could not be set", lane=str(lane.lane), why=refused[:200])

    async def _close(self, lane: LaneServer, timer: VenueTimer) -> None:
        try:
            refused = timer.refusal(await lane.call_aside(timer.close_request()))
            if not refused:
                await cast("asyncio.Future[int]", self._client.delete(lane.lane.key("timer")))
        except (RedisError, OSError, NotSent, NoAnswer) as error:
            refused = f"{type(error).__name__}: {error}"
        if refused:
            log.error("the venue's timer could not be closed", lane=str(lane.lane), why=refused[:200])
        else:
            log.info("the venue's timer is closed", lane=str(lane.lane))
