"""A lane's private order stream: one connection, held by whichever worker has the lane's small lease.

A push tells an order's end at once and spares its look-up. It is never needed: pushes can be lost, so an
acknowledged order is looked up all the same when no push came. So a lane whose address has no connection left goes
without. Here is the I/O; what to say and what a frame means is the venue's (`OrderStream`), what a push means for
intents is the lane's.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import ssl
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import structlog
from redis.exceptions import RedisError
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import WebSocketException

from cancelq_worker.clocks import RemoteClock, monotonic_s
from cancelq_worker.http import NoAnswer, NotSent
from cancelq_worker.ledger import STREAM_LEASE_MS, Ledger
from cancelq_worker.records import StreamStep
from cancelq_worker.repeating import LEFT_OUT, repeats, secrets_of_login
from cancelq_worker.stream_place import AddressFull, StreamPlace
from cancelq_worker.venues.port import Answer, OrderStream, Push, Request

log = structlog.get_logger("cancelq.stream")

KEEP_S = STREAM_LEASE_MS / 4000  # the lease is renewed that often
IDLE_S = STREAM_LEASE_MS / 2000  # and asked for that often by a worker that does not hold it
OPEN_S = 5.0
LIVE_S = 10.0  # until the subscription must stand
FRAME_MOST = 1024 * 1024
BACKOFF_S, BACKOFF_MOST_S = 0.25, 30.0
REFUSED_S = 15.0  # before a refused login is tried again
FULL_S = 20.0  # before an address that had no connection left is asked for one again
KEY_PACE_S = 1.0  # between two requests for a listen key, of all workers: BingX answers two a second


#: Opens a connection to an address, with the options of websockets' own.
OpenSocket = Callable[..., contextlib.AbstractAsyncContextManager[ClientConnection]]


class StreamRefused(Exception):
    """The venue will not let us listen; the message is the venue's own, short and without a key."""


class StreamSilent(Exception):
    """Nothing was heard for longer than the venue may be silent, or the subscription never came to stand."""


@dataclass(frozen=True, slots=True)
class StreamParts:
    """What the stream of a lane is made of. `call` makes a signed call aside; `told` is given the pushes."""

    lane: str
    stream: OrderStream
    ws_url: str
    worker: str
    ledger: Ledger
    place: StreamPlace
    venue_clock: RemoteClock
    tls: ssl.SSLContext | None
    call: Callable[[Request], Awaitable[Answer]]
    told: Callable[[list[Push]], None]
    open_socket: OpenSocket = connect


