"""Intents that no worker survives, in a batch with others: parked after three, and nobody else is harmed."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from cancelq.contract import Event, Status
from ops.checks import judge as judge_case
from ops.crash.desk import DRAIN_S, LEASE_MS, NOISE_S, Desk, Floor, Worker, desk, until
from ops.crash.poison import KINDS

STRIKES = 3
AGAIN_S = 0.05  # between two looks after workers that have ended


@dataclass(slots=True)
class Poisoned:
    """What came of it. `kinds`: kind of each poisoned order; `deaths`: workers that ended; `parked_s`: until the last
    poison was told."""

    desk: Desk
    kinds: Mapping[str, str]
    deaths: int = 0
    parked_s: float = 0.0
    broken: list[str] = field(default_factory=list)

    def event_of(self, order_id: str) -> Event | None:
        """The final event of the intent that names an order."""
        events = self.desk.told.finals.values()
        return next((event[-1] for event in events if event[-1].order_id == order_id), None)


async def play(
    venue: str, floor: Floor, database: int, folder: Path, *, batch: int = 50, kinds: Sequence[str] = KINDS
) -> Poisoned:
    """A batch with one order of each kind in it. Two workers, and another for each that ends."""
    made = desk(venue, floor, database, folder, f"{venue} poison")
    async with made.opened():
        symbol, now_ms = made.place.spelt("BTC"), time.time_ns() // 1_000_000
        orders = [made.order(symbol, now_ms) for _ in range(batch)]
        # Spread over the batch, the first and the last among them.
        poisons = dict(zip(orders[:: max(1, (batch - 1) // max(1, len(kinds) - 1))], kinds, strict=False))
        played, plan = Poisoned(made, poisons), json.dumps(poisons)
        workers = [await made.start(poison=plan) for _ in range(2)]
        await made.until_serving(workers)
        begun_s = time.monotonic()
        replacing = asyncio.ensure_future(_replace(played, plan))
        try:
            await made.ask([{"symbol": symbol, "order_id": o} for o in orders], [[o] for o in orders])
            await until(made.all_told, most_s(batch))
            played.parked_s = time.monotonic() - begun_s
        finally:
            replacing.cancel()
            await asyncio.wait({replacing})
    _judge(played, orders)
    return played


def most_s(batch: int) -> float:
    """Three leases of the batch, or of a poison alone; then a look, a cancel and a look for each order alone."""
    return (2 + STRIKES) * (LEASE_MS / 1000 + 1) + batch / 5 + 10 + NOISE_S


async def _replace(played: Poisoned, plan: str) -> None:
    """A new worker for each that ends."""
    while True:
        for worker in [w for w in played.desk.workers if w.code is None]:
            await _replace_one(played, worker, plan)
        await asyncio.sleep(AGAIN_S)


async def _replace_one(played: Poisoned, worker: Worker, plan: str) -> None:
    with contextlib.suppress(KeyError):
        worker.code = played.desk.floor.zygote.exits[worker.pid]
        played.deaths += 1
        await played.desk.start(poison=plan)


def _judge(played: Poisoned, orders: Sequence[str]) -> None:
    """Each poison is parked, everything else is cancelled, and no more workers ended than there may."""
    tell = played.broken.append
    for order in orders:
        event, kind = played.event_of(order), played.kinds.get(order)
        expected = Status.unresolved if kind else Status.cancelled
        if event is None or event.status is not expected:
            tell(f"[13] order {order} ({kind or 'harmless'}): {event and (event.status, event.detail)}")
    played.broken += [str(broken) for broken in judge_case(played.desk.case(None))]
    deadly = [kind for kind in played.kinds.values() if kind == "exit"]
    if played.deaths > STRIKES * len(deadly):
        tell(f"[13] {played.deaths} workers ended, {STRIKES * len(deadly)} may")
    if played.desk.drained_s > DRAIN_S + NOISE_S:
        tell(f"[17] {played.desk.drained_s:.1f} s from TERM to the last exit")
