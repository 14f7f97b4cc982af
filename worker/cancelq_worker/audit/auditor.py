"""An audit of one lane, from the reading to the verdict.

Bounded memory: streams are read in pages and segments in batches, what must be joined goes through files (`spill`), and
times are kept as histograms. Ten million events need room for about four gigabytes of such files.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import redis

from cancelq.contract import Lane, Status, read_entry
from cancelq_worker.archive import manifest, stream
from cancelq_worker.archive.canonical import Entry, order_of
from cancelq_worker.archive.fence import marker_key
from cancelq_worker.archive.stream import Facts
from cancelq_worker.audit.books import Books, Horizon
from cancelq_worker.audit.finding import Findings, Kind
from cancelq_worker.audit.numbers import Numbers
from cancelq_worker.audit.rules import Told, faults, read
from cancelq_worker.audit.sources import RESULTS, Archive, Reader, side_by_side

FAR_US = 10**18
_SHOWN_MOST_US = 253_402_300_799_000_000  # the end of the year 9999
#: An intent that was queued, or was due, no longer ago than this may be open without anything being wrong.
OPEN_US = 60_000_000

#: Called with every event that lies within the time asked for.
Export = Callable[[Lane, Entry], None]


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked of an audit. Times in UTC microseconds, of when intents were queued; `archive`: the folder of all
    lanes' archives; `reader`: how a segment is read (None: there is no archive to read)."""

    from_us: int = 0
    to_us: int = FAR_US
    archive: Path | None = None
    reader: Reader | None = None
    dedup_us: int = 24 * 3_600_000_000
    open_us: int = OPEN_US


@dataclass(slots=True)
class LaneAudit:
    """What was found on one lane. `horizon` are lines that say how far the proof reaches."""

    lane: Lane
    findings: Findings
    numbers: Numbers
    horizon: list[str] = field(default_factory=list)
    inbox: int = 0
    events: int = 0
    segments: int = 0
    archived: int = 0
    head: str = ""

    @property
    def proven(self) -> bool:
        """Nothing is wrong, as far as the horizon reaches."""
        return not self.findings.total


def audit_lane(
    client: redis.Redis, lane: Lane, question: Question, export: Export | None = None, scratch: Path | None = None
) -> LaneAudit:
    """Audits one lane; `scratch`: where its files are made and removed. Raises RedisError, OSError."""
    with tempfile.TemporaryDirectory(prefix="cancelq-audit-", dir=scratch) as folder:
        return _Auditor(stream.raw_reader(client), lane, question, export, Path(folder)).run()