class LaneStream:
    """Keeps the lane's stream if no other worker does, until stopped."""

    def __init__(self, parts: StreamParts) -> None:
        self._p = parts
        self._stopping = asyncio.Event()
        self._held = False
        self._asked_s = -KEY_PACE_S  # when a key was asked for last
        self._secrets: list[str] = []
        self._full = ""  # of which limit it was told that it leaves no stream
        self._log = log.bind(lane=parts.lane)

    def stop(self) -> None:
        """Ends the connection and gives the lease back."""
        self._stopping.set()

    async def serve(self) -> None:
        """Until stopped. A venue or a Redis that is away is waited for."""
        fails = 0
        while not self._stopping.is_set():
            wait_s = IDLE_S
            if await self._lease("hold"):
                opened_s = monotonic_s()
                try:
                    await self._listen()
                    fails = 0
                except AddressFull as full:
                    wait_s = FULL_S
                    self._tell_full(str(full))
                except StreamRefused as refused:
                    self._log.error("the venue refuses the order stream; look-ups confirm instead", said=str(refused))
                    wait_s = REFUSED_S
                except (StreamSilent, WebSocketException, OSError, TimeoutError, NotSent, NoAnswer) as error:
                    # One that lasted for longer than the longest wait is paced by itself, and counts as the first.
                    fails = 1 if monotonic_s() - opened_s > BACKOFF_MOST_S else fails + 1
                    wait_s = random.uniform(0.1, min(BACKOFF_MOST_S, BACKOFF_S * 2 ** min(fails, 8)))
                    # Only its kind: an address may hold the key.
                    self._log.warning("the order stream ended; it is opened again", why=type(error).__name__)
                except Exception as error:  # whatever a venue's frames lead to, the lane goes on by look-ups
                    wait_s = REFUSED_S
                    self._log.error("the order stream failed; it is opened again", why=type(error).__name__)
                finally:
                    young = monotonic_s() - self._asked_s < KEY_PACE_S
                    # Kept, the lease keeps the next worker from asking for a key at once.
                    await self._lease("hold" if young else "leave")
                    if young:
                        wait_s = max(wait_s, 1.25 * KEY_PACE_S)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(wait_s * random.uniform(0.8, 1.2)):
                    await self._stopping.wait()

    async def _lease(self, what: StreamStep) -> bool:
        try:
            self._held = await self._p.ledger.stream(self._p.worker, what)
        except (RedisError, OSError):
            self._held = False
        return self._held

    def _tell_full(self, limit: str) -> None:
        """Once, until the stream was alive again."""
        if limit != self._full:
            self._full = limit
            self._log.warning(
                "the address has no order stream left for this lane; look-ups confirm instead",
                limit=limit,
                remedy="serve some lanes from another egress address, or fewer from this one",
            )

    async def _listen(self) -> None:
        """One connection, in its address' place. Returns when stopped or when the lease went to another worker."""
        if await self._p.place.hold():
            try:
                await self._connection()
            finally:
                await self._p.place.leave()

    async def _connection(self) -> None:
        """From its key to its end."""
        stream, key = self._p.stream, ""
        request = stream.key_request()
        if request is not None:
            try:
                answer = await self._p.call(request)
            finally:
                self._asked_s = monotonic_s()
            try:
                key = stream.read_key(answer)
            except ValueError as error:
                raise StreamRefused(LEFT_OUT if answer.quotes else str(error)[:200]) from None
        async with contextlib.AsyncExitStack() as stack:
            async with self._p.place.connecting():
                socket = await stack.enter_async_context(self._open(stream.address(self._p.ws_url, key)))
            hello = stream.hello(self._p.venue_clock.now_us() // 1000)
            self._secrets = [*secrets_of_login(hello), *([key] if key else [])]
            for text in hello:
                await socket.send(text)
            await self._converse(socket, key)

    def _open(self, address: str) -> contextlib.AbstractAsyncContextManager[ClientConnection]:
        return self._p.open_socket(
            address,
            ssl=self._p.tls if address.startswith("wss:") else None,
            proxy=None,
            compression=None,
            open_timeout=OPEN_S,
            close_timeout=1.0,
            ping_interval=None,
            max_size=FRAME_MOST,
            user_agent_header="cancelq",
        )

    async def _converse(self, socket: ClientConnection, key: str) -> None:
        duties = _Duties(self._p.stream, monotonic_s())
        live = False
        while not self._stopping.is_set():
            now_s = monotonic_s()
            if now_s >= duties.lease_s:
                duties.lease_s = now_s + KEEP_S
                if not await self._lease("live" if live else "hold"):
                    return
                if not await self._p.place.hold():
                    return
            if now_s >= duties.ping_s:
                duties.ping_s = now_s + self._p.stream.ping_every_s
                if text := self._p.stream.ping(self._p.venue_clock.now_us() // 1000):
                    await socket.send(text)
            if now_s >= duties.renew_s:
                duties.renew_s = now_s + self._p.stream.renew_every_s
                await self._renew(key)
            if now_s >= duties.heard_s + self._p.stream.silent_most_s or (not live and now_s >= duties.live_by_s):
                raise StreamSilent
            try:
                async with asyncio.timeout(max(0.01, duties.next_s() - now_s)):
                    frame = await socket.recv()
            except TimeoutError:
                continue
            duties.heard_s = monotonic_s()
            live = await self._heard(socket, frame, live)

    async def _heard(self, socket: ClientConnection, frame: str | bytes, live: bool) -> bool:
        """Obeys one frame; whether the subscription stands now."""
        said = self._p.stream.read(frame)
        if said.refused:
            frame = frame.encode() if isinstance(frame, str) else frame
            raise StreamRefused(LEFT_OUT if repeats(frame, self._secrets) else said.refused[:200])
        for text in said.send:
            await socket.send(text)
        if (said.live or said.pushes) and not live:
            live, self._full = True, ""
            self._log.info("the order stream is alive")
            await self._lease("live")
        if said.pushes:
            self._p.told(said.pushes)
        return live

    async def _renew(self, key: str) -> None:
        request = self._p.stream.renew_request(key)
        if request is not None:
            await self._p.call(request)


class _Duties:
    """When each of the connection's duties is due, by the monotonic clock."""

    def __init__(self, stream: OrderStream, now_s: float) -> None:
        self.heard_s = now_s
        self.live_by_s = now_s + LIVE_S
        self.lease_s = now_s + KEEP_S
        self.ping_s = now_s + stream.ping_every_s if stream.ping_every_s else float("inf")
        self.renew_s = now_s + stream.renew_every_s if stream.renew_every_s else float("inf")

    def next_s(self) -> float:
        return min(self.lease_s, self.ping_s, self.renew_s)
