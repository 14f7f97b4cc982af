"""Lanes that are behind because an endpoint of their venue was left alone.

BingX locks an endpoint after so many equal errors, and workers leave it alone before that: what only it can cancel
waits, for up to eight minutes. What has come together by then takes its time at the venue's own limits, also if the
endpoint opens just before the faults end. Everything else has to be settled within what is promised.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections import Counter

import redis.asyncio as aioredis
from redis.exceptions import RedisError

from cancelq.contract import Lane
from cancelq_worker.trips import command
from ops.chaos.world import World, client, closed_by_errors

FORGOTTEN_S = 480.0  # after which BingX' equal errors lock nothing any more
PLAIN_PER_S, SINGLE_PER_S = 20, 3  # what BingX takes of orders in batches, and one by one
CAUGHT_UP = PLAIN_PER_S  # so few wait in any lane
_LOOK_S = 2.0


async def watch(world: World) -> None:
    """Keeps `world.behind`, until it is cancelled."""
    redis = client(world.url)
    try:
        while True:
            for desk in world.desks:
                with contextlib.suppress(RedisError, OSError):
                    if await closed_by_errors(redis, desk.lane):
                        world.behind.add(desk.lane)
                    elif desk.lane in world.behind and await _waiting(redis, desk.lane) <= CAUGHT_UP:
                        world.behind.discard(desk.lane)
            await asyncio.sleep(_LOOK_S)
    finally:
        await redis.aclose()


async def later_s(world: World, redis: aioredis.Redis, lane: Lane) -> float:
    """By how much later than promised the lane may settle; 0 unless it is behind."""
    if await closed_by_errors(redis, lane):
        world.did(f"{lane.venue}: an endpoint is left alone, as it had many equal errors")
        return FORGOTTEN_S + await _waiting(redis, lane) / SINGLE_PER_S
    if lane not in world.behind:
        return 0.0
    world.did(f"{lane.venue}: an endpoint was left alone lately, and what waited for it is still to be done")
    records: list[bytes] = await command(redis, "HVALS", lane.key("intents"))
    scopes = Counter(json.loads(record).get("scope") for record in records)
    return scopes["order"] / PLAIN_PER_S + (scopes.total() - scopes["order"]) / SINGLE_PER_S


async def _waiting(redis: aioredis.Redis, lane: Lane) -> int:
    waiting: int = await command(redis, "HLEN", lane.key("intents"))
    return waiting
