"""What grows with what: cost, speed and memory along lanes, waiting intents, workers and remembered ids; what idle
lanes cost; and lone cancels spread over many lanes and workers.

Judge by Redis time and processor time: they say what a larger machine would do. Rates are this machine's own.
"""

from __future__ import annotations

import random
import sys
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from statistics import fmean, quantiles
from typing import Any, cast

import pace
import rig
import throughput
from metering import Cost, Meter, at_one_pace, fleet_cpu_s
from pace import Pace
from redis import Redis
from report import Row, aimed
from rig import RedisTime, Server, Venue, Worker

from cancelq.contract import Lane

AXES = ("lanes", "backlog", "workers", "ids", "idle", "lone", "hundred")
FLAT = 1.2  # the dearest point of an axis against its cheapest
WAITING_BYTES, REMEMBERED_BYTES = 700, 60
EACH, LONG = 100, 300  # intents of a lane: at least two full calls and a page of looks; and beside that
REAL = 20_000  # the first intents of a backlog are of orders that exist, the others never have their turn
PROBES, LOOKS = 10_000, 3
TRIES = 5
FULL = 100_000  # of all lanes together: so many that beginning and end are a small part
LONE_A_SECOND = 50
MONITOR_S = 4.0
SETTLE_DOWN_S = 5.0  # from the last worker's first sign until nothing of its start is left
WITHIN_S = 900.0

NOTES = (
    "**lanes**, **workers**: inboxes filled, and all at once shown to workers that are up and rest; everything carried "
    "to its final event, limits lifted. As many intents at each point (100,000), so that nothing but lanes, "
    "or workers, differs; beside that, 1,000 lanes of 300, of which three times as much lies in memory. The points are "
    "played in turns; the median of the repeats.",
    "**backlog**: one lane, paused, is filled and admitted; then resumed, and the cost of each of some thousand "
    "events is taken while the rest waits: two of them are an intent; 1,000 are drained a dozen times. "
    "Memory by MEMORY USAGE of every key, for each waiting intent; the inbox by itself, as it is the audit's ledger "
    "and stays. The dataset's growth also holds the scripts and the like.",
    "**ids**: intents with ids of their own, refused at admission, so that nothing but the memory of ids is left of "
    "them beside the streams; MEMORY USAGE of all keys of that memory.",
    "**idle**: every lane is watched, nothing is asked. The processor time of the server and of all workers, in "
    "milliseconds a second.",
    f"**lone**: {LONE_A_SECOND} lone cancels a second, each in a lane drawn at random; from just before the XADD to "
    "the simulator's door; costs less what the same workers cost when idle.",
    f"**hundred**: 100 lanes with a full backlog ({FULL:,} intents) and one worker, with the venue's own limits; then "
    "the same with the limit per address lifted. Taken from the first quarter on until three quarters are done.",
    "**The server**: Debian's Redis has jemalloc, as servers have that one installs. The embedded Valkey has the C "
    "library's allocator, whose own cost grows with the heap (`_int_malloc` and the like are a third of its time by "
    "then): there an admission cost 24 µs with a thousand ids remembered and 47 with a million.",
    "**Redis time** is `usec` of INFO commandstats, wall time; **Redis CPU** the server's whole processor time. What "
    "is judged is processor time: a machine that does other work too adds little to it.",
    "**The machine's pace** is what a fixed piece of work costs that is done all the time beside a run, by a "
    "process of its own at some two hundredths of a processor: parsing, hashing and text, and as much time in reads "
    "that miss the caches. The machine's neighbours make all code dearer by up to a half, for minutes. So Redis "
    "time, Redis CPU and worker CPU of **lanes**, **backlog**, **workers** and **ids** are told as they would be at "
    "the median pace of their axis: what a point cost, divided by its own pace, times that median. Rates are as "
    "they were.",
)


@dataclass(frozen=True, slots=True)
class Sizes:
    """How far each axis goes. `pairs`: workers and lanes of the parts idle and lone."""

    axes: tuple[str, ...]
    lanes: tuple[int, ...]
    backlog: tuple[int, ...]
    workers: tuple[int, ...]
    ids: tuple[int, ...]
    pairs: tuple[tuple[int, int], ...]
    intents: int
    seconds: float
    repeat: int


