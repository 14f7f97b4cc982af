"""How many intents one worker process carries from inbox to final event, and what each costs in processor time
and in Redis, with no venue limit binding; and that none of them broke a rule on the way.
"""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import rig
import uvloop
from redis import Redis
from report import Row, aimed
from rig import RedisTime, Server, Venue, cpu_s

from cancelq.contract import Lane
from cancelq_worker.trips import command, connect, read_entries

TARGET_RATE = 5_000
TARGET_REDIS_US = 100
DONE_S = 60.0
POLL_S = 0.05
READ = 250  # entries of an XREAD, as a worker reads them
PIPE = 50  # intents of a pipeline of the bare loop

NOTES = (
    "**throughput**: one `cancelq worker` with all its parts (RQ registration, heartbeat, logs), Bitget lanes at the "
    "simulator in a process of its own, all limits lifted on both sides, inboxes filled before the worker starts. An "
    "intent goes through admission, a batch call of up to 50, `accepted`, a look at the order history, and its final "
    "event. Counted from the first event to the last, so that the start of the process is left out. Rates are the "
    "median of the repeats, costs the least of them, as other programs on the machine only add to a cost.",
    "**bare** of throughput: one process, asyncio under uvloop, one task per lane over one client that packs in C: "
    f"XREAD COUNT {READ} of the inbox, then for every {PIPE} entries one pipeline of two XADDs an intent, with exactly "
    "the fields of the `accepted` and the final event that the worker wrote. No state, no dedup, no permit, no venue.",
    "**Redis time**: `usec` of INFO commandstats for the commands that came over a connection, scripts with all that "
    "they called. It is wall time: a server that waits for a processor counts the wait. **Redis CPU** is the server's "
    "whole processor time from /proc, with parsing, sending and the scripts' garbage.",
    "**orders settled per look**: final events by the calls that looked for them; a page holds up to 100 orders.",
    "**broken rules**: intents without exactly one final event, or told as `cancelled` while the venue's own book "
    "says otherwise, or with another outcome than `cancelled`; plus orders named twice within the venue's second.",
)


@dataclass(frozen=True, slots=True)
class _Run:
    """One run's figures; `bare_…` of the loop that only reads and writes."""

    rate: float
    cpu_us: float
    redis_us: float
    redis_cpu_us: float
    venue_cpu_us: float
    carried: float
    settled_per_look: float
    broken: int
    complaints: int
    bare_rate: float
    bare_cpu_us: float
    bare_redis_us: float
    bare_redis_cpu_us: float


def measure(server: Server, repeat: int, lanes: int, intents: int) -> list[Row]:
    """Rates are medians over the repeats, costs the least of them; broken rules and complaints are added up."""
    runs = [_run(server, lanes, intents) for _ in range(repeat)]

    def row(what: str, unit: str, ours: str, bare: str = "") -> Row:
        # Whatever else the machine does only adds to a cost.
        typical = min if unit == "µs/intent" else median
        value = typical(getattr(run, ours) for run in runs)
        if not bare:
            return Row("throughput", server.name, what, value, unit)
        baseline = typical(getattr(run, bare) for run in runs)
        return Row("throughput", server.name, what, value, unit, baseline, value / baseline if baseline else None)

    rate, redis_us = row("inbox to final event", "intents/s", "rate", "bare_rate"), row("Redis time", *REDIS_TIME)
    broken = Row("throughput", server.name, "broken rules", sum(run.broken for run in runs), "")
    return [
        aimed(rate, f"≥ {TARGET_RATE:,}/s", rate.value >= TARGET_RATE),
        row("worker CPU", "µs/intent", "cpu_us", "bare_cpu_us"),
        aimed(redis_us, f"≤ {TARGET_REDIS_US} µs", redis_us.value <= TARGET_REDIS_US),
        row("Redis CPU", "µs/intent", "redis_cpu_us", "bare_redis_cpu_us"),
        row("simulator CPU", "µs/intent", "venue_cpu_us"),
        row("orders per cancel call", "", "carried"),
        row("orders settled per look", "", "settled_per_look"),
        aimed(broken, "0", broken.value == 0),
        Row("throughput", server.name, "warnings of its lanes", sum(run.complaints for run in runs), ""),
    ]


