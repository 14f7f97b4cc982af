"""One cell of the matrix: a venue, a step, a fault and a batch, played with two real workers on a lane of their own.

Both are alive from the start, so that whoever does not suffer the fault serves what the other held.
"""

from __future__ import annotations

import asyncio
import json
import signal
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from cancelq_worker.scripts import SCRIPTS
from ops.chaos.places import PLACES
from ops.crash.desk import LEASE_MS, LOOK_S, NOISE_S, PATIENCE_S, SETTLE_S, Desk, Floor, desk, until
from ops.crash.hooks import REPLIES, Plan
from ops.crash.links import LossyLink, granted

STOPPED_S = LEASE_MS / 1000 + 2.0
AWAKE_S = 1.0  # for a worker that was stopped to find out that it is late

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
    def step(self) -> str:
        return self.point.partition(".")[2]

    @property
    def sweeps(self) -> bool:
        return self.flow in ("bulk", "list", "sweep-cancel")

    @property
    def possible(self) -> bool:
        """Only a step that waits for a reply can lose one."""
        return self.fault != "lost" or self.step in REPLIES

    def __str__(self) -> str:
        return f"{self.venue} {self.point} {self.fault} x{self.batch}"


def all_cells(venues: tuple[str, ...] = VENUES, batches: tuple[int, ...] = (1, 50)) -> list[Cell]:
    """The whole matrix, impossible cells left out."""
    cells = [Cell(v, p, f, b) for v in venues for b in batches for p in POINTS for f in FAULTS]
    return [cell for cell in cells if cell.possible]


@dataclass(slots=True)
class Played:
    """What came of a cell, for its judge. `fault_us`: UTC µs, None if the step was never reached; `victim`: the pid of
    the worker that suffered it, 0 for a lost reply."""

    cell: Cell
    desk: Desk
    fault_us: int | None = None
    victim: int = 0


async def play(cell: Cell, floor: Floor, database: int, folder: Path) -> Played:
    """Plays a cell. `folder` is empty and its own, `database` too. Raises TimeoutError if no worker comes up."""
    return await _Play(cell, floor, database, folder).play()


class _Play:
    def __init__(self, cell: Cell, floor: Floor, database: int, folder: Path) -> None:
        self.cell = cell
        self.plan = Plan(cell.point, cell.fault, str(folder))
        self.desk = desk(cell.venue, floor, database, folder, str(cell), streams=cell.flow == "push")
        self.played = Played(cell, self.desk)

    async def play(self) -> Played:
        self.plan.token.touch()
        # A push is only needed, and a look of BingX' only made, where the cancel is late.
        late_ms = 250 if self.cell.flow == "push" or (self.cell.flow == "look" and self.cell.venue == "bingx") else 0
        async with self.desk.opened(cancel_delay_ms=late_ms) as venue_port, self._links(venue_port):
            workers = [await self.desk.start(crash=self.plan.text()) for _ in range(2)]
            await self.desk.until_serving(workers)
            await self._ask()
            await self._suffer()
            await self._heal()
        return self.played

    # -- what happens -------------------------------------------------------------------------------------------

    async def _ask(self) -> None:
        if self.cell.flow == "push":
            await until(self._streamed, PATIENCE_S)
        symbol, now_ms = self.desk.place.spelt("BTC"), time.time_ns() // 1_000_000
        # A bulk call is not worth its while for one order everywhere.
        count = max(2, self.cell.batch) if self.cell.flow == "bulk" else self.cell.batch
        orders = [self.desk.order(symbol, now_ms) for _ in range(count)]
        if self.cell.sweeps:
            # Narrowed, so that no bulk call is made, unless that one is what this is about.
            narrowed = {} if self.cell.flow == "bulk" else {"older_than_ms": str(now_ms)}
            await self.desk.ask([{"scope": "symbol", "symbol": symbol, **narrowed}], [orders])
        else:
            await self.desk.ask([{"symbol": symbol, "order_id": o} for o in orders], [[o] for o in orders])

    async def _suffer(self) -> None:
        """Until the fault has happened, or everything is told without it."""
        await until(self._fired_or_told, PATIENCE_S)
        if self.plan.fired.exists():
            told = json.loads(self.plan.fired.read_text())
            self.played.fault_us, self.played.victim = told["at_us"], told["pid"]

    async def _heal(self) -> None:
        """A stopped worker goes on some time after its lease. Then until everything is told, or must be."""
        until_s = time.monotonic() + SETTLE_S + NOISE_S + 5
        if self.cell.fault == "stop" and self.played.victim:
            await asyncio.sleep(STOPPED_S)
            self.desk.floor.zygote.signal(self.played.victim, signal.SIGCONT)
            await asyncio.sleep(AWAKE_S)
        await until(self.desk.all_told, max(LOOK_S, until_s - time.monotonic()))

    async def _streamed(self) -> bool:
        return bool(await self.desk.redis.exists(self.desk.lane.key("stream")))

    async def _fired_or_told(self) -> bool:
        return self.plan.fired.exists() or await self.desk.all_told()

    # -- replies that are lost ----------------------------------------------------------------------------------

    @asynccontextmanager
    async def _links(self, venue_port: int) -> AsyncIterator[None]:
        """Puts links in between where a reply is to be lost."""
        if self.cell.fault != "lost":
            yield
            return
        links = LossyLink(self.desk.redis_at, self._loses_redis), LossyLink(venue_port, self._loses_venue)
        async with AsyncExitStack() as stack:
            for link in links:
                await link.open()
                stack.push_async_callback(link.close)
            self.desk.redis_at, self.desk.venue_at = links[0].port, links[1].port
            try:
                yield
            finally:
                await self.desk.drain(self.desk.workers)  # as long as there is a way for them

    def _loses_redis(self, asked: bytes, reply: bytes) -> bool:
        if self.cell.step == "take-sent":
            found = self.plan.token.exists() and granted(self.cell.flow).search(reply)
            if found:
                self.plan.token.unlink()
                self.plan.fired.write_text(json.dumps({"pid": 0, "at_us": time.time_ns() // 1000}))
            return bool(found)
        name = {"sent": "admit", "claim-sent": "claim", "settle-sent": "settle"}.get(self.cell.step)
        return name is not None and SCRIPTS.sha[name].encode() in asked and self._disarm()

    def _loses_venue(self, asked: bytes, reply: bytes) -> bool:
        return self.cell.step == "written" and b"/time" not in asked and self._disarm()

    def _disarm(self) -> bool:
        try:
            self.plan.armed.unlink()
        except FileNotFoundError:
            return False
        return True
