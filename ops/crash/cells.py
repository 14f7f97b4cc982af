"""One cell of the matrix: a venue, a step, a fault and a batch, played with two real workers on a lane of their own.

Both are alive from the start, so that whoever does not suffer the fault serves what the other held.
"""

from __future__ import annotations

import asyncio
import json
import random
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import redis.asyncio as aioredis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from cancelq_worker.ledger import SCRIPTS
from cancelq_worker.roster import ROSTER
from cancelq_worker.simulator.app import serve as serve_simulator
from cancelq_worker.simulator.core import Entry
from cancelq_worker.simulator.orders import Kind
from cancelq_worker.simulator.simulator import DEMO_KEY, DEMO_PASSPHRASE, DEMO_SECRET, Simulator
from ops.chaos.places import PLACES
from ops.checks import Ask, Bounds, Case, Told, VenueSaid, read_streams
from ops.crash.hooks import REPLIES, Plan
from ops.crash.links import LossyLink, granted
from ops.crash.zygote import Zygote

LEASE_MS = 4_000  # leaves a call a second and a half, which a busy machine may need
STOPPED_MOST_S = LEASE_MS / 1000 + 2.0
SETTLE_S = 2 * LEASE_MS / 1000 + 10  # promised
DRAIN_S = 10.0  # promised
NOISE_S = 3.0  # what a busy machine may add to a promised time
PATIENCE_S = 20.0
LOOK_S = 0.02

VENUES = tuple(PLACES)
FAULTS = ("kill", "stop", "raise", "lost")
_CALL_STEPS = (
    "take-sent", "take-answered", "connect", "send", "written", "answer", "judge", "settle", "settle-sent",
    "settle-answered",
)  # fmt: skip
_SETTLE_STEPS = ("settle", "settle-sent", "settle-answered")
FLOWS = ("cancel", "look", "bulk", "list", "sweep-cancel")
POINTS = (
    "admit.sent",
    "admit.answered",
    *(f"{flow}.{step}" for flow in FLOWS for step in _CALL_STEPS),
    *(f"push.{step}" for step in ("claim-sent", "claim-answered", *_SETTLE_STEPS)),
    *(f"give-back.{step}" for step in _SETTLE_STEPS),
)


@dataclass(frozen=True, slots=True)
class Cell:
    """What is played. `batch`: intents at once; of a pair's sweep, its open orders."""

    venue: str
    point: str
    fault: str
    batch: int

    @property
    def flow(self) -> str:
        return self.point.partition(".")[0]

    @property
    def sweeps(self) -> bool:
        return self.flow in ("bulk", "list", "sweep-cancel")

    @property
    def possible(self) -> bool:
        """Only a step that waits for a reply can lose one."""
        return self.fault != "lost" or self.point.partition(".")[2] in REPLIES

    def __str__(self) -> str:
        return f"{self.venue} {self.point} {self.fault} x{self.batch}"


def all_cells(venues: tuple[str, ...] = VENUES, batches: tuple[int, ...] = (1, 50)) -> list[Cell]:
    """The whole matrix, impossible cells left out."""
    cells = [Cell(v, p, f, b) for v in venues for b in batches for p in POINTS for f in FAULTS]
    return [cell for cell in cells if cell.possible]


@dataclass(slots=True)
class Played:
    """What came of a cell, for its judge. Times in UTC µs; `fault_us` None: its step was never reached."""

    cell: Cell
    simulator: Simulator
    asks: dict[str, Ask] = field(default_factory=dict)
    acknowledged: list[str] = field(default_factory=list)
    told: Told = field(default_factory=lambda: Told([], []))
    fault_us: int | None = None
    exits: dict[int, int | None] = field(default_factory=dict)
    drained_s: float = 0.0
    victim: int = 0
    logs: list[Path] = field(default_factory=list)

    @property
    def case(self) -> Case:
        """For the judges that every run has."""
        place, simulator = PLACES[self.cell.venue], self.simulator
        said = VenueSaid(
            simulator.truth(venue=place.lane.venue).entries,
            simulator.calls().entries,
            simulator.rates(),
            frozenset(place.bulk),
        )
        bounds = Bounds(settle_s=SETTLE_S + NOISE_S)
        return Case(place.lane, self.told, self.asks, self.acknowledged, said, bounds, self.fault_us)


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


