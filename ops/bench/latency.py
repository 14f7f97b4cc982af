"""How long a lone cancel takes from its XADD to the venue's door, against a bare HTTP post to that door."""

from __future__ import annotations

import asyncio
import random
import time
from dataclasses import dataclass
from statistics import quantiles
from typing import Any

import httpx
import rig
import uvloop
from pydantic import SecretStr
from redis import Redis
from report import Row, aimed
from rig import RedisTime, Server, Venue, cpu_s

from cancelq.contract import Lane
from cancelq_worker.venues.bitget.adapter import Bitget
from cancelq_worker.venues.bitget.signing import Credentials
from cancelq_worker.venues.port import Target

LANE = Lane("bitget", "lone")
BARE = "bare"  # the account of the bare posts
SAMPLES = 300
WARM = 20
EVERY_S = (0.070, 0.100)  # from one cancel to the next
BARE_AFTER = (0.6, 0.75)  # where in that span the bare post goes out
TARGET_RATIO = 2.5

NOTES = (
    f"**latency**: {SAMPLES} lone cancels, one every {EVERY_S[0] * 1000:.0f} to {EVERY_S[1] * 1000:.0f} ms, at an idle "
    "`cancelq worker` with one lane. From just before the XADD to the arrival in the simulator's call log, both by "
    "this machine's clock: Redis, the worker's wake-up, admission, permit, signature, HTTP.",
    "**bare** of latency: `httpx.AsyncClient.post` under uvloop on a kept connection, with the same body and headers "
    "for an order of another account, signed beforehand; from just before the call to the arrival in the same log. "
    "One goes out in every span between two cancels, so that both meet the same machine.",
)


@dataclass(frozen=True, slots=True)
class _Taken:
    """Delays in µs to the venue's door, and what the cancels cost, in µs each."""

    ours: list[float]
    bare: list[float]
    redis_us: float
    worker_us: float


def measure(server: Server) -> list[Row]:
    """Quantiles of both, and what a lone cancel costs in Redis."""
    taken = _run(server)
    rows = []
    for what, percent in (("p50", 50), ("p99", 99)):
        ours, bare = _quantile(taken.ours, percent), _quantile(taken.bare, percent)
        row = Row("latency", server.name, f"XADD to the venue's door, {what}", ours, "µs", bare, ours / bare)
        rows.append(aimed(row, f"≤ {TARGET_RATIO} times bare", ours <= TARGET_RATIO * bare))
    return [
        *rows,
        Row("lone", server.name, "Redis time, heartbeats included", taken.redis_us, "µs/intent"),
        Row("lone", server.name, "worker CPU, heartbeats included", taken.worker_us, "µs/intent"),
    ]


def _quantile(values: list[float], percent: int) -> float:
    return quantiles(values, n=100, method="inclusive")[percent - 1]


def _run(server: Server) -> _Taken:
    with server.client() as redis, rig.venue() as venue:
        rig.clear(redis)
        for account in (LANE.account, BARE):
            venue.open_account(account)
        orders = venue.orders(LANE.account, SAMPLES + WARM), venue.orders(BARE, SAMPLES + WARM)
        with rig.worker(server, venue, [LANE.account]) as worker:
            rig.wait_for("the lane", lambda: rig.alive(redis) and bool(redis.exists(LANE.inbox)), worker.process)
            return uvloop.run(_sample(redis, venue, worker, orders))


async def _sample(redis: Redis, venue: Venue, worker: rig.Worker, orders: tuple[list[str], list[str]]) -> _Taken:
    left_us: dict[str, int] = {}
    rng = random.Random(1)
    async with httpx.AsyncClient(trust_env=False) as http:
        for number, (ours, bare) in enumerate(zip(*orders, strict=True)):
            if number == WARM:
                left_us.clear()
                redis_time, worker_s = RedisTime(redis), cpu_s(worker.process.pid)
            span_s, share = rng.uniform(*EVERY_S), rng.uniform(*BARE_AFTER)
            left_us[ours] = time.time_ns() // 1000
            redis.xadd(LANE.inbox, {"symbol": "BTCUSDT", "order_id": ours})
            await asyncio.sleep(span_s * share)
            post = _bare_post(venue, bare)
            left_us[bare] = time.time_ns() // 1000
            answer = await http.post(**post)
            answer.raise_for_status()
            await asyncio.sleep(span_s * (1 - share))
        spent_us, worker_s = redis_time.spent_us(), cpu_s(worker.process.pid) - worker_s
    arrived_us = {
        order_id: call["at_us"] for call in venue.calls() if call["method"] == "POST" for order_id in call["ids"]
    }
    delays, bare_delays = ([float(arrived_us[i] - left_us[i]) for i in side if i in left_us] for side in orders)
    return _Taken(delays, bare_delays, spent_us / SAMPLES, worker_s * 1e6 / SAMPLES)


def _bare_post(venue: Venue, order_id: str) -> dict[str, Any]:
    """The post that the worker would send for this order, signed."""
    keys = {name: SecretStr(value) for name, value in rig.credentials(BARE).items()}
    bitget = Bitget(Credentials(keys["key"], keys["secret"], keys["passphrase"]))
    route = next(route for route in bitget.routes if route.name == "cancel-order")
    request = bitget.encode(route, [Target({"scope": "order", "symbol": "BTCUSDT", "order_id": order_id}, {})])
    headers = bitget.sign(request, time.time_ns() // 1_000_000).headers
    return {"url": venue.url + request.path, "content": request.body, "headers": headers}
