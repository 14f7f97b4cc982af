"""What goes wrong: workers, the server, links, the venue; several at a time."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable

from redis.exceptions import RedisError

from ops.chaos.killing import use_kill_switch
from ops.chaos.places import lags_and_races, no_shorter
from ops.chaos.workers import Slot
from ops.chaos.world import World, client

Act = Callable[[World], Awaitable[None]]


async def torment(world: World, for_s: float, per_s: float) -> None:
    """Faults until `for_s` are over, as many at a time as come; of each group in LONE one at a time."""
    under_way: set[asyncio.Task[None]] = set()
    lone: dict[str, list[asyncio.Task[None]]] = defaultdict(list)
    acts, weights = [act for act, _ in ACTS], [weight for _, weight in ACTS]
    while world.at() < for_s:
        act = world.rng.choices(acts, weights)[0]
        group = LONE.get(act, "")
        if not group or all(task.done() for task in lone[group]):
            task = asyncio.ensure_future(act(world))
            under_way.add(task)
            lone[group].append(task)
        await asyncio.sleep(world.rng.expovariate(per_s))
    await asyncio.gather(*under_way)


def heal(world: World) -> None:
    """Ends every fault, and fills that race cancels: at BingX each is one equal error more, towards its lock."""
    world.simulator.core.faults.clear()
    world.simulator.configure(
        {
            **{"history_lag_ms": 0, "open_lag_ms": 0, "info_lag_ms": 0, "cancel_delay_ms": 0, "clock_offset_ms": 0},
            **{"race_fill": 0.0, "race_partial": 0.0},
        }
    )
    for slot in world.slots:
        slot.signal(signal.SIGCONT)
        slot.redis.heal()
        slot.venue.heal()
    world.producers_link.heal()


def _any_slot(world: World) -> Slot:
    return world.rng.choice(world.slots)


async def kill_worker(world: World) -> None:
    slot = _any_slot(world)
    if slot.alive:
        slot.doomed = slot.disturbed = True
        slot.signal(signal.SIGKILL)
        world.did("worker: kill -9")


async def stop_worker(world: World) -> None:
    slot, for_s = _any_slot(world), world.rng.uniform(1, 7)
    if slot.stopped or slot.draining_since or not slot.alive:
        return
    slot.stopped = True
    slot.signal(signal.SIGSTOP)
    world.did("worker: stop past its lease" if for_s > 4 else "worker: stop")
    await asyncio.sleep(for_s)
    slot.signal(signal.SIGCONT)
    slot.stopped = False


async def drain_worker(world: World) -> None:
    slot = _any_slot(world)
    if slot.alive and not (slot.doomed or slot.stopped or slot.draining_since) and slot.serving:
        slot.draining_since, slot.doomed = time.monotonic(), True
        slot.disturbed = not slot.redis.healthy
        slot.signal(signal.SIGTERM)
        world.did("worker: TERM")


async def set_clock(world: World) -> None:
    """A worker's wall clock jumps, by milliseconds or by hours."""
    slot, rng = _any_slot(world), world.rng
    if slot.clocks and slot.clocks.can:
        slot.clocks.set(str(slot.number), rng.choice([-1, 1]) * rng.choice([40, 2_000, 70_000, 3_600_000]))
        world.did("worker: clock set")


async def kill_server(world: World) -> None:
    for slot in world.slots:
        slot.disturbed = True
    world.did("server: kill -9, restart")
    world.server.kill()
    await asyncio.sleep(world.rng.uniform(0.1, 2.0))
    await asyncio.to_thread(world.server.start)


async def restart_server(world: World) -> None:
    """In good order, as for an upgrade: with TERM."""
    for slot in world.slots:
        slot.disturbed = True
    world.did("server: TERM, restart")
    await asyncio.to_thread(world.server.stop)
    await asyncio.sleep(world.rng.uniform(0.1, 1.0))
    await asyncio.to_thread(world.server.start)


async def forget_scripts(world: World) -> None:
    world.did("server: SCRIPT FLUSH")
    await _server_command(world, "SCRIPT", "FLUSH")


async def fill_memory(world: World) -> None:
    for slot in world.slots:
        slot.disturbed = True
    world.did("server: memory full")
    await _server_command(world, "CONFIG", "SET", "maxmemory", "1")
    await asyncio.sleep(world.rng.uniform(0.5, 2.5))
    await _server_command(world, "CONFIG", "SET", "maxmemory", "0")


async def _server_command(world: World, *words: str) -> None:
    redis = client(world.url)
    with contextlib.suppress(RedisError, OSError):
        await redis.execute_command(*words)  # type: ignore[no-untyped-call]
    await redis.aclose()


async def hurt_link(world: World) -> None:
    """Of a worker to Redis, of a worker to the venues, or of the producers to Redis."""
    rng, slot = world.rng, _any_slot(world)
    draw = rng.random()
    if draw < 0.5:
        link, whose = slot.redis, "worker-redis"
        slot.disturbed = True
    elif draw < 0.8:
        link, whose = slot.venue, "worker-venue"
    else:
        link, whose = world.producers_link, "producer-redis"
    what = rng.choice(["reset", "delay", "blackhole", "down", "swallow", "cut"])
    world.did(f"link {whose}: {what}")
    match what:
        case "reset":
            link.reset()
        case "delay":
            link.delay_s = rng.uniform(0.02, 0.3)
            await asyncio.sleep(rng.uniform(0.5, 3))
            link.delay_s = 0.0
        case "blackhole":
            link.blackhole = True
            await asyncio.sleep(rng.uniform(0.3, 4))
            link.blackhole = False
        case "down":
            link.down = True
            link.reset()
            await asyncio.sleep(rng.uniform(0.3, 4))
            link.down = False
        case "swallow":
            link.swallow = True
        case _:
            link.cut_after = rng.randrange(1, 3000)


async def hurt_venue(world: World) -> None:
    fault = world.rng.choice(world.desks).place.some_fault(world.rng)
    world.did(f"venue: {fault.kind}")
    world.simulator.add_fault(fault)


async def change_venue(world: World) -> None:
    """Another weather: ways, lags, races, and a clock that goes another way."""
    rng = world.rng
    world.did("venue: other delays and races")
    drawn = {
        "latency_before_ms": rng.choice([(0, 0), (5, 25), (20, 80)]),
        "latency_after_ms": rng.choice([(0, 0), (5, 25), (20, 80)]),
        **lags_and_races(rng),
        "stream_loss": rng.choice([0.0, 0.3]),
        "stream_jitter_ms": rng.choice([0, 300]),
    }
    world.simulator.configure(no_shorter(drawn, world.simulator.core.settings))


async def break_streams(world: World) -> None:
    if world.simulator.drop_streams():
        world.did("venue: order streams broken")


ACTS: tuple[tuple[Act, float], ...] = (
    (hurt_venue, 40),
    (hurt_link, 20),
    (change_venue, 5),
    (kill_worker, 7),
    (stop_worker, 6),
    (drain_worker, 5),
    (set_clock, 3),
    (break_streams, 3),
    (use_kill_switch, 2),
    (forget_scripts, 2),
    (fill_memory, 1),
    (kill_server, 1.5),
    (restart_server, 0.5),
)
LONE: dict[Act, str] = {kill_server: "server", restart_server: "server", fill_memory: "server", use_kill_switch: "kill"}
