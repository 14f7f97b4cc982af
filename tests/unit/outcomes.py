"""Entries of a results stream, for tests of what `top` makes of them."""

from __future__ import annotations

from cancelq_worker.flow import Entry

NOW_MS = 1_763_690_000_000


def event(at_ms: int, status: str = "cancelled", **fields: str) -> Entry:
    """An entry of a results stream, written at that time."""
    final = "0" if status in ("accepted", "resolved") else "1"
    told = {"id": f"i-{at_ms}", "status": status, "final": final, **fields}
    return f"{at_ms}-0".encode(), {name.encode(): value.encode() for name, value in told.items()}


def spans(at_ms: int, sent_ms: int, settled_ms: int) -> Entry:
    """One that was sent and settled so long after it was queued."""
    queued_us = 1_763_690_000_000_000
    return event(
        at_ms,
        queued_us=str(queued_us),
        sent_us=str(queued_us + 1000 * sent_ms),
        settled_us=str(queued_us + 1000 * settled_ms),
    )


def newest_first(*entries: Entry) -> list[Entry]:
    """As `XREVRANGE` answers."""
    return list(entries)[::-1]
