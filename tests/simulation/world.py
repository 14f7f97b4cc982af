"""The parts of one run, and what a run is to be."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from cancelq.contract import Lane
from cancelq_worker.simulator.simulator import Simulator
from ops.chaos.places import PLACES, lags_and_races
from ops.chaos.world import Desk
from ops.checks import Broken, Told
from tests.simulation.fleet import Fleet, Worker, settings_for
from tests.simulation.keyspace import Stream, id_text
from tests.simulation.loop import Process, VirtualLoop
from tests.simulation.store import Store
from tests.simulation.venue_link import VenueLink
from tests.simulation.wire import Server, Wire

PAIRS = 200
#: What the venues let through a second: a backlog is to be longer than that. Bitget's batches are kept small for it.
PER_S = {"bitget": 60, "bybit": 42, "bingx": 27}
BATCH = 5
RATE_ACTS = (
    "pause_worker", "kill_worker", "drain_worker", "jump_clock", "jump_worker_clock", "slow_way", "pause_store",
)  # fmt: skip


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
    streams: bool = False
    mud: float = 0.0  # how many of the calls get no clear answer, besides the faults
    acts: tuple[str, ...] | None = None  # only these faults
    backlog: int = 0  # intents that all wait from the beginning; nothing is asked later, and the end cuts it off
    length: float = 1.0  # of which it was drawn
    load: float = 1.0

    @classmethod
    def of(cls, seed: int, length: float = 1.0, load: float = 1.0) -> Plan:
        """A run of some seconds, in which everything may go wrong. `load`: times the usual one; where that is more than
        once, at Bitget alone, as its batches take it, and few calls are clear."""
        rng = random.Random(seed)
        venues = rng.choice([("bitget",), ("bitget",), ("bybit",), ("bingx",), ("bitget", "bybit", "bingx")])
        loaded = load > 1.0
        if loaded:
            venues = ("bitget",)
        return cls(
            seed,
            venues,
            workers=rng.choice([1, 2, 2, 3, 3, 4]),
            trouble_s=length * rng.uniform(1.0, 5.0),
            per_s=rng.choice([0.3, 0.6, 1.0]) / len(venues) * load,
            faults_per_s=rng.choice([0.0, 1.0, 3.0, 3.0, 6.0]),
            lossy=rng.random() < 0.15,
            streams=rng.random() < 0.5,
            mud=rng.choice([0.2, 0.3, 0.5, 0.5] if loaded else [0.0, 0.0, 0.1, 0.3]),
            length=length,
            load=load,
        )

    def again(self) -> str:
        """The command that makes this run once more."""
        if self.backlog:
            return f'make sim SEED={self.seed} LENGTH={self.length / 60} ARGS="--rate"'
        return f"make sim SEED={self.seed} LENGTH={self.length}" + f' ARGS="--load {self.load}"' * (self.load != 1.0)

    @classmethod
    def of_rate(cls, seed: int, seconds: float = 60.0) -> Plan:
        """A run with more to do than the venue lets through, while workers and clocks do as they like."""
        rng = random.Random(seed)
        venue = rng.choice(["bitget", "bybit", "bingx"])
        return cls(
            seed,
            (venue,),
            workers=rng.choice([1, 2, 4, 8]),
            trouble_s=seconds,
            per_s=1.0,
            faults_per_s=rng.choice([0.0, 0.3, 1.0]),
            lossy=False,
            acts=(
                "pause_worker",
                "kill_worker",
                "drain_worker",
                "jump_clock",
                "jump_worker_clock",
                "slow_way",
                "pause_store",
            ),
            backlog=int((seconds + 5) * PER_S[venue]),
            length=seconds,
        )


class SimDesk(Desk):
    """A lane's producers' view, on virtual time."""

    loop: VirtualLoop
    extra: list[dict[str, str]]

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


class Alarm:
    """Has the venues do what is due although no call comes."""

    def __init__(self, loop: VirtualLoop, venue: Process, simulator: Simulator) -> None:
        self._loop = loop
        self._venue = venue
        self._core = simulator.core
        self._core.alarm = self._set
        self._set()

    def _set(self) -> None:
        left_us = self._core.until_due_us()
        if left_us is not None:
            self._loop.at(self._venue, self._loop.time() + left_us / 1e6 + 1e-6, self._ring)

    def _ring(self) -> None:
        self._core.tick()
        self._set()


class Cut(NamedTuple):
    """For so long a worker (None: every one) could not reach the store."""

    worker: Process | None
    from_s: float
    to_s: float


@dataclass
class World:
    """The parts of a run."""

    plan: Plan
    rng: random.Random
    loop: VirtualLoop
    server: Server
    simulator: Simulator
    fleet: Fleet
    desks: list[SimDesk]
    faults: Counter[str] = field(default_factory=Counter)
    broken: list[Broken] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    producer_wires: list[Wire] = field(default_factory=list)
    cuts: list[Cut] = field(default_factory=list)
    tolds: dict[Lane, Told] = field(default_factory=dict)  # the streams as they were at the end
    clocks_us: int = 2_000
    lost_tail: bool = False
    restarts: int = 0
    healed_us: int = 0
    waited: int = 0  # intents that waited when the last fault ended
    surprised: set[str] = field(default_factory=set)  # buckets whose way became shorter than the fleet had known it

    @property
    def workers(self) -> list[Worker]:
        return self.fleet.workers

    @property
    def lossy(self) -> bool:
        return self.plan.lossy

    def did(self, fault: str) -> None:
        self.faults[fault] += 1
        self.notes.append(f"{self.loop.time():9.3f} {fault}")

    def shorten(self, link: VenueLink) -> None:
        """A slow way is itself again. Where the fleet has known it slow only, its permits are early by the difference:
        that is not promised."""
        if not link.slow_s:
            return
        link.slow_s = 0.0
        settings = self.simulator.core.settings
        longest_us = 1000 * (settings.latency_before_ms[1] + settings.latency_after_ms[1] + 1)
        for desk in self.desks:
            for endpoint in (*desk.place.cancels, *desk.place.looks):
                known = self.server.store.get(desk.lane.key(f"rtt:{endpoint}").encode(), dict) or {}
                if int(known.get(b"fast", b"0")) > longest_us:
                    self.surprised.add(f"{desk.lane.venue}/{endpoint}")
                    self.notes.append(f"{self.loop.time():9.3f} the way of {endpoint} was known longer than it is")

    async def restart(self, *, keep_all: bool) -> None:
        """The store ends and comes back; `keep_all` False: without what was written last."""
        server, store = self.server, self.server.store
        if not server.up:
            return
        kept = None
        if not keep_all:
            kept = store.copy()
            await asyncio.sleep(self.rng.uniform(0.0, 1.0))
            if not server.is_up():
                return
        self.did("store restarted" if keep_all else "store lost its tail")
        server.stop()
        from_s = self.loop.time()
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
        self.cuts.append(Cut(None, from_s, self.loop.time()))

    def _forget_unsynced(self) -> None:
        """What was lost had not been synced: it was never accepted."""
        for desk in self.desks:
            stream = self.server.store.get(desk.lane.inbox.encode(), Stream)
            kept = {id_text(at).decode() for at in stream.ids} if stream else set()
            desk.acknowledged = [entry for entry in desk.acknowledged if entry in kept]


def make_world(plan: Plan, rng: random.Random, loop: VirtualLoop) -> World:
    """The parts, before anything happens."""
    clock = VenueClock(loop)
    simulator = Simulator(clock=clock, rng=random.Random(rng.random()))
    pairs = [*simulator.core.settings.pairs, *(f"S{n}-USDT" for n in range(1, PAIRS))]
    simulator.configure({"pairs": pairs, **(steady_weather(rng) if plan.backlog else weather(rng))})
    server_process = Process("store")
    store = Store(lambda: loop.wall_us() + server_process.wall_us, f"{rng.getrandbits(160):040x}")
    server = Server(loop, store, random.Random(rng.random()), server_process)
    desks = [SimDesk(PLACES[venue], simulator) for venue in plan.venues]
    for desk in desks:
        desk.loop, desk.extra, desk.plain = loop, [], max(0.0, 1.0 - 1.0 / plan.load)
    settings = settings_for(plan.venues, plan.streams, BATCH if plan.backlog else 0)
    venue = Process("venue")
    Alarm(loop, venue, simulator)
    fleet = Fleet(loop, server, venue, simulator, settings, random.Random(rng.random()))
    return World(plan, rng, loop, server, simulator, fleet, desks)


def steady_weather(rng: random.Random) -> dict[str, object]:
    """Ways that differ from call to call, but stay what they are; nothing that makes a call needless."""
    jitter_ms = rng.choice([0, 5, 20, 100])
    least_ms = rng.choice([0, 5, 30])
    return {
        "latency_before_ms": (least_ms, least_ms + jitter_ms),
        "latency_after_ms": (least_ms, least_ms + jitter_ms),
        "calls_kept": 1_000_000,
    }


def weather(rng: random.Random) -> dict[str, Any]:
    """How the venue behaves for a while; nothing of it is a fault."""
    return {
        "latency_before_ms": rng.choice([(0, 0), (1, 5), (5, 25), (20, 80)]),
        "latency_after_ms": rng.choice([(0, 0), (1, 5), (5, 25), (20, 80)]),
        **lags_and_races(rng),
        "stream_loss": rng.choice([0.0, 0.0, 0.3]),
        "stream_jitter_ms": rng.choice([0, 0, 300]),
        "stream_repeat": rng.choice([0.0, 0.1]),
        "stream_foreign": rng.choice([0.0, 0.1]),
        "stream_garbage": rng.choice([0.0, 0.1]),
    }
