"""The simulator on a socket: one process, one port, HTTP/1.1 and websockets, and every way an answer can fail to
arrive.
"""

import asyncio
import gc
import os
import random
import signal
import socket
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import uvloop
from starlette.types import Receive, Scope, Send
from uvicorn import Config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

from cancelq_worker.simulator.control import control_app
from cancelq_worker.simulator.core import Core, Request
from cancelq_worker.simulator.faults import JSON, Delivery, Reply
from cancelq_worker.simulator.simulator import DEMO_KEY, DEMO_PASSPHRASE, DEMO_SECRET, DEMO_UID, Simulator
from cancelq_worker.simulator.streams.session import Session
from cancelq_worker.simulator.streams.wire import TRANSPORT, StreamProtocol, converse

LOOPBACK = "127.0.0.1"
LARGEST_BODY = 1_048_576
HUGE_PIECE = b" " * 65_536
DRIP_PIECES = 20
# Longer than any pool keeps a connection, so that it is never the simulator that closes an idle one.
KEEP_ALIVE_S = 75
LARGEST_FRAME = 65_536
# A loop's timers may ring a little early; the next look must not come before the clock has moved.
SHORTEST_ALARM_S = 0.001


class _Protocol(HttpToolsProtocol):
    """uvicorn's own, but the app can reach the connection: it has to be able to break it."""

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self.scope["extensions"] = {TRANSPORT: {"transport": self.transport}}


