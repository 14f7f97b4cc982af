"""Chaos: real worker processes between a real server and the simulated venue, everything failing at once.

    make chaos SECONDS=120 SEED=7 VENUE=bybit

Faults and intents come from the seed: workers are killed, stopped and told to drain; the server is killed, forgets
its scripts, runs out of memory; links stall, break and swallow replies; the venue lies in every way it knows. Then
all of it heals, and what was accepted (the inbox), what was told (the results) and what is true (the venue's book)
are joined. Each broken promise is one line; the exit status is 1 if there is any. Timing is the machine's own, so a
seed repeats the plan, not every interleaving.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import random
import signal
import struct
import subprocess
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from socket import SO_LINGER, SOL_SOCKET
from typing import Any

import redis.asyncio as aioredis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError, ResponseError

from cancelq.contract import Accepted, Event, Lane, Refused, Status, read_entry
from cancelq_worker.embedded import EmbeddedServer, free_port
from cancelq_worker.simulator.app import serve as serve_simulator
from cancelq_worker.simulator.core import Entry
from cancelq_worker.simulator.faults import Fault
from cancelq_worker.simulator.orders import Kind
from cancelq_worker.simulator.simulator import DEMO_KEY, DEMO_PASSPHRASE, DEMO_SECRET, Simulator

LEASE_MS = 4_000
SETTLE_S = 2 * LEASE_MS / 1000 + 10  # promised: everything is settled that long after the last fault
DRAIN_S = 10.0  # promised: TERM ends a worker within
GIVE_UP_S = 60.0
MAX_ATTEMPTS, MAX_LOOKUPS = 5, 160
COMMAND = (sys.executable, "-c", "from cancelq_worker.cli import main; main()", "worker")
#: Lies that no client could find out (a row under a neighbour's id, a list that leaves one out) would make a false
#: outcome the venue's own; so lists are only repeated, dropped, delayed and broken.
FAULTS_OF_CANCELS = [
    "execute_and_drop",
    "drop",
    "reset",
    "half_body",
    "http_500",
    "http_500_executed",
    "http_429",
    "html_200",
    "html_502",
    "empty_200",
    "garbage_200",
    "slow_ms",
    "late_ms",
    "hang",
    "wrong_ids",
    "missing_items",
    "repeat_items",
    "unknown_code",
]
FAULTS_OF_LOOKS = [
    "drop",
    "reset",
    "half_body",
    "http_500",
    "http_429",
    "html_200",
    "html_502",
    "empty_200",
    "garbage_200",
    "slow_ms",
    "slow_drip",
    "hang",
    "repeat_items",
    "unknown_code",
]


@dataclass(frozen=True)
class Place:
    """Where it happens: a venue's lane, its endpoints and words, and how many intents a second it can take."""

    lane: Lane
    cancels: tuple[str, ...]
    looks: tuple[str, ...]
    cancel_codes: tuple[str, ...]
    look_codes: tuple[str, ...]
    bulk: tuple[str, ...]
    stream_path: str
    per_s: float

    def spelt(self, base: str) -> str:
        """A pair against USDT, as the venue writes it."""
        return f"{base}-USDT" if self.lane.venue == "bingx" else f"{base}USDT"


PLACES = {
    "bitget": Place(
        Lane("bitget", "main"),
        ("cancel-order", "batch-cancel-order", "cancel-plan-order"),
        ("orderInfo", "history-orders", "unfilled-orders", "current-plan-order", "history-plan-order"),
        ("code:45129", "code:40725", "code:40808"),
        ("code:40725",),
        ("cancel-symbol-order",),
        "/v2/ws/private",
        40.0,
    ),
    "bybit": Place(
        Lane("bybit", "main"),
        ("cancel", "cancel-batch"),
        ("realtime", "history"),
        ("code:170191", "code:10016", "code:170213"),
        ("code:10016",),
        ("cancel-all",),
        "/v5/private",
        12.0,
    ),
    "bingx": Place(
        Lane("bingx", "main"),
        ("cancel", "cancelOrders"),
        ("query", "openOrders", "historyOrders"),
        ("code:100500", "code:80019", "code:100410:The current system is busy"),
        ("code:100500",),
        ("cancelOpenOrders",),
        "/market",
        6.0,
    ),
}


# ---------------------------------------------------------------------------
# Links


