"""How a trace looks: a timeline for people, a JSON object a step for programs. No I/O.

What entries hold was written by anybody: whatever could move a terminal's cursor is shown as a mark.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from itertools import groupby
from typing import Any

from rich.console import Console, RenderableType
from rich.table import Table
from rich.text import Text

from cancelq.contract import Event, Lane, Status
from cancelq_worker.cli import showing
from cancelq_worker.steps import Asked, Call, Kind, Step, Unreadable, Waiting

# From this width on every line holds the whole date.
WIDE = 120
# Wide enough for any line where there is no terminal: one step is one line then.
OFF_TERMINAL = 100_000
# Of a raw entry, what is shown to people; JSON has the rest.
_VALUE_MOST = 120
_FIELDS_MOST = 30
_COLOUR_OPEN = "cyan"


def as_json(step: Step) -> str:
    """One line. Always: `step`, `at_us`, `lane`, `id`, `found_by`; where known: `at`, `elapsed_us`, `entry_id`; and
    one of `intent` (with `refused`), `call`, `event`, `open`, `unreadable`."""
    told: dict[str, Any] = {
        "step": step.kind.value,
        "at_us": step.at_us,
        "at": f"{utc[:10]}T{utc[11:]}Z" if (utc := showing.moment(step.at_us)) else None,
        "elapsed_us": _elapsed_us(step),
        "lane": str(step.lane),
        "id": step.id,
        "found_by": step.found_by,
        "entry_id": step.entry_id,
    }
    match step.told:
        case Asked(fields, refused):
            told |= {"intent": _object(fields), "refused": refused or None}
        case Call() as call:
            told["call"] = _known(asdict(call))
        case Event() as event:
            told["event"] = showing.as_object(event)
        case Waiting() as waiting:
            told["open"] = _known(asdict(waiting))
        case Unreadable(detail, fields):
            told["unreadable"] = {"detail": detail, "fields": _object(fields)}
        case None:
            pass
    return showing.dumps(_known(told))


def timeline(steps: Sequence[Step], console: Console) -> Iterator[RenderableType]:
    """What to print: the intents, then every step in order. `steps` are sorted; there is at least one."""
    lives = _lives(steps)
    tagged = len(lives) > 1
    yield _summary(list(lives.values()), tagged=tagged)
    yield ""
    yield _table(steps, lives, tagged=tagged, wide=console.width >= WIDE)


@dataclass(slots=True)
class _Life:
    """What the steps of one intent come to."""

    lane: Lane
    id: str
    tag: str
    found_by: str
    fields: dict[str, str] = field(default_factory=dict)
    became: str = "no outcome"
    ended: bool = False
    colour: str | None = None

    def add(self, step: Step) -> None:
        match step.told:
            case Asked() as asked:
                # The first entry is the intent, what comes under its id later repeats it.
                self.fields = self.fields or asked.named
            case Event() as event:
                self.fields = self.fields or event.model_dump(exclude_none=True, exclude={"extras"})
                if event.status is Status.operator:
                    self.became = ""
                elif event.final:
                    elapsed, self.ended = _elapsed_us(step), True
                    self.became = event.status + (f" after {_span(elapsed)}" if elapsed is not None else "")
                    self.colour = showing.colour_of(event.status)
            case Waiting("not admitted") if self.ended:
                self.became += "; asked again, not admitted yet"
            case Waiting(where) as waiting:
                stage = f", to be {_STAGES[waiting.stage]}" if waiting.stage and where == "queued" else ""
                self.became = f"open: {where}{stage}" if where != "gone" else "no outcome among the results read"
                self.colour = _COLOUR_OPEN
            case Unreadable(_, fields) if dict(fields).get("final") == "1":
                self.became = "ended, in words this version cannot read"
            case _:
                pass

    @property
    def what(self) -> str:
        """What it is about, in a few words."""
        fields = self.fields
        if fields.get("status") == Status.operator:
            return "an operator's act"
        scope = fields.get("scope", "order")
        words = [f"revokes {fields['target']}"] if scope == "revoke" and "target" in fields else [scope]
        words += [fields[name] for name in ("symbol", "order_id") if name in fields]
        if "client_order_id" in fields:
            words.append(f"client id {fields['client_order_id']}")
        if "origin" in fields:
            words.append(f"(stands for {fields['origin']})")
        return " ".join(words)


_STAGES = {"cancel": "sent", "look": "confirmed"}


def _lives(steps: Sequence[Step]) -> dict[tuple[Lane, str], _Life]:
    lives: dict[tuple[Lane, str], _Life] = {}
    for step in steps:
        key = (step.lane, step.id)
        if key not in lives:
            lives[key] = _Life(step.lane, step.id, _tag(len(lives)), step.found_by)
        lives[key].add(step)
    return lives


def _tag(number: int) -> str:
    """A, B, … Z, AA, AB, …"""
    letters = ""
    while number >= 0:
        number, letter = divmod(number, 26)
        letters, number = chr(ord("A") + letter) + letters, number - 1
    return letters


def _summary(lives: Sequence[_Life], *, tagged: bool) -> Table:
    table = Table.grid(padding=(0, 2))
    for _ in range(3 + tagged):
        table.add_column(overflow="fold")
    for life in lives:
        cells = [*([Text(life.tag, "bold")] if tagged else []), _plain(f"{life.lane}  {life.id}", "bold")]
        table.add_row(*cells, _plain(life.what), _plain(life.became, life.colour or ""))
    return table


def _table(steps: Sequence[Step], lives: dict[tuple[Lane, str], _Life], *, tagged: bool, wide: bool) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    if tagged:
        table.add_column("", no_wrap=True)
    table.add_column("time (UTC)", no_wrap=True)
    table.add_column("elapsed", justify="right", no_wrap=True)
    table.add_column("step", no_wrap=True)
    table.add_column("what is known", overflow="fold")
    for date, of_date in groupby(steps, lambda step: moment(step.at_us).partition(" ")[0]):
        if not wide:
            table.add_row(*([""] if tagged else []), Text(date, "dim"))
        for step in of_date:
            time = moment(step.at_us)
            elapsed = _elapsed_us(step)
            table.add_row(
                *([lives[step.lane, step.id].tag] if tagged else []),
                time if wide else time.partition(" ")[2],
                "" if elapsed is None or step.kind is Kind.queued else _span(elapsed),
                _word(step),
                _plain("; ".join(part for part in _parts(step) if part)),
            )
    return table


def _word(step: Step) -> Text:
    match step.told:
        case Event(status=status, final=final):
            word = status.value if final or status is Status.operator else f"({status})"
            return Text(word, showing.colour_of(status) or "")
        case Waiting():
            return Text(step.kind.value, _COLOUR_OPEN)
        case _:
            return Text(step.kind.value)


def _parts(step: Step) -> Iterator[str]:
    match step.told:
        case Asked(fields, refused):
            yield _listed([(name, value) for name, value in fields if name != "id"])
            yield f"entry {step.entry_id}" if step.entry_id not in (None, step.id) else ""
            yield f"unusable: {refused}" if refused else ""
        case Call() as call:
            yield from _of_call(step.kind, call)
        case Event() as event:
            yield from _of_event(event)
        case Waiting() as waiting:
            yield from _of_waiting(waiting)
        case Unreadable(detail, fields):
            yield f"entry {step.entry_id} is no event this version can read: {detail}"
            yield _listed(fields)
        case None:
            yield "its entry is not among those that were read"


def _of_call(kind: Kind, call: Call) -> Iterator[str]:
    if kind is Kind.taken:
        yield call.endpoint or ""
        yield f"batch {call.batch_id} of {call.batch_size}" if call.batch_id else ""
        yield f"attempt {call.attempt}" if call.attempt else ""
    elif kind is Kind.answered:
        yield f"code {call.code}" if call.code else ""
        yield f"HTTP {call.http_status}" if call.http_status else ""


def _of_event(event: Event) -> Iterator[str]:
    yield f"{event.act} by {event.actor}" if event.act else ""
    yield f"outcome {event.outcome}" if event.outcome else ""
    yield event.detail or ""
    yield f"filled {event.filled}" if event.filled and event.filled != "0" else ""
    yield f"{event.open_orders} still open" if event.open_orders else ""
    yield f"became order {event.child_order_id}" if event.child_order_id else ""
    yield f"venue's state {event.venue_state}" if event.venue_state else ""
    yield f"code {event.code}" if event.code else ""
    yield f"HTTP {event.http_status}" if event.http_status else ""
    yield f"evidence {event.evidence}" if event.evidence else ""
    yield f"look-ups {event.lookups}" if event.lookups else ""
    yield f"stands for {event.origin}" if event.origin else ""
    yield f"by {event.worker}" if event.worker else ""


def _of_waiting(waiting: Waiting) -> Iterator[str]:
    yield waiting.where if waiting.where != "gone" else ""
    yield waiting.detail or ""
    if waiting.queue is not None:
        yield f"place {waiting.position} of {waiting.queue_length} in queue {waiting.queue}" if waiting.position else ""
        yield f"not before {moment(waiting.not_before_ms * 1000)}" if waiting.not_before_ms else ""
        yield f"not taken for {_span(waiting.due_in_us)} more" if waiting.due_in_us else ""
        yield f"expires {moment(waiting.expires_at_ms * 1000)}" if waiting.expires_at_ms else ""
        yield f"attempts {waiting.attempts}, look-ups {waiting.lookups}"
        yield f"leases that ended {waiting.strikes}" if waiting.strikes else ""
    yield f"held: {', '.join(waiting.holds)}" if waiting.holds else ""
    if waiting.where != "gone":
        yield f"served by {', '.join(waiting.workers)}" if waiting.workers else "no live worker"


def _listed(fields: Sequence[tuple[str, str]]) -> str:
    shown = [f"{_cut(name)} {_cut(value)}" for name, value in fields[:_FIELDS_MOST]]
    more = [f"{len(fields) - _FIELDS_MOST} more fields"] if len(fields) > _FIELDS_MOST else []
    return ", ".join(shown + more)


def _cut(text: str) -> str:
    return text if len(text) <= _VALUE_MOST else f"{text[:_VALUE_MOST]}…"


def _plain(text: str, style: str = "") -> Text:
    return Text(showing.printable(text), style)


def moment(us: int) -> str:
    """A time in UTC; a number that is no time of ours stays one."""
    return showing.moment(us) or f"{us} µs"


def _elapsed_us(step: Step) -> int | None:
    return None if step.queued_us is None else step.at_us - step.queued_us


def _span(us: int) -> str:
    sign, us = ("-" if us < 0 else ""), abs(us)
    return sign + (f"{us / 1000:.1f} ms" if us < 1_000_000 else showing.duration(us / 1000))


def _object(fields: Sequence[tuple[str, str]]) -> dict[str, str | list[str]]:
    """Fields by name; one that was given more than once has the list of its values."""
    values: dict[str, list[str]] = {}
    for name, value in fields:
        values.setdefault(name, []).append(value)
    return {name: given if len(given) > 1 else given[0] for name, given in values.items()}


def _known(fields: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if value is not None}
