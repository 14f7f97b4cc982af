"""Bounds of what comes in from outside, beside those that stand with what they bound: a venue's packed answers, headers
without end, JSON that is a bomb, long lines, callers of the health port who take their time."""

import asyncio
import gzip
import io
import socket
import time
import tracemalloc
import zlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import orjson
import pytest
from prometheus_client import CollectorRegistry

from cancelq_worker.cli.feed_file import MAX_LINE, Bad, lines_of, read_lines
from cancelq_worker.clocks import in_s
from cancelq_worker.health import Health
from cancelq_worker.health_http import HealthServer
from cancelq_worker.http import BODY_MOST, Door, NoAnswer
from cancelq_worker.unpacking import unpacked
from cancelq_worker.venues.port import Request, Signed
from cancelq_worker.venues.registry import KINDS

LARGE = b'{"code":"00000"}' + b" " * (64 * BODY_MOST)
RAW_DEFLATE = zlib.compressobj(wbits=-15)


@asynccontextmanager
async def answering(head: bytes, body: bytes) -> AsyncIterator[Door]:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n" % len(body) + head + b"\r\n" + body)
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    door = Door(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", verify=False)
    try:
        yield door
    finally:
        await door.close()
        server.close()


async def body_of(door: Door) -> bytes:
    return (await door.call(Signed(Request("GET", "/"), {}), send_by_ns=in_s(10), total_s=20)).answer.body


class TestPackedAnswers:
    @pytest.mark.parametrize(
        ("head", "packed"),
        [
            (b"Content-Encoding: gzip\r\n", gzip.compress(b'{"code":"00000"}', mtime=0)),
            (b"Content-Encoding: GZip\r\n", gzip.compress(b'{"code":"00000"}', mtime=0)),
            (b"Content-Encoding: deflate\r\n", zlib.compress(b'{"code":"00000"}')),
            (b"Content-Encoding: identity\r\n", b'{"code":"00000"}'),
        ],
    )
    async def test_one_that_was_packed_unasked_is_read(self, head: bytes, packed: bytes) -> None:
        async with answering(head, packed) as door:
            assert await body_of(door) == b'{"code":"00000"}'

    @pytest.mark.parametrize(
        ("head", "packed", "why"),
        [
            (b"Content-Encoding: gzip\r\n", gzip.compress(LARGE, mtime=0), f"an answer over {BODY_MOST} bytes"),
            (b"Content-Encoding: deflate\r\n", zlib.compress(LARGE), f"an answer over {BODY_MOST} bytes"),
            (b"Content-Encoding: gzip\r\n", gzip.compress(b"{}", mtime=0)[:-4], "an answer that is cut off"),
            (b"Content-Encoding: gzip\r\n", b"no gzip", "an answer that cannot be unpacked"),
            (b"Content-Encoding: br\r\n", b"{}", "an answer packed in a way that was not asked for"),
            (b"Content-Encoding: gzip, gzip\r\n", b"{}", "an answer packed in a way that was not asked for"),
        ],
    )
    async def test_one_that_cannot_be_read_is_no_answer(self, head: bytes, packed: bytes, why: str) -> None:
        async with answering(head, packed) as door:
            with pytest.raises(NoAnswer, match=why):
                await body_of(door)

    def test_a_bomb_takes_no_more_memory_than_an_answer_may(self) -> None:
        bomb = gzip.compress(LARGE, mtime=0)
        tracemalloc.start()
        try:
            with pytest.raises(ValueError, match="over"):
                unpacked(bomb, "gzip", BODY_MOST)
            _, most = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert most < 3 * BODY_MOST < len(LARGE) / 10


async def test_headers_without_end_are_no_answer() -> None:
    async with answering(b"X-Long: " + b"x" * 1_000_000 + b"\r\n", b"{}") as door:
        with pytest.raises(NoAnswer):
            await body_of(door)


BOMBS = {
    "nested lists": b"[" * 2_000_000,
    "nested objects": b'{"data":' * 500_000,
    "nested whole": b"[" * 100_000 + b"]" * 100_000,
    "a huge number": b'{"code":0,"data":{"orderId":' + b"9" * 1_000_000 + b"}}",
    "a huge exponent": b'{"code":0,"data":{"orderId":1e999999999}}',
    "NaN": b'{"code":NaN,"retCode":NaN}',
    "Infinity": b'{"code":-Infinity,"retCode":Infinity}',
}


@pytest.mark.parametrize("bomb", BOMBS)
def test_json_that_is_a_bomb_is_read_in_no_time_or_not_at_all(bomb: str) -> None:
    """By the one reader of venues' answers; what the adapters make of the rest is judged by their own tests."""
    began_s = time.process_time()
    try:
        read = orjson.loads(BOMBS[bomb])
    except orjson.JSONDecodeError:
        read = None
    assert time.process_time() - began_s < 1
    assert read is None or not isinstance(read["data"]["orderId"], str)
    assert set(KINDS) == {"bitget", "bybit", "bingx"}


class TestFeedLines:
    def test_a_line_of_a_hundred_megabytes_is_told_and_not_held(self) -> None:
        """What is written after it is read as before."""

        class Endless(io.TextIOBase):
            left = 100_000_000

            def readline(self, size: int = -1) -> str:  # type: ignore[override]
                assert 0 < size <= MAX_LINE + 1
                if self.left <= 0:
                    self.left -= 1
                    return '{"symbol": "A", "order_id": "1", "lane": "bitget:main"}\n' if self.left > -2 else ""
                taken = min(size, self.left)
                self.left -= taken
                return "x" * (taken - 1) + ("\n" if self.left == 0 else "x")

        tracemalloc.start()
        try:
            first, second = read_lines(lines_of(Endless()), "jsonl", None)  # type: ignore[arg-type]
            _, most = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert isinstance(first, Bad)
        assert not isinstance(second, Bad)
        assert most < 5_000_000

    @pytest.mark.parametrize(
        "value",
        ["[" * 30_000, "NaN", "1" * 5_000, "1e400", '{"a": ' * 9_000, '"\\ud800"', '"' + "x" * 60_000 + '"'],
    )
    def test_a_value_that_is_a_bomb_is_a_bad_line(self, value: str) -> None:
        (told,) = read_lines(iter([f'{{"lane": "bitget:main", "symbol": "A", "order_id": {value}}}\n']), "jsonl", None)
        assert isinstance(told, Bad)
        assert len(told.says) < 500


def test_a_caller_of_the_health_port_who_trickles_is_hung_up_on() -> None:
    """However often he says a little more: the time is that of the whole request."""
    server = HealthServer("127.0.0.1:0", Health(asyncio.Event()), CollectorRegistry())
    server.request_s = 1.0
    server.start()
    try:
        with socket.create_connection(("127.0.0.1", server.server_address[1]), timeout=0.02) as caller:
            caller.sendall(b"GET /livez HTTP/1.1\r\nX-Slow: ")
            began_s, told = time.monotonic(), b"?"
            while told and time.monotonic() - began_s < 20:
                try:
                    caller.sendall(b"x")
                    told = caller.recv(1)
                except TimeoutError:
                    continue
                except ConnectionError:
                    told = b""
            assert not told, "hung up"
    finally:
        server.close()
