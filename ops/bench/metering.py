"""What a server and a fleet spend on an intent, and the same told at one pace of the machine."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import median

import rig
from pace import Pace
from redis import Redis
from rig import RedisTime, Server, Worker


@dataclass(frozen=True, slots=True)
class Cost:
    """Of one run, per intent; the machine's pace meanwhile in microseconds a unit, 0 if nobody kept it."""

    rate: float
    redis_us: float
    redis_cpu_us: float
    worker_us: float
    bytes_kept: float = 0.0
    pace_us: float = 0.0

    def at(self, pace_us: float) -> Cost:
        """As it would have been at that pace; the rate as it was, as all processes share this machine."""
        by = pace_us / self.pace_us
        costs = {name: getattr(self, name) * by for name in ("redis_us", "redis_cpu_us", "worker_us")}
        return replace(self, **costs)


class Meter:
    """What a server and a fleet spend from here on."""

    def __init__(self, server: Server, redis: Redis, fleet: Sequence[Worker], kept: Pace | None = None) -> None:
        self._server, self._fleet, self._kept = server, fleet, kept
        self._mark = kept.mark() if kept else (0, 0)
        self._redis_time = RedisTime(redis)
        self._redis_s, self._worker_s, self._wall_s = rig.cpu_s(server.pid), fleet_cpu_s(fleet), time.perf_counter()

    def per(self, intents: float) -> Cost:
        """So far, for each of so many."""
        wall_s, redis_us = time.perf_counter() - self._wall_s, self._redis_time.spent_us()
        redis_s, worker_s = rig.cpu_s(self._server.pid) - self._redis_s, fleet_cpu_s(self._fleet) - self._worker_s
        pace_us = self._kept.since(self._mark) if self._kept else 0.0
        each = (redis_us / intents, redis_s * 1e6 / intents, worker_s * 1e6 / intents)
        return Cost(intents / wall_s, *each, pace_us=pace_us)


def at_one_pace(
    runs: Mapping[str, Sequence[Cost]], middle: Callable[[Iterable[float]], float] = median
) -> dict[str, Cost]:
    """Of each point's runs the `middle`, all of them at the median pace of all runs; the pace that is told is what it
    was at that point."""
    pace_us = median(cost.pace_us for costs in runs.values() for cost in costs)
    return {at: _middle([cost.at(pace_us) for cost in costs], middle) for at, costs in runs.items()}


def _middle(costs: Sequence[Cost], middle: Callable[[Iterable[float]], float]) -> Cost:
    names = Cost.__dataclass_fields__
    return Cost(**{name: middle(getattr(cost, name) for cost in costs) for name in names})


def fleet_cpu_s(fleet: Sequence[Worker]) -> float:
    """Processor time of all of them so far."""
    return sum(worker.cpu_s() for worker in fleet)
