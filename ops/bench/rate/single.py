"""Scenarios about one cancel: urgent behind a hundred thousand others, and alone at an idle lane."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from random import Random
from statistics import quantiles
from typing import Any

import httpx
from rig import BenchFailed, Server
from uvloop import run as run_uvloop

from cancelq.contract import Lane
from rate.backlog import CLOCK, MAIN, Options
from rate.fleet import Fleet, Ledger, fill, fleet
from rate.judge import Load, Verdict, judge_windows
from rate.rules import Arrival, rules
from rate.way import Way

BURST = 100_000
URGENT_EVERY_S = (1.0, 2.0)
AIM_MS = 50.0
WAY = Way("halves", 20, 60)
LONE, WARM = 300, 20
NEAREST = Way("halves", 0.0, 0.0)


def urgent(server: Server, options: Options) -> Verdict:
    """100,000 normal intents in one go; urgent ones while they are admitted, and later while they wait."""
    verdict, rng = Verdict("urgent"), Random(options.seed)
    with fleet(server, [MAIN], [WAY], {**CLOCK, "seed": options.seed}, options.settings) as running:
        running.start(3)
        normal = running.venue.orders(MAIN, BURST)
        hasty = running.venue.orders(MAIN, 400)
        ledger, load = Ledger(server, MAIN), Load(running)
        left_us: dict[str, int] = {}
        burst = threading.Thread(target=fill, args=(server, MAIN, normal))
        began_us = time.monotonic_ns() // 1000
        burst.start()
        admitted_us = _until_admitted(running, hasty, left_us, rng, burst)
        verdict.say(f"admitted {(admitted_us - began_us) / 1e6:.1f} s after the first XADD")
        ends_s = time.monotonic() + options.seconds
        while time.monotonic() < ends_s:
            _hurry(server, hasty, left_us)
            time.sleep(rng.uniform(*URGENT_EVERY_S))
        time.sleep(3.0)
        calls = running.venue.calls()
        ledger.read()
        _tell_delays(verdict, calls, left_us, admitted_us)
        judge_windows(verdict, calls, rules({}), [ledger], shown=options.evidence)
        verdict.say(load.told())
    return verdict


def _until_admitted(
    running: Fleet, hasty: list[str], left_us: dict[str, int], rng: Random, burst: threading.Thread
) -> int:
    """Urgent cancels at random moments until the whole burst is admitted; steady µs of that."""
    give_up_s = time.monotonic() + 180
    with running.server.client() as redis:
        while time.monotonic() < give_up_s:
            time.sleep(rng.uniform(0.1, 0.5))
            _hurry(running.server, hasty, left_us)
            if not burst.is_alive() and _is_admitted(redis):
                return time.monotonic_ns() // 1000
    raise BenchFailed("the burst was not admitted in three minutes")


def _is_admitted(redis: Any) -> bool:
    """Whether the lane's cursor has reached the inbox' newest entry."""
    newest, cursor = redis.xrevrange(MAIN.inbox, count=1), redis.get(MAIN.key("cursor"))
    return bool(newest and cursor) and _place(cursor) >= _place(newest[0][0])


def _place(entry_id: bytes) -> tuple[int, int]:
    ms, _, number = entry_id.partition(b"-")
    return int(ms), int(number or 0)


def _hurry(server: Server, hasty: list[str], left_us: dict[str, int]) -> None:
    order = hasty.pop()
    left_us[order] = time.monotonic_ns() // 1000
    fill(server, MAIN, [order], priority="urgent")


def _tell_delays(verdict: Verdict, calls: Sequence[Arrival], left_us: dict[str, int], admitted_us: int) -> None:
    arrived = {order: call.at_us for call in reversed(calls) for order in call.ids if order in left_us}
    early = {order: at_us for order, at_us in left_us.items() if at_us < admitted_us}
    late = {order: at_us for order, at_us in left_us.items() if at_us >= admitted_us}
    aim_ms = (WAY.low_ms + WAY.high_ms) / 2 + AIM_MS
    for name, sent in (("while the burst is admitted", early), ("while all of it waits", late)):
        delays = sorted((arrived[order] - at_us) / 1000 for order, at_us in sent.items() if order in arrived)
        if not sent:
            continue
        if len(delays) < 2:
            verdict.say(f"urgent {name}: {len(delays)} arrived of {len(sent)}")
            continue
        p50, p99 = _quantile(delays, 50), _quantile(delays, 99)
        verdict.aim(
            p50 <= aim_ms,
            f"urgent {name}: XADD to the door p50 {p50:.0f}, p99 {p99:.0f}, most {delays[-1]:.0f} ms of {len(delays)} "
            f"({len(sent) - len(delays)} never), aim {aim_ms:.0f} at the median",
        )
        verdict.figures |= {f"{name} p50": p50, f"{name} p99": p99}


def urgent_bybit(server: Server, options: Options) -> Verdict:
    """Urgent cancels of four Bybit accounts that use up the 600 calls in five seconds of their address."""
    lanes = [Lane("bybit", name) for name in "abcd"]
    return _urgent_address(server, options, Verdict("urgent-bybit"), lanes, int(options.seconds * 40), {})


def urgent_bitget(server: Server, options: Options) -> Verdict:
    """Urgent cancels of eight Bitget accounts that use up the 6000 calls a minute of their address."""
    lanes, longer = [Lane("bitget", name) for name in "abcdefgh"], replace(options, seconds=max(75.0, options.seconds))
    small = {f"CANCELQ_ACCOUNTS__BITGET__{lane.account.upper()}__BATCH_SIZE": "4" for lane in lanes}
    return _urgent_address(server, longer, Verdict("urgent-bitget"), lanes, int(longer.seconds * 50), small)


def _urgent_address(
    server: Server, options: Options, verdict: Verdict, lanes: Sequence[Lane], backlog: int, settings: Mapping[str, str]
) -> Verdict:
    rng, left_us = Random(options.seed), dict[str, int]()
    venue = {**CLOCK, "seed": options.seed}
    with fleet(server, lanes, [WAY], venue, {**settings, **options.settings}) as running:
        running.start(3)
        load, ends_s = Load(running), time.monotonic() + options.seconds
        for lane in lanes:
            fill(server, lane, running.venue.orders(lane, backlog), at_once=True)
        time.sleep(3.0)
        while time.monotonic() < ends_s:
            lane = rng.choice(lanes)
            (order,) = running.venue.orders(lane, 1)
            left_us[order] = time.monotonic_ns() // 1000
            fill(server, lane, [order], priority="urgent")
            time.sleep(rng.uniform(0.3, 1.0))
        time.sleep(3.0)
        calls = running.venue.calls()
        _tell_delays(verdict, calls, left_us, 0)
        times = sorted(call.at_us for call in calls if call.is_cancel)
        gap_us, at_us = max((after - before, before) for before, after in pairwise(times))
        verdict.say(
            f"longest time without a cancel: {gap_us / 1e6:.1f} s, {(at_us - times[0]) / 1e6:.1f} s after the first"
        )
        judge_windows(verdict, calls, rules({}), [], shown=options.evidence)
        verdict.say(load.told())
    return verdict


def lone(server: Server, options: Options) -> Verdict:
    """Lone cancels at an idle lane, against a bare post at the same door."""
    verdict, lane = Verdict("lone"), Lane("bitget", "lone")
    with fleet(server, [lane], [NEAREST], {**CLOCK, "seed": options.seed}, options.settings) as running:
        running.start(1)
        load = Load(running)
        ours = running.venue.orders(lane, LONE + WARM)
        bare = running.venue.orders(Lane("bitget", "bare"), LONE + WARM)
        left_us = run_uvloop(_lone(server, running, lane, ours, bare))
        calls = running.venue.calls()
        read = {order: call.read_us for call in reversed(calls) if call.is_cancel for order in call.ids}
        delays = [[read[order] - left_us[order] for order in side[WARM:]] for side in (ours, bare)]
        for percent in (50, 99):
            mine, other = (_quantile(side, percent) for side in delays)
            verdict.figures[f"ratio p{percent}"] = mine / other
            verdict.say(f"p{percent}: {mine:.0f} µs against {other:.0f} of a bare post: {mine / other:.2f}")
        verdict.say(load.told())
    return verdict


def _quantile(values: Sequence[float], percent: int) -> float:
    return quantiles(values, n=100, method="inclusive")[percent - 1]


async def _lone(server: Server, running: Fleet, lane: Lane, ours: Sequence[str], bare: Sequence[str]) -> dict[str, int]:
    """One of each in every span, at a moment of its own; when each was begun."""
    left_us: dict[str, int] = {}
    rng, url = Random(1), f"{running.venue.urls[0]}/api/v2/spot/trade/cancel-order"
    headers = {"ACCESS-KEY": "key-bare", "Content-Type": "application/json"}
    with server.client() as redis:
        async with httpx.AsyncClient(trust_env=False) as http:
            for mine, other in zip(ours, bare, strict=True):
                left_us[mine] = time.monotonic_ns() // 1000
                redis.xadd(lane.inbox, {"symbol": "BTCUSDT", "order_id": mine})
                await asyncio.sleep(rng.uniform(0.05, 0.07))
                body = f'{{"symbol":"BTCUSDT","orderId":"{other}"}}'.encode()
                left_us[other] = time.monotonic_ns() // 1000
                (await http.post(url, content=body, headers=headers)).raise_for_status()
                await asyncio.sleep(rng.uniform(0.04, 0.06))
    return left_us