class Link:
    """A TCP proxy on a port of its own that can stall, break or lose what passes.

    `delay_s` holds every piece back; `blackhole` passes nothing and says nothing; `swallow` loses the next answer
    and everything after it on that connection; `cut_after` breaks a connection after so many bytes of answer.
    """

    def __init__(self, upstream: int) -> None:
        self.upstream = upstream
        self.port = 0
        self.heal()
        self._pairs: set[tuple[asyncio.StreamWriter, asyncio.StreamWriter]] = set()

    async def open(self) -> None:
        self._server = await asyncio.start_server(self._carry, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]

    def heal(self) -> None:
        self.delay_s, self.blackhole, self.swallow = 0.0, False, False
        self.cut_after: int | None = None

    @property
    def healthy(self) -> bool:
        return not (self.delay_s or self.blackhole or self.swallow or self.cut_after is not None)

    def reset(self) -> None:
        """Breaks every connection with RST."""
        for pair in list(self._pairs):
            for writer in pair:
                held = writer.get_extra_info("socket")
                if held is not None:
                    with contextlib.suppress(OSError):
                        held.setsockopt(SOL_SOCKET, SO_LINGER, struct.pack("ii", 1, 0))
                writer.transport.abort()

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            up_reader, up_writer = await asyncio.open_connection("127.0.0.1", self.upstream)
        except OSError:
            writer.transport.abort()
            return
        pair = (writer, up_writer)
        self._pairs.add(pair)
        ways = [
            asyncio.ensure_future(self._pump(reader, up_writer, False)),
            asyncio.ensure_future(self._pump(up_reader, writer, True)),
        ]
        try:
            # Either side's end ends both: what is still on its way is lost with the connection.
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for way in ways:
                way.cancel()
            self._pairs.discard(pair)
            for one in pair:
                one.transport.abort()

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, answers: bool) -> None:
        lost = False
        with contextlib.suppress(OSError):
            while piece := await reader.read(65_536):
                if self.delay_s:
                    await asyncio.sleep(self.delay_s)
                if answers and self.swallow:
                    self.swallow, lost = False, True
                if lost or self.blackhole:
                    lost = True  # bytes of a stream cannot be missing in the middle
                    continue
                if answers and self.cut_after is not None:
                    piece, left = piece[: self.cut_after], self.cut_after - len(piece)
                    self.cut_after = None if left <= 0 else left
                    if left <= 0:
                        writer.write(piece)
                        return
                writer.write(piece)
                await writer.drain()

    async def close(self) -> None:
        self._server.close()
        self.reset()


# ---------------------------------------------------------------------------
# Workers


@dataclass
class Slot:
    """A place for one worker process, with links of its own, filled again whenever its process ends."""

    number: int
    redis: Link
    venue: Link
    folder: Path
    place: Place
    streams: bool
    process: subprocess.Popen[bytes] | None = None
    doomed: bool = False  # we ended it
    draining_since: float = 0.0
    disturbed: bool = False  # a fault of the server or its link fell into the drain
    stopped: bool = False
    started: int = 0

    @property
    def log(self) -> Path:
        """Of the process that runs now; each has a file of its own."""
        return self.folder / f"worker-{self.number}-{self.started}.log"

    @property
    def serving(self) -> bool:
        """Until it says so, TERM ends it as it ends any process."""
        return b'"serving"' in self.log.read_bytes()

    def start(self) -> None:
        lane, at = self.place.lane, f"127.0.0.1:{self.venue.port}"
        account = f"CANCELQ_ACCOUNTS__{lane.venue}__{lane.account}__".upper()
        env = {name: value for name, value in os.environ.items() if not name.startswith("CANCELQ_")} | {
            "CANCELQ_REDIS_URL": f"redis://127.0.0.1:{self.redis.port}/0",
            "CANCELQ_LEASE_MS": str(LEASE_MS),
            "CANCELQ_EGRESS": "chaos",
            f"{account}BASE_URL": f"http://{at}",
            f"{account}WS_URL": f"ws://{at}{self.place.stream_path}" if self.streams else "",
            f"{account}API_KEY": DEMO_KEY,
            f"{account}API_SECRET": DEMO_SECRET,
        }
        if lane.venue == "bitget":
            env[f"{account}PASSPHRASE"] = DEMO_PASSPHRASE
        self.started += 1
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                COMMAND, env=env, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )
        self.doomed = self.stopped = self.disturbed = False
        self.draining_since = 0.0

    def signal(self, number: signal.Signals) -> None:
        if self.process and self.process.poll() is None:
            self.process.send_signal(number)


# ---------------------------------------------------------------------------
# What is asked


@dataclass
class Ask:
    """What a producer meant by one intent id: the orders it may end, those it must leave, whom it revokes."""

    orders: tuple[str, ...] = ()
    spared: tuple[str, ...] = ()
    target: str = ""
    unknown: bool = False


