"""`make reliability`: puts the figures of the last kept runs into docs/RELIABILITY.md.

Each long run can leave its figures as JSON in `ops/`; a table of the page is made from these files and from nothing
else. A run that has left none is told as not run.
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "RELIABILITY.md"
BEGIN, END = "<!-- figures: made by `make reliability` -->", "<!-- end of figures -->"
NOT_RUN = "not run yet"


class Row(NamedTuple):
    """A kind of run: its name, the command that makes `file`, and what the page says of what it holds."""

    what: str
    command: str
    file: str
    tell: Callable[[Any], str]


def main() -> int:
    page = PAGE.read_text()
    PAGE.write_text(with_figures(page))
    return 0


def with_figures(page: str) -> str:
    """The page with the table of the files as they are now. Raises ValueError if it has no place for it."""
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"{PAGE.name} must hold the lines {BEGIN!r} and {END!r}")
    return f"{before}{BEGIN}\n\n{table()}\n{END}{after}"


def table() -> str:
    """One line for each kind of run."""
    lines = ["| run | command | figures of the last kept run |", "|---|---|---|"]
    for row in ROWS:
        file = ROOT / "ops" / row.file
        told = row.tell(json.loads(file.read_text())) if file.exists() else NOT_RUN
        lines.append(f"| {row.what} | `{row.command}` | {told} |")
    return "\n".join(lines) + "\n"


def chaos(found: dict[str, Any]) -> str:
    times = found["measured_ms"]
    parts = [
        f"seed {found['seed']}, {found['seconds'] / 60:.3g} min, {found['workers']} workers, "
        f"{len(found['lanes'])} lanes: {found['intents']:,} intents, {found['faults_in_all']:,} faults, "
        f"{found['kills']} kills -9, {found['unclear_answers']:,} unclear answers",
        verdict(found["broken"]),
    ]
    parts += [f"{what}: {_spread(times[key])}" for key, what in _TIMES.items() if key in times]
    return "; ".join(parts)


def _spread(times: dict[str, Any]) -> str:
    most = f"{times['most'] / 1000:.1f} s"
    if times["times"] == 1:
        return most
    return f"p50 {times['p50'] / 1000:.1f} s, most {most} of {times['times']}"


_TIMES = {
    "a killed worker's intents are served again": "a killed worker's intents served again",
    "those that had lost a worker before, one by one": "those that had lost a worker before, one by one",
    "settled after healing, bitget": "settled after healing: Bitget",
    "settled after healing, bybit": "Bybit",
    "settled after healing, bingx": "BingX",
    "TERM to exit": "TERM to exit",
    "kill of 60 orders behind a backlog, bitget": "kill of 60 orders behind a backlog, Bitget",
    "kill of 60 orders behind a backlog, bybit": "Bybit",
    "kill of 60 orders behind a backlog, bingx": "BingX",
}


def verdict(broken: dict[str, int]) -> str:
    """What was broken and how often; the usual four even if never."""
    said = {"lost": 0, "doubled": 0, "false": 0, "over_the_limit": 0, **broken}
    words = [f"**{count} {_MEANT.get(word, word.replace('_', ' '))}**" for word, count in said.items()]
    return ", ".join(words)


#: What figures call by a promise's number, or by what told it.
_MEANT = {
    "11": "served or settled late",
    "17": "drains too long",
    "12": "kills that ended badly",
    "log": "errors in a log",
}


def mutants(found: dict[str, Any]) -> str:
    survived = [row["name"] for row in found["rows"] if not row["caught"]]
    return f"{found['caught']} of {found['mutants']} caught" + (f"; **survived**: {survived}" if survived else "")


def crash_points(found: list[dict[str, Any]]) -> str:
    broken = sum(bool(cell["broken"]) for cell in found)
    reached = sum(cell["mark"] != "not reached" for cell in found)
    served = sorted(cell["served_ms"] for cell in found if cell["served_ms"] is not None)
    settled = sorted(cell["settled_ms"] for cell in found if cell["settled_ms"] is not None)
    faults = Counter(cell["fault"] for cell in found)
    times = "".join(
        f"; {what} within {some[-1] / 1000:.1f} s, half of them within {some[len(some) // 2] / 1000:.1f} s"
        for what, some in (("served again", served), ("settled", settled))
        if some
    )
    kinds = ", ".join(f"{count} {fault}" for fault, count in sorted(faults.items()))
    return f"{len(found)} cells ({kinds}), {reached} reached; **{broken} broken**{times}"


def durability(found: dict[str, Any]) -> str:
    parts = [f"{row['part']}: {len(row['broken'])} broken" for row in found["parts"]]
    skipped = [f"not run: {why}" for why in found["skipped"]]
    return f"seed {found['seed']}; " + "; ".join(parts + skipped)


def rate(found: list[dict[str, Any]]) -> str:
    broken = sum(len(row["broken"]) for row in found)
    return f"{len(found)} runs ({', '.join(row['scenario'] for row in found)}): **{broken} broken**"


def canaries(found: dict[str, Any]) -> str:
    return (
        f"seed {found['seed']}, {found['seconds']:g} s, {found['intents']} intents, {found['secrets']} secrets, "
        f"{found['signatures and listen keys']} signatures and listen keys: **{found['finds']} found**"
    )


def as_told(found: dict[str, Any]) -> str:
    """Whatever counts a file holds, as they stand."""
    plain = {name: value for name, value in found.items() if isinstance(value, int | float | str) and value is not True}
    return "; ".join(
        f"{name.replace('_', ' ')} {value:,}" if isinstance(value, int) else f"{name.replace('_', ' ')} {value}"
        for name, value in plain.items()
    )


_SOAK = 'make soak LENGTH=3 ARGS="--load 10"'
_CHAOS = 'make chaos SECONDS=1200 SEED=1 ARGS="--kills 20 --result ops/chaos.json"'
_CANARIES = 'make canaries ARGS="--result ops/canaries.json"'
_RATE = 'make rate ARGS="--json ops/rate.json"'
_MUTANTS = 'make mutants ARGS="--result ops/mutants.json"'
_FAILOVER = 'make failover ARGS="--result ops/failover.json"'
_DURABILITY = 'make durability ARGS="--keep"'

ROWS = (
    Row("chaos: real processes, everything failing at once", _CHAOS, "chaos.json", chaos),
    Row("simulation: the real engine on virtual time", _SOAK, "sim-results.json", as_told),
    Row("simulation: a minute under a backlog, the venues' limits", "make soak-rate", "sim-rate-results.json", as_told),
    Row("rate: real workers, counted by a venue of its own", _RATE, "rate.json", rate),
    Row("crash points: each step, each way to end", "make crash-points", "crash-points.json", crash_points),
    Row("durability: torn files, power cuts, full disk and memory", _DURABILITY, "durability.json", durability),
    Row("failover: masters lost under load", _FAILOVER, "failover.json", as_told),
    Row("fuzz: hostile entries and answers", "make fuzz", "fuzz.json", as_told),
    Row("canaries: secrets searched for in all that a run leaves", _CANARIES, "canaries.json", canaries),
    Row("mutants: the product broken on purpose", _MUTANTS, "mutants.json", mutants),
)


if __name__ == "__main__":
    sys.exit(main())
