"""The steps of an intent's life, as the entries and the state that tell them have it. No I/O.

An inbox entry tells that something was asked, an event what became of it and when the call that carried it was
taken, sent and answered, the state what is still to come. `cancelq trace` puts them in order.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from cancelq.contract import MAX_ENTRY_BYTES, MAX_ENTRY_FIELDS, Event, Lane, Refused, Status, read_entry
from cancelq.errors import EventError
from cancelq_worker.state import NONE, State

# One field more is kept of an entry than any that is accepted can have.
_FIELDS_KEPT = MAX_ENTRY_FIELDS + 1
# What admission adds to the fields of an entry, or did in earlier versions.
_ADDED = frozenset({"venue", "account", "queued_us", "explicit"})


class Kind(StrEnum):
    """What a step is. The words are those of `cancelq trace --json`; steps of one moment come in this order."""

    queued = "queued"
    taken = "taken"
    sent = "sent"
    answered = "answered"
    event = "event"
    unreadable = "unreadable"
    open = "open"


@dataclass(frozen=True, slots=True)
class Asked:
    """An inbox entry, raw. `fields` are names and values in the order of the entry, repeated ones too, values over
    4 KiB cut; bytes that are no UTF-8 are shown escaped. `refused` says why no worker will act on it, else empty."""

    fields: tuple[tuple[str, str], ...]
    refused: str = ""

    @property
    def named(self) -> dict[str, str]:
        return dict(self.fields)


@dataclass(frozen=True, slots=True)
class Call:
    """The cancel call that carried an attempt; None where it is not told.

    While the intent is open, `endpoint` is the name of a route instead of a path, and `code` and `http_status` are
    those of the answer; afterwards only events tell them, which may mean a later call.
    """

    endpoint: str | None
    batch_id: str | None
    batch_size: int | None
    attempt: int | None
    code: str | None = None
    http_status: int | None = None


@dataclass(frozen=True, slots=True)
class Waiting:
    """What an intent without an outcome waits for.

    where         `not admitted`: no worker has read it yet; `timed`: until `not_before_ms`; `queued`; `in hand`: a
                  worker holds it; `revocation`: waits to withdraw another; `unreadable`: its state cannot be read;
                  `gone`: neither open nor ended by the results that were read
    stage         `cancel` or `look`
    position      its place in `queue`, from 1, of `queue_length`
    due_in_us     until it may be taken; 0 if it may be
    holds         what closes the lane or a limit just now; `workers`: who serves the lane, none if nobody lives
    """

    where: str
    stage: str | None = None
    priority: str | None = None
    attempts: int | None = None
    lookups: int | None = None
    strikes: int | None = None
    queue: str | None = None
    position: int | None = None
    queue_length: int | None = None
    due_in_us: int | None = None
    not_before_ms: int | None = None
    expires_at_ms: int | None = None
    detail: str | None = None
    holds: list[str] = field(default_factory=list)
    workers: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Open:
    """An intent without an outcome: what it waits for, and what the lane keeps of it (None, empty: nothing)."""

    waiting: Waiting
    state: State | None = None
    record: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Unreadable:
    """A results entry that is no event this version can read, and why."""

    detail: str
    fields: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Step:
    """One step. `at_us` and `queued_us` are UTC epoch microseconds, `queued_us` of the entry it goes back to.

    `found_by` is the field by which its intent came into the trace. A step `queued` without an `entry_id` is told by
    others, as its entry was not found: by what the lane keeps of an open intent, or (`told` is None) by an event.
    """

    lane: Lane
    id: str
    kind: Kind
    at_us: int
    queued_us: int | None
    found_by: str
    told: Asked | Call | Event | Waiting | Unreadable | None
    entry_id: str | None = None

    @property
    def order(self) -> tuple[int, int, str, str]:
        """Steps sorted by this tell the story."""
        return (self.at_us, _RANK[self.kind], str(self.lane), self.id)


_RANK = {kind: rank for rank, kind in enumerate(Kind)}


@dataclass(frozen=True, slots=True)
class Entry:
    """An entry of either stream: whose it is, and its fields by name, to look for other names in."""

    entry_id: str
    id: str
    fields: Mapping[str, str]
    queued_us: int | None
    told: Asked | Event | Unreadable

    @property
    def final(self) -> bool:
        """Of a results entry: its intent ended with it, also if this version cannot read how."""
        return self.fields.get("final") == "1"

    @property
    def is_act(self) -> bool:
        """An operator's act, which is no intent."""
        return self.fields.get("status") == Status.operator


def read_asked(entry_id: str, flat: Sequence[bytes]) -> Entry:
    """An inbox entry, under the id its events have. Never raises."""
    read = read_entry(entry_id, flat)
    asked = Asked(_raw(flat), read.detail if isinstance(read, Refused) else "")
    return Entry(entry_id, read.id, asked.named, read.queued_us, asked)


