"""A process that is too slow for its own takes must not take all the faster.

A call that comes too late to be sent is given back, and what it carried is due at once. On a host that is overloaded
the next take would come too late as well, and taking and giving back would be all that is done, which keeps the host
overloaded. So each late call in a row makes its lane wait twice as long; one that was sent ends that.

Nor must many be too much for their server together: where rounds stand in line there, each of four calls, what was
granted is too late when it comes. The longer a round stood in line, the fewer calls the next one asks for.
"""

from __future__ import annotations

from collections.abc import Callable
from math import inf

from cancelq_worker.clocks import monotonic_ns

FIRST_NS, MOST_NS = 20_000_000, 1_000_000_000
TAKES = 4  # in one round under backlog
IN_LINE_NS = 200_000_000  # rounds that stood in line for a fourth of it ask for all of them, for all of it for one


class Breath:
    """One lane's: for how long it takes nothing, and for how many calls a round may ask."""

    def __init__(self, clock_ns: Callable[[], int] = monotonic_ns) -> None:
        self._clock_ns = clock_ns
        self._in_a_row = 0
        self._until_ns = 0
        self._fastest_ns: float = inf
        self._in_line_ns = 0.0

    def round_took(self, took_ns: int) -> None:
        """A round came back. What the fastest one took is the way, which may be long; the rest it stood in line."""
        self._fastest_ns = min(self._fastest_ns, took_ns)
        self._in_line_ns = took_ns - self._fastest_ns

    @property
    def takes(self) -> int:
        """For how many calls a round may ask."""
        return min(TAKES, max(1, int(IN_LINE_NS / max(1.0, self._in_line_ns))))

    def late(self) -> None:
        """A call was given back, as it came too late."""
        self._until_ns = self._clock_ns() + min(MOST_NS, FIRST_NS * 2 ** min(self._in_a_row, 10))
        self._in_a_row += 1

    def sent(self) -> None:
        """A call was in time."""
        self._in_a_row = 0

    @property
    def left_us(self) -> int:
        """For how long no call is to be taken."""
        return max(0, self._until_ns - self._clock_ns()) // 1000
