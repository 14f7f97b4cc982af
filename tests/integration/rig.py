"""A whole desk in one process for tests: a real Redis, the simulated venue on a socket, one or more engines."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

import redis.asyncio as aioredis

from cancelq.contract import Event, Lane
from cancelq_worker import wiring
from cancelq_worker.settings import Settings
from cancelq_worker.simulator.app import serve as serve_simulator
from cancelq_worker.simulator.core import Entry
from cancelq_worker.simulator.faults import Fault
from cancelq_worker.simulator.orders import Kind, State
from cancelq_worker.simulator.simulator import DEMO_KEY, DEMO_PASSPHRASE, DEMO_SECRET, Simulator
from cancelq_worker.trips import command

LANE = Lane("bitget", "main")


#: Ways in which a venue can leave unclear what became of a call, whichever venue it is.
UNCLEAR = (
    "drop",
    "execute_and_drop",
    "reset",
    "half_body",
    "http_500",
    "http_500_executed",
    "html_200",
    "html_502",
    "unknown_code",
    "empty_200",
    "wrong_ids",
    "missing_items",
    "repeat_items",
)


class Rig:
    """`send` asks for a cancel, `final` waits for its one outcome, `truth` is the venue's own."""

    def __init__(
        self, redis_url: str, base_url: str, simulator: Simulator, client: aioredis.Redis, lane: Lane = LANE
    ) -> None:
        self.redis_url = redis_url
        self.base_url = base_url
        self.simulator = simulator
        self.client = client
        self.lane = lane
        self.engines: list[tuple[asyncio.Event, asyncio.Task[None]]] = []
        self.suspended = False
        self.overrides: dict[str, str] = {}
        self.stream_path = ""  # of the venue's private order stream; "": off
        self._events: list[Event] = []
        self._at = "0-0"

    def order(self, kind: str = "order", state: str = "live", **more: Any) -> str:
        """A new order at the venue; its id."""
        more.setdefault("created_ms", time.time_ns() // 1_000_000 - 1000)
        filled, symbol = more.pop("filled", None), more.pop("symbol", self.spelt("BTC", "USDT"))
        entry = Entry(symbol, Kind(kind), trigger_price="" if kind == "order" else "90", **more)
        return str(self.simulator.add_order(entry, state=State(state), filled=filled, venue=self.lane.venue).order_id)

    def spelt(self, base: str, quote: str) -> str:
        """A pair as the lane's venue spells it."""
        return self.simulator.venues[self.lane.venue].spell(base, quote)

    def fault(self, kind: str, **more: Any) -> None:
        self.simulator.add_fault(Fault(kind, **more))

    def start(self, name: str = "w1", **env: str) -> None:
        """Starts one more engine."""
        stop = asyncio.Event()
        settings = Settings.load(None, self.environment(**{**self.overrides, **env}))
        task = asyncio.ensure_future(
            wiring.serve(settings, worker_name=name, stop=stop, suspended=lambda: self.suspended)
        )
        self.engines.append((stop, task))

    def environment(self, **env: str) -> Mapping[str, str]:
        account = f"CANCELQ_ACCOUNTS__{self.lane.venue.upper()}__MAIN__"
        passphrase = {f"{account}PASSPHRASE": DEMO_PASSPHRASE} if self.lane.venue == "bitget" else {}
        return {
            "CANCELQ_REDIS_URL": self.redis_url,
            f"{account}BASE_URL": self.base_url,
            f"{account}API_KEY": DEMO_KEY,
            f"{account}API_SECRET": DEMO_SECRET,
            **passphrase,
            f"{account}WS_URL": self.base_url.replace("http", "ws", 1) + self.stream_path if self.stream_path else "",
            **env,
        }

    async def stop(self) -> None:
        """Drains every engine."""
        for stop, _ in self.engines:
            stop.set()
        for _, task in self.engines:
            await asyncio.wait_for(task, 15)
        self.engines.clear()

    async def ready(self) -> None:
        """Until the lane can be written to."""
        async with asyncio.timeout(10):
            while not await self.client.exists(self.lane.inbox):
                await command(self.client, "XREAD", "BLOCK", 10, "STREAMS", self.lane.inbox, "$")

    async def calls(self, named: str, least: int = 1) -> list[dict[str, Any]]:
        """Calls whose endpoint has `named` in it, once there are `least` at the venue's door."""
        async with asyncio.timeout(10):
            while True:
                found = [c for c in self.simulator.calls().entries if named in str(c["endpoint"])]
                if len(found) >= least:
                    return found
                # The venue is no stream one could block on: Redis keeps the time.
                await command(self.client, "XREAD", "BLOCK", 10, "STREAMS", self.lane.inbox, "$")

    async def send_all(self, entries: Sequence[Mapping[Any, Any]]) -> list[str]:
        """Queues several intents at once, in one transaction; their ids."""
        await self.ready()
        async with self.client.pipeline(transaction=True) as pipe:
            for entry in entries:
                pipe.xadd(self.lane.inbox, dict(entry))
            return [i.decode() for i in await pipe.execute()]

    async def send(self, **fields: str) -> str:
        """Queues an intent as any client would: one XADD. The intent's id."""
        await self.ready()
        flat = [word for pair in fields.items() for word in pair]
        entry_id = await command(self.client, "XADD", self.lane.inbox, "NOMKSTREAM", "*", *flat)
        return fields.get("id") or str(entry_id.decode())

    async def events(self) -> list[Event]:
        """Everything told so far."""
        for entry_id, flat in await command(self.client, "XRANGE", self.lane.results, f"({self._at}", "+"):
            self._at = entry_id.decode()
            self._events.append(Event.read(self._at, dict(zip(flat[::2], flat[1::2], strict=True))))
        return self._events

    async def of(self, id_: str) -> list[Event]:
        """Every event of one intent so far."""
        return [event for event in await self.events() if event.id == id_]

    async def final(self, id_: str, within_s: float = 30.0) -> Event:
        """The final event of an intent."""
        return (await self.finals([id_], within_s))[id_]

    async def finals(self, ids: list[str], within_s: float = 30.0) -> dict[str, Event]:
        """The final events of several intents, each exactly one."""
        async with asyncio.timeout(within_s):
            while True:
                found: dict[str, list[Event]] = {}
                for event in await self.events():
                    if event.final and event.id in ids:
                        found.setdefault(event.id, []).append(event)
                if len(found) == len(set(ids)):
                    assert all(len(events) == 1 for events in found.values()), "an intent with two outcomes"
                    return {id_: events[0] for id_, events in found.items()}
                await command(self.client, "XREAD", "BLOCK", 200, "STREAMS", self.lane.results, self._at)

    def truth(self, order_id: str) -> dict[str, Any]:
        """What the venue did with one order."""
        (row,) = self.simulator.truth_of([order_id], venue=self.lane.venue).entries
        return dict(row)

    def refused(self) -> int:
        """Calls the venue refused for their rate."""
        return sum(int(row["refused"]) for row in self.simulator.rates())


@asynccontextmanager
async def desk(
    redis_url: str,
    *,
    venue: str = "bitget",
    workers: int = 1,
    env: Mapping[str, str] | None = None,
    stream_path: str = "",
    **sim: Any,
) -> AsyncIterator[Rig]:
    """A running desk with the lane `main` of a venue. Keyword arguments are the simulator's settings."""
    simulator = Simulator(rng=random.Random(7))
    if sim:
        simulator.configure(sim)
    client = aioredis.Redis.from_url(redis_url, protocol=2)
    for parsed in ("XREAD", "XRANGE"):
        client.response_callbacks.pop(parsed, None)
    async with serve_simulator(simulator) as served:
        rig = Rig(redis_url, served.base_url, simulator, client, Lane(venue, "main"))
        rig.overrides = dict(env or {})
        rig.stream_path = stream_path
        for n in range(workers):
            rig.start(f"w{n + 1}")
        try:
            yield rig
        finally:
            await rig.stop()
            await client.aclose()
