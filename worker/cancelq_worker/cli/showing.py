"""How events look: a line of a table for people, a flat JSON object for programs."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import orjson
import typer

from cancelq.contract import Event, Status

# Columns and their widths; the detail takes what is left.
_COLUMNS = (
    ("time (UTC)", 23),
    ("lane", 14),
    ("status", 10),
    ("symbol", 10),
    ("order", 20),
    ("took", 9),
    ("id", 36),
)
_COLOURS = {
    Status.cancelled: "green",
    Status.revoked: "green",
    Status.resolved: "green",
    Status.filled: "yellow",
    Status.triggered: "yellow",
    Status.closed: "yellow",
    Status.expired: "yellow",
    Status.not_found: "red",
    Status.rejected: "red",
    Status.unresolved: "red",
}


def as_json(event: Event) -> str:
    """One line: the fields of the entry that are there, and `entry_id`."""
    return dumps(as_object(event))


def as_object(event: Event) -> dict[str, Any]:
    """What `as_json` writes."""
    fields: dict[str, Any] = event.model_dump(mode="json", exclude_none=True)
    extras = fields.pop("extras")
    return {**extras, **fields}


def dumps(value: Mapping[str, Any] | Sequence[Any], *, indent: bool = False) -> str:
    """JSON, on one line or indented; numbers of any size, which orjson alone would refuse; what could move a terminal's
    cursor is escaped."""
    try:
        text = orjson.dumps(value, option=orjson.OPT_INDENT_2 if indent else None).decode()
    except orjson.JSONEncodeError:
        separators = (",", ": ") if indent else (",", ":")
        text = json.dumps(value, ensure_ascii=False, separators=separators, indent=2 if indent else None)
    # A line feed inside a text is escaped already.
    return "\n".join(line if line.isprintable() else _escaped(line) for line in text.split("\n"))


def _escaped(text: str) -> str:
    return "".join(character if character.isprintable() else json.dumps(character)[1:-1] for character in text)


def header() -> str:
    """The line above the first `as_line`."""
    return _row([name for name, _ in _COLUMNS], "detail")


def as_line(event: Event, *, colour: bool) -> str:
    """One line of the table; values longer than their column push the rest to the right, nothing is cut."""
    lane = f"{event.venue}:{event.account}" if event.venue and event.account else ""
    status = event.status if event.final or event.status is Status.operator else f"({event.status})"
    cells = [_time(event), lane, status, event.symbol, event.order_id or event.client_order_id, _took(event)]
    line = printable(_row([cell or "" for cell in cells] + [event.id], _detail(event)))
    shade = _COLOURS.get(event.status)
    return typer.style(line, fg=shade) if colour and shade else line


def as_asked(event: Event) -> bool:
    """Whether an outcome is what was asked for: the orders cancelled, or the other intent withdrawn."""
    return event.status is (Status.revoked if event.scope == "revoke" else Status.cancelled)


def colour_of(status: Status) -> str | None:
    """The colour of a status on a terminal; None for those on the way."""
    return _COLOURS.get(status)


def printable(text: str) -> str:
    """`text` without what could move a terminal's cursor or forge a line."""
    return "".join(character if character.isprintable() else "�" for character in text)


def duration(ms: float) -> str:
    """A span in the unit a person would use."""
    if ms < 1000:
        return f"{ms:.0f} ms"
    if ms < 120_000:
        return f"{ms / 1000:.1f} s"
    return f"{ms / 60_000:.0f} min" if ms < 7_200_000 else f"{ms / 3_600_000:.1f} h"


def moment(us: int) -> str | None:
    """`2025-11-21 01:53:20.123456` in UTC, or None for a number that is no time of ours."""
    try:
        return f"{datetime.fromtimestamp(us // 1_000_000, UTC):%Y-%m-%d %H:%M:%S}.{us % 1_000_000:06d}"
    except (OverflowError, OSError, ValueError):
        return None


def _row(cells: list[str], rest: str) -> str:
    padded = [cell.ljust(width) for cell, (_, width) in zip(cells, _COLUMNS, strict=True)]
    return "  ".join([*padded, rest]).rstrip()


def _time(event: Event) -> str:
    us = event.settled_us or 1000 * int(event.entry_id.partition("-")[0])
    return (moment(us) or f"{us} µs   ")[:-3]


def _took(event: Event) -> str:
    if event.settled_us is None or event.queued_us is None:
        return ""
    return duration((event.settled_us - event.queued_us) / 1000)


def _detail(event: Event) -> str:
    filled = f"filled {event.filled}" if event.filled and event.filled != "0" else ""
    still_open = f"{event.open_orders} still open" if event.open_orders else ""
    act = f"{event.act} by {event.actor}" if event.act else ""
    return "; ".join(part for part in (act, filled, still_open, event.detail) if part)
