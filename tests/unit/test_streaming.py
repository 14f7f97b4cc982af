"""A lane's order stream as a connection: how often it is opened, how long a silent one is kept, what a frame may do.

Where it is about waits, on virtual time and a connection without a socket; else with a venue that listens on one.
"""

import asyncio
import contextlib
import math
import random
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any, Self, cast

import orjson
import pytest
from pydantic import SecretStr
from redis.exceptions import ConnectionError as RedisConnectionError
from structlog.testing import capture_logs
from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed, ConnectionClosedError

from cancelq_worker.clocks import RemoteClock, monotonic_s
from cancelq_worker.egress import Egress, Ticket
from cancelq_worker.ledger import Ledger
from cancelq_worker.repeating import LEFT_OUT
from cancelq_worker.stream_place import StreamPlace
from cancelq_worker.streaming import (
    BACKOFF_S,
    FRAME_MOST,
    FULL_S,
    KEEP_S,
    LIVE_S,
    REFUSED_S,
    LaneStream,
    StreamParts,
)
from cancelq_worker.venues.bingx.stream import BingxStream
from cancelq_worker.venues.bitget.signing import Credentials
from cancelq_worker.venues.bitget.stream import BitgetStream
from cancelq_worker.venues.port import Answer, Request
from tests.simulation.loop import VirtualLoop, virtual_time
from tests.unit.bitget_account import KEY, PASSPHRASE, SECRET

LISTEN_KEY = "listen-key-0123456789"
BITGET = BitgetStream(Credentials(SecretStr(KEY), SecretStr(SECRET), SecretStr(PASSPHRASE)))
BITGET_LIVE = orjson.dumps({"event": "subscribe", "arg": {"channel": "orders"}})
BITGET_PUSH = orjson.dumps({"arg": {"channel": "orders"}, "data": [{"orderId": "1", "status": "live"}]})
BINGX_LIVE = orjson.dumps({"id": "1", "code": 0})


class Alone:
    """A ledger that gives the stream to whoever asks."""

    async def stream(self, worker: str, what: str) -> bool:
        return True


class Address:
    """An egress that has room for the stream and its connects, unless it is told otherwise. Keeps what was said."""

    def __init__(self) -> None:
        self.room: Callable[[], bool] = lambda: True
        self.connects = math.inf
        self.error: Exception | None = None
        self.said: list[str] = []

    async def hold_socket(self, bucket: str, holder: str) -> bool:
        if self.error:
            raise self.error
        held = self.room()
        self.said.append("held" if held else "full")
        return held

    async def leave_socket(self, bucket: str, holder: str) -> None:
        self.said.append("left")

    async def rarely(self, buckets: Sequence[str]) -> Ticket | None:
        if not self.connects:
            return None
        self.connects -= 1
        return Ticket(())

    async def rare_ended(self, ticket: Ticket, at_ns: int | None, *, answered: bool) -> None:
        self.said.append("opened" if answered else "not opened")


def behind(address: Address, parts: StreamParts) -> StreamParts:
    """The same stream, from that address."""
    return replace(parts, place=StreamPlace(cast("Egress", address), parts.stream, "w1"))


async def no_call(request: Request) -> Answer:
    raise AssertionError(f"{request} is called")


PARTS = StreamParts(
    "bitget:main", BITGET, "ws://127.0.0.1:1/", "w1", cast("Ledger", Alone()),
    StreamPlace(cast("Egress", Address()), BITGET, "w1"), RemoteClock(1000), None, no_call, lambda _: None,
)  # fmt: skip


# -- waits -------------------------------------------------------------------------------------------------------------


class Line:
    """A connection: `first` is said on it at once, then `then` every `EACH_S`; "": nothing more, None: it ends. It also
    ends after `most_s`."""

    EACH_S = 10.0

    def __init__(self, first: bytes, then: str | None, most_s: float = math.inf) -> None:
        self._first = [first] if first else []
        self._then = then
        self._ends_s = monotonic_s() + most_s
        self._next_s = monotonic_s() + self.EACH_S

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        pass

    async def send(self, text: str) -> None:
        pass

    async def recv(self) -> bytes | str:
        if self._first:
            return self._first.pop()
        if self._then is None or monotonic_s() >= self._ends_s:
            raise ConnectionClosedError(None, None)
        if not self._then:
            await asyncio.get_running_loop().create_future()
        await asyncio.sleep(self._next_s - monotonic_s())
        self._next_s += self.EACH_S
        return self._then