class SimulatorApp:
    """The ASGI app: control calls under /sim/, all other paths belong to the venues, websockets to their streams."""

    def __init__(self, simulator: Simulator) -> None:
        self._simulator = simulator
        self._control = control_app(simulator)
        self._pauses: set[asyncio.Future[None]] = set()
        self._closing = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":
            await converse(self._simulator.streams, scope, receive, send, _ip(scope))
            return
        if scope["type"] != "http":
            return
        if scope["raw_path"].startswith(b"/sim/"):
            await self._control(scope, receive, send)
            return
        body = await _body(receive)
        if body is None:
            await _send(send, Reply(413, b""))
            return
        request = _request(scope, body)
        simulator = self._simulator
        await self._pause(simulator.way_in_s())
        reply = simulator.call(request)
        while reply.resume is not None:
            await self._pause(reply.delay_ms / 1000)
            reply = reply.resume()
        await self._pause(simulator.way_out_s())
        if reply.delivery is Delivery.answer:
            await self._pause(reply.delay_ms / 1000)
            await _send(send, reply)
        else:
            await self._break(reply, scope, receive, send)

    def close(self) -> None:
        """Ends all waiting at once."""
        self._closing = True
        for pause in self._pauses:
            if not pause.done():
                pause.set_result(None)

    async def _pause(self, seconds: float) -> None:
        if not seconds or self._closing:
            return
        loop = asyncio.get_running_loop()
        pause: asyncio.Future[None] = loop.create_future()
        self._pauses.add(pause)
        timer = loop.call_later(seconds, _wake, pause)
        try:
            await pause
        finally:
            timer.cancel()
            self._pauses.discard(pause)

    async def _break(self, reply: Reply, scope: Scope, receive: Receive, send: Send) -> None:
        transport: asyncio.Transport = scope["extensions"][TRANSPORT]["transport"]
        match reply.delivery:
            case Delivery.half:
                await send(_head(reply, len(reply.body)))
                await send(_part(reply.body[: len(reply.body) // 2]))
            case Delivery.hang:
                await self._pause(reply.delay_ms / 1000)
            case Delivery.drip:
                await self._drip(reply, send)
                return
            case Delivery.huge:
                await _flood(reply, transport, send)
                return
            case Delivery.reset:
                _linger_not(transport)
                transport.abort()
            case Delivery.close | Delivery.answer:
                pass
        transport.close()
        # uvicorn takes an app that returns early for a faulty one, unless the connection is gone by then.
        while (await receive())["type"] != "http.disconnect":
            pass

    async def _drip(self, reply: Reply, send: Send) -> None:
        await send(_head(reply, len(reply.body)))
        size = max(1, -(-len(reply.body) // DRIP_PIECES))
        for at in range(0, len(reply.body), size):
            await self._pause(reply.delay_ms / 1000 / DRIP_PIECES)
            await send(_part(reply.body[at : at + size]))
        await send(_part(b"", more=False))


async def _flood(reply: Reply, transport: asyncio.Transport, send: Send) -> None:
    """The answer behind a huge lot of blanks: still JSON, if somebody reads it all."""
    size = max(reply.size_bytes, len(reply.body))
    await send(_head(reply, size))
    left = size - len(reply.body)
    while left and not transport.is_closing():
        piece = HUGE_PIECE[:left]
        left -= len(piece)
        await send(_part(piece))
        # uvicorn holds the sender back only once its buffer is full; others have to get their turn before.
        await asyncio.sleep(0)
    await send(_part(reply.body, more=False))


def _wake(pause: asyncio.Future[None]) -> None:
    if not pause.done():
        pause.set_result(None)


def _linger_not(transport: asyncio.Transport) -> None:
    """Makes the next close of the connection a reset (RST instead of FIN)."""
    held = transport.get_extra_info("socket")
    if held is None or held.fileno() < 0:  # the client was faster
        return
    with socket.socket(fileno=os.dup(held.fileno())) as same:
        same.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def _request(scope: Scope, body: bytes) -> Request:
    headers = dict(scope["headers"])
    return Request(scope["method"], scope["raw_path"], scope["query_string"], headers, body, _ip(scope))


def _ip(scope: Scope) -> str:
    """The client's address, or the one it claims to speak for."""
    for name, value in scope["headers"]:
        if name == b"x-forwarded-for" and value:
            return str(value.partition(b",")[0].strip(), "latin-1")
    return str(scope["client"][0]) if scope["client"] else LOOPBACK


async def _body(receive: Receive) -> bytes | None:
    """The whole body, or None if it is larger than any call's."""
    message = await receive()
    body: bytes = message.get("body", b"")
    while message.get("more_body", False):
        message = await receive()
        body += message.get("body", b"")
        if len(body) > LARGEST_BODY:
            return None
    return body


async def _send(send: Send, reply: Reply) -> None:
    await send(_head(reply, len(reply.body)))
    await send({"type": "http.response.body", "body": reply.body})


def _head(reply: Reply, length: int) -> dict[str, Any]:
    return {
        "type": "http.response.start",
        "status": reply.status,
        "headers": [
            (b"content-type", reply.content_type or JSON),
            (b"content-length", b"%d" % length),
            *reply.headers,
        ],
    }


def _part(body: bytes, *, more: bool = True) -> dict[str, Any]:
    return {"type": "http.response.body", "body": body, "more_body": more}


class _Alarm:
    """Has the core do what is due although no call comes: pushes are for those who wait."""

    def __init__(self, core: Core) -> None:
        self._core = core
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        core.alarm = self._set
        self._set()

    def stop(self) -> None:
        self._core.alarm = None
        if self._timer is not None:
            self._timer.cancel()

    def _set(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        left_us = self._core.until_due_us()
        if left_us is None:
            self._timer = None
        else:
            self._timer = self._loop.call_later(max(SHORTEST_ALARM_S, left_us / 1e6), self._ring)

    def _ring(self) -> None:
        try:
            self._core.tick()
        finally:
            self._set()


class RunningSimulator:
    """A simulator that listens. `base_url` and `ws_url` have no slash at their ends."""

    def __init__(self, simulator: Simulator, host: str, port: int) -> None:
        self.simulator = simulator
        self.host = host
        self.port = port

    @property
    def base_url(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"http://{host}:{self.port}"

    @property
    def ws_url(self) -> str:
        """Where the streams are: append a venue's own path, as `/v2/ws/private`."""
        return f"ws{self.base_url.removeprefix('http')}"

    async def subscribed(self, venue: str) -> None:
        """Returns once a client is subscribed at the venue's private stream; at once if one is."""
        hub, done = self.simulator.streams, asyncio.Event()

        def look(session: Session) -> None:
            if session.venue == venue:
                done.set()

        hub.joined.append(look)
        try:
            if not hub.has_subscribers(venue):
                await done.wait()
        finally:
            hub.joined.remove(look)


@asynccontextmanager
async def serve(simulator: Simulator, host: str = LOOPBACK, port: int = 0) -> AsyncIterator[RunningSimulator]:
    """Serves the simulator in the running event loop; port 0 takes a free one. Raises `OSError` if it is
    taken.

    Leaving the block breaks whatever is still under way.
    """
    app = SimulatorApp(simulator)
    config = Config(
        app,
        http=_Protocol,
        ws=StreamProtocol,
        # Heartbeats are the venues' own; what keeps a connection alive, or fails to, is part of the rehearsal.
        ws_ping_interval=None,
        ws_ping_timeout=None,
        ws_per_message_deflate=False,
        ws_max_size=LARGEST_FRAME,
        lifespan="off",
        log_config=None,
        access_log=False,
        timeout_keep_alive=KEEP_ALIVE_S,
    )
    config.load()
    state = ServerState()
    loop = asyncio.get_running_loop()
    server = await loop.create_server(
        lambda: _Protocol(config=config, server_state=state, app_state={}), host, port, backlog=1024
    )
    alarm = _Alarm(simulator.core)
    try:
        yield RunningSimulator(simulator, host, server.sockets[0].getsockname()[1])
    finally:
        alarm.stop()
        server.close()
        app.close()
        for connection in list(state.connections):
            connection.transport.abort()
        if state.tasks:
            await asyncio.wait(state.tasks)
        await server.wait_closed()


def run(
    port: int,
    host: str = LOOPBACK,
    *,
    simulator: Simulator | None = None,
    seed: int | None = None,
) -> None:
    """Serves until TERM or INT, in a loop of its own. Raises `OSError` if the port is taken."""
    served = simulator or Simulator(rng=random.Random(seed))
    # Orders live as long as the process, and there may be millions: looking through them for garbage again
    # and again would take a good part of the time.
    gc.collect()
    gc.freeze()
    gc.set_threshold(5_000, 20, 100)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_run(served, host, port))


async def _run(simulator: Simulator, host: str, port: int) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    async with serve(simulator, host, port) as running:
        print(_greeting(running), flush=True)
        await stop.wait()


def _greeting(running: RunningSimulator) -> str:
    url = running.base_url
    return "\n".join(
        [
            f"Simulated venues ({', '.join(running.simulator.venues)}) on {url}",
            "",
            f"  account   key {DEMO_KEY}, secret {DEMO_SECRET}, passphrase {DEMO_PASSPHRASE}, uid {DEMO_UID}",
            "  worker    " + "\n            ".join(_worker_variables(running)),
            f"  orders    curl -s {url}/sim/orders -d '{{\"count\": 100}}'",
            f'  trouble   curl -s {url}/sim/faults -d \'{{"kind": "execute_and_drop"}}\'',
            f"  slowness  curl -s {url}/sim/settings -d '{{\"latency_before_ms\": [20, 60]}}'",
            f"  streams   {running.ws_url}/v2/ws/private   {running.ws_url}/v5/private   {running.ws_url}/market",
            f"  truth     curl -s {url}/sim/truth     calls  curl -s {url}/sim/calls",
            f"  rates     curl -s {url}/sim/rates",
            "",
            "Ctrl-C ends it. Nothing here reaches a real venue.",
        ]
    )


def _worker_variables(running: RunningSimulator) -> list[str]:
    variables = []
    for venue in running.simulator.venues:
        account = f"CANCELQ_ACCOUNTS__{venue.upper()}__MAIN__"
        variables += [
            f"{account}BASE_URL={running.base_url}",
            f"{account}API_KEY={DEMO_KEY}",
            f"{account}API_SECRET={DEMO_SECRET}",
        ]
        if venue == "bitget":
            variables.append(f"{account}PASSPHRASE={DEMO_PASSPHRASE}")
    return variables