def sizes(axes: Sequence[str], most: int, intents: int, seconds: float, repeat: int) -> Sizes:
    """Every axis up to `most` times a thousandth of its full length: 1000 is all of it, 10 a quick look."""
    part = most / 1000

    def upto(*points: int) -> tuple[int, ...]:
        return tuple(p for p in points if p <= max(points) * part) or points[:1]

    pairs = tuple((w, n) for w, n in ((1, 1), (1, 100), (1, 1_000), (8, 1_000)) if n <= 1_000 * part) or ((1, 1),)
    return Sizes(
        axes=tuple(axes),
        lanes=upto(1, 10, 100, 1_000),
        backlog=upto(1_000, 100_000, 1_000_000),
        workers=(1, 2, 4, 8),
        ids=upto(10_000, 100_000, 1_000_000),
        pairs=pairs,
        intents=intents,
        seconds=seconds,
        repeat=repeat,
    )


def measure(server: Server, wanted: Sizes) -> list[Row]:
    """The axes that are wanted, in their order."""
    paced = {"lanes": _lanes, "backlog": _backlog, "workers": _workers, "ids": _ids}
    others = {"idle": _idle, "lone": _lone, "hundred": _hundred}
    rows: list[Row] = []
    for axis in AXES:
        if axis in wanted.axes:
            print(f"growth along {axis} …", file=sys.stderr, flush=True)
            if axis in paced:
                with pace.kept() as kept:
                    rows += paced[axis](server, wanted, kept)
            else:
                rows += others[axis](server, wanted)
    return rows


# -- throughput along lanes and workers ------------------------------------------------------------------------------


def _lanes(server: Server, wanted: Sizes, kept: Pace) -> list[Row]:
    most = max(wanted.lanes)
    total, long = _in_all(wanted), f"{most:,} lanes of {LONG} intents"
    points = {f"{count:,} lanes": (count, 1, total) for count in wanted.lanes} | {long: (most, 1, LONG * most)}
    return _axis("lanes", server, _in_turns(server, kept, points, wanted.repeat), {long})


def _workers(server: Server, wanted: Sizes, kept: Pace) -> list[Row]:
    points = {f"{count} workers": (20, count, _in_all(wanted)) for count in wanted.workers}
    return _axis("workers", server, _in_turns(server, kept, points, wanted.repeat))


def _in_all(wanted: Sizes) -> int:
    """The intents of a point of either axis."""
    return max(wanted.intents, EACH * max(wanted.lanes))


def _in_turns(server: Server, kept: Pace, points: Mapping[str, tuple[int, int, int]], repeat: int) -> dict[str, Cost]:
    """What each point (lanes, workers, intents) costs."""
    runs: dict[str, list[Cost]] = {at: [] for at in points}
    for _ in range(repeat):
        for at, point in points.items():
            runs[at].append(_drained(server, kept, *point))
    return at_one_pace(runs)


