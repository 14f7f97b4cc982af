"""Lanes as workers would have left them, written by hand, for tests of the archive and the audit."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

from redis import Redis

from cancelq import Lane
from cancelq_worker.archive import segments
from cancelq_worker.archive.archiver import Archiver, Done, Options
from cancelq_worker.archive.canonical import Entry
from cancelq_worker.audit.auditor import LaneAudit, Question, audit_lane
from cancelq_worker.audit.sources import Reader

MAIN = Lane("bitget", "main")
#: Old enough to be trimmed, and to have its outcome.
BEGUN_MS = time.time_ns() // 1_000_000 - 7 * 86_400_000


class SegmentReader:
    unreadable = segments.SegmentUnreadable

    def __call__(self, path: Path) -> Iterator[Entry]:
        return segments.read(path)


def fill(client: Redis, count: int, *, lane: Lane = MAIN, begin: int = 0) -> None:
    """So many intents with their one outcome each; each intent is queued 10 ms after the one before."""
    pipe = client.pipeline(transaction=False)
    for n in range(begin, begin + count):
        at_ms = BEGUN_MS + 10 * n
        pipe.xadd(lane.inbox, {"id": f"i-{n}", "symbol": "BTCUSDT", "order_id": str(10**18 + n)}, f"{at_ms}-0")
        pipe.xadd(lane.results, event(n, lane), f"{at_ms + 5}-0")
    pipe.execute()


def event(n: int, /, lane: Lane = MAIN, **other: Any) -> dict[Any, Any]:
    """The final event of intent n."""
    at_us = (BEGUN_MS + 10 * n) * 1000
    times = {name: str(at_us + 1000 * k) for k, name in enumerate(("queued_us", "taken_us", "sent_us", "answered_us"))}
    return {
        "v": "1", "id": f"i-{n}", "venue": lane.venue, "account": lane.account, "status": "cancelled", "final": "1",
        "evidence": "query", "detail": "as listed", "scope": "order", "symbol": "BTCUSDT", "priority": "normal",
        "order_id": str(10**18 + n), "attempt": "1", "worker": "w1", "endpoint": "POST /cancel", "batch_id": f"b-{n}",
        "batch_size": "1", **times, "settled_us": str(at_us + 4500), **other,
    }  # fmt: skip


def entry_id(n: int) -> str:
    """Of the event of intent n."""
    return f"{BEGUN_MS + 10 * n + 5}-0"


def archived(client: Redis, folder: Path, *, rows: int = 10, trim: bool = False, lane: Lane = MAIN) -> Done:
    return Archiver(client, lane, folder, Options(leave_ms=0, segment_rows=rows, trim=trim)).run()


def audited(client: Redis, folder: Path | None = None, *, lane: Lane = MAIN) -> LaneAudit:
    reader = cast(Reader, SegmentReader()) if folder else None
    return audit_lane(client, lane, Question(archive=folder, reader=reader))


def named(found: LaneAudit) -> list[str]:
    """Every finding as one line: what it is about, where, which entry, which id, what."""
    return [f"{f.kind} {f.where} {f.entry_id} {f.id}: {f.problem}" for f in found.findings.kept]
