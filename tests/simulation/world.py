"""One run: a whole desk on virtual time. First safety under faults, then liveness without, then the judges.

What is real: engine, lanes, carrier, gate, judge, ledger and its Lua scripts, egress, guards, venue adapters, signing,
the producers' client. What stands in: the loop and its clocks (`loop.py`), the server (`store.py`, `wire.py`), sockets
to the venues (`venue_link.py`) and the venues themselves, which are the product's simulator.
"""

from __future__ import annotations

import asyncio
import gc
import hashlib
import random
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import redis.asyncio as aioredis
import structlog
from redis.exceptions import RedisError

from cancelq.client import AsyncClient
from cancelq.contract import Lane
from cancelq.errors import BrokerDown, BrokerRefused, NotAccepted, Uncertain
from cancelq_worker.ledger import command
from cancelq_worker.simulator.simulator import Simulator
from ops.chaos.asking import next_intent
from ops.chaos.places import PLACES
from ops.chaos.world import Desk
from ops.checks import Ask, Bounds, Broken, Case, Told, VenueSaid, judge, key_of
from tests.simulation.fleet import LEASE_MS, Fleet, Worker, settings_for
from tests.simulation.keyspace import Stream, id_text
from tests.simulation.loop import START_S, Process, VirtualLoop, virtual_time
from tests.simulation.store import Store
from tests.simulation.troubles import heal, torment, weather
from tests.simulation.wire import Server, Wire

SETTLE_S = 2 * LEASE_MS / 1000 + 10  # promised: everything is settled that long after the last fault
GIVE_UP_S = 90.0
DRAIN_S = 10.0
PAIRS = 200


@dataclass(frozen=True)
class Plan:
    """What a run is to be; all of it follows from the seed unless it is given."""

    seed: int
    venues: tuple[str, ...]
    workers: int
    trouble_s: float
    per_s: float  # of what each venue can take
    faults_per_s: float
    lossy: bool
    length: float = 1.0  # of which it was drawn

    @classmethod
    def of(cls, seed: int, length: float = 1.0) -> Plan:
        rng = random.Random(seed)
        venues = rng.choice([("bitget",), ("bitget",), ("bybit",), ("bingx",), ("bitget", "bybit", "bingx")])
        return cls(
            seed,
            venues,
            workers=rng.choice([1, 2, 2, 3, 3, 4]),
            trouble_s=length * rng.uniform(1.0, 5.0),
            per_s=rng.choice([0.3, 0.6, 1.0]) / len(venues),
            faults_per_s=rng.choice([0.0, 1.0, 3.0, 3.0, 6.0]),
            lossy=rng.random() < 0.15,
            length=length,
        )


#: Hears a command: the store's wall clock in us, the words, the reply.
Heard = Callable[[int, list[bytes], Any], None]


@dataclass
class Outcome:
    """What a run came to."""

    plan: Plan
    broken: list[Broken]
    faults: Counter[str]
    intents: int
    statuses: Counter[str]
    calls: int
    unclear: int
    virtual_s: float
    steps: int
    settled_s: float
    fingerprint: str
    notes: list[str]

    def __str__(self) -> str:
        lines = [f"seed {self.plan.seed}: {len(self.broken)} broken promises; {self.plan}"]
        return "\n".join([*lines, *map(str, self.broken[:20])])


class SimDesk(Desk):
    """A lane's producers' view, on virtual time."""

    loop: VirtualLoop

    def now_ms(self) -> int:
        return self.loop.wall_us() // 1000


class VenueClock:
    """The simulated venues' clock."""

    def __init__(self, loop: VirtualLoop) -> None:
        self._loop = loop

    def steady_us(self) -> int:
        return int(self._loop.time() * 1e6)

    def wall_us(self) -> int:
        return self._loop.wall_us()


