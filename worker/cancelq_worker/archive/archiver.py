"""`cancelq archive`: a lane's results become segments, are read back and compared, and only then leave the stream.

The order in which things happen is what makes every interruption harmless: a file under a temporary name, flushed; read
back from disk and compared with the stream event by event; renamed; its line in the manifest; the lane's marker. What
the marker names is verified, so workers may trim it by age. The archive itself trims only what it has compared with the
stream once more in the same run, so a file that was spoilt meanwhile is never a reason to trim.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import chain as joined
from itertools import islice
from pathlib import Path

import redis

from cancelq.contract import Lane
from cancelq_worker.archive import manifest, segments, stream
from cancelq_worker.archive.canonical import Entry, line, order_of
from cancelq_worker.archive.compare import ArchiveFlawed, Compared, compare
from cancelq_worker.archive.fence import Fence, held
from cancelq_worker.archive.manifest import Chain, Segment
from cancelq_worker.archive.repair import Place, find_place, orphans, remove_unfinished, set_aside, unfinished

SEGMENT_ROWS = 100_000
SEGMENT_BYTES = 128 * 1024 * 1024
# A file is read to its end, however many rows it would be given today.
ALL_ROWS = 2**62
# The server's clock and ours must agree to this before anything is trimmed by age.
CLOCKS_MS = 3_600_000


@dataclass(frozen=True, slots=True)
class Options:
    """`keep_ms`: younger events stay in the stream; `leave_ms`: younger ones are left for the next run, as a failover
    of a replicated server may still take them back; `ignore_groups`: trims what consumer groups have not read."""

    keep_ms: int = 86_400_000
    leave_ms: int = 60_000
    ignore_groups: bool = False
    trim: bool = True
    segment_rows: int = SEGMENT_ROWS


@dataclass(slots=True)
class Done:
    """What a run did. `head` is the hash of the last manifest line; `kept_by` the consumer group that keeps events from
    being trimmed; `notes` are lines for a person."""

    lane: Lane
    last: str = "0-0"
    head: str = manifest.NOTHING
    segments: int = 0
    events: int = 0
    bytes: int = 0
    trimmed: int = 0
    kept_by: str = ""
    notes: list[str] = field(default_factory=list)


class Archiver:
    """One run for one lane. `step` is called with a name whenever something has just become durable."""

    def __init__(
        self,
        client: redis.Redis,
        lane: Lane,
        archive: Path,
        options: Options,
        step: Callable[[str], None] = lambda name: None,
    ) -> None:
        self._client = stream.raw_reader(client)
        self._lane = lane
        self._folder = manifest.folder_of(archive, lane)
        self._options = options
        self._step = step
        self._done = Done(lane)

    def run(self) -> Done:
        """Archives what is new, then trims. Raises LaneBusy, MarkerChanged, OtherArchive, ArchiveFlawed, OSError and
        RedisError; whatever is raised, nothing is trimmed that is not archived, and the next run goes on from there."""
        self._folder.mkdir(parents=True, exist_ok=True)
        with held(self._client, self._lane, self._folder) as fence:
            self._step("locked")
            place = self._repaired(fence)
            place = self._confirm(fence, place)
            place = self._adopt(fence, place)
            place = self._archive(fence, place)
            if self._options.trim:
                self._trim(fence, place)
            self._done.last, self._done.head = place.chain.last, place.chain.head
        return self._done

    # -- where the last run left off ------------------------------------------------------------------------------

    def _repaired(self, fence: Fence) -> Place:
        for path in unfinished(self._folder):
            self._done.notes.append(f"removed {path.name}, which a run before had not finished")
        remove_unfinished(self._folder)
        found = manifest.read(self._folder, self._lane)
        if found.torn:
            manifest.cut_torn(self._folder, found.torn)
            self._done.notes.append("took an unfinished line off the end of the manifest")
        if found.flaws:
            raise ArchiveFlawed(found.flaws)
        place = find_place(found, fence.marker())
        if not place.marker:
            place = self._mark(fence, place, 0)
        self._step("repaired")
        return place

    def _confirm(self, fence: Fence, place: Place) -> Place:
        """Segments that are in the manifest, but of which the lane does not know yet that they are verified."""
        for number in range(place.confirmed, len(place.chain.segments)):
            segment = place.chain.segments[number]
            before = place.chain.segments[number - 1].last if number else "0-0"
            self._compare(segment, self._folder / segment.file, before, whole=False)
            place = self._mark(fence, place, number + 1)
        return place

    def _adopt(self, fence: Fence, place: Place) -> Place:
        """A file without a line in the manifest: the run ended between the two, or the line was taken away."""
        for path in orphans(self._folder, place.chain):
            chain = place.chain
            segment = self._told_by(path, chain)
            if segment is None:
                aside = set_aside(path)
                self._done.notes.append(f"{path.name} has no line in the manifest and is not what follows: now {aside}")
                continue
            self._done.notes.append(f"{path.name} had no line in the manifest: compared with the stream, and added")
            place = self._list(fence, place, segment)
        return place

    def _told_by(self, path: Path, chain: Chain) -> Segment | None:
        """The line a file belongs to, if it holds what follows in the stream and nothing else."""
        try:
            told = _Told(segments.read(path), ALL_ROWS)
            for _ in told:
                pass
            segment = told.segment(path, self._lane, chain, self._before(chain))
            if path.name != segment.file:
                return None
            # What the stream does not hold any more cannot be shown to be what follows.
            if self._compare(segment, path, chain.last).deleted:
                return None
        except (*segments.SegmentUnreadable, ArchiveFlawed):
            return None
        return segment

    # -- new segments ---------------------------------------------------------------------------------------------

    def _archive(self, fence: Fence, place: Place) -> Place:
        facts = stream.facts(self._client, self._lane.results)
        if facts is None:
            return place
        leave = self._options.leave_ms
        end = str(stream.now_ms(self._client) - leave) if leave else facts.last
        new = stream.entries(self._client, self._lane.results, stream.after(place.chain.last), end)
        while (first := next(new, None)) is not None:
            fence.renew()
            place = self._write(fence, place, joined([first], new))
        return place

    def _write(self, fence: Fence, place: Place, new: Iterator[Entry]) -> Place:
        """One segment of what comes next."""
        chain = place.chain
        draft = self._folder / f".{len(chain.segments) + 1:08d}.parquet.unfinished"
        told = _Told(new, self._options.segment_rows, fence.renew, self._step)
        segments.write(draft, told)
        self._step("written")
        segment = told.segment(draft, self._lane, chain, self._before(chain))
        self._compare(segment, draft, chain.last)
        self._step("compared")
        fence.renew()
        draft.rename(self._folder / segment.file)
        manifest.sync_folder(self._folder)
        self._step("renamed")
        place = self._list(fence, place, segment)
        self._done.segments += 1
        self._done.events += segment.rows
        self._done.bytes += segment.size
        return place

    def _list(self, fence: Fence, place: Place, segment: Segment) -> Place:
        manifest.append(self._folder, segment)
        self._step("listed")
        chain = Chain((*place.chain.segments, segment), ())
        return self._mark(fence, Place(chain, place.confirmed, place.marker), len(chain.segments))

    def _mark(self, fence: Fence, place: Place, confirmed: int) -> Place:
        """Tells the lane that so many segments are verified."""
        marked = place.at(confirmed)
        fence.mark(place.marker, marked.marker)
        self._step("marked")
        return marked

    def _before(self, chain: Chain) -> int:
        """How many entries the stream has counted ahead of the next segment."""
        if chain.segments:
            return chain.segments[-1].before + chain.segments[-1].rows
        facts = stream.facts(self._client, self._lane.results)
        return facts.added - facts.length if facts else 0

    def _compare(self, segment: Segment, path: Path, after: str, *, whole: bool = True) -> Compared:
        found = compare(self._client, self._lane.results, segment, path, after, whole=whole)
        if found.deleted:
            self._done.notes.append(f"{found.deleted} events of {segment.file} were deleted from the stream by hand")
        return found

    # -- trimming -------------------------------------------------------------------------------------------------

    def _trim(self, fence: Fence, place: Place) -> None:
        now_ms = stream.now_ms(self._client)
        if abs(now_ms - time.time_ns() // 1_000_000) > CLOCKS_MS:
            self._done.notes.append("nothing was trimmed: the server's clock and this machine's differ by over an hour")
            return
        facts = stream.facts(self._client, self._lane.results)
        cutoff = f"{max(0, now_ms - self._options.keep_ms)}-0"
        after = "0-0"  # whatever lies before the first segment must be in it, too
        for segment in place.chain.segments if facts and facts.first else ():
            if facts is None or facts.first is None or order_of(segment.last) < order_of(facts.first):
                continue
            if order_of(segment.first) >= order_of(cutoff):
                return
            fence.renew()
            found = self._compare(segment, self._folder / segment.file, after, whole=False)
            self._step("checked")
            if not self._trim_to(fence, place, found.bounds, cutoff):
                return
            after = segment.last

    def _trim_to(self, fence: Fence, place: Place, bounds: list[str], cutoff: str) -> bool:
        """Trims in steps that each take the server a moment; False if the end of what may be trimmed is reached."""
        for bound in bounds:
            keep_from = min(bound, cutoff, key=order_of)
            trimmed = fence.trim(place.marker, keep_from, ignore_groups=self._options.ignore_groups)
            self._done.trimmed += trimmed.count
            self._step("trimmed")
            if trimmed.group:
                self._done.kept_by = trimmed.group
            if trimmed.group or keep_from == cutoff:
                return False
        return True


class _Told:
    """Passes the events of one segment on, and keeps what its line tells of them."""

    def __init__(
        self,
        entries: Iterator[Entry],
        rows_most: int,
        renew: Callable[[], None] = lambda: None,
        step: Callable[[str], None] = lambda name: None,
    ) -> None:
        self._entries = entries
        self._rows_most = rows_most
        self._renew = renew
        self._step = step
        self._digest = hashlib.sha256()
        self._first = self._last = ""
        self._rows = self._bytes = 0

    def __iter__(self) -> Iterator[Entry]:
        for entry in islice(self._entries, self._rows_most):
            text = line(entry)
            self._digest.update(text)
            self._first = self._first or entry.entry_id
            self._last = entry.entry_id
            self._rows += 1
            self._bytes += len(text)
            if self._rows % segments.ROWS_AT_ONCE == 0:
                self._renew()
                self._step("writing")
            yield entry
            if self._bytes >= SEGMENT_BYTES:
                return

    def segment(self, path: Path, lane: Lane, chain: Chain, before: int) -> Segment:
        """The line of the file at `path`, which holds what was passed on."""
        number = len(chain.segments) + 1
        return Segment(
            manifest.VERSION,
            str(lane),
            number,
            manifest.file_name(number, self._first, self._last),
            self._first,
            self._last,
            self._rows,
            path.stat().st_size,
            manifest.file_hash(path),
            self._digest.hexdigest(),
            before,
            chain.head,
            time.time_ns() // 1000,
        )
