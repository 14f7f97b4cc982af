"""The border to the venues: the one module that knows httpx.

A call ends in one of three ways and in no other: an `Answer`, `NotSent` (it surely never left this machine),
or `NoAnswer` (it may have been executed, unless it is `NotWhole`). `BORDER` maps every httpx error to one of the two,
and a test proves the mapping complete.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
import struct
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from enum import Enum

import httpx

from cancelq_worker.clocks import monotonic_ns
from cancelq_worker.repeating import repeats, secrets_of_call
from cancelq_worker.unpacking import unpacked
from cancelq_worker.venues.port import Answer, Request, Signed

KEPT_S = 30.0  # how long a connection is used again after its last call; venues' own ends are said to be longer
RESTED_NS = 20_000_000_000  # a connection that rested for so long is used or closed (`Door.care`)
BODY_MOST = 4 * 1024 * 1024
BODY_BEHIND_NS = 500_000_000  # a body may leave so much later than its head must have
UNHEARD_MS = 2_000  # how long the system tries to deliver what the other side does not confirm, also for a dead process
#: A connection that is closed, or whose process ends, takes with it what has not arrived yet (Linux: socket(7),
#: tcp(7)). Otherwise the system goes on sending it: a call that was given up in an outage would arrive seconds after
#: it, when its permit is another's.
_FORGOTTEN: tuple[tuple[int, int, bytes], ...] = (
    (socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0)),
    *(
        (socket.IPPROTO_TCP, option, struct.pack("I", UNHEARD_MS))
        for option in [getattr(socket, "TCP_USER_TIMEOUT", None)]
        if option is not None
    ),
)


class NotSent(Exception):
    """The call never left: no connection could be had in time."""


class NoAnswer(Exception):
    """The call may have been executed, and no whole answer came back."""


class NotWhole(NoAnswer):
    """Its head left, and its body surely did not: the venue may have counted a call, and has none that it could
    execute."""


#: httpx error → whether the request may have reached the venue. Subclasses follow their nearest listed parent.
BORDER: dict[type[Exception], type[Exception]] = {
    httpx.ConnectError: NotSent,
    httpx.ConnectTimeout: NotSent,
    httpx.PoolTimeout: NotSent,
    httpx.UnsupportedProtocol: NotSent,
    httpx.InvalidURL: NotSent,
    httpx.LocalProtocolError: NotSent,
    httpx.HTTPError: NoAnswer,
    httpx.StreamError: NoAnswer,
    httpx.CookieConflict: NoAnswer,  # never raised by a transport; listed so that the mapping is complete
}


def crossed(error: Exception) -> type[Exception] | None:
    """What an error of the HTTP library means, or None if it is none of its errors."""
    for kind in type(error).__mro__:
        if kind in BORDER:
            return BORDER[kind]
    return None


@dataclass(frozen=True, slots=True)
class Exchange:
    """One call's answer and its times, in nanoseconds of this process' monotonic clock, both as near to the wire as can
    be: what a loop with much to do adds to a call is no way to the venue. `sent_ns`: just before what makes the call
    whole was written; `answered_ns`: when the answer's head was there."""

    answer: Answer
    sent_ns: int
    answered_ns: int


#: Methods whose calls tell the length of their body also where there is none (RFC 9110, 8.6).
_WITH_LENGTH = frozenset({"POST", "PUT", "PATCH"})

#: What the HTTP library calls the moments before it writes and when an answer's head is there, and what it tells of
#: them.
FIRST_BYTE = "http11.send_request_headers.started"
BODY = "http11.send_request_body.started"
ANSWER = "http11.receive_response_headers.complete"
Trace = Callable[[str, object], Awaitable[None]]

MakeTransport = Callable[[ssl.SSLContext | bool], httpx.AsyncBaseTransport]


def connection(verify: ssl.SSLContext | bool) -> httpx.AsyncBaseTransport:
    """One connection, opened by its first call, opened anew by one that finds it closed. Nothing of it arrives after
    its end."""
    limits = httpx.Limits(max_connections=1, max_keepalive_connections=1, keepalive_expiry=KEPT_S)
    return httpx.AsyncHTTPTransport(
        verify=verify, http1=True, http2=False, trust_env=False, limits=limits, socket_options=_FORGOTTEN
    )


