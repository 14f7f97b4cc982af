"""How large the results are and how fast they grow, against real servers."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Sequence

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


async def fill(redis: aioredis.Redis, spans: Sequence[tuple[int, float, float]]) -> int:
    """Adds (entries, how many seconds ago the first, over how many ms), the oldest first, and far older ones before
    them; how many are of the last hour."""
    now_ms = time.time_ns() // 1_000_000
    pipe = redis.pipeline(transaction=False)
    for count, ago_s, over_ms in ((100_000, 10_000, 3_600_000), *spans):
        pipe.eval(FILL, 1, MAIN.results, count, now_ms - round(ago_s * 1000), over_ms)
    await pipe.execute()
    return sum(count for count, _, _ in spans)


FILL = """
local last, number
for n = 0, ARGV[1] - 1 do
  local at = string.format('%.0f', ARGV[2] + math.floor(n * ARGV[3] / ARGV[1]))
  number = at == last and number + 1 or 0
  last = at
  redis.call('XADD', KEYS[1], at .. '-' .. number, 'a', 'b')
end
"""


async def estimated(redis: aioredis.Redis) -> int:
    (size,) = (await growth(redis, [MAIN])).lanes
    return size.last_hour


@pytest.mark.parametrize(
    "spans",
    [
        pytest.param([(1, 1800, 1)], id="one"),
        pytest.param([(60, 299, 100)], id="at the start of five minutes"),
        pytest.param([(30, 3500, 10), (60, 2000, 1000), (50, 5, 1)], id="some bursts"),
        pytest.param([(199, 3000, 2_900_000)], id="an even flow"),
    ],
)
@pytest.mark.one_server
async def test_few_events_are_counted(redis: aioredis.Redis, spans: Sequence[tuple[int, float, float]]) -> None:
    there = await fill(redis, spans)
    assert await estimated(redis) == there


@pytest.mark.parametrize(
    "spans",
    [
        pytest.param([(2000, 5, 1000)], id="a burst just now"),
        pytest.param([(2000, 299.9, 1000)], id="at the start of five minutes"),
        pytest.param([(2000, 150, 1000)], id="in the middle of five minutes"),
        pytest.param([(2000, 3580, 1000)], id="an hour ago"),
        pytest.param([(20_000, 1000, 3)], id="in three milliseconds"),
        pytest.param([(100_000, 1800, 30_000)], id="half a minute"),
        pytest.param([(5_000, 3000, 2000), (300, 1000, 600_000), (9_000, 100, 500)], id="bursts around a trickle"),
        pytest.param([(1_000, 300 * (11 - n) + 90, 200) for n in range(12)], id="every five minutes"),
        pytest.param([(2_000, 3595, 3_590_000)], id="an even flow"),
        pytest.param([(200_000, 3595, 3_590_000)], id="a strong flow"),
        pytest.param([(50, 59 - n / 10, 1) for n in range(580)], id="a minute of batches"),
        pytest.param([(5_000, 3595, 2_500_000), (50_000, 1000, 990_000)], id="ten times as many lately"),
    ],
)
@pytest.mark.one_server
async def test_many_events_are_estimated(redis: aioredis.Redis, spans: Sequence[tuple[int, float, float]]) -> None:
    """Given bursts or flows after a hundred thousand older events, I expect their number within a factor of two."""
    there = await fill(redis, spans)
    assert there / 2 < await estimated(redis) < there * 2


@pytest.mark.parametrize(
    ("bursts", "size", "over_ms"),
    [(30, 1000, 100), (60, 60, 10), (60, 500, 20_000), (119, 50, 20), (239, 100, 50), (700, 20, 2)],
)
@pytest.mark.one_server
async def test_more_bursts_than_can_be_looked_at_are_estimated(
    redis: aioredis.Redis, bursts: int, size: int, over_ms: int
) -> None:
    """So that the stillness between them is not taken for more of them; some are seen and some are not."""
    there = await fill(redis, [(size, 3590 - 3585 / bursts * n, over_ms) for n in range(bursts)])
    assert there / 3 < await estimated(redis) < there * 3


@pytest.mark.one_server
async def test_what_is_read_is_bounded(redis: aioredis.Redis) -> None:
    """Given many bursts, no two alike, I expect a bounded number of commands, of a few entries each."""
    await fill(redis, [(700 + 13 * n, 3590 - 35 * n, 50 + n) for n in range(100)])
    await redis.config_resetstat()
    await estimated(redis)
    told = await redis.info("commandstats")
    assert told["cmdstat_xrange"]["calls"] + told["cmdstat_xrevrange"]["calls"] < 700


async def test_a_lane_without_results_takes_nothing(redis: aioredis.Redis) -> None:
    found = await growth(redis, [MAIN])
    assert (found.lanes[0].bytes, found.lanes[0].last_hour, found.full_in_h) == (0, 0, None)
    assert growth_lines(found) == []
