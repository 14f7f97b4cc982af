"""RQ. As shipped: one job a cancel, tried again a second after a refusal. Helped: jobs that empty a backlog."""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import cache

import redis
from rq import Queue, Retry

from peers.desk.backlog import Backlog
from peers.desk.call import Call

HELPED = os.environ["DESK_ROW"] == "helped"
AGAIN = Retry(max=100, interval=1)


@cache
def _redis() -> redis.Redis:
    return redis.Redis.from_url(os.environ["DESK_REDIS"])


@cache
def _call() -> Call:
    return Call()


@cache
def _backlog() -> Backlog:
    return Backlog(_redis())


def prepare() -> None:
    """Before the first fork: making a client reads the trust store and loads what httpx loads late, some 30 ms."""
    _call()


def cancel(order_id: str) -> None:
    """The job of one cancel; a refusal raises, which is what RQ tries again."""
    _call().cancel(order_id)


def drain(slot: int) -> None:
    """The job that empties the backlog."""
    _backlog().drain(slot, _call())


async def submit(order_ids: Sequence[str], urgent: bool) -> None:
    """Urgent orders go to a queue of their own, which the workers look at first."""
    queue = Queue("urgent" if urgent else "cancels", connection=_redis())
    if HELPED:
        _start(_backlog().enter(order_ids, urgent))
        return
    jobs = [Queue.prepare_data(cancel, [order_id], retry=AGAIN, result_ttl=0) for order_id in order_ids]
    queue.enqueue_many(jobs)


async def tend() -> None:
    """Starts what jobs are missing; the producer calls it every second."""
    if HELPED:
        _start(_backlog().missing())


def _start(slots: Sequence[int]) -> None:
    queue = Queue("cancels", connection=_redis())
    for slot in slots:
        queue.enqueue(drain, slot, retry=AGAIN, result_ttl=0, job_timeout=600)