def read_told(entry_id: str, flat: Sequence[bytes]) -> Entry:
    """A results entry, event or not. Never raises."""
    raw = _raw(flat)
    fields = dict(raw)
    told: Event | Unreadable
    try:
        told = Event.read(entry_id, dict(zip(flat[::2], flat[1::2], strict=False)))
    except EventError as error:
        told = Unreadable(error.detail, raw)
        return Entry(entry_id, fields.get("id", ""), fields, None, told)
    return Entry(entry_id, told.id, fields, told.queued_us, told)


def steps_of(
    lane: Lane,
    asked: Sequence[Entry],
    told: Sequence[Entry],
    still_open: Mapping[str, Open],
    found_by: Mapping[str, str],
    now_us: int,
) -> list[Step]:
    """Every step of one lane, in order. `still_open` and `found_by` are by intent.

    What several events repeat, that one call was taken, sent and answered, is one step each.
    """
    line = _Line(lane, found_by)
    for entry in asked:
        line.queued(entry)
    for entry in told:
        line.told(entry)
    for id_, what in still_open.items():
        line.open(id_, what, now_us)
    return sorted(line.steps, key=lambda step: step.order)


class _Line:
    def __init__(self, lane: Lane, found_by: Mapping[str, str]) -> None:
        self._lane = lane
        self._found_by = found_by
        self._seen: set[tuple[object, ...]] = set()
        self.steps: list[Step] = []

    def queued(self, entry: Entry) -> None:
        self._seen.add((entry.id, Kind.queued, entry.queued_us))
        self._add(entry.id, Kind.queued, entry.queued_us or 0, entry.queued_us, entry.told, entry.entry_id)

    def told(self, entry: Entry) -> None:
        event, entry_us = entry.told, int(entry.entry_id.partition("-")[0]) * 1000
        if not isinstance(event, Event):
            self._add(entry.id, Kind.unreadable, entry_us, None, event, entry.entry_id)
            return
        self._once_queued(event.id, event.queued_us)
        if not entry.is_act:
            call = Call(event.endpoint, event.batch_id, event.batch_size, event.attempt)
            self._call(event.id, call, event.queued_us, (event.taken_us, event.sent_us, event.answered_us))
        at_us = entry_us if event.settled_us is None else event.settled_us
        self._add(event.id, Kind.event, at_us, event.queued_us, event, entry.entry_id)

    def open(self, id_: str, what: Open, now_us: int) -> None:
        text, state = what.record.get("queued_us", ""), what.state
        queued_us = int(text) if text.isdecimal() else None
        fields = tuple((name, value) for name, value in what.record.items() if name not in _ADDED)
        self._once_queued(id_, queued_us, Asked(fields) if fields else None)
        if state and state.batch_id != NONE:
            told = state.notes.get("call", {})
            # A worker that did not live to tell leaves the times of the call before.
            call = told if isinstance(told, dict) and told.get("b") == state.batch_id else {}
            times = (state.taken_us, *(at if isinstance(at := call.get(key), int) else None for key in ("s", "a")))
            code, http_status = str(call.get("code") or "") or None, int(call.get("http") or 0) or None
            carried = Call(state.route, state.batch_id, state.size, state.attempts, code, http_status)
            self._call(id_, carried, queued_us, times)
        self._add(id_, Kind.open, now_us, queued_us, what.waiting, None)

    def _once_queued(self, id_: str, queued_us: int | None, told: Asked | None = None) -> None:
        """What an entry led to tells when it was queued, also if the entry itself was not found."""
        if queued_us is not None and self._new(id_, Kind.queued, queued_us):
            self._add(id_, Kind.queued, queued_us, queued_us, told, None)

    def _call(self, id_: str, call: Call, queued_us: int | None, times: Sequence[int | None]) -> None:
        for kind, at_us in zip((Kind.taken, Kind.sent, Kind.answered), times, strict=True):
            if at_us is not None and self._new(id_, kind, call.batch_id, call.attempt):
                self._add(id_, kind, at_us, queued_us, call, None)

    def _new(self, *what: object) -> bool:
        if what in self._seen:
            return False
        self._seen.add(what)
        return True

    def _add(
        self,
        id_: str,
        kind: Kind,
        at_us: int,
        queued_us: int | None,
        told: Asked | Call | Event | Waiting | Unreadable | None,
        entry_id: str | None,
    ) -> None:
        found_by = self._found_by.get(id_, "id")
        self.steps.append(Step(self._lane, id_, kind, at_us, queued_us, found_by, told, entry_id))


def _raw(flat: Sequence[bytes]) -> tuple[tuple[str, str], ...]:
    return tuple(_pairs(flat[: 2 * _FIELDS_KEPT]))


def _pairs(flat: Sequence[bytes]) -> Iterator[tuple[str, str]]:
    for name, value in zip(flat[::2], flat[1::2], strict=False):
        yield _text(name), _text(value)


def _text(raw: bytes) -> str:
    text = raw[:MAX_ENTRY_BYTES].decode(errors="backslashreplace")
    return text if len(raw) <= MAX_ENTRY_BYTES else f"{text}… ({len(raw)} bytes)"
