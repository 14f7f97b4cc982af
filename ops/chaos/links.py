"""Links that can be hurt: a TCP proxy for each way between two processes."""

from __future__ import annotations

import asyncio
import contextlib
import struct
from socket import SO_LINGER, SOL_SOCKET


class Link:
    """A TCP proxy on a port of its own that can stall, break or lose what passes.

    `delay_s` holds every piece back; `down` breaks each new connection at once; `blackhole` passes nothing and says
    nothing; `swallow` loses the next answer and everything after it on that connection; `cut_after` breaks a connection
    after so many bytes of answer. `lost_bytes` and `turned_away` count what was lost, and connections that were broken.
    """

    def __init__(self, upstream: int) -> None:
        self.upstream = upstream
        self.lost_bytes = self.turned_away = 0
        self.port = 0
        self.heal()
        self._pairs: set[tuple[asyncio.StreamWriter, asyncio.StreamWriter]] = set()

    async def open(self) -> None:
        self._server = await asyncio.start_server(self._carry, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]

    def heal(self) -> None:
        self.delay_s, self.blackhole, self.swallow, self.down = 0.0, False, False, False
        self.cut_after: int | None = None

    @property
    def healthy(self) -> bool:
        return not (self.delay_s or self.blackhole or self.down or self.swallow or self.cut_after is not None)

    def reset(self) -> None:
        """Breaks every connection with RST."""
        for pair in list(self._pairs):
            for writer in pair:
                held = writer.get_extra_info("socket")
                if held is not None:
                    with contextlib.suppress(OSError):
                        held.setsockopt(SOL_SOCKET, SO_LINGER, struct.pack("ii", 1, 0))
                writer.transport.abort()

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self.down:
            self.turned_away += 1
            writer.transport.abort()
            return
        try:
            up_reader, up_writer = await asyncio.open_connection("127.0.0.1", self.upstream)
        except OSError:
            writer.transport.abort()
            return
        pair = (writer, up_writer)
        self._pairs.add(pair)
        ways = [
            asyncio.ensure_future(self._pump(reader, up_writer, False)),
            asyncio.ensure_future(self._pump(up_reader, writer, True)),
        ]
        try:
            # Either side's end ends both: what is still on its way is lost with the connection.
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for way in ways:
                way.cancel()
            self._pairs.discard(pair)
            for one in pair:
                one.transport.abort()

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, answers: bool) -> None:
        lost = False
        with contextlib.suppress(OSError):
            while piece := await reader.read(65_536):
                if self.delay_s:
                    await asyncio.sleep(self.delay_s)
                if answers and self.swallow:
                    self.swallow, lost = False, True
                if lost or self.blackhole:
                    lost = True  # bytes of a stream cannot be missing in the middle
                    self.lost_bytes += len(piece)
                    continue
                if answers and self.cut_after is not None:
                    piece, left = piece[: self.cut_after], self.cut_after - len(piece)
                    self.cut_after = None if left <= 0 else left
                    if left <= 0:
                        writer.write(piece)
                        return
                writer.write(piece)
                await writer.drain()

    async def close(self) -> None:
        self._server.close()
        self.reset()
