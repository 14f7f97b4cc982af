"""The chain of a lane's archive: `manifest.ndjson`, one line a segment, each holding the hash of the line before.

The hash of a line is the SHA-256 of its bytes without the newline; the first line holds 64 zeros. A line is written
once, flushed to the disk, and never changed.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import orjson

from cancelq.contract import Lane
from cancelq_worker.archive.canonical import order_of

NAME = "manifest.ndjson"
VERSION = 1
NOTHING = "0" * 64
#: What a lane is told before anything is archived: last entry, segment, hash of its line.
NOTHING_ARCHIVED = f"0-0 0 {NOTHING}"


@dataclass(frozen=True, slots=True)
class Segment:
    """One line. `first` and `last` are entry ids, `size` the file's bytes, `events` the SHA-256 over the canonical
    lines of its events, `sha256` that of the file, `previous` that of the line before; `before`: how many entries the
    stream had ever counted ahead of the first event; `written_us`: UTC epoch microseconds."""

    v: int
    lane: str
    segment: int
    file: str
    first: str
    last: str
    rows: int
    size: int
    sha256: str
    events: str
    before: int
    previous: str
    written_us: int

    @property
    def line(self) -> bytes:
        """Without the newline."""
        return orjson.dumps(asdict(self))

    @property
    def hash(self) -> str:
        return hashlib.sha256(self.line).hexdigest()


@dataclass(frozen=True, slots=True)
class Flaw:
    """Something that an archive must not have: in which file, about which entry if about one, and what it is."""

    where: str
    problem: str
    entry_id: str = ""


@dataclass(frozen=True, slots=True)
class Chain:
    """What a manifest says. `flaws` are those of the lines themselves; `torn` is an unfinished line at the end."""

    segments: tuple[Segment, ...]
    flaws: tuple[Flaw, ...]
    torn: bytes = b""

    @property
    def head(self) -> str:
        """The hash of the last line: whoever keeps it elsewhere can tell later that nothing was taken away."""
        return self.segments[-1].hash if self.segments else NOTHING

    @property
    def last(self) -> str:
        """The last entry that is archived; `0-0` if none is."""
        return self.segments[-1].last if self.segments else "0-0"

    @property
    def rows(self) -> int:
        return sum(segment.rows for segment in self.segments)


def folder_of(archive: Path, lane: Lane) -> Path:
    """Where a lane's segments and manifest are."""
    return archive / lane.venue / lane.account


def file_name(number: int, first: str, last: str) -> str:
    return f"{number:08d}_{first}_{last}.parquet"


def read(folder: Path, lane: Lane) -> Chain:
    """The chain of a folder, empty if it has no manifest. Never raises for what the file holds; OSError."""
    path = folder / NAME
    content = path.read_bytes() if path.exists() else b""
    whole, newline, torn = content.rpartition(b"\n")
    segments: list[Segment] = []
    flaws: list[Flaw] = []
    before: bytes | None = None
    for number, line in enumerate(whole.split(b"\n") if newline else (), start=1):
        segment = _parsed(line)
        if segment is None:
            flaws.append(Flaw(f"{NAME} line {number}", "cannot be read as a segment's line"))
        else:
            flaws += (Flaw(f"{NAME} line {number}", problem) for problem in _breaks(segment, segments, before, lane))
            segments.append(segment)
        before = line
    return Chain(tuple(segments), tuple(flaws), torn)


def _parsed(line: bytes) -> Segment | None:
    try:
        given = orjson.loads(line)
        segment = Segment(**given)
    except (orjson.JSONDecodeError, TypeError):
        return None
    numbers = (segment.v, segment.segment, segment.rows, segment.size, segment.before, segment.written_us)
    texts = (segment.lane, segment.file, segment.first, segment.last, segment.sha256, segment.events, segment.previous)
    well = all(type(n) is int for n in numbers) and all(type(t) is str for t in texts) and "/" not in segment.file
    return segment if well and segment.line == line and _is_id(segment.first) and _is_id(segment.last) else None


def _is_id(text: str) -> bool:
    ms, dash, number = text.partition("-")
    return bool(dash) and all(part.isascii() and part.isdigit() and len(part) <= 20 for part in (ms, number))


def _breaks(segment: Segment, earlier: Sequence[Segment], before: bytes | None, lane: Lane) -> Iterator[str]:
    """What is wrong between a line and those before it."""
    due = earlier[-1].segment + 1 if earlier else 1
    if segment.segment != due:
        missing = f"segment {due}" if segment.segment == due + 1 else f"segments {due} to {segment.segment - 1}"
        lost = f"the line of {missing} is missing" if segment.segment > due else "lines are repeated or out of order"
        yield f"segment {segment.segment} stands where segment {due} belongs: {lost}"
    previous = NOTHING if before is None else hashlib.sha256(before).hexdigest()
    if segment.previous != previous:
        yield f"segment {segment.segment}: its hash of the line before is not that line's: the chain is broken here"
    if segment.lane != str(lane):
        yield f"segment {segment.segment} is of lane {segment.lane}"
    if order_of(segment.first) > order_of(segment.last):
        yield f"segment {segment.segment} ends before it begins"
    if earlier and order_of(segment.first) <= order_of(earlier[-1].last):
        yield f"segment {segment.segment} begins at {segment.first}, not after {earlier[-1].last}"
    if earlier and segment.before != earlier[-1].before + earlier[-1].rows:
        yield f"segment {segment.segment} counts {segment.before} entries before it, which does not follow"


def append(folder: Path, segment: Segment) -> None:
    """Adds a line and returns when it is on the disk."""
    path = folder / NAME
    fresh = not path.exists()
    with path.open("ab") as file:
        file.write(segment.line + b"\n")
        file.flush()
        os.fsync(file.fileno())
    if fresh:
        sync_folder(folder)


def cut_torn(folder: Path, torn: bytes) -> None:
    """Takes an unfinished last line away."""
    with (folder / NAME).open("r+b") as file:
        file.truncate(file.seek(0, os.SEEK_END) - len(torn))
        file.flush()
        os.fsync(file.fileno())


def sync_folder(folder: Path) -> None:
    """Returns when the names in a folder are on the disk."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def file_hash(path: Path) -> str:
    """SHA-256 of a file, as `sha256sum` prints it."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