class Pick(Enum):
    """Which connection a call leaves by."""

    LATEST = "the free one that was used last"
    RESTED = "the free one that rested for longest"
    NEW = "one of its own"


class _Line:
    """One connection. `ended_ns`: when its last call ended."""

    __slots__ = ("ended_ns", "transport")

    def __init__(self, transport: httpx.AsyncBaseTransport) -> None:
        self.transport = transport
        self.ended_ns = 0


class Door:
    """Calls to one venue host, over kept connections that carry one call at a time.

    The lanes of a host share it: so a lane that was quiet finds a connection that is open. No call waits for another's
    connection: where none is free, it opens one. A task is never cancelled with a request in flight: that can kill the
    library's pool. The connection of a call past its deadline is closed, and no other call is on it.
    """

    def __init__(self, base_url: str, *, verify: ssl.SSLContext | bool, transport: MakeTransport = connection) -> None:
        """`transport`: makes what one call at a time leaves by."""
        self._base = httpx.URL(base_url)
        self._urls: dict[str, httpx.URL] = {}
        self._verify = verify
        self._transport = transport
        self._free: deque[_Line] = deque()  # the one used last at the end
        self._busy: set[_Line] = set()  # not those that were given up, though their calls may not have ended yet
        self._closing: set[asyncio.Task[None]] = set()
        self.reached = False  # the venue answered the last call

    async def call(self, signed: Signed, *, send_by_ns: int, total_s: float, pick: Pick = Pick.LATEST) -> Exchange:
        """Sends exactly these bytes. `send_by_ns`: the moment of the monotonic clock by which the first byte must have
        left (a moment, not a span: a process may stand still before it gets here); `total_s`: until the whole answer
        must be here. Raises NotSent or NoAnswer."""
        line = self._line(pick)
        self._busy.add(line)
        connect_s = max(0.0, (send_by_ns - monotonic_ns()) / 1e9)
        travel = _Travel(send_by_ns, bool(signed.request.body))
        task = asyncio.ensure_future(self._call(line.transport, signed, travel, connect_s, total_s))
        task.add_done_callback(lambda ended: self._ended(line, ended))
        done, _ = await asyncio.wait({task}, timeout=total_s + connect_s + 0.25)
        if not done:
            self._give_up(line)
            raise NoAnswer("no whole answer within the deadline")
        return task.result()

    def care(self, kept: int) -> Pick | None:
        """By what a call is to leave now so that `kept` connections are open and stay so; None if they are. Closes what
        is more than that and rested."""
        rested_ns = monotonic_ns() - RESTED_NS
        while self._free and self._free[0].ended_ns < rested_ns:
            if self.connections <= kept:
                return Pick.RESTED
            self._close(self._free.popleft())
        return Pick.NEW if self.connections < kept else None

    @property
    def connections(self) -> int:
        """How many there are, with a call on them or without."""
        return len(self._free) + len(self._busy)

    def _line(self, pick: Pick) -> _Line:
        if pick is Pick.NEW or not self._free:
            return _Line(self._transport(self._verify))
        return self._free.pop() if pick is Pick.LATEST else self._free.popleft()

    def _ended(self, line: _Line, task: asyncio.Task[Exchange]) -> None:
        failed = task.cancelled() or task.exception() is not None  # asyncio wants it read, also of one given up
        self.reached = not failed
        if line not in self._busy:
            return
        self._busy.remove(line)
        if failed:  # whatever is left of it: the next call is to meet one that works
            self._close(line)
            return
        line.ended_ns = monotonic_ns()
        self._free.append(line)

    def _give_up(self, line: _Line) -> None:
        """Its call ends by the end of its connection."""
        self._busy.discard(line)
        self._close(line)

    def _close(self, line: _Line) -> None:
        closing = asyncio.ensure_future(line.transport.aclose())
        self._closing.add(closing)
        closing.add_done_callback(self._closing.discard)

    async def _call(
        self,
        transport: httpx.AsyncBaseTransport,
        signed: Signed,
        travel: _Travel,
        connect_s: float,
        total_s: float,
    ) -> Exchange:
        request, url = signed.request, self._url(signed.request)
        timeout = {"connect": connect_s, "pool": connect_s, "read": total_s, "write": total_s}
        deadline_ns = monotonic_ns() + int((total_s + connect_s) * 1e9)
        try:
            extensions = {"timeout": timeout, "trace": travel.passes}
            content = httpx.ByteStream(request.body)
            wire = httpx.Request(
                request.method, url, headers=self._headers(signed), stream=content, extensions=extensions
            )
            response = await transport.handle_async_request(wire)
            body = await _read(response, deadline_ns)
        except (httpx.HTTPError, httpx.StreamError, httpx.InvalidURL) as error:
            raise (crossed(error) or NoAnswer)(type(error).__name__) from error
        quotes = repeats(body, secrets_of_call(signed))
        answer = Answer(response.status_code, response.headers, body, quotes)
        return Exchange(answer, travel.sent_ns, travel.answered_ns or monotonic_ns())

    def _headers(self, signed: Signed) -> list[tuple[bytes, bytes]]:
        """All of them, as bytes: where the library adds what a body needs, it reads and copies them three times."""
        request = signed.request
        own = [(name.encode("ascii"), value.encode("ascii")) for name, value in signed.headers.items()]
        if request.body or request.method in _WITH_LENGTH:
            own.append((b"Content-Length", b"%d" % len(request.body)))
        return [(b"Host", self._base.netloc), *own, (b"Accept-Encoding", b"identity"), (b"User-Agent", b"cancelq")]

    def _url(self, request: Request) -> httpx.URL:
        """The address of a call. Building one takes the library longer than signing it: those without a query, the
        cancels, are kept."""
        if request.query:
            return self._base.copy_with(raw_path=f"{request.path}?{request.query}".encode())
        if request.path not in self._urls:
            self._urls[request.path] = self._base.copy_with(raw_path=request.path.encode())
        return self._urls[request.path]

    async def close(self) -> None:
        """Closes every connection. A later call opens one."""
        while self._free:
            self._close(self._free.pop())
        for line in list(self._busy):
            self._give_up(line)
        if self._closing:
            await asyncio.wait(set(self._closing), timeout=1.0)


