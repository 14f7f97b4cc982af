"""Power cut: only what a completed sync covered is sure to be on the disk.

A tracer notes the server's writes and syncs while producers queue intents and a worker serves them. What producers
were told is held against what the disk surely held at that very moment; then the file is truncated to what some
moments left, loaded, and judged. With `always` nothing is lost; with `everysec` the last second is, which is shown.
"""

from __future__ import annotations

import asyncio
import os
import random
import shutil
import subprocess
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import redis.asyncio as aioredis
from redis.exceptions import RedisError

from cancelq.contract import Lane
from cancelq_worker.trips import command
from ops.durability.desk import LANES, Desk, add, open_desk, reader, until_open, working
from ops.durability.keys import judge
from ops.durability.server import Missing, Server, running, tool
from ops.durability.trace import OPTIONS, changes, read_syncs

LANE = LANES[0]
PRODUCERS = 4


@dataclass
class Power:
    """What one run came to. `lost`: told to somebody before the disk surely had it; `most_lost`: at the worst moment
    for a cut; `loaded`: moments whose file was loaded and judged."""

    kind: str
    fsync: str
    told: int = 0
    syncs: int = 0
    lost: int = 0
    most_lost: int = 0
    loaded: int = 0
    broken: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Told:
    """An entry of a stream that somebody was told of, and when (UTC seconds)."""

    stream: str
    entry: str
    at_s: float


async def run(kind: str, folder: Path, fsync: str, *, seed: int, seconds: float, moments: int) -> Power:
    """Queues and serves for `seconds`, then cuts the power at `moments` moments. Raises Missing without a tracer."""
    power, log = Power(kind, fsync), folder / f"trace-{kind}-{fsync}"
    wrapper = (*tracer(), "-o", str(log))
    home = folder / f"power-{kind}-{fsync}"
    home.mkdir()
    server = Server(kind, home, {"appendfsync": fsync}, wrapper)
    async with open_desk(seed) as desk:
        with running(server):
            told = await _told(desk, server, seconds)
    syncs = read_syncs(log, server.aof)
    ends = _ends(server.aof.read_bytes())
    power.told, power.syncs = len(told), len(syncs.ended_s)
    late = [one for one in told if ends[one.stream, one.entry] > syncs.durable(one.at_s)]
    power.lost = len(late)
    power.most_lost = max((_missing(told, ends, one.at_s, syncs.durable(one.at_s)) for one in told), default=0)
    if fsync == "always":
        power.broken += [f"{one.stream} {one.entry} was told before it was on the disk" for one in late[:20]]
    rng = random.Random(seed)
    for number in range(moments):
        at_s = rng.choice(told).at_s
        await asyncio.to_thread(_load, power, server, folder / f"left-{number}", syncs.durable(at_s), told, at_s)
    return power


def tracer() -> tuple[str, ...]:
    """The tracer's command. Raises Missing where there is none, or where processes may not be traced."""
    words = (tool("strace"), *OPTIONS)
    if subprocess.run([*words, "-o", os.devnull, "true"], capture_output=True, timeout=30).returncode:
        raise Missing("processes may not be traced here (ptrace)")
    return words


async def _told(desk: Desk, server: Server, seconds: float) -> list[Told]:
    """What producers and a reader of results were told until the end, which comes without warning."""
    told: list[Told] = []
    end_s = time.monotonic() + seconds
    client = reader(server.url)
    try:
        async with working(desk, server.url, [LANE], drain_s=0.2):  # its server will be gone
            await until_open(client, [LANE])
            clients = [reader(server.url) for _ in range(PRODUCERS)]
            jobs = [_produce(desk, one, told, end_s) for one in clients] + [_follow(client, told, end_s)]
            await asyncio.gather(*jobs)
            server.kill()
            for one in clients:
                await one.aclose()
    finally:
        await client.aclose()
    return told


async def _produce(desk: Desk, client: aioredis.Redis, told: list[Told], end_s: float) -> None:
    while time.monotonic() < end_s:
        for fields in desk.intents(LANE, 20):
            entry = await add(client, LANE, fields)
            if entry:
                told.append(Told(LANE.inbox, entry, time.time()))


async def _follow(client: aioredis.Redis, told: list[Told], end_s: float) -> None:
    at = "-"
    while time.monotonic() < end_s:
        try:
            page = await command(client, "XRANGE", LANE.results, at, "+", "COUNT", 500)
        except RedisError:
            return
        now_s = time.time()
        told += [Told(LANE.results, entry.decode(), now_s) for entry, _ in page]
        if page:
            at = f"({page[-1][0].decode()}"
        else:
            await asyncio.sleep(0.01)


def _ends(data: bytes) -> dict[tuple[str, str], int]:
    """Where each stream entry is whole in the file."""
    return {
        (change.words[1].decode(), _entry_of(change.words)): change.end
        for change in changes(data)
        if change.words[0].upper() == b"XADD"
    }


def _entry_of(words: tuple[bytes, ...]) -> str:
    return next(w.decode() for w in words[2:] if w[:1].isdigit() and b"-" in w)


def _missing(told: list[Told], ends: dict[tuple[str, str], int], at_s: float, durable: int) -> int:
    """How much of what was told until then a power cut would lose."""
    return sum(1 for one in told if one.at_s <= at_s and ends[one.stream, one.entry] > durable)


def _load(power: Power, server: Server, folder: Path, durable: int, told: list[Told], at_s: float) -> None:
    """A fresh server on what a cut at that moment left."""
    shutil.copytree(server.folder / "appendonlydir", folder / "appendonlydir")
    os.truncate(folder / "appendonlydir" / server.aof.name, durable)
    left = Server(server.kind, folder)
    with running(left), left.client() as client:
        power.loaded += 1
        for stream in (LANE.inbox, LANE.results):
            kept = {entry.decode() for entry, _ in client.xrange(stream)}
            gone = [one.entry for one in told if one.stream == stream and one.at_s <= at_s and one.entry not in kept]
            if gone and power.fsync == "always":
                power.broken.append(f"cut at byte {durable}: {len(gone)} of {stream} are lost, {gone[0]} first")
        power.broken += [f"cut at byte {durable}: {half}" for half in judge(client, Lane.parse(str(LANE))).halves]
    shutil.rmtree(folder)
    left.log.unlink()


def report(done: Iterable[Power]) -> list[str]:
    """Lines for a person."""
    return [
        f"power  {p.kind:7} appendfsync {p.fsync}: {p.told} entries told, {p.syncs} syncs; {p.lost} told before they "
        f"were surely on the disk, {p.most_lost} lost at the worst moment; {p.loaded} moments loaded, "
        f"{len(p.broken)} broken"
        for p in done
    ]
