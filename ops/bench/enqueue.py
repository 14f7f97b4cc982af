"""How fast intents are queued: the Python clients' batch call against redis-py's bare pipelined XADD."""

from __future__ import annotations

import time
from statistics import median
from typing import Any, cast

import redis.asyncio as aioredis
import uvloop
from redis import Redis
from report import Row
from rig import Server

from cancelq import AsyncClient, Client
from cancelq.batch import CHUNK
from cancelq.contract import Lane

LANE = Lane("bitget", "enqueue")
COUNT = 10_000

NOTES = (
    f"**enqueue**: {COUNT:,} intents of symbol, order_id, strategy and id into one inbox. Value: `submit_many` of "
    "plain mappings, which checks each, packs the chunk and makes a ticket for each. Bare: redis-py with hiredis, "
    f"`pipeline(transaction=False)` of XADD with the same fields, {CHUNK} a round trip as `submit_many` has; "
    "asyncio under uvloop on both sides. CPU is the producer's own. Median of the repeats, taken in turns.",
)


def measure(server: Server, repeat: int) -> list[Row]:
    """Rates in intents per second, and the processor time of each."""
    intents = [
        {"id": f"e-{n:08d}", "symbol": "BTCUSDT", "order_id": str(1500000000000000000 + n), "strategy": "mm1"}
        for n in range(COUNT)
    ]
    ways = {"sync": (_client, _bare), "async": (_async_client, _async_bare)}
    rows = []
    for name, (client, bare) in ways.items():
        ours, theirs = [], []
        for _ in range(repeat):
            ours.append(_once(server, client, intents))
            theirs.append(_once(server, bare, intents))
        rate, bare_rate = (median(wall for wall, _ in taken) for taken in (ours, theirs))
        cost, bare_cost = (median(cpu for _, cpu in taken) for taken in (ours, theirs))
        what = "Client.submit_many" if name == "sync" else "AsyncClient.submit_many"
        rows += [
            Row("enqueue", server.name, what, rate, "intents/s", bare_rate, rate / bare_rate),
            Row("enqueue", server.name, f"{what}, producer CPU", cost, "µs/intent", bare_cost, cost / bare_cost),
        ]
    return rows


def _once(server: Server, way: Any, intents: list[dict[str, str]]) -> tuple[float, float]:
    """Intents per second, and CPU µs per intent, of one way into an empty inbox."""
    with server.client() as redis:
        redis.delete(LANE.inbox)
        redis.xgroup_create(LANE.inbox, "bench", mkstream=True)
    started_s, cpu_s = way(server.url, intents)
    wall_s = time.perf_counter() - started_s
    cpu_s = time.process_time() - cpu_s
    with server.client() as redis:
        if redis.xlen(LANE.inbox) != len(intents):
            raise AssertionError("not every intent was queued")
        redis.delete(LANE.inbox)
    return len(intents) / wall_s, cpu_s * 1e6 / len(intents)


def _client(url: str, intents: list[dict[str, str]]) -> tuple[float, float]:
    with Client(url) as client:
        client.submit_many(LANE, intents[:1])[0]
        with Redis.from_url(url) as redis:
            redis.xtrim(LANE.inbox, maxlen=0, approximate=False)
        started = time.perf_counter(), time.process_time()
        client.submit_many(LANE, intents)
    return started


def _bare(url: str, intents: list[dict[str, str]]) -> tuple[float, float]:
    with Redis.from_url(url) as redis:
        redis.ping()
        started = time.perf_counter(), time.process_time()
        for at in range(0, len(intents), CHUNK):
            pipe = redis.pipeline(transaction=False)
            for fields in intents[at : at + CHUNK]:
                pipe.xadd(LANE.inbox, cast(Any, fields), nomkstream=True)
            pipe.execute()
    return started


def _async_client(url: str, intents: list[dict[str, str]]) -> tuple[float, float]:
    async def run() -> tuple[float, float]:
        async with AsyncClient(url) as client:
            started = time.perf_counter(), time.process_time()
            await client.submit_many(LANE, intents)
        return started

    return uvloop.run(run())


def _async_bare(url: str, intents: list[dict[str, str]]) -> tuple[float, float]:
    async def run() -> tuple[float, float]:
        async with aioredis.Redis.from_url(url) as redis:
            started = time.perf_counter(), time.process_time()
            for at in range(0, len(intents), CHUNK):
                pipe = redis.pipeline(transaction=False)
                for fields in intents[at : at + CHUNK]:
                    pipe.xadd(LANE.inbox, cast(Any, fields), nomkstream=True)
                await pipe.execute()
        return started

    return uvloop.run(run())
