"""The seeded simulation: many runs on virtual time, each from its seed, judged by the same judges as chaos.

    make sim SEEDS=1000          the first thousand; SEEDS=500-900: those
    make sim SEED=413            one run again, told step by step
    make soak MINUTES=60         new seeds for so long; the figures are added to ops/sim-results.json
    make soak-rate MINUTES=60    runs of a minute under a backlog, judged by the venues' limits

A seed that breaks a promise is printed with what it broke, and gives the same run wherever it is run again.
`docs/SIMULATION.md` tells what is real in it and what is not.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import random
import statistics
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.simulation.judging import Outcome
from tests.simulation.run import run
from tests.simulation.world import Plan

RESULTS = Path(__file__).with_name("sim-results.json")
A_PORTION = 5
#: By the promise's number, the words the figures have for a broken one.
WORDS = {"1": "lost", "2": "doubled", "3": "invented", "4": "false", "6": "over the limit"}


@dataclass
class Totals:
    """What many runs came to."""

    seeds: int = 0
    intents: int = 0
    calls: int = 0
    unclear: int = 0
    virtual_s: float = 0.0
    cpu_s: float = 0.0
    worst_settled_s: float = 0.0
    used: list[float] = field(default_factory=list)  # of the budget, in runs under a backlog without faults
    faults: Counter[str] = field(default_factory=Counter)
    statuses: Counter[str] = field(default_factory=Counter)
    broken: Counter[str] = field(default_factory=Counter)
    failed: list[str] = field(default_factory=list)

    def add(self, outcome: Outcome) -> None:
        self.seeds += 1
        self.intents += outcome.intents
        self.calls += outcome.calls
        self.unclear += outcome.unclear
        self.virtual_s += outcome.virtual_s
        if outcome.plan.backlog:
            self.used += [outcome.used] * (not outcome.faults)
        else:
            self.worst_settled_s = max(self.worst_settled_s, outcome.settled_s)
        self.faults += outcome.faults
        self.statuses += outcome.statuses
        self.broken += Counter(one.promise for one in outcome.broken)
        if outcome.broken:
            again = f"again: {outcome.plan.again()}"
            self.failed.append(f"{outcome}\n{again}")

    def merge(self, other: Totals) -> None:
        for name in ("seeds", "intents", "calls", "unclear", "virtual_s", "cpu_s"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.worst_settled_s = max(self.worst_settled_s, other.worst_settled_s)
        self.used += other.used
        self.faults += other.faults
        self.statuses += other.statuses
        self.broken += other.broken
        self.failed += other.failed

    def line(self) -> str:
        """Where it stands, on one line."""
        words = ", ".join(f"{self.broken[number]} {word}" for number, word in WORDS.items())
        others = sum(self.broken.values()) - sum(self.broken[number] for number in WORDS)
        return (
            f"{self.seeds:,} seeds, {self.intents:,} intents, {sum(self.faults.values()):,} faults, "
            f"{self.unclear:,} unclear answers judged: {words}, {others} other"
        )

    def figures(self) -> dict[str, Any]:
        """As they are kept in a file."""
        return {
            "seeds": self.seeds,
            "intents": self.intents,
            "faults": sum(self.faults.values()),
            "faults_by_kind": dict(self.faults.most_common()),
            "calls": self.calls,
            "unclear_answers": self.unclear,
            "virtual_hours": round(self.virtual_s / 3600, 2),
            "cpu_hours": round(self.cpu_s / 3600, 3),
            "worst_settled_s": round(self.worst_settled_s, 1),
            "least_used": round(min(self.used, default=0.0), 4),
            "half_used": round(statistics.median(self.used) if self.used else 0.0, 4),
            "used": [round(share, 4) for share in sorted(self.used)],
            "events": dict(self.statuses.most_common()),
            **{word.replace(" ", "_"): self.broken[number] for number, word in WORDS.items()},
            "broken": dict(sorted(self.broken.items())),
        }

    @classmethod
    def read(cls, figures: dict[str, Any]) -> Totals:
        return cls(
            figures["seeds"], figures["intents"], figures["calls"], figures["unclear_answers"],
            figures["virtual_hours"] * 3600, figures["cpu_hours"] * 3600, figures["worst_settled_s"],
            figures["used"], Counter(figures["faults_by_kind"]), Counter(figures["events"]), Counter(figures["broken"]),
        )  # fmt: skip


@dataclass(frozen=True)
class Kind:
    """Which runs: `rate`: under a backlog; `length`: how long things go wrong; `load`: times the usual one."""

    length: float
    rate: bool = False
    load: float = 1.0

    def plan(self, seed: int) -> Plan:
        return Plan.of_rate(seed, self.length) if self.rate else Plan.of(seed, self.length, self.load)


def play(portion: tuple[int, int, Kind]) -> Totals:
    """The runs of some seeds, in this process."""
    first, last, kind = portion
    totals, before_s = Totals(), time.process_time()
    for seed in range(first, last):
        totals.add(run(kind.plan(seed)))
    totals.cpu_s = time.process_time() - before_s
    return totals


def play_all(totals: Totals, first: int, last: int | None, kind: Kind, jobs: int, minutes: float | None) -> None:
    """Portions over `jobs` processes until the last seed or the end of the time; tells how it goes, and counts it."""
    room = threading.Semaphore(2 * jobs)  # a pool takes all that is offered to it
    end_s = None if minutes is None else time.monotonic() + minutes * 60
    with multiprocessing.get_context("spawn").Pool(jobs, maxtasksperchild=50) as pool:
        for part in pool.imap_unordered(play, _portions(first, last, kind, end_s, room)):
            room.release()
            for told in part.failed:
                print(f"\r{told}", flush=True)
            totals.merge(part)
            shown = totals.line()
            print(f"\r{shown}" if sys.stdout.isatty() else shown, end="" if sys.stdout.isatty() else "\n", flush=True)


def _portions(
    first: int, last: int | None, kind: Kind, end_s: float | None, room: threading.Semaphore
) -> Iterator[tuple[int, int, Kind]]:
    at = first
    while (last is None or at < last) and (end_s is None or time.monotonic() < end_s):
        room.acquire()
        portion = 1 if kind.rate else A_PORTION
        yield at, min(at + portion, last or at + portion), kind
        at += portion


def again(seed: int, kind: Kind) -> int:
    """One run, told step by step."""
    outcome = run(kind.plan(seed))
    print("\n".join(outcome.notes))
    print(f"{outcome.intents} intents, {dict(outcome.statuses)}, {outcome.calls} calls, {outcome.virtual_s:.1f} s")
    print(f"fingerprint {outcome.fingerprint}")
    if kind.rate:
        print(f"used {outcome.used:.1%} of the busiest limit less its reserve")
    print(outcome)
    return 1 if outcome.broken else 0


def keep(totals: Totals, place: Path) -> None:
    """Adds the figures to those in the file."""
    kept = Totals.read(json.loads(place.read_text())) if place.exists() else Totals()
    kept.merge(totals)
    place.write_text(json.dumps(kept.figures(), indent=1) + "\n")


def span(text: str) -> tuple[int, int]:
    """Seeds as they are asked for: a number, or from-to."""
    first, dash, last = text.partition("-")
    return (int(first), int(last) + 1) if dash else (0, int(first))


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seeds", type=span, default=(0, 1000), help="how many, or from-to (default 1000)")
    parser.add_argument("--seed", type=int, help="one run again, told step by step")
    parser.add_argument("--length", type=float, default=1.0, help="how long things go wrong: 1 is some seconds")
    parser.add_argument("--load", type=float, default=1.0, help="times the usual load, where the venue can take it")
    parser.add_argument("--rate", action="store_true", help="runs of a minute under a backlog (--length: of so many)")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="processes")
    parser.add_argument("--minutes", type=float, help="new seeds for so long, instead of --seeds")
    parser.add_argument("--result", type=Path, help="a file of figures that this run is added to")
    options = parser.parse_args()
    kind = Kind(options.length * 60 if options.rate else options.length, options.rate, options.load)
    if options.seed is not None:
        return again(options.seed, kind)
    first, last = options.seeds
    if options.minutes is not None:
        first, last = random.SystemRandom().randrange(10**6, 10**12), None
        print(f"seeds from {first}", flush=True)
    totals = Totals()
    try:
        play_all(totals, first, last, kind, options.jobs, options.minutes)
    finally:  # also of a soak that was ended early
        print(f"\n{totals.line()}")
        print(json.dumps(totals.figures(), indent=1))
        if options.result:
            keep(totals, options.result)
    return 1 if totals.broken else 0


if __name__ == "__main__":
    sys.exit(main())
