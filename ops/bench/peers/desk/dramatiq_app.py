"""Dramatiq. As shipped: one message a cancel under its window rate limiter, tried again after a second at the least.
Helped: messages that empty a backlog."""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import cache

import dramatiq
import redis
from dramatiq.brokers.redis import RedisBroker
from dramatiq.rate_limits import WindowRateLimiter
from dramatiq.rate_limits.backends import RedisBackend

from peers.desk.backlog import Backlog
from peers.desk.call import Call

HELPED = os.environ["DESK_ROW"] == "helped"


class _Started(dramatiq.Middleware):  # type: ignore[misc]
    """Makes the client before the first message."""

    def after_worker_boot(self, broker: dramatiq.Broker, worker: dramatiq.Worker) -> None:
        _call()


BROKER = RedisBroker(url=os.environ["DESK_REDIS"])
BROKER.add_middleware(_Started())
dramatiq.set_broker(BROKER)
WINDOW = WindowRateLimiter(RedisBackend(url=os.environ["DESK_REDIS"]), "cancel-order", limit=10, window=1)


@cache
def _call() -> Call:
    return Call()


@cache
def _backlog() -> Backlog:
    return Backlog(redis.Redis.from_url(os.environ["DESK_REDIS"]))


# Its default of 15 s at the least was made for other work than cancels.
@dramatiq.actor(max_retries=None, min_backoff=1_000, max_backoff=5_000)
def cancel(order_id: str) -> None:
    """Outside the window the limiter raises, which Dramatiq tries again; so does a refusal."""
    with WINDOW.acquire():
        _call().cancel(order_id)


@dramatiq.actor(max_retries=None, min_backoff=1_000, max_backoff=5_000)
def drain(slot: int) -> None:
    """The message that empties the backlog."""
    _backlog().drain(slot, _call())


async def submit(order_ids: Sequence[str], urgent: bool) -> None:
    """No load with urgent orders is played with this peer."""
    if HELPED:
        _start(_backlog().enter(order_ids, urgent))
        return
    for order_id in order_ids:
        cancel.send(order_id)


async def tend() -> None:
    """Starts what messages are missing; the producer calls it every second."""
    if HELPED:
        _start(_backlog().missing())


def _start(slots: Sequence[int]) -> None:
    for slot in slots:
        drain.send(slot)
