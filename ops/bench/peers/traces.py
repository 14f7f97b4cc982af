"""What the processes of a run wrote down, and what cancelq's results stream holds."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from redis import Redis

from cancelq.contract import Lane

LANE = Lane("bitget", "desk")


def asked(folder: Path) -> tuple[dict[str, int], set[str]]:
    """When each order was first asked for, and which were urgent."""
    first: dict[str, int] = {}
    urgent: set[str] = set()
    for at_us, order_id, mark in _lines(folder, "asked"):
        first[order_id] = min(int(at_us), first.get(order_id, int(at_us)))
        if mark == "1":
            urgent.add(order_id)
    return first, urgent


def answers(folder: Path) -> tuple[dict[str, int], Counter[str]]:
    """When each order was first answered, and how often the venue answered what."""
    first: dict[str, int] = {}
    codes: Counter[str] = Counter()
    for at_us, order_id, code in _lines(folder, "outcomes"):
        first[order_id] = min(int(at_us), first.get(order_id, int(at_us)))
        codes[code] += 1
    return first, codes


def _lines(folder: Path, kind: str) -> Iterator[Sequence[str]]:
    for file in folder.glob(f"{kind}-*"):
        for line in file.read_text().splitlines():
            yield line.split(" ", 2)


def finals(redis: Redis) -> dict[str, int]:
    return _first(redis, b"settled_us", final=b"1")[0]


def cancelq_answers(redis: Redis) -> tuple[dict[str, int], Counter[str]]:
    """The answers to cancel calls, as `accepted` events tell them, and the outcomes."""
    return _first(redis, b"answered_us", final=b"0")[0], _first(redis, b"settled_us", final=b"1")[1]


def _first(redis: Redis, field: bytes, final: bytes) -> tuple[dict[str, int], Counter[str]]:
    first: dict[str, int] = {}
    statuses: Counter[str] = Counter()
    entries: Any = redis.xrange(LANE.results)
    for _, event in entries:
        if event[b"final"] == final:
            statuses[event[b"status"].decode()] += 1
            if b"order_id" in event and field in event:
                first.setdefault(event[b"order_id"].decode(), int(event[field]))
    return first, statuses


def last_worker(redis: Redis) -> str:
    """The name of the worker that wrote the last event."""
    entries: Any = redis.xrevrange(LANE.results, count=1)
    return str(entries[0][1][b"worker"].decode())
