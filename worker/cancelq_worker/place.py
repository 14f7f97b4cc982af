"""Where an open intent waits: its queue and place there, until when, and what holds its lane. Only reads."""

from __future__ import annotations

from collections.abc import Awaitable, Mapping
from typing import cast

import redis.asyncio as aioredis

from cancelq.contract import Lane
from cancelq_worker import operate
from cancelq_worker.state import LOCAL, State
from cancelq_worker.steps import Waiting
from cancelq_worker.venues.port import Stage


class Place:
    """Where open intents of a lane wait, and what holds them; the lane itself is looked at once."""

    def __init__(self, redis: aioredis.Redis, lane: Lane) -> None:
        self._redis = redis
        self._lane = lane
        self._status: operate.LaneStatus | None = None

    async def of(self, id_: str, state: State | None, record: Mapping[str, str]) -> Waiting:
        holds, workers = await self._lane_now()
        if state is None:
            return Waiting("unreadable", detail="its state line cannot be read", holds=holds, workers=workers)
        key, queue = self._lane.key, self._lane.key(f"queue:{state.queue}")
        rank = cast("int | None", await self._redis.zrank(queue, id_))
        due = await self._redis.zscore(queue, id_)
        timed = await self._redis.zscore(key("timed"), id_) is not None
        clock = await cast("Awaitable[bytes | None]", self._redis.get(key("clock")))
        steady_us = operate.steady_now(clock, await self._redis.time())
        at_rest = "timed" if timed else "revocation" if state.cancel_class == LOCAL else "queued"
        return Waiting(
            "in hand" if state.taken else at_rest,
            stage="cancel" if state.stage is Stage.CANCEL else "look",
            priority="urgent" if state.urgent else "normal",
            attempts=state.attempts,
            lookups=state.lookups,
            strikes=state.strikes,
            queue=state.queue,
            position=None if rank is None else rank + 1,
            queue_length=await self._redis.zcard(queue),
            due_in_us=None if due is None else max(0, int(due) - steady_us),
            not_before_ms=_number(record.get("not_before_ms")),
            expires_at_ms=state.expires_ms or None,
            holds=holds,
            workers=workers,
        )

    async def of_unread(self) -> Waiting:
        """Of an entry that is not admitted yet."""
        holds, workers = await self._lane_now()
        return Waiting("not admitted", detail="no worker has read it yet", holds=holds, workers=workers)

    async def _lane_now(self) -> tuple[list[str], list[str]]:
        """What holds the lane, and who serves it."""
        if self._status is None:
            try:
                (self._status,) = await operate.status(self._redis, [self._lane])
            except operate.UnknownLane:  # its inbox was removed
                return [], []
        holds = [
            f"{'lane' if scope == '*' else scope} {reason} ({until})" for scope, reason, until in self._status.holds
        ]
        return holds, self._status.workers


def _number(text: str | None) -> int | None:
    return int(text) if text and text.isascii() and text.isdigit() else None
