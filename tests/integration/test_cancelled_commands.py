"""A task that is told to end while it speaks to Redis ends, at whichever step of a command that was."""

from __future__ import annotations

import asyncio

import pytest
import redis.asyncio as aioredis

from cancelq_worker.trips import command, connect, round_trip

pytestmark = pytest.mark.one_server

STEPS = 40  # of the loop; a command on a connection that is there takes fewer


async def ask_for_ever(client: aioredis.Redis) -> None:
    while True:
        await command(client, "PING")
        await round_trip(client, [("PING",), ("PING",)])


async def test_a_cancellation_is_never_lost(redis_url: str) -> None:
    client = connect(redis_url)
    try:
        for steps in range(STEPS):
            await command(client, "PING")
            task = asyncio.ensure_future(ask_for_ever(client))
            for _ in range(steps):
                await asyncio.sleep(0)
            task.cancel()
            _, running = await asyncio.wait({task}, timeout=0.5)
            assert not running, f"after {steps} steps"
            assert task.cancelled()
        assert await command(client, "PING")
    finally:
        await client.aclose()
