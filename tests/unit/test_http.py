"""The border to the venues: every error of the HTTP library has one meaning, and every call ends in time."""

import asyncio
import contextlib
import inspect
import socket
import ssl
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

import httpx
import pytest

from cancelq_worker.clocks import in_s
from cancelq_worker.http import (
    ANSWER,
    BODY,
    BODY_MOST,
    BORDER,
    FIRST_BYTE,
    RESTED_NS,
    UNHEARD_MS,
    Door,
    Exchange,
    MakeTransport,
    NoAnswer,
    NotSent,
    NotWhole,
    Pick,
    _Travel,
    connection,
    crossed,
)
from cancelq_worker.venues.port import Request, Signed

# -- the border ----------------------------------------------------------------------------------------------

ERRORS = sorted(
    (kind for name in httpx.__all__ if inspect.isclass(kind := getattr(httpx, name)) and issubclass(kind, Exception)),
    key=lambda kind: kind.__name__,
)

# No connection was had, so nothing can have left.
NO_CONNECTION = {httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout}
# Refused on this machine before a byte was written.
LOCAL = {httpx.UnsupportedProtocol, httpx.InvalidURL, httpx.LocalProtocolError}


@pytest.mark.parametrize("kind", ERRORS, ids=lambda kind: kind.__name__)
def test_every_error_of_the_library_has_a_meaning(kind: type[Exception]) -> None:
    meaning = NotSent if kind in NO_CONNECTION | LOCAL else NoAnswer
    assert crossed(raised(kind)) is meaning


def raised(kind: type[Exception]) -> Exception:
    """An error of that kind, whatever its own constructor asks for."""
    error = Exception.__new__(kind)
    assert isinstance(error, kind)
    return error


def test_what_a_later_version_adds_may_have_been_sent() -> None:
    for parent in (httpx.TransportError, httpx.TimeoutException, httpx.NetworkError, httpx.StreamError):
        later = type("Later", (parent,), {})
        assert crossed(raised(later)) is NoAnswer


def test_an_error_that_is_none_of_the_librarys_has_no_meaning_here() -> None:
    assert crossed(ValueError("x")) is None


def test_the_border_leads_to_two_places_only() -> None:
    assert set(BORDER.values()) == {NotSent, NoAnswer}
    assert not issubclass(NotSent, NoAnswer)
    assert not issubclass(NoAnswer, NotSent)


# -- a venue that behaves as told, on a real socket ----------------------------------------------------------

# Deadlines of calls that are to miss them, and what such a call may take at most: both, the quarter second the door
# adds, and a busy machine.
SHORT_S = 0.15
LEAVE_S = 0.5  # by then it must have left, which a busy machine may take its time for
LONGEST_S = SHORT_S + LEAVE_S + 0.25 + 1.0
# Deadlines of calls that are to be answered.
AMPLE_S = 5.0
RESTED_S = RESTED_NS / 1e9


class Reader(asyncio.StreamReader):
    """Tells when the other side is gone, also while nobody reads."""

    def __init__(self) -> None:
        super().__init__(loop=asyncio.get_running_loop())
        self.gone = asyncio.Event()

    def feed_eof(self) -> None:
        super().feed_eof()
        self.gone.set()

    def set_exception(self, exc: Exception) -> None:
        super().set_exception(exc)
        self.gone.set()


