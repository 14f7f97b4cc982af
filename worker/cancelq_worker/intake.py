"""ADMIT, the reading half: what an inbox entry becomes, before the ledger writes it once."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence

from cancelq.contract import Accepted, Lane, Refused, Status, read_entry
from cancelq_worker import events
from cancelq_worker.ledger import memory_key
from cancelq_worker.records import Admission, NewIntent, NewOutcome, Overtaking
from cancelq_worker.state import LOCAL, NONE, State
from cancelq_worker.trips import RawEntry
from cancelq_worker.venues.port import Unfit, Venue

_ENTRY_ID = re.compile(r"[0-9]{1,19}-[0-9]{1,19}")


class Intake:
    """Turns raw entries of one lane into intents, or into the `rejected` event that names the field."""

    def __init__(self, lane: Lane, venue: Venue, worker: str) -> None:
        self._lane = lane
        self._venue = venue
        self._worker = worker

    def prepare(self, cursor: str, entries: Sequence[RawEntry], overtaken: Collection[str] = ()) -> Admission:
        """What the ledger shall apply if its cursor still stands at `cursor`. `overtaken`: entries that were admitted
        ahead."""
        last = entry_order(entries[-1][0])
        items = [self._read(entry_id, flat) for entry_id, flat in entries if entry_id not in overtaken]
        passed = [entry_id for entry_id in overtaken if entry_order(entry_id) <= last]
        return Admission(cursor, entries[0][0], entries[-1][0], items, passed)

    def overtake(self, entries: Sequence[RawEntry]) -> Overtaking:
        """What the ledger shall apply of some urgent entries. A revocation keeps its turn: it must come after what it
        withdraws."""
        read = [(entry_id, self._read(entry_id, flat)) for entry_id, flat in entries]
        fit = [(id_, item) for id_, item in read if not (isinstance(item, NewIntent) and item.state.queue == LOCAL)]
        return Overtaking([id_ for id_, _ in fit], [item for _, item in fit])

    def _read(self, entry_id: str, flat: list[bytes]) -> NewIntent | NewOutcome:
        entry = read_entry(entry_id, flat)
        if isinstance(entry, Refused):
            return self._rejected(entry, entry.detail)
        if entry.fields["scope"] == "revoke":
            return self._revocation(entry)
        plan = self._venue.admit(entry.fields)
        if isinstance(plan, Unfit):
            return self._rejected(entry, plan.detail)
        state = State(
            stage=plan.start,
            urgent=entry.fields.get("priority") == "urgent",
            # 0 stands for none from here on: what expired with the epoch expired a moment later.
            expires_ms=max(1, int(entry.fields["expires_at_ms"])) if "expires_at_ms" in entry.fields else 0,
            cancel_class=plan.cancel_class,
            look_class=plan.look_class,
            digest=entry.digest,
            orders=plan.orders,
            notes=plan.notes,
        )
        due_ms = int(entry.fields.get("not_before_ms", 0))
        return NewIntent(entry.id, _named_by(entry), entry.digest, self._record(entry), state, due_ms)

    def _revocation(self, entry: Accepted) -> NewIntent:
        target = entry.fields["target"]
        # How a target that is open no more is remembered: by hash, or by the inbox if its id is the entry's own.
        remembered = NONE if _ENTRY_ID.fullmatch(target) else memory_key(target).hex()
        state = State(cancel_class=LOCAL, look_class=target, digest=entry.digest, orders=(remembered,))
        return NewIntent(entry.id, _named_by(entry), entry.digest, self._record(entry), state)

    def _record(self, entry: Accepted) -> dict[str, str]:
        record = {**entry.fields, "queued_us": str(entry.queued_us)}  # whose lane it is, its key tells
        if entry.explicit_id:
            record["explicit"] = "1"
        return record

    def _rejected(self, entry: Accepted | Refused, detail: str) -> NewOutcome:
        event = events.head(self._lane, entry.id, Status.rejected, "local", detail)
        event.update(events.labels(entry.fields))
        event.update(attempt="0", queued_us=str(entry.queued_us), worker=self._worker)
        return NewOutcome(entry.id, _named_by(entry), entry.digest, event)


def _named_by(entry: Accepted | Refused) -> str:
    return entry.entry_id if entry.explicit_id else ""


def entry_order(entry_id: str) -> tuple[int, int]:
    """Stream entry ids in their order."""
    ms, _, seq = entry_id.partition("-")
    return int(ms), int(seq or 0)
