"""Full disk and full memory: the intake is refused loudly, nothing is sent unrecorded, and all of it settles later.

The disk is a `tmpfs` of a few megabytes in a mount namespace of its own. What a server does when it cannot write its
file depends on `appendfsync`: with `always` it ends before anybody is answered, with `everysec` it refuses every write.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from structlog.testing import capture_logs

from cancelq import AsyncClient
from cancelq.errors import BrokerDown, BrokerRefused, Uncertain
from ops.durability.desk import LANES, LOOK_S, Desk, finals, open_desk, reader, until_open, working
from ops.durability.keys import Judged, judge
from ops.durability.server import Missing, Server, ServerEnded, running, tool

LANE = LANES[0]
DISK_BYTES = 3 * 1024 * 1024
ROOM_BYTES = 96 * 1024  # left on the disk when producers begin
OUTAGE_S = 3.0  # how long the disk or the memory stays full
QUIET_AFTER_S = 0.5  # calls that were granted before are over by then
SETTLED_S = 120.0


@dataclass
class Full:
    """What one run came to. `refused`: how producers were refused; `calls`: that reached the venue while the disk was
    full; `unrecorded`: orders that more calls named than attempts are on record; `settle_refused`: settlements
    the server refused."""

    kind: str
    what: str
    queued: int = 0
    uncertain: int = 0
    refused: str = ""
    remedy: str = ""
    calls: int = 0
    unrecorded: int = 0
    settle_refused: int = 0
    outcomes: int = 0
    ended: bool = False
    settled_s: float = 0.0
    broken: list[str] = field(default_factory=list)


# ---------------------------------------------------------------------------
# Disk


async def disk(kind: str, folder: Path, fsync: str, *, seed: int) -> Full:
    """Fills the disk under a served lane, then makes room again. Raises Missing where no disk can be mounted."""
    told = Full(kind, f"disk full, {fsync}")
    with small_disk(folder / f"disk-{kind}-{fsync}") as place:
        home = place / "data"
        home.mkdir()
        ballast = place / "ballast"
        server = Server(kind, home, {"appendfsync": fsync}, log=folder / f"disk-{kind}-{fsync}.log")
        async with open_desk(seed) as desk:
            with running(server):
                async with working(desk, server.url, [LANE]):
                    await _fill_and_wait(told, desk, server, ballast)
                    ballast.unlink()
                    await _back(told, server)
                    await _settled(told, desk, server)
    return told


async def _fill_and_wait(told: Full, desk: Desk, server: Server, ballast: Path) -> None:
    async with AsyncClient.from_url(server.url) as client:
        await _open(server)
        await asyncio.to_thread(_take_room, ballast)
        await _produce_until_refused(told, desk, client)
    await asyncio.sleep(QUIET_AFTER_S)
    before = desk.simulator.core.calls_seen
    await asyncio.sleep(OUTAGE_S)
    told.calls = _order_calls(desk, before)
    if told.calls:
        told.broken.append(f"{told.calls} calls about orders while nothing could be recorded")
    told.ended = not server.alive


def _take_room(ballast: Path) -> None:
    free = os.statvfs(ballast.parent)
    ballast.write_bytes(b"\0" * max(0, free.f_bavail * free.f_frsize - ROOM_BYTES))


async def _produce_until_refused(told: Full, desk: Desk, client: AsyncClient) -> None:
    """Queues until the server will not have more; how it says so."""
    end_s = time.monotonic() + SETTLED_S
    while time.monotonic() < end_s:
        try:
            await client.submit(LANE, symbol="BTCUSDT", order_id=desk.order(LANE), x_pad="." * 400)
            told.queued += 1
        except Uncertain:
            told.uncertain += 1
        except (BrokerDown, BrokerRefused) as refused:
            told.refused, told.remedy = type(refused).__name__, str(refused)
            return
    told.broken.append("producers were never refused")


async def _back(told: Full, server: Server) -> None:
    """A server that ended is started again, as a supervisor would."""
    if server.alive:
        return
    end_s = time.monotonic() + SETTLED_S
    while time.monotonic() < end_s:
        try:
            server.start()
        except ServerEnded as ended:
            told.broken.append(f"it does not start again: {ended}")
            await asyncio.sleep(LOOK_S)
            continue
        return


@contextmanager
def small_disk(place: Path) -> Iterator[Path]:
    """A file system of three megabytes in memory, seen at the path this gives; it is gone with the block."""
    place.mkdir()
    user = [] if os.geteuid() == 0 else ["--user", "--map-root-user"]
    script = f'mount -t tmpfs -o size={DISK_BYTES} none "$0" && echo mounted && exec cat'
    holder = subprocess.Popen(
        [tool("unshare"), *user, "--mount", "sh", "-c", script, str(place)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert holder.stdin is not None
    assert holder.stdout is not None
    try:
        if holder.stdout.readline() != b"mounted\n":
            raise Missing("no file system can be mounted here: it takes root, or user namespaces")
        yield Path(f"/proc/{holder.pid}/root{place.resolve()}")
    finally:
        holder.stdin.close()
        holder.kill()
        holder.wait(timeout=10)


# ---------------------------------------------------------------------------
# Memory


async def memory(kind: str, folder: Path, *, seed: int, waiting: int) -> Full:
    """Lets `waiting` intents pile up, leaves the server no memory, sees what was admitted settled without any, and the
    rest once there is room again."""
    told = Full(kind, "memory full")
    home = folder / f"memory-{kind}"
    home.mkdir()
    server = Server(kind, home)
    async with open_desk(seed) as desk:
        desk.simulator.configure({"limits": {}})  # its own: some intents are still open when memory is full
        with running(server), capture_logs() as said:
            async with AsyncClient.from_url(server.url) as client:
                async with working(desk, server.url, [LANE]):
                    await _open(server)
                for _ in range(waiting):
                    await client.submit(LANE, symbol="BTCUSDT", order_id=desk.order(LANE))
                told.queued = waiting
                async with working(desk, server.url, [LANE]):
                    await _until(server, lambda judged: judged.open and not judged.unread)
                    _leave_memory(server, 64 * 1024)
                    await _produce_until_refused(told, desk, client)
                    if not await _until(server, lambda judged: not judged.open):
                        told.broken.append(f"not all that was admitted is settled after {SETTLED_S} s without memory")
                    told.settle_refused = _refusals(said)
                    _leave_memory(server, None)
                    await client.submit(LANE, symbol="BTCUSDT", order_id=desk.order(LANE))
                    told.queued += 1
                    await _settled(told, desk, server)
    if told.settle_refused:
        told.broken.append(f"{told.settle_refused} settlements or takes were refused")
    return told


async def _until(server: Server, so: Callable[[Judged], object]) -> bool:
    """Whether the lane stood so in time."""
    end_s = time.monotonic() + SETTLED_S
    while True:
        if so(await asyncio.to_thread(_judged, server)):
            return True
        if time.monotonic() > end_s:
            return False
        await asyncio.sleep(LOOK_S)


def _judged(server: Server) -> Judged:
    with server.client() as client:
        return judge(client, LANE)


def _leave_memory(server: Server, room: int | None) -> None:
    """Leaves the server so many bytes; None: as many as it likes."""
    with server.client() as client:
        used = int(client.info("memory")["used_memory"])
        client.config_set("maxmemory", 0 if room is None else used + room)


def _refusals(said: Sequence[Mapping[str, Any]]) -> int:
    """What a worker was refused besides admission."""
    return sum(str(line["event"]).startswith(("settle refused", "take refused")) for line in said)


# ---------------------------------------------------------------------------
# What must hold afterwards


async def _open(server: Server) -> None:
    client = reader(server.url)
    try:
        await until_open(client, [LANE])
    finally:
        await client.aclose()


async def _settled(told: Full, desk: Desk, server: Server) -> None:
    """Waits until all that was accepted is settled, and judges it."""
    began_s = time.monotonic()
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(SETTLED_S):
            while True:
                judged = await asyncio.to_thread(_judged, server)
                if not judged.open and not judged.unread:
                    break
                await asyncio.sleep(10 * LOOK_S)
    told.settled_s = time.monotonic() - began_s
    told.broken += judged.halves
    if judged.open or judged.unread:
        told.broken.append(f"{judged.open} open and {judged.unread} unread after {SETTLED_S} s")
    client = reader(server.url)
    try:
        ends = await finals(client, LANE)
    finally:
        await client.aclose()
    told.outcomes = len(ends)
    if not told.queued <= told.outcomes <= told.queued + told.uncertain:
        told.broken.append(f"{told.queued} queued, {told.uncertain} uncertain, {told.outcomes} outcomes")
    attempts: Counter[str] = Counter()
    for events in ends.values():
        attempts[events[0].order_id or ""] += events[0].attempt or 0
        if len(events) > 1 or (untrue := desk.untrue(LANE, events[0])):
            told.broken.append(f"{len(events)} final events; {untrue}")
    for row in desk.simulator.truth_of(attempts, venue=LANE.venue).entries:
        if len({naming["call"] for naming in row["cancels"]}) > attempts[row["order_id"]]:
            told.unrecorded += 1
            told.broken.append(f"order {row['order_id']} was named by more calls than are on record")


def _order_calls(desk: Desk, after: int) -> int:
    """Calls about orders that reached the venue since its call number `after`."""
    return sum(1 for call in desk.simulator.calls(after=after).entries if "/trade/" in str(call["endpoint"]))


def report(done: Iterable[Full]) -> list[str]:
    """Lines for a person."""
    return [
        f"full   {f.kind:7} {f.what}: {f.queued} queued, {f.uncertain} uncertain, refused with {f.refused}; "
        f"{f.calls} calls meanwhile, {f.unrecorded} unrecorded, {f.settle_refused} settlements refused; "
        f"{f.outcomes} outcomes {f.settled_s:.1f} s after there was room{_ended(f)}, {len(f.broken)} broken"
        for f in done
    ]


def _ended(full: Full) -> str:
    return " and the server, which had ended, was started again" if full.ended else ""
