"""What goes wrong in a run, drawn from its seed: one function for each kind of fault."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

from cancelq_worker.simulator.faults import Fault
from ops.chaos.places import FAULTS_OF_CANCELS, FAULTS_OF_LOOKS, delay_of, no_shorter
from ops.checks import Ask
from tests.simulation.fleet import Worker
from tests.simulation.world import Cut, World, weather

Act = Callable[[World], Coroutine[Any, Any, None]]


async def torment(world: World, for_s: float, per_s: float) -> None:
    """Faults until `for_s` are over, several at a time."""
    under_way: list[asyncio.Task[None]] = []
    known = [(act, weight) for act, weight in ACTS if world.plan.acts is None or act.__name__ in world.plan.acts]
    acts, weights = [act for act, _ in known], [weight for _, weight in known]
    end_s = world.loop.time() + for_s
    while world.loop.time() < end_s:
        act = world.rng.choices(acts, weights)[0]
        under_way.append(world.loop.create_task(act(world)))
        await asyncio.sleep(world.rng.expovariate(per_s))
    if under_way:
        await asyncio.wait(under_way)


def muddy(world: World) -> None:
    """The venues leave many calls without a clear answer, until they are healed."""
    rng, share = world.rng, world.plan.mud
    for place in (desk.place for desk in world.desks):
        for endpoints, kinds in ((place.cancels, FAULTS_OF_CANCELS), (place.looks, FAULTS_OF_LOOKS)):
            where = " ".join(f"{place.lane.venue}/{endpoint}" for endpoint in endpoints)
            for kind in rng.sample(kinds, 3) if share else ():
                world.did(f"venue: {kind}, again and again")
                fault = Fault(kind, endpoint=where, count=None, probability=share / 3, delay_ms=delay_of(kind))
                world.simulator.add_fault(fault)


def heal(world: World) -> None:
    """Ends every fault. Clocks stay as they are."""
    world.simulator.core.faults.clear()
    calm = {"history_lag_ms": 0, "open_lag_ms": 0, "info_lag_ms": 0, "cancel_delay_ms": 0}
    world.simulator.configure(calm)
    world.loop.release(world.server.process)
    for worker in world.workers:
        world.shorten(worker.link)
        worker.heal()
        worker.suspended = False
    for wire in world.producer_wires:
        wire.heal()


def _any(world: World) -> Worker:
    return world.rng.choice(world.workers)


async def kill_worker(world: World) -> None:
    worker = _any(world)
    if worker.alive:
        world.did("worker killed")
        worker.kill()


async def pause_worker(world: World) -> None:
    """Stopped and continued, also past its lease."""
    worker, for_s = _any(world), world.rng.choice([0.3, 1.0, 3.0, 5.0, 7.0]) * world.rng.uniform(0.5, 1.2)
    process = worker.process
    if worker.alive and not process.held and worker.draining_since_s is None:
        world.did("worker paused past its lease" if for_s > 4 else "worker paused")
        world.loop.hold(process)
        await asyncio.sleep(for_s)
        world.loop.release(process)


async def drain_worker(world: World) -> None:
    worker = _any(world)
    if worker.alive and not worker.process.held and worker.draining_since_s is None:
        world.did("worker told to drain")
        worker.drain()


async def restart_store(world: World) -> None:
    """All that was acknowledged is kept, as with `appendfsync always`."""
    await world.restart(keep_all=True)


async def lose_tail(world: World) -> None:
    """What was written within the last moments is lost, as with `appendfsync everysec`."""
    if world.lossy:
        await world.restart(keep_all=False)


async def pause_store(world: World) -> None:
    """A slow disk, a fork, a stopped server: nothing is answered for a while."""
    process = world.server.process
    if not process.held:
        world.did("store paused")
        world.loop.hold(process)
        from_s = world.loop.time()
        await asyncio.sleep(world.rng.choice([0.05, 0.3, 1.0, 3.0]) * world.rng.uniform(0.5, 1.2))
        if world.loop.holds(process):
            world.cuts.append(Cut(None, from_s, world.loop.time()))
        world.loop.release(process)


async def forget_scripts(world: World) -> None:
    world.did("scripts flushed")
    world.server.store.loaded.clear()


async def fill_memory(world: World) -> None:
    world.did("memory full")
    world.server.store.full = True
    await asyncio.sleep(world.rng.uniform(0.3, 2.5))
    world.server.store.full = False


async def jump_clock(world: World) -> None:
    """The store's wall clock is set."""
    world.did("store's clock set")
    step_us = int(world.rng.choice([-1, 1]) * 10 ** world.rng.uniform(3, 6.7))
    world.server.process.wall_us += step_us
    world.clocks_us += abs(step_us)


async def jump_worker_clock(world: World) -> None:
    """A worker's wall clock is set: nothing may rest on it."""
    world.did("worker's clock set")
    _any(world).process.wall_us += int(world.rng.choice([-1, 1]) * 10 ** world.rng.uniform(3, 8))


async def jump_venue_clock(world: World) -> None:
    """The venue's clock is set: signatures may be refused until it is read again."""
    world.did("venue's clock set")
    now_ms = world.simulator.core.settings.clock_offset_ms
    step_ms = world.rng.choice([-1, 1]) * int(10 ** world.rng.uniform(0.5, 3.6))
    world.simulator.configure({"clock_offset_ms": now_ms + step_ms})
    world.clocks_us += abs(step_ms) * 1000


