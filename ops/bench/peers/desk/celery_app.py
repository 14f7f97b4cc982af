"""Celery with celery-batches: up to 50 cancels gathered by each worker for at most a tenth of a second.

A refused batch is put back task by task, a second later: a batch has no retry of its own. Helped: a permit of the
shared limiter before each call, late acknowledgement, and a visibility timeout of ten seconds instead of an hour.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import cache
from typing import Any

import redis
from celery import Celery
from celery.signals import worker_process_init
from celery_batches import Batches

from peers.desk.call import MOST, Call, Refused
from peers.desk.limiter import Limiter

HELPED = os.environ["DESK_ROW"] == "helped"

# Unacknowledged messages come back after ten to twenty seconds and all at once, not after an hour and ten at a time.
RECOVERY = {"visibility_timeout": 10, "unacked_restore_interval": 1, "unacked_restore_limit": 1_000}

app = Celery("desk", broker=os.environ["DESK_REDIS"])
app.conf.update(
    task_ignore_result=True,
    # A buffer never fills unless the worker may fetch as much as it holds: for each of its processes one batch.
    worker_prefetch_multiplier=MOST,
    task_acks_late=HELPED,
    broker_transport_options={
        "queue_order_strategy": "priority",
        **(RECOVERY if HELPED else {}),
    },
)


@cache
def _call() -> Call:
    return Call()


@cache
def _limiter() -> Limiter:
    return Limiter(redis.Redis.from_url(os.environ["DESK_REDIS"]))


@worker_process_init.connect
def started(**_: Any) -> None:
    """A process' client, before its first task."""
    _call()


@app.task(base=Batches, flush_every=MOST, flush_interval=0.1, name="cancel")
def cancel(requests: Sequence[Any]) -> None:
    """The buffer may hold more than a call takes."""
    # Before any permit: a process' first call also makes its client, and a permit does not wait.
    call = _call()
    order_ids = [request.args[0] for request in requests]
    for first in range(0, len(order_ids), MOST):
        some = order_ids[first : first + MOST]
        if HELPED:
            _limiter().wait()
        try:
            call.cancel_all(some)
        except Refused:
            for order_id in some:
                cancel.apply_async([order_id], countdown=1)


async def submit(order_ids: Sequence[str], urgent: bool) -> None:
    """Urgent orders go to a queue of their own, which the workers read first."""
    with app.producer_pool.acquire(block=True) as producer:
        for order_id in order_ids:
            cancel.apply_async([order_id], queue="urgent" if urgent else "celery", producer=producer)
