"""The part `peers` of the bench: which runs are wanted, one after another, and what is kept of them."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import rig

from peers import page, record
from peers.environments import python_of, versions
from peers.loads import CAP_S, LOADS
from peers.roster import ROWS, Row
from peers.run import play

HERE = Path(__file__).parents[1]
RECORD, PAGE, PLOTS = HERE / "peers.json", HERE / "PEERS.md", HERE / "plots"
AROUND_S = 5.0  # of a run: starting and ending its processes
QUICK_S = {"burst": 12.0, "steady": 32.0, "trickle": 11.0, "mixed": 7.0, "recovery": 25.0}


@dataclass(frozen=True, slots=True)
class Wanted:
    """`scale` shrinks every load; what is not 1 is for trying things out and cannot be kept. `missing`: only what the
    record does not have yet, to go on with a long bench that was broken off."""

    peers: Sequence[str]
    loads: Sequence[str]
    repeat: int
    scale: float
    keep: bool
    missing: bool = False


def run(wanted: Wanted) -> int:
    """Plays the wanted runs, and tells each. A run that failed is told and left out; exit code 1 if there was one."""
    todo = list(planned(wanted))
    left_s = sum(_takes_s(row, load) for row, load, _ in todo)
    print(f"{len(todo)} runs, about {left_s / 60:.0f} min", file=sys.stderr, flush=True)
    known = {peer: versions(peer) for peer in dict.fromkeys(row.peer for row, _, _ in todo)}
    failed = 0
    fresh: list[record.Run] = []
    with rig.servers(False)["valkey"]() as server:
        known["server"] = {"name": server.name}
        for at, (row, load, repeat) in enumerate(todo, 1):
            seed = _seed(load, repeat)
            try:
                figures = play(row, load, server, seed, wanted.scale)
            except rig.BenchFailed as failure:
                failed += 1
                print(f"{row.peer} ({row.row}), {load}: {failure}", file=sys.stderr, flush=True)
                continue
            left_s -= _takes_s(row, load)
            fresh.append(_entry(row, load, repeat, seed, wanted.scale, figures))
            print(_told(fresh[-1], at, len(todo), left_s), file=sys.stderr, flush=True)
            if wanted.keep:
                # After each run: a long bench that is broken off has what it measured.
                record.write(RECORD, record.merged(record.read(RECORD), fresh[-1:], known))
    if wanted.keep:
        render()
    else:
        print(page.tables(record.merged({"versions": {}, "runs": []}, fresh, known)))
    return 1 if failed else 0


def render() -> int:
    """PEERS.md and its plots, from peers.json alone."""
    kept = record.read(RECORD)
    PAGE.write_text(page.page(kept))
    PLOTS.mkdir(exist_ok=True)
    command = [str(python_of("plots")), "-m", "peers.plots", str(RECORD), str(PLOTS)]
    done = subprocess.run(command, cwd=HERE, capture_output=True, text=True, check=False)
    if done.returncode:
        print(f"plots: {done.stderr.strip()[-800:]}", file=sys.stderr)
    return done.returncode


def planned(wanted: Wanted) -> Iterator[tuple[Row, str, int]]:
    """Repeat by repeat, so that a slow change of the machine meets all rows alike."""
    kept = {record.key(run) for run in record.read(RECORD)["runs"]} if wanted.missing else set()
    for repeat in range(1, wanted.repeat + 1):
        for load in LOADS:
            for row in ROWS:
                played = load in wanted.loads and row.peer in wanted.peers and (row.mixed or load != "mixed")
                if played and record.key(_name(row, load, repeat)) not in kept:
                    yield row, load, repeat


def _takes_s(row: Row, load: str) -> float:
    slow = row.single and load != "trickle"
    return AROUND_S + (CAP_S if slow else QUICK_S[load])


def _name(row: Row, load: str, repeat: int) -> record.Run:
    """What the record knows a run by."""
    return {"peer": row.peer, "row": row.row, "load": load, "repeat": repeat}


def _seed(load: str, repeat: int) -> int:
    return 1_000 * repeat + LOADS.index(load)


def _entry(row: Row, load: str, repeat: int, seed: int, scale: float, figures: dict[str, Any]) -> record.Run:
    return {
        **_name(row, load, repeat),
        "seed": seed,
        "scale": scale,
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": rig.machine(),
        "figures": figures,
    }


def _told(run: record.Run, at: int, of: int, left_s: float) -> str:
    found = run["figures"]
    end = f"{found['drained_s']:.1f} s" if found["drained_s"] is not None else f"not within {found['ran_s']:.0f} s"
    return (
        f"{time.strftime('%H:%M:%S')} {at}/{of} {run['peer']} ({run['row']}), {run['load']} {run['repeat']}: "
        f"{found['done']}/{found['orders']} done, {end}, {found['calls']} calls, {found['refused']} refused; "
        f"about {max(0.0, left_s) / 60:.0f} min left"
    )
