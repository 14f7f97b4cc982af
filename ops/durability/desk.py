"""The desk that the harm is done to: three simulated venues, a worker on them, and intents of every kind."""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections.abc import AsyncIterator, Iterable, Mapping
from dataclasses import dataclass, field

import redis.asyncio as aioredis

from cancelq.contract import Event, Lane, Status
from cancelq_worker import wiring
from cancelq_worker.settings import Settings
from cancelq_worker.simulator.app import serve as serve_simulator
from cancelq_worker.simulator.core import Entry
from cancelq_worker.simulator.faults import Fault
from cancelq_worker.simulator.orders import Kind, State
from cancelq_worker.simulator.simulator import DEMO_KEY, DEMO_PASSPHRASE, DEMO_SECRET, Simulator
from cancelq_worker.trips import command, connect

LANES = (Lane("bitget", "main"), Lane("bybit", "main"), Lane("bingx", "main"))
LEASE_MS = 3_000
LOOK_S = 0.02
DRAIN_S = 15.0
SWEEPS_MOST = 100
#: Where a call is answered badly, by venue.
CANCELS = {"bitget": "cancel-order batch-cancel-order", "bybit": "cancel cancel-batch", "bingx": "cancel cancelOrders"}
BAD_ANSWERS = ("execute_and_drop", "http_500", "http_500_executed", "half_body", "reset", "missing_items")

Fields = dict[str, str]


