"""Clocks: this process' monotonic one, and what it knows of Redis' and the venue's time.

Everything is measured against the monotonic clock, so a jump of this machine's wall clock changes nothing.
One reading bounds the offset from both sides; all readings of the last minute together bound it much closer.
"""

from __future__ import annotations

import itertools
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

Monotonic = Callable[[], int]

DRIFT_PER_S_US = 50  # how far two clocks may part in a second: ten times what a poor quartz does


@dataclass(slots=True)
class Machine:
    """What this process reads its time from. One place for all, so that a whole fleet can be run on virtual time."""

    monotonic_ns: Monotonic = time.monotonic_ns
    wall_ns: Monotonic = time.time_ns


MACHINE = Machine()


def monotonic_ns() -> int:
    """This process' monotonic clock."""
    return MACHINE.monotonic_ns()


def monotonic_s() -> float:
    """The same in seconds."""
    return MACHINE.monotonic_ns() / 1e9


def in_s(seconds: float) -> int:
    """The moment of the monotonic clock so many seconds from now."""
    return MACHINE.monotonic_ns() + int(seconds * 1e9)


def wall_ns() -> int:
    """This machine's wall clock, since the epoch. It may jump: nothing is measured by it."""
    return MACHINE.wall_ns()


@dataclass(frozen=True, slots=True)
class _Bounds:
    """The offset in µs lay within these when it was read."""

    read_ns: int
    least: int
    most: int


class RemoteClock:
    """A remote clock, in microseconds: `now_us` maps the monotonic clock to it.

    `resolution_us`: the remote clock tells whole multiples of this, rounded down.
    """

    KEEP_NS = 60_000_000_000
    KEEP = 32
    RECENT_NS = 100_000_000  # a busy lane keeps its last few seconds: a clock that is slewed parts from older readings

    def __init__(self, resolution_us: int, monotonic_ns: Monotonic = monotonic_ns) -> None:
        self._resolution_us = resolution_us
        self._monotonic_ns = monotonic_ns
        self._readings: deque[_Bounds] = deque(maxlen=self.KEEP)
        self._offset_us = 0
        self._doubt_us = 0
        self._since_ns: int | None = None
        self.leapt_us = 0  # by how much at most it was found to be ahead of where it had to be, all in all
        self._unbroken_ns = 0  # since when each reading agrees with the one before

    @property
    def since_ns(self) -> int | None:
        """The monotonic moment since when it is known, None if it is not."""
        return self._since_ns

    @property
    def known(self) -> bool:
        return bool(self._readings)

    @property
    def vouched_us(self) -> int:
        """For how long it has been known, without a break, how the remote clock goes. A step since the last reading is
        seen by the next one, unless that comes too late to be compared."""
        now_ns = self._monotonic_ns()
        if not self._readings or now_ns - self._readings[-1].read_ns > self.KEEP_NS:
            return 0
        return (now_ns - self._unbroken_ns) // 1000

    def learn(self, before_ns: int, after_ns: int, remote_us: int) -> None:
        """One reading: the remote clock said `remote_us` somewhere between the two moments."""
        # The clocks part during the reading, too.
        slack_us = drift_us(after_ns - before_ns)
        least = remote_us - after_ns // 1000 - slack_us
        most = remote_us + self._resolution_us - before_ns // 1000 + slack_us
        if self._knows_better(after_ns, least, most):
            return
        if not self._readings:
            self._unbroken_ns = after_ns
        self._readings.append(_Bounds(after_ns, least, most))
        self._combine(after_ns)
        if self._since_ns is None:
            self._since_ns = self._monotonic_ns()

    def _knows_better(self, now_ns: int, least: int, most: int) -> bool:
        """Whether a reading tells nothing beside what is known from a recent one."""
        if not self._readings or now_ns - self._readings[-1].read_ns >= self.RECENT_NS:
            return False
        doubt_us = self._doubt_at_us(now_ns)
        return least <= self._offset_us - doubt_us and self._offset_us + doubt_us <= most

    def _combine(self, now_ns: int) -> None:
        """The newest reading, narrowed by the earlier ones. One that disagrees with it means that the remote clock was
        set, or goes another way: it and all before it tell nothing any more, and if it was set ahead, nor do those
        between, which may have been read on either side of the step."""
        newest = self._readings[-1]
        least, most = newest.least, newest.most
        kept: list[_Bounds] = [newest]
        for reading in itertools.islice(reversed(self._readings), 1, None):
            age_ns = now_ns - reading.read_ns
            if age_ns > self.KEEP_NS:
                break
            drift = drift_us(age_ns)
            if newest.least > reading.most + drift:
                self.leapt_us += newest.most - (reading.least - drift)
                least, most, kept = newest.least, newest.most, [newest]
                break
            low, high = max(least, reading.least - drift), min(most, reading.most + drift)
            if low > high:
                break
            least, most = low, high
            kept.append(reading)
        if len(kept) == 1 < len(self._readings):
            self._unbroken_ns = newest.read_ns
        if len(kept) < len(self._readings):
            self._readings = deque(reversed(kept), maxlen=self.KEEP)
        self._offset_us, self._doubt_us = (least + most) // 2, (most - least + 1) // 2

    def forget(self) -> None:
        """Drops every reading: the remote clock was found wrong."""
        self._readings.clear()
        self._since_ns = None

    def at_us(self, monotonic_ns: int) -> int:
        """The remote time at a moment of the monotonic clock; without a reading, this machine's wall clock."""
        if not self._readings:
            return wall_ns() // 1000 - (self._monotonic_ns() - monotonic_ns) // 1000
        return monotonic_ns // 1000 + self._offset_us

    def now_us(self) -> int:
        return self.at_us(self._monotonic_ns())

    def when_ns(self, remote_us: int) -> int:
        """The monotonic moment at which the remote clock showed `remote_us`."""
        return (remote_us - self.at_us(0)) * 1000

    @property
    def uncertainty_us(self) -> int:
        """By how much `at_us` may be off, either way; a second where nothing was ever read."""
        if not self._readings:
            return 1_000_000
        return self._doubt_at_us(self._monotonic_ns())

    def _doubt_at_us(self, now_ns: int) -> int:
        """What the readings leave open, and how far the clocks may have parted since the last one."""
        return self._doubt_us + drift_us(now_ns - self._readings[-1].read_ns)


class Pace:
    """At most `most` times in any second."""

    def __init__(self, most: int, monotonic_ns: Monotonic = monotonic_ns) -> None:
        self._monotonic_ns = monotonic_ns
        self._times: deque[int] = deque(maxlen=most)

    def may(self) -> bool:
        """Whether it may be done now; if so, it counts as done."""
        now_ns = self._monotonic_ns()
        if len(self._times) == self._times.maxlen and now_ns - self._times[0] < 1_000_000_000:
            return False
        self._times.append(now_ns)
        return True


def drift_us(span_ns: int) -> int:
    """How far two clocks may part within a span, rounded up."""
    return -(-span_ns * DRIFT_PER_S_US // 1_000_000_000)