class Hours:
    """A loop on virtual time. `opened_s`: when connections were opened, from the start."""

    def __init__(self) -> None:
        self._loop = VirtualLoop(random.Random(1))
        self.opened_s: list[float] = []

    def pass_by(self, parts: StreamParts, seconds: float, line: Callable[[], Line]) -> None:
        """Keeps a stream over such connections for so long."""

        def opened(*_: object, **__: object) -> Any:
            self.opened_s.append(self.now_s())
            return line()

        with virtual_time(self._loop):
            self._began_s = monotonic_s()
            stream = LaneStream(replace(parts, open_socket=opened))
            self._loop.call_later(seconds, stream.stop)
            self._loop.run_until_complete(asyncio.wait_for(stream.serve(), seconds + 60))

    def now_s(self) -> float:
        return monotonic_s() - self._began_s

    def end(self) -> None:
        self._loop.end([])


@pytest.fixture
def hours() -> Iterator[Hours]:
    passing = Hours()
    yield passing
    passing.end()


def test_a_venue_that_hangs_up_at_once_is_called_less_and_less(hours: Hours) -> None:
    """Bitget allows an address 300 connections in five minutes, for all its lanes."""
    hours.pass_by(PARTS, 300, lambda: Line(b"", None))
    assert 10 <= len(hours.opened_s) <= 100


def test_a_stream_that_fell_silent_is_opened_again(hours: Hours) -> None:
    hours.pass_by(PARTS, 1.5 * BITGET.silent_most_s, lambda: Line(BITGET_LIVE, ""))
    assert len(hours.opened_s) == 2
    first_s, second_s = hours.opened_s
    assert BITGET.silent_most_s <= second_s - first_s <= BITGET.silent_most_s + 5


def test_a_stream_on_which_the_venue_speaks_is_kept(hours: Hours) -> None:
    hours.pass_by(PARTS, 10 * BITGET.silent_most_s, lambda: Line(BITGET_LIVE, "pong"))
    assert len(hours.opened_s) == 1


def test_a_stream_on_which_the_venue_speaks_of_no_order_s_subscription_is_opened_again(hours: Hours) -> None:
    hours.pass_by(PARTS, 10 * BITGET.silent_most_s, lambda: Line(b"", "pong"))
    first_s, second_s, *_ = hours.opened_s
    assert LIVE_S <= second_s - first_s <= LIVE_S + 2 * Line.EACH_S


def test_a_stream_that_breaks_every_hour_is_opened_again_at_once_each_time(hours: Hours) -> None:
    hours.pass_by(PARTS, 24 * 3600, lambda: Line(BITGET_LIVE, "pong", most_s=3600))
    assert len(hours.opened_s) == 24
    waits = [later - earlier - 3600 for earlier, later in pairwise(hours.opened_s)]
    assert max(waits) <= 1.2 * 2 * BACKOFF_S + Line.EACH_S


def test_a_listen_key_is_renewed_once_in_each_of_its_times(hours: Hours) -> None:
    stream, called = BingxStream(), list[tuple[str, float]]()

    async def call(request: Request) -> Answer:
        called.append((request.method, hours.now_s()))
        return Answer(200, {}, orjson.dumps({"listenKey": LISTEN_KEY}))

    parts = replace(PARTS, lane="bingx:main", stream=stream, call=call)
    hours.pass_by(parts, 2.5 * stream.renew_every_s, lambda: Line(BINGX_LIVE, "Ping"))
    assert [method for method, _ in called] == ["POST", "PUT", "PUT"]
    assert [at_s for _, at_s in called] == pytest.approx([n * stream.renew_every_s for n in range(3)], abs=5)
    assert len(hours.opened_s) == 1


def test_a_push_shows_that_the_subscription_stands(hours: Hours) -> None:
    """Its answer may have been lost."""
    hours.pass_by(PARTS, 600, lambda: Line(BITGET_PUSH, "pong"))
    assert len(hours.opened_s) == 1


def test_a_login_that_was_refused_is_not_tried_again_at_once(hours: Hours) -> None:
    refusal = b'{"event":"error","code":"30011","msg":"Invalid ACCESS_KEY"}'
    hours.pass_by(PARTS, 600, lambda: Line(refusal, ""))
    assert len(hours.opened_s) > 10
    waits = [later - earlier for earlier, later in pairwise(hours.opened_s)]
    assert min(waits) >= 0.8 * REFUSED_S


# -- the lease ---------------------------------------------------------------------------------------------------------