@dataclass
class World:
    """One run: its parts, what was asked and what went wrong."""

    rng: random.Random
    folder: Path
    server: EmbeddedServer
    simulator: Simulator
    url: str
    place: Place
    slots: list[Slot] = field(default_factory=list)
    asks: dict[str, Ask] = field(default_factory=dict)
    acknowledged: list[str] = field(default_factory=list)
    refused_adds: int = 0
    injected: Counter[str] = field(default_factory=Counter)
    broken: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    began_s: float = field(default_factory=time.monotonic)
    healing: bool = False
    pair: int = 0
    sent: int = 0

    def tell(self, promise: str, what: str) -> None:
        self.broken.append(f"[{promise}] {what}")

    def at(self) -> float:
        return time.monotonic() - self.began_s

    @property
    def lane(self) -> Lane:
        return self.place.lane

    def truth_of(self, orders: Iterable[str]) -> list[dict[str, Any]]:
        """What the venue did with some orders."""
        return self.simulator.truth_of(orders, venue=self.lane.venue).entries

    def new_order(self, kind: str = "order", symbol: str = "", client_id: str = "", age_ms: int = 3000) -> str:
        entry = Entry(
            symbol or self.place.spelt("BTC"),
            Kind(kind),
            client_id=client_id,
            trigger_price="" if kind == "order" else "90",
            created_ms=time.time_ns() // 1_000_000 - age_ms,
        )
        return str(self.simulator.add_order(entry, venue=self.lane.venue).order_id)


def client(url: str) -> aioredis.Redis:
    """Asks once; raw replies to stream commands."""
    made = aioredis.Redis.from_url(url, protocol=2, retry=Retry(NoBackoff(), 0), socket_timeout=3)
    for parsed in ("XREAD", "XRANGE"):
        made.response_callbacks.pop(parsed, None)
    return made


async def produce(world: World, url: str, stop: asyncio.Event, per_s: float) -> None:
    """Intents of every kind, some twice; an uncertain one is sent again under its id."""
    redis, recent = client(url), list[dict[str, str]]()
    try:
        while not stop.is_set():
            fields = _repeat(world, recent) or _intent(world)
            await _add(world, redis, fields)
            if "id" in fields:
                recent.append(fields)
            await asyncio.sleep(world.rng.expovariate(per_s))
    finally:
        await redis.aclose()


def _repeat(world: World, recent: list[dict[str, str]]) -> dict[str, str] | None:
    rng = world.rng
    if not recent or rng.random() > 0.1:
        return None
    fields = dict(rng.choice(recent[-200:]))
    if rng.random() < 0.2 and "order_id" in fields and fields.get("scope", "order") == "order":
        fields["order_id"] = world.new_order()
        world.asks[fields["id"]].spared += (fields["order_id"],)
    return fields


def _intent(world: World) -> dict[str, str]:
    rng = world.rng
    world.sent += 1
    fields, ask = _of_kind(world, rng.random())
    if rng.random() < 0.1 and "not_before_ms" not in fields:
        fields["priority"] = "urgent"
    fields["x_n"] = str(world.sent)
    if rng.random() < 0.6 or "id" in fields or ask.target:
        fields.setdefault("id", f"c-{world.sent}")
    # Without an id of its own the intent is found by its number.
    world.asks[fields.get("id") or f"n:{world.sent}"] = ask
    return fields


def _of_kind(world: World, draw: float) -> tuple[dict[str, str], Ask]:
    now_ms, n = time.time_ns() // 1_000_000, world.sent
    base = {"symbol": world.place.spelt("BTC")}
    if draw < 0.10:
        order = world.new_order(client_id=f"mine{n}")
        return {**base, "client_order_id": f"mine{n}"}, Ask((order,))
    if draw < 0.16:
        order = world.new_order("tpsl")
        return {**base, "scope": "tpsl", "order_id": order}, Ask((order,))
    if draw < 0.23:
        order = world.new_order("plan", client_id=f"plan{n}")
        named = {"client_order_id": f"plan{n}"} if draw < 0.19 else {"order_id": order}
        return {**base, "scope": "stop", **named}, Ask((order,))
    if draw < 0.25:
        return {**base, "order_id": str(10**17 + n)}, Ask(unknown=True)
    if draw < 0.28:
        order = world.new_order()
        return {**base, "order_id": order, "expires_at_ms": str(now_ms + world.rng.randrange(3000))}, Ask((order,))
    if draw < 0.31:
        order = world.new_order()
        due = str(now_ms + world.rng.randrange(500, 6000))
        return {**base, "order_id": order, "id": f"t-{n}", "not_before_ms": due}, Ask((order,))
    if draw < 0.33:
        timed = [i for i in world.asks if i.startswith("t-")][-3:]
        if timed:
            target = world.rng.choice(timed)
            return {"scope": "revoke", "target": target}, Ask(target=target)
    if draw < 0.335:
        return _sweep(world)
    if draw < 0.345:
        return {"symbol": "BTC/USDT", "order_id": "1"}, Ask()
    symbol = world.place.spelt(world.rng.choice(["BTC", "ETH"]))
    order = world.new_order(symbol=symbol)
    return {"symbol": symbol, "order_id": order}, Ask((order,))


