"""One run from start to verdict: torment, healing, settling, recovery, judging."""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import redis.asyncio as aioredis

from cancelq.contract import Lane
from cancelq_worker.embedded import EmbeddedServer, free_port
from cancelq_worker.simulator.app import serve as serve_simulator
from cancelq_worker.simulator.simulator import Simulator
from cancelq_worker.trips import command
from ops.chaos.asking import produce
from ops.chaos.behind import later_s, watch
from ops.chaos.clocks import Clocks
from ops.chaos.faults import change_venue, heal, torment
from ops.chaos.killing import kill_behind_a_backlog, know_kills
from ops.chaos.links import Link
from ops.chaos.places import PLACES
from ops.chaos.recovery import measure_recovery
from ops.chaos.said import judge_logs
from ops.chaos.workers import LEASE_MS, Slot, end_workers, supervise
from ops.chaos.world import Desk, World, all_serving, client, until
from ops.checks import Bounds, Case, Told, VenueSaid, judge, read_streams

#: Promised: everything is settled two leases and ten seconds after the last fault; a permit is used within 500 ms.
BOUNDS = Bounds(settle_s=2 * LEASE_MS / 1000 + 10, send_by_us=500_000)
GIVE_UP_S = 60.0
FAULTS_PER_S = 3.0
PRODUCERS = 3


async def run(
    seed: int,
    seconds: float,
    folder: Path,
    *,
    venues: Sequence[str] = ("bitget",),
    workers: int = 3,
    per_s: float | None = None,
    kills: int = 0,
) -> World:
    """Torments for `seconds`, heals, waits until everything is told, kills `kills` workers one by one to see how soon
    others take over, and judges. `per_s`: intents a second and venue, by default what each can take. Ends all it
    started."""
    simulator = Simulator(rng=random.Random(seed + 1))
    pairs = [*simulator.core.settings.pairs, *(f"S{n}-USDT" for n in range(1, 2000))]
    simulator.configure({"pairs": pairs, "calls_kept": 5_000_000})
    (folder / "server").mkdir()
    server = EmbeddedServer(durable=True, port=free_port(), data_dir=folder / "server")
    await asyncio.to_thread(server.start)
    async with contextlib.AsyncExitStack() as stack:
        stack.callback(server.stop)
        served = await stack.enter_async_context(serve_simulator(simulator))
        venue_port = int(served.base_url.rsplit(":", 1)[1])

        async def link(upstream: int) -> Link:
            made = Link(upstream)
            await made.open()
            stack.push_async_callback(made.close)
            return made

        desks = [Desk(PLACES[venue], simulator) for venue in venues]
        world = World(
            random.Random(seed), folder, server, simulator, server.url, desks, producers_link=await link(server.port)
        )
        clocks = await asyncio.to_thread(Clocks, folder)
        if not clocks.can:
            world.notes.append("no C compiler: no worker's clock is set")
        for number in range(workers):
            links = await link(server.port), await link(venue_port)
            world.slots.append(Slot(number, *links, folder, [desk.place for desk in desks], bool(seed % 2), clocks))
            world.slots[-1].start()
        stack.push_async_callback(end_workers, world.slots, world.tell)
        await until(lambda: _lanes_open(world), 20)
        await _play(world, seconds, per_s, kills)
    return world


async def _play(world: World, seconds: float, per_s: float | None, kills: int) -> None:
    supervisor = asyncio.ensure_future(supervise(world.slots, world.tell))
    watcher = asyncio.ensure_future(watch(world))
    redis = client(world.url)
    try:
        world.began_s = time.monotonic()
        await _torment_under_load(world, seconds, per_s)
        heal(world)
        await until(lambda: all_serving(world), 30)  # healed are also the workers that were killed last
        healed_us = time.time_ns() // 1000
        world.closed_s = await _settled(redis, world)
        for desk, told in zip(world.desks, await _read(redis, world), strict=True):
            world.measured(f"settled after healing, {desk.lane.venue}", _last_us(told, healed_us) / 1000)
        if kills:
            await kill_behind_a_backlog(world)
        await measure_recovery(world, kills)
        await _settled(redis, world)
        supervisor.cancel()
        await end_workers(world.slots, world.tell)
        for desk, told in zip(world.desks, await _read(redis, world), strict=True):
            know_kills(desk, told)
            world.tolds[desk.lane] = told
            ids = await command(redis, "HKEYS", desk.lane.key("intents"))
            waiting = frozenset(id_.decode() for id_ in ids)
            world.broken += judge(replace(_case(world, desk, told, healed_us), waiting=waiting))
    finally:
        supervisor.cancel()
        watcher.cancel()
        await redis.aclose()
    world.broken += judge_logs(world.folder)
    for slot in world.slots:
        for took_ms in slot.drained_ms:
            world.measured("TERM to exit", took_ms)


async def _settled(redis: aioredis.Redis, world: World) -> dict[Lane, float]:
    """Waits until everything is told; of a lane that is behind its venue's lock after equal errors, longer. Returns by
    how much later each may settle."""
    later = {desk.lane: await later_s(world, redis, desk.lane) for desk in world.desks}
    await until(lambda: _all_told(redis, world), GIVE_UP_S + max(later.values()))
    return later


async def _torment_under_load(world: World, seconds: float, per_s: float | None) -> None:
    stop, url = asyncio.Event(), f"redis://127.0.0.1:{world.producers_link.port}/0"
    producers = [
        asyncio.ensure_future(produce(desk, world.rng, url, stop, (per_s or desk.place.per_s) / PRODUCERS))
        for desk in world.desks
        for _ in range(PRODUCERS)
    ]
    await change_venue(world)
    await torment(world, seconds, FAULTS_PER_S)
    stop.set()
    world.producers_link.heal()
    await asyncio.gather(*producers)


def _case(world: World, desk: Desk, told: Told, healed_us: int) -> Case:
    venue = desk.lane.venue
    said = VenueSaid(
        orders=world.simulator.truth(venue=venue).entries,
        calls=[call for call in world.simulator.calls().entries if call["venue"] == venue],
        rates=[row for row in world.simulator.rates() if row["bucket"].startswith(f"{venue}/")],
        bulk=frozenset(desk.place.bulk),
    )
    bounds = replace(BOUNDS, settle_s=BOUNDS.settle_s + world.closed_s.get(desk.lane, 0.0))
    return Case(desk.lane, told, desk.asks, desk.acknowledged, said, bounds, healed_us)


def _last_us(told: Told, since_us: int) -> int:
    """How long after that moment the lane's last outcome was told."""
    return max([0, *((e.settled_us or 0) - since_us for e in told.events if e.final)])


async def _read(redis: aioredis.Redis, world: World) -> list[Told]:
    return [await read_streams(redis, desk.lane) for desk in world.desks]


async def _lanes_open(world: World) -> bool:
    redis = client(world.url)
    try:
        return all([await redis.exists(desk.lane.inbox) for desk in world.desks])
    finally:
        await redis.aclose()


async def _all_told(redis: aioredis.Redis, world: World) -> bool:
    """Whether nothing waits, by the lanes' own books: reading the streams again and again would keep the venues, which
    are in this process, from answering."""
    for desk in world.desks:
        lane = desk.lane
        last = await command(redis, "XREVRANGE", lane.inbox, "+", "-", "COUNT", 1)
        if last and await command(redis, "GET", lane.key("cursor")) != last[0][0]:
            return False
        if await command(redis, "HLEN", lane.key("intents")):
            return False
    return True
