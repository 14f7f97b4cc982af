"""What an audit finds wrong: where, about which entry, and what."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from enum import StrEnum

#: Of each lane so many findings are kept; all are counted.
FINDINGS_MOST = 1000


class Kind(StrEnum):
    """What a finding is about; the value is what programs see."""

    archive = "archive"
    stream = "stream"
    event = "event"
    intent = "intent"
    batch = "batch"


REMEDIES = {
    Kind.archive: "bring the file or the manifest back from a copy; until then nothing of it is trimmed or believed",
    Kind.stream: "somebody changed the stream by hand: the server's ACL should let nobody XDEL, XTRIM or XADD results",
    Kind.event: "the event cannot be what a worker wrote, or the worker is wrong: cancelq trace ID shows all of it",
    Kind.intent: "cancelq trace ID shows what is known of it; look at the venue, and redrive it if the order is open",
    Kind.batch: "compare the named events with the venue's own record of that call",
}


@dataclass(frozen=True, slots=True)
class Finding:
    """`where`: `results`, `inbox`, a segment's file or the manifest; `entry_id` and `id` are empty where it is about
    no one entry or intent."""

    lane: str
    kind: Kind
    where: str
    entry_id: str
    id: str
    problem: str


@dataclass(slots=True)
class Findings:
    """The findings of one lane, the first of them kept, all counted."""

    lane: str
    kept: list[Finding] = field(default_factory=list)
    counts: Counter[Kind] = field(default_factory=Counter)

    def add(self, kind: Kind, where: str, problem: str, *, entry_id: str = "", id_: str = "") -> None:
        self.counts[kind] += 1
        if len(self.kept) < FINDINGS_MOST:
            self.kept.append(Finding(self.lane, kind, where, entry_id, id_, problem))

    @property
    def total(self) -> int:
        return self.counts.total()
