"""A TCP proxy that loses one reply: what was asked is passed on and done, its answer is lost with the connection."""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import Callable

QUIET_S = 0.05  # without a byte for that long, everything that was asked has been answered

#: Whether the answer `reply` to the request bytes `asked` is the one to be lost; asked for every piece of an answer.
Loses = Callable[[bytes, bytes], bool]


class LossyLink:
    """A port in front of another; `lost` tells how many replies were."""

    def __init__(self, upstream: int, loses: Loses) -> None:
        self._upstream = upstream
        self._loses = loses
        self._tasks: set[asyncio.Task[None]] = set()
        self.port = 0
        self.lost = 0

    async def open(self) -> None:
        self._server = await asyncio.start_server(self._carry, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]

    async def close(self) -> None:
        self._server.close()
        for task in list(self._tasks):
            task.cancel()

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        with contextlib.suppress(OSError, asyncio.CancelledError):
            up_reader, up_writer = await asyncio.open_connection("127.0.0.1", self._upstream)
            pair = _Pair(self, self._loses)
            ways = [
                asyncio.ensure_future(pair.asks(reader, up_writer)),
                asyncio.ensure_future(pair.answers(up_reader, writer)),
            ]
            try:
                await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for way in ways:
                    way.cancel()
                up_writer.transport.abort()
        writer.transport.abort()


class _Pair:
    """One connection and the two ways on it."""

    def __init__(self, link: LossyLink, loses: Loses) -> None:
        self._link = link
        self._loses = loses
        self._asked = b""

    async def asks(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while piece := await reader.read(1_000_000):
                self._asked = (self._asked + piece)[-2_000_000:]
                writer.write(piece)
                await writer.drain()

    async def answers(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while piece := await reader.read(1_000_000):
                if self._loses(self._asked, piece):
                    self._link.lost += 1
                    await self._drain(reader)
                    return
                self._asked = b""
                writer.write(piece)
                await writer.drain()

    async def _drain(self, reader: asyncio.StreamReader) -> None:
        """Whatever else was asked in the same breath is done, too."""
        with contextlib.suppress(TimeoutError):
            while await asyncio.wait_for(reader.read(1_000_000), QUIET_S):
                pass


def granted(flow: str) -> re.Pattern[bytes]:
    """Found in the reply of a take that grants a batch of this flow's stage: its route and its stage."""
    stage = b"l" if flow in ("look", "list") else b"c"
    return re.compile(rb"\*\d+\r\n\$\d+\r\n[A-Za-z-]+\r\n\$1\r\n" + stage + rb"\r\n")