class Leased:
    """A ledger that gives the stream until a time, and then to another worker. Keeps what it was asked."""

    def __init__(self, hours: Hours, until_s: float = math.inf, error: Exception | None = None) -> None:
        self._hours, self._until_s, self._error = hours, until_s, error
        self.asked: list[str] = []

    async def stream(self, worker: str, what: str) -> bool:
        self.asked.append(what)
        if self._error:
            raise self._error
        return self._hours.now_s() < self._until_s


def test_a_stream_that_stands_is_kept_as_alive(hours: Hours) -> None:
    leased = Leased(hours)
    hours.pass_by(replace(PARTS, ledger=cast("Ledger", leased)), 600, lambda: Line(BITGET_LIVE, "pong"))
    first = leased.asked.index("live")
    assert set(leased.asked[:first]) == {"hold"}
    assert set(leased.asked[first:-1]) == {"live"}
    assert leased.asked[-1] == "leave"
    assert len(leased.asked) > 600 / KEEP_S - 5


def test_a_stream_that_another_worker_has_is_left_to_it(hours: Hours) -> None:
    leased = Leased(hours, until_s=300)
    hours.pass_by(replace(PARTS, ledger=cast("Ledger", leased)), 600, lambda: Line(BITGET_LIVE, "pong"))
    left = leased.asked.index("leave")
    assert leased.asked[left - 1] == "live"
    assert set(leased.asked[left + 1 :]) == {"hold"}
    assert len(hours.opened_s) == 1


def test_without_redis_no_stream_is_opened(hours: Hours) -> None:
    leased = Leased(hours, error=RedisConnectionError("away"))
    hours.pass_by(replace(PARTS, ledger=cast("Ledger", leased)), 60, lambda: Line(BITGET_LIVE, "pong"))
    assert leased.asked
    assert hours.opened_s == []


# -- the address -------------------------------------------------------------------------------------------------------


def test_a_lane_without_a_place_asks_calmly_and_says_so_once(hours: Hours) -> None:
    address, leased = Address(), Leased(hours)
    address.room = lambda: False
    parts = behind(address, replace(PARTS, ledger=cast("Ledger", leased)))
    with capture_logs() as said:
        hours.pass_by(parts, 600, lambda: Line(BITGET_LIVE, "pong"))
    assert hours.opened_s == []
    assert 600 / (1.2 * FULL_S) - 1 <= len(address.said) <= 600 / (0.8 * FULL_S) + 1
    # A worker that leaves from another address may take it.
    assert leased.asked == ["hold", "leave"] * len(address.said)
    (line,) = said
    assert (line["log_level"], line["limit"], line["lane"]) == ("warning", "bitget-sockets", "bitget:main")
    assert "egress address" in line["remedy"]


def test_a_place_that_becomes_free_is_taken_and_that_there_is_none_any_more_told_again(hours: Hours) -> None:
    address = Address()
    address.room = lambda: 300 <= hours.now_s() < 600
    with capture_logs() as said:
        hours.pass_by(behind(address, PARTS), 900, lambda: Line(BITGET_LIVE, "pong"))
    (opened_s,) = hours.opened_s
    assert 300 <= opened_s <= 300 + 1.2 * FULL_S
    assert [line["log_level"] for line in said] == ["warning", "info", "warning"]


def test_a_stream_whose_place_is_another_s_is_closed(hours: Hours) -> None:
    address = Address()
    address.room = lambda: hours.now_s() < 300
    hours.pass_by(behind(address, PARTS), 600, lambda: Line(BITGET_LIVE, "pong"))
    assert len(hours.opened_s) == 1
    full = address.said.index("full")
    assert full >= 300 / KEEP_S - 5, "the place is kept as often as the lease"
    assert address.said[full + 1] == "left"
    assert set(address.said[full + 2 :]) == {"full"}


def test_a_place_is_left_with_each_connection_and_each_connect_counted(hours: Hours) -> None:
    address = Address()
    hours.pass_by(behind(address, PARTS), 60, lambda: Line(b"", None))
    assert address.said == ["held", "opened", "left"] * len(hours.opened_s)


def test_a_connect_that_fails_counts(hours: Hours) -> None:
    def nobody() -> Line:
        raise ConnectionRefusedError

    address = Address()
    hours.pass_by(behind(address, PARTS), 60, nobody)
    assert address.said == ["held", "not opened", "left"] * len(hours.opened_s)


