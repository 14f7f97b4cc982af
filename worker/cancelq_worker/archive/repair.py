"""What a run finds that was ended in the middle: unfinished files, files without a line, and where to go on.

Nothing that may be the only copy of an event is ever removed.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from cancelq_worker.archive.manifest import NOTHING_ARCHIVED, Chain

_UNFINISHED = ".*.parquet.unfinished"


class OtherArchive(Exception):
    """The lane was archived elsewhere, or this archive lost its end: name the folder that holds it, or bring that end
    back from a copy; `cancelq archive LANE --off` makes the lane forget its archive."""


@dataclass(frozen=True, slots=True)
class Place:
    """An archive and what the lane knows of it: `confirmed` segments are verified, `marker` is the key's text."""

    chain: Chain
    confirmed: int
    marker: str

    def at(self, confirmed: int) -> Place:
        """With so many segments confirmed."""
        if not confirmed:
            return Place(self.chain, 0, NOTHING_ARCHIVED)
        segment = self.chain.segments[confirmed - 1]
        return Place(self.chain, confirmed, f"{segment.last} {segment.segment} {segment.hash}")


def find_place(chain: Chain, marker: str) -> Place:
    """Where the marker stands in the chain. OtherArchive if it is none of this chain's."""
    words = marker.split(" ")
    if not marker:
        return Place(chain, 0, "")
    for confirmed in range(len(chain.segments) + 1):
        place = Place(chain, 0, marker).at(confirmed)
        if place.marker == marker:
            return place
    last, number = words[0], words[1] if len(words) > 1 else "?"
    raise OtherArchive(
        f"the lane says that it is archived up to {last}, in segment {number}; this folder's archive "
        f"{f'ends with segment {len(chain.segments)}' if chain.segments else 'is empty'} and has no such line"
    )


def unfinished(folder: Path) -> list[Path]:
    """Files that a run before did not finish: everything in them is still in the stream."""
    return sorted(folder.glob(_UNFINISHED))


def remove_unfinished(folder: Path) -> None:
    """Removes them."""
    for path in unfinished(folder):
        path.unlink()


def orphans(folder: Path, chain: Chain) -> list[Path]:
    """Segment files that no line names, in their order."""
    known = {segment.file for segment in chain.segments}
    return sorted(path for path in folder.glob("*.parquet") if path.name not in known)


def set_aside(path: Path) -> str:
    """Renames a file so that it is no segment any more, and keeps it; its new name."""
    aside = path.with_name(f"{path.name}.aside")
    path.rename(aside)
    return aside.name
