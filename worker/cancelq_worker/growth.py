"""How large the results are, and when the server's memory would be full at the pace of the last hour. Only reads.

Bounded: a stream's size is estimated from a few of its nodes, its pace from a few entries of every five minutes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import redis.asyncio as aioredis

from cancelq.contract import Lane
from cancelq_worker.scripts import SCRIPTS
from cancelq_worker.trips import command, home

#: Nodes of a stream that the server looks at to estimate its size.
SAMPLES = 5


@dataclass(frozen=True, slots=True)
class ResultsSize:
    """Of one lane: bytes that its results take, how many entries they are, how many came in the last hour. Estimates,
    but for `entries`."""

    lane: Lane
    bytes: int
    entries: int
    last_hour: int

    @property
    def bytes_an_hour(self) -> float:
        return self.last_hour * self.bytes / self.entries if self.entries else 0.0


@dataclass(frozen=True, slots=True)
class Growth:
    """`memory_most` is None where the server has no limit of its own; `full_in_h`: at the pace of the last hour, if
    nothing is trimmed; None if nothing grows or there is no limit. Of a cluster all three are the node's that is full
    first."""

    lanes: list[ResultsSize]
    memory: int
    memory_most: int | None
    full_in_h: float | None


async def growth(redis: aioredis.Redis, lanes: Sequence[Lane]) -> Growth:
    """The results of these lanes. Raises RedisError."""
    sizes: list[ResultsSize] = []
    parts: dict[aioredis.Redis, list[ResultsSize]] = {} if lanes else {redis: []}
    for lane in lanes:
        size: int | None = await command(redis, "MEMORY", "USAGE", lane.results, "SAMPLES", SAMPLES)
        entries, last_hour = await SCRIPTS.run(redis, "pace", [lane.results], [])
        sizes.append(ResultsSize(lane, size or 0, int(entries), int(last_hour)))
        parts.setdefault(home(redis, lane.results), []).append(sizes[-1])
    servers = [await _full(*part) for part in parts.items()]
    return Growth(sizes, *min(servers, key=lambda server: math.inf if server[2] is None else server[2]))


async def _full(server: aioredis.Redis, sizes: Sequence[ResultsSize]) -> tuple[int, int | None, float | None]:
    """Of the server that has these: `memory`, `memory_most` and `full_in_h`, as `Growth` has them."""
    told: dict[str, Any] = await server.info("memory")
    memory, most = int(told["used_memory"]), int(told["maxmemory"]) or None
    pace = sum(one.bytes_an_hour for one in sizes)
    return memory, most, max(0, most - memory) / pace if most and pace else None


def growth_lines(grown: Growth) -> list[str]:
    """For a person."""
    lines = [
        f"{one.lane}: results take {_mib(one.bytes)}, {one.entries:,} events, about {one.last_hour:,} in the last hour"
        for one in grown.lanes
        if one.entries
    ]
    if grown.memory_most is None:
        return [*lines, f"memory {_mib(grown.memory)}, no maxmemory"] if lines else []
    full = "" if grown.full_in_h is None else f"; at this pace full in {_hours(grown.full_in_h)}, if nothing is trimmed"
    return [*lines, f"memory {_mib(grown.memory)} of {_mib(grown.memory_most)}{full}"]


def growth_object(grown: Growth, lane: Lane) -> dict[str, object]:
    """What JSON tells of a lane: `results_bytes` and `results_last_hour` are estimates; `memory_full_in_h` is the whole
    server's (of a cluster, of the node that is full first), None where it has no limit or nothing grows."""
    size = next((one for one in grown.lanes if one.lane == lane), None)
    return {
        "results_bytes": size.bytes if size else None,
        "results_last_hour": size.last_hour if size else None,
        "memory_full_in_h": None if grown.full_in_h is None else round(grown.full_in_h, 1),
    }


def _mib(size: int) -> str:
    return f"{size / 2**20:,.1f} MiB"


def _hours(hours: float) -> str:
    return f"{hours:.1f} hours" if hours < 48 else f"{hours / 24:,.0f} days"
