"""Where an audit reads: a lane's archive and its stream, side by side, compared where both hold the same."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from cancelq.contract import Lane
from cancelq_worker.archive import manifest
from cancelq_worker.archive.canonical import Entry, line, order_of
from cancelq_worker.archive.manifest import Chain, Segment
from cancelq_worker.audit.finding import Findings, Kind

RESULTS = "results"
#: Of one file so many events are named that do not belong where they are.
NAMED_MOST = 20


class Reader(Protocol):
    """How a segment's file is read; `unreadable` are the errors that tell of a file that is none."""

    unreadable: tuple[type[BaseException], ...]

    def __call__(self, path: Path) -> Iterator[Entry]: ...


@dataclass(slots=True)
class Archive:
    """A lane's archive as the audit finds it. `blind` are the segments that could not be read: nothing can be said of
    what only they hold."""

    folder: Path
    chain: Chain
    reader: Reader
    findings: Findings
    blind: list[Segment] = field(default_factory=list)
    #: Files that have not the hash they should have.
    spoilt: set[str] = field(default_factory=set)
    rows: int = 0
    files: int = 0
    _by_hash: dict[str, int] = field(default_factory=dict)

    @classmethod
    def open(cls, folder: Path, lane: Lane, reader: Reader, findings: Findings) -> Archive:
        """Reads the chain and tells what is wrong with it. OSError."""
        chain = manifest.read(folder, lane)
        for flaw in chain.flaws:
            findings.add(Kind.archive, flaw.where, flaw.problem, entry_id=flaw.entry_id)
        if chain.torn:
            findings.add(Kind.archive, manifest.NAME, "its last line is unfinished; the next archive run mends that")
        known = {segment.file for segment in chain.segments}
        for path in sorted(folder.glob("*.parquet")) if folder.exists() else ():
            if path.name not in known:
                findings.add(Kind.archive, path.name, "no line of the manifest names this file")
        return cls(folder, chain, reader, findings, _by_hash={s.sha256: s.segment for s in chain.segments})

    def check_marker(self, marker: str) -> None:
        """Against what the lane was told of its archive: an end that was cut off shows only there."""
        last, number, head = (*marker.split(" "), "", "")[:3]
        if not marker or number == "0" or any(segment.hash == head for segment in self.chain.segments):
            return
        problem = f"the lane was told of segment {number}, up to {last}, and no line here is that one"
        self.findings.add(Kind.archive, manifest.NAME, problem, entry_id=last)

    def holds(self, entry_id: str) -> bool:
        """Whether an entry should have been read from a file by now, or will be."""
        at = order_of(entry_id)
        unread = any(order_of(segment.first) <= at <= order_of(segment.last) for segment in self.blind)
        return at <= order_of(self.chain.last) and not unread

    def entries(self, from_ms: int) -> Iterator[tuple[str, Entry, bytes]]:
        """File, event and canonical line of every event that can be read, in order; every file is checked, those that
        end before `from_ms` are not read further."""
        reached = (-1, -1)
        for segment in self.chain.segments:
            self.files += 1
            sound = self._check_file(segment)
            if order_of(segment.last)[0] < from_ms and sound:
                continue
            for entry, text in self._rows(segment):
                if order_of(entry.entry_id) > reached:
                    reached = order_of(entry.entry_id)
                    self.rows += 1
                    yield segment.file, entry, text

    def _check_file(self, segment: Segment) -> bool:
        path = self.folder / segment.file
        if not path.exists():
            self._wrong(segment, "the file is missing")
            return False
        found = manifest.file_hash(path)
        if found == segment.sha256 and path.stat().st_size == segment.size:
            return True
        self.spoilt.add(segment.file)
        other = self._by_hash.get(found)
        said = f"; it is that of segment {other}" if other else ""
        self._wrong(segment, f"its SHA-256 is {found[:16]}…, its line says {segment.sha256[:16]}…{said}")
        return False

    def _rows(self, segment: Segment) -> Iterator[tuple[Entry, bytes]]:
        """The events of one file that belong into it."""
        digest, rows, strays, unreadable = hashlib.sha256(), 0, 0, False
        first, last = order_of(segment.first), order_of(segment.last)
        reached = (-1, -1)
        path = self.folder / segment.file
        try:
            for entry in self.reader(path) if path.exists() else ():
                text, at = line(entry), order_of(entry.entry_id)
                digest.update(text)
                rows += 1
                if first <= at <= last and at > reached:
                    reached = at
                    yield entry, text
                    continue
                strays += 1
                if strays <= NAMED_MOST:
                    odd = "repeated or out of order" if first <= at <= last else "none of this segment's"
                    self._wrong(segment, f"this event is {odd}", entry.entry_id)
        except self.reader.unreadable as error:
            unreadable = True
            self._wrong(segment, f"cannot be read after {rows} events: {str(error)[:200]}")
        if rows != segment.rows:
            self._wrong(segment, f"{rows} events can be read, its line says {segment.rows}")
        elif digest.hexdigest() != segment.events:
            self._wrong(segment, "its events are not those its line was written for")
        if unreadable or rows - strays < segment.rows // 2:
            self.blind.append(segment)

    def _wrong(self, segment: Segment, problem: str, entry_id: str = "") -> None:
        self.findings.add(Kind.archive, segment.file, problem, entry_id=entry_id)


