"""Crash points: a fault at each step of a cancel's way, at each venue, alone and in a batch of fifty.

    make crash-points                    every cell of the matrix
    make crash-points ARGS="--venue bitget --flow cancel --batch 50"

Two real workers serve a lane; one of them is killed, stopped past its lease, hit by an exception or loses a reply just
there, and the other has to go on. Each cell is judged from inbox, results and the venue's own book. Prints the matrix
as a Markdown table and writes `ops/crash-points.json`; the exit status is 1 if a promise was broken or a step never
reached. How a cell is played is told in `ops/crash/`.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from cancelq_worker.embedded import EmbeddedServer
from ops.crash.cells import FAULTS, FLOWS, POINTS, VENUES, Cell, all_cells, play
from ops.crash.desk import LEASE_MS, Floor
from ops.crash.judging import Verdict, judge, worst
from ops.crash.zygote import zygote

RESULTS = Path(__file__).parent / "crash-points.json"
AT_ONCE = 8  # cells; most of a cell's time is a lease that has to end
#: For a step that was not reached, as it is for the two workers to find out who takes what; and where this machine
#: stood still for so long that nothing can be said about times.
TRIES = 3
BEAT_S = 0.1
STALL_S = 0.75  # half of what a call has


@asynccontextmanager
async def floor(databases: int) -> AsyncIterator[Floor]:
    """What any number of cells share; databases from 1 on."""
    with EmbeddedServer(config={"databases": str(databases + 1)}) as server:
        async with zygote() as workers:
            yield Floor(server.port, workers)


async def run(cells: Sequence[Cell], folder: Path, *, at_once: int = AT_ONCE, quiet: bool = True) -> list[Verdict]:
    """Plays the cells, several at a time, each in a database of its own. The verdicts are in the order of the cells."""
    verdicts: dict[int, Verdict] = {}
    waiting = list(enumerate(cells))[::-1]
    at_once = min(at_once, len(cells))
    async with floor(at_once) as shared, _pulse() as stalls:

        async def some(database: int) -> None:
            while waiting:
                number, cell = waiting.pop()
                verdicts[number] = await _verdict(cell, shared, database, folder / str(number), stalls)
                if not quiet:
                    _tell(verdicts[number], len(verdicts), len(cells))

        await asyncio.gather(*(some(n + 1) for n in range(at_once)))
    return [verdicts[n] for n in range(len(cells))]


@asynccontextmanager
async def _pulse() -> AsyncIterator[list[float]]:
    """When this machine stood still: monotonic seconds."""
    stalls: list[float] = []

    async def beat() -> None:
        while True:
            due_s = time.monotonic() + BEAT_S
            await asyncio.sleep(BEAT_S)
            if time.monotonic() - due_s > STALL_S:
                stalls.append(time.monotonic())

    beating = asyncio.ensure_future(beat())
    try:
        yield stalls
    finally:
        beating.cancel()


async def _verdict(cell: Cell, shared: Floor, database: int, folder: Path, stalls: list[float]) -> Verdict:
    for n in range(TRIES):
        place = folder / str(n)
        place.mkdir(parents=True)
        begun_s = time.monotonic()
        try:
            verdict = judge(await play(cell, shared, database, place))
        except TimeoutError:
            verdict = Verdict(cell, False, ["the workers did not come up in time"])
        stalled = verdict.broken and any(at_s > begun_s for at_s in stalls)
        if verdict.reached and not stalled:
            break
    return verdict


def _tell(verdict: Verdict, done: int, of: int) -> None:
    print(f"{done}/{of} {verdict.cell}: {verdict.mark} {'; '.join(verdict.broken[:3])}", file=sys.stderr, flush=True)


def matrix(verdicts: Sequence[Verdict]) -> str:
    """A Markdown table: a row for each step, a column for each fault; how many cells were played, and what broke."""
    lines = ["| step | " + " | ".join(FAULTS) + " |", "|---|" + "---|" * len(FAULTS)]
    for point in POINTS:
        row = [v for v in verdicts if v.cell.point == point]
        if row:
            cells = (_entry([v for v in row if v.cell.fault == fault]) for fault in FAULTS)
            lines.append(f"| {point} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _entry(verdicts: Sequence[Verdict]) -> str:
    if not verdicts:
        return "-"
    broken, missed = sum(v.mark == "BROKEN" for v in verdicts), sum(not v.reached for v in verdicts)
    text = f"{len(verdicts) - broken - missed} ok"
    return text + (f", **{broken} broken**" if broken else "") + (f", {missed} not reached" if missed else "")


def summary(verdicts: Sequence[Verdict], took_s: float) -> str:
    killed = [v for v in verdicts if v.cell.fault == "kill"]
    broken = [f"{v.cell}: {line}" for v in verdicts for line in v.broken]
    missed = [str(v.cell) for v in verdicts if not v.reached]
    return "\n".join(
        [
            f"{len(verdicts)} cells in {took_s:.0f} s, lease {LEASE_MS} ms: {len(broken)} broken promises, "
            f"{len(missed)} steps not reached",
            f"after a kill: served within {worst(killed, 'served_ms')} ms at worst; "
            f"after any fault: everything settled within {worst(verdicts, 'settled_ms')} ms at worst",
            *broken,
            *(f"not reached: {cell}" for cell in missed),
        ]
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--venue", choices=VENUES, action="append", help="default: all")
    parser.add_argument("--batch", type=int, choices=(1, 50), action="append", help="default: both")
    parser.add_argument("--flow", choices=("admit", *FLOWS, "push", "give-back"), action="append", help="default: all")
    parser.add_argument("--fault", choices=FAULTS, action="append", help="default: all")
    parser.add_argument("--point", choices=POINTS, action="append", help="default: all")
    parser.add_argument("--at-once", type=int, default=AT_ONCE)
    parser.add_argument("--out", type=Path, default=RESULTS)
    asked = parser.parse_args()
    cells = [
        cell
        for cell in all_cells(tuple(asked.venue or VENUES), tuple(asked.batch or (1, 50)))
        if (not asked.flow or cell.flow in asked.flow)
        and (not asked.fault or cell.fault in asked.fault)
        and (not asked.point or cell.point in asked.point)
    ]
    folder = Path(tempfile.mkdtemp(prefix="cancelq-crash-"))
    begun_s = time.monotonic()
    verdicts = asyncio.run(run(cells, folder, at_once=asked.at_once, quiet=False))
    told = summary(verdicts, time.monotonic() - begun_s)
    rows = ",\n".join(json.dumps(verdict.as_json()) for verdict in verdicts)
    asked.out.write_text(f"[\n{rows}\n]\n", encoding="utf-8")
    print(f"{matrix(verdicts)}\n\n{told}\nlogs in {folder}")
    return 1 if any(v.broken or not v.reached for v in verdicts) else 0


if __name__ == "__main__":
    sys.exit(main())