class Venue:
    """Reads requests off its connections and answers each as its path says."""

    def __init__(self) -> None:
        self.requests: list[tuple[str, dict[str, str], bytes]] = []
        self.carriers: list[Reader] = []  # the connection of each
        self.connections = 0
        self.open: dict[Reader, asyncio.StreamWriter] = {}
        self.arrived = asyncio.Event()
        self.go_on = asyncio.Event()
        self.ended = asyncio.Event()
        self.sent = 0

    def connect(self) -> asyncio.StreamReaderProtocol:
        reader = Reader()
        return asyncio.StreamReaderProtocol(reader, lambda _, writer: self._serve(reader, writer))

    async def _serve(self, reader: Reader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self.open[reader] = writer
        try:
            while not writer.is_closing():
                await self._one(reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            del self.open[reader]
            self.ended.set()
            writer.close()

    async def _one(self, reader: Reader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in head[1:] if line)}
        body = await reader.readexactly(int(headers.get("content-length", "0")))
        self.requests.append((head[0], headers, body))
        self.carriers.append(reader)
        self.arrived.set()
        path = head[0].split(" ")[1].partition("?")[0]
        await BEHAVIOURS.get(path, good)(self, Line(reader, writer))
        await writer.drain()

    async def all_closed(self) -> None:
        """Returns when no connection is open any more."""
        while self.open:
            self.ended.clear()
            await self.ended.wait()

    async def stop(self) -> None:
        self.go_on.set()
        for writer in self.open.values():
            writer.transport.abort()
        await self.all_closed()


@dataclass(frozen=True, slots=True)
class Line:
    """One connection, as a behaviour sees it."""

    reader: Reader
    writer: asyncio.StreamWriter

    def write(self, data: bytes) -> None:
        self.writer.write(data)

    def close(self) -> None:
        self.writer.close()

    async def hold(self, venue: Venue, at_most_s: float | None = None) -> bool:
        """Until the test or the other side ends it; False if `at_most_s` seconds passed first."""
        waits = {asyncio.ensure_future(event.wait()) for event in (venue.go_on, self.reader.gone)}
        done, left = await asyncio.wait(waits, timeout=at_most_s, return_when=asyncio.FIRST_COMPLETED)
        for one in left:
            one.cancel()
        return bool(done)


Behaviour = Callable[[Venue, Line], Awaitable[None]]

JSON_200 = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"


async def good(venue: Venue, line: Line) -> None:
    line.write(JSON_200 + b'Content-Length: 16\r\n\r\n{"code":"00000"}')


async def bad_request(venue: Venue, line: Line) -> None:
    line.write(b'HTTP/1.1 400 Bad Request\r\nContent-Length: 16\r\n\r\n{"code":"43001"}')


async def redirect(venue: Venue, line: Line) -> None:
    line.write(b"HTTP/1.1 302 Found\r\nLocation: /elsewhere\r\nContent-Length: 0\r\n\r\n")


async def chunked(venue: Venue, line: Line) -> None:
    line.write(JSON_200 + b'Transfer-Encoding: chunked\r\n\r\n8\r\n{"code":\r\n8\r\n"00000"}\r\n0\r\n\r\n')


async def closes(venue: Venue, line: Line) -> None:
    line.close()


async def resets(venue: Venue, line: Line) -> None:
    line.writer.transport.abort()


async def half_a_body(venue: Venue, line: Line) -> None:
    line.write(JSON_200 + b'Content-Length: 100\r\n\r\n{"code":"00000"')
    line.close()


async def half_a_chunk(venue: Venue, line: Line) -> None:
    line.write(JSON_200 + b'Transfer-Encoding: chunked\r\n\r\nff\r\n{"code":"00000"')
    line.close()


async def garbage(venue: Venue, line: Line) -> None:
    line.write(b"\x00\x01\x02 no protocol at all\r\n\r\n")
    line.close()


async def broken_gzip(venue: Venue, line: Line) -> None:
    line.write(JSON_200 + b"Content-Encoding: gzip\r\nContent-Length: 4\r\n\r\nabcd")


async def silent(venue: Venue, line: Line) -> None:
    await line.hold(venue)
    await good(venue, line)


async def late_body(venue: Venue, line: Line) -> None:
    line.write(JSON_200 + b"Content-Length: 16\r\n\r\n")
    await line.hold(venue)
    line.write(b'{"code":"00000"}')


async def silent_body(venue: Venue, line: Line) -> None:
    line.write(JSON_200 + b"Content-Length: 100\r\n\r\nx")
    await line.hold(venue)
    line.close()


async def drips_body(venue: Venue, line: Line) -> None:
    line.write(JSON_200 + b"Content-Length: 1000000\r\n\r\n")
    await drip(venue, line)


async def drips_headers(venue: Venue, line: Line) -> None:
    """Each byte within every time-out of a read, the whole never there."""
    line.write(b"HTTP/1.1 200 OK\r\nX-Slow: ")
    await drip(venue, line)


async def drip(venue: Venue, line: Line) -> None:
    while not await line.hold(venue, 0.02):
        line.write(b"x")
        await line.writer.drain()
    line.close()


async def huge(venue: Venue, line: Line) -> None:
    line.write(JSON_200 + b"Content-Length: 104857600\r\n\r\n")
    while venue.sent < 100 * 2**20:
        line.write(bytes(2**18))
        venue.sent += 2**18
        await line.writer.drain()


BEHAVIOURS: dict[str, Behaviour] = {
    f"/{kind.__name__}": kind
    for kind in (
        good, bad_request, redirect, chunked, closes, resets, half_a_body, half_a_chunk, garbage, broken_gzip, silent,
        late_body, silent_body, drips_body, drips_headers, huge,
    )
}  # fmt: skip


@asynccontextmanager
async def at_the_door(transport: MakeTransport = connection) -> AsyncIterator[tuple[Venue, Door]]:
    venue = Venue()
    server = await asyncio.get_running_loop().create_server(venue.connect, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    door = Door(f"http://127.0.0.1:{port}", verify=False, transport=transport)
    try:
        yield venue, door
    finally:
        server.close()
        await venue.stop()
        await door.close()


def kept_transports() -> tuple[list[httpx.AsyncBaseTransport], MakeTransport]:
    """What makes a connection's transport, and all that it has made."""
    made: list[httpx.AsyncBaseTransport] = []

    def transport(verify: ssl.SSLContext | bool) -> httpx.AsyncBaseTransport:
        made.append(connection(verify))
        return made[-1]

    return made, transport


async def call(door: Door, kind: str = "good", *, connect_s: float = AMPLE_S, total_s: float = AMPLE_S) -> Exchange:
    return await door.call(Signed(Request("GET", f"/{kind}"), {}), send_by_ns=in_s(connect_s), total_s=total_s)


async def in_short(door: Door, kind: str = "good") -> tuple[BaseException | None, float]:
    return await timed(call(door, kind, connect_s=LEAVE_S, total_s=SHORT_S))


async def timed(awaited: Awaitable[object]) -> tuple[BaseException | None, float]:
    """How a call ended, and after how many seconds."""
    began = time.monotonic()
    try:
        await awaited
    except (NotSent, NoAnswer) as error:
        return error, time.monotonic() - began
    return None, time.monotonic() - began


# -- whole answers -------------------------------------------------------------------------------------------


async def test_a_good_answer_comes_whole_with_its_times() -> None:
    async with at_the_door() as (_, door):
        before_ns = time.monotonic_ns()
        exchange = await call(door)
        assert before_ns <= exchange.sent_ns < exchange.answered_ns <= time.monotonic_ns()
        assert (exchange.answer.status, exchange.answer.body) == (200, b'{"code":"00000"}')
        assert exchange.answer.headers["content-type"] == "application/json"


class Told(httpx.AsyncBaseTransport):
    """Says of a call what a connection says, each at its time."""

    def __init__(self, clock: list[int]) -> None:
        self._clock = clock

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        for at_ns, event in ((30, FIRST_BYTE), (50, BODY), (900, ANSWER)):
            self._clock[0] = at_ns
            await request.extensions["trace"](event, {})
        self._clock[0] = 2_000
        return httpx.Response(200, stream=httpx.ByteStream(b"{}"))


@pytest.mark.parametrize(("body", "sent_ns"), [(b"", 30), (b"{}", 50)])
async def test_what_this_process_adds_to_a_call_is_no_way(
    monkeypatch: pytest.MonkeyPatch, body: bytes, sent_ns: int
) -> None:
    """A permit is free again by the shortest way to the venue: twenty calls that waited for their own process before
    they left, or after their answers were there, made it look longer, and the first that did not came too early."""
    clock = [1]
    monkeypatch.setattr("cancelq_worker.http.monotonic_ns", lambda: clock[0])
    door = Door("http://127.0.0.1:9", verify=False, transport=lambda _: Told(clock))
    exchange = await door.call(Signed(Request("POST", "/good", body=body), {}), send_by_ns=100, total_s=AMPLE_S)
    assert (exchange.sent_ns, exchange.answered_ns) == (sent_ns, 900)


async def test_an_answer_is_there_with_its_head(monkeypatch: pytest.MonkeyPatch) -> None:
    told, passes = asyncio.Event(), _Travel.passes

    async def passes_(travel: _Travel, event: str, about: object) -> None:
        await passes(travel, event, about)
        if event == ANSWER:
            told.set()

    monkeypatch.setattr(_Travel, "passes", passes_)
    async with at_the_door() as (venue, door):
        answer = asyncio.ensure_future(call(door, "late_body"))
        await told.wait()
        head_there_ns = time.monotonic_ns()
        venue.go_on.set()
        exchange = await answer
        assert exchange.sent_ns < exchange.answered_ns <= head_there_ns
        assert exchange.answer.body == b'{"code":"00000"}'


async def test_exactly_the_bytes_that_were_signed_are_sent() -> None:
    async with at_the_door() as (venue, door):
        query, body = "clientOid=a%2Bb%23c%2F%3A&limit=100", b'{"symbol":"BTCUSDT","orderId":"1"}'
        headers = {"ACCESS-SIGN": "a+/=", "Content-Type": "application/json"}
        request = Request("POST", "/api/v2/spot/trade/cancel-order", query, body)
        await door.call(Signed(request, headers), send_by_ns=in_s(AMPLE_S), total_s=AMPLE_S)
        ((line, sent, sent_body),) = venue.requests
        assert line == f"POST /api/v2/spot/trade/cancel-order?{query} HTTP/1.1"
        assert sent_body == body
        assert (sent["access-sign"], sent["content-type"], sent["content-length"]) == ("a+/=", "application/json", "34")
        assert "cookie" not in sent
        assert sent["accept-encoding"] == "identity"


async def test_a_look_has_no_body() -> None:
    async with at_the_door() as (venue, door):
        await call(door)
        ((line, headers, body),) = venue.requests
        assert line == "GET /good HTTP/1.1"
        assert body == b""
        assert headers.get("content-length", "0") == "0"


@pytest.mark.parametrize("body", [b"", b'{"orderId":"1"}'])
@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "PATCH", "DELETE"])
async def test_a_call_says_of_its_body_what_the_library_says_of_it(method: str, body: bytes) -> None:
    """Also that there is none: some proxies refuse a PUT that does not."""
    async with at_the_door() as (venue, door):
        signed = Signed(Request(method, "/good", "", body), {"ACCESS-SIGN": "a"})
        await door.call(signed, send_by_ns=in_s(AMPLE_S), total_s=AMPLE_S)
        own = {"ACCESS-SIGN": "a", "Accept-Encoding": "identity", "User-Agent": "cancelq"}
        url = f"http://{venue.requests[0][1]['host']}/good"
        wire = httpx.Request(method, url, headers=own, content=body or None)
        async with httpx.AsyncHTTPTransport() as library:
            await (await library.handle_async_request(wire)).aread()
        ours, librarys = venue.requests
        assert ours == librarys


