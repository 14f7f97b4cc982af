"""The judge of a cell: joins what was asked, what was told and what the venue knows."""

from __future__ import annotations

import itertools
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from cancelq.contract import Status
from ops.chaos.places import PLACES
from ops.checks import Case
from ops.checks import judge as judge_case
from ops.crash.cells import Cell, Played
from ops.crash.desk import DRAIN_S, LEASE_MS, NOISE_S, Desk

ON_THE_WAY_US = 20_000
#: Where a worker stands still before it has sent, it must not send any more: others have, by then.
SENT_ONCE = {(f"cancel.{step}", "stop") for step in ("take-sent", "take-answered", "connect", "send")}

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
    """Each broken promise is one line, with its number. What every run must keep is in `ops/checks`; here is what only
    a cell can tell."""
    verdict, case = Verdict(played.cell, played.fault_us is not None), played.desk.case(played.fault_us)
    verdict.broken += [str(broken) for broken in judge_case(case)]
    for event in case.told.events:
        if event.final and event.status is not Status.cancelled:
            verdict.broken.append(f"[cell] {event.id}: {event.status} ({event.detail}), of an order that was open")
    _sent_unseen(case, verdict)
    if (played.cell.point, played.cell.fault) in SENT_ONCE and verdict.most_named != 1:
        verdict.broken.append(f"[7] an order was named by {verdict.most_named} calls: its permit was used late")
    _times(played, case, verdict)
    _ends(played, verdict)
    return verdict


def _sent_unseen(case: Case, verdict: Verdict) -> None:
    """Between two calls that named an order there is a look."""
    calls = {call["seq"]: call for call in case.venue.calls}
    looks_us = [call["at_us"] for call in calls.values() if call["endpoint"] in PLACES[case.lane.venue].looks]
    for row in case.venue.orders:
        named = sorted({naming["call"] for naming in row["cancels"]})
        verdict.most_named = max(verdict.most_named, len(named))
        for first, second in itertools.pairwise(calls[seq]["at_us"] for seq in named if seq in calls):
            if not any(first < at_us < second for at_us in looks_us):
                verdict.broken.append(f"[2] order {row['order_id']} was sent twice without a look between")


def _times(played: Played, case: Case, verdict: Verdict) -> None:
    if played.fault_us is None:
        return
    settled = [e.settled_us for e in case.told.events if e.final and e.settled_us and e.settled_us > played.fault_us]
    place = PLACES[case.lane.venue]
    about_orders = {*place.cancels, *place.bulk, *place.looks}
    called = [call["at_us"] for call in case.venue.calls if call["endpoint"] in about_orders]
    # Calls that were on their way already are the victim's.
    after = [at_us for at_us in called if at_us > played.fault_us + ON_THE_WAY_US]
    first = min([*after, *settled], default=None)
    if first is not None:
        verdict.served_ms = (first - played.fault_us) // 1000
    if settled:
        verdict.settled_ms = (max(settled) - played.fault_us) // 1000
    most_ms = LEASE_MS + 1000 + NOISE_S * 1000
    if played.cell.fault == "kill" and (verdict.served_ms or 0) > most_ms:
        verdict.broken.append(f"[11] served {verdict.served_ms} ms after the kill, {most_ms:.0f} are allowed")


def _ends(played: Played, verdict: Verdict) -> None:
    """Whoever was not killed drains in time; nobody says what should never be said."""
    for worker in played.desk.workers:
        expected = -9 if played.cell.fault == "kill" and worker.pid == played.victim else 0
        if worker.code != expected:
            verdict.broken.append(f"[17] worker {worker.pid} ended with {worker.code}, not with {expected}")
    if played.desk.drained_s > DRAIN_S + NOISE_S:
        late = f"{played.desk.drained_s:.1f} s from TERM to the last exit, {DRAIN_S:.0f} are promised"
        verdict.broken.append(f"[17] {late}")
    verdict.broken += never_said(played.desk)


def never_said(desk: Desk) -> list[str]:
    """Lines of the workers' logs that no fault here explains."""
    lines = [line for worker in desk.workers for line in worker.log.read_text(errors="replace").splitlines()]
    return [f"[log] {line[:300]}" for line in lines if _said(line).startswith(_NEVER)]


def _said(line: str) -> str:
    try:
        row = json.loads(line)
    except ValueError:
        return ""
    return str(row.get("event", "")) if isinstance(row, dict) else ""


def worst(verdicts: Sequence[Verdict], name: str) -> int:
    """The largest of a figure."""
    return max((getattr(v, name) or 0 for v in verdicts), default=0)
