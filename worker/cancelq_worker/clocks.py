"""Clocks: this process' monotonic one, and what it knows of Redis' and the venue's time.

Everything is measured against the monotonic clock, so a jump of this machine's wall clock changes nothing.
An offset is the best of its recent samples: the one with the shortest round trip is off by at most half of it.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

Monotonic = Callable[[], int]


@dataclass(frozen=True, slots=True)
class _Sample:
    taken_ns: int
    rtt_ns: int
    offset_us: int


class RemoteClock:
    """A remote clock, in microseconds: `now_us` maps the monotonic clock to it."""

    KEEP_NS = 60_000_000_000

    def __init__(self, resolution_us: int, monotonic_ns: Monotonic = time.monotonic_ns) -> None:
        self._resolution_us = resolution_us
        self._monotonic_ns = monotonic_ns
        self._samples: deque[_Sample] = deque(maxlen=256)
        self._best: _Sample | None = None

    @property
    def known(self) -> bool:
        return self._best is not None

    def learn(self, before_ns: int, after_ns: int, remote_us: int) -> None:
        """One reading: the remote clock said `remote_us` somewhere between the two moments."""
        middle_us = (before_ns + after_ns) // 2000
        sample = _Sample(after_ns, after_ns - before_ns, remote_us + self._resolution_us // 2 - middle_us)
        self._samples.append(sample)
        best = self._best
        if best is None or sample.rtt_ns <= best.rtt_ns:
            self._best = sample
        elif after_ns - best.taken_ns > self.KEEP_NS:
            recent = [s for s in self._samples if after_ns - s.taken_ns <= self.KEEP_NS]
            self._best = min(recent, key=lambda s: s.rtt_ns)

    def forget(self) -> None:
        """Drops every sample: the remote clock was found wrong."""
        self._samples.clear()
        self._best = None

    def at_us(self, monotonic_ns: int) -> int:
        """The remote time at a moment of the monotonic clock; without a sample, this machine's wall clock."""
        if self._best is None:
            return time.time_ns() // 1000 - (self._monotonic_ns() - monotonic_ns) // 1000
        return monotonic_ns // 1000 + self._best.offset_us

    def now_us(self) -> int:
        return self.at_us(self._monotonic_ns())

    def when_ns(self, remote_us: int) -> int:
        """The monotonic moment at which the remote clock showed `remote_us`."""
        return (remote_us - self.at_us(0)) * 1000

    @property
    def uncertainty_us(self) -> int:
        """By how much `at_us` may be off, either way; a second where nothing was ever learnt."""
        if self._best is None:
            return 1_000_000
        return self._best.rtt_ns // 2000 + self._resolution_us // 2