async def test_an_error_status_is_an_answer() -> None:
    """The business code is in its body."""
    async with at_the_door() as (_, door):
        answer = (await call(door, "bad_request")).answer
        assert (answer.status, answer.body) == (400, b'{"code":"43001"}')


async def test_a_redirect_is_an_answer_and_not_followed() -> None:
    async with at_the_door() as (venue, door):
        assert (await call(door, "redirect")).answer.status == 302
        assert len(venue.requests) == 1


async def test_an_answer_in_chunks_is_one_answer() -> None:
    async with at_the_door() as (_, door):
        assert (await call(door, "chunked")).answer.body == b'{"code":"00000"}'


# -- no answer -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "kind",
    [
        "closes", "resets", "half_a_body", "half_a_chunk", "garbage", "broken_gzip",
        "silent", "silent_body", "drips_body", "drips_headers", "huge",
    ],
)  # fmt: skip
async def test_what_reached_the_venue_may_have_been_executed(kind: str) -> None:
    async with at_the_door() as (venue, door):
        await call(door)  # to connect may take a busy machine longer than the short time
        del venue.requests[:]
        error, seconds = await in_short(door, kind)
        assert isinstance(error, NoAnswer), error
        assert seconds < LONGEST_S
        assert len(venue.requests) == 1, "nothing is repeated behind the back of whoever counts"
        venue.go_on.set()
        assert (await call(door)).answer.status == 200, "the door works on"