def _sweep(world: World) -> tuple[dict[str, str], Ask]:
    """All orders of a pair that nothing else uses; half of them without the bulk call, triggers included."""
    world.pair += 1
    symbol = world.place.spelt(f"S{world.pair}")
    orders = [world.new_order(symbol=symbol) for _ in range(world.rng.randrange(1, 12))]
    fields = {"scope": "symbol", "symbol": symbol}
    if world.pair % 2:
        orders += [world.new_order("plan", symbol=symbol) for _ in range(3)]
        fields["kinds"] = "order,stop"
    return fields, Ask(tuple(orders))


async def _add(world: World, redis: aioredis.Redis, fields: dict[str, str]) -> None:
    flat = [word for pair in fields.items() for word in pair]
    for _ in range(100):
        try:
            entry = await redis.execute_command("XADD", world.lane.inbox, "NOMKSTREAM", "*", *flat)  # type: ignore[no-untyped-call]
        except ResponseError:
            world.refused_adds += 1  # memory full, or loading: surely not taken
            await asyncio.sleep(0.2)
        except (RedisError, OSError):
            await asyncio.sleep(0.2)
            if "id" not in fields:
                return  # uncertain, and not to be repeated: the inbox will tell
        else:
            if entry is not None:
                world.acknowledged.append(entry.decode())
                return
            await asyncio.sleep(0.1)


# ---------------------------------------------------------------------------
# What goes wrong

Act = Callable[[World], Awaitable[None]]


def _any_slot(world: World) -> Slot:
    return world.rng.choice(world.slots)


async def kill_worker(world: World) -> None:
    slot = _any_slot(world)
    slot.doomed = slot.disturbed = True
    slot.signal(signal.SIGKILL)


async def stop_worker(world: World) -> None:
    slot, for_s = _any_slot(world), world.rng.uniform(1, 7)
    if slot.stopped or slot.draining_since:
        return
    slot.stopped = True
    slot.signal(signal.SIGSTOP)
    await asyncio.sleep(for_s)
    slot.signal(signal.SIGCONT)
    slot.stopped = False


async def drain_worker(world: World) -> None:
    slot = _any_slot(world)
    if slot.process and not slot.stopped and not slot.draining_since and slot.serving:
        slot.draining_since, slot.doomed = time.monotonic(), True
        slot.disturbed = not slot.redis.healthy
        slot.signal(signal.SIGTERM)


async def kill_server(world: World) -> None:
    for slot in world.slots:
        slot.disturbed = True
    world.server.kill()
    await asyncio.sleep(world.rng.uniform(0.1, 2.0))
    await asyncio.to_thread(world.server.start)


async def forget_scripts(world: World) -> None:
    await _server_command(world, "SCRIPT", "FLUSH")


async def fill_memory(world: World) -> None:
    for slot in world.slots:
        slot.disturbed = True
    await _server_command(world, "CONFIG", "SET", "maxmemory", "1")
    await asyncio.sleep(world.rng.uniform(0.5, 2.5))
    await _server_command(world, "CONFIG", "SET", "maxmemory", "0")


async def _server_command(world: World, *words: str) -> None:
    redis = client(world.url)
    with contextlib.suppress(RedisError, OSError):
        await redis.execute_command(*words)  # type: ignore[no-untyped-call]
    await redis.aclose()


async def hurt_link(world: World) -> None:
    slot, rng = _any_slot(world), world.rng
    link = slot.redis if rng.random() < 0.6 else slot.venue
    if link is slot.redis:
        slot.disturbed = True
    match rng.choice(["reset", "delay", "blackhole", "swallow", "cut"]):
        case "reset":
            link.reset()
        case "delay":
            link.delay_s = rng.uniform(0.02, 0.3)
            await asyncio.sleep(rng.uniform(0.5, 3))
            link.delay_s = 0.0
        case "blackhole":
            link.blackhole = True
            await asyncio.sleep(rng.uniform(0.3, 4))
            link.blackhole = False
        case "swallow":
            link.swallow = True
        case _:
            link.cut_after = rng.randrange(1, 3000)


