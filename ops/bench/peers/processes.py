"""The processes of a run: workers and a producer, each the head of a session of its own, and what they cost."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from rig import TICKS

END_S = 10.0
KEPT = ("PATH", "HOME", "LANG", "TZ")  # of this process' own environment


@dataclass(frozen=True, slots=True)
class Program:
    """A started process with all its children, known by their session."""

    process: subprocess.Popen[bytes]
    log: Path

    @property
    def session(self) -> int:
        return self.process.pid

    def says(self, text: str) -> bool:
        return text.encode() in self.log.read_bytes()

    def cpu_s(self) -> float:
        """Processor time of all its processes, those that have ended and were waited for included."""
        return sum(_spent(fields) for fields in _members(self.session).values()) / TICKS

    def kill(self) -> None:
        """Ends the process and its children as a dying machine would."""
        for pid in _members(self.session):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.process.wait()


@contextmanager
def program(command: Sequence[str], env: Mapping[str, str], log: Path) -> Iterator[Program]:
    """A running program with nothing but this environment; ended, children included, with the block."""
    clean = {name: os.environ[name] for name in KEPT if name in os.environ}
    with log.open("wb") as file:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=file, stderr=file, env={**clean, **env}, start_new_session=True
        )
    running = Program(process, log)
    try:
        yield running
    finally:
        if process.poll() is None:
            process.terminate()
            with suppress(subprocess.TimeoutExpired):
                process.wait(END_S)
        running.kill()


def _members(session: int) -> dict[int, list[str]]:
    """By id, the processes of a session, each with its fields of /proc from the state on."""
    found: dict[int, list[str]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            with suppress(OSError):
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
                if int(fields[3]) == session:
                    found[int(entry.name)] = fields
    return found


def _spent(fields: Sequence[str]) -> int:
    """utime, stime, and the same of children that were waited for."""
    return sum(int(field) for field in fields[11:15])
