"""How fast intents are queued: the Python clients' batch call against redis-py's bare pipelined XADD."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from statistics import median
from typing import Any, cast

import redis.asyncio as aioredis
import uvloop
from redis import Redis
from report import Row
from rig import BenchFailed, Server

from cancelq import AsyncClient, Client
from cancelq.batch import CHUNK
from cancelq.contract import Lane

LANE = Lane("bitget", "enqueue")
COUNT = 10_000

NOTES = (
    f"**enqueue**: {COUNT:,} intents of symbol, order_id, strategy and id into one inbox. Value: `submit_many` of "
    "plain mappings, which checks each, packs the chunks and makes a ticket for each. Bare: redis-py with hiredis, "
    f"`pipeline(transaction=False)` of XADD with the same fields, {CHUNK} a round trip, as many as `submit_many` "
    "sends; asyncio under uvloop on both sides. CPU is the producer's own. Median of the repeats, taken in turns.",
)

Intents = list[Mapping[str, str]]


@dataclass(frozen=True, slots=True)
class _Spent:
    wall_s: float
    cpu_s: float


class _Watch:
    """Wall and processor time of this process from here on."""

    def __init__(self) -> None:
        self._wall_s, self._cpu_s = time.perf_counter(), time.process_time()

    def spent(self) -> _Spent:
        return _Spent(time.perf_counter() - self._wall_s, time.process_time() - self._cpu_s)


def measure(server: Server, repeat: int) -> list[Row]:
    """Rates in intents per second, and the producer's processor time."""
    intents: Intents = [
        {"id": f"e-{n:08d}", "symbol": "BTCUSDT", "order_id": str(1500000000000000000 + n), "strategy": "mm1"}
        for n in range(COUNT)
    ]
    rows = []
    for what, ours, bare in (
        ("Client.submit_many", _client, _bare),
        ("AsyncClient.submit_many", _async_client, _async_bare),
    ):
        taken = [(_once(server, ours, intents), _once(server, bare, intents)) for _ in range(repeat)]
        rate, bare_rate = (median(COUNT / turn[side].wall_s for turn in taken) for side in (0, 1))
        cpu, bare_cpu = (median(turn[side].cpu_s * 1e6 / COUNT for turn in taken) for side in (0, 1))
        rows += [
            Row("enqueue", server.name, what, rate, "intents/s", bare_rate, rate / bare_rate),
            Row("enqueue", server.name, f"{what}: producer CPU", cpu, "µs/intent", bare_cpu, cpu / bare_cpu),
        ]
    return rows


def _once(server: Server, way: Callable[[str, Intents], _Spent], intents: Intents) -> _Spent:
    """One way of queueing them all into an empty inbox."""
    with server.client() as redis:
        redis.delete(LANE.inbox)
        redis.xgroup_create(LANE.inbox, "bench", mkstream=True)
        spent = way(server.url, intents)
        if redis.xlen(LANE.inbox) != len(intents):
            raise BenchFailed("not every intent was queued")
        redis.delete(LANE.inbox)
    return spent


def _client(url: str, intents: Intents) -> _Spent:
    with Client(url) as client:
        watch = _Watch()
        client.submit_many(LANE, intents)
        return watch.spent()


def _bare(url: str, intents: Intents) -> _Spent:
    with Redis.from_url(url) as redis:
        watch = _Watch()
        for at in range(0, len(intents), CHUNK):
            pipe = redis.pipeline(transaction=False)
            for fields in intents[at : at + CHUNK]:
                pipe.xadd(LANE.inbox, cast("dict[Any, Any]", fields), nomkstream=True)
            pipe.execute()
        return watch.spent()


def _async_client(url: str, intents: Intents) -> _Spent:
    async def run() -> _Spent:
        async with AsyncClient(url) as client:
            watch = _Watch()
            await client.submit_many(LANE, intents)
            return watch.spent()

    return uvloop.run(run())


def _async_bare(url: str, intents: Intents) -> _Spent:
    async def run() -> _Spent:
        async with aioredis.Redis.from_url(url) as redis:
            watch = _Watch()
            for at in range(0, len(intents), CHUNK):
                pipe = redis.pipeline(transaction=False)
                for fields in intents[at : at + CHUNK]:
                    pipe.xadd(LANE.inbox, cast("dict[Any, Any]", fields), nomkstream=True)
                await pipe.execute()
            return watch.spent()

    return uvloop.run(run())