async def hurt_venue(world: World) -> None:
    rng = world.rng
    if rng.random() < 0.6:
        endpoint, kind = rng.choice(world.place.cancels), rng.choice([*FAULTS_OF_CANCELS, *world.place.cancel_codes])
    else:
        endpoint, kind = rng.choice(world.place.looks), rng.choice([*FAULTS_OF_LOOKS, *world.place.look_codes])
    world.injected[kind] += 1
    delay_ms = 600 if kind == "late_ms" else None  # no later than what a permit without answer allows for
    world.simulator.add_fault(Fault(kind, endpoint=endpoint, count=rng.choice([1, 1, 2, 4]), delay_ms=delay_ms))


async def change_venue(world: World) -> None:
    rng = world.rng
    world.simulator.configure(
        {
            "latency_before_ms": rng.choice([(0, 0), (5, 25), (20, 80)]),
            "latency_after_ms": rng.choice([(0, 0), (5, 25), (20, 80)]),
            "cancel_delay_ms": rng.choice([0, 0, 50, 400]),
            "race_fill": rng.choice([0.0, 0.05, 0.3]),
            "race_partial": rng.choice([0.0, 0.2]),
            "history_lag_ms": rng.choice([0, 0, 300, 1500]),
            "info_lag_ms": rng.choice([0, 0, 300]),
            "open_lag_ms": rng.choice([0, 0, 500]),
            "symbol_cancel_miss": rng.choice([0.0, 0.3]),
            "stream_loss": rng.choice([0.0, 0.3]),
            "stream_jitter_ms": rng.choice([0, 300]),
        }
    )


ACTS: tuple[tuple[Act, float], ...] = (
    (hurt_venue, 40),
    (hurt_link, 20),
    (change_venue, 5),
    (kill_worker, 6),
    (stop_worker, 6),
    (drain_worker, 5),
    (forget_scripts, 2),
    (fill_memory, 1),
    (kill_server, 1.5),
)


async def torment(world: World, for_s: float, per_s: float) -> None:
    """Faults until `for_s` are over, several at a time; one of each of server's and memory's at a time."""
    under_way: set[asyncio.Task[None]] = set()
    alone: dict[Act, asyncio.Task[None]] = {}
    acts, weights = [a for a, _ in ACTS], [w for _, w in ACTS]
    while world.at() < for_s:
        act = world.rng.choices(acts, weights)[0]
        if not (act in (kill_server, fill_memory) and any(not t.done() for t in alone.values())):
            world.notes.append(f"{world.at():7.2f} {act.__name__}")
            task = asyncio.ensure_future(act(world))
            under_way.add(task)
            if act in (kill_server, fill_memory):
                alone[act] = task
        await asyncio.sleep(world.rng.expovariate(per_s))
    await asyncio.gather(*under_way)


async def supervise(world: World) -> None:
    """Fills empty slots and judges how their processes ended."""
    while True:
        for slot in world.slots:
            process = slot.process
            if process is None or (code := process.poll()) is None:
                late = slot.draining_since and time.monotonic() - slot.draining_since > DRAIN_S
                if late and not slot.disturbed:
                    world.tell(
                        "17", f"worker {slot.number} (pid {process and process.pid}) drains for over {DRAIN_S} s"
                    )
                    slot.disturbed = True
                continue
            if slot.draining_since and code != 0 and not slot.disturbed:
                world.tell("17", f"worker {slot.number} was told to drain and ended with {code}")
            elif not slot.doomed and code not in (69,):
                world.tell("life", f"{world.at():.2f} {slot.log.name} ended by itself with {code}: {_last_words(slot)}")
            slot.start()
        await asyncio.sleep(0.1)


def _last_words(slot: Slot) -> str:
    lines = slot.log.read_text(errors="replace").splitlines()
    return lines[-1][:300] if lines else ""


# ---------------------------------------------------------------------------
# The joining


@dataclass
class Told:
    """The streams, read whole."""

    entries: list[Accepted | Refused]
    events: list[Event]

    @property
    def intents(self) -> dict[str, list[Accepted | Refused]]:
        by_id: dict[str, list[Accepted | Refused]] = defaultdict(list)
        for entry in self.entries:
            by_id[entry.id].append(entry)
        return by_id

    def finals(self) -> dict[str, list[Event]]:
        by_id: dict[str, list[Event]] = defaultdict(list)
        for event in self.events:
            if event.final:
                by_id[event.id].append(event)
        return by_id


