"""One run: a whole desk on virtual time. First safety under faults, then liveness without, then the judges.

What is real: engine, lanes, carrier, gate, judge, ledger and its Lua scripts, egress, guards, venue adapters, signing,
order streams, the producers' client. What stands in: the loop and its clocks (`loop.py`), the server (`store.py`,
`wire.py`), sockets to the venues (`venue_link.py`, `stream_link.py`) and the venues, which are the product's simulator.
"""

from __future__ import annotations

import asyncio
import gc
import random
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import redis.asyncio as aioredis
import structlog
from redis.exceptions import RedisError

from cancelq.batch import prepare_many
from cancelq.client import AsyncClient
from cancelq.contract import Lane
from cancelq.errors import BatchIncomplete, BrokerDown, BrokerRefused, IntentError, NotAccepted
from cancelq_worker.trips import command
from ops.chaos.asking import next_intent
from ops.checks import Ask, Broken
from tests.simulation.fleet import Worker
from tests.simulation.judging import Outcome, judge_run, outcome_of
from tests.simulation.keyspace import Stream, id_text
from tests.simulation.loop import VirtualLoop, virtual_time
from tests.simulation.troubles import heal, muddy, torment
from tests.simulation.wire import Wire
from tests.simulation.world import Plan, SimDesk, World, make_world

GIVE_UP_S = 90.0
DRAIN_S = 10.0
#: How often a second one producer asks at most; more is asked several at a time, as a strategy with a whole book does.
ASKED_PER_S = 30.0

#: Hears a command: the store's wall clock in us, the words, the reply.
Heard = Callable[[int, list[bytes], Any], None]


def run(plan: Plan, *, told: Heard | None = None, loading_as: Callable[[bytes], bytes] | None = None) -> Outcome:
    """One run, from its seed. Leaves nothing behind. `told` hears every command of a client that is carried out;
    `loading_as` makes of a script's source what the store runs in its place."""
    said: list[dict[str, Any]] = []
    before, drawn = structlog.get_config(), random.getstate()
    structlog.configure(
        processors=[_keep(said)],
        wrapper_class=structlog.make_filtering_bound_logger(40),
        cache_logger_on_first_use=False,
    )
    random.seed(plan.seed)
    rng = random.Random(plan.seed + 1)
    loop = VirtualLoop(random.Random(rng.random()))
    gc.disable()  # a run lives for a moment: looking through it again and again takes a tenth of its time
    try:
        with virtual_time(loop):
            world = make_world(plan, rng, loop)
            if loading_as:
                world.server.store.loading_as = loading_as
            if told:
                world.server.told = lambda words, reply: told(world.server.store.now_us(), words, reply)
            try:
                loop.run_until_complete(_play(world))
                world.broken += judge_run(world, said)
                return outcome_of(world)
            finally:
                loop.end([p for w in world.workers for p in w.past] + [world.server.process])
    finally:
        structlog.configure(**before)
        random.setstate(drawn)
        gc.enable()


async def _play(world: World) -> None:
    plan, loop = world.plan, world.loop
    world.fleet.workers = [Worker(number, world.fleet) for number in range(plan.workers)]
    supervisor = loop.create_task(_supervise(world))
    await _until(world, lambda: all(world.server.store.exists(d.lane.inbox.encode()) for d in world.desks), 20)
    stop = asyncio.Event()
    ask = _ask_all if plan.backlog else _ask
    producers = [loop.create_task(ask(world, desk, stop)) for desk in world.desks for _ in range(2)]
    muddy(world)
    if plan.faults_per_s:
        await torment(world, plan.trouble_s, plan.faults_per_s)
    else:
        await asyncio.sleep(plan.trouble_s)
    stop.set()
    heal(world)
    await asyncio.gather(*producers)
    world.notes.append(f"{loop.time():9.3f} healed")
    world.healed_us = world.server.store.now_us()
    world.waited = sum(len(world.server.store.get(d.lane.key("intents").encode(), dict) or ()) for d in world.desks)
    if not plan.backlog:
        await _until(world, lambda: all(_all_told(world, desk.lane) for desk in world.desks), GIVE_UP_S)
    world.notes.append(f"{loop.time():9.3f} settled")
    supervisor.cancel()


async def _until(world: World, true: Any, within_s: float) -> bool:
    end_s = world.loop.time() + within_s
    while world.loop.time() < end_s:
        if true():
            return True
        await asyncio.sleep(0.25)
    return False


