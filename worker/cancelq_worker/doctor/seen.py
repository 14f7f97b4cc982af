"""The lanes, looked at twice: what stands still in between is told apart from what moves."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

import redis.asyncio as aioredis

from cancelq.contract import Lane
from cancelq_worker.guard_status import GuardStatus, guard_statuses
from cancelq_worker.rq_worker import rq_suspended
from cancelq_worker.settings import Settings
from cancelq_worker.snapshot import LaneStatus, Snapshots, workers_alive
from cancelq_worker.trips import round_trip

BETWEEN_S = 0.4


@dataclass(frozen=True, slots=True)
class Seen:
    """`before` and `after`: the lanes that have an inbox; `cursors`: where admission stood at either look;
    `suspended`: by `rq suspend`, None if its server does not say; `broken`: why the server refuses to look at
    a lane."""

    before: dict[Lane, LaneStatus]
    after: dict[Lane, LaneStatus]
    cursors: dict[Lane, tuple[str, str]]
    guards: dict[Lane, GuardStatus]
    suspended: bool | None
    broken: dict[Lane, str]

    def stands(self, lane: Lane) -> bool:
        """Whether the cursor has not moved between the looks."""
        before, after = self.cursors.get(lane, ("", ""))
        return before == after


async def look(redis: aioredis.Redis, lanes: Sequence[Lane], settings: Settings) -> Seen:
    """Raises RedisError."""
    snapshots = Snapshots(redis, passing_by=True)
    alive = await workers_alive(redis)
    before, first = await snapshots.lanes(lanes, alive), await _cursors(redis, lanes)
    suspended, _ = await asyncio.gather(asyncio.to_thread(rq_suspended, settings), asyncio.sleep(BETWEEN_S))
    after, second = await snapshots.lanes(lanes, alive), await _cursors(redis, lanes)
    cursors = {lane: (one, other) for lane, one, other in zip(lanes, first, second, strict=True)}
    there = [lane for lane in lanes if lane in after]
    guards = await guard_statuses(redis, there) if there else {}
    return Seen(before, after, cursors, guards, suspended, snapshots.refused)


async def _cursors(redis: aioredis.Redis, lanes: Sequence[Lane]) -> list[str]:
    replies = await round_trip(redis, [("GET", lane.key("cursor")) for lane in lanes])
    for reply in replies:
        if isinstance(reply, Exception):
            raise reply
    return [reply.decode() if reply else "0-0" for reply in replies]
