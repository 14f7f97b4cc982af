"""Why a BingX endpoint is closed to one UID for a while, and until when.

Two things close one: too many equal errors ("over 20 error code:… requests within 480000 ms for this api"), and,
if it is set so, a call over the limit ("the endpoint trigger frequency limit rule").
"""

from collections import defaultdict, deque
from typing import NamedTuple

from cancelq_worker.simulator.core import Core


class _Closed(NamedTuple):
    until_us: int
    why: str


class Doors:
    """One door per UID and endpoint, on the simulator's steady clock."""

    def __init__(self, core: Core) -> None:
        self._core = core
        self._closed: dict[tuple[str, str], _Closed] = {}
        self._errors: defaultdict[tuple[str, str, str], deque[int]] = defaultdict(deque)

    def why_closed(self, uid: str, endpoint: str) -> str:
        """What a call is told that comes to a closed door; "" if the door is open."""
        closed = self._closed.get((uid, endpoint))
        if closed is None:
            return ""
        if self._core.now_us >= closed.until_us:
            del self._closed[uid, endpoint]
            return ""
        return closed.why

    def over_limit(self, uid: str, endpoint: str) -> str:
        """A call found no room. Returns what it is told; closes the door if the settings say so."""
        block_ms = self._core.settings.bingx_rate_block_ms
        if not block_ms:
            return ""
        why = (
            "code:100410:The endpoint trigger frequency limit rule is currently in the disabled period"
            f" and will be unblocked after {self._ends_ms(block_ms)}"
        )
        self._close(uid, endpoint, block_ms, why)
        return why

    def count_error(self, uid: str, endpoint: str, code: str) -> None:
        """A call was answered with that business error; one too many of the same closes the door."""
        settings = self._core.settings
        most, window_ms = settings.bingx_error_lock_count, settings.bingx_error_lock_window_ms
        if not most:
            return
        now_us = self._core.now_us
        times = self._errors[uid, endpoint, code]
        times.append(now_us)
        while times[0] <= now_us - window_ms * 1000:
            times.popleft()
        if len(times) >= most:
            times.clear()
            lock_ms = settings.bingx_error_lock_ms
            why = (
                f"over {most} error code:{code} requests within {window_ms} ms for this api, please verify and fix it"
                f" ,can retry after time: {self._ends_ms(lock_ms)}"
            )
            self._close(uid, endpoint, lock_ms, why)

    def forget(self) -> None:
        self._closed.clear()
        self._errors.clear()

    def _close(self, uid: str, endpoint: str, for_ms: int, why: str) -> None:
        self._closed[uid, endpoint] = _Closed(self._core.now_us + for_ms * 1000, why)

    def _ends_ms(self, for_ms: int) -> int:
        # Rounded up, so that whoever comes at the very time that was told finds the door open.
        return -(-self._core.venue_us() // 1000) + for_ms