def _drained(server: Server, kept: Pace, count: int, workers: int, intents: int) -> Cost:
    """Inboxes filled, put aside until all workers are up and rest, then drained: no start is in what is counted."""
    lanes = [Lane("bitget", f"t{number}") for number in range(count)]
    with server.client() as redis, rig.venue() as venue:
        rig.clear(redis)
        orders = throughput.preload(redis, venue, lanes, intents // count)
        total = sum(len(ids) for ids in orders.values())
        bytes_before = _dataset(redis)
        _rename(redis, {lane.inbox: f"{lane.inbox}:aside" for lane in lanes})
        with rig.fleet(server, venue, [lane.account for lane in lanes], workers) as fleet:
            _until_at_rest(redis, lanes, fleet)
            meter = Meter(server, redis, fleet, kept)
            _rename(redis, {f"{lane.inbox}:aside": lane.inbox for lane in lanes})
            _until("all settled", lambda: _events(redis, lanes) >= 2 * total, fleet, count)
            cost = meter.per(total)
        return replace(cost, bytes_kept=(_dataset(redis) - bytes_before) / total)


def _rename(redis: Redis, names: Mapping[str, str]) -> None:
    pipe = redis.pipeline(transaction=False)
    for name, new in names.items():
        pipe.rename(name, new)
    pipe.execute()


def _axis(name: str, server: Server, costs: dict[str, Cost], beside: Collection[str] = ()) -> list[Row]:
    """Each point, and whether the axis is flat without those `beside` it. Rates are not judged: all processes share
    this machine."""
    rows = []
    for at, cost in costs.items():
        rows += [
            Row(name, server.name, f"{at}: inbox to final event", cost.rate, "intents/s"),
            Row(name, server.name, f"{at}: Redis time", cost.redis_us, "µs/intent"),
            Row(name, server.name, f"{at}: Redis CPU", cost.redis_cpu_us, "µs/intent"),
            Row(name, server.name, f"{at}: worker CPU", cost.worker_us, "µs/intent"),
            Row(name, server.name, f"{at}: the machine's pace", cost.pace_us, "µs/unit"),
        ]
        if cost.bytes_kept:
            kept = Row(name, server.name, f"{at}: left behind, results above all", cost.bytes_kept, "bytes/intent")
            rows.append(kept)
    judged = [cost for at, cost in costs.items() if at not in beside]
    rows.append(_flat(name, server, "Redis CPU", [cost.redis_cpu_us for cost in judged]))
    rows.append(_flat(name, server, "worker CPU", [cost.worker_us for cost in judged]))
    return rows


def _flat(name: str, server: Server, what: str, values: list[float]) -> Row:
    ratio = max(values) / min(values)
    return aimed(Row(name, server.name, f"{what}: dearest to cheapest", ratio, ""), f"≤ {FLAT}", ratio <= FLAT)


# -- a backlog ---------------------------------------------------------------------------------------------------------


def _backlog(server: Server, wanted: Sizes, kept: Pace) -> list[Row]:
    rows, costs = [], {}
    for waiting in wanted.backlog:
        # Of a short backlog few are weighed: as many in all as of the others.
        runs = [_weighed(server, kept, waiting) for _ in range(max(1, REAL * 3 // 5 // waiting))]
        taken, costs[f"{waiting:,} waiting"] = runs[0], [run.drain for run in runs]
        others = sum(taken.by_key.values())
        keys = Row("backlog", server.name, f"{waiting:,} waiting: all keys but the inbox", others, "bytes/intent")
        rows += [
            Row("backlog", server.name, f"{waiting:,} waiting: admission, Redis time", taken.admit_us, "µs/intent"),
            Row("backlog", server.name, f"{waiting:,} waiting: its inbox", taken.inbox_bytes, "bytes/intent"),
            Row("backlog", server.name, f"{waiting:,} waiting: dataset grown by", taken.dataset_bytes, "bytes/intent"),
            aimed(keys, f"≤ {WAITING_BYTES}", others <= WAITING_BYTES),
            *(
                Row("backlog", server.name, f"{waiting:,} waiting: of these {key}", size, "bytes/intent")
                for key, size in taken.by_key.items()
            ),
        ]
    return rows + _axis("backlog", server, at_one_pace(costs, fmean))


@dataclass(frozen=True, slots=True)
class _Waited:
    admit_us: float
    dataset_bytes: float
    inbox_bytes: float
    by_key: dict[str, float]
    drain: Cost


def _weighed(server: Server, kept: Pace, waiting: int) -> _Waited:
    """As `_waited`, once more where all was over before it could be looked at."""
    for _ in range(TRIES):
        with suppress(ZeroDivisionError):
            return _waited(server, kept, waiting, min(REAL, waiting))
    raise rig.BenchFailed(f"{waiting:,} waiting: drained too fast to be weighed")


def _waited(server: Server, kept: Pace, waiting: int, real: int) -> _Waited:
    """A paused lane with that many intents, the first `real` of orders that exist."""
    lane = Lane("bitget", "t0")
    with server.client() as redis, rig.venue() as venue:
        rig.clear(redis)
        venue.open_account(lane.account)
        orders = venue.orders(lane.account, real)
        _queue(redis, lane, (*orders, *(str(7_000_000_000_000_000_000 + n) for n in range(waiting - real))))
        redis.hset(lane.key("hold"), "*|paused", "-1 by the bench")
        before, redis_time = _dataset(redis), RedisTime(redis)
        with rig.fleet(server, venue, [lane.account], 1) as fleet:
            _until("all admitted", lambda: redis.hlen(lane.key("state")) == waiting, fleet)
            admit_us = redis_time.spent_us() / waiting
            dataset_bytes = (_dataset(redis) - before) / waiting
            by_key = {key: size / waiting for key, size in _sizes(redis, lane).items()}
            drain = _drain(redis, lane, fleet, real, lambda: Meter(server, redis, fleet, kept))
    return _Waited(admit_us, dataset_bytes, by_key.pop("inbox"), by_key, drain)


def _drain(redis: Redis, lane: Lane, fleet: Sequence[Worker], real: int, begin: Callable[[], Meter]) -> Cost:
    """Resumed; what each of the next intents costs. The start is left out, and the end, where calls are fewer or of
    orders that do not exist."""
    redis.hdel(lane.key("hold"), "*|paused")
    _until("the first ends", lambda: redis.xlen(lane.results) >= real // 4, fleet)
    meter, at = begin(), redis.xlen(lane.results)
    enough = real if real == REAL else real * 3 // 2
    _until("the drain", lambda: redis.xlen(lane.results) >= enough, fleet)
    return meter.per((redis.xlen(lane.results) - at) / 2)


def _queue(redis: Redis, lane: Lane, order_ids: Iterable[str]) -> None:
    pipe = redis.pipeline(transaction=False)
    for number, order_id in enumerate(order_ids, start=1):
        pipe.xadd(lane.inbox, {"symbol": "BTCUSDT", "order_id": order_id, "strategy": "mm1"})
        if number % 1_000 == 0:
            pipe.execute()
    pipe.execute()


def _sizes(redis: Redis, lane: Lane) -> dict[str, int]:
    """Bytes of the lane's larger keys, by the last part of their name."""
    root, found = lane.key(""), {}
    for key in redis.scan_iter(match=_literally(root) + "*", count=1_000):
        size = cast("int", redis.memory_usage(key, samples=0))
        if size > 10_000:
            found[key.decode().removeprefix(root)] = size
    return found


def _literally(text: str) -> str:
    return text.replace("[", "\\[").replace("]", "\\]")


# -- remembered ids ----------------------------------------------------------------------------------------------------


def _ids(server: Server, wanted: Sizes, kept: Pace) -> list[Row]:
    rows, runs = [], {}
    for count in wanted.ids:
        at = f"{count:,} remembered"
        size, runs[at] = _remembered(server, kept, count)
        rows.append(
            aimed(Row("ids", server.name, at, size, "bytes/id"), f"≤ {REMEMBERED_BYTES}", size <= REMEMBERED_BYTES)
        )
    costs = at_one_pace(runs)
    for at, cost in costs.items():
        rows += [
            Row("ids", server.name, f"{at}: admission of one, Redis CPU", cost.redis_cpu_us, "µs/intent"),
            Row("ids", server.name, f"{at}: the machine's pace", cost.pace_us, "µs/unit"),
        ]
    return [*rows, _flat("ids", server, "admission", [cost.redis_cpu_us for cost in costs.values()])]


def _remembered(server: Server, kept: Pace, count: int) -> tuple[float, list[Cost]]:
    """Bytes of an id, and what an admission costs once that many are remembered: looked at a few times, while they
    become more by a few thousand."""
    lane, costs = Lane("bitget", "t0"), []
    with server.client() as redis, rig.venue() as venue:
        rig.clear(redis)
        with rig.fleet(server, venue, [lane.account], 1) as fleet:
            _until("the lane", lambda: bool(redis.exists(lane.results)), fleet)
            for first in range(0, count, 10_000):
                _refused(redis, lane, range(first, min(count, first + 10_000)))
            _until("all refused", lambda: redis.xlen(lane.results) == count, fleet)
            for first in range(count, count + LOOKS * PROBES, PROBES):
                meter = Meter(server, redis, fleet, kept)
                _refused(redis, lane, range(first, first + PROBES))
                _until("the last refused", lambda last=first + PROBES: redis.xlen(lane.results) == last, fleet)
                costs.append(meter.per(PROBES))
        keys = redis.scan_iter(match=lane.key("ids") + "*", count=1_000)
        size = sum(cast("int", redis.memory_usage(key, samples=0)) for key in keys)
    return size / (count + LOOKS * PROBES), costs


def _refused(redis: Redis, lane: Lane, numbers: Iterable[int]) -> None:
    """Intents of a field that nobody knows."""
    pipe = redis.pipeline(transaction=False)
    for number in numbers:
        pipe.xadd(lane.inbox, {"id": f"i-{number:012d}", "symbol": "BTCUSDT", "unheard_of": "1"})
    pipe.execute()


# -- idle and lone ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Idle:
    """Milliseconds of processor time a second, of the server and of all workers together; commands a second that come
    over a connection."""

    redis_ms: float
    worker_ms: float
    commands: float


@contextmanager
def _resting(server: Server, workers: int, lanes: Sequence[Lane], each: int) -> Iterator[tuple[Any, ...]]:
    """Workers whose lanes are all watched and rest, and `each` orders in every account."""
    with server.client() as redis, rig.venue() as venue:
        rig.clear(redis)
        orders = {}
        for lane in lanes:
            venue.open_account(lane.account)
            orders[lane] = venue.orders(lane.account, each) if each else []
        with rig.fleet(server, venue, [lane.account for lane in lanes], workers) as fleet:
            _until_at_rest(redis, lanes, fleet)
            yield redis, venue, fleet, orders


def _until_at_rest(redis: Redis, lanes: Sequence[Lane], fleet: Sequence[Worker]) -> None:
    """All workers are up, and nothing of their start is left."""
    _until("all workers", lambda: redis.zcard(rig.ROSTER) == len(fleet), fleet)
    _until("all lanes", lambda: _watched(redis, lanes), fleet)
    time.sleep(SETTLE_DOWN_S)


def _watched(redis: Redis, lanes: Sequence[Lane]) -> bool:
    pipe = redis.pipeline(transaction=False)
    for lane in lanes:
        pipe.exists(lane.key("clock"))
    return all(pipe.execute())


def _idle(server: Server, wanted: Sizes) -> list[Row]:
    rows = []
    for workers, count in wanted.pairs:
        lanes = [Lane("bitget", f"t{number}") for number in range(count)]
        with _resting(server, workers, lanes, 0) as (redis, _, fleet, _):
            idle = _spent_idle(server, redis, fleet, wanted.seconds)
            resident_mb = sum(_resident_mb(worker) for worker in fleet) / workers
            connections = redis.info("clients")["connected_clients"] - 1
        at = f"{workers} workers, {count:,} lanes"
        rows += [
            Row("idle", server.name, f"{at}: Redis CPU", idle.redis_ms, "ms/s"),
            Row("idle", server.name, f"{at}: commands", idle.commands, "/s"),
            Row("idle", server.name, f"{at}: CPU of all workers", idle.worker_ms, "ms/s"),
            Row("idle", server.name, f"{at}: resident memory of a worker", resident_mb, "MB"),
            Row("idle", server.name, f"{at}: connections to Redis", connections, ""),
        ]
    return rows


def _spent_idle(server: Server, redis: Redis, fleet: Sequence[Worker], seconds: float) -> _Idle:
    meter = Meter(server, redis, fleet)
    time.sleep(seconds)
    spent = meter.per(1)
    return _Idle(spent.redis_cpu_us * spent.rate / 1e3, spent.worker_us * spent.rate / 1e3, _commands_a_second(redis))


def _commands_a_second(redis: Redis) -> float:
    """Those that come over a connection; the server's own counters hold what scripts call, too."""
    with redis.monitor() as monitor:
        begun_s, count = time.perf_counter(), 0
        for told in monitor.listen():
            count += told["client_type"] != "lua"
            if (wall_s := time.perf_counter() - begun_s) > MONITOR_S:
                return count / wall_s
    raise rig.BenchFailed("MONITOR told nothing")


def _lone(server: Server, wanted: Sizes) -> list[Row]:
    rows = []
    for workers, count in wanted.pairs:
        lanes = [Lane("bitget", f"t{number}") for number in range(count)]
        cancels = int(LONE_A_SECOND * wanted.seconds)
        with _resting(server, workers, lanes, -(-2 * cancels // count)) as (redis, venue, fleet, orders):
            _send_lone(redis, orders, LONE_A_SECOND)  # the first call of each process opens connections
            time.sleep(SETTLE_DOWN_S)
            idle = _spent_idle(server, redis, fleet, wanted.seconds)
            venue.calls()
            meter = Meter(server, redis, fleet)
            left_us = _send_lone(redis, orders, cancels)
            time.sleep(1.0)  # looks of the last ones
            spent = meter.per(cancels)
            redis_us = spent.redis_cpu_us - idle.redis_ms * 1000 / spent.rate
            worker_us = spent.worker_us - idle.worker_ms * 1000 / spent.rate
            arrived_us = {i: call["at_us"] for call in venue.calls() if call["method"] == "POST" for i in call["ids"]}
        delays = [float(arrived_us[order_id] - at_us) for order_id, at_us in left_us.items()]
        at = f"{workers} workers, {count:,} lanes"
        rows += [
            Row("lone", server.name, f"{at}: Redis CPU", redis_us, "µs/intent"),
            Row("lone", server.name, f"{at}: CPU of all workers", worker_us, "µs/intent"),
            Row("lone", server.name, f"{at}: XADD to the venue's door, p50", quantiles(delays, n=100)[49], "µs"),
            Row("lone", server.name, f"{at}: XADD to the venue's door, p99", quantiles(delays, n=100)[98], "µs"),
        ]
    return rows


def _send_lone(redis: Redis, orders: dict[Lane, list[str]], cancels: int) -> dict[str, int]:
    """Cancels one by one; when each left, by order id, by this machine's clock."""
    rng, left_us, next_s = random.Random(cancels), {}, time.perf_counter()
    for _ in range(cancels):
        lane = rng.choice([lane for lane, ids in orders.items() if ids])
        order_id = orders[lane].pop()
        left_us[order_id] = time.time_ns() // 1000
        redis.xadd(lane.inbox, {"symbol": "BTCUSDT", "order_id": order_id})
        next_s += rng.uniform(0.5, 1.5) / LONE_A_SECOND
        time.sleep(max(0.0, next_s - time.perf_counter()))
    return left_us


# -- a hundred lanes at their limits -----------------------------------------------------------------------------------


def _hundred(server: Server, wanted: Sizes) -> list[Row]:
    rows = []
    for what, address in (("the venue's limits", None), ("no limit per address", 1_000_000)):
        limits = {} if address is None else {"bitget-ip": address}
        taken = _at_limits(server, 100, FULL, limits)
        rows += [
            Row("hundred", server.name, f"{what}: inbox to final event", taken.rate, "intents/s"),
            Row("hundred", server.name, f"{what}: worker CPU", taken.busy * 100, "% of a core"),
            Row("hundred", server.name, f"{what}: simulator CPU", taken.venue_busy * 100, "% of a core"),
            Row("hundred", server.name, f"{what}: Redis CPU", taken.redis_busy * 100, "% of a core"),
            Row("hundred", server.name, f"{what}: batch calls of a lane, of its 10", taken.batches, "calls/s"),
            Row("hundred", server.name, f"{what}: intents a call, looks counted", taken.carried, "intents"),
        ]
    return rows


@dataclass(frozen=True, slots=True)
class _AtLimits:
    rate: float
    busy: float
    venue_busy: float
    redis_busy: float
    batches: float
    carried: float


def _at_limits(server: Server, count: int, intents: int, limits: dict[str, int]) -> _AtLimits:
    lanes = [Lane("bitget", f"t{number}") for number in range(count)]
    with server.client() as redis, rig.venue() as venue:
        venue.limit({"bitget/ip": None} if limits else {})
        rig.clear(redis)
        throughput.preload(redis, venue, lanes, intents // count)
        with rig.fleet(server, venue, [lane.account for lane in lanes], 1, limits) as fleet:
            _until("the first event", lambda: _events(redis, lanes) > intents // 4, fleet, count)
            venue.calls()
            marks = [(time.perf_counter(), fleet_cpu_s(fleet), *_others_s(server, venue), _events(redis, lanes))]
            _until("most of them", lambda: _events(redis, lanes) >= intents * 3 // 2, fleet, count)
            marks.append((time.perf_counter(), fleet_cpu_s(fleet), *_others_s(server, venue), _events(redis, lanes)))
            calls = [call["endpoint"] for call in venue.calls()]
    wall_s, worker_s, venue_s, redis_s, events = (b - a for a, b in zip(*marks, strict=True))
    batches = sum(endpoint.endswith("batch-cancel-order") for endpoint in calls)
    busy = (worker_s / wall_s, venue_s / wall_s, redis_s / wall_s)
    return _AtLimits(events / 2 / wall_s, *busy, batches / wall_s / count, events / 2 / len(calls))


def _others_s(server: Server, venue: Venue) -> tuple[float, float]:
    return rig.cpu_s(venue.process.pid), rig.cpu_s(server.pid)


# -- counters ----------------------------------------------------------------------------------------------------------


def _until(what: str, ready: Any, fleet: Sequence[Worker], lanes: int = 1) -> None:
    """`lanes`: how many are asked at each look. Asked as often as one, a thousand cost a quarter of a processor."""
    rig.wait_for(what, ready, fleet[0].process, WITHIN_S, rig.STEP_S * max(1.0, lanes / 50))


def _events(redis: Redis, lanes: Sequence[Lane]) -> int:
    return throughput.events_told(redis, lanes)


def _dataset(redis: Redis) -> int:
    info: Any = redis.info("memory")
    return int(info["used_memory_dataset"])


def _resident_mb(worker: Worker) -> float:
    with open(f"/proc/{worker.process.pid}/statm") as statm:
        return int(statm.read().split()[1]) * 4096 / 1e6