@dataclass
class Desk:
    """The venues and the truth about them; `rng` decides what is asked."""

    simulator: Simulator
    base_url: str
    rng: random.Random
    asked: int = 0
    #: The pairs of sweeps, one for each, by the sweep's id.
    swept: dict[str, str] = field(default_factory=dict)

    def order(self, lane: Lane, kind: str = "order", symbol: str = "", state: str = "live", client_id: str = "") -> str:
        """A new order at the lane's venue; its id."""
        entry = Entry(
            symbol or self.spelt(lane, "BTC"),
            Kind(kind),
            client_id=client_id,
            trigger_price="" if kind == "order" else "90",
            created_ms=time.time_ns() // 1_000_000 - 3_000,
        )
        return str(self.simulator.add_order(entry, venue=lane.venue, state=State(state)).order_id)

    def spelt(self, lane: Lane, base: str) -> str:
        return self.simulator.venues[lane.venue].spell(base, "USDT")

    def intents(self, lane: Lane, number: int) -> list[Fields]:
        """So many intents of a lane, in the mix a desk has; some repeat an id before them."""
        made: list[Fields] = []
        while len(made) < number:
            self.asked += 1
            made += self._some(lane, self.asked, made)
        return made[:number]

    def _some(self, lane: Lane, n: int, before: list[Fields]) -> list[Fields]:
        draw, pair = self.rng.random(), self.spelt(lane, "BTC")
        base = {"symbol": pair, "x_n": str(n), **({"id": f"i-{n}"} if self.rng.random() < 0.7 else {})}
        if draw < 0.08:
            self.order(lane, client_id=f"mine{n}")
            return [{**base, "client_order_id": f"mine{n}"}]
        if draw < 0.16:
            kind = self.rng.choice(["tpsl", "plan"])
            return [{**base, "scope": "tpsl" if kind == "tpsl" else "stop", "order_id": self.order(lane, kind)}]
        if draw < 0.20:
            return [{**base, "order_id": self.order(lane, state="filled")}]
        if draw < 0.24:
            return [{**base, "symbol": "BTC/USDT", "order_id": "1"}]
        if draw < 0.30 and any("id" in fields for fields in before):
            again = dict(self.rng.choice([fields for fields in before if "id" in fields]))
            return [again if self.rng.random() < 0.5 else {**again, "reason": "changed"}]
        if draw < 0.36:
            timed = {**base, "id": f"i-{n}", "order_id": self.order(lane)}
            timed["not_before_ms"] = str(time.time_ns() // 1_000_000 + self.rng.randrange(200, 2_500))
            return [timed, {"scope": "revoke", "target": f"i-{n}", "id": f"r-{n}"}] if draw < 0.33 else [timed]
        if draw < 0.38 and len(self.swept) < SWEEPS_MOST:
            return [self._sweep(lane, n)]
        urgent = {"priority": "urgent"} if draw > 0.92 else {}
        return [{**base, **urgent, "order_id": self.order(lane)}]

    def _sweep(self, lane: Lane, n: int) -> Fields:
        symbol = self.spelt(lane, f"S{len(self.swept)}")
        for _ in range(self.rng.randrange(1, 6)):
            self.order(lane, symbol=symbol)
        self.swept[f"i-{n}"] = symbol
        return {"id": f"i-{n}", "scope": "symbol", "symbol": symbol}

    def misbehave(self, lane: Lane, times: int) -> None:
        """So many of the lane's next cancels are answered badly."""
        for _ in range(times):
            self.simulator.add_fault(Fault(self.rng.choice(BAD_ANSWERS), endpoint=CANCELS[lane.venue]))

    def settings(self, url: str, lanes: Iterable[Lane] = LANES) -> Settings:
        """A worker's settings on a server."""
        env = {"CANCELQ_REDIS_URL": url, "CANCELQ_LEASE_MS": str(LEASE_MS), "CANCELQ_EGRESS": "durability"}
        for lane in lanes:
            account = f"CANCELQ_ACCOUNTS__{lane.venue}__{lane.account}__".upper()
            env |= {
                f"{account}BASE_URL": self.base_url,
                f"{account}API_KEY": DEMO_KEY,
                f"{account}API_SECRET": DEMO_SECRET,
            }
            if lane.venue == "bitget":
                env[f"{account}PASSPHRASE"] = DEMO_PASSPHRASE
        return Settings.load(None, env)

    def untrue(self, lane: Lane, event: Event) -> str:
        """How an outcome contradicts the venue's own book, "" if it does not."""
        venue = lane.venue
        if event.id in self.swept:
            rows = self.simulator.truth(venue=venue).entries if event.status is Status.cancelled else []
            still = [r["order_id"] for r in rows if r["symbol"] == self.swept[event.id] and r["open"]]
            return f"{event.id}: cancelled, but {still} are open" if still else ""
        if event.status in (Status.expired, Status.revoked, Status.unresolved) or event.scope == "revoke":
            return ""
        rows = self.simulator.truth_of([event.order_id or ""], venue=venue).entries
        state = str(rows[0]["state"]) if rows else "unknown"
        meant = {"closed": "failed", "rejected": "unknown", "not_found": "unknown"}.get(event.status, event.status)
        return "" if state == meant else f"{event.id}: {event.status} ({event.detail}), but it is {state}"


@contextlib.asynccontextmanager
async def open_desk(seed: int) -> AsyncIterator[Desk]:
    """The simulated venues on a socket, without limits and locks of their own: each worker that goes on with what a cut
    left is the first to ask, as far as it knows."""
    simulator = Simulator(rng=random.Random(seed))
    pairs = [*simulator.core.settings.pairs, *(f"S{n}-USDT" for n in range(SWEEPS_MOST))]
    simulator.configure(
        {"pairs": pairs, "limits": {"*": None}, "symbol_cancel_delay_ms": 20, "bingx_error_lock_count": 0}
    )
    async with serve_simulator(simulator) as served:
        yield Desk(simulator, served.base_url, random.Random(seed))


@contextlib.asynccontextmanager
async def working(
    desk: Desk, url: str, lanes: Iterable[Lane] = LANES, *, drain_s: float = DRAIN_S
) -> AsyncIterator[None]:
    """A worker on the server at `url`; it gets `drain_s` to drain in the end."""
    stop = asyncio.Event()
    settings = desk.settings(url, lanes)
    worker = asyncio.ensure_future(wiring.serve(settings, worker_name="w1", stop=stop, suspended=lambda: False))
    try:
        yield
    finally:
        stop.set()
        await asyncio.wait({worker}, timeout=drain_s)
        worker.cancel()
        await asyncio.gather(worker, return_exceptions=True)


async def add(client: aioredis.Redis, lane: Lane, fields: Mapping[str, str]) -> str | None:
    """One plain XADD; the entry's id, None if the lane is not open."""
    flat = [word for pair in fields.items() for word in pair]
    entry = await command(client, "XADD", lane.inbox, "NOMKSTREAM", "*", *flat)
    return None if entry is None else str(entry.decode())


async def until_open(client: aioredis.Redis, lanes: Iterable[Lane] = LANES) -> None:
    """Until the lanes can be written to."""
    inboxes = [lane.inbox for lane in lanes]
    async with asyncio.timeout(20):
        while await client.exists(*inboxes) < len(inboxes):
            await command(client, "XREAD", "BLOCK", 20, "STREAMS", inboxes[0], "$")  # the server keeps the time


async def finals(client: aioredis.Redis, lane: Lane) -> dict[str, list[Event]]:
    """The final events of a lane, by id."""
    found: dict[str, list[Event]] = {}
    for entry_id, flat in await command(client, "XRANGE", lane.results, "-", "+"):
        event = Event.read(entry_id.decode(), dict(zip(flat[::2], flat[1::2], strict=True)))
        if event.final:
            found.setdefault(event.id, []).append(event)
    return found


def reader(url: str) -> aioredis.Redis:
    """A client whose replies to stream commands are as the server gave them."""
    client = connect(url)
    client.response_callbacks.pop("XRANGE", None)
    return client
