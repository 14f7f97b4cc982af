"""The batcher a desk writes for a queue that runs one job at a time: orders wait in a sorted set, and a few long jobs
empty it, fifty orders a call.

An order that waits is not entered twice, an urgent one stands before all others, and what a job holds for longer than
five seconds is taken by the next one: it may have died. At most three jobs run at once, each under a flag that it keeps
alive; producers start one for every fifty orders that wait, and look every second whether one has died.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import redis
import redis.asyncio

from peers.desk.call import MOST, AsyncCall, Call, Refused
from peers.desk.limiter import AsyncLimiter, Limiter

WAITING, IN_HAND, FLAG = "desk:waiting", "desk:in-hand", "desk:drain:{}"
SLOTS = 3
FLAG_MS = 5_000
HELD_US = 5_000_000  # as long as cancelq's lease
EARLY_S = 1e9  # what an urgent order is ahead of all others
LOOK_AGAIN_S = 0.2
SCRIPT = (Path(__file__).parent / "take.lua").read_text()


class Backlog:
    """For peers that block."""

    def __init__(self, client: redis.Redis) -> None:
        self._client = client
        self._take: Any = client.register_script(SCRIPT)
        self._limiter = Limiter(client)

    def enter(self, order_ids: Iterable[str], urgent: bool = False) -> list[int]:
        """Enters orders; which slots now want a job started."""
        self._client.zadd(WAITING, _scored(order_ids, urgent), nx=not urgent)
        return self.missing()

    def missing(self) -> list[int]:
        """Slots that ought to have a job and have none, or one whose worker died; the caller starts them."""
        waiting = int(self._client.zcard(WAITING)) + int(self._client.zcard(IN_HAND))
        return [slot for slot in _slots(waiting) if self._client.set(FLAG.format(slot), 1, nx=True, px=FLAG_MS)]

    def drain(self, slot: int, call: Call) -> None:
        """What the job of a slot does: calls until nothing waits and nothing is in hand."""
        flag = FLAG.format(slot)
        going: Any = True
        while going:
            while self._client.zcard(WAITING) or self._client.zcard(IN_HAND):
                self._client.set(flag, 1, px=FLAG_MS)
                self._once(call)
            self._client.delete(flag)
            # What was entered just before the flag fell found it still up.
            going = self._client.zcard(WAITING) and self._client.set(flag, 1, nx=True, px=FLAG_MS)

    def _once(self, call: Call) -> None:
        self._limiter.wait()
        order_ids = _texts(self._take(keys=[WAITING, IN_HAND], args=[MOST, HELD_US]))
        if not order_ids:
            time.sleep(LOOK_AGAIN_S)
            return
        try:
            call.cancel_all(order_ids)
        except Refused:
            self._client.zadd(WAITING, _scored(order_ids, urgent=True))
        self._client.zrem(IN_HAND, *order_ids)


class AsyncBacklog:
    """For peers on asyncio."""

    def __init__(self, client: redis.asyncio.Redis) -> None:
        self._client: Any = client
        self._take: Any = client.register_script(SCRIPT)
        self._limiter = AsyncLimiter(client)

    async def enter(self, order_ids: Iterable[str], urgent: bool = False) -> list[int]:
        await self._client.zadd(WAITING, _scored(order_ids, urgent), nx=not urgent)
        return await self.missing()

    async def missing(self) -> list[int]:
        waiting = int(await self._client.zcard(WAITING)) + int(await self._client.zcard(IN_HAND))
        return [slot for slot in _slots(waiting) if await self._client.set(FLAG.format(slot), 1, nx=True, px=FLAG_MS)]

    async def drain(self, slot: int, call: AsyncCall) -> None:
        flag = FLAG.format(slot)
        going = True
        while going:
            while await self._client.zcard(WAITING) or await self._client.zcard(IN_HAND):
                await self._client.set(flag, 1, px=FLAG_MS)
                await self._once(call)
            await self._client.delete(flag)
            going = await self._client.zcard(WAITING) and await self._client.set(flag, 1, nx=True, px=FLAG_MS)

    async def _once(self, call: AsyncCall) -> None:
        await self._limiter.wait()
        order_ids = _texts(await self._take(keys=[WAITING, IN_HAND], args=[MOST, HELD_US]))
        if not order_ids:
            await asyncio.sleep(LOOK_AGAIN_S)
            return
        try:
            await call.cancel_all(order_ids)
        except Refused:
            await self._client.zadd(WAITING, _scored(order_ids, urgent=True))
        await self._client.zrem(IN_HAND, *order_ids)


def _scored(order_ids: Iterable[str], urgent: bool) -> dict[str, float]:
    at_s = time.time() - (EARLY_S if urgent else 0.0)
    return dict.fromkeys(order_ids, at_s)


def _slots(waiting: int) -> range:
    return range(min(SLOTS, -(-waiting // MOST)))


def _texts(replies: Sequence[bytes | str]) -> list[str]:
    return [reply.decode() if isinstance(reply, bytes) else reply for reply in replies]