def test_without_a_connect_left_none_is_made_and_the_place_is_another_lane_s(hours: Hours) -> None:
    address = Address()
    address.connects = 2
    with capture_logs() as said:
        hours.pass_by(behind(address, PARTS), 300, lambda: Line(b"", None))
    assert len(hours.opened_s) == 2
    assert address.said[6:] == ["held", "left"] * (len(address.said[6:]) // 2)
    assert len(address.said[6:]) // 2 <= 300 / (0.8 * FULL_S) + 1
    assert [line["limit"] for line in said if "limit" in line] == ["bitget-connects"]


def test_while_nobody_knows_the_places_no_stream_is_opened_or_kept(hours: Hours) -> None:
    address = Address()

    def away_from(second: float) -> bool:
        if hours.now_s() >= second:
            address.error = RedisConnectionError("away")
            raise address.error
        return True

    address.room = lambda: away_from(60)
    with capture_logs() as said:
        hours.pass_by(behind(address, PARTS), 300, lambda: Line(BITGET_LIVE, "pong"))
    assert len(hours.opened_s) == 1
    assert address.said[-1] == "left"
    assert [line["log_level"] for line in said] == ["info"]


# -- frames ------------------------------------------------------------------------------------------------------------


async def until_refused(venue: Callable[[ServerConnection], Awaitable[None]]) -> list[int | None]:
    """Keeps a stream at a venue until its first connection has ended; with which code it did."""
    codes: list[int | None] = []

    async def listened_to(connection: ServerConnection) -> None:
        with contextlib.suppress(ConnectionClosed):
            await venue(connection)
        await connection.wait_closed()
        codes.append(connection.close_code)
        stream.stop()

    async with serve(listened_to, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        stream = LaneStream(replace(PARTS, ws_url=f"ws://127.0.0.1:{port}/"))
        await asyncio.wait_for(stream.serve(), 30)
    return codes


async def test_a_frame_over_the_bound_ends_the_connection_unread() -> None:
    async def venue(connection: ServerConnection) -> None:
        await connection.recv()
        await connection.send("x" * (FRAME_MOST + 1))
        await connection.send('{"event":"error","code":"30001","msg":"read on"}')

    with capture_logs() as said:
        assert await until_refused(venue) == [1009]
    assert "read on" not in str(said)


async def test_a_refusal_that_quotes_the_login_is_logged_without_it() -> None:
    async def venue(connection: ServerConnection) -> None:
        (login,) = orjson.loads(await connection.recv())["args"]
        told.update(login)
        await connection.send(
            orjson.dumps({"event": "error", "code": "30005", "msg": f"no such login: {login}"}).decode()
        )

    told: dict[str, str] = {}
    with capture_logs() as said:
        await until_refused(venue)
    assert [line["said"] for line in said if "said" in line] == [LEFT_OUT]
    assert {"apiKey", "passphrase", "sign"} <= set(told)
    assert not [name for name in ("apiKey", "passphrase", "sign") if told[name] in str(said)]


async def test_any_other_refusal_is_logged_in_the_venues_words() -> None:
    async def venue(connection: ServerConnection) -> None:
        await connection.recv()
        await connection.send('{"event":"error","code":"30011","msg":"Invalid ACCESS_KEY"}')

    with capture_logs() as said:
        await until_refused(venue)
    assert [line["said"] for line in said if "said" in line] == ["30011 Invalid ACCESS_KEY"]


def test_a_refusal_of_a_listen_key_that_quotes_the_call_is_logged_without_it(hours: Hours) -> None:
    async def call(request: Request) -> Answer:
        return Answer(200, {}, b'{"code":100413,"msg":"Incorrect apiKey canary"}', quotes=True)

    with capture_logs() as said:
        hours.pass_by(replace(PARTS, stream=BingxStream(), call=call), 10, lambda: Line(BINGX_LIVE, "Ping"))
    assert [line["said"] for line in said if "said" in line] == [LEFT_OUT]


def test_a_refusal_that_quotes_the_listen_key_is_logged_without_it(hours: Hours) -> None:
    async def call(request: Request) -> Answer:
        return Answer(200, {}, orjson.dumps({"listenKey": LISTEN_KEY}))

    refusal = orjson.dumps({"id": "1", "code": 80403, "msg": f"too many topics for {LISTEN_KEY}"})
    with capture_logs() as said:
        hours.pass_by(replace(PARTS, stream=BingxStream(), call=call), 10, lambda: Line(refusal, ""))
    assert [line["said"] for line in said if "said" in line] == [LEFT_OUT]
