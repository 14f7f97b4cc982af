"""How well a worker is, as its own words: whether its loop runs, and whether it serves its lanes.

Written by the event loop, read by the thread that answers `/livez` and `/readyz`: so that a loop which is stuck is told
and not hidden. Nothing here asks Redis or a venue.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from cancelq_worker import clocks

LOOP_STUCK_S = 5.0
HEARTBEAT_OLD_S = 3.0  # heartbeats are half a second apart; after 1.6 s others take the lanes over
LANES_TOLD = 20


class Health:
    """One worker's health. `stop`: set once it drains."""

    def __init__(self, stop: asyncio.Event, monotonic_ns: Callable[[], int] = clocks.monotonic_ns) -> None:
        self._stop = stop
        self._monotonic_ns = monotonic_ns
        self._looped_ns = monotonic_ns()
        self._beaten_ns: int | None = None
        self._away = ""
        self._not_open: Sequence[str] = ()
        self.lanes = 0
        self.refused = 0  # lanes whose data are newer than this worker reads
        self.workers = 0

    # -- told by the loop -------------------------------------------------------------------------------------

    def looped(self) -> None:
        """The loop runs."""
        self._looped_ns = self._monotonic_ns()

    def heartbeat(self, workers: int, lanes: int, not_open: Sequence[str]) -> None:
        """Redis took the heartbeat. `lanes`: how many fall to this worker; `not_open`: those it does not serve yet."""
        self._beaten_ns, self._away = self._monotonic_ns(), ""
        self.workers, self.lanes, self._not_open = workers, lanes, not_open

    def redis_away(self, error: Exception) -> None:
        """A heartbeat failed."""
        self._away = type(error).__name__

    # -- asked by anybody -------------------------------------------------------------------------------------

    @property
    def stuck_s(self) -> float:
        """For how long the loop has not run."""
        return max(0, self._monotonic_ns() - self._looped_ns) / 1e9

    @property
    def heartbeat_age_s(self) -> float | None:
        """How long ago Redis took the last heartbeat; None before the first."""
        return None if self._beaten_ns is None else max(0, self._monotonic_ns() - self._beaten_ns) / 1e9

    @property
    def draining(self) -> bool:
        return self._stop.is_set()

    def not_live(self) -> list[str]:
        """Why the process should be ended; empty while its loop runs."""
        stuck_s = self.stuck_s
        return [f"the event loop has not run for {stuck_s:.1f} s"] if stuck_s > LOOP_STUCK_S else []

    def not_ready(self) -> list[str]:
        """Why it does not serve its lanes, one reason each; empty while it does.

        A hold, a pause or a refused key is the lane's state and not this worker's: it is told by metrics.
        """
        reasons = self.not_live()
        if self.draining:
            reasons.append("draining: nothing new is taken")
        age_s = self.heartbeat_age_s
        if self._away:
            reasons.append(f"Redis cannot be reached: {self._away}")
        if age_s is None:
            reasons.append("no heartbeat yet: starting")
        elif age_s > HEARTBEAT_OLD_S:
            reasons.append(f"no heartbeat for {age_s:.1f} s")
        reasons += [f"lane not open: {name}" for name in self._not_open[:LANES_TOLD]]
        if len(self._not_open) > LANES_TOLD:
            reasons.append(f"lanes not open: {len(self._not_open) - LANES_TOLD} more")
        return reasons
