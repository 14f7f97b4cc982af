"""The parts of a small run: an empty database, a simulated venue, workers from the zygote, and what they told."""

from __future__ import annotations

import asyncio
import random
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import redis.asyncio as aioredis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from cancelq_worker.roster import ROSTER
from cancelq_worker.simulator.app import serve as serve_simulator
from cancelq_worker.simulator.core import Entry
from cancelq_worker.simulator.orders import Kind
from cancelq_worker.simulator.simulator import DEMO_KEY, DEMO_PASSPHRASE, DEMO_SECRET, Simulator
from ops.chaos.places import PLACES
from ops.checks import Ask, Bounds, Case, Told, VenueSaid, read_streams
from ops.crash.zygote import Zygote

LEASE_MS = 4_000  # leaves a call a second and a half, which a busy machine may need
SETTLE_S = 2 * LEASE_MS / 1000 + 10  # promised
DRAIN_S = 10.0  # promised
NOISE_S = 3.0  # what a busy machine may add to a promised time
PATIENCE_S = 40.0
LOOK_S = 0.02


@dataclass(slots=True)
class Worker:
    """A process. `code`: how it ended, None while it runs or if it had to be killed at the end."""

    pid: int
    log: Path
    code: int | None = None


@dataclass(frozen=True, slots=True)
class Floor:
    """What runs share: a server with many databases, and a zygote."""

    redis_port: int
    zygote: Zygote


