"""PEERS.md, from the record alone: tables, what each row is, and what the figures do not say."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from peers.loads import (
    BURST,
    CAP_S,
    CEILING,
    LIMIT,
    LOADS,
    MIXED,
    MOST,
    RECOVERY,
    RECOVERY_SINGLE,
    STEADY_A_SECOND,
    STEADY_S,
    TRICKLE_A_SECOND,
    TRICKLE_S,
    URGENT,
)
from peers.record import Record, Run, middle, runs_of
from peers.roster import ROWS

Cell = Callable[[Sequence[Run]], str]

TITLES = {
    "burst": f"Burst: {BURST:,} orders at once",
    "steady": f"Steady: {STEADY_A_SECOND} orders a second for {STEADY_S} s",
    "trickle": f"Trickle: {TRICKLE_A_SECOND} orders a second for {TRICKLE_S} s",
    "mixed": f"Mixed: a burst of {MIXED:,}, a tenth of it repeats, and {URGENT} urgent ones right after it",
    "recovery": f"Recovery: a worker killed with -9 in a burst of {RECOVERY:,} ({RECOVERY_SINGLE} where a call "
    "carries one order)",
}

SETTING = (
    f"**Venue**: the simulated Bitget, in a process of its own: `batch-cancel-order` {MOST} orders a call and {LIMIT} "
    f"calls in any second, `cancel-order` {LIMIT} calls in any second, per UID. An address has 6,000 calls in a "
    "minute, refused ones included, and is closed for five minutes where it makes more: that ends rows which go "
    "on asking after refusals. The network takes 10 to 30 ms each way, drawn evenly for each call. Everything about "
    "calls is counted from the venue's log.",
    "**Order of the runs**: repeat by repeat, but not in one go: rows were played on several days, as code changed; "
    "`peers.json` says when. Between days, and between hours, the same code costs up to twice as much here, so "
    "processor and Redis time compare only where `played` is the same hour. The plots are of each row's first repeat.",
    f"**Ceiling**: {LIMIT} calls of {MOST} orders and {LIMIT} of one: {CEILING} orders a second. `best` is the least "
    "time for a load by the limits alone: no network, no program, both endpoints full in every window from its first "
    "moment on. A peer that uses one endpoint cannot reach it; which endpoint to use is part of the peer. "
    f"A row with one order a call can do {LIMIT} a second, {LIMIT * CAP_S:,.0f} in its time: read its `done` "
    "against that.",
    "**Same for all**: one Valkey in memory, cleared before each run; three worker processes; a producer in a process "
    "of its own (ccxt has none); the desk's call by httpx with a signature of its own making, but ccxt and cancelq "
    "bring theirs. hiredis everywhere; uvloop, which cancelq brings, in no other environment. A run ends when all "
    f"is done and told, or after {CAP_S:.0f} s.",
    "**Helped** rows are what a desk would write in a day. The limiter they share is a sliding window in Redis of ten "
    "calls in 1.05 s, on the server's clock: 50 ms more than the venue's second, for the network's jitter.",
)

WORDS = (
    "**door**: from when a cancel was due in the plan to the arrival of the first call that names the order and is let "
    "in. **answer**: to the venue's answer as the peer's worker wrote it down. **final**: only cancelq confirms; its "
    "final event rests on a look-up or the order stream, the peers' outcome is the venue's acknowledgement, which at "
    "Bitget means accepted and not cancelled. So cancelq does more calls (`looks`, which `calls per 1,000` leaves out, "
    "as it does reads of the time and of the pairs) and more work for one order.",
    "**p50, p99**: over all orders asked for; what was not done by the end counts as later than all else (of a "
    f"trickle's {TRICKLE_A_SECOND * TRICKLE_S}, p99 is the slowest), and a rank that was not reached is shown as `-`. "
    "Median over the repeats, in brackets the least and the most.",
    "**over the limit**: the most arrivals in any second at either endpoint, less its limit. Refused calls count: the "
    "venue sees them.",
    "**sent twice**: orders that more than one accepted cancel call named. At cancelq's these are repeats that came in "
    "after the order's end had been told: they share no call with it, and are asked of the venue anew.",
    "**workers**, **broker**: processor time from /proc, children included, from the first ask to the end. **Redis "
    "time**: `usec` of INFO commandstats, at the least: what scripts and transactions call is counted twice by the "
    "server, so the larger of both sums is taken. cancelq's share includes admission, dedup, events, confirmation.",
    "**Recovery**: once a fifth is done, the venue executes calls but answers a second late; when such a call has been "
    "made, the worker that was answered last is killed with its children, and not started again; then the venue is "
    "prompt again. So work is in its hands. ccxt has no queue: what a dead engine held is nobody's. After how long a "
    "dead worker's work is taken again is a setting that was chosen, and much of `all told` is that choice: five "
    "seconds for the helped rows, as cancelq's lease has by default, and ten for Celery. **told**: "
    "the desk has the venue's answer, at cancelq the final event. A peer that lost the order and one that cancelled it "
    "without a word are alike to the desk.",
)

NOT_MEASURED = (
    "Truth. The peers take an acknowledgement for the end; how often that is wrong depends on the venue, not on them.",
    "Limits that change, bans, other venues, several accounts, a server that fails: other parts of this project test "
    "them for cancelq. Of the peers nothing is said here: ccxt knows a hundred venues, several of the queues know "
    "Sentinel, and for the rest a desk would write something.",
    "Longer waits than a minute. Some peers recover just after it or later, so what is `not done` need not be lost: "
    "Dramatiq gives back what a worker held 60 s after its last heartbeat, SAQ sweeps every 60 s, RQ looks for "
    "abandoned jobs every ten minutes, Celery's visibility timeout is an hour. Each has a setting that shortens it.",
    "Durability. The server is in memory for all; with fsync on every write all of them pay.",
    "A larger machine. All processes share these processors, the venue's too.",
    "The network is drawn by the simulator and not seeded; seeds fix the loads.",
)


def page(record: Record) -> str:
    """The whole of PEERS.md."""
    return (
        "\n\n".join(
            [
                '# cancelq and its peers, measured by `make bench ARGS="--parts peers --keep"`',
                "The same loads on the same machine, for what a desk would otherwise take. Everything shared its "
                "processors: trust the counts; ratios, and processor time, of rows that were played in the same hour.",
                _list(_machine(record)),
                "## The setting",
                _list(SETTING),
                tables(record),
                "## The rows",
                _list(f"**{row.peer}, {row.row}**: {row.note}" for row in ROWS),
                "## What the words mean",
                _list(WORDS),
                "## Not measured",
                _list(NOT_MEASURED),
                "## Versions",
                _list(_versions(record)),
            ]
        )
        + "\n"
    )


def tables(record: Record) -> str:
    """A table for each load that was played, and one of the costs."""
    parts = []
    for load in LOADS:
        if any(run["load"] == load for run in record["runs"]):
            parts += [f"## {TITLES[load]}", _plot(load), _table(record, load, COLUMNS[load])]
    for load in ("burst", "steady", "trickle"):
        if any(run["load"] == load for run in record["runs"]):
            parts += [f"## What a cancel costs: {load}", _table(record, load, COSTS)]
    return "\n\n".join(part for part in parts if part)


def _plot(load: str) -> str:
    shown = {
        "burst": "![orders done over time](plots/burst.svg)\n\n![refused calls over time](plots/refusals.svg)",
        "mixed": "![delay of the urgent](plots/urgent.svg)",
    }
    return shown.get(load, "")


def _table(record: Record, load: str, columns: dict[str, Cell]) -> str:
    lines = [
        f"| peer | row | {' | '.join(columns)} |",
        f"|---|---|{'--:|' * len(columns)}",
    ]
    for row in ROWS:
        if runs := runs_of(record, row.peer, row.row, load):
            cells = " | ".join(cell(runs) for cell in columns.values())
            lines.append(f"| {row.peer} | {row.row} | {cells} |")
    return "\n".join(lines)


def _figure(*names: str) -> Cell:
    """Median, least and most of a figure, found by its path; `-` where it did not come to be."""

    def cell(runs: Sequence[Run]) -> str:
        return _spread([_at(run["figures"], names) for run in runs])

    return cell


def _delay(what: str) -> Cell:
    """p50 and p99 of a delay in ms."""

    def cell(runs: Sequence[Run]) -> str:
        found = [run["figures"][what] for run in runs if run["figures"][what]]
        if not found:
            return ""
        return " / ".join(_spread([one[rank] for one in found]) for rank in ("p50", "p99"))

    return cell


def _played(runs: Sequence[Run]) -> str:
    """When, to the hour: the machine is not the same all day."""
    return ", ".join(dict.fromkeys(f"{run['at'][5:13].replace('T', ' ')} h" for run in runs))


def _done(runs: Sequence[Run]) -> str:
    return f"{_figure('done')(runs)} of {runs[0]['figures']['orders']:,}"


COLUMNS: dict[str, dict[str, Cell]] = {
    "burst": {
        "done": _done,
        "drained, s": _figure("drained_s"),
        "over best": _figure("drain_over_best"),
        "calls per 1,000": _figure("calls_per_1000"),
        "looks": _figure("looks"),
        "refused": _figure("refused"),
        "over the limit": _figure("over_limit"),
        "sent twice": _figure("sent_twice"),
        "door p50 / p99, ms": _delay("to_door_ms"),
        "answer p50 / p99, ms": _delay("to_answer_ms"),
        "final p50 / p99, ms": _delay("to_final_ms"),
    },
    "steady": {
        "done": _done,
        "over best": _figure("drain_over_best"),
        "calls per 1,000": _figure("calls_per_1000"),
        "looks": _figure("looks"),
        "refused": _figure("refused"),
        "over the limit": _figure("over_limit"),
        "sent twice": _figure("sent_twice"),
        "door p50 / p99, ms": _delay("to_door_ms"),
        "answer p50 / p99, ms": _delay("to_answer_ms"),
        "final p50 / p99, ms": _delay("to_final_ms"),
    },
    "trickle": {
        "done": _done,
        "refused": _figure("refused"),
        "calls per 1,000": _figure("calls_per_1000"),
        "door p50 / p99, ms": _delay("to_door_ms"),
        "answer p50 / p99, ms": _delay("to_answer_ms"),
        "final p50 / p99, ms": _delay("to_final_ms"),
    },
    "mixed": {
        "done": _done,
        "drained, s": _figure("drained_s"),
        "orders sent twice": _figure("sent_twice"),
        "refused": _figure("refused"),
        "over the limit": _figure("over_limit"),
        "urgent to door p50, ms": _figure("urgent_to_door_ms", "p50"),
        "urgent to door, the last, ms": _figure("urgent_to_door_ms", "max"),
    },
    "recovery": {
        "open at the kill": _figure("recovery", "left"),
        "all at the door, s after it": _figure("recovery", "all_done_s"),
        "not done": _figure("recovery", "not_done"),
        "sent twice": _figure("sent_twice"),
        "all told, s after it": _figure("recovery", "all_told_s"),
        "not told": _figure("recovery", "not_told"),
        "refused": _figure("refused"),
    },
}

COSTS: dict[str, Cell] = {
    "played": _played,
    "workers, µs": _figure("workers_cpu_us"),
    "broker, µs": _figure("broker_cpu_us"),
    "Redis time, µs": _figure("redis_us"),
}


def _at(figures: dict[str, Any], names: Sequence[str]) -> float | None:
    value: Any = figures
    for name in names:
        value = None if value is None else value[name]
    return None if value is None else float(value)


def _spread(values: Sequence[float | None]) -> str:
    typical = _number(middle(values))
    known = [value for value in values if value is not None]
    if len(values) < 2 or not known:
        return typical
    least, most = _number(min(known)), _number(max(known)) if len(known) == len(values) else "-"
    return typical if least == most == typical else f"{typical} ({least}…{most})"


def _number(value: float | None) -> str:
    if value is None:
        return "-"
    if value >= 100 or value == int(value):
        return f"{value:,.0f}"
    return f"{value:.3g}"


def _list(lines: Iterable[str]) -> str:
    return "\n".join(f"* {line}" for line in lines)


def _machine(record: Record) -> list[str]:
    if not record["runs"]:
        return ["nothing is measured yet"]
    runs = record["runs"]
    told = [f"{name}: {value}" for name, value in runs[-1]["machine"].items() if name != "load before"]
    scales = sorted({run["scale"] for run in runs})
    if scales != [1.0]:
        told.append(f"**not the whole loads**: shrunk to {', '.join(str(scale) for scale in scales)}")
    times = sorted(run["at"] for run in runs)
    return [*told, f"{len(runs)} runs between {times[0]} and {times[-1]}"]


def _versions(record: Record) -> list[str]:
    return [
        f"**{peer}**: {', '.join(f'{name} {version}' for name, version in found.items() if name not in ('pip',))}"
        for peer, found in record["versions"].items()
    ]
