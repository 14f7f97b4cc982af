"""What `cancelq top` tells of the lanes: from snapshots and outcomes to rows, trouble first. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import IntEnum

from cancelq.contract import Lane
from cancelq_worker.cli import showing
from cancelq_worker.flow import GROUPS, Flow, FlowNumbers, together
from cancelq_worker.guard_status import GuardStatus
from cancelq_worker.snapshot import AddressStatus, LaneStatus, Refusals, ServerStatus

#: A refusal is the lane's state for so long, and a note for an hour.
JUST_NOW_MS = 60_000
UNATTENDED = "cancels wait and no live worker has this account: start one that does"

NOTHING = FlowNumbers(dict.fromkeys(GROUPS, 0.0), {}, None, None)


class Level(IntEnum):
    """How much something wants to be seen."""

    calm = 0
    notice = 1
    trouble = 2


@dataclass(frozen=True, slots=True)
class Note:
    """One thing to know of a lane: a word for it, where it is the lane's state, and a line that says what it is and
    what to do."""

    level: Level
    word: str
    text: str


@dataclass(frozen=True, slots=True)
class Row:
    """One lane. `status` is None where no worker has ever served it, or the server refuses to look at it (`broken`),
    `guard` where that was not looked at; `notes` begin with the gravest."""

    lane: Lane
    status: LaneStatus | None
    flow: FlowNumbers = NOTHING
    notes: tuple[Note, ...] = ()
    guard: GuardStatus | None = None
    broken: str = ""

    @property
    def level(self) -> Level:
        return self.notes[0].level if self.notes else Level.calm

    @property
    def word(self) -> str:
        """The lane's state in a word or two."""
        for note in self.notes:
            if note.word:
                return note.word
        status = self.status
        waits = status and (status.queued or status.not_admitted or status.in_flight or status.confirming)
        return "busy" if waits or any(self.flow.per_s.values()) else "idle"

    @property
    def queued(self) -> int:
        """Waiting to be sent, those among them that no worker has read yet."""
        return self.status.queued + self.status.not_admitted if self.status else 0

    @property
    def queued_more(self) -> bool:
        return self.status is not None and self.status.not_admitted_more

    @property
    def oldest_ms(self) -> int | None:
        """Age of the longest waiting unsent intent, read by a worker or not."""
        return self.status.waits_ms if self.status else None

    @property
    def busiest(self) -> tuple[str, int, int] | None:
        """The bucket of which the largest share is in use: name, units in use, limit; None if nothing is in use."""
        budget = self.status.budget if self.status else {}
        used = [(units / limit, name, units, limit) for name, (units, limit) in budget.items() if units and limit]
        return max(used)[1:] if used else None


@dataclass(frozen=True, slots=True)
class Totals:
    """All lanes as one."""

    lanes: int
    troubled: int
    queued: int
    queued_more: bool
    in_flight: int
    confirming: int
    flow: FlowNumbers


@dataclass(frozen=True, slots=True)
class View:
    """One refresh. `away`: why the server cannot be reached now, and since how many seconds; what is shown then was
    true before. `suspended`: by RQ; `rehearsing`: dry-run workers that live."""

    server: ServerStatus
    rows: tuple[Row, ...]
    totals: Totals
    addresses: tuple[AddressStatus, ...] = ()
    suspended: bool | None = None
    rehearsing: tuple[str, ...] = ()
    away: tuple[str, float] | None = field(default=None)


def compose(
    server: ServerStatus,
    lanes: Sequence[Lane],
    states: Mapping[Lane, LaneStatus],
    flows: Mapping[Lane, Flow],
    addresses: Sequence[AddressStatus] = (),
    *,
    suspended: bool | None = None,
    guards: Mapping[Lane, GuardStatus] | None = None,
    rehearsing: Sequence[str] = (),
    broken: Mapping[Lane, str] | None = None,
) -> View:
    """The view of these lanes, each of which has a flow if it has a state."""
    numbers = {lane: flows[lane].numbers() for lane in states}
    rows = []
    for lane in lanes:
        status, flow, guard = states.get(lane), numbers.get(lane, NOTHING), (guards or {}).get(lane)
        why = (broken or {}).get(lane, "")
        rows.append(Row(lane, status, flow, notes(status, flow, guard, why), guard, why))
    totals = Totals(
        lanes=len(rows),
        troubled=sum(row.level is Level.trouble for row in rows),
        queued=sum(row.queued for row in rows),
        queued_more=any(row.queued_more for row in rows),
        in_flight=sum(state.in_flight for state in states.values()),
        confirming=sum(state.confirming for state in states.values()),
        flow=together([flows[lane] for lane in numbers], list(numbers.values())),
    )
    ordered = sorted(addresses, key=lambda a: (-a.held_ms, -a.share, a.egress, a.bucket))
    return View(server, tuple(sorted(rows, key=_urgency)), totals, tuple(ordered), suspended, tuple(rehearsing))


def _urgency(row: Row) -> tuple[int, int, str]:
    return -row.level, -(row.oldest_ms or 0), str(row.lane)


def notes(
    status: LaneStatus | None, flow: FlowNumbers, guard: GuardStatus | None = None, why: str = ""
) -> tuple[Note, ...]:
    """What is to be told of a lane, the gravest first. `why` it cannot be looked at."""
    if why:
        return (Note(Level.trouble, "broken", unreadable(why)),)
    if status is None:
        return (Note(Level.trouble, "not served", "no worker has ever served it: start one with this account"),)
    found = []
    if not status.workers:
        found.append(Note(Level.trouble, "no worker", "no worker that has this account is alive: start one"))
    elif status.unattended:
        found.append(Note(Level.trouble, "no worker", UNATTENDED))
    found += [_hold(status.lane, *hold) for hold in status.holds]
    if flow.unresolved:
        said = f"{len(flow.unresolved)} unresolved, a person must look: cancelq trace {flow.unresolved[-1]}"
        found.append(Note(Level.trouble, "unresolved", said))
    if guard and guard.text:
        found.append(Note(Level.trouble, "guard", guard.text) if guard.trouble else Note(Level.calm, "", guard.text))
    for bucket, refusals in status.refusals.items():
        if refusals.lately:
            word = "refused" if refusals.age_ms < JUST_NOW_MS else ""
            found.append(Note(Level.notice, word, refused(bucket, refusals)))
    return tuple(sorted(found, key=lambda note: -note.level))


def unreadable(why: str) -> str:
    """What to ask where the server refuses to look at a lane."""
    return f"cannot be looked at: {showing.printable(why)[:150]} (is a key of it of another type? cancels may wait)"


def refused(bucket: str, refusals: Refusals) -> str:
    """What to ask when the venue refuses calls that are within its limit as far as the fleet knows."""
    times = "once" if refusals.count == 1 else f"{refusals.count} times"
    return f"{bucket} refused {times} lately ({age(refusals.age_ms)} ago): does somebody else use this key?"


def age(ms: int) -> str:
    """How long ago something was, without what nobody reads of it."""
    return f"{ms // 1000} s" if ms < 120_000 else showing.duration(ms)


def _hold(lane: Lane, scope: str, reason: str, until: str) -> Note:
    said = until.removeprefix("until resumed").removeprefix(": ")
    if reason == "paused":
        return Note(Level.notice, "paused", f"{said or 'paused'}; normal cancels wait for: cancelq resume {lane}")
    if reason == "auth":
        return Note(Level.trouble, "bad key", f"closed: {said}")
    return Note(Level.trouble, "held", f"{'closed' if scope == '*' else f'{scope} closed'} ({reason}): {said}")
