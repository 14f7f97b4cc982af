"""SAQ. As shipped: one job a cancel, ten at a time in each worker, tried again a second after a refusal. Helped: jobs
that empty a backlog."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence
from functools import cache
from typing import Any

import redis.asyncio
from saq import Queue

from peers.desk.backlog import AsyncBacklog
from peers.desk.call import AsyncCall

HELPED = os.environ["DESK_ROW"] == "helped"
AT_ONCE = 50  # enqueues of a producer under way

queue = Queue.from_url(os.environ["DESK_REDIS"])


@cache
def _call() -> AsyncCall:
    return AsyncCall()


@cache
def _backlog() -> AsyncBacklog:
    return AsyncBacklog(redis.asyncio.Redis.from_url(os.environ["DESK_REDIS"]))


async def cancel(context: dict[str, Any], *, order_id: str) -> None:
    """The job of one cancel; a refusal raises, which is what SAQ tries again."""
    await _call().cancel(order_id)


async def drain(context: dict[str, Any], *, slot: int) -> None:
    """The job that empties the backlog."""
    await _backlog().drain(slot, _call())


async def started(context: dict[str, Any]) -> None:
    """SAQ calls it once the worker is up, which is where its notes have clients made."""
    _call()
    print("ready", flush=True)


# Helped, a worker has one of the three long jobs at most: with its default of ten it may take all, and die with all.
settings = {
    "queue": queue,
    "functions": [cancel, drain],
    "startup": started,
    **({"concurrency": 1} if HELPED else {}),
}


async def submit(order_ids: Sequence[str], urgent: bool) -> None:
    """No load with urgent orders is played with this peer."""
    if HELPED:
        await _start(await _backlog().enter(order_ids, urgent))
        return
    for first in range(0, len(order_ids), AT_ONCE):
        some = order_ids[first : first + AT_ONCE]
        await asyncio.gather(*(_enqueue(order_id) for order_id in some))


async def tend() -> None:
    """Starts what jobs are missing; the producer calls it every second."""
    if HELPED:
        await _start(await _backlog().missing())


async def _start(slots: Sequence[int]) -> None:
    for slot in slots:
        await queue.enqueue("drain", slot=slot, retries=100, retry_delay=1.0, timeout=600)


async def _enqueue(order_id: str) -> None:
    await queue.enqueue("cancel", order_id=order_id, retries=100, retry_delay=1.0)
