"""TERM at random instants: a worker takes nothing new, finishes what it sent, gives back what it did not, and exits 0.

One worker stays; beside it one after the other is started, gets work with it and is told to end at an instant that
follows from the seed: before the first intent is read, between any two steps of a call, or at rest. Then every order
must have been named by one call exactly.
"""

from __future__ import annotations

import asyncio
import random
import signal
import time
from dataclasses import dataclass, field
from pathlib import Path

from ops.checks import judge as judge_case
from ops.crash.desk import DRAIN_S, NOISE_S, SETTLE_S, Desk, Floor, desk, until
from ops.crash.judging import never_said

INTENTS = 40  # at each instant; more than a call carries, so that there are calls before and behind it
LATEST_S = 0.6  # after the intents were queued: by then nearly all of them have been sent


@dataclass(slots=True)
class Ended:
    """What came of some instants. `slowest_s`: from TERM to the exit."""

    desk: Desk
    instants: int = 0
    slowest_s: float = 0.0
    broken: list[str] = field(default_factory=list)


async def play(venue: str, floor: Floor, database: int, folder: Path, *, instants: int, seed: str) -> Ended:
    """So many instants, one after the other."""
    rng = random.Random(f"{venue} {seed}")
    ended = Ended(desk(venue, floor, database, folder, seed, streams=rng.random() < 0.5))
    made = ended.desk
    async with made.opened(latency_before_ms=(2, 40), latency_after_ms=(2, 40)):
        stays = await made.start()
        for _ in range(instants):
            ends = await made.start()
            await made.until_serving([stays, ends])
            await _instant(ended, ends.pid, rng)
            ends.code = floor.zygote.exits.get(ends.pid)
        if not await until(made.all_told, SETTLE_S + NOISE_S + 20):
            ended.broken.append("[1] not everything was told in time")
    _judge(ended)
    return ended


async def _instant(ended: Ended, pid: int, rng: random.Random) -> None:
    made, zygote = ended.desk, ended.desk.floor.zygote
    symbol, now_ms = made.place.spelt("BTC"), time.time_ns() // 1_000_000
    orders = [made.order(symbol, now_ms) for _ in range(rng.randrange(1, INTENTS))]
    await made.ask([{"symbol": symbol, "order_id": o} for o in orders], [[o] for o in orders])
    after_s = rng.uniform(0, LATEST_S)
    await asyncio.sleep(after_s)
    begun_s = time.monotonic()
    zygote.signal(pid, signal.SIGTERM)
    code = await zygote.ended(pid, DRAIN_S + NOISE_S)
    took_s = time.monotonic() - begun_s
    ended.instants += 1
    ended.slowest_s = max(ended.slowest_s, took_s)
    if code != 0:
        ended.broken.append(f"[17] TERM {after_s * 1000:.0f} ms after {len(orders)} intents: ended with {code}")
    elif took_s > DRAIN_S:
        ended.broken.append(f"[17] TERM {after_s * 1000:.0f} ms after {len(orders)} intents: took {took_s:.1f} s")


def _judge(ended: Ended) -> None:
    """None lost, none sent again."""
    case = ended.desk.case(None)
    ended.broken += [str(broken) for broken in judge_case(case)]
    for row in case.venue.orders:
        named = {naming["call"] for naming in row["cancels"]}
        if len(named) != 1:
            ended.broken.append(f"[17] order {row['order_id']} was named by {len(named)} calls")
    ended.broken += never_said(ended.desk)
