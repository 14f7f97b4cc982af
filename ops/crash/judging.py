"""The judge of a cell: joins what was asked, what was told and what the venue knows."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from cancelq.contract import Status
from ops.crash.cells import DRAIN_S, LEASE_MS, NOISE_S, SETTLE_S, Cell, Played

#: What a worker says when something happened that its fault does not explain.
_NEVER = ("settle refused", "take refused", "admission refused")


@dataclass(slots=True)
class Verdict:
    """A cell's verdict. `reached`: the fault happened; `served_ms`, `settled_ms`: from the fault to the first call or
    event of others, and to the last outcome; None where there was none."""

    cell: Cell
    reached: bool
    broken: list[str] = field(default_factory=list)
    served_ms: int | None = None
    settled_ms: int | None = None
    most_named: int = 0

    @property
    def mark(self) -> str:
        if not self.reached:
            return "not reached"
        return "ok" if not self.broken else "BROKEN"

    def as_json(self) -> dict[str, Any]:
        cell = self.cell
        return {
            "venue": cell.venue, "point": cell.point, "fault": cell.fault, "batch": cell.batch, "mark": self.mark,
            "broken": self.broken, "served_ms": self.served_ms, "settled_ms": self.settled_ms,
            "most_named": self.most_named,
        }  # fmt: skip


def judge(played: Played) -> Verdict:
    """Each broken promise is one line, with its number."""
    verdict = Verdict(played.cell, played.fault_us is not None)
    tell = verdict.broken.append
    _finals(played, verdict)
    _namings(played, verdict)
    for row in played.simulator.rates():
        if row["refused"] or (row["limit"] is not None and row["worst_arrived"] > row["limit"]):
            tell(f"[6] {row['bucket']}: {row['refused']} refused, {row['worst_arrived']} arrived in a window")
    _times(played, verdict)
    _ends(played, verdict)
    return verdict


def _finals(played: Played, verdict: Verdict) -> None:
    finals = Counter(event.id for event in played.events if event.final)
    for id_ in played.ids:
        if finals[id_] != 1:
            verdict.broken.append(f"[{1 if not finals[id_] else 2}] {id_} has {finals[id_]} final events")
    for event in played.events:
        if event.id not in played.ids:
            verdict.broken.append(f"[3] {event.status} of {event.id}, which nobody asked for")
        elif event.final and event.status is not Status.cancelled:
            verdict.broken.append(f"[4] {event.id}: {event.status} ({event.detail})")
    for row in played.simulator.truth_of(played.orders, venue=played.cell.venue).entries:
        if row["state"] != "cancelled":
            verdict.broken.append(f"[4] order {row['order_id']} is {row['state']}")


def _namings(played: Played, verdict: Verdict) -> None:
    """Calls that named an order: each with an attempt on record, and a look between any two."""
    attempts = {event.id: event.attempt or 0 for event in played.events if event.final}
    calls = played.simulator.calls().entries
    looks_us = [call["at_us"] for call in calls if call["method"] == "GET" and "ime" not in call["endpoint"]]
    bulk = [c for c in calls if c["executed"] and c["method"] != "GET" and c["symbol"] and not c["ids"]]
    by_seq = {call["seq"]: call for call in calls}
    if played.cell.sweeps and len(bulk) > 1:
        verdict.broken.append(f"[9] {len(bulk)} bulk calls, one intent")
    for n, row in enumerate(played.simulator.truth_of(played.orders, venue=played.cell.venue).entries):
        named = sorted({naming["call"] for naming in row["cancels"]})
        id_ = played.ids[0] if played.cell.sweeps else played.ids[n]
        verdict.most_named = max(verdict.most_named, len(named))
        if len(named) > attempts.get(id_, 0):
            verdict.broken.append(f"[5] order {row['order_id']}: {len(named)} calls, {attempts.get(id_)} attempts told")
        times = [by_seq[seq]["at_us"] for seq in named if seq in by_seq]
        for first, second in zip(times, times[1:], strict=False):
            if not any(first < at_us < second for at_us in looks_us):
                verdict.broken.append(f"[2] order {row['order_id']} was sent twice without a look between")


def _times(played: Played, verdict: Verdict) -> None:
    if played.fault_us is None:
        return
    settled = [e.settled_us for e in played.events if e.final and e.settled_us and e.settled_us > played.fault_us]
    called = [call["at_us"] for call in played.simulator.calls().entries if "ime" not in call["endpoint"]]
    # Calls that were on their way already are the victim's.
    after = [at_us for at_us in called if at_us > played.fault_us + 20_000]
    first = min([*after, *settled], default=None)
    if first is not None:
        verdict.served_ms = (first - played.fault_us) // 1000
    if settled:
        verdict.settled_ms = (max(settled) - played.fault_us) // 1000
    if played.cell.fault == "kill" and verdict.served_ms is not None:
        most_ms = LEASE_MS + 1000 + NOISE_S * 1000
        if verdict.served_ms > most_ms:
            verdict.broken.append(f"[11] served {verdict.served_ms} ms after the kill, {most_ms:.0f} are allowed")
    if verdict.settled_ms is not None and verdict.settled_ms > (SETTLE_S + NOISE_S) * 1000:
        verdict.broken.append(f"[11] settled {verdict.settled_ms} ms after the fault, {SETTLE_S:.0f} s are promised")


def _ends(played: Played, verdict: Verdict) -> None:
    """Whoever was not killed drains in time; nobody says what should never be said."""
    for pid, code in played.exits.items():
        expected = -9 if played.cell.fault == "kill" and pid == played.victim else 0
        if code != expected:
            verdict.broken.append(f"[17] worker {pid} ended with {code}, not with {expected}")
    if played.drained_s > DRAIN_S + NOISE_S:
        verdict.broken.append(f"[17] {played.drained_s:.1f} s from TERM to the last exit, {DRAIN_S:.0f} are promised")
    for log in played.logs:
        for line in log.read_text(errors="replace").splitlines():
            said = _said(line)
            if said.startswith(_NEVER):
                verdict.broken.append(f"[log] {line[:300]}")


def _said(line: str) -> str:
    try:
        row = json.loads(line)
    except ValueError:
        return ""
    return str(row.get("event", "")) if isinstance(row, dict) else ""


def worst(verdicts: Sequence[Verdict], name: str) -> int:
    """The largest of a figure."""
    return max((getattr(v, name) or 0 for v in verdicts), default=0)
