"""Plain clients of the three private order streams, on the `websockets` package: they sign, say and read, no more.

Nothing here waits for time to pass: whether something was *not* sent is seen by what comes instead (`quiet`).
"""

import asyncio
import gzip
import hmac
from base64 import b64encode
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import orjson
from websockets.asyncio.client import ClientConnection, connect

from cancelq_worker.simulator import RunningSimulator

KEY, SECRET, PASSPHRASE = "sim-key", "sim-secret", "sim-pass"
PATIENCE_S = 20


class Client:
    """One connection; `says` sends an object or a text, `hears` takes the next message apart."""

    path = ""

    def __init__(self, socket: ClientConnection, server: RunningSimulator) -> None:
        self.socket = socket
        self.server = server

    @property
    def now_ms(self) -> int:
        """The venue's clock."""
        core = self.server.simulator.core
        core.tick()
        return core.venue_us() // 1000

    async def says(self, message: Any) -> None:
        await self.socket.send(message if isinstance(message, str) else orjson.dumps(message).decode())

    async def raw(self) -> str | bytes:
        return await asyncio.wait_for(self.socket.recv(), PATIENCE_S)

    async def hears(self) -> Any:
        return orjson.loads(await self.raw())

    async def asks(self, message: Any) -> Any:
        await self.says(message)
        return await self.hears()

    async def closed(self) -> int | None:
        """Reads until the venue ends the connection; the close code, None if it broke."""
        await asyncio.wait_for(self.socket.wait_closed(), PATIENCE_S)
        return None if self.socket.protocol.close_rcvd is None else self.socket.protocol.close_rcvd.code


class BitgetClient(Client):
    path = "/v2/ws/private"

    async def login(self, **changed: Any) -> Any:
        return await self.asks({"op": "login", "args": [{**self.claim(), **changed}]})

    def claim(self, key: str = KEY, secret: str = SECRET, passphrase: str = PASSPHRASE, stamp: str = "") -> Any:
        stamp = stamp or str(self.now_ms // 1000)
        digest = hmac.digest(secret.encode(), f"{stamp}GET/user/verify".encode(), "sha256")
        sign = b64encode(digest).decode()
        return {"apiKey": key, "passphrase": passphrase, "timestamp": stamp, "sign": sign}

    async def subscribe(self, channel: str = "orders", inst_id: str = "default") -> Any:
        arg = {"instType": "SPOT", "channel": channel, "instId": inst_id}
        return await self.asks({"op": "subscribe", "args": [arg]})

    async def quiet(self) -> None:
        """Nothing was sent before the answer to this."""
        await self.says("ping")
        assert await self.raw() == "pong"


class BybitClient(Client):
    path = "/v5/private"

    async def login(self, key: str = KEY, secret: str = SECRET, ahead_ms: int = 5_000, **named: Any) -> Any:
        expires = self.now_ms + ahead_ms
        sign = hmac.digest(secret.encode(), f"GET/realtime{expires}".encode(), "sha256").hex()
        return await self.asks({"op": "auth", "args": [key, expires, sign], **named})

    async def subscribe(self, *topics: str, **named: Any) -> Any:
        return await self.asks({"op": "subscribe", "args": list(topics), **named})

    async def quiet(self) -> None:
        """Nothing was sent before the answer to this."""
        assert (await self.asks({"op": "ping"}))["op"] == "pong"


class BingxClient(Client):
    path = "/market"

    async def hears(self) -> Any:
        """Every frame is gzip; a text is given as it is."""
        frame = await self.raw()
        assert isinstance(frame, bytes)
        text = gzip.decompress(frame)
        return orjson.loads(text) if text[:1] == b"{" else text.decode()

    async def subscribe(self, **changed: Any) -> Any:
        return await self.asks({"id": "a-1", "reqType": "sub", "dataType": "spot.executionReport", **changed})

    async def quiet(self) -> None:
        """Nothing was sent before the answer to this."""
        assert await self.asks("Ping") == "Pong"


@asynccontextmanager
async def bitget_client(server: RunningSimulator) -> AsyncIterator[BitgetClient]:
    async with connect(server.ws_url + BitgetClient.path, proxy=None) as socket:
        yield BitgetClient(socket, server)


@asynccontextmanager
async def bybit_client(server: RunningSimulator, query: str = "") -> AsyncIterator[BybitClient]:
    async with connect(server.ws_url + BybitClient.path + query, proxy=None) as socket:
        yield BybitClient(socket, server)


@asynccontextmanager
async def bingx_client(server: RunningSimulator, listen_key: str) -> AsyncIterator[BingxClient]:
    async with connect(f"{server.ws_url}{BingxClient.path}?listenKey={listen_key}", proxy=None) as socket:
        yield BingxClient(socket, server)
