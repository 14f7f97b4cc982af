"""Time as an argument: the system's own, or one that stands still until it is moved."""

import time
from typing import Protocol


class Clock(Protocol):
    """Two readings of one time, both in microseconds."""

    def steady_us(self) -> int:
        """A count that never runs backwards; only differences mean anything."""
        ...

    def wall_us(self) -> int:
        """UTC since the epoch."""
        ...


class SystemClock:
    """The machine's clocks. The wall clock may jump, the steady one does not."""

    def steady_us(self) -> int:
        return time.monotonic_ns() // 1000

    def wall_us(self) -> int:
        return time.time_ns() // 1000


class ManualClock:
    """A clock that moves only by `advance`, for tests and for simulations on virtual time."""

    def __init__(self, wall_ms: int = 1_700_000_000_000) -> None:
        self._wall_us = wall_ms * 1000
        self._steady_us = 0

    def steady_us(self) -> int:
        return self._steady_us

    def wall_us(self) -> int:
        return self._wall_us

    def advance(self, *, ms: int = 0, us: int = 0) -> None:
        """Moves both readings forward. Raises `ValueError` for a step backwards."""
        step_us = ms * 1000 + us
        if step_us < 0:
            raise ValueError("a clock cannot be moved backwards")
        self._steady_us += step_us
        self._wall_us += step_us