REDIS_TIME = ("µs/intent", "redis_us", "bare_redis_us")


def _lanes(count: int) -> list[Lane]:
    return [Lane("bitget", f"t{number}") for number in range(count)]


def _run(server: Server, count: int, intents: int, profile: Path | None = None) -> _Run:
    lanes = _lanes(count)
    with server.client() as redis, rig.venue() as venue:
        rig.clear(redis)
        orders = preload(redis, venue, lanes, intents // count)
        total = sum(len(ids) for ids in orders.values())
        redis_time = RedisTime(redis)
        with rig.worker(server, venue, [lane.account for lane in lanes], profile) as worker:
            start = _first_event(redis, lanes, worker, server, venue)
            end = _all_settled(redis, lanes, total, worker, server, venue)
            spent_us = redis_time.spent_us()
            complaints = len(worker.complaints())
        events = {lane: _events(redis, lane) for lane in lanes}
        calls = [call for call in venue.calls() if call["endpoint"] != "time"]
        broken = _broken(events, orders, venue.open_orders()) + _named_twice(calls)
        cancels = [call for call in calls if call["method"] == "POST"]
        bare = uvloop.run(_bare(server, events))
    settled = total - start.settled
    wall_s = end.wall_s - start.wall_s
    return _Run(
        rate=settled / wall_s,
        cpu_us=(end.worker_s - start.worker_s) * 1e6 / settled,
        redis_us=spent_us / total,
        redis_cpu_us=(end.redis_s - start.redis_s) * 1e6 / settled,
        venue_cpu_us=(end.venue_s - start.venue_s) * 1e6 / settled,
        carried=sum(len(call["ids"]) for call in cancels) / len(cancels),
        settled_per_look=total / (len(calls) - len(cancels)),
        broken=broken,
        complaints=complaints,
        bare_rate=total / bare.wall_s,
        bare_cpu_us=bare.cpu_s * 1e6 / total,
        bare_redis_us=bare.redis_us / total,
        bare_redis_cpu_us=bare.redis_s * 1e6 / total,
    )


def profile(server: Server, lanes: int, intents: int, into: Path) -> None:
    """One run with the worker under cProfile, its raw profile written to `into`."""
    _run(server, lanes, intents, into)


def preload(redis: Redis, venue: Venue, lanes: Sequence[Lane], each: int) -> dict[Lane, list[str]]:
    """Accounts and orders at the venue and an intent for each order in its lane's inbox."""
    orders: dict[Lane, list[str]] = {}
    for lane in lanes:
        venue.open_account(lane.account)
        orders[lane] = venue.orders(lane.account, each)
        pipe = redis.pipeline(transaction=False)
        for order_id in orders[lane]:
            pipe.xadd(lane.inbox, {"symbol": "BTCUSDT", "order_id": order_id, "strategy": "mm1"})
        pipe.execute()
    return orders


@dataclass(frozen=True, slots=True)
class _Reading:
    wall_s: float
    worker_s: float
    redis_s: float
    venue_s: float
    settled: int


def _reading(worker: rig.Worker, server: Server, venue: Venue, settled: int) -> _Reading:
    return _Reading(
        time.perf_counter(), cpu_s(worker.process.pid), cpu_s(server.pid), cpu_s(venue.process.pid), settled
    )


def _first_event(redis: Redis, lanes: Sequence[Lane], worker: rig.Worker, server: Server, venue: Venue) -> _Reading:
    rig.wait_for("the first event", lambda: bool(redis.exists(*(lane.results for lane in lanes))), worker.process)
    rig.wait_for("the first event", lambda: events_told(redis, lanes) > 0, worker.process)
    return _reading(worker, server, venue, events_told(redis, lanes) // 2)


def _all_settled(
    redis: Redis, lanes: Sequence[Lane], total: int, worker: rig.Worker, server: Server, venue: Venue
) -> _Reading:
    """Once nothing is open: every inbox admitted to its end, no state left."""

    def settled() -> bool:
        time.sleep(POLL_S)
        if events_told(redis, lanes) < 2 * total:
            return False
        pipe = redis.pipeline(transaction=False)
        for lane in lanes:
            pipe.hlen(lane.key("state"))
        return not any(pipe.execute())

    rig.wait_for("all settled", settled, worker.process, DONE_S)
    return _reading(worker, server, venue, total)


def events_told(redis: Redis, lanes: Sequence[Lane]) -> int:
    pipe = redis.pipeline(transaction=False)
    for lane in lanes:
        pipe.xlen(lane.results)
    return sum(pipe.execute())


Fields = dict[bytes, bytes]


def _events(redis: Redis, lane: Lane) -> list[Fields]:
    entries: Any = redis.xrange(lane.results)
    return [fields for _, fields in entries]


def _broken(events: dict[Lane, list[Fields]], orders: dict[Lane, list[str]], still: set[str]) -> int:
    """How many intents ended otherwise than promised, by the streams and by the venue's own book."""
    broken = 0
    for lane, told in events.items():
        finals: dict[str, list[bytes]] = defaultdict(list)
        for event in told:
            if event[b"final"] == b"1":
                finals[event[b"order_id"].decode()].append(event[b"status"])
        for order_id in orders[lane]:
            broken += finals[order_id] != [b"cancelled"] or order_id in still
    return broken


def _named_twice(calls: list[dict[str, Any]]) -> int:
    """Orders that more than one cancel call named within a second, which Bitget refuses."""
    last: dict[str, int] = {}
    twice = 0
    for call in calls:
        if call["method"] == "POST":
            for order_id in call["ids"]:
                twice += call["at_us"] - last.get(order_id, -10_000_000) < 1_000_000
                last[order_id] = call["at_us"]
    return twice


@dataclass(frozen=True, slots=True)
class _Bare:
    wall_s: float
    cpu_s: float
    redis_us: float
    redis_s: float


async def _bare(server: Server, events: dict[Lane, list[Fields]]) -> _Bare:
    """Reads the same inboxes and writes the same events, and does nothing else."""
    client = connect(server.url, max_connections=64)
    with server.client() as redis:
        redis_time = RedisTime(redis)
        server_s, started_s, spent_s = cpu_s(server.pid), time.perf_counter(), time.process_time()
        await asyncio.gather(*(_copy(client, lane, told) for lane, told in events.items()))
        wall_s, used_s = time.perf_counter() - started_s, time.process_time() - spent_s
        spent_us = redis_time.spent_us() + _xadd_us(redis)
    await client.aclose()
    return _Bare(wall_s, used_s, spent_us, cpu_s(server.pid) - server_s)


def _xadd_us(redis: Redis) -> int:
    stats: Any = redis.info("commandstats")
    return int(stats["cmdstat_xadd"]["usec"])


async def _copy(client: Any, lane: Lane, told: list[Fields]) -> None:
    by_id: dict[bytes, list[list[bytes]]] = defaultdict(list)
    for event in told:
        by_id[event[b"id"]].append([word for pair in event.items() for word in pair])
    into, at = lane.key("bare"), "0-0"
    while True:
        reply = await command(client, "XREAD", "COUNT", READ, "STREAMS", lane.inbox, at)
        entries = read_entries(reply).get(lane.inbox, [])
        if not entries:
            return
        at = entries[-1][0]
        for first in range(0, len(entries), PIPE):
            pipe = client.pipeline(transaction=False)
            for entry_id, _ in entries[first : first + PIPE]:
                for words in by_id[entry_id.encode()]:
                    pipe.execute_command("XADD", into, "*", *words)
            await pipe.execute()
