"""Scenarios with more orders than the venue takes for a while: the whole budget, and never more."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Any

from rig import BenchFailed, Server, cpu_s

from cancelq.contract import Lane
from rate.fleet import Fleet, Ledger, Worker, fill, fleet
from rate.judge import Load, Verdict, best_drain_s, drain, judge_outcomes, judge_windows
from rate.rules import Arrival, Window, rules
from rate.way import Way

NO_RESERVE = {"CANCELQ_URGENT_RESERVE": "0"}
# A venue whose second is a little longer than this machine's is the harder one; its clock is off as well.
CLOCK: Mapping[str, float] = {"offset_ms": 137.0, "drift_ppm": -200.0}
MAIN = Lane("bitget", "main")
#: Orders a Bitget account can cancel in a second: ten batches of fifty and ten singles.
BITGET_RATE, BYBIT_RATE, BINGX_RATE = 510, 40, 25


@dataclass(slots=True)
class Options:
    """What every scenario may be told."""

    seconds: float = 60.0
    seed: int = 1
    orders: int = 10_000
    evidence: int = 8
    settings: Mapping[str, str] = field(default_factory=dict)  # the workers', over those of the scenario


@dataclass(slots=True)
class Run:
    """A backlog and who works on it. `workers`: how many behind each door; `during`: what else happens."""

    name: str
    ways: Sequence[Way]
    orders: int
    lanes: Sequence[Lane] = (MAIN,)
    workers: Sequence[int] = (3,)
    during: Callable[[Fleet, Verdict], None] | None = None
    settings: Mapping[str, str] = field(default_factory=dict)
    sizes: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    within_s: float = 120.0
    promised: bool = True  # False: ways of which no round trip tells enough, so that calls over a limit are only told


@dataclass(slots=True)
class Played:
    """What is left of a run."""

    verdict: Verdict
    calls: list[Arrival]
    windows: list[Window]
    last_final_us: int


def play(server: Server, run: Run, options: Options) -> Played:
    """Workers first, then the whole backlog at once, then until every intent has ended."""
    verdict = Verdict(run.name)
    venue: dict[str, Any] = {**CLOCK, "seed": options.seed, "sizes": run.sizes}
    with fleet(server, run.lanes, run.ways, venue, {**run.settings, **options.settings}) as running:
        for door, count in enumerate(run.workers):
            running.start(count, door)
        time.sleep(1.0)  # the fleet agrees on who watches which lane; nothing of the run waits for it
        orders = {str(lane): running.venue.orders(lane, run.orders) for lane in run.lanes}
        ledgers = [Ledger(server, lane) for lane in run.lanes]
        load = Load(running)
        for lane in run.lanes:
            fill(server, lane, orders[str(lane)], at_once=True)
        if run.during:
            run.during(running, verdict)
        try:
            for ledger in ledgers:
                ledger.wait(run.orders, run.within_s)
        except BenchFailed as failure:  # what was seen until then is told all the same
            verdict.must(False, str(failure))
        calls = running.venue.calls()
        found = judge_windows(verdict, calls, rules(run.sizes), ledgers, shown=options.evidence, promised=run.promised)
        judge_outcomes(verdict, running, ledgers, orders)
        verdict.say(load.told())
        if errors := running.said("error"):
            verdict.say(f"workers' errors: {len(errors)}, first {errors[0]}")
    return Played(verdict, calls, found, max(ledger.last_final_us for ledger in ledgers))


def _tell_drain(played: Played, run: Run, per_second: int, aim: float | None) -> None:
    took_s, count = drain(played.calls)
    best_s = best_drain_s(run.orders, per_second)
    first_us = min(call.at_us for call in played.calls if call.is_cancel)
    offset_us = (time.time_ns() - time.monotonic_ns()) // 1000
    final_s = (played.last_final_us - offset_us - first_us) / 1e6
    line = (
        f"drain of {run.orders} orders in {count} calls: {took_s:.3f} s, best possible {best_s:.0f} s "
        f"({per_second} a second in bursts): {took_s / best_s:.3f}"
    )
    played.verdict.figures |= {"drain": took_s / best_s, "final": final_s / best_s}
    if aim is None:
        played.verdict.say(line)
    else:
        played.verdict.aim(took_s <= aim * best_s, f"{line}, aim {aim}")
    played.verdict.say(f"to the last final event {final_s:.3f} s: {final_s / best_s:.3f}")


# -- one account, drained --------------------------------------------------------------------------------------------


def drain_far(server: Server, options: Options) -> Verdict:
    """10,000 orders, three workers, round trips of 20 to 60 ms, both ways drawn independently."""
    return _drain(server, options, "drain-far", Way("halves", 20, 60), 1.05)


def drain_there(server: Server, options: Options) -> Verdict:
    """The same with all of the delay on the way there."""
    return _drain(server, options, "drain-there", Way("there", 20, 60), 1.05)


def drain_back(server: Server, options: Options) -> Verdict:
    """The same with all of the delay on the way back."""
    return _drain(server, options, "drain-back", Way("back", 20, 60), 1.05)


def drain_any(server: Server, options: Options) -> Verdict:
    """The same with each round trip cut in two anywhere, so that the shortest way there and back are next to nothing:
    what the round trip promises of them is wrong."""
    return _drain(server, options, "drain-any", Way("any", 20, 60), None, promised=False)


def drain_near(server: Server, options: Options) -> Verdict:
    """The same with round trips of 2 to 4 ms."""
    return _drain(server, options, "drain-near", Way("halves", 2, 4), 1.02)


def _drain(
    server: Server, options: Options, name: str, way: Way, aim: float | None, *, promised: bool = True
) -> Verdict:
    run = Run(name, [way], options.orders, settings=NO_RESERVE, promised=promised)
    played = play(server, run, options)
    _tell_drain(played, run, BITGET_RATE, aim)
    return played.verdict


# -- workers that stall, ways that differ or change -------------------------------------------------------------------


def stalls(server: Server, options: Options) -> Verdict:
    """Eight workers; one after the other is stopped for one to five seconds, up to three at a time."""
    return _stalls(server, options, "stalls", 1, 5)


def long_stalls(server: Server, options: Options) -> Verdict:
    """The same for six to twelve seconds: longer than a lease, so that permits end while their workers stand still."""
    return _stalls(server, options, "long-stalls", 6, 12)


def _stalls(server: Server, options: Options, name: str, least_s: float, most_s: float) -> Verdict:
    def during(running: Fleet, verdict: Verdict) -> None:
        rng, ends_s = Random(options.seed), time.monotonic() + options.seconds
        stopped: dict[int, float] = {}
        count = 0
        while time.monotonic() < ends_s:
            for pid in [pid for pid, till_s in stopped.items() if till_s <= time.monotonic()]:
                _signal(running, pid, signal.SIGCONT)
                del stopped[pid]
            if len(stopped) < 3 and rng.random() < 0.3:
                pid = _victim(running, rng, stopped)
                _signal(running, pid, signal.SIGSTOP)
                stopped[pid] = time.monotonic() + rng.uniform(least_s, most_s)
                count += 1
            time.sleep(0.1)
        for pid in stopped:
            _signal(running, pid, signal.SIGCONT)
        verdict.say(f"stopped {count} times")

    orders = int(options.seconds * BITGET_RATE)
    run = Run(name, [Way("halves", 20, 60)], orders, workers=(8,), during=during, settings=NO_RESERVE)
    return play(server, run, options).verdict


def _victim(running: Fleet, rng: Random, stopped: Mapping[int, float]) -> int:
    """Every other time the one that works most, else any."""
    going = [worker for worker in running.workers if worker.pid not in stopped]
    return (busiest(going) if rng.random() < 0.5 else rng.choice(going)).pid


def busiest(workers: Sequence[Worker]) -> Worker:
    """The one that works most just now."""
    before = {worker.pid: cpu_s(worker.pid) for worker in workers}
    time.sleep(0.2)
    return max(workers, key=lambda worker: cpu_s(worker.pid) - before[worker.pid])


def _signal(running: Fleet, pid: int, which: signal.Signals) -> None:
    next(worker for worker in running.workers if worker.pid == pid).process.send_signal(which)


def near_and_far(server: Server, options: Options) -> Verdict:
    """One worker 2 ms away, another 60 ms."""
    ways = [Way("halves", 2, 3), Way("halves", 58, 64)]
    run = Run("near-and-far", ways, int(options.seconds * BITGET_RATE), workers=(1, 1), settings=NO_RESERVE)
    return play(server, run, options).verdict


def near_joins(server: Server, options: Options) -> Verdict:
    """One worker 60 ms away; after ten seconds another one joins, 2 ms away."""

    def during(running: Fleet, verdict: Verdict) -> None:
        time.sleep(10.0)
        running.start(1, door=1)
        verdict.say("the near worker has joined")

    ways = [Way("halves", 58, 64), Way("halves", 2, 3)]
    orders = int(options.seconds / 2 * BITGET_RATE)
    run = Run("near-joins", ways, orders, workers=(1,), during=during, settings=NO_RESERVE)
    return play(server, run, options).verdict


def shorter(server: Server, options: Options) -> Verdict:
    """The way becomes shorter all at once (60 to 5 ms), and longer again, every ten seconds."""
    long, short = Way("halves", 55, 65), Way("halves", 4, 6)
    changed: list[tuple[int, Way]] = []

    def during(running: Fleet, verdict: Verdict) -> None:
        ends_s = time.monotonic() + options.seconds
        way = long
        while time.monotonic() < ends_s:
            time.sleep(10)
            way = short if way is long else long
            changed.append((running.venue.change(way), way))
        verdict.say(f"the way changed {len(changed)} times")

    orders = int(options.seconds * BITGET_RATE)
    run = Run("shorter", [long], orders, during=during, settings=NO_RESERVE, promised=False)
    played = play(server, run, options)
    for window in played.windows:
        for over in window.over:
            since = [(over.arrival.at_us - at_us) / 1000 for at_us, way in changed if at_us <= over.arrival.at_us]
            after = f"{since[-1]:.0f} ms after change {len(since)}" if since else "before the first change"
            name = window.rule.name
            played.verdict.say(f"{name}: over by {over.early_us / 1000:.1f} ms, {after}")
    return played.verdict


def tailed(server: Server, options: Options) -> Verdict:
    """Delays with a heavy tail, answers that never come and connections reset after the call was carried out."""
    way = Way("tailed", 30, 3000, sigma=1.0, silent=0.01, reset=0.01)
    run = Run("tailed", [way], int(options.seconds * BITGET_RATE / 2), settings=NO_RESERVE, within_s=180)
    return play(server, run, options).verdict


# -- the other venues ---------------------------------------------------------------------------------------------


def bybit(server: Server, options: Options) -> Verdict:
    """Bybit's batch counts each order, and this account's limits are 25 a second, as only the answers say."""
    sizes = {"bybit": {"cancel": 25, "cancel-batch": 25}}
    lane = Lane("bybit", "main")
    orders = int(options.seconds / 2 * 50)
    run = Run("bybit", [Way("halves", 10, 30)], orders, [lane], settings=NO_RESERVE, sizes=sizes)
    played = play(server, run, options)
    _tell_drain(played, run, 50, 1.05)
    worst = {window.rule.name: window.worst for window in played.windows}
    played.verdict.aim(
        worst.get("cancel", 0) > 20 or worst.get("cancel-batch", 0) > 20,
        f"the limit of 25 that the answers tell is used: {worst.get('cancel')} and {worst.get('cancel-batch')}",
    )
    return played.verdict


def bybit_address(server: Server, options: Options) -> Verdict:
    """Four Bybit accounts behind one address of 600 calls in five seconds, which they would need twice over."""
    lanes = [Lane("bybit", name) for name in ("a", "b", "c", "d")]
    run = Run("bybit-address", [Way("halves", 10, 30)], int(options.seconds / 2 * BYBIT_RATE), lanes, within_s=240)
    return play(server, run, options).verdict


def bingx(server: Server, options: Options) -> Verdict:
    """BingX: five singles and two batches of ten a second, two accounts behind one address."""
    lanes = [Lane("bingx", name) for name in ("a", "b")]
    run = Run("bingx", [Way("halves", 10, 30)], int(options.seconds / 2 * BINGX_RATE), lanes, settings=NO_RESERVE)
    played = play(server, run, options)
    _tell_drain(played, run, BINGX_RATE, 1.05)
    return played.verdict
