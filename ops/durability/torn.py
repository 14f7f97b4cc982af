"""Torn file: the server's append-only file, cut at a random byte, must hold no intent that is half settled.

A worker served three lanes while the file was written. Each cut is loaded by a fresh server and judged from keys alone;
some are served to their end by a new worker, whose outcomes are held against the venues' own books.
"""

from __future__ import annotations

import asyncio
import os
import random
import shutil
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from ops.durability.desk import LANES, LOOK_S, Desk, add, finals, open_desk, reader, until_open, working
from ops.durability.keys import judge, read
from ops.durability.server import Server, running
from ops.durability.trace import command, unframed

#: How long a resumed worker gets: a lease, the wait after another server, look-ups to their end, and a busy machine.
RESUMED_S = 90.0
AIMED = 4  # one cut of so many


@dataclass
class Torn:
    """What the cuts of one file came to; intents are counted over all cuts. `unframed`: the same cuts of the same file
    if its transactions were not there, to show that the judge sees what is half; `broken`: one line for each fault."""

    kind: str
    bytes: int = 0
    cuts: int = 0
    settled: int = 0
    open: int = 0
    unread: int = 0
    halves: int = 0
    resumed: int = 0
    outcomes: int = 0
    unresolved: int = 0
    unframed_cuts: int = 0
    unframed_halves: int = 0
    load_ms: float = 0.0
    broken: list[str] = field(default_factory=list)