async def hurt_wire(world: World) -> None:
    """Between a worker or a producer and the store."""
    rng = world.rng
    wires = [(worker.wire, worker.process) for worker in world.workers]
    wire, process = rng.choice([*wires, *((wire, None) for wire in world.producer_wires)])
    match rng.choice(["cut", "slow", "blackhole", "lost reply", "lost reply"]):
        case "cut":
            world.did("wire: cut")
            wire.cut()
        case "slow":
            world.did("wire: slow")
            wire.slow_s = rng.uniform(0.005, 0.3)
            await asyncio.sleep(rng.uniform(0.2, 3.0))
            wire.slow_s = 0.0
        case "blackhole":
            world.did("wire: silent")
            wire.blackhole, from_s = True, world.loop.time()
            await asyncio.sleep(rng.uniform(0.2, 4.0))
            if wire.blackhole and process:
                world.cuts.append(Cut(process, from_s, world.loop.time()))
            wire.blackhole = False
        case _:
            world.did("wire: reply lost")
            wire.lose_replies += 1


async def hurt_way(world: World) -> None:
    """Between a worker and the venue."""
    rng, link = world.rng, _any(world).link
    match rng.choice(["lost", "lost", "lost", "blackhole", "refused", "slow"]):
        case "lost":
            link.lose = rng.choice(["early", "reset", "closed", "silent"])
            world.did(f"way: answer lost ({link.lose})")
        case "blackhole":
            world.did("way: silent")
            link.blackhole = True
            await asyncio.sleep(rng.uniform(0.2, 3.0))
            link.blackhole = False
        case "refused":
            world.did("way: no connection")
            link.refused = True
            await asyncio.sleep(rng.uniform(0.1, 2.0))
            link.refused = False
        case _:
            world.did("way: slow")
            link.slow_s = rng.uniform(0.05, 0.6)
            await asyncio.sleep(rng.uniform(0.2, 3.0))
            world.shorten(link)


async def slow_way(world: World) -> None:
    """A worker's way to the venue becomes longer for a while."""
    link = _any(world).link
    world.did("way: slow")
    link.slow_s = world.rng.uniform(0.02, 0.3)
    await asyncio.sleep(world.rng.uniform(0.2, 5.0))
    world.shorten(link)


async def hurt_venue(world: World) -> None:
    """The venue lies, stumbles or is silent."""
    fault = world.rng.choice(world.desks).place.some_fault(world.rng)
    world.did(f"venue: {fault.kind}")
    world.simulator.add_fault(fault)


async def hurt_streams(world: World) -> None:
    """The venue's order streams, as a whole or those of one worker."""
    rng, streams = world.rng, _any(world).streams
    match rng.choice(["dropped", "cut", "silent", "refused", "logins refused"]):
        case "dropped":
            world.did("streams dropped")
            world.simulator.drop_streams()
        case "cut":
            world.did("stream cut")
            streams.cut()
        case "silent":
            world.did("stream silent")
            streams.silent = True
            await asyncio.sleep(rng.uniform(0.5, 5.0))
            streams.silent = False
            streams.cut()
        case "refused":
            world.did("stream: no connection")
            streams.refused = True
            await asyncio.sleep(rng.uniform(0.5, 3.0))
            streams.refused = False
        case _:
            world.did("stream: logins refused")
            world.simulator.configure({"stream_refuse_logins": True})
            await asyncio.sleep(rng.uniform(0.5, 3.0))
            world.simulator.configure({"stream_refuse_logins": False})


async def poison(world: World) -> None:
    """An intent that ends every worker which takes it into a call."""
    if not world.fleet.poison:
        world.did("poison")
        desk = world.rng.choice(world.desks)
        order = desk.new_order()
        world.fleet.poison.add(order)
        fields = {"id": f"poison-{order}", "symbol": desk.place.spelt("BTC"), "order_id": order}
        desk.asks[fields["id"]] = Ask((order,))
        desk.extra.append(fields)


async def change_venue(world: World) -> None:
    """Other ways, lags and races."""
    world.did("venue: other delays and races")
    world.simulator.configure(no_shorter(weather(world.rng), world.simulator.core.settings))


async def suspend_worker(world: World) -> None:
    """An operator suspends a worker, and lets it go on."""
    worker = _any(world)
    world.did("worker suspended")
    worker.suspended = True
    await asyncio.sleep(world.rng.uniform(0.3, 3.0))
    worker.suspended = False


ACTS: tuple[tuple[Act, float], ...] = (
    (hurt_venue, 34),
    (hurt_way, 20),
    (hurt_wire, 20),
    (change_venue, 4),
    (kill_worker, 7),
    (pause_worker, 7),
    (drain_worker, 4),
    (suspend_worker, 1),
    (slow_way, 2),
    (hurt_streams, 4),
    (poison, 1),
    (restart_store, 2),
    (lose_tail, 3),
    (pause_store, 3),
    (forget_scripts, 2),
    (fill_memory, 1.5),
    (jump_clock, 1.5),
    (jump_worker_clock, 1),
    (jump_venue_clock, 1),
)
