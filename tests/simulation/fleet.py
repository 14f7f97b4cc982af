"""The workers of a run: the project's own engine, wired as in a process of its own, on virtual time."""

from __future__ import annotations

import asyncio
import functools
import random
from collections.abc import Mapping
from dataclasses import dataclass, replace

import redis.asyncio as aioredis

from cancelq.contract import Lane
from cancelq_worker.engine import Engine
from cancelq_worker.health import Health
from cancelq_worker.http import Door
from cancelq_worker.lane_parts import LaneParts
from cancelq_worker.ledger import connect
from cancelq_worker.settings import Account, Settings
from cancelq_worker.simulator.simulator import DEMO_KEY, DEMO_PASSPHRASE, DEMO_SECRET, Simulator
from cancelq_worker.venues.port import Venue
from cancelq_worker.wiring import Wiring, beside
from tests.simulation.loop import Process, VirtualLoop
from tests.simulation.venue_link import VenueLink
from tests.simulation.wire import Server, Wire

NOWHERE = "redis://127.0.0.1:1/0"
LEASE_MS = 4_000


@functools.cache
def settings_for(venues: tuple[str, ...]) -> Settings:
    """One account at each of these venues."""
    env: dict[str, str] = {
        "CANCELQ_REDIS_URL": NOWHERE,
        "CANCELQ_LEASE_MS": str(LEASE_MS),
        "CANCELQ_EGRESS": "simulation",
    }
    for venue in venues:
        account = f"CANCELQ_ACCOUNTS__{venue.upper()}__MAIN__"
        env |= {
            f"{account}BASE_URL": "http://venue",
            f"{account}WS_URL": "",
            f"{account}API_KEY": DEMO_KEY,
            f"{account}API_SECRET": DEMO_SECRET,
        }
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
        door = Door(base_url, verify=False, transport=self._virtual.link.transport)
        self._doors.add(door)
        return door

    def _parts(self, lane: Lane, account: Account, venue: Venue, new_key: bool) -> LaneParts:
        parts, rng = super()._parts(lane, account, venue, new_key), self._virtual.rng
        judge = replace(parts.judge, rng=random.Random(rng.random()))
        return replace(parts, judge=judge, tag=f"{rng.getrandbits(32):08x}")


@dataclass
class Fleet:
    """What the workers share."""

    loop: VirtualLoop
    server: Server
    venue: Process
    simulator: Simulator
    settings: Settings
    rng: random.Random


class Worker:
    """A place for one worker process; filled again after its process has ended."""

    def __init__(self, number: int, fleet: Fleet) -> None:
        self.number = number
        self._fleet = fleet
        self.rng = random.Random(fleet.rng.random())
        self.started = 0
        self.suspended = False
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
        self.link = VenueLink(fleet.loop, fleet.venue, fleet.simulator, random.Random(self.rng.random()), "10.0.0.1")
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
            await wiring.close()

    @property
    def alive(self) -> bool:
        return self.process.alive and not self.task.done()

    def kill(self) -> None:
        """As `kill -9`: nothing of it runs any more. What it sent is on its way."""
        self._fleet.loop.kill(self.process)

    def drain(self) -> None:
        """As TERM."""
        self.draining_since_s = self._fleet.loop.time()
        self._stop.set()

    def heal(self) -> None:
        self._fleet.loop.release(self.process)
        self.wire.heal()
        self.link.heal()


def spread(venues: Mapping[str, int], rng: random.Random) -> str:
    """One of them, by weight."""
    return rng.choices(list(venues), list(venues.values()))[0]
