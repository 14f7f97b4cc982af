"""What belongs together, joined: entries with their events by id, events with their call by batch.

Everything is set down in files and taken up again in parts, so that memory does not grow with the number of events.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

from cancelq.contract import FINAL, Accepted, Refused, Status
from cancelq_worker.archive.canonical import order_of
from cancelq_worker.audit.finding import Findings, Kind
from cancelq_worker.audit.numbers import LISTED_MOST, Listed, Numbers
from cancelq_worker.audit.rules import Told
from cancelq_worker.audit.spill import Spill

#: Ids of intents that no producer writes: the dead man's switch is an act of the lane itself, and its event names them.
GUARD = "guard-"
_NAMED_BY_GUARD = re.compile(r"guard-[0-9]{1,20}[A-Za-z0-9._:-]*[A-Za-z0-9]")
ASKED, NAMED = "asked", "named"
_LABELS = frozenset(
    ("scope", "symbol", "order_id", "client_order_id", "strategy", "reason", "traceparent", "priority", "origin")
)
_TIMES = ("queued", "taken", "sent", "answered", "settled")
_FINAL = frozenset(status.value for status in FINAL)


@dataclass(slots=True)
class Horizon:
    """What can be judged, in UTC microseconds. Intents queued after `inbox_us` stand in the inbox; of those queued
    after `results_us` every event is there, and of all if `whole`; what is due after `open_us` may still be open. Only
    intents queued from `from_us` to before `to_us` are looked at. `dedup_us`: for how long a settled id is not used
    again."""

    inbox_us: int
    results_us: int
    open_us: int
    whole: bool
    from_us: int
    to_us: int
    dedup_us: int

    def covers(self, queued_us: int) -> bool:
        return self.from_us <= queued_us < self.to_us


@dataclass(frozen=True, slots=True)
class _Record:
    """What is set down of an entry of either stream. `what` is an event's status, `asked`, or `named` where an event of
    the dead man's switch names the intent; `due_us`: of an entry
    that must not be sent earlier, else 0; `times` in the order of `_TIMES`, of a final event only."""

    id: str
    what: str
    queued_us: int
    entry_id: str
    where: str
    attempt: int = 0
    due_us: int = 0
    labels: dict[str, str] = field(default_factory=dict)
    times: list[int | None] = field(default_factory=list)

    @property
    def place(self) -> tuple[int, int]:
        return order_of(self.entry_id)

    @property
    def order(self) -> str:
        return self.labels.get("order_id") or self.labels.get("client_order_id") or self.labels.get("symbol", "")


@dataclass(frozen=True, slots=True)
class _Carried:
    """What is set down of an event about the call that carried it."""

    batch: str
    entry_id: str
    where: str
    id: str
    names: list[str]  # symbol, order id, client id; empty where a call is for a whole pair or account
    endpoint: str | None
    batch_size: int | None
    taken_us: int | None
    sent_us: int | None


@dataclass(slots=True)
class _Moment:
    """Everything of one id that was queued in one moment: entries, final events, duplicates, events on the way."""

    asked: list[_Record] = field(default_factory=list)
    finals: list[_Record] = field(default_factory=list)
    duplicates: list[_Record] = field(default_factory=list)
    way: list[_Record] = field(default_factory=list)


class Books:
    """Set down first, judged once. `folder` is an empty one of its own."""

    def __init__(self, folder: Path, horizon: Horizon, findings: Findings, numbers: Numbers) -> None:
        self._intents = Spill(folder / "intents")
        self._batches = Spill(folder / "batches")
        self._horizon = horizon
        self._findings = findings
        self._numbers = numbers

    # -- setting down ----------------------------------------------------------------------------------------------

    def asked(self, entry: Accepted | Refused) -> None:
        """An entry of the inbox."""
        if self._horizon.covers(entry.queued_us):
            not_before = entry.fields.get("not_before_ms", "") if isinstance(entry, Accepted) else ""
            due_us = int(not_before) * 1000 if not_before.isdigit() else 0
            labels = _labels(entry.fields)
            self._intents.add(
                entry.id, (entry.id, ASKED, entry.queued_us, entry.entry_id, "inbox", 0, due_us, labels, [])
            )

    def acted(self, told: Told, where: str) -> None:
        """An operator's event. Of those of the dead man's switch: the intents it names are asked for by it."""
        at_us = order_of(told.entry_id)[0] * 1000
        if told.fields.get("act") == "guard" and self._horizon.covers(at_us):
            for id_ in _NAMED_BY_GUARD.findall(told.fields.get("detail", "").partition("asked as")[2]):
                self._intents.add(id_, (id_, NAMED, at_us, told.entry_id, where, 0, 0, {}, []))

    def told(self, told: Told, where: str) -> None:
        """An event, which `rules` have looked at; no operator's."""
        queued_us = told.queued_us
        if queued_us is None or not self._horizon.covers(queued_us):
            return
        answers = told.final or told.status is Status.duplicate
        labels = _labels(told.fields) if answers else {}
        times = [told.numbers.get(f"{name}_us") for name in _TIMES] if told.final else []
        head = (told.id, told.status.value, queued_us, told.entry_id, where)
        self._intents.add(told.id, (*head, told.attempt, 0, labels, times))
        batch = told.fields.get("batch_id")
        if batch and told.status is not Status.resolved:
            fields, numbers = told.fields, told.numbers
            whole = fields.get("scope") in ("symbol", "account")
            names = [] if whole else [fields.get(name, "") for name in ("symbol", "order_id", "client_order_id")]
            call = (fields.get("endpoint"), numbers.get("batch_size"), numbers.get("taken_us"), numbers.get("sent_us"))
            self._batches.add(batch, (batch, told.entry_id, where, told.id, names, *call))

    # -- judging ---------------------------------------------------------------------------------------------------

    def judge(self) -> None:
        """Joins everything that was set down; findings and numbers are told where they were asked for."""
        for part in self._intents.parts():
            intents: dict[str, list[_Record]] = defaultdict(list)
            for words in part:
                intents[words[0]].append(_Record(*words))
            for id_, records in intents.items():
                self._judge_id(id_, records)
        for part in self._batches.parts():
            calls: dict[str, list[_Carried]] = defaultdict(list)
            for words in part:
                calls[words[0]].append(_Carried(*words))
            for batch, carried in calls.items():
                self._judge_batch(batch, carried)

    def _judge_id(self, id_: str, records: list[_Record]) -> None:
        moments: dict[int, _Moment] = defaultdict(_Moment)
        named = [record for record in records if record.what == NAMED]
        records = [record for record in records if record.what != NAMED]
        for record in records:
            if record.what == Status.resolved:
                continue
            moment = moments[record.queued_us]
            if record.what == ASKED:
                moment.asked.append(record)
            elif record.what == Status.duplicate:
                moment.duplicates.append(record)
            elif record.what in _FINAL:
                moment.finals.append(record)
            else:
                moment.way.append(record)
        for moment in moments.values():
            self._judge_answers(id_, moment, named)
            self._judge_course(moment)
        if named and not any(moment.finals for moment in moments.values()):
            self._unanswered(named[-1], 1)
        finals = sorted((m.finals[0] for m in moments.values() if m.finals), key=lambda final: final.place)
        self._judge_repeats(finals)
        was_unresolved = any(final.what == Status.unresolved for final in finals)
        for record in records:
            known = bool(finals) or self._horizon.whole
            if record.what == Status.resolved and known and not was_unresolved:
                self._wrong(record, "resolved, but it never was unresolved")

    def _judge_answers(self, id_: str, moment: _Moment, named: list[_Record]) -> None:
        """Each entry has exactly one answer, and each answer an entry."""
        told = [*moment.finals, *moment.duplicates]
        for final in moment.finals[1:]:
            first = moment.finals[0]
            self._wrong(final, f"a second final event ({final.what}); the first is {first.entry_id} ({first.what})")
        if not moment.asked:
            self._unasked(id_, (*told, *moment.way)[0], named)
            return
        self._numbers.intents += len(moment.asked)
        lacking = len(moment.asked) - len(told)
        if lacking > 0:
            self._unanswered(moment.asked[-1], lacking)
        elif lacking < 0 and len(moment.finals) < 2:
            self._wrong(told[-1], f"{len(moment.asked)} entries have {len(told)} answers")
        elif not lacking:
            self._numbers.proven += len(moment.asked)
        for answer in told:
            if problem := _other_labels(answer.labels, moment.asked):
                self._wrong(answer, problem)

    def _unasked(self, id_: str, record: _Record, named: list[_Record]) -> None:
        if named:
            self._numbers.guards += 1
        elif id_.startswith(GUARD) and not self._horizon.whole and record.queued_us <= self._horizon.results_us:
            self._numbers.guards += 1  # the event that named it is trimmed
        elif id_.startswith(GUARD):
            self._wrong(record, "nobody asked for it: no event of the dead man's switch names it")
        elif record.queued_us > self._horizon.inbox_us:
            self._wrong(record, "nobody asked for it: no entry of the inbox has this id and time")
        else:
            self._numbers.before_inbox += 1

    def _unanswered(self, asked: _Record, lacking: int) -> None:
        if max(asked.queued_us, asked.due_us) > self._horizon.open_us:
            self._numbers.open_count += lacking
            if len(self._numbers.open) < LISTED_MOST:
                detail = "timed" if asked.due_us else ""
                self._numbers.open.append(Listed(asked.id, asked.entry_id, asked.order, detail))
        elif asked.queued_us <= self._horizon.results_us and not self._horizon.whole:
            self._numbers.beyond_results += lacking
        else:
            self._wrong(asked, "it has no final event")

    def _judge_course(self, moment: _Moment) -> None:
        """Nothing comes after the end, and attempts do not fall."""
        end = moment.finals[0] if moment.finals else None
        attempts = 0
        for record in sorted([*moment.way, *moment.finals[:1]], key=lambda record: record.place):
            if end and record.place > end.place:
                self._wrong(record, f"{record.what} after its final event {end.entry_id}")
                continue
            if record.attempt < attempts:
                self._wrong(record, f"its attempt is {record.attempt}, after {attempts} before")
            attempts = max(attempts, record.attempt)
        if end and end.attempt:
            times = {name: at for name, at in zip(_TIMES, end.times, strict=True) if at is not None}
            due_us = moment.asked[0].due_us if moment.asked else 0
            self._numbers.took(times, due_us, end.labels.get("scope", "order"), end.labels.get("priority", "normal"))

    def _judge_repeats(self, finals: list[_Record]) -> None:
        """An id that was settled is not settled again as long as it is remembered."""
        for one, other in pairwise(finals):
            gap_us = (other.times[-1] or 0) - (one.times[-1] or 0)
            if gap_us < self._horizon.dedup_us:
                self._wrong(
                    other, f"a second final event of this id, which is not forgotten yet; the first is {one.entry_id}"
                )

    def _judge_batch(self, batch: str, carried: list[_Carried]) -> None:
        """All events of one call tell the same of it, and no more orders than it had."""
        first = carried[0]
        for name in ("endpoint", "batch_size", "taken_us", "sent_us"):
            told = [(one, value) for one in carried if (value := getattr(one, name)) is not None]
            odd = next(((one, value) for one, value in told if value != told[0][1]), None)
            if odd:
                said = f"{name} is {odd[1]}, at {told[0][0].entry_id} it is {told[0][1]}"
                self._wrong_call(odd[0], f"batch {batch}: {said}")
        orders = _count_orders(one.names for one in carried)
        if first.batch_size is not None and orders > first.batch_size:
            self._wrong_call(carried[-1], f"batch {batch}: {orders} orders in a call of {first.batch_size}")
        at_us = next((at for one in carried for at in (one.sent_us, one.taken_us) if at), None)
        if at_us:
            self._numbers.call(at_us)

    def _wrong(self, record: _Record, problem: str) -> None:
        self._findings.add(Kind.intent, record.where, problem, entry_id=record.entry_id, id_=record.id)

    def _wrong_call(self, carried: _Carried, problem: str) -> None:
        self._findings.add(Kind.batch, carried.where, problem, entry_id=carried.entry_id, id_=carried.id)


def _labels(fields: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in fields.items() if name in _LABELS or name.startswith("x_")}


def _other_labels(told: Mapping[str, str], asked: list[_Record]) -> str:
    """What an answer says otherwise than the entry it answers; of several at one moment it may answer any."""
    odd = ""
    for record in asked:
        odd = next((name for name, value in record.labels.items() if told.get(name) != value), "")
        if not odd:
            return ""
    return f"its {odd} is {told.get(odd, 'missing')[:64]!r}, asked was {asked[-1].labels[odd][:64]!r}"


def _count_orders(named: Iterable[list[str]]) -> int:
    """How many orders some events name; an order goes by its id or its client id, and some events have both."""
    seen: set[tuple[str, ...]] = set()
    count = 0
    for names in named:
        symbol, order_id, client_id = names or ("", "", "")
        keys: set[tuple[str, ...]] = {("id", order_id)} if order_id else set()
        if client_id:
            keys.add(("client", symbol, client_id))
        if keys and seen.isdisjoint(keys):
            count += 1
        seen |= keys
    return count
