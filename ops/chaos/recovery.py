"""How soon a killed worker's intents are served again, when nothing else fails: within its lease and a second."""

from __future__ import annotations

import asyncio
import signal
import time
from typing import NamedTuple

import redis.asyncio as aioredis

from cancelq.contract import Lane
from cancelq_worker.trips import command
from ops.chaos.asking import produce
from ops.chaos.workers import LEASE_MS
from ops.chaos.world import World, all_serving, client, until

#: Promised: the lease of what it held, and a second. What a busy machine adds is allowed for on top.
PROMISED_MS, ALLOWED_MS = LEASE_MS + 1000, LEASE_MS + 3000
#: With the venue's ways as set here no call of a living worker is out that long.
LONGEST_CALL_S = 1.5
TRIES = 4  # a worker that is first watcher of no lane just then may hold nothing
#: What loses a second worker travels alone from then on, one of them in a process' hands: a third end parks it, so that
#: end must be its own. Each takes a round trip of the ways set here, and what a busy machine adds.
ALONE_MS = 1000
_TAKEN = (b"1", b"2")


class Orphan(NamedTuple):
    """An intent in the hands of a worker that was killed; `lost`: how many workers it has lost before."""

    lane: Lane
    id_: bytes
    fence: int
    lost: int


async def measure_recovery(world: World, kills: int) -> None:
    """Kills workers one by one under load, and waits each time until all they held is served again, until
    so many of them held something."""
    world.simulator.configure({"latency_before_ms": (100, 200), "latency_after_ms": (100, 200), "cancel_delay_ms": 0})
    stop = asyncio.Event()
    loads = [asyncio.ensure_future(produce(desk, world.rng, world.url, stop, desk.place.per_s)) for desk in world.desks]
    redis = client(world.url)
    try:
        measured = 0
        for _ in range(TRIES * kills):
            if measured == kills:
                break
            await until(lambda: all_serving(world), 30)
            await asyncio.sleep(world.rng.uniform(0.7, 1.2))  # so that each has calls on the way
            measured += await _kill_one(world, redis)
    finally:
        stop.set()
        await asyncio.gather(*loads)
        await redis.aclose()


async def _kill_one(world: World, redis: aioredis.Redis) -> bool:
    """Whether the worker held anything."""
    slot = world.rng.choice(world.slots)
    slot.doomed = slot.disturbed = True
    slot.signal(signal.SIGKILL)
    world.did("worker: kill -9")
    killed_s = time.monotonic()
    held = {desk.lane: await _held(redis, desk.lane) for desk in world.desks}
    await asyncio.sleep(LONGEST_CALL_S)
    # What nobody has touched since was in its hands.
    orphans = [one for desk in world.desks for one in await _held(redis, desk.lane) if one in held[desk.lane]]
    once = [one for one in orphans if not one.lost]
    again = [one for one in orphans if one.lost]
    if once:
        await _served(world, redis, once, killed_s, "a killed worker's intents are served again", ALLOWED_MS)
    if again:
        allowed_ms = ALLOWED_MS + len(again) * ALONE_MS / (len(world.slots) - 1)
        await _served(world, redis, again, killed_s, "those that had lost a worker before, one by one", allowed_ms)
    return bool(once)


async def _served(
    world: World, redis: aioredis.Redis, orphans: list[Orphan], killed_s: float, what: str, allowed_ms: float
) -> None:
    last = ""
    for lane, id_, fence, lost in orphans:
        while (await _fence(redis, lane, id_)) == fence:
            if time.monotonic() - killed_s > 4 * allowed_ms / 1000:
                world.tell("11", f"{id_.decode()} was held by a killed worker and is not served again")
                return
            await asyncio.sleep(0.02)
            last = f"{id_.decode()} at {lane}, which had lost {lost} workers before"
    took_ms = (time.monotonic() - killed_s) * 1000
    world.measured(what, took_ms)
    if took_ms > allowed_ms:
        words = f"{len(orphans)} intents of a killed worker waited {took_ms:.0f} ms, not {PROMISED_MS}"
        world.tell("11", f"{words} ({what}, allowed {allowed_ms:.0f}); the last of them: {last}")


async def _held(redis: aioredis.Redis, lane: Lane) -> set[Orphan]:
    """Intents in a worker's hands now, as the state line's first words tell."""
    lines: dict[bytes, bytes] = await command(redis, "HGETALL", f"cancelq:{{{lane}}}:state")
    words = {id_: line.split(b" ", 6) for id_, line in lines.items()}
    return {Orphan(lane, id_, int(w[0]), int(w[5])) for id_, w in words.items() if w[1] in _TAKEN}


async def _fence(redis: aioredis.Redis, lane: Lane, id_: bytes) -> int | None:
    line: bytes | None = await command(redis, "HGET", f"cancelq:{{{lane}}}:state", id_)
    return None if line is None else int(line.split(b" ", 1)[0])
