"""A segment: a Parquet file that holds every field of its events as text. The one module that needs pyarrow.

Columns: `entry_id`, the contract's fields (null: the field was absent), `more` (a map: `x_…` and fields of later
versions), `raw` (name, value, name, value … of an entry that text cannot hold), and the times once more as UTC
microsecond timestamps (`entered_at` of the entry id, `queued_at` … `settled_at`; null where there is no such time).
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa  # type: ignore[import-untyped]
import pyarrow.parquet as pq  # type: ignore[import-untyped]

from cancelq_worker.archive.canonical import Entry, from_raw

#: Events that are held in memory at once, writing and reading.
ROWS_AT_ONCE = 10_000
FIELDS = (
    "v", "id", "venue", "account", "status", "final", "scope", "symbol", "order_id", "client_order_id", "strategy",
    "reason", "traceparent", "detail", "code", "evidence", "priority", "lookups", "http_status", "venue_state",
    "child_order_id", "filled", "open_orders", "attempt", "endpoint", "batch_id", "batch_size", "origin", "outcome",
    "act", "actor", "worker", "queued_us", "taken_us", "sent_us", "answered_us", "settled_us",
)  # fmt: skip
TIMES = {f"{name}_at": f"{name}_us" for name in ("queued", "taken", "sent", "answered", "settled")}
_MOMENT = pa.timestamp("us", "UTC")
_SCHEMA = pa.schema(
    [
        pa.field("entry_id", pa.string(), nullable=False),
        *((name, pa.string()) for name in FIELDS),
        ("more", pa.map_(pa.string(), pa.string())),
        ("raw", pa.list_(pa.binary())),
        ("entered_at", _MOMENT),
        *((name, _MOMENT) for name in TIMES),
    ]
)
_KNOWN = frozenset(FIELDS)
# Columns that hold no field of their own.
_OTHER = frozenset({"entry_id", "more", "raw", "entered_at", *TIMES})
# Fifteen digits of microseconds reach the year 33658 no more: what is longer is no time of ours.
_TIME_DIGITS = 16

SegmentUnreadable = (pa.ArrowException, OSError, KeyError, TypeError, ValueError)


def write(path: Path, entries: Iterable[Entry]) -> None:
    """Writes a file that must not exist yet; returns when it is on the disk. OSError."""
    with path.open("xb") as file:
        with pq.ParquetWriter(file, _SCHEMA, compression="zstd") as writer:
            left = iter(entries)
            while some := list(islice(left, ROWS_AT_ONCE)):
                writer.write_table(_table(some))
        file.flush()
        os.fsync(file.fileno())


def read(path: Path) -> Iterator[Entry]:
    """The events of a file in its order, a bounded number in memory. One of `SegmentUnreadable` if it is no segment."""
    with pq.ParquetFile(path) as file:
        for batch in file.iter_batches(batch_size=ROWS_AT_ONCE):
            columns = {name: batch.column(name) for name in batch.schema.names}
            _check_times(columns)
            ids, more, raw = (columns[name].to_pylist() for name in ("entry_id", "more", "raw"))
            names = [name for name in columns if name not in _OTHER]
            rows = zip(*(columns[name].to_pylist() for name in names), strict=True)
            for entry_id, row, others, whole in zip(ids, rows, more, raw, strict=True):
                if whole is not None:
                    yield from_raw(entry_id, tuple(whole))
                    continue
                fields = {name: value for name, value in zip(names, row, strict=True) if value is not None}
                if others:
                    fields.update(others)
                yield Entry(entry_id, fields)


def _table(entries: Sequence[Entry]) -> Any:
    text = [{} if entry.raw else entry.fields for entry in entries]
    columns = {"entry_id": pa.array([entry.entry_id for entry in entries], pa.string())}
    for name in FIELDS:
        columns[name] = pa.array([fields.get(name) for fields in text], pa.string())
    more = [[(k, v) for k, v in fields.items() if k not in _KNOWN] or None for fields in text]
    columns["more"] = pa.array(more, _SCHEMA.field("more").type)
    columns["raw"] = pa.array([list(entry.raw) or None for entry in entries], _SCHEMA.field("raw").type)
    columns.update(_times(columns))
    return pa.table(columns, _SCHEMA)


def _times(columns: dict[str, Any]) -> dict[str, Any]:
    """The typed columns that follow from those of text."""
    entered = [_micros(f"{text.partition('-')[0]}000") for text in columns["entry_id"].to_pylist()]
    times = {"entered_at": pa.array(entered, _MOMENT)}
    for name, field in TIMES.items():
        times[name] = pa.array([_micros(text) for text in columns[field].to_pylist()], _MOMENT)
    return times


def _micros(text: str | None) -> int | None:
    return int(text) if text and len(text) <= _TIME_DIGITS and text.isascii() and text.isdigit() else None


def _check_times(columns: dict[str, Any]) -> None:
    """The timestamps are what people query: they must say what the text says."""
    for name, derived in _times(columns).items():
        if not columns[name].equals(derived):
            raise ValueError(f"its column {name} does not say what the text columns say")