async def read_streams(redis: aioredis.Redis, lane: Lane) -> Told:
    entries, events = [], []
    async for entry_id, flat in _whole(redis, lane.inbox):
        entries.append(read_entry(entry_id, flat))
    async for entry_id, flat in _whole(redis, lane.results):
        events.append(Event.read(entry_id, dict(zip(flat[::2], flat[1::2], strict=True))))
    return Told(entries, events)


async def _whole(redis: aioredis.Redis, stream: str) -> Any:
    at = "-"
    while True:
        page = await redis.execute_command("XRANGE", stream, at, "+", "COUNT", 5000)  # type: ignore[no-untyped-call]
        for entry_id, flat in page:
            yield entry_id.decode(), flat
        if len(page) < 5000:
            return
        at = f"({page[-1][0].decode()}"


def _number_of(entry: Accepted | Refused) -> str:
    return entry.id if entry.explicit_id else f"n:{entry.fields.get('x_n', '')}"


def judge(world: World, told: Told, healed_us: int) -> None:
    """Joins inbox, results and the venue's book; every broken promise becomes a line."""
    finals, intents = told.finals(), told.intents
    kept = {entry.entry_id for entry in told.entries}
    for entry_id in world.acknowledged:
        if entry_id not in kept:
            world.tell("1", f"entry {entry_id} was acknowledged and is not in the inbox")
    for event in told.events:
        if event.id not in intents:
            world.tell("3", f"{event.status} of {event.id}, which nobody asked for")
    for id_, entries in intents.items():
        ends = finals.get(id_, [])
        if len(ends) != 1:
            story = "; ".join(f"{e.status} {e.attempt} {e.detail}" for e in told.events if e.id == id_)
            world.tell("1" if not ends else "2", f"{id_} has {len(ends)} final events: {story}")
            continue
        _judge_one(world, id_, entries, ends[0], finals)
    _judge_repeats(world, told)
    _judge_attempts(world, finals)
    _judge_venue(world)
    _judge_lateness(world, told, finals, healed_us)
    _judge_logs(world)


_TRUE_STATES = {
    Status.cancelled: {"cancelled"},
    Status.filled: {"filled"},
    Status.triggered: {"triggered"},
    Status.closed: {"failed"},
}


def _judge_one(
    world: World, id_: str, entries: list[Accepted | Refused], event: Event, finals: dict[str, list[Event]]
) -> None:
    ask = world.asks.get(_number_of(entries[0]))
    if ask is None:
        world.tell("3", f"{id_} is in the inbox and nobody sent it")
        return
    truth = world.truth_of(ask.orders)
    states = [row["state"] for row in truth]
    said = f"{id_}: {event.status} ({event.evidence}: {event.detail})"
    match event.status:
        case Status.cancelled if event.scope == "symbol":
            if any(row["open"] for row in truth):
                world.tell("4", f"{said}, but of its orders are open: {states}")
        case Status.cancelled | Status.filled | Status.triggered | Status.closed:
            if not set(states) <= _TRUE_STATES[event.status] or not states:
                world.tell("4", f"{said}, but it is {states}")
            elif event.status is not Status.triggered and float(event.filled or 0) != float(truth[0]["filled"]):
                world.tell("4", f"{said}, filled {event.filled}, but {truth[0]['filled']} are")
        case Status.not_found:
            if not ask.unknown:
                world.tell("4", f"{said}, but the venue has it as {states}")
        case Status.rejected if ask.orders:
            world.tell("4", f"{said}, code {event.code}")
        case Status.expired | Status.revoked if ask.orders and any(row["cancels"] for row in truth):
            world.tell("4", f"{said}, but a cancel named its order: {truth[0]['cancels']}")
        case _:
            pass
    if ask.target:
        withdrawn = any(e.status is Status.revoked for e in finals.get(ask.target, []))
        told_first = sum(1 for e in finals.values() if e and world.asks.get(e[0].id, Ask()).target == ask.target)
        if (event.status is Status.revoked) != withdrawn and told_first == 1:
            world.tell("4", f"{said}, but its target was {'' if withdrawn else 'not '}withdrawn")
    for row in world.truth_of(ask.spared):
        if not row["open"] or row["cancels"]:
            world.tell("15", f"{id_}: order {row['order_id']} of a repeat with other content was touched")
    if (event.attempt or 0) > MAX_ATTEMPTS and event.scope != "symbol":
        world.tell("9", f"{said} after {event.attempt} attempts")
    if (event.lookups or 0) > MAX_LOOKUPS:
        world.tell("9", f"{said} after {event.lookups} look-ups")