@dataclass
class World:
    """The parts of a run."""

    plan: Plan
    rng: random.Random
    loop: VirtualLoop
    server: Server
    simulator: Simulator
    workers: list[Worker]
    desks: list[SimDesk]
    faults: Counter[str] = field(default_factory=Counter)
    broken: list[Broken] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    producer_wires: list[Wire] = field(default_factory=list)
    clocks_us: int = 2_000
    lost_tail: bool = False
    restarts: int = 0
    healed_us: int = 0
    acts: Sequence[str] | None = None  # the only faults, by name

    @property
    def lossy(self) -> bool:
        return self.plan.lossy

    def did(self, fault: str) -> None:
        self.faults[fault] += 1
        self.notes.append(f"{self.loop.time():9.3f} {fault}")

    async def restart(self, *, keep_all: bool) -> None:
        """The store ends and comes back; `keep_all` False: without what was written last."""
        server, store = self.server, self.server.store
        if not server.up:
            return
        kept = None
        if not keep_all:
            kept = store.copy()
            await asyncio.sleep(self.rng.uniform(0.0, 1.0))
            if not server.up:
                return
        self.did("store restarted" if keep_all else "store lost its tail")
        server.stop()
        self.loop.release(server.process)
        await asyncio.sleep(self.rng.uniform(0.05, 2.0))
        self.restarts += 1
        store.restart(f"{self.rng.getrandbits(160):040x}", kept)
        if kept is not None:
            self.lost_tail = True
            self._forget_unsynced()
        server.loading = True
        server.up = True
        await asyncio.sleep(self.rng.uniform(0.0, 0.3))
        server.loading = False

    def _forget_unsynced(self) -> None:
        """What was lost had not been synced: it was never accepted."""
        for desk in self.desks:
            stream = self.server.store.get(desk.lane.inbox.encode(), Stream)
            kept = {id_text(at).decode() for at in stream.ids} if stream else set()
            desk.acknowledged = [entry for entry in desk.acknowledged if entry in kept]


def run(plan: Plan, *, acts: Sequence[str] | None = None, told: Heard | None = None) -> Outcome:
    """One run, from its seed. Leaves nothing behind. `acts`: only these faults; `told` hears every command that a
    script's host or a client carries out: the store's time in us, its words, the reply."""
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
            world = _world(plan, rng, loop)
            world.acts = acts
            if told:
                world.server.told = lambda words, reply: told(world.server.store.now_us(), words, reply)
            try:
                loop.run_until_complete(_play(world))
                world.broken += _judge(world, said)
                return _outcome(world)
            finally:
                loop.end([p for w in world.workers for p in w.past] + [world.server.process])
    finally:
        asyncio.set_event_loop(None)
        structlog.configure(**before)
        random.setstate(drawn)
        gc.enable()


def _world(plan: Plan, rng: random.Random, loop: VirtualLoop) -> World:
    clock = VenueClock(loop)
    simulator = Simulator(clock=clock, rng=random.Random(rng.random()))
    pairs = [*simulator.core.settings.pairs, *(f"S{n}-USDT" for n in range(1, PAIRS))]
    simulator.configure({"pairs": pairs, **weather(rng)})
    server_process = Process("store")
    store = Store(lambda: loop.wall_us() + server_process.wall_us, f"{rng.getrandbits(160):040x}")
    server = Server(loop, store, random.Random(rng.random()), server_process)
    desks = [SimDesk(PLACES[venue], simulator) for venue in plan.venues]
    for desk in desks:
        desk.loop = loop
    return World(plan, rng, loop, server, simulator, [], desks)


async def _play(world: World) -> None:
    plan, loop = world.plan, world.loop
    fleet = Fleet(
        loop,
        world.server,
        Process("venue"),
        world.simulator,
        settings_for(plan.venues),
        random.Random(world.rng.random()),
    )
    world.workers = [Worker(number, fleet) for number in range(plan.workers)]
    supervisor = loop.create_task(_supervise(world))
    await _until(world, lambda: all(world.server.store.exists(d.lane.inbox.encode()) for d in world.desks), 20)
    stop = asyncio.Event()
    producers = [loop.create_task(_produce(world, desk, stop)) for desk in world.desks for _ in range(2)]
    if plan.faults_per_s:
        await torment(world, plan.trouble_s, plan.faults_per_s)
    else:
        await asyncio.sleep(plan.trouble_s)
    stop.set()
    heal(world)
    await asyncio.wait(producers)
    world.notes.append(f"{loop.time():9.3f} healed")
    world.healed_us = world.server.store.now_us()
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


async def _produce(world: World, desk: SimDesk, stop: asyncio.Event) -> None:
    """Asks until told to stop, by the project's own client where an intent has an id."""
    rng, wire = random.Random(world.rng.random()), Wire(world.server, random.Random(world.rng.random()))
    world.producer_wires.append(wire)
    redis = wire.attach(aioredis.Redis(protocol=2))
    client = AsyncClient(redis)
    recent: list[dict[str, str]] = []
    per_s = desk.place.per_s * world.plan.per_s / 2
    while not stop.is_set():
        fields = next_intent(desk, rng, recent)
        if "id" in fields:
            recent.append(fields)
            await _submit(desk, client, fields)
        else:
            await _add(desk, redis, fields)
        await asyncio.sleep(rng.expovariate(per_s))


async def _submit(desk: SimDesk, client: AsyncClient, fields: dict[str, str]) -> None:
    """Again until it is certain: the id makes one intent of all."""
    for _ in range(100):
        try:
            ticket = await client.submit(desk.lane, fields)
        except (BrokerDown, BrokerRefused, NotAccepted, Uncertain):
            await asyncio.sleep(0.2)
        else:
            desk.acknowledged.append(ticket.entry_id)
            return