class _Travel:
    """One call on its way, as the HTTP library tells of it.

    Looks at the clock at the last moment before the first byte is written: a process that stood still after it had
    decided to send must not send any more, as its permit may be another's by then. And before the body, which the
    library writes a turn of the loop later: without it the venue has no call, and the connection is closed.
    """

    __slots__ = ("_has_body", "_send_by_ns", "answered_ns", "sent_ns")

    def __init__(self, send_by_ns: int, has_body: bool) -> None:
        self._send_by_ns = send_by_ns
        self._has_body = has_body
        self.sent_ns = monotonic_ns()
        self.answered_ns = 0

    async def passes(self, event: str, _: object) -> None:
        if event == ANSWER:
            self.answered_ns = monotonic_ns()
        elif event == FIRST_BYTE:
            self._leaves(self._send_by_ns, httpx.PoolTimeout("this process was too slow to send in time"))
        elif event == BODY and self._has_body:
            late = NotWhole("this process stood still between a call's head and its body")
            self._leaves(self._send_by_ns + BODY_BEHIND_NS, late)

    def _leaves(self, by_ns: int, too_late: Exception) -> None:
        self.sent_ns = monotonic_ns()
        if self.sent_ns > by_ns:
            raise too_late


async def _read(response: httpx.Response, deadline_ns: int) -> bytes:
    """The body, whole, within its size and time."""
    chunks, size = [], 0
    try:
        async for chunk in response.aiter_raw():
            size += len(chunk)
            if size > BODY_MOST:
                raise NoAnswer(f"an answer over {BODY_MOST} bytes")
            if monotonic_ns() > deadline_ns:
                raise NoAnswer("an answer that drips past its deadline")
            chunks.append(chunk)
    finally:
        await response.aclose()
    try:
        return unpacked(b"".join(chunks), response.headers.get("Content-Encoding", ""), BODY_MOST)
    except ValueError as error:
        raise NoAnswer(str(error)) from None
