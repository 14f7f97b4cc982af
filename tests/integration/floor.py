"""A floor of several lanes, at any of the venues, in one process: a real Redis, the simulated venues on one socket, and
engines that serve every lane. Where one Bitget lane is enough, `rig.py` is shorter."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

import redis.asyncio as aioredis

from cancelq.contract import Event, Lane
from cancelq_worker import operate, wiring
from cancelq_worker.settings import Settings
from cancelq_worker.simulator import Account, Entry, Fault, Kind, Simulator, State
from cancelq_worker.simulator import serve as serve_simulator
from cancelq_worker.trips import command, connect

STREAM_PATHS = {"bitget": "/v2/ws/private", "bybit": "/v5/private", "bingx": "/market"}
KINDS = {"order": Kind.order, "tpsl": Kind.tpsl, "stop": Kind.plan}


def spelled(venue: str, pair: str = "BTC-USDT") -> str:
    """The pair as the venue writes it."""
    return pair if venue == "bingx" else pair.replace("-", "")


class Floor:
    """Orders are entered with `order`, cancels asked for with `send`, outcomes awaited with `finals`; `truth` is the
    venue's own."""

    def __init__(self, redis_url: str, base_url: str, simulator: Simulator, client: aioredis.Redis) -> None:
        self.redis_url = redis_url
        self.base_url = base_url
        self.simulator = simulator
        self.client = client
        self.streams = False
        self.env: dict[str, str] = {}
        self.lanes: list[Lane] = []
        self._engines: dict[str, tuple[asyncio.Event, asyncio.Task[None]]] = {}
        self._at: dict[str, str] = {}
        self._reading = asyncio.Lock()
        self._finals: dict[tuple[str, str], list[Event]] = {}
        self.told: list[Event] = []

    # -- preparing --------------------------------------------------------------------------------------------

    def add_lane(self, name: str) -> Lane:
        """A lane with an account of its own at its simulated venue."""
        lane = Lane.parse(name)
        key = f"key-{lane.venue}-{lane.account}"
        self.simulator.add_account(Account(lane.venue, key, f"secret-{key}", "pass", uid_of(lane)))
        self.lanes.append(lane)
        return lane

    def order(self, lane: Lane, kind: str = "order", state: str = "live", **more: Any) -> str:
        """A new order in the lane's account; its id."""
        more.setdefault("created_ms", time.time_ns() // 1_000_000 - 1000)
        more.setdefault("trigger_price", "" if kind == "order" else "90")
        symbol, filled = more.pop("symbol", spelled(lane.venue)), more.pop("filled", None)
        closed_ms = more.pop("closed_ms", None)
        entry = Entry(symbol, KINDS[kind], **more)
        return self.simulator.add_order(
            entry, venue=lane.venue, uid=uid_of(lane), state=State(state), filled=filled, closed_ms=closed_ms
        ).order_id

    def fault(self, lane: Lane, kind: str, **more: Any) -> None:
        """Orders the venue to misbehave towards the lane's account."""
        self.simulator.add_fault(Fault(kind, uid=uid_of(lane), **more))

    def truth(self, lane: Lane, order_id: str) -> dict[str, Any]:
        """What the venue did with an order."""
        (row,) = self.simulator.truth_of([order_id], venue=lane.venue, uid=uid_of(lane)).entries
        return dict(row)

    def calls(self, lane: Lane, named: str = "") -> list[dict[str, Any]]:
        """The calls of the lane's account whose endpoint has `named` in it."""
        return [
            c for c in self.simulator.calls().entries
            if c["venue"] == lane.venue and c["uid"] == uid_of(lane) and named in str(c["endpoint"])
        ]  # fmt: skip

    def refused(self) -> int:
        """Units the venues refused for their rate."""
        return sum(int(row["refused"]) for row in self.simulator.rates())

    # -- running ----------------------------------------------------------------------------------------------

    async def start(self, name: str = "w1", **env: str) -> None:
        """Starts one more engine, and waits until every lane can be written to."""
        stop = asyncio.Event()
        settings = Settings.load(None, {**self.environment(), **env})
        task = asyncio.ensure_future(wiring.serve(settings, worker_name=name, stop=stop, suspended=lambda: False))
        self._engines[name] = stop, task
        async with asyncio.timeout(20):
            for lane in self.lanes:
                while not await self.client.exists(lane.inbox):
                    assert not task.done(), task
                    await self._tick()

    def environment(self) -> Mapping[str, str]:
        env = {"CANCELQ_REDIS_URL": self.redis_url, **self.env}
        for lane in self.lanes:
            account = f"CANCELQ_ACCOUNTS__{lane.venue}__{lane.account}__".upper()
            key = f"key-{lane.venue}-{lane.account}"
            env |= {
                f"{account}BASE_URL": self.base_url,
                f"{account}API_KEY": key,
                f"{account}API_SECRET": f"secret-{key}",
            }
            if lane.venue == "bitget":
                env[f"{account}PASSPHRASE"] = "pass"
            if self.streams:
                env[f"{account}WS_URL"] = self.base_url.replace("http", "ws", 1) + STREAM_PATHS[lane.venue]
        return env

    async def _tick(self) -> None:
        """A moment of Redis' time."""
        await command(self.client, "XREAD", "BLOCK", 10, "STREAMS", "nothing", "$")

    async def until(self, true: Any, within_s: float = 20.0) -> None:
        """Waits until a condition holds; it may be a coroutine function."""
        async with asyncio.timeout(within_s):
            while True:
                result = true()
                if await result if asyncio.iscoroutine(result) else result:
                    return
                await self._tick()

    async def streaming(self) -> None:
        """Until every lane's order stream is alive."""
        for lane in self.lanes:

            async def alive(lane: Lane = lane) -> bool:
                return bool(await self.client.exists(lane.key("stream")))

            await self.until(alive)

    async def stop(self) -> None:
        """Drains every engine."""
        for stop, _ in self._engines.values():
            stop.set()
        for name in list(self._engines):
            await self.stop_one(name)

    async def stop_one(self, name: str) -> None:
        """Drains one engine."""
        stop, task = self._engines.pop(name)
        stop.set()
        await asyncio.wait_for(task, 15)

    async def held(self, lane: Lane, reason: str) -> bool:
        """Whether a lane is held for a reason."""
        return bool(await command(self.client, "HEXISTS", lane.key("hold"), f"*|{reason}"))

    async def resume(self, lane: Lane) -> None:
        """What an operator does once the key is mended."""
        await operate.resume(self.client, lane, "test")

    async def get(self, key: str) -> str:
        """A string of Redis, "" where there is none."""
        value = await command(self.client, "GET", key)
        return value.decode() if value else ""

    async def admitted(self, lane: Lane, id_: str) -> bool:
        """Whether an intent is open in the lane."""
        return bool(await command(self.client, "HEXISTS", lane.key("state"), id_))

    # -- asking and being told --------------------------------------------------------------------------------

    async def send(self, lane: Lane, **fields: str) -> str:
        """Queues an intent with one plain XADD; its id."""
        return (await self.send_all(lane, [fields]))[0]

    async def send_all(self, lane: Lane, entries: Sequence[Mapping[Any, Any]]) -> list[str]:
        """Queues several at once, in one transaction; their ids."""
        async with self.client.pipeline(transaction=True) as pipe:
            for fields in entries:
                pipe.xadd(lane.inbox, dict(fields))
            ids = await pipe.execute()
        return [fields.get("id") or i.decode() for fields, i in zip(entries, ids, strict=True)]

    async def read(self) -> None:
        """Takes in what was told since."""
        async with self._reading:
            for lane in self.lanes:
                await self._read(lane)

    async def _read(self, lane: Lane) -> None:
        at = self._at.get(lane.results, "0-0")
        for entry_id, flat in await command(self.client, "XRANGE", lane.results, f"({at}", "+"):
            self._at[lane.results] = entry_id.decode()
            event = Event.read(entry_id.decode(), dict(zip(flat[::2], flat[1::2], strict=True)))
            self.told.append(event)
            if event.final:
                self._finals.setdefault((str(lane), event.id), []).append(event)

    async def final(self, lane: Lane, id_: str, within_s: float = 40.0) -> Event:
        """The one final event of an intent."""
        return (await self.finals(lane, [id_], within_s))[id_]

    async def finals(self, lane: Lane, ids: Iterable[str], within_s: float = 40.0) -> dict[str, Event]:
        """The final events of several intents of a lane, each exactly one."""
        wanted = {id_: (str(lane), id_) for id_ in ids}
        try:
            async with asyncio.timeout(within_s):
                while True:
                    await self.read()
                    if all(key in self._finals for key in wanted.values()):
                        break
                    await self._tick()
        except TimeoutError:
            missing = [id_ for id_, key in wanted.items() if key not in self._finals]
            raise AssertionError(f"no outcome of {missing} on {lane} within {within_s} s") from None
        found = {id_: self._finals[key] for id_, key in wanted.items()}
        assert all(len(events) == 1 for events in found.values()), "an intent with two outcomes"
        return {id_: events[0] for id_, events in found.items()}


def uid_of(lane: Lane) -> str:
    """The UID of a lane's account at its simulated venue."""
    return f"u-{lane.venue}-{lane.account}"


@asynccontextmanager
async def floor(
    redis_url: str,
    *lanes: str,
    workers: int = 1,
    streams: bool = False,
    env: Mapping[str, str] | None = None,
    **sim: Any,
) -> AsyncIterator[Floor]:
    """A running floor with these lanes. Keyword arguments are the simulator's settings."""
    simulator = Simulator(rng=random.Random(7))
    if sim:
        simulator.configure(sim)
    client = connect(redis_url, timeout_s=5.0)
    client.response_callbacks.pop("XRANGE", None)
    async with serve_simulator(simulator) as served:
        made = Floor(redis_url, served.base_url, simulator, client)
        made.streams, made.env = streams, dict(env or {})
        for name in lanes:
            made.add_lane(name)
        try:
            for n in range(workers):
                await made.start(f"w{n + 1}")
            yield made
        finally:
            await made.stop()
            await client.aclose()