async def _add(desk: SimDesk, redis: aioredis.Redis, fields: dict[str, str]) -> None:
    """As any client in any language: one XADD, and where its reply is lost, the inbox will tell."""
    flat = [word for pair in fields.items() for word in pair]
    try:
        entry = await command(redis, "XADD", desk.lane.inbox, "NOMKSTREAM", "*", *flat)
    except (RedisError, OSError):
        return
    if entry is not None:
        desk.acknowledged.append(entry.decode())


# -- the judges -------------------------------------------------------------------------------------------------------


def _meant(desk: SimDesk, told: Told) -> dict[str, Ask]:
    """What was meant, by what is left of the inbox: where the first entry of an id was lost with the tail, a repeat
    with other content has become the intent."""
    asks = dict(desk.asks)
    for entries in told.intents.values():
        ask, order = asks.get(key_of(entries[0])), entries[0].fields.get("order_id", "")
        if ask and order in ask.spared:
            asks[key_of(entries[0])] = Ask((order,))
    return asks


def _judge(world: World, said: Sequence[dict[str, Any]]) -> list[Broken]:
    broken: list[Broken] = []
    for desk in world.desks:
        for one in judge(_case(world, desk)):
            # What a lost tail had on record cannot be held against it.
            if not (world.lost_tail and one.promise in ("5", "9") and "attempts are on record" in one.what):
                broken.append(one)
    broken += [Broken("simulation", f"the store has no {name}") for name in sorted(world.server.store.unknown)]
    for row in said:
        if not _explained(row):
            broken.append(Broken("log", f"{row}"))
    for trouble in world.loop.troubles:
        broken.append(Broken("log", f"{trouble.get('message')}: {trouble.get('exception')!r}"))
    return broken


def _explained(row: dict[str, Any]) -> bool:
    """Whether faults of the run explain an error that was logged."""
    error = str(row.get("error", ""))
    event = str(row.get("event", ""))
    if event.startswith(("settle refused", "take refused", "admission refused")):
        return any(word in error for word in ("LOADING", "OOM", "maxmemory", "NOSCRIPT"))
    return "exc_info" not in row


def told_of(world: World, lane: Lane) -> Told:
    """The lane's streams as they are now."""
    store = world.server.store

    def rows(stream: str) -> list[tuple[str, list[bytes]]]:
        found = store.get(stream.encode(), Stream)
        return [(id_text(at).decode(), flat) for at, flat in zip(found.ids, found.fields, strict=True)] if found else []

    return Told.read(rows(lane.inbox), rows(lane.results))


def _case(world: World, desk: SimDesk) -> Case:
    venue, simulator = desk.lane.venue, world.simulator
    venue_said = VenueSaid(
        orders=simulator.truth(venue=venue).entries,
        calls=[call for call in simulator.calls().entries if call["venue"] == venue],
        rates=[row for row in simulator.rates() if row["bucket"].startswith(f"{venue}/")],
        bulk=frozenset(desk.place.bulk),
    )
    bounds = Bounds(settle_s=SETTLE_S, clocks_us=world.clocks_us)
    told = told_of(world, desk.lane)
    asks = _meant(desk, told) if world.lost_tail else desk.asks
    return Case(desk.lane, told, asks, desk.acknowledged, venue_said, bounds, world.healed_us)


def _outcome(world: World) -> Outcome:
    tolds = [told_of(world, desk.lane) for desk in world.desks]
    calls = world.simulator.calls().entries
    mark = hashlib.blake2b(digest_size=16)
    for desk in world.desks:
        for stream in (desk.lane.inbox, desk.lane.results):
            found = world.server.store.get(stream.encode(), Stream)
            for at, flat in zip(found.ids, found.fields, strict=True) if found else ():
                mark.update(id_text(at) + b"\0".join(flat))
    for call in calls:
        mark.update(f"{call['steady_us']} {call['endpoint']} {call['ids']} {call['code']}".encode())
    unclear = sum(max(1, len(call["ids"])) for call in calls if call["fault"])
    unclear += sum(worker.link.lost for worker in world.workers)
    healed_us = world.healed_us
    last_us = max((e.settled_us or 0 for told in tolds for e in told.events if e.final), default=0)
    return Outcome(
        world.plan, world.broken, world.faults, sum(len(told.intents) for told in tolds),
        Counter(e.status.value for told in tolds for e in told.events), len(calls), unclear, world.loop.time() - START_S,
        world.loop.ran, (last_us - healed_us) / 1e6, mark.hexdigest(), world.notes,
    )  # fmt: skip


def _keep(said: list[dict[str, Any]]) -> Any:
    def keep(_: Any, __: str, row: dict[str, Any]) -> Any:
        said.append(row)
        raise structlog.DropEvent

    return keep
