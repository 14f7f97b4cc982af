"""Scenarios in which the venue, or an operator, says stop."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from rig import BenchFailed, Server

from cancelq.contract import Lane
from rate.backlog import CLOCK, MAIN, Options
from rate.fleet import Fleet, Ledger, fill, fleet
from rate.judge import Load, Verdict, judge_outcomes, judge_windows
from rate.rules import Arrival, rules
from rate.way import Way

WAY = Way("halves", 10, 30)
BYBIT, BINGX = Lane("bybit", "main"), Lane("bingx", "main")
#: A call that was read so soon after the refusal's answer was under way: it takes a trip to Redis, and those who hold a
#: permit already, to know of it.
UNDER_WAY_MS = 50.0


@dataclass(frozen=True, slots=True)
class Refusal:
    """What the venue is told to refuse once: the next call of this endpoint, and all that come in `for_ms`."""

    lane: Lane
    endpoint: str
    kind: str
    for_ms: int
    whole: bool = False

    def asked(self) -> dict[str, Any]:
        return {
            "venue": self.lane.venue,
            "endpoint": self.endpoint,
            "kind": self.kind,
            "for_ms": self.for_ms,
            "whole": self.whole,
        }

    def hits(self, call: Arrival) -> bool:
        """Whether a call is one of those that must wait. The time calls of an address are everybody's."""
        if call.venue != self.lane.venue or call.endpoint == "time":
            return False
        return self.whole or (call.account == self.lane.account and call.endpoint == self.endpoint)


# What Bitget says holds for the second it is said in; the others tell the time.
REFUSALS = (
    Refusal(MAIN, "batch-cancel-order", "limit", 900),
    Refusal(BYBIT, "cancel", "limit", 2500),
    Refusal(BINGX, "cancelOrders", "limit", 4000),
    Refusal(MAIN, "history-orders", "limit", 900),
    Refusal(BYBIT, "cancel-batch", "limit", 2500),
    Refusal(BINGX, "cancel", "limit", 3000),
    Refusal(BYBIT, "realtime", "limit", 2000),
    Refusal(MAIN, "cancel-order", "limit", 900),
)


def refused(server: Server, options: Options) -> Verdict:
    """Each venue refuses, one endpoint at a time: silence until the told time, then a call alone, no attempt burnt."""
    verdict, lanes = Verdict("refused"), [MAIN, BYBIT, BINGX]
    small = {"CANCELQ_ACCOUNTS__BITGET__MAIN__BATCH_SIZE": "10"}
    with fleet(server, lanes, [WAY], {**CLOCK, "seed": options.seed}, {**small, **options.settings}) as running:
        running.start(3)
        orders: dict[str, list[str]] = {str(lane): [] for lane in lanes}
        ledgers = [Ledger(server, lane) for lane in lanes]
        load = Load(running)
        for refusal in REFUSALS:
            _top_up(running, orders, refusal)
            time.sleep(2.0)
            _refuse(running, verdict, refusal)
        for ledger in ledgers:
            ledger.wait(len(orders[str(ledger.lane)]), 180)
        calls = running.venue.calls()
        for refusal in REFUSALS:
            _judge_silence(verdict, calls, refusal)
        _judge_attempts(verdict, calls, ledgers)
        judge_windows(verdict, calls, rules({}), ledgers, shown=options.evidence)
        judge_outcomes(verdict, running, ledgers, orders)
        verdict.say(load.told())
    return verdict


def _top_up(running: Fleet, orders: dict[str, list[str]], refusal: Refusal) -> None:
    """Orders for as long as the refusal is looked at."""
    lane, per_second = refusal.lane, {"bitget": 110, "bybit": 40, "bingx": 25}[refusal.lane.venue]
    more = running.venue.orders(lane, int(per_second * (refusal.for_ms / 1000 + 6)))
    orders[str(lane)] += more
    fill(running.server, lane, more, at_once=True)