@dataclass
class Desk:
    """One lane of one venue. `folder` and `database` are empty and its own. Use `opened`."""

    venue: str
    floor: Floor
    database: int
    folder: Path
    simulator: Simulator
    streams: bool = False
    workers: list[Worker] = field(default_factory=list)
    asks: dict[str, Ask] = field(default_factory=dict)
    acknowledged: list[str] = field(default_factory=list)
    told: Told = field(default_factory=lambda: Told([], []))
    drained_s: float = 0.0

    def __post_init__(self) -> None:
        self.place = PLACES[self.venue]
        self.lane = self.place.lane
        self.redis = client(f"redis://127.0.0.1:{self.floor.redis_port}/{self.database}")
        self.redis_at, self.venue_at = self.floor.redis_port, 0  # as the workers are told

    @asynccontextmanager
    async def opened(self, **simulator: Any) -> AsyncIterator[int]:
        """With the venue on a socket, whose port this gives. Keywords are its settings. At the end every worker that
        runs is told to drain, and what was told is read."""
        await self.redis.flushdb()
        self.simulator.configure({"latency_before_ms": (1, 6), "latency_after_ms": (1, 6), **simulator})
        try:
            async with serve_simulator(self.simulator) as served:
                self.venue_at = int(served.base_url.rsplit(":", 1)[1])
                try:
                    yield self.venue_at
                finally:
                    await self.drain(self.workers)
                self.told = await read_streams(self.redis, self.lane)
        finally:
            await self.redis.flushdb()
            await self.redis.aclose()

    # -- workers ------------------------------------------------------------------------------------------------

    async def start(self, **plans: str) -> Worker:
        """One more worker, with what shall go wrong."""
        log = self.folder / f"worker-{len(self.workers) + 1}.log"
        worker = Worker(await self.floor.zygote.start(self._environment(), log, **plans), log)
        self.workers.append(worker)
        return worker

    def _environment(self) -> Mapping[str, str]:
        account = f"CANCELQ_ACCOUNTS__{self.lane.venue}__{self.lane.account}__".upper()
        stream = f"ws://127.0.0.1:{self.venue_at}{self.place.stream_path}" if self.streams else ""
        env = {
            "CANCELQ_REDIS_URL": f"redis://127.0.0.1:{self.redis_at}/{self.database}",
            "CANCELQ_LEASE_MS": str(LEASE_MS),
            "CANCELQ_EGRESS": "crash",
            f"{account}BASE_URL": f"http://127.0.0.1:{self.venue_at}",
            f"{account}WS_URL": stream,
            f"{account}API_KEY": DEMO_KEY,
            f"{account}API_SECRET": DEMO_SECRET,
        }
        return env | ({f"{account}PASSPHRASE": DEMO_PASSPHRASE} if self.lane.venue == "bitget" else {})

    async def until_serving(self, workers: Sequence[Worker]) -> None:
        """Until these watch the lane. Raises TimeoutError."""

        async def serving() -> bool:
            if await self.redis.zcard(ROSTER) < len(workers):
                return False
            return all(w.log.exists() and b'"watching lane"' in w.log.read_bytes() for w in workers)

        if not await until(serving, PATIENCE_S):
            raise TimeoutError("the workers did not come up in time")

    async def drain(self, workers: Sequence[Worker]) -> None:
        """TERM for those that run; whoever does not end in time is killed."""
        begun_s, zygote = time.monotonic(), self.floor.zygote
        running = [worker for worker in workers if worker.code is None]
        for worker in running:
            zygote.signal(worker.pid, signal.SIGCONT)
            zygote.signal(worker.pid, signal.SIGTERM)
        for worker in running:
            worker.code = await zygote.ended(worker.pid, begun_s + DRAIN_S + NOISE_S - time.monotonic())
            zygote.signal(worker.pid, signal.SIGKILL)
        if running:
            self.drained_s = time.monotonic() - begun_s

    # -- what is asked, and what is told ---------------------------------------------------------------------------

    def order(self, symbol: str, now_ms: int) -> str:
        """An open order, a minute old; its id."""
        entry = Entry(symbol, Kind.order, created_ms=now_ms - 60_000)
        return str(self.simulator.add_order(entry, venue=self.lane.venue).order_id)

    async def ask(self, intents: Sequence[Mapping[str, str]], meant: Sequence[Sequence[str]]) -> None:
        """Every intent in one transaction, so that one take may find them all. `meant`: the orders each may end. Every
        other one has an id of its own."""
        async with self.redis.pipeline(transaction=True) as pipe:
            for fields, orders in zip(intents, meant, strict=True):
                n = len(self.asks)
                own = {"id": f"i-{n}"} if n % 2 else {"x_n": str(n)}
                pipe.xadd(self.lane.inbox, {**fields, **own}, nomkstream=True)  # type: ignore[dict-item]
                self.asks[own.get("id", f"n:{n}")] = Ask(tuple(orders))
            self.acknowledged += [i.decode() for i in await pipe.execute()]

    async def all_told(self) -> bool:
        told = await read_streams(self.redis, self.lane)
        return len(told.finals) >= len(self.acknowledged)

    def case(self, healed_us: int | None) -> Case:
        """For the judges that every run has."""
        venue, simulator = self.lane.venue, self.simulator
        orders, calls = simulator.truth(venue=venue).entries, simulator.calls().entries
        said = VenueSaid(orders, calls, simulator.rates(), frozenset(self.place.bulk))
        bounds = Bounds(settle_s=SETTLE_S + NOISE_S)
        return Case(self.lane, self.told, self.asks, self.acknowledged, said, bounds, healed_us)


def desk(venue: str, floor: Floor, database: int, folder: Path, seed: str, *, streams: bool = False) -> Desk:
    """A desk with a venue of its own, whose ways follow from `seed`."""
    return Desk(venue, floor, database, folder, Simulator(rng=random.Random(seed)), streams)


def client(url: str) -> aioredis.Redis:
    """Asks once; raw replies to stream commands."""
    made = aioredis.Redis.from_url(url, protocol=2, retry=Retry(NoBackoff(), 0), socket_timeout=5)
    for parsed in ("XREAD", "XRANGE"):
        made.response_callbacks.pop(parsed, None)
    return made


async def until(true: Callable[[], Awaitable[bool]], within_s: float) -> bool:
    """Asks again and again until the answer is yes; whether it was in time."""
    until_s = time.monotonic() + within_s
    while not await true():
        if time.monotonic() > until_s:
            return False
        await asyncio.sleep(LOOK_S)
    return True