class _Auditor:
    def __init__(
        self, client: redis.Redis, lane: Lane, question: Question, export: Export | None, folder: Path
    ) -> None:
        self._client = client
        self._lane = lane
        self._question = question
        self._export = export
        self._out = LaneAudit(lane, Findings(str(lane)), Numbers())
        # Results first: whatever they tell of was in the inbox before.
        self._results = stream.facts(client, lane.results)
        self._inbox = stream.facts(client, lane.inbox)
        self._unarchived = 0
        self._now_us = stream.now_ms(client) * 1000
        self._archive = self._opened()
        self._horizon = self._horizon_of()
        self._books = Books(folder, self._horizon, self._out.findings, self._out.numbers)

    def run(self) -> LaneAudit:
        for where, entry in self._events():
            self._event(where, entry)
        self._read_inbox()
        self._see_no_further_than_readable()
        self._books.judge()
        self._count()
        self._tell_horizon()
        return self._out

    def _opened(self) -> Archive | None:
        asked = self._question
        if asked.archive is None or asked.reader is None:
            return None
        opened = Archive.open(
            manifest.folder_of(asked.archive, self._lane), self._lane, asked.reader, self._out.findings
        )
        marker: Any = self._client.get(marker_key(self._lane))
        opened.check_marker(marker.decode() if marker else "")
        return opened

    def _events(self) -> Iterator[tuple[str, Entry]]:
        """Every event once, from the archive and from the stream up to where it ended when the audit began."""
        facts, from_ms = self._results, self._question.from_us // 1000
        streamed: Iterator[Entry] = iter(())
        if facts:
            streamed = stream.entries(self._client, self._lane.results, str(from_ms) if from_ms else "-", facts.last)
        if self._archive is None:
            yield from ((RESULTS, entry) for entry in streamed)
            return
        begins = facts.first if facts else None
        if begins and from_ms:
            begins = max(begins, f"{from_ms}-0", key=order_of)
        archived = self._archive.entries(from_ms)
        streamed = self._counted(streamed, order_of(self._archive.chain.last))
        yield from side_by_side(archived, streamed, begins, self._archive, self._out.findings)

    def _counted(self, streamed: Iterator[Entry], archived_to: tuple[int, int]) -> Iterator[Entry]:
        """Counts the entries that are not archived yet."""
        for entry in streamed:
            self._unarchived += order_of(entry.entry_id) > archived_to
            yield entry

    def _event(self, where: str, entry: Entry) -> None:
        told = read(entry)
        if isinstance(told, str):
            self._wrong(where, entry, told)
            return
        if not self._asked_for(told, entry):
            return
        self._out.events += 1
        if self._export:
            self._export(self._lane, entry)
        for problem in faults(told, self._lane):
            self._wrong(where, entry, problem)
        self._out.numbers.event(told)
        if told.status is Status.operator:
            self._books.acted(told, where)
        else:
            self._books.told(told, where)

    def _asked_for(self, told: Told, entry: Entry) -> bool:
        at_us = told.queued_us
        return self._horizon.covers(order_of(entry.entry_id)[0] * 1000 if at_us is None else at_us)

    def _read_inbox(self) -> None:
        facts, asked = self._inbox, self._question
        if facts is None:
            return
        start = str(asked.from_us // 1000) if asked.from_us else "-"
        end = facts.last if asked.to_us >= FAR_US else min(facts.last, f"{asked.to_us // 1000}-0", key=order_of)
        for entry_id, flat in stream.raw_entries(self._client, self._lane.inbox, start, end):
            self._out.inbox += 1
            self._books.asked(read_entry(entry_id.decode(), flat))

    # -- how far it reaches ---------------------------------------------------------------------------------------

    def _horizon_of(self) -> Horizon:
        results, inbox, asked = self._results, self._inbox, self._question
        inbox_from = (inbox.first or inbox.last) if inbox and inbox.added > inbox.length else "0-0"
        archive_from = self._archive.chain.segments[0] if self._archive and self._archive.chain.segments else None
        if archive_from:
            results_from, whole = archive_from.first, archive_from.before == 0
        else:
            trimmed = results is not None and results.added > results.length
            results_from, whole = ((results.first or results.last) if results and trimmed else "0-0"), not trimmed
        return Horizon(
            inbox_us=order_of(inbox_from)[0] * 1000,
            results_us=order_of(results_from)[0] * 1000,
            open_us=min(self._now_us, asked.to_us) - asked.open_us,
            whole=whole,
            from_us=asked.from_us,
            to_us=asked.to_us,
            dedup_us=asked.dedup_us,
        )

    def _see_no_further_than_readable(self) -> None:
        """What only an unreadable segment holds cannot be missed: the segment is named already."""
        begins = order_of(self._results.first) if self._results and self._results.first else None
        for segment in self._archive.blind if self._archive else ():
            if begins is None or order_of(segment.first) < begins:
                self._horizon.whole = False
                self._horizon.results_us = max(self._horizon.results_us, order_of(segment.last)[0] * 1000)

    def _count(self) -> None:
        """What the server counted of the stream against what was found: entries may go only by being archived."""
        out, archive, facts = self._out, self._archive, self._results
        if archive:
            out.segments, out.archived, out.head = archive.files, archive.rows, archive.chain.head
        for where, held in ((RESULTS, self._results), ("inbox", self._inbox)):
            if held and held.torn_out:
                problem = "entries were deleted from between others (XDEL), the last of them this one"
                out.findings.add(Kind.stream, where, problem, entry_id=held.torn_out)
        if not archive or not archive.chain.segments or facts is None:
            return
        before = archive.chain.segments[0].before + archive.chain.rows
        told = before + (self._unarchived if not self._question.from_us else self._count_unarchived(archive, facts))
        if facts.added < before:
            problem = f"it was made anew: it has counted {facts.added} entries, the archive holds {archive.chain.rows}"
            out.findings.add(Kind.stream, RESULTS, problem)
        elif told != facts.added:
            problem = f"{facts.added - told} entries are neither in the stream nor in the archive"
            out.findings.add(Kind.stream, RESULTS, problem, entry_id=archive.chain.last)

    def _count_unarchived(self, archive: Archive, facts: Facts) -> int:
        after = stream.after(archive.chain.last)
        return sum(1 for _ in stream.raw_entries(self._client, self._lane.results, after, facts.last))

    def _tell_horizon(self) -> None:
        out, numbers, inbox = self._out, self._out.numbers, self._inbox
        if inbox and inbox.added > inbox.length:
            out.horizon.append(
                f"the inbox reaches back to {inbox.first or 'nothing'}; {numbers.before_inbox} intents were asked "
                "before that: their events are judged by themselves"
            )
        if not self._horizon.whole:
            since = showing_time(self._horizon.results_us)
            out.horizon.append(
                f"results are whole only since {since}; {numbers.beyond_results} intents of the inbox are older, and "
                "their outcomes are not looked for"
            )
        gone = [held.deleted for held in (self._results, inbox) if held and held.deleted != "0-0" and not held.torn_out]
        for entry_id in gone:
            out.horizon.append(f"entries were deleted by id (XDEL), the last of them {entry_id}, before what is left")
        if numbers.guards:
            out.horizon.append(f"{numbers.guards} intents are the dead man's switch's own and stand in no inbox")
        if numbers.open_count:
            out.horizon.append(
                f"{numbers.open_count} intents are open: queued, or due, within the last minute or later"
            )

    def _wrong(self, where: str, entry: Entry, problem: str) -> None:
        self._out.findings.add(Kind.event, where, problem, entry_id=entry.entry_id, id_=entry.fields.get("id", ""))


def showing_time(us: int) -> str:
    """UTC, to the second."""
    return f"{datetime.fromtimestamp(min(us, _SHOWN_MOST_US) // 1_000_000, UTC):%Y-%m-%d %H:%M:%S} UTC"