def _all_told(world: World, lane: Lane) -> bool:
    """Nothing of the lane waits for anything."""
    store = world.server.store
    inbox = store.get(lane.inbox.encode(), Stream)
    cursor = store.get(lane.key("cursor").encode(), bytes)
    read = inbox is None or not inbox.ids or (cursor is not None and cursor == id_text(inbox.ids[-1]))
    return read and not store.get(lane.key("intents").encode(), dict)


async def _supervise(world: World) -> None:
    """Fills empty places, and minds how long a drain takes."""
    while True:
        for worker in world.workers:
            if worker.alive:
                since_s = worker.draining_since_s
                if since_s is not None and not worker.disturbed and world.loop.time() - since_s > DRAIN_S:
                    worker.disturbed = True
                    world.broken.append(Broken("17", f"{worker.name} drains for over {DRAIN_S} s"))
                continue
            if worker.process.alive and (error := worker.task.exception()):
                world.broken.append(Broken("life", f"{worker.name} ended by itself: {error!r}"))
            worker.start()
        await asyncio.sleep(0.2)


async def _ask(world: World, desk: SimDesk, stop: asyncio.Event) -> None:
    """Asks until told to stop, by the project's own client where an intent has an id."""
    rng, wire = random.Random(world.rng.random()), Wire(world.server, random.Random(world.rng.random()))
    world.producer_wires.append(wire)
    redis = wire.attach(aioredis.Redis(protocol=2))
    client = AsyncClient(redis)
    recent: list[dict[str, str]] = []
    per_s = desk.place.per_s * world.plan.per_s / 2
    at_once = max(1, round(per_s / ASKED_PER_S))
    while not stop.is_set():
        intents = [desk.extra.pop() if desk.extra else next_intent(desk, rng, recent) for _ in range(at_once)]
        named = [fields for fields in intents if "id" in fields and _is_intent(fields)]
        recent += named
        if named:
            await _submit(desk, client, named)
        for fields in intents:
            if fields not in named:
                await _add(desk, redis, fields)
        await asyncio.sleep(rng.expovariate(per_s / at_once))


async def _ask_all(world: World, desk: SimDesk, _: asyncio.Event) -> None:
    """The whole backlog at once, in the client's batches."""
    wire = Wire(world.server, random.Random(world.rng.random()))
    client, symbol = AsyncClient(wire.attach(aioredis.Redis(protocol=2))), desk.place.spelt("BTC")
    fields: list[dict[str, str]] = []
    for _n in range(world.plan.backlog // 2):
        order = desk.new_order()
        fields.append({"id": f"b-{order}", "symbol": symbol, "order_id": order})
        desk.asks[f"b-{order}"] = Ask((order,))
    for at in range(0, len(fields), 200):
        await _submit(desk, client, fields[at : at + 200])


async def _submit(desk: SimDesk, client: AsyncClient, intents: Sequence[Mapping[str, str]]) -> None:
    """Again until it is certain: the ids make one intent of all."""
    for _ in range(100):
        try:
            tickets = await client.submit_many(desk.lane, intents)
        except BatchIncomplete as error:
            desk.acknowledged += [ticket.entry_id for ticket in error.queued]
            intents = [*error.uncertain, *error.not_queued]
        except (BrokerDown, BrokerRefused, NotAccepted):
            pass
        else:
            desk.acknowledged += [ticket.entry_id for ticket in tickets]
            return
        await asyncio.sleep(0.2)


def _is_intent(fields: dict[str, str]) -> bool:
    """Whether the client would send it: what it refuses comes from others, with a plain XADD."""
    try:
        prepare_many([fields])
    except IntentError:
        return False
    return True


async def _add(desk: SimDesk, redis: aioredis.Redis, fields: dict[str, str]) -> None:
    """As any client in any language: one XADD, and where its reply is lost, the inbox will tell."""
    flat = [word for pair in fields.items() for word in pair]
    try:
        entry = await command(redis, "XADD", desk.lane.inbox, "NOMKSTREAM", "*", *flat)
    except (RedisError, OSError):
        return
    if entry is not None:
        desk.acknowledged.append(entry.decode())


def _keep(said: list[dict[str, Any]]) -> Any:
    def keep(_: Any, __: str, row: dict[str, Any]) -> Any:
        said.append(row)
        raise structlog.DropEvent

    return keep
