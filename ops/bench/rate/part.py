"""The rate promise as a part of the bench: every scenario at a moderate length, as rows."""

from __future__ import annotations

from report import Row, aimed
from rig import Server

from rate.judge import Verdict
from rate.scenarios import SCENARIOS, Options, play_all

NOTES = (
    "**rate**: real workers at a venue that shares no code with them or with `cancelq simulate`, has a clock of its "
    "own (0.02 % slow) and a network of its own, and counts every sliding window of the documented limits, per account "
    "and per address, by the times the calls arrive. What each scenario does: `python -m rate --help`, with "
    "`PYTHONPATH=ops/bench`; it also tells who called too early, after whom, and by how much.",
    "**broken rules** of rate: calls over a limit, calls while the venue or an operator had said stop, attempts burnt "
    "by refusals, intents without exactly one final event or told as cancelled against the venue's books.",
    "**drain** of rate: from the first cancel's arrival to the last one's, against the least that the limits allow for "
    "so many orders in full batches, both endpoints used. Each window loses at least the jitter of the ways.",
)
TARGETS = {"drain-far": 1.05, "drain-there": 1.05, "drain-back": 1.05, "drain-near": 1.02, "bybit": 1.05, "bingx": 1.05}
UNPROMISED = ("drain-any", "shorter")  # ways of which no round trip tells enough: their figures are only told
SECONDS = 30.0


def measure(server: Server) -> list[Row]:
    """Every scenario once."""
    verdicts = play_all(server, list(SCENARIOS), Options(seconds=SECONDS))
    rows = [row for verdict in verdicts for row in _rows(server.name, verdict)]
    broken = sum(len(verdict.broken) for verdict in verdicts)
    return [*rows, aimed(Row("rate", server.name, "broken rules", broken, ""), "0", not broken)]


def _rows(name: str, verdict: Verdict) -> list[Row]:
    units = {"over": "calls over a limit", "drain": "drain, of the least possible", "ratio p50": "lone, of a bare post"}
    rows = []
    for figure, value in verdict.figures.items():
        row = Row("rate", name, f"{verdict.name}: {units.get(figure, figure)}", value, _unit(figure))
        if figure == "over" and verdict.name not in UNPROMISED:
            row = aimed(row, "0", value == 0)
        elif figure == "drain" and verdict.name in TARGETS:
            row = aimed(row, f"≤ {TARGETS[verdict.name]}", value <= TARGETS[verdict.name])
        rows.append(row)
    return rows


def _unit(figure: str) -> str:
    if figure == "over":
        return ""
    return "ms" if figure.startswith("while") else "times"
