"""Reads intents from JSON lines or CSV: each line becomes the fields of an entry, or what is wrong."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, TextIO

from cancelq.contract import Intent, Lane, wire_fields
from cancelq.errors import IntentError, LaneError
from cancelq_worker.json_once import Repeated, once

# Far more than an entry may have; a longer line is told, not read into memory.
MAX_LINE = 65_536
# What stands for such a line in CSV: no CSV either, so that it is told like any other bad line.
_TOO_LONG = '"x"x\n'
_COLUMNS = (*(name for name in Intent.model_fields if name != "extras"), "v", "lane")


@dataclass(frozen=True, slots=True)
class Good:
    """A line that can be queued."""

    number: int
    lane: Lane
    fields: dict[str, str]


@dataclass(frozen=True, slots=True)
class Bad:
    """A line that cannot: `says` begins with the field at fault and holds no more of the line."""

    number: int
    says: str


def lines_of(stream: TextIO) -> Iterator[str | None]:
    """The lines of a stream, None for one longer than `MAX_LINE`."""
    while line := stream.readline(MAX_LINE + 1):
        if len(line) <= MAX_LINE:
            yield line
            continue
        while line and not line.endswith(("\n", "\r")):
            line = stream.readline(MAX_LINE + 1)
        yield None


def read_lines(lines: Iterator[str | None], form: Literal["jsonl", "csv"], lane: Lane | None) -> Iterator[Good | Bad]:
    """One result per line that is not blank, as soon as it is there; `lane` is for lines that name none.

    CSV has a header; a column that is no field is one bad line, and nothing else is read. Line numbers begin
    with 1 and count what the file has; a CSV value over several lines counts as its last.
    """
    rows = _jsonl(lines) if form == "jsonl" else _csv(lines)
    for row in rows:
        yield row if isinstance(row, Bad) else _judged(row[0], row[1], lane)


def form_of(name: str, first_line: str) -> Literal["jsonl", "csv"]:
    """The format a file's name tells, else its first line."""
    if name.lower().endswith(".csv"):
        return "csv"
    if name.lower().endswith((".jsonl", ".ndjson", ".json")):
        return "jsonl"
    return "jsonl" if first_line.lstrip().startswith("{") else "csv"


_Row = tuple[int, dict[str, object]]


def _jsonl(lines: Iterator[str | None]) -> Iterator[_Row | Bad]:
    for number, line in enumerate(lines, 1):
        if line is None:
            yield Bad(number, f"the line is longer than {MAX_LINE} characters; one intent a line")
            continue
        if not line.strip():
            continue
        try:
            fields = json.loads(line, object_pairs_hook=once)
        except Repeated as repeated:
            yield Bad(number, f"{repeated}: given more than once; give it once")
            continue
        except (ValueError, RecursionError):
            yield Bad(number, 'the line is no JSON; write one object a line, like {"symbol": "BTCUSDT", …}')
            continue
        if isinstance(fields, dict):
            yield number, fields
        else:
            yield Bad(number, "the line is JSON, but no object; write {…}")


def _csv(lines: Iterator[str | None]) -> Iterator[_Row | Bad]:
    reader = csv.reader((line if line is not None else _TOO_LONG for line in lines), strict=True)
    header: list[str] | None = None
    while True:
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            yield Bad(reader.line_num, f"the line is no CSV: {error}")
            continue
        if not any(cell.strip() for cell in cells):
            continue
        if header is None:
            header = [name.strip() for name in cells]
            if fault := _header_fault(header):
                yield Bad(reader.line_num, fault)
                return
        elif len(cells) != len(header):
            # A short line may be one that was cut off in the middle of an id.
            yield Bad(reader.line_num, f"the line has {len(cells)} values, the header {len(header)} names")
        else:
            given = ((name, value.strip()) for name, value in zip(header, cells, strict=True))
            yield reader.line_num, {name: value for name, value in given if value}


def _header_fault(header: list[str]) -> str | None:
    for name in header:
        if header.count(name) > 1:
            return f"{name}: two columns have this name"
        if name not in _COLUMNS and not name.startswith("x_"):
            try:
                wire_fields({name: "?"})
            except IntentError as error:
                return f"{error.detail}; the first line names the columns"
    return None


def _judged(number: int, row: dict[str, object], default: Lane | None) -> Good | Bad:
    named = row.pop("lane", None)
    try:
        if named is not None and not isinstance(named, str):
            return Bad(number, "lane: wants text, like bitget:main")
        lane = Lane.parse(named) if named else default
        if lane is None:
            return Bad(number, "lane: missing; give it in the line, or --lane for all lines without one")
        return Good(number, lane, wire_fields(row))
    except LaneError as error:
        return Bad(number, f"lane: {error}")
    except IntentError as error:
        return Bad(number, error.detail)
