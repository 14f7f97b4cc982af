"""Scenarios in which the fleet itself is in trouble: crowds, deaths, a server that stands still, demand in drops."""

from __future__ import annotations

import os
import signal
import time
from random import Random

from rig import Server

from cancelq.contract import Lane
from rate.backlog import CLOCK, MAIN, NO_RESERVE, Options, Run, busiest, play
from rate.fleet import Fleet, Ledger, fill, fleet
from rate.judge import Load, Verdict, judge_outcomes, judge_windows
from rate.rules import rules
from rate.way import Way

WAY = Way("halves", 20, 60)


def crowd(server: Server, options: Options) -> Verdict:
    """Twelve Bitget accounts behind one address, six workers that start together, with all their calls for the time."""
    lanes = [Lane("bitget", f"a{number}") for number in range(12)]
    run = Run("crowd", [Way("halves", 2, 6)], 600, lanes, workers=(6,), settings=NO_RESERVE)
    return play(server, run, options).verdict


def killed(server: Server, options: Options) -> Verdict:
    """Four workers, of which the busiest is killed every three seconds and another one started."""

    def during(running: Fleet, verdict: Verdict) -> None:
        ends_s, count = time.monotonic() + options.seconds, 0
        while time.monotonic() < ends_s:
            time.sleep(3.0)
            worker = busiest(running.alive)
            worker.process.kill()
            worker.process.wait()
            running.start(1)
            count += 1
        verdict.say(f"killed {count} workers")

    orders = int(options.seconds * 350)  # what a dead worker had in its hands waits for its lease
    run = Run("killed", [WAY], orders, workers=(4,), during=during, settings=NO_RESERVE)
    return play(server, run, options).verdict


def server_stalls(server: Server, options: Options) -> Verdict:
    """The server stands still for a tenth of a second to two seconds, again and again."""

    def during(running: Fleet, verdict: Verdict) -> None:
        rng, ends_s, count = Random(options.seed), time.monotonic() + options.seconds, 0
        try:
            while time.monotonic() < ends_s:
                time.sleep(rng.uniform(0.5, 4.0))
                os.kill(server.pid, signal.SIGSTOP)
                time.sleep(rng.uniform(0.1, 2.0))
                os.kill(server.pid, signal.SIGCONT)
                count += 1
        finally:
            os.kill(server.pid, signal.SIGCONT)
        verdict.say(f"stopped {count} times")

    run = Run("server-stalls", [WAY], int(options.seconds * 300), during=during, settings=NO_RESERVE)
    return play(server, run, options).verdict


def drops(server: Server, options: Options) -> Verdict:
    """No backlog: one to sixty orders at a time at random moments, a little less than the limit takes."""
    verdict, rng = Verdict("drops"), Random(options.seed)
    with fleet(server, [MAIN], [WAY], {**CLOCK, "seed": options.seed}, options.settings) as running:
        running.start(3)
        orders: list[str] = []
        ledger, load, ends_s = Ledger(server, MAIN), Load(running), time.monotonic() + options.seconds
        while time.monotonic() < ends_s:
            some = running.venue.orders(MAIN, rng.choice((1, 1, 2, 5, 20, 60)))
            fill(server, MAIN, some)
            orders += some
            time.sleep(rng.expovariate(18))
        ledger.wait(len(orders), 60)
        calls = running.venue.calls()
        judge_windows(verdict, calls, rules({}), [ledger], shown=options.evidence)
        judge_outcomes(verdict, running, [ledger], {str(MAIN): orders})
        verdict.say(load.told())
    return verdict
