"""FastStream on a Redis stream with a consumer group. As shipped: one message a cancel; a refusal raises, the message
stays pending, and a second subscriber claims what is pending for a second. Helped: messages read in batches of 50, a
permit of the shared limiter before each call, and claims only after five seconds, which a dead worker's alone need.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import cache

import redis.asyncio
from faststream import AckPolicy, FastStream
from faststream.redis import RedisBroker, StreamSub

from peers.desk.call import MOST, AsyncCall, Refused
from peers.desk.limiter import AsyncLimiter

HELPED = os.environ["DESK_ROW"] == "helped"
NAME = f"worker-{os.getpid()}"
URGENT, BULK = "desk:urgent", "desk:cancels"

broker = RedisBroker(os.environ["DESK_REDIS"])
app = FastStream(broker)


@cache
def _call() -> AsyncCall:
    return AsyncCall()


@cache
def _limiter() -> AsyncLimiter:
    return AsyncLimiter(redis.asyncio.Redis.from_url(os.environ["DESK_REDIS"]))


@app.on_startup
async def started() -> None:
    _call()


async def cancel(asked: dict[str, str]) -> None:
    """One message; what it raises leaves the message pending."""
    await _call().cancel(asked["order_id"])


async def cancel_batch(asked: list[dict[str, str]]) -> None:
    """What one read brought. A refused call is made again here: a pending batch would wait for five seconds."""
    call = _call()
    while True:
        await _limiter().wait()
        try:
            await call.cancel_all([one["order_id"] for one in asked])
        except Refused:
            continue
        return


def _subscribe() -> None:
    for stream in (URGENT, BULK):
        idle_ms = 5_000 if HELPED else 1_000
        news = {"group": "desk", "consumer": NAME, "max_records": MOST if HELPED else 1, "polling_interval": 100}
        claims = {**news, "consumer": f"{NAME}-claims", "min_idle_time": idle_ms}
        for options in (news, claims):
            if HELPED:
                sub = StreamSub(stream, batch=True, **options)
                broker.subscriber(stream=sub, ack_policy=AckPolicy.NACK_ON_ERROR)(cancel_batch)
            else:
                single = StreamSub(stream, **options)
                broker.subscriber(stream=single, ack_policy=AckPolicy.NACK_ON_ERROR)(cancel)


_subscribe()


async def submit(order_ids: Sequence[str], urgent: bool) -> None:
    """Urgent orders go to a stream of their own. In one pipeline, as FastStream's notes advise for many messages."""
    client = await broker.connect()
    async with client.pipeline() as pipe:
        for order_id in order_ids:
            await broker.publish({"order_id": order_id}, stream=URGENT if urgent else BULK, pipeline=pipe)
        await pipe.execute()