async def run(kind: str, folder: Path, *, seed: int, cuts: int, resumed: int, intents: int) -> Torn:
    """Makes a file by serving `intents` intents a lane, cuts it `cuts` times and serves `resumed` of the cuts on; a
    fourth of the cuts falls right behind a final event, others where they will."""
    rng, told = random.Random(seed), Torn(kind)
    (folder / "whole").mkdir()
    async with open_desk(seed) as desk:
        source = await _served(desk, kind, folder / "whole", intents)
        aof = source.aof
        told.bytes = aof.stat().st_size
        places = sorted(rng.randrange(1, told.bytes) for _ in range(cuts - cuts // AIMED))
        places += sorted(rng.choices(_within_settlements(aof.read_bytes()), k=cuts // AIMED))
        to_end = set(rng.sample(range(len(places)), min(resumed, len(places))))
        for number, at in enumerate(places):
            server = _cut(source, folder / f"cut-{number}", aof, at)
            began_s = time.monotonic()
            with running(server):
                told.load_ms += (time.monotonic() - began_s) * 1000 / cuts
                _judge(told, server, f"cut at {at}")
                if number in to_end:
                    await _to_the_end(told, desk, server, f"cut at {at}")
            _forget(server)
        await asyncio.to_thread(_unframed, told, source, folder, rng)
    return told


def _unframed(told: Torn, source: Server, folder: Path, rng: random.Random) -> None:
    """The control: commands one by one, as a script's effects would be without a transaction around them."""
    aof = source.aof
    aof.write_bytes(unframed(aof.read_bytes()))
    for number, at in enumerate(rng.choices(_within_settlements(aof.read_bytes()), k=max(4, told.cuts // 20))):
        server = _cut(source, folder / f"unframed-{number}", aof, at)
        with running(server), server.client() as client:
            told.unframed_cuts += 1
            told.unframed_halves += any(judge(client, lane).halves for lane in LANES)
        _forget(server)
    if not told.unframed_halves:
        told.broken.append("the judge sees nothing half in a file without transactions: it is blind")


def _within_settlements(data: bytes) -> list[int]:
    """The bytes right behind a final event: what it stands for is not removed yet."""
    final, at, found = b"$5\r\nfinal\r\n$1\r\n1\r\n", -1, []
    while (at := data.find(final, at + 1)) >= 0:
        begin = data.rindex(b"\r\n$4\r\nXADD\r\n", 0, at)
        words_at = data.rindex(b"*", 0, begin)
        (_, end) = command(data, words_at)
        found.append(end)
    return found


def _forget(server: Server) -> None:
    shutil.rmtree(server.folder)
    server.log.unlink()


async def _served(desk: Desk, kind: str, folder: Path, intents: int) -> Server:
    """A server whose lanes were served, half of the time by venues that answer badly; killed without warning."""
    server = Server(kind, folder)
    with running(server):
        client = reader(server.url)
        try:
            async with working(desk, server.url):
                await until_open(client)
                for _ in range(4):
                    for lane in LANES:
                        desk.misbehave(lane, 3)
                        for fields in desk.intents(lane, intents // 4):
                            await add(client, lane, fields)
                    await asyncio.sleep(desk.rng.uniform(0.1, 1.0))
                await _all_told(server, RESUMED_S)
        finally:
            await client.aclose()
    return server


def _cut(source: Server, folder: Path, aof: Path, at: int) -> Server:
    """A server on a copy of the data whose last file ends at byte `at`."""
    shutil.copytree(source.folder / "appendonlydir", folder / "appendonlydir")
    os.truncate(folder / "appendonlydir" / aof.name, at)
    return Server(source.kind, folder)


def _judge(told: Torn, server: Server, where: str) -> None:
    told.cuts += 1
    with server.client() as client:
        for lane in LANES:
            judged = judge(client, lane)
            told.settled += judged.settled
            told.open += judged.open
            told.unread += judged.unread
            told.halves += len(judged.halves)
            told.broken += [f"{where}: {half}" for half in judged.halves]


async def _to_the_end(told: Torn, desk: Desk, server: Server, where: str) -> None:
    """A worker goes on with what survived: each intent ends once, and truly."""
    told.resumed += 1
    async with working(desk, server.url):
        late = await _all_told(server, RESUMED_S)
    client = reader(server.url)
    try:
        for lane in LANES:
            for id_, events in (await finals(client, lane)).items():
                told.outcomes += 1
                told.unresolved += events[0].status == "unresolved"
                if len(events) > 1:
                    told.broken.append(f"{where}: {lane} {id_} has {len(events)} final events")
                if untrue := desk.untrue(lane, events[0]):
                    told.broken.append(f"{where}: {lane} {untrue}")
        told.broken += [f"{where}: {lane} has no outcome after {RESUMED_S} s" for lane in late]
    finally:
        await client.aclose()
    resumed = Torn(told.kind)
    _judge(resumed, server, f"{where}, served on")
    told.broken += resumed.broken


async def _all_told(server: Server, within_s: float) -> list[str]:
    """Waits until every admitted or waiting intent has its outcome; what is late. Judged in a thread: a worker whose
    loop stands still gives back what it was to send."""
    end_s = time.monotonic() + within_s
    while True:
        late = await asyncio.to_thread(_late, server)
        if not late or time.monotonic() > end_s:
            return late
        await asyncio.sleep(10 * LOOK_S)


def _late(server: Server) -> list[str]:
    """The lanes in which something has no outcome yet, and where the first of it stands."""
    late: list[str] = []
    with server.client() as client:
        for lane in LANES:
            judged = judge(client, lane)
            if judged.open or judged.unread:
                kept = read(client, lane)
                first = [f"{id_} in {kept.places.get(id_)}: {state.pack()}" for id_, state in kept.states.items()][:2]
                holds = client.hgetall(lane.key("hold"))
                late.append(f"{lane}: {judged.open} open, {judged.unread} unread, holds {holds}, {first}")
    return late


def report(told: Iterable[Torn]) -> list[str]:
    """Lines for a person."""
    return [
        f"torn   {t.kind:7} {t.cuts} cuts of {t.bytes} bytes ({t.load_ms:.0f} ms a start): {t.settled} intents "
        f"settled, {t.open} open, {t.unread} unread, {t.halves} half; {t.resumed} cuts served on: "
        f"{t.outcomes} outcomes, {t.unresolved} unresolved; without transactions {t.unframed_halves} of "
        f"{t.unframed_cuts} cuts hold something half; {len(t.broken)} broken"
        for t in told
    ]
