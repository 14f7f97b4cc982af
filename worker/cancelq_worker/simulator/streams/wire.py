"""The streams on a socket: an ASGI websocket carries a session, and can be broken as a network breaks it."""

import asyncio
from typing import Any

from starlette.types import Receive, Scope, Send
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.http11 import Request

from cancelq_worker.simulator.streams.hub import Hub, NoStreamError, TooManyStreamsError
from cancelq_worker.simulator.streams.session import Frame

TRANSPORT = "cancelq.transport"
# A client that reads nothing is cut off, so that it cannot fill the memory.
MOST_UNSENT = 10_000


class StreamProtocol(WebSocketsSansIOProtocol):
    """uvicorn's own, but the app can reach the connection: it has to be able to break it."""

    def handle_connect(self, event: Request) -> None:
        super().handle_connect(event)
        # A handshake that is refused on the spot has no scope.
        if hasattr(self, "scope"):
            self.scope["extensions"][TRANSPORT] = {"transport": self.transport}


async def converse(hub: Hub, scope: Scope, receive: Receive, send: Send, ip: str) -> None:
    """Serves one connection until either side ends it."""
    await receive()
    wire = _Wire(scope["extensions"][TRANSPORT]["transport"])
    try:
        session = hub.open(scope["raw_path"], scope["query_string"].decode("latin-1"), ip, wire)
    except NoStreamError:
        await _refuse(send, 404)
        return
    except TooManyStreamsError:
        await _refuse(send, 429)
        return
    await send({"type": "websocket.accept"})
    writer = asyncio.create_task(wire.write(send))
    try:
        while (message := await receive())["type"] == "websocket.receive":
            text = message.get("text")
            session.received(text if text is not None else message["bytes"])
    finally:
        hub.leave(session)
        writer.cancel()
        await asyncio.wait([writer])


class _Wire:
    """The line of one session: what it sends waits here for the socket."""

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self._unsent: asyncio.Queue[dict[str, Any]] = asyncio.Queue()

    def send(self, frame: Frame) -> None:
        if self._unsent.qsize() >= MOST_UNSENT:
            self.abort()
        else:
            self._unsent.put_nowait({"type": "websocket.send", "text" if isinstance(frame, str) else "bytes": frame})

    def close(self, code: int, reason: str) -> None:
        self._unsent.put_nowait({"type": "websocket.close", "code": code, "reason": reason})

    def abort(self) -> None:
        self._transport.abort()

    async def write(self, send: Send) -> None:
        """Sends until the session closes, or the connection is gone."""
        try:
            while (message := await self._unsent.get())["type"] == "websocket.send":
                await send(message)
            await send(message)
        except OSError:
            # Whoever reads learns it too, and ends the session.
            return


async def _refuse(send: Send, status: int) -> None:
    await send({"type": "websocket.http.response.start", "status": status, "headers": []})
    await send({"type": "websocket.http.response.body", "body": b""})
