"""What an order stream takes of the limits that a venue counts per address: a place while its connection is open, and
a unit for each connection that is opened. A lane that gets none goes without its stream: look-ups confirm.

Places are given to whoever asks first. All that wait ask at the same pace, so that chance decides between them.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator

from redis.exceptions import RedisError

from cancelq_worker.clocks import monotonic_ns
from cancelq_worker.egress import Egress
from cancelq_worker.venues.port import OrderStream


class AddressFull(Exception):
    """One stream more would pass a limit of our address; the message is the limit's name."""


class StreamPlace:
    """One stream's place. `holder`: a name that no other stream of the fleet has."""

    def __init__(self, egress: Egress, stream: OrderStream, holder: str) -> None:
        self._egress = egress
        self._stream = stream
        self._holder = holder

    async def hold(self) -> bool:
        """Takes the place, or keeps it a little longer; False if Redis is away. Raises AddressFull."""
        try:
            held = await self._egress.hold_socket(self._stream.sockets, self._holder)
        except (RedisError, OSError):
            return False
        if not held:
            raise AddressFull(self._stream.sockets)
        return True

    async def leave(self) -> None:
        """The connection is closed."""
        with contextlib.suppress(RedisError, OSError):  # then its lease ends it
            await self._egress.leave_socket(self._stream.sockets, self._holder)

    @contextlib.asynccontextmanager
    async def connecting(self) -> AsyncIterator[None]:
        """Around the opening of a connection, which counts whether it succeeds or not. Raises AddressFull."""
        connects = self._stream.connects
        ticket = await self._egress.rarely((connects,) if connects else ())
        if ticket is None:
            raise AddressFull(connects)
        opened = False
        try:
            yield
            opened = True
        finally:
            await self._egress.rare_ended(ticket, monotonic_ns(), answered=opened)
