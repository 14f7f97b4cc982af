"""One run: the parts it is made of, what was asked on each lane, what was done to it, and what went wrong."""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path

import redis.asyncio as aioredis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from cancelq.contract import Lane
from cancelq_worker.embedded import EmbeddedServer
from cancelq_worker.records import ERRORS_MOST
from cancelq_worker.simulator.core import Entry
from cancelq_worker.simulator.orders import Kind
from cancelq_worker.simulator.simulator import DEMO_UID, Simulator
from cancelq_worker.trips import command
from ops.chaos.links import Link
from ops.chaos.places import Place
from ops.chaos.workers import Slot
from ops.checks import Ask, Broken, Told


@dataclass
class Desk:
    """One lane, seen from its producers: what was asked there and what the server said to it. `plain`: the share of
    its intents that are no more than a normal order by its id; the venues' batches carry none but these by the dozen.
    """

    place: Place
    simulator: Simulator
    asks: dict[str, Ask] = field(default_factory=dict)
    acknowledged: list[str] = field(default_factory=list)
    refused_adds: int = 0
    pair: int = 0
    sent: int = 0
    plain: float = 0.0

    @property
    def lane(self) -> Lane:
        return self.place.lane

    def now_ms(self) -> int:
        """The wall clock."""
        return time.time_ns() // 1_000_000

    def new_order(self, kind: str = "order", symbol: str = "", client_id: str = "", age_ms: int = 3000) -> str:
        """Places an order that is that old; returns its id."""
        entry = Entry(
            symbol or self.place.spelt("BTC"),
            Kind(kind),
            client_id=client_id,
            trigger_price="" if kind == "order" else "90",
            created_ms=self.now_ms() - age_ms,
        )
        return str(self.simulator.add_order(entry, venue=self.lane.venue).order_id)

    def new_pair(self) -> str:
        """A pair that nothing else uses."""
        self.pair += 1
        return self.place.spelt(f"S{self.pair}")

    def left_open(self, symbol: str) -> list[str]:
        """Orders of a pair that the venue has open now."""
        book = self.simulator.core.book(self.lane.venue, DEMO_UID)
        return [str(order.order_id) for order in book.orders if order.symbol == symbol and order.is_open]


@dataclass
class World:
    """`faults` counts what was done, by kind; `measured_ms` keeps times by what was measured; `tolds` are the
    streams as they were at the end; `closed_s`: by how much later than promised a lane may settle, as an endpoint
    was left alone that its venue locks after equal errors; `behind`: the lanes that are not done yet with what waited
    for one."""

    rng: random.Random
    folder: Path
    server: EmbeddedServer
    simulator: Simulator
    url: str
    desks: list[Desk]
    producers_link: Link
    slots: list[Slot] = field(default_factory=list)
    faults: Counter[str] = field(default_factory=Counter)
    measured_ms: dict[str, list[float]] = field(default_factory=dict)
    broken: list[Broken] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    closed_s: dict[Lane, float] = field(default_factory=dict)
    behind: set[Lane] = field(default_factory=set)
    tolds: dict[Lane, Told] = field(default_factory=dict)
    began_s: float = field(default_factory=time.monotonic)

    def tell(self, promise: str, what: str) -> None:
        self.broken.append(Broken(promise, what))

    def at(self) -> float:
        """Seconds since the run began."""
        return time.monotonic() - self.began_s

    def did(self, fault: str) -> None:
        self.faults[fault] += 1
        self.notes.append(f"{self.at():7.2f} {fault}")

    def measured(self, what: str, ms: float) -> None:
        self.measured_ms.setdefault(what, []).append(ms)


def client(url: str) -> aioredis.Redis:
    """Asks once; raw replies to stream commands."""
    made = aioredis.Redis.from_url(url, protocol=2, retry=Retry(NoBackoff(), 0), socket_timeout=3)
    for parsed in ("XREAD", "XRANGE", "XREVRANGE"):
        made.response_callbacks.pop(parsed, None)
    return made


async def all_serving(world: World) -> bool:
    """Whether every slot has a worker that serves."""
    return all(slot.alive and slot.serving for slot in world.slots)


async def closed_by_errors(redis: aioredis.Redis, lane: Lane) -> bool:
    """Whether workers leave an endpoint of the venue alone, as it would lock it after a few more equal errors: BingX.
    What only that endpoint can cancel waits until the oldest of them is forgotten."""
    for key in [key async for key in redis.scan_iter(f"cancelq:{{{lane}}}:errors:*")]:
        members: list[bytes] = await command(redis, "ZRANGE", key, 0, -1)
        codes = Counter(member.split(b" ")[0] for member in members)
        if max(codes.values(), default=0) >= ERRORS_MOST:
            return True
    return False


async def until(true: Callable[[], Awaitable[bool]], within_s: float) -> bool:
    """Whether it came true in time; a server that cannot be asked just now is asked again."""
    end_s = time.monotonic() + within_s
    while time.monotonic() < end_s:
        with contextlib.suppress(RedisError, OSError):
            if await true():
                return True
        await asyncio.sleep(0.1)
    return False
