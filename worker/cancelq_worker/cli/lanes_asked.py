"""Which lanes a command is about, and times as people write them."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Sequence
from datetime import UTC, datetime

import redis

from cancelq import Lane
from cancelq_worker.cli.border import unknown_lane
from cancelq_worker.exits import CommandFailed, Exit
from cancelq_worker.operate import find_lanes
from cancelq_worker.trips import connect

_SPAN = re.compile(r"([0-9]{1,6})(ms|s|m|h|d)")
_UNIT_MS = {"ms": 1, "s": 1000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}
_MOST_EPOCH_MS = re.compile(r"[0-9]{13}")


def lanes_asked(client: redis.Redis, url: str, named: Sequence[str]) -> list[Lane]:
    """The lanes that were named, all there are if none was; CommandFailed for one that this server does not have."""
    if not named:
        return asyncio.run(_all(url))
    lanes = [Lane.parse(name) for name in dict.fromkeys(named)]
    for lane in lanes:
        if not client.exists(lane.inbox, lane.results):
            raise unknown_lane(lane)
    return lanes


async def _all(url: str) -> list[Lane]:
    client = connect(url)
    try:
        return await find_lanes(client)
    finally:
        await client.aclose()


def age_ms(text: str, option: str) -> int:
    """`0s`, `500ms`, `1h`, `7d` in milliseconds."""
    match = _SPAN.fullmatch(text)
    if match is None:
        raise CommandFailed(f"{option} wants a time like 30s, 1h or 7d", f"{option} 1d is a day", Exit.USAGE)
    return int(match[1]) * _UNIT_MS[match[2]]


def moment_us(text: str, option: str, now_us: int) -> int:
    """A moment as UTC microseconds: `2026-01-31`, `2026-01-31T10:00`, with an offset or UTC, epoch milliseconds, or how
    long ago: `7d`."""
    if _SPAN.fullmatch(text):
        return max(0, now_us - age_ms(text, option) * 1000)
    if _MOST_EPOCH_MS.fullmatch(text):
        return int(text) * 1000
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        remedy = "2026-01-31, 2026-01-31T10:00 (UTC), 1763690000000 and 7d (ago) are understood"
        raise CommandFailed(f"{option}: {text[:40]!r} is no moment", remedy, Exit.USAGE) from None
    return round((at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp() * 1_000_000)
