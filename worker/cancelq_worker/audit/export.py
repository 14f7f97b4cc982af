"""Events as a file for others: NDJSON, or CSV that a spreadsheet opens without changing or running anything.

In CSV an apostrophe stands before whatever a spreadsheet would take for a formula (a text that begins with = + - @, a
tab, a line break, or an apostrophe itself) and before every id, which it would round, shorten or take for a date. To
have a value as it was, take one leading apostrophe off.
"""

from __future__ import annotations

import csv
import os
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

import orjson

from cancelq.contract import Lane
from cancelq_worker.archive.canonical import Entry

COLUMNS = (
    "lane", "entry_id", "id", "status", "final", "scope", "symbol", "order_id", "client_order_id", "strategy", "reason",
    "queued_us", "taken_us", "sent_us", "answered_us", "settled_us", "attempt", "lookups", "evidence", "detail", "code",
    "http_status", "venue_state", "filled", "open_orders", "child_order_id", "endpoint", "batch_id", "batch_size",
    "priority", "origin", "outcome", "act", "actor", "worker", "traceparent", "v",
)  # fmt: skip
#: What the columns do not name, as one JSON object.
MORE = "more"
_IDS = frozenset(
    ("entry_id", "id", "order_id", "client_order_id", "child_order_id", "batch_id", "origin", "code", "traceparent")
)
_IN_LANE = frozenset({"venue", "account"})
_ODD_BEGINNINGS = ("=", "+", "-", "@", "\t", "\r", "\n", "'")


class ExportFile:
    """A file that is there when the block has ended well, and not before."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._draft = path.with_name(f".{path.name}.unfinished")
        self._as_csv = path.suffix.lower() == ".csv"
        self._file = self._draft.open("w", encoding="utf-8", newline="")
        self._table = csv.writer(self._file, quoting=csv.QUOTE_ALL)
        if self._as_csv:
            self._table.writerow((*COLUMNS, MORE))
        self.rows = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self._file.flush()
            os.fsync(self._file.fileno())
        self._file.close()
        if kind is None:
            self._draft.replace(self._path)
        else:
            with suppress(OSError):
                self._draft.unlink()

    def write(self, lane: Lane, entry: Entry) -> None:
        """One event."""
        self.rows += 1
        if self._as_csv:
            self._table.writerow(_cells(lane, entry))
        else:
            self._file.write(orjson.dumps({"entry_id": entry.entry_id, **entry.fields}).decode())
            self._file.write("\n")


def _cells(lane: Lane, entry: Entry) -> list[str]:
    fields = {**entry.fields, "lane": str(lane), "entry_id": entry.entry_id}
    more = {name: value for name, value in entry.fields.items() if name not in COLUMNS and name not in _IN_LANE}
    cells = [cell(name, fields.get(name, "")) for name in COLUMNS]
    return [*cells, orjson.dumps(more).decode() if more else ""]


def cell(name: str, value: str) -> str:
    """A value as a CSV file may hold it."""
    marked = value and (name in _IDS or value.startswith(_ODD_BEGINNINGS))
    return f"'{value}" if marked else value