def _refuse(running: Fleet, verdict: Verdict, refusal: Refusal, *, over: bool = True) -> Arrival:
    """Orders the refusal, waits until it was met, looks at `status`, and waits until it is well over."""
    seen = len(running.venue.calls())
    running.venue.ask("refuse", refusal=refusal.asked())
    give_up_s = time.monotonic() + 20
    while not (hit := _first(running.venue.calls(seen), refusal)):
        if time.monotonic() > give_up_s:
            raise BenchFailed(f"{refusal.endpoint} was not called for 20 s")
        time.sleep(0.02)
    told = running.cli("status", "--json")
    holds = [
        f"{hold['scope']} {hold['reason']} {hold['until']}"
        for row in json.loads(told.stdout or "[]")
        if row["lane"] == str(refusal.lane)
        for hold in row.get("holds", [])
    ]
    took_ms = (time.monotonic_ns() // 1000 - hit.at_us) / 1000
    what = f"{refusal.lane.venue} {refusal.endpoint} {refusal.kind}"
    line = f"{what}: status, read within {took_ms:.0f} ms, shows " + ("; ".join(holds)[:160] or "no hold")
    if took_ms < refusal.for_ms:
        verdict.must(bool(holds), line)
    else:
        verdict.say(line)
    if over:
        time.sleep(max(0.0, refusal.for_ms / 1000 - took_ms / 1000) + 2.5)
    return hit


def _first(calls: Sequence[Arrival], refusal: Refusal) -> Arrival | None:
    return next((call for call in calls if call.word == "refused" and refusal.hits(call)), None)


def _judge_silence(verdict: Verdict, calls: Sequence[Arrival], refusal: Refusal) -> None:
    hit = _first(calls, refusal)
    if hit is None:
        return
    until_us = hit.at_us + refusal.for_ms * 1000
    later = sorted((c for c in calls if refusal.hits(c) and c.read_us > hit.back_us), key=lambda c: c.at_us)
    early = [((call.read_us - hit.back_us) / 1000, call) for call in later if call.at_us < until_us]
    what = f"{refusal.lane.venue} {refusal.endpoint} {refusal.kind}, {refusal.for_ms} ms"
    told = ", ".join(f"{call.account} {call.endpoint} {ms:.0f} ms" for ms, call in early[:8])
    at = f" (read after the refusal's answer: {told})" if early else ""
    verdict.must(all(ms < UNDER_WAY_MS for ms, _ in early), f"{what}: calls before the time {len(early)}{at}")
    after = [call for call in later if call.at_us >= until_us]
    if len(after) < 2:
        verdict.say(f"{what}: {len(after)} calls after it")
        return
    first, second = after[:2]
    alone = bool(first.back_us) and second.read_us >= first.back_us
    gap_ms = (second.read_us - first.back_us) / 1000
    late_ms = (first.at_us - until_us) / 1000
    verdict.must(alone, f"{what}: first call {late_ms:.0f} ms after the time, next {gap_ms:.1f} ms after its answer")


def _judge_attempts(verdict: Verdict, calls: Sequence[Arrival], ledgers: Sequence[Ledger]) -> None:
    """An attempt counts if the venue took the call; a refused one does not."""
    named = Counter((call.venue, order) for call in calls if call.is_cancel and call.word == "ok" for order in call.ids)
    unsure = {(call.venue, order) for call in calls if call.word == "part" for order in call.ids}
    wrong, asked = [], 0
    for ledger in ledgers:
        for order, events in ledger.finals.items():
            key = ledger.lane.venue, order
            if key not in unsure:
                asked += 1
                wrong += [order] if int(events[-1]["attempt"]) != named[key] else []
    verdict.must(
        not wrong, f"intents whose `attempt` is not the number of calls the venue took: {len(wrong)} of {asked}"
    )


def banned(server: Server, options: Options) -> Verdict:
    """The address is banned at Bybit (403) and at BingX (418): no account of that venue calls, Bitget goes on."""
    verdict = Verdict("banned")
    lanes = [Lane("bybit", "a"), Lane("bybit", "b"), Lane("bingx", "a"), Lane("bingx", "b"), MAIN]
    with fleet(server, lanes, [WAY], {**CLOCK, "seed": options.seed}, options.settings) as running:
        running.start(3)
        for lane in lanes:
            fill(server, lane, running.venue.orders(lane, 20_000 if lane is MAIN else 2_000), at_once=True)
        time.sleep(3.0)
        refusals = (
            Refusal(lanes[0], "cancel", "403", 600_000, whole=True),
            Refusal(lanes[2], "cancel", "418", 600_000, whole=True),
        )
        for refusal in refusals:
            _refuse(running, verdict, refusal, over=False)
        time.sleep(12.0)
        calls = running.venue.calls()
        hits = [hit for refusal in refusals if (hit := _first(calls, refusal))]
        for refusal, hit in zip(refusals, hits, strict=True):
            _judge_silence(verdict, calls, refusal)
            times = [c for c in calls if c.venue == hit.venue and c.endpoint == "time" and c.read_us > hit.back_us]
            after = ", ".join(f"{(call.read_us - hit.back_us) / 1e6:.1f}" for call in times)
            verdict.must(not times, f"{hit.venue}: calls for the venue's time during the ban: {len(times)} ({after} s)")
        going = sum(c.venue == "bitget" and c.is_cancel and c.at_us > hits[-1].at_us + 2_000_000 for c in calls)
        verdict.must(going > 100, f"bitget went on: {going} cancels")
    return verdict


def paused(server: Server, options: Options) -> Verdict:
    """`cancelq pause` stops three workers, but no urgent cancel; `cancelq resume` starts them again."""
    verdict = Verdict("paused")
    with fleet(server, [MAIN], [WAY], {**CLOCK, "seed": options.seed}, options.settings) as running:
        running.start(3)
        orders = running.venue.orders(MAIN, 6_000)
        ledger, load = Ledger(server, MAIN), Load(running)
        fill(server, MAIN, orders[1:], at_once=True)
        time.sleep(2.5)
        pause_us = _act(running, "pause")
        time.sleep(2.0)
        urgent_us = time.monotonic_ns() // 1000
        fill(server, MAIN, orders[:1], priority="urgent")
        time.sleep(1.0)
        resume_us = _act(running, "resume")
        ledger.wait(len(orders), 60)
        calls = running.venue.calls()
        urgent = next(call for call in calls if orders[0] in call.ids)
        normal = [call for call in calls if call.is_cancel and call is not urgent]
        last_ms = (max(call.read_us for call in normal if call.read_us < resume_us) - pause_us) / 1000
        first_ms = (min(call.read_us for call in normal if call.read_us > resume_us) - resume_us) / 1000
        verdict.must(last_ms < 1000, f"last normal cancel {last_ms:.0f} ms after the pause's event")
        verdict.must(first_ms < 1000, f"first normal cancel {first_ms:.0f} ms after the resume's event")
        late_ms = (urgent.at_us - urgent_us) / 1000
        verdict.must(late_ms < 1000, f"an urgent cancel during the pause arrived {late_ms:.0f} ms after its XADD")
        judge_windows(verdict, calls, rules({}), [ledger], shown=options.evidence)
        judge_outcomes(verdict, running, [ledger], {str(MAIN): orders})
        verdict.say(load.told())
    return verdict


def _newest(redis: Any) -> Any:
    return redis.xrevrange(MAIN.results)


def _act(running: Fleet, act: str) -> int:
    """Runs a command; when its event says that it was done, steady µs."""
    done = running.cli(act, str(MAIN))
    if done.returncode:
        raise BenchFailed(f"cancelq {act}: {done.stderr.strip()[:200]}")
    with running.server.client() as redis:
        newest = _newest(redis)
    event = next(fields for _, fields in newest if fields.get(b"act") == act.encode())
    return int(event[b"settled_us"]) - (time.time_ns() - time.monotonic_ns()) // 1000
