"""The workers of a run: the project's own engine, wired as in a process of its own, on virtual time."""

from __future__ import annotations

import asyncio
import functools
import random
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import redis.asyncio as aioredis

from cancelq.contract import Lane
from cancelq_worker.engine import Engine
from cancelq_worker.health import Health
from cancelq_worker.http import Door
from cancelq_worker.lane_parts import LaneParts
from cancelq_worker.settings import Account, Settings
from cancelq_worker.simulator.simulator import DEMO_KEY, DEMO_PASSPHRASE, DEMO_SECRET, Simulator
from cancelq_worker.trips import connect
from cancelq_worker.venues.port import Venue
from cancelq_worker.wiring import Wiring, beside
from ops.chaos.places import PLACES
from tests.simulation.loop import Process, VirtualLoop
from tests.simulation.stream_link import StreamLink
from tests.simulation.venue_link import VenueLink
from tests.simulation.wire import Server, Wire

NOWHERE = "redis://127.0.0.1:1/0"
VENUE = "127.0.0.1:2"
LEASE_MS = 4_000
ADDRESS = "10.0.0.1"  # all workers leave by it


@functools.cache
def settings_for(venues: tuple[str, ...], streams: bool, batch: int) -> Settings:
    """One account at each of these venues; `batch`: the most orders of a call, 0: the venue's own."""
    env: dict[str, str] = {
        "CANCELQ_REDIS_URL": NOWHERE,
        "CANCELQ_LEASE_MS": str(LEASE_MS),
        "CANCELQ_EGRESS": "simulation",
    }
    for venue in venues:
        account = f"CANCELQ_ACCOUNTS__{venue.upper()}__MAIN__"
        env |= {
            f"{account}BASE_URL": f"http://{VENUE}",
            f"{account}WS_URL": f"ws://{VENUE}{PLACES[venue].stream_path}" if streams else "",
            f"{account}API_KEY": DEMO_KEY,
            f"{account}API_SECRET": DEMO_SECRET,
        }
        if batch:
            env[f"{account}BATCH_SIZE"] = str(batch)
        if venue == "bitget":
            env[f"{account}PASSPHRASE"] = DEMO_PASSPHRASE
    return Settings.load(None, env)


class VirtualWiring(Wiring):
    """The project's wiring; only what reaches out of the process goes another way."""

    _tls = None  # type: ignore[assignment]  # nothing here is encrypted

    def __init__(self, worker: Worker, settings: Settings) -> None:
        super().__init__(settings, worker.name, lambda: worker.suspended)
        self._virtual = worker
        worker.wire.attach(self.client)

    def _blocking_client(self) -> aioredis.Redis:
        client = self._virtual.wire.attach(connect(NOWHERE), most=1, timeout_s=6.0)
        self._blocking.append(client)
        return client

    def _door(self, base_url: str) -> Door:
        return Door(base_url, verify=False, transport=self._virtual.link.transport)

    def _parts(self, lane: Lane, account: Account, venue: Venue, new_key: bool) -> LaneParts:
        parts, rng = super()._parts(lane, account, venue, new_key), self._virtual.rng
        judge = replace(parts.judge, rng=random.Random(rng.random()))
        tag = f"{rng.getrandbits(32):08x}"
        return replace(parts, judge=judge, tag=tag, open_socket=self._virtual.streams.open_socket)


class Send(NamedTuple):
    """A call that left a worker."""

    process: Process
    at_s: float
    path: str


@dataclass
class Fleet:
    """What the workers share."""

    loop: VirtualLoop
    server: Server
    venue: Process
    simulator: Simulator
    settings: Settings
    rng: random.Random
    workers: list[Worker] = field(default_factory=list)
    poison: set[str] = field(default_factory=set)  # orders whose intents end every worker that takes them
    poisoned_us: int = 0  # when a worker ended of it last, by the store's clock
    sends: list[Send] = field(default_factory=list)


class Worker:
    """A place for one worker process; filled again after its process has ended."""

    def __init__(self, number: int, fleet: Fleet) -> None:
        self.number = number
        self._fleet = fleet
        self.rng = random.Random(fleet.rng.random())
        self.started = 0
        self.suspended = False
        self.poisoned = 0
        self.draining_since_s: float | None = None
        self.past: list[Process] = []
        self.start()

    def start(self) -> None:
        """A new process, with connections and clocks of its own."""
        fleet = self._fleet
        self.started += 1
        self.name = f"w{self.number}.{self.started}"
        self.process = Process(self.name)
        self.process.steady_us = self.rng.randrange(1, 10**12)
        self.process.wall_us = self.rng.randrange(-500_000, 500_000)
        self.process.per_million = self.rng.uniform(-20.0, 20.0)
        self.past.append(self.process)
        self.wire = Wire(fleet.server, random.Random(self.rng.random()))
        way = fleet.loop, fleet.venue, fleet.simulator
        self.link = VenueLink(*way, random.Random(self.rng.random()), ADDRESS)
        self.link.leaving = self._leaving
        self.streams = StreamLink(*way, random.Random(self.rng.random()), ADDRESS)
        self.draining_since_s, self.disturbed = None, False
        self._stop = asyncio.Event()
        self.task = fleet.loop.start(self.process, self._serve())

    async def _serve(self) -> None:
        wiring = VirtualWiring(self, self._fleet.settings)
        engine: Engine = wiring.engine(Health(self._stop))
        try:
            async with beside(wiring.guards(engine).serve()):
                await engine.serve(self._stop)
        finally:
            if self.process.alive:  # what was killed closes nothing
                await wiring.close()

    def _leaving(self, path: str, named: bytes) -> bool:
        """A call is about to leave; False: the worker ended before it did."""
        poison = self._fleet.poison
        if poison and any(order.encode() in named for order in poison) and "ancel" in path:
            self.poisoned += 1
            self._fleet.poisoned_us = self._fleet.server.store.now_us()
            self.kill()
            return False
        self._fleet.sends.append(Send(self.process, self._fleet.loop.time(), path))
        return True

    @property
    def alive(self) -> bool:
        return self.process.alive and not self.task.done()

    def kill(self) -> None:
        """As `kill -9`: nothing of it runs any more. What it sent is on its way."""
        fleet = self._fleet
        fleet.loop.kill(self.process)
        fleet.loop.at(fleet.venue, fleet.loop.time() + 0.01, self.streams.cut)

    def drain(self) -> None:
        """As TERM."""
        self.draining_since_s = self._fleet.loop.time()
        self._stop.set()

    def heal(self) -> None:
        self._fleet.loop.release(self.process)
        self.wire.heal()
        self.link.heal()
        self.streams.heal()