def _judge_repeats(world: World, told: Told) -> None:
    duplicates: dict[str, list[Event]] = defaultdict(list)
    for event in told.events:
        if event.status is Status.duplicate:
            duplicates[event.id].append(event)
    for id_, entries in told.intents.items():
        events = duplicates.get(id_, [])
        if len(events) != len(entries) - 1:
            world.tell("15", f"{id_}: {len(entries)} entries, {len(events)} duplicate events")
        others = sum(entry.digest != entries[0].digest for entry in entries[1:])
        differing = sum("differs" in (event.detail or "") for event in events)
        if others != differing:
            world.tell("15", f"{id_}: {others} repeats had other content, {differing} events say so")


def _judge_attempts(world: World, finals: dict[str, list[Event]]) -> None:
    """Calls that reached the venue and named an order against the attempts that are on record."""
    attempts: Counter[str] = Counter()
    for id_, events in finals.items():
        ask = world.asks.get(id_) or world.asks.get(f"n:{events[0].extras.get('x_n', '')}")
        for order in ask.orders if ask else ():
            attempts[order] += events[0].attempt or 0
    for row in world.simulator.truth().entries:
        arrived = len({naming["call"] for naming in row["cancels"]})
        # At Bybit an order that fired goes on under the id of the trigger.
        known = attempts[row["order_id"]] + attempts[row["parent_id"]]
        if arrived > known:
            world.tell("5", f"order {row['order_id']} was named by {arrived} calls, {known} attempts are on record")


def _judge_venue(world: World) -> None:
    for row in world.simulator.rates():
        if row["refused"] or (row["limit"] is not None and row["worst_arrived"] > row["limit"]):
            world.tell("6", f"{row['bucket']}: {row['refused']} refused, {row['worst_arrived']} arrived in a window")
    bulk: Counter[str] = Counter(
        call["symbol"]
        for call in world.simulator.calls().entries
        if call["endpoint"] in world.place.bulk and call["executed"]
    )
    for symbol, calls in bulk.items():
        if calls > 1:
            world.tell("9", f"{calls} bulk calls for {symbol}, one intent")


def _judge_lateness(world: World, told: Told, finals: dict[str, list[Event]], healed_us: int) -> None:
    after = [(e.settled_us or 0) - healed_us for events in finals.values() for e in events]
    world.notes.append(f"the last outcome came {max(after, default=0) / 1e6:.1f} s after healing")
    for id_, events in finals.items():
        late_s = ((events[0].settled_us or 0) - healed_us) / 1e6
        if late_s > SETTLE_S:
            world.tell("11", f"{id_}: {events[0].status} {late_s:.1f} s after healing, {SETTLE_S} s are promised")


#: What a worker says when something happened that no fault explains.
_NEVER = ("a lane's loop ended", "a call ended in an error", "settle refused", "take refused", "admission refused")


def _judge_logs(world: World) -> None:
    said: Counter[str] = Counter()
    for log in sorted(world.folder.glob("worker-*.log")):
        for line in log.read_text(errors="replace").splitlines():
            with contextlib.suppress(ValueError):
                row = json.loads(line)
                if str(row.get("event", "")).startswith(_NEVER):
                    said[f"{row['event']}: {str(row.get('error', ''))[:160]}"] += 1
    for what, times in said.items():
        # A server that is loading or full says so to each command; that is a fault of ours.
        if "LOADING" not in what and "OOM" not in what and "maxmemory" not in what:
            world.tell("log", f"{times} times {what}")


# ---------------------------------------------------------------------------
# One run


async def run(
    seed: int, seconds: float, folder: Path, *, venue: str = "bitget", workers: int = 3, per_s: float | None = None
) -> World:
    """Torments for `seconds`, heals, waits until everything is told, and judges. Ends all it started."""
    rng = random.Random(seed)
    simulator = Simulator(rng=random.Random(seed + 1))
    pairs = [*simulator.core.settings.pairs, *(f"S{n}-USDT" for n in range(1, 400))]
    simulator.configure({"pairs": pairs})
    (folder / "server").mkdir()
    server = EmbeddedServer(durable=True, port=free_port(), data_dir=folder / "server")
    await asyncio.to_thread(server.start)
    place = PLACES[venue]
    world = World(rng, folder, server, simulator, server.url, place)
    async with contextlib.AsyncExitStack() as stack:
        stack.callback(server.stop)
        served = await stack.enter_async_context(serve_simulator(simulator))
        for number in range(workers):
            redis_link, venue_link = Link(server.port), Link(int(served.base_url.rsplit(":", 1)[1]))
            for link in (redis_link, venue_link):
                await link.open()
                stack.push_async_callback(link.close)
            world.slots.append(Slot(number, redis_link, venue_link, folder, place, streams=bool(seed % 2)))
            world.slots[-1].start()
        stack.push_async_callback(_end_workers, world)
        await _until(lambda: _lane_open(world), 20)
        await _torment_and_heal(world, seconds, per_s or place.per_s)
    return world