class Stage:
    """The parts of one cell: an empty database, a venue, links where a reply is to be lost, two workers."""

    def __init__(self, cell: Cell, redis_port: int, database: int, zygote: Zygote, folder: Path) -> None:
        self.cell = cell
        self.place = PLACES[cell.venue]
        self.lane = self.place.lane
        self.plan = Plan(cell.point, cell.fault, str(folder))
        self.simulator = Simulator(rng=random.Random(f"{cell}"))
        self.played = Played(cell, self.simulator)
        self.pids: list[int] = []
        self._redis_port = redis_port
        self._database = database
        self._zygote = zygote
        self._folder = folder
        self.redis = client(f"redis://127.0.0.1:{redis_port}/{database}")

    async def play(self) -> Played:
        """The whole cell. Ends all it started."""
        await self.redis.flushdb()
        self.plan.token.touch()
        try:
            async with self._venue() as venue_port, self._links(venue_port) as (redis_port, venue_at):
                try:
                    await self._start(redis_port, venue_at)
                    await self._ask()
                    await self._suffer()
                    await self._heal()
                finally:
                    await self._end()
                await self._read()
        finally:
            await self.redis.flushdb()
            await self.redis.aclose()
        return self.played

    # -- parts ------------------------------------------------------------------------------------------------

    @asynccontextmanager
    async def _venue(self) -> AsyncIterator[int]:
        late_ms = 250 if self.cell.flow == "push" or (self.cell.flow == "look" and self.cell.venue == "bingx") else 0
        self.simulator.configure(
            {"latency_before_ms": (1, 6), "latency_after_ms": (1, 6), "cancel_delay_ms": late_ms}
        )  # fmt: skip
        async with serve_simulator(self.simulator) as served:
            yield int(served.base_url.rsplit(":", 1)[1])

    @asynccontextmanager
    async def _links(self, venue_port: int) -> AsyncIterator[tuple[int, int]]:
        """The ports the workers are told; with links in between where a reply is to be lost."""
        if self.cell.fault != "lost":
            yield self._redis_port, venue_port
            return
        links = LossyLink(self._redis_port, self._loses_redis), LossyLink(venue_port, self._loses_venue)
        async with AsyncExitStack() as stack:
            for link in links:
                await link.open()
                stack.push_async_callback(link.close)
            yield links[0].port, links[1].port

    def _loses_redis(self, asked: bytes, reply: bytes) -> bool:
        flow, _, step = self.cell.point.partition(".")
        if step == "take-sent":
            found = self.plan.token.exists() and granted(flow).search(reply)
            if found:
                self.plan.token.unlink()
                self.plan.fired.write_text(json.dumps({"pid": 0, "at_us": time.time_ns() // 1000}))
            return bool(found)
        name = {"sent": "admit", "claim-sent": "claim", "settle-sent": "settle"}.get(step)
        return name is not None and SCRIPTS.sha[name].encode() in asked and self._disarm()

    def _loses_venue(self, asked: bytes, reply: bytes) -> bool:
        return self.cell.point.endswith(".written") and b"/time" not in asked and self._disarm()

    def _disarm(self) -> bool:
        try:
            self.plan.armed.unlink()
        except FileNotFoundError:
            return False
        return True

    async def _start(self, redis_port: int, venue_port: int) -> None:
        env = self._environment(redis_port, venue_port)
        for n in (1, 2):
            log = self._folder / f"worker-{n}.log"
            self.pids.append(await self._zygote.start(env, log, crash=self.plan.text()))
            self.played.logs.append(log)
        if not await until(self._serving, PATIENCE_S):
            raise TimeoutError("the workers did not come up in time")

    async def _serving(self) -> bool:
        if await self.redis.zcard(ROSTER) < len(self.pids):
            return False
        return all(log.exists() and b'"watching lane"' in log.read_bytes() for log in self.played.logs)

    def _environment(self, redis_port: int, venue_port: int) -> dict[str, str]:
        account = f"CANCELQ_ACCOUNTS__{self.lane.venue}__{self.lane.account}__".upper()
        stream = f"ws://127.0.0.1:{venue_port}{self.place.stream_path}" if self.cell.flow == "push" else ""
        env = {
            "CANCELQ_REDIS_URL": f"redis://127.0.0.1:{redis_port}/{self._database}",
            "CANCELQ_LEASE_MS": str(LEASE_MS),
            "CANCELQ_EGRESS": "crash",
            f"{account}BASE_URL": f"http://127.0.0.1:{venue_port}",
            f"{account}WS_URL": stream,
            f"{account}API_KEY": DEMO_KEY,
            f"{account}API_SECRET": DEMO_SECRET,
        }
        return env | ({f"{account}PASSPHRASE": DEMO_PASSPHRASE} if self.lane.venue == "bitget" else {})

    # -- what happens -------------------------------------------------------------------------------------------

    async def _ask(self) -> None:
        """Every intent in one transaction, so that one take finds them all."""
        if self.cell.flow == "push":
            await until(self._streamed, PATIENCE_S)
        symbol, now_ms = self.place.spelt("BTC"), time.time_ns() // 1_000_000
        # A bulk call is not worth its while for one order everywhere.
        count = max(2, self.cell.batch) if self.cell.flow == "bulk" else self.cell.batch
        orders = tuple(self._order(symbol, now_ms) for _ in range(count))
        intents: list[dict[Any, Any]] = [{"symbol": symbol, "order_id": order} for order in orders]
        if self.cell.sweeps:
            # Narrowed, so that no bulk call is made, unless that one is what this is about.
            narrowed = {} if self.cell.flow == "bulk" else {"older_than_ms": str(now_ms)}
            intents = [{"scope": "symbol", "symbol": symbol, **narrowed}]
        async with self.redis.pipeline(transaction=True) as pipe:
            for n, fields in enumerate(intents):
                own = {"id": f"i-{n}"} if n % 2 else {"x_n": str(n)}
                pipe.xadd(self.lane.inbox, dict(fields | own))
                self.played.asks[own.get("id", f"n:{n}")] = Ask(orders if self.cell.sweeps else (orders[n],))
            self.played.acknowledged = [i.decode() for i in await pipe.execute()]

    def _order(self, symbol: str, now_ms: int) -> str:
        entry = Entry(symbol, Kind.order, created_ms=now_ms - 60_000)
        return str(self.simulator.add_order(entry, venue=self.lane.venue).order_id)

    async def _suffer(self) -> None:
        """Until the fault has happened, or everything is told without it."""
        await until(self._fired_or_told, PATIENCE_S)
        if self.plan.fired.exists():
            told = json.loads(self.plan.fired.read_text())
            self.played.fault_us, self.played.victim = told["at_us"], told["pid"]

    async def _heal(self) -> None:
        """A stopped worker goes on some time after its lease. Then until everything is told, or must be."""
        until_s = time.monotonic() + SETTLE_S + NOISE_S + 5
        stopped_until_s = time.monotonic() + STOPPED_MOST_S
        stopped = self.cell.fault == "stop" and self.played.victim
        while time.monotonic() < until_s:
            told = await self._all_told()
            if stopped and time.monotonic() > stopped_until_s:
                self._zygote.signal(self.played.victim, signal.SIGCONT)
                stopped = False
                # It has still to find out that it is late.
                until_s, stopped_until_s = max(until_s, time.monotonic() + 2), 0.0
                await asyncio.sleep(1.0)
                continue
            if told and not stopped:
                return
            await asyncio.sleep(LOOK_S)

    async def _streamed(self) -> bool:
        return bool(await self.redis.exists(self.lane.key("stream")))

    async def _fired_or_told(self) -> bool:
        return self.plan.fired.exists() or await self._all_told()

    async def _all_told(self) -> bool:
        told = await read_streams(self.redis, self.lane)
        return len(told.finals) >= len(self.played.acknowledged)

    async def _end(self) -> None:
        """TERM for both."""
        begun_s = time.monotonic()
        for pid in self.pids:
            self._zygote.signal(pid, signal.SIGCONT)
            self._zygote.signal(pid, signal.SIGTERM)
        for pid in self.pids:
            self.played.exits[pid] = await self._zygote.ended(pid, begun_s + DRAIN_S + NOISE_S - time.monotonic())
            self._zygote.signal(pid, signal.SIGKILL)
        self.played.drained_s = time.monotonic() - begun_s

    async def _read(self) -> None:
        self.played.told = await read_streams(self.redis, self.lane)


async def play(cell: Cell, redis_port: int, database: int, zygote: Zygote, folder: Path) -> Played:
    """Plays a cell. `folder` is empty and its own, `database` too."""
    return await Stage(cell, redis_port, database, zygote, folder).play()
