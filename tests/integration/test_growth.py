"""How large the results are and how fast they grow, against real servers."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator

import pytest
import redis.asyncio as aioredis

from cancelq_worker.growth import growth, growth_lines
from tests.integration.told import MAIN, event


@pytest.fixture
async def redis(redis_url: str) -> AsyncIterator[aioredis.Redis]:
    client = aioredis.Redis.from_url(redis_url, protocol=2)
    yield client
    await client.aclose()


async def add(redis: aioredis.Redis, count: int, *, minutes_ago: float, over_ms: int) -> None:
    begin = time.time_ns() // 1_000_000 - round(minutes_ago * 60_000)
    pipe = redis.pipeline(transaction=False)
    for n in range(count):
        pipe.xadd(MAIN.results, event(n), f"{begin + n * over_ms // count}-{n}")
    await pipe.execute()


async def test_size_and_pace_are_about_right(redis: aioredis.Redis) -> None:
    """Given old events, a thousand in one five minutes and a few in another, I expect about those of the last hour."""
    await add(redis, 2000, minutes_ago=180, over_ms=3_600_000)
    await add(redis, 1000, minutes_ago=50, over_ms=1_200_000)
    await add(redis, 20, minutes_ago=10, over_ms=60_000)
    found = await growth(redis, [MAIN])
    (size,) = found.lanes
    assert size.entries == 3020
    assert 900 < size.last_hour < 1150
    assert 100 * size.entries < size.bytes < 2000 * size.entries
    assert size.bytes_an_hour == pytest.approx(size.bytes * size.last_hour / 3020)
    assert any("3,020 events" in line for line in growth_lines(found))


async def test_a_lane_without_results_takes_nothing(redis: aioredis.Redis) -> None:
    found = await growth(redis, [MAIN])
    assert (found.lanes[0].bytes, found.lanes[0].last_hour, found.full_in_h) == (0, 0, None)
    assert growth_lines(found) == []
