"""Master after master is lost under load; then every confirmed intent is looked for, in the results and at the venue.

Three of Debian's redis-server, three sentinels, a worker and two producers: one waits for a replica (`durable`), one
does not. A master is killed, or stands still until another one has taken over. What the producer that waits was told is
queued must end, truly and within the venue's limits; how much of the other's is lost is told for comparison.

    python -m ops.failover --failovers 20 --seed 7 --result build/failover.json
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import signal
import sys
import tempfile
import time
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path

import structlog

from cancelq.contract import Lane, Status
from cancelq_worker import operate
from tests.ha import Watched, watched
from tests.integration.failover import Asking, calls_of_routes, epoch_us, outcomes, passed_limits, patiently, true
from tests.integration.floor import Floor, floor

LEASE_MS = 3_000
HELD_US = LEASE_MS * 1_000 + 900_000
ENV = {"CANCELQ_DURABLE_REPLICAS": "1", "CANCELQ_LEASE_MS": str(LEASE_MS)}
SAFE = {"min-replicas-to-write": "1"}
AGAIN = 50  # intents that are confirmed between two failovers, at least
QUIET_S = 120.0


@dataclass(slots=True)
class Figures:
    """What a run came to. `without_calls_ms`: from the loss of a master to the venue's next call, each time;
    `elected_ms`: how much of that the sentinels took to name another one."""

    seed: int
    failovers: int = 0
    confirmed: int = 0
    uncertain: int = 0
    lost: int = 0
    false_outcomes: int = 0
    unresolved: int = 0  # no falsehood: the venue was asked as often as may be, and did not say
    calls_while_held: int = 0
    limits_passed: int = 0
    acknowledged: int = 0
    acknowledged_lost: int = 0
    without_calls_ms: list[int] = field(default_factory=list)
    elected_ms: list[int] = field(default_factory=list)

    @property
    def well(self) -> bool:
        return not (self.lost or self.false_outcomes or self.calls_while_held or self.limits_passed)


async def run(failovers: int, seed: int, per_s: float, folder: Path) -> Figures:
    """Loses that many masters, one after the other."""
    figures, chance = Figures(seed), random.Random(seed)
    with ExitStack() as stack:
        servers = await asyncio.to_thread(stack.enter_context, watched(folder, replicas=2, config=SAFE))
        async with floor(servers.url, "bitget:main", env=ENV) as desk:
            (lane,), stop = desk.lanes, asyncio.Event()
            waiting = Asking(desk, lane, servers.url, "waited", per_s)
            hasty = Asking(desk, lane, servers.url, "hasty", per_s, durable=False)
            tasks = [asyncio.ensure_future(one.run(stop)) for one in (waiting, hasty)]
            for _ in range(failovers):
                least = len(waiting.accepted) + AGAIN
                await true(lambda least=least: len(waiting.accepted) >= least, within_s=60.0)  # type: ignore[misc]
                await asyncio.sleep(chance.random())  # where in a window it happens is left to chance
                await _lose_one(servers, desk, lane, figures, kill=chance.random() < 0.7)
            stop.set()
            await asyncio.gather(*tasks)
            await _quiet(desk, lane)
            await _judge(desk, lane, waiting, hasty, figures)
    return figures


async def _lose_one(servers: Watched, desk: Floor, lane: Lane, figures: Figures, *, kill: bool) -> None:
    old = servers.master()
    lost_us = epoch_us()
    if kill:
        old.kill9()
    else:
        os.kill(old.pid, signal.SIGSTOP)
    try:
        await asyncio.to_thread(servers.await_failover, old)
        promoted_us = epoch_us()
        await true(lambda: _first_call_us(desk, lane, promoted_us) > 0, within_s=90.0)
    finally:
        if kill:
            await asyncio.to_thread(old.start)
        else:
            os.kill(old.pid, signal.SIGCONT)
    next_us = _first_call_us(desk, lane, promoted_us)
    figures.failovers += 1
    figures.calls_while_held += next_us < promoted_us + HELD_US
    figures.without_calls_ms.append((next_us - lost_us) // 1000)
    figures.elected_ms.append((promoted_us - lost_us) // 1000)
    await asyncio.to_thread(servers.await_replicas, 2)
    await asyncio.to_thread(servers.await_seen, 2)
    what, elected_ms = "killed" if kill else "stopped", figures.elected_ms[-1]
    told = f"another one after {elected_ms} ms, {figures.without_calls_ms[-1]} ms without a call"
    print(f"{figures.failovers}: {what}, {told}", flush=True)


def _first_call_us(desk: Floor, lane: Lane, after_us: int) -> int:
    return min(
        (int(call["at_us"]) for call in calls_of_routes(desk, lane) if int(call["at_us"]) >= after_us), default=0
    )


async def _quiet(desk: Floor, lane: Lane) -> None:
    """Until nothing is under way."""
    until_s = time.monotonic() + QUIET_S
    while time.monotonic() < until_s:
        (seen,) = await patiently(lambda: operate.status(desk.client, [lane]))
        if not (seen.queued or seen.confirming or seen.in_flight or seen.timed or seen.not_admitted):
            return
        await asyncio.sleep(0.2)  # between two looks
    raise AssertionError(f"not everything was settled within {QUIET_S:.0f} s")


async def _judge(desk: Floor, lane: Lane, waiting: Asking, hasty: Asking, figures: Figures) -> None:
    found = await outcomes(desk, lane)
    figures.confirmed, figures.uncertain = len(waiting.accepted), waiting.doubted
    figures.lost = sum(id_ not in found for id_ in waiting.accepted)
    figures.acknowledged = len(hasty.accepted)
    figures.acknowledged_lost = sum(id_ not in found for id_ in hasty.accepted)
    for id_, order in {**waiting.accepted, **hasty.accepted}.items():
        if id_ in found:
            said, truth = found[id_][-1].status, desk.truth(lane, order)["state"]
            figures.unresolved += said is Status.unresolved
            figures.false_outcomes += said is not Status.unresolved and (said, truth) != (Status.cancelled, "cancelled")
    figures.limits_passed = len(passed_limits(desk))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--failovers", type=int, default=10)
    parser.add_argument("--seed", type=int, default=None)
    parser.add_argument("--per-s", type=float, default=60.0, help="intents a second of each producer")
    parser.add_argument("--result", type=Path, help="where the figures go, as JSON")
    args = parser.parse_args()
    seed = args.seed if args.seed is not None else random.SystemRandom().randrange(1_000_000)
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(40))
    print(f"seed {seed}")
    with tempfile.TemporaryDirectory() as folder:
        figures = asyncio.run(run(args.failovers, seed, args.per_s, Path(folder) / "servers"))
    told = json.dumps({**asdict(figures), "well": figures.well}, indent=2)
    print(told)
    if args.result:
        args.result.parent.mkdir(parents=True, exist_ok=True)
        args.result.write_text(told + "\n")
    return 0 if figures.well else 1


if __name__ == "__main__":
    sys.exit(main())