async def test_a_huge_answer_is_cut_off() -> None:
    async with at_the_door() as (venue, door):
        with pytest.raises(NoAnswer):
            await call(door, "huge", connect_s=SHORT_S, total_s=AMPLE_S)
        assert venue.sent < 4 * BODY_MOST


async def test_a_refused_connection_means_not_sent() -> None:
    async with at_the_door() as (_, door):
        pass  # its server is gone
    error, seconds = await in_short(door)
    assert isinstance(error, NotSent)
    assert seconds < LONGEST_S


async def test_no_connection_in_time_means_not_sent() -> None:
    """Whoever answers to the greeting takes too long, as a listener does whose queue is full."""
    with socket.socket() as deaf:
        deaf.bind(("127.0.0.1", 0))
        deaf.listen(0)
        with contextlib.ExitStack() as waiting:
            for _ in range(4):  # more than the queue takes: later ones are left without a word
                one = waiting.enter_context(socket.socket())
                one.setblocking(False)
                with contextlib.suppress(BlockingIOError):
                    one.connect(deaf.getsockname())
            door = Door(f"http://127.0.0.1:{deaf.getsockname()[1]}", verify=False)
            error, _ = await timed(call(door, connect_s=0.05))
            assert isinstance(error, NotSent)
            await door.close()


