"""Rounds under way to one server: so many at once of all lanes of a process, what is urgent first.

What a round is granted must leave within half a second of it. A thousand busy lanes that waited for a connection within
that time were granted calls that came too late; they wait here, before they have asked for anything.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

AT_ONCE = 16  # more keep neither the server nor this process busier
IN_A_ROW = 3  # urgent ones that go before another, so that nothing waits for ever


class Rounds:
    """The turns of one process at one server."""

    def __init__(self, at_once: int = AT_ONCE) -> None:
        self._free = at_once
        self._urgent: deque[asyncio.Future[None]] = deque()
        self._others: deque[asyncio.Future[None]] = deque()
        self._in_a_row = 0

    @property
    def waiting(self) -> int:
        """How many wait for their turn; those that have ended meanwhile until their turn comes."""
        return len(self._urgent) + len(self._others)

    @asynccontextmanager
    async def turn(self, urgent: Callable[[], bool]) -> AsyncIterator[None]:
        """One round. `urgent`: asked for where it must wait."""
        if self._free:
            self._free -= 1
        else:
            await self._wait(self._urgent if urgent() else self._others)
        try:
            yield
        finally:
            self._leave()

    async def _wait(self, queue: deque[asyncio.Future[None]]) -> None:
        turn = asyncio.get_running_loop().create_future()
        queue.append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if not turn.cancelled():  # it was given just as its lane ended
                self._leave()
            raise

    def _leave(self) -> None:
        """The turn goes to the next one, or to nobody."""
        while self.waiting:
            hurried = self._urgent and not (self._others and self._in_a_row >= IN_A_ROW)
            turn = (self._urgent if hurried else self._others).popleft()
            if not turn.done():  # else its lane has ended
                self._in_a_row = self._in_a_row + 1 if hurried else 0
                turn.set_result(None)
                return
        self._free += 1