async def _torment_and_heal(world: World, seconds: float, per_s: float) -> None:
    stop, url = asyncio.Event(), world.url
    supervisor = asyncio.ensure_future(supervise(world))
    producers = [asyncio.ensure_future(produce(world, url, stop, per_s / 3)) for _ in range(3)]
    world.began_s = time.monotonic()
    await change_venue(world)
    await torment(world, seconds, per_s=3.0)
    stop.set()
    await asyncio.gather(*producers)
    _heal(world)
    healed_us = time.time_ns() // 1000
    redis = client(url)
    try:
        await _until(lambda: _all_told(redis, world.lane), GIVE_UP_S)
        supervisor.cancel()
        await _end_workers(world)
        told = await read_streams(redis, world.lane)
    finally:
        supervisor.cancel()
        await redis.aclose()
    world.notes.append(f"{len(told.entries)} entries, {Counter(e.status.value for e in told.events)}")
    unresolved = Counter(e.detail for e in told.events if e.status is Status.unresolved)
    world.notes.append(f"unresolved: {dict(unresolved)}")
    judge(world, told, healed_us)


def _heal(world: World) -> None:
    world.simulator.core.faults.clear()
    world.simulator.configure({"history_lag_ms": 0, "open_lag_ms": 0, "info_lag_ms": 0, "cancel_delay_ms": 0})
    for slot in world.slots:
        slot.signal(signal.SIGCONT)
        slot.redis.heal()
        slot.venue.heal()


async def _lane_open(world: World) -> bool:
    redis = client(world.url)
    try:
        return bool(await redis.exists(world.lane.inbox))
    finally:
        await redis.aclose()


async def _all_told(redis: aioredis.Redis, lane: Lane) -> bool:
    told = await read_streams(redis, lane)
    finals = told.finals()
    return all(id_ in finals for id_ in told.intents)


async def _until(true: Callable[[], Awaitable[bool]], within_s: float) -> bool:
    """Whether it came true in time."""
    end_s = time.monotonic() + within_s
    while time.monotonic() < end_s:
        with contextlib.suppress(RedisError, OSError):
            if await true():
                return True
        await asyncio.sleep(0.25)
    return False


async def _end_workers(world: World) -> None:
    """TERM for all; each has to end with 0 in time."""
    began_s = time.monotonic()
    alive = [s for s in world.slots if s.process and s.process.poll() is None]
    ready = {slot.number for slot in alive if slot.serving}
    for slot in alive:
        slot.signal(signal.SIGCONT)
        if not slot.draining_since:
            slot.signal(signal.SIGTERM)
    for slot in alive:
        assert slot.process is not None
        try:
            await asyncio.to_thread(slot.process.wait, max(0.0, began_s + DRAIN_S + 2 - time.monotonic()))
        except subprocess.TimeoutExpired:
            slot.process.kill()
            slot.process.wait()
        took_s = time.monotonic() - began_s
        if slot.number in ready and (slot.process.returncode != 0 or took_s > DRAIN_S):
            world.tell("17", f"worker {slot.number} ended with {slot.process.returncode} after {took_s:.1f} s of TERM")


def report(world: World, seed: int, notes: Iterable[str]) -> str:
    lines = [*notes, *world.broken[:60]]
    lines.append(f"{world.lane.venue}, seed {seed}: {len(world.broken)} broken promises; logs in {world.folder}")
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seconds", type=float, default=120.0, help="how long things go wrong")
    parser.add_argument("--seed", type=int, default=None, help="default: a new one, which is told")
    parser.add_argument("--workers", type=int, default=3)
    parser.add_argument("--rate", type=float, default=None, help="intents a second (default: what the venue can take)")
    parser.add_argument("--venue", choices=sorted(PLACES), default="bitget")
    options = parser.parse_args()
    seed = random.SystemRandom().randrange(10**6) if options.seed is None else options.seed
    folder = Path(tempfile.mkdtemp(prefix="cancelq-chaos-"))
    print(f"seed {seed}", flush=True)
    world = asyncio.run(
        run(seed, options.seconds, folder, venue=options.venue, workers=options.workers, per_s=options.rate)
    )
    print(report(world, seed, world.notes))
    return 1 if world.broken else 0


if __name__ == "__main__":
    sys.exit(main())
