"""peers.json: every run with its figures, seeds, versions and machine. Portions of a long bench merge into it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from statistics import median
from typing import Any

import orjson

from peers.loads import LOADS
from peers.roster import ROWS

Run = dict[str, Any]
Record = dict[str, Any]

KEY = ("peer", "row", "load", "repeat")
ORDER = [(row.peer, row.row) for row in ROWS]


def read(file: Path) -> Record:
    """The record so far; an empty one if there is none."""
    if not file.exists():
        return {"versions": {}, "runs": []}
    record: Record = orjson.loads(file.read_bytes())
    return record


def merged(record: Record, runs: Iterable[Run], versions: Mapping[str, Any]) -> Record:
    """The record with these runs, each in the place of an older one of the same peer, row, load and repeat."""
    by_key = {key(run): run for run in record["runs"]}
    by_key |= {key(run): run for run in runs}
    return {
        "versions": {**record["versions"], **versions},
        "runs": sorted(by_key.values(), key=_place),
    }


def write(file: Path, record: Record) -> None:
    file.write_bytes(orjson.dumps(record, option=orjson.OPT_INDENT_2) + b"\n")


def key(run: Run) -> tuple[Any, ...]:
    """What tells a run from all others: its peer, row, load and repeat."""
    return tuple(run[name] for name in KEY)


def runs_of(record: Record, peer: str, row: str, load: str) -> list[Run]:
    """The repeats of one row and load, in their order."""
    return [run for run in record["runs"] if (run["peer"], run["row"], run["load"]) == (peer, row, load)]


def middle(values: Iterable[float | None]) -> float | None:
    """The median, where a time that did not come counts as later than all others."""
    known = list(values)
    if not known:
        return None
    typical = median(float("inf") if value is None else value for value in known)
    return None if typical == float("inf") else typical


def _key(run: Run) -> tuple[Any, ...]:
    return tuple(run[name] for name in KEY)


def _place(run: Run) -> tuple[Any, ...]:
    named = (run["peer"], run["row"])
    at = ORDER.index(named) if named in ORDER else len(ORDER)
    return (at, LOADS.index(run["load"]), run["repeat"])