async def test_a_process_that_stood_still_before_it_came_to_the_door_does_not_send() -> None:
    """Between the decision to send and the call, while it signed: what counts is the moment, not a span from then."""
    async with at_the_door() as (venue, door):
        await call(door)  # from now on there is a connection
        with pytest.raises(NotSent):
            await door.call(Signed(Request("GET", "/good"), {}), send_by_ns=in_s(-0.001), total_s=AMPLE_S)
        await call(door)
        assert len(venue.requests) == 2


@pytest.mark.parametrize("steps", [1, 2])
async def test_a_process_that_stood_still_after_it_decided_to_send_does_not_send(steps: int) -> None:
    """Stopped for longer than its permit may wait, a few steps of the loop before the first byte."""
    async with at_the_door() as (venue, door):
        await call(door)  # from now on there is a connection
        late = asyncio.ensure_future(call(door, connect_s=0.05))
        for _ in range(steps):
            await asyncio.sleep(0)
        time.sleep(0.1)  # noqa: ASYNC251 -- the whole process stands still
        with pytest.raises(NotSent):
            await late
        await call(door)
        assert len(venue.requests) == 2


class Listener:
    """A venue in a thread of its own, which hears also while this process' loop stands still."""

    def __init__(self) -> None:
        self.whole_ns: list[int] = []  # when a call was there with head and body
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port = self._listening.getsockname()[1]
        threading.Thread(target=self._hear, daemon=True).start()

    def _hear(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self._listening.accept()
                with connection, contextlib.suppress(ConnectionError):
                    self._answer(connection)

    def _answer(self, connection: socket.socket) -> None:
        heard = b""
        while data := connection.recv(4096):
            heard += data
            if heard.endswith(BODY_SENT):
                self.whole_ns.append(time.monotonic_ns())
                heard = b""
                connection.sendall(b"HTTP/1.1 200 So\r\nContent-Length: 0\r\n\r\n")

    def close(self) -> None:
        self._listening.close()


BODY_SENT = b'{"orderId":"1"}'


async def test_no_call_becomes_whole_after_its_process_stood_still(monkeypatch: pytest.MonkeyPatch) -> None:
    """Head and body are written in two turns of the loop: stopped in between, the venue had the call when the process
    went on, with a permit that was another's by then."""
    monkeypatch.setattr("cancelq_worker.http.BODY_BEHIND_NS", 0)
    venue, signed = Listener(), Signed(Request("POST", "/cancel", body=BODY_SENT), {})
    door = Door(f"http://127.0.0.1:{venue.port}", verify=False)
    ends: list[type[object]] = []
    for steps in range(1, 9):
        await door.call(signed, send_by_ns=in_s(AMPLE_S), total_s=AMPLE_S)  # from now on there is a connection
        before = len(venue.whole_ns)
        late = asyncio.ensure_future(door.call(signed, send_by_ns=in_s(0.05), total_s=AMPLE_S))
        for _ in range(steps):
            await asyncio.sleep(0)
        stopped_ns = time.monotonic_ns()
        time.sleep(0.1)  # noqa: ASYNC251 -- the whole process stands still
        (result,) = await asyncio.gather(late, return_exceptions=True)
        ends.append(type(result))
        assert all(at_ns < stopped_ns + 90_000_000 for at_ns in venue.whole_ns[before:]), f"{steps} steps"
        if isinstance(result, BaseException):
            assert len(venue.whole_ns) == before
    await door.close()
    venue.close()
    assert {NotSent, NotWhole, Exchange} <= set(ends), "before the head, between the two, and after the body"


async def test_an_error_tells_its_kind_and_no_address() -> None:
    """It is logged: no URL, query or signature may be in it."""
    signed = Signed(Request("GET", "/closes", "sign=s3cret"), {"ACCESS-SIGN": "s3cret"})
    async with at_the_door() as (_, door):
        with pytest.raises(NoAnswer) as caught:
            await door.call(signed, send_by_ns=in_s(1), total_s=1)
        assert "s3cret" not in str(caught.value)
        assert "127.0.0.1" not in str(caught.value)
        assert caught.value.__cause__ is not None, "the cause is kept"


# -- many calls ----------------------------------------------------------------------------------------------


async def test_a_connection_is_used_again() -> None:
    async with at_the_door() as (venue, door):
        for _ in range(5):
            await call(door)
        assert (venue.connections, len(venue.requests)) == (1, 5)


async def test_a_connection_that_the_venue_closed_is_not_used_again() -> None:
    async with at_the_door() as (venue, door):
        await call(door)
        for writer in list(venue.open.values()):
            writer.close()
            await writer.wait_closed()
        assert (await call(door)).answer.status == 200
        assert venue.connections == 2


async def test_no_call_waits_for_the_connection_of_another() -> None:
    many = 40
    async with at_the_door() as (venue, door):
        slow = [asyncio.ensure_future(timed(call(door, "silent"))) for _ in range(many)]
        while len(venue.requests) < many:
            venue.arrived.clear()
            await venue.arrived.wait()
        assert (await call(door)).answer.status == 200
        venue.go_on.set()
        assert [ended for ended, _ in await asyncio.gather(*slow)] == [None] * many
        assert (await call(door)).answer.status == 200
        assert venue.connections == many + 1, "those that are free are used again"


@pytest.mark.parametrize("kind", ["silent", "silent_body", "drips_body", "drips_headers", "huge", "resets"])
async def test_a_call_in_trouble_leaves_the_others_alone(kind: str) -> None:
    async with at_the_door() as (_, door):
        troubled = asyncio.ensure_future(in_short(door, kind))
        served = 0
        while not troubled.done():
            assert (await call(door)).answer.status == 200
            served += 1
        assert isinstance((await troubled)[0], NoAnswer)
        assert served > 0
        assert (await call(door)).answer.status == 200


async def test_a_call_under_way_outlives_another_that_is_given_up() -> None:
    async with at_the_door() as (venue, door):
        slow = asyncio.ensure_future(timed(call(door, "silent")))
        await venue.arrived.wait()
        error, _ = await in_short(door, "drips_headers")
        assert isinstance(error, NoAnswer)
        venue.go_on.set()
        ended, _ = await slow
        assert ended is None


@pytest.mark.parametrize("kind", ["drips_headers", "half_a_body", "closes"])
async def test_the_connection_of_a_call_without_an_answer_is_not_used_again(kind: str) -> None:
    made, transport = kept_transports()
    async with at_the_door(transport) as (_, door):
        await call(door)
        assert isinstance((await in_short(door, kind))[0], NoAnswer)
        assert door.connections == 0
        assert (await call(door)).answer.status == 200
        assert len(made) == 2


# -- connections that are open ahead -------------------------------------------------------------------------


@pytest.fixture
def later(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Has the door's clock go ahead by some seconds."""
    ahead_ns = 0

    def ahead(seconds: float) -> None:
        nonlocal ahead_ns
        ahead_ns += round(seconds * 1e9)

    monkeypatch.setattr("cancelq_worker.http.monotonic_ns", lambda: time.monotonic_ns() + ahead_ns)
    return ahead


async def by(door: Door, pick: Pick) -> None:
    await door.call(Signed(Request("GET", "/good"), {}), send_by_ns=in_s(1000), total_s=AMPLE_S, pick=pick)


async def test_connections_are_opened_before_they_are_needed() -> None:
    async with at_the_door() as (venue, door):
        for opened in (1, 2, 3):
            assert door.care(3) is Pick.NEW
            await by(door, Pick.NEW)
            assert venue.connections == opened
        assert door.care(3) is None
        await asyncio.gather(*(call(door) for _ in range(3)))
        assert venue.connections == 3


async def test_a_connection_that_rests_is_used_so_that_it_stays(later: Callable[[float], None]) -> None:
    async with at_the_door() as (venue, door):
        await by(door, Pick.NEW)
        await by(door, Pick.NEW)
        later(RESTED_S - 1)
        assert door.care(2) is None
        later(2)
        del venue.carriers[:]
        for _ in range(2):
            assert door.care(2) is Pick.RESTED
            await by(door, Pick.RESTED)
        assert door.care(2) is None
        assert len(set(venue.carriers)) == 2, "each of them once"
        assert venue.connections == 2


async def test_what_is_more_than_wanted_is_closed_once_it_rested(later: Callable[[float], None]) -> None:
    async with at_the_door() as (venue, door):
        for _ in range(4):
            await by(door, Pick.NEW)
        assert door.care(2) is None
        assert door.connections == 4, "a burst may go on"
        later(RESTED_S + 1)
        assert door.care(2) is Pick.RESTED
        assert door.connections == 2
        async with asyncio.timeout(AMPLE_S):
            while len(venue.open) > 2:
                venue.ended.clear()
                await venue.ended.wait()


async def test_the_connection_that_was_used_last_is_used_next(later: Callable[[float], None]) -> None:
    """The others rest, and are closed if there are more than wanted."""
    async with at_the_door() as (venue, door):
        for _ in range(3):
            await by(door, Pick.NEW)
        del venue.carriers[:]
        for _ in range(3):
            await call(door)
        assert len(set(venue.carriers)) == 1
        later(RESTED_S + 1)
        await by(door, Pick.LATEST)
        door.care(1)
        assert door.connections == 1
        await by(door, Pick.LATEST)
        assert len(set(venue.carriers)) == 1
        assert venue.connections == 3


@pytest.mark.parametrize("kind", ["drips_headers", "drips_body", "silent"])
async def test_closing_the_door_leaves_no_connection_open(kind: str) -> None:
    """Also not that of a call that was given up: what may still be executed is not known before it is closed."""
    async with at_the_door() as (venue, door):
        await asyncio.gather(call(door), call(door))
        error, _ = await in_short(door, kind)
        assert isinstance(error, NoAnswer)
        await call(door)
        await door.close()
        async with asyncio.timeout(1.0):
            await venue.all_closed()


@pytest.mark.parametrize("kind", ["silent", "silent_body", "drips_body", "drips_headers", "huge"])
async def test_no_answer_means_that_the_connection_was_closed(kind: str) -> None:
    """The permit of a call without answer is counted from then: before it, the venue may still execute it."""
    async with at_the_door() as (venue, door):
        error, _ = await in_short(door, kind)
        assert isinstance(error, NoAnswer)
        async with asyncio.timeout(1.0):
            await venue.all_closed()


async def test_a_call_that_was_given_up_does_not_arrive_later() -> None:
    """It is still with the system, as the other side has no room for it: as in an outage, and that side reads on."""
    loop, whole = asyncio.get_running_loop(), bytes(200_000)
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        listener.setblocking(False)
        door = Door(f"http://127.0.0.1:{listener.getsockname()[1]}", verify=False)
        one = Signed(Request("POST", "/good", body=whole), {})
        calling = asyncio.ensure_future(door.call(one, send_by_ns=in_s(AMPLE_S), total_s=SHORT_S))
        peer, _ = await loop.sock_accept(listener)
        with peer:
            with pytest.raises(NoAnswer):
                await calling
            await door.close()
            heard = 0
            with contextlib.suppress(ConnectionError):
                while more := await asyncio.wait_for(loop.sock_recv(peer, 65536), AMPLE_S):
                    heard += len(more)
            assert heard < len(whole)


async def test_what_nobody_confirms_is_not_sent_for_long() -> None:
    """By the system too, whose process may stand still or be gone."""
    made, transport = kept_transports()
    async with at_the_door(transport) as (_, door):
        await call(door)
        (pool,) = made
        assert isinstance(pool, httpx.AsyncHTTPTransport)
        (line,) = pool._pool.connections
        stream = line._connection._network_stream  # type: ignore[attr-defined]
        option = stream.get_extra_info("socket").getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT)
        assert option == UNHEARD_MS


async def test_a_caller_that_is_cancelled_leaves_the_request_to_end_by_itself() -> None:
    """To cancel a request in flight can kill the library's pool."""
    async with at_the_door() as (venue, door):
        caller = asyncio.ensure_future(call(door, "silent"))
        await venue.arrived.wait()
        caller.cancel()
        await asyncio.gather(caller, return_exceptions=True)
        assert caller.cancelled()
        assert (await call(door)).answer.status == 200
        venue.go_on.set()
        assert (await call(door)).answer.status == 200
        assert venue.connections == 2, "the first connection was not torn down"