def side_by_side(
    archived: Iterator[tuple[str, Entry, bytes]],
    streamed: Iterator[Entry],
    begins: str | None,
    archive: Archive,
    findings: Findings,
) -> Iterator[tuple[str, Entry]]:
    """Every event once, in order, and where it lies. Where both hold a part of the stream they are compared: `begins`
    is the stream's first entry, of two that differ it is the archive's, unless its file is spoilt."""
    kept, seen = next(archived, None), next(streamed, None)
    while kept is not None or seen is not None:
        at_kept = order_of(kept[1].entry_id) if kept else None
        at_seen = order_of(seen.entry_id) if seen else None
        if kept is not None and (at_seen is None or (at_kept is not None and at_kept < at_seen)):
            if begins is not None and order_of(kept[1].entry_id) > order_of(begins):
                problem = f"it is in {kept[0]}, and was deleted from the stream"
                findings.add(Kind.stream, RESULTS, problem, entry_id=kept[1].entry_id, id_=kept[1].fields.get("id", ""))
            yield kept[0], kept[1]
            kept = next(archived, None)
        elif seen is not None and (at_kept is None or (at_seen is not None and at_seen < at_kept)):
            if archive.holds(seen.entry_id):
                problem = "the stream holds it, and the archive lacks it"
                id_ = seen.fields.get("id", "")
                findings.add(Kind.archive, RESULTS, problem, entry_id=seen.entry_id, id_=id_)
            yield RESULTS, seen
            seen = next(streamed, None)
        elif kept is not None and seen is not None:
            if kept[2] != line(seen):
                problem = f"not the same in the stream and in {kept[0]}: {_difference(seen, kept[1])}"
                findings.add(Kind.archive, kept[0], problem, entry_id=seen.entry_id, id_=seen.fields.get("id", ""))
                if kept[0] in archive.spoilt:
                    kept = (RESULTS, seen, b"")
            yield kept[0], kept[1]
            kept, seen = next(archived, None), next(streamed, None)


def _difference(seen: Entry, kept: Entry) -> str:
    for name in sorted({*seen.fields, *kept.fields}):
        here, there = seen.fields.get(name), kept.fields.get(name)
        if here != there:
            return f"{name[:40]} is {_shown(here)} in the stream and {_shown(there)} in the archive"
    return "its bytes differ"


def _shown(value: str | None) -> str:
    return "missing" if value is None else repr(value[:64])
