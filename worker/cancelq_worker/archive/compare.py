"""A segment against its line in the manifest and against the stream, event by event."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import redis

from cancelq_worker.archive import manifest, segments, stream
from cancelq_worker.archive.canonical import Entry, line, order_of
from cancelq_worker.archive.manifest import Flaw, Segment

# So many events are trimmed in one step.
TRIM_STEP = 10_000
# Of what is wrong with one segment, so much is named.
FLAWS_MOST = 20


class ArchiveFlawed(Exception):
    """The archive does not hold what it should, so nothing is trimmed. `cancelq audit` names all of it; bring the file
    back from a copy, or begin a new archive in another folder."""

    def __init__(self, flaws: Sequence[Flaw]) -> None:
        super().__init__("; ".join(f"{flaw.where}: {flaw.problem}" for flaw in flaws))
        self.flaws = tuple(flaws)


@dataclass(slots=True)
class Compared:
    """`deleted`: events that the archive holds and somebody deleted from the stream; `bounds`: entry ids before which
    all is verified, in steps, the last one behind the segment."""

    deleted: int = 0
    bounds: list[str] = field(default_factory=list)


def compare(
    client: redis.Redis, results: str, segment: Segment, path: Path, after: str, *, whole: bool = True
) -> Compared:
    """Compares a file with its line, and with the entries of the stream after `after` up to its last.

    `whole`: the stream should still reach back to the segment's first event; else only what it holds is compared.
    ArchiveFlawed if the archive lacks an event or holds another; RedisError.
    """
    flaws = list(check_file(segment, path))
    if flaws:
        raise ArchiveFlawed(flaws)
    facts = stream.facts(client, results)
    begins = order_of(facts.first) if facts and facts.first else None
    streamed = stream.entries(client, results, stream.after(after), segment.last)
    digest, found = hashlib.sha256(), Compared()
    try:
        for number, (kept, seen) in enumerate(_side_by_side(segments.read(path), streamed)):
            if kept is None:
                flaws.append(Flaw(segment.file, "lacks an event of the stream", seen.entry_id if seen else ""))
            elif seen is None:
                digest.update(line(kept))
                found.deleted += whole or (begins is not None and order_of(kept.entry_id) >= begins)
            else:
                text = line(kept)
                digest.update(text)
                if text != line(seen):
                    flaws.append(Flaw(segment.file, "is not what the stream holds", kept.entry_id))
            if number % TRIM_STEP == TRIM_STEP - 1 and kept is not None:
                found.bounds.append(kept.entry_id)
            if len(flaws) >= FLAWS_MOST:
                break
    except segments.SegmentUnreadable as error:
        flaws.append(Flaw(segment.file, f"cannot be read: {error}"))
    if not flaws and digest.hexdigest() != segment.events:
        flaws.append(Flaw(segment.file, "its events are not those its line was written for"))
    if flaws:
        raise ArchiveFlawed(flaws)
    ms, number_in_ms = order_of(segment.last)
    found.bounds.append(f"{ms}-{number_in_ms + 1}")
    return found


def check_file(segment: Segment, path: Path) -> Iterator[Flaw]:
    """The file as a whole: there, as long as its line says, and with its hash."""
    if not path.exists():
        yield Flaw(segment.file, "the file is missing")
    elif path.stat().st_size != segment.size:
        yield Flaw(segment.file, f"it has {path.stat().st_size} bytes, its line says {segment.size}")
    elif (found := manifest.file_hash(path)) != segment.sha256:
        yield Flaw(segment.file, f"its SHA-256 is {found[:16]}…, its line says {segment.sha256[:16]}…")


def _side_by_side(archived: Iterator[Entry], streamed: Iterator[Entry]) -> Iterator[tuple[Entry | None, Entry | None]]:
    """Both in the order of their ids; None where one side lacks an entry."""
    kept, seen = next(archived, None), next(streamed, None)
    while kept is not None or seen is not None:
        at_kept = order_of(kept.entry_id) if kept else None
        at_seen = order_of(seen.entry_id) if seen else None
        if at_seen is None or (at_kept is not None and at_kept < at_seen):
            yield kept, None
            kept = next(archived, None)
        elif at_kept is None or at_seen < at_kept:
            yield None, seen
            seen = next(streamed, None)
        else:
            yield kept, seen
            kept, seen = next(archived, None), next(streamed, None)
