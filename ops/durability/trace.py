"""What a disk surely held, and when: the server's writes and syncs, traced, and where in its file each change ends."""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

#: One line of the tracer: process, time, call, its file, what it answered, how long it took. A call that another one
#: interrupts comes in two lines.
_CALL = re.compile(
    r"(?P<pid>\d+) +(?P<at>\d+\.\d+) (?P<call>\w+)\(\d+<(?P<file>[^>]*)>.*?(?P<rest>\) += .*|<unfinished ...>)$"
)
_RESUMED = re.compile(r"(?P<pid>\d+) +\d+\.\d+ <\.\.\. (?P<call>\w+) resumed>.*?(?P<rest>\) += .*)$")
_DONE = re.compile(r"\) += (?P<answer>-?\d+).*<(?P<took>\d+\.\d+)>$")

WRITES = ("write", "writev", "pwrite64")
SYNCS = ("fdatasync", "fsync")
OPTIONS = ("-f", "-qq", "-y", "-ttt", "-T", "-s", "0", "-e", f"trace={','.join((*WRITES, *SYNCS))}")


@dataclass(frozen=True, slots=True)
class Syncs:
    """How many bytes of a file had surely reached the disk, by time: what was written before a sync began counts once
    that sync has ended. Times are UTC seconds."""

    ended_s: list[float]
    bytes_: list[int]
    longest_s: float

    def durable(self, at_s: float) -> int:
        """The bytes that a power cut at that time leaves for sure."""
        before = bisect_right(self.ended_s, at_s)
        return self.bytes_[before - 1] if before else 0


def read_syncs(trace: Path, file: Path) -> Syncs:
    """The syncs of one file out of a trace."""
    ended: list[tuple[float, int]] = []
    written, longest_s = 0, 0.0
    begun: dict[str, tuple[str, float, int]] = {}  # process → its call on the file that has not ended
    for line in trace.read_text(errors="replace").splitlines():
        found = _CALL.match(line)
        if found and found["file"] == str(file):
            call = (found["call"], float(found["at"]), written)
            if found["rest"].startswith("<"):
                begun[found["pid"]] = call
                continue
        elif (found := _RESUMED.match(line)) and found["pid"] in begun:
            call = begun.pop(found["pid"])
        else:
            continue
        done = _DONE.search(found["rest"])
        if done is None:
            continue
        if call[0] in WRITES:
            written += max(0, int(done["answer"]))
        elif done["answer"] == "0":
            took_s = float(done["took"])
            longest_s = max(longest_s, took_s)
            ended.append((call[1] + took_s, call[2]))
    ended.sort()
    most, bytes_ = 0, []
    for _, so_far in ended:
        most = max(most, so_far)
        bytes_.append(most)
    return Syncs([at for at, _ in ended], bytes_, longest_s)


@dataclass(frozen=True, slots=True)
class Change:
    """A command of an append-only file. It counts from byte `end` on: that of its transaction, if it is in one."""

    words: tuple[bytes, ...]
    end: int


def changes(data: bytes) -> Iterator[Change]:
    """The commands of an append-only file, as far as it is whole."""
    pos, held = 0, list[tuple[bytes, ...]]()
    in_transaction = False
    while pos < len(data):
        if data[pos : pos + 1] == b"#":  # an annotation, such as a time stamp
            pos = data.index(b"\n", pos) + 1
            continue
        words, pos = command(data, pos)
        if words is None:
            return
        match words[0].upper():
            case b"MULTI":
                in_transaction = True
            case b"EXEC":
                in_transaction = False
                yield from (Change(one, pos) for one in held)
                held.clear()
            case _ if in_transaction:
                held.append(words)
            case _:
                yield Change(words, pos)


def command(data: bytes, pos: int) -> tuple[tuple[bytes, ...] | None, int]:
    """One command in the server's own form, and where it ends; None where the file does."""
    try:
        end = data.index(b"\r\n", pos)
        words = []
        count, pos = int(data[pos + 1 : end]), end + 2
        for _ in range(count):
            end = data.index(b"\r\n", pos)
            size, pos = int(data[pos + 1 : end]), end + 2
            if pos + size + 2 > len(data):
                return None, len(data)
            words.append(data[pos : pos + size])
            pos += size + 2
    except ValueError:
        return None, len(data)
    return tuple(words), pos


#: The frame that makes one change of a script's effects, as it stands in the file.
FRAMES = (b"*1\r\n$5\r\nMULTI\r\n", b"*1\r\n$5\r\nmulti\r\n", b"*1\r\n$4\r\nEXEC\r\n", b"*1\r\n$4\r\nexec\r\n")


def unframed(data: bytes) -> bytes:
    """The same commands without their transactions: what a torn file would come to if scripts were not one change."""
    for frame in FRAMES:
        data = data.replace(frame, b"")
    return data
