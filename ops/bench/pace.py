"""The machine's pace: a small piece of work, done all the time beside what is measured, and what it costs just then.

The same code costs half as much again on a virtual machine whose neighbours are busy, and does so for minutes. Points
of one axis are minutes apart: what they cost is told at one pace, so that the code is compared and not the minutes.
The work is what servers and workers do (parsing, hashing, tables, text) and, for half of its time, reads that miss
the caches. It takes some two hundredths of a processor.
"""

from __future__ import annotations

import hashlib
import hmac
import mmap
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import orjson

SAMPLE, PAUSE_S = 12, 0.04  # units in a row, and between two rows
TOLD = struct.Struct("<QQ")  # units so far, and the processor time they took in ns
MEMORY, STEP = 8 << 20, 65_537  # bytes walked through, more than a core's own caches; off any page's beat
BODY = orjson.dumps({"symbol": "BTCUSDT", "orderList": [{"orderId": str(7 * 10**18 + n)} for n in range(50)]})


class Pace:
    """Reads what the process that keeps the pace has told."""

    def __init__(self, told: Path) -> None:
        self._told = told

    def mark(self) -> tuple[int, int]:
        """Where it stands, a row from now: whatever was measured lies between two marks."""
        units, _ = self._read()
        while (now := self._read())[0] == units:
            time.sleep(PAUSE_S / 10)
        return now

    def since(self, mark: tuple[int, int]) -> float:
        """Microseconds a unit took on average since that mark."""
        units, cpu_ns = self.mark()
        return (cpu_ns - mark[1]) / (units - mark[0]) / 1e3

    def _read(self) -> tuple[int, int]:
        units, cpu_ns = TOLD.unpack(self._told.read_bytes())
        return units, cpu_ns


@contextmanager
def kept() -> Iterator[Pace]:
    """A process that keeps the pace for as long as this lasts."""
    with tempfile.TemporaryDirectory(prefix="cancelq-bench-") as folder:
        told = Path(folder) / "pace"
        told.write_bytes(bytes(TOLD.size))
        process = subprocess.Popen([sys.executable, __file__, told], start_new_session=True)
        try:
            yield Pace(told)
        finally:
            process.kill()
            process.wait()


def _unit(memory: bytearray) -> int:
    rows = {row["orderId"]: row for row in orjson.loads(BODY)["orderList"]}
    digest = hmac.new(b"key", "|".join(sorted(rows)).encode(), hashlib.sha256).hexdigest()
    return len([f"{order}:{digest}" for order in rows]) + sum(
        memory[at] for _ in range(4) for at in range(0, MEMORY, STEP)
    )


def main(told: str) -> None:
    memory, units, cpu_ns = bytearray(MEMORY), 0, 0
    with open(told, "r+b") as file, mmap.mmap(file.fileno(), TOLD.size) as shown:
        while True:
            begun_ns = time.thread_time_ns()
            for _ in range(SAMPLE):
                _unit(memory)
            units, cpu_ns = units + SAMPLE, cpu_ns + time.thread_time_ns() - begun_ns
            shown[:] = TOLD.pack(units, cpu_ns)
            time.sleep(PAUSE_S)


if __name__ == "__main__":
    main(sys.argv[1])
