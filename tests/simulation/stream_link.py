"""The way to the venues' private order streams: a connection without a socket, in virtual time, that can break."""

from __future__ import annotations

import asyncio
import random
from collections import deque
from typing import Any, Self
from urllib.parse import urlsplit

from websockets.exceptions import ConnectionClosedError

from cancelq_worker.simulator.simulator import Simulator
from cancelq_worker.simulator.streams.hub import NoStreamError, TooManyStreamsError
from cancelq_worker.simulator.streams.session import Frame, Session
from tests.simulation.loop import Process, VirtualLoop


class StreamLink:
    """One worker's connections to order streams."""

    def __init__(self, loop: VirtualLoop, venue: Process, simulator: Simulator, rng: random.Random, ip: str) -> None:
        self.loop = loop
        self.venue = venue
        self.simulator = simulator
        self.ip = ip
        self.silent = False
        self.refused = False
        self._rng = rng
        self._open: list[VirtualSocket] = []

    def open_socket(self, address: str, **_: Any) -> Any:
        """As websockets' `connect` is used."""
        return VirtualSocket(self, address)

    def way_s(self) -> float:
        return 0.0005 + 0.01 * self._rng.random()

    def cut(self) -> None:
        """Every connection breaks."""
        for socket in list(self._open):
            socket.abort()

    def heal(self) -> None:
        self.silent = self.refused = False

    def joined(self, socket: VirtualSocket) -> None:
        self._open.append(socket)

    def left(self, socket: VirtualSocket) -> None:
        if socket in self._open:
            self._open.remove(socket)


class VirtualSocket:
    """Both ends of a connection: the worker's `send` and `recv`, the venue's `send`, `close` and `abort`."""

    def __init__(self, link: StreamLink, address: str) -> None:
        self._link = link
        self._address = urlsplit(address)
        self._frames: deque[Frame] = deque()
        self._reader: asyncio.Future[None] | None = None
        self._session: Session | None = None
        self._there_s = self._back_s = 0.0
        self._broken = False

    async def __aenter__(self) -> Self:
        link, parts = self._link, self._address
        await asyncio.sleep(2 * link.way_s())
        if link.refused or link.silent:
            raise OSError("connection refused")
        try:
            self._session = link.simulator.streams.open(parts.path.encode(), parts.query, link.ip, _Line(self))
        except (NoStreamError, TooManyStreamsError) as error:
            raise OSError(str(error)) from None
        link.joined(self)
        return self

    async def __aexit__(self, *_: object) -> None:
        self.abort()

    async def send(self, text: str) -> None:
        if self._broken:
            raise ConnectionClosedError(None, None)
        if not self._link.silent:
            self._there_s = max(self._there_s, self._link.loop.time() + self._link.way_s())
            self._link.loop.at(self._link.venue, self._there_s, self._heard, text)

    def _heard(self, text: str) -> None:
        if self._session is not None:
            self._session.received(text)

    async def recv(self) -> Frame:
        while not self._frames:
            if self._broken:
                raise ConnectionClosedError(None, None)
            self._reader = self._link.loop.create_future()
            await self._reader
        return self._frames.popleft()

    # -- from the venue's side ----------------------------------------------------------------------------------------

    def leave_venue(self, frame: Frame | None) -> None:
        """A frame, or the end of the connection, is on its way to the worker."""
        link = self._link
        if not link.silent:
            self._back_s = max(self._back_s, link.loop.time() + link.way_s())
            link.loop.at(link.venue, self._back_s, self._came, frame)

    def _came(self, frame: Frame | None) -> None:
        if frame is None:
            self.abort()
        elif not self._broken:
            self._frames.append(frame)
            self._stir()

    def abort(self) -> None:
        self._broken = True
        self._link.left(self)
        session, self._session = self._session, None
        if session is not None:
            self._link.simulator.streams.leave(session)
        self._stir()

    def _stir(self) -> None:
        if self._reader is not None and not self._reader.done():
            self._reader.set_result(None)


class _Line:
    """What the venue's session writes to."""

    def __init__(self, socket: VirtualSocket) -> None:
        self._socket = socket

    def send(self, frame: Frame) -> None:
        self._socket.leave_venue(frame)

    def close(self, code: int, reason: str) -> None:
        self._socket.leave_venue(None)

    def abort(self) -> None:
        self._socket.leave_venue(None)
