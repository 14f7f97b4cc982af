"""Replies that get lost on the way back: nothing is sent twice, and what is uncertain is told as uncertain.

A proxy stands between client and server. It passes every command on; of the replies it can keep back some.
"""

import asyncio
import socket
import struct
import threading
from abc import ABC, abstractmethod
from collections.abc import Coroutine, Iterator
from typing import Any, TypeVar

import pytest
from redis import Redis
from redis import asyncio as redis_asyncio

from cancelq import AsyncClient, BatchIncomplete, BrokerRefused, Client, Status, Uncertain
from cancelq.guard import AsyncGuard
from tests.unit.test_client import CANCEL, LANE, inbox, server, settle
from tests.unit.test_client_async import until

__all__ = ["server"]  # the fixture

T = TypeVar("T")

CRLF = b"\r\n"
# An entry id comes as its length and its text.
LINES_PER_ENTRY_ID = 2


class Listener(ABC):
    """Something on a port of 127.0.0.1 with an event loop and a thread of its own."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self._listener = self._in_loop(asyncio.start_server(self._serve, "127.0.0.1", 0))
        self.port: int = self._listener.sockets[0].getsockname()[1]

    @abstractmethod
    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None: ...

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def close(self) -> None:
        self._in_loop(self._close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _close(self) -> None:
        self._listener.close()
        connections = asyncio.all_tasks() - {asyncio.current_task()}
        for connection in connections:
            connection.cancel()
        await asyncio.gather(*connections, return_exceptions=True)

    def _in_loop(self, coroutine: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(timeout=10)


class LossyProxy(Listener):
    """Forwards to a server; `lose_after` makes it keep back replies."""

    def __init__(self, upstream_port: int) -> None:
        self._upstream_port = upstream_port
        self._lines_left: int | None = None
        self._hang = False
        self._clients: list[asyncio.StreamWriter] = []
        super().__init__()

    def lose_after(self, entry_ids: int, *, hang: bool = False) -> None:
        """Lets that many more entry ids through, then cuts the connection, or falls silent."""
        self._hang = hang
        self._lines_left = entry_ids * LINES_PER_ENTRY_ID

    def heal(self) -> None:
        self._lines_left = None

    def reset(self) -> None:
        """Ends every connection at once, as whatever stands between does with those that it has forgotten."""
        self._in_loop(self._reset())

    async def _reset(self) -> None:
        for writer in self._clients:
            at_once = struct.pack("ii", 1, 0)
            writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, at_once)
            writer.transport.abort()
        self._clients.clear()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._clients.append(writer)
        up_reader, up_writer = await asyncio.open_connection("127.0.0.1", self._upstream_port)
        try:
            async with asyncio.TaskGroup() as both:
                both.create_task(self._commands(reader, up_writer))
                both.create_task(self._replies(up_reader, writer))
        except* (ConnectionError, EOFError):
            pass
        finally:
            writer.close()
            up_writer.close()

    async def _commands(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
        raise EOFError

    async def _replies(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            line = await reader.readuntil(CRLF)
            greeting = line[:1] in b"+-"  # what a new connection settles before it is used
            if self._lines_left is not None and not greeting:
                if self._lines_left == 0:
                    if not self._hang:
                        raise EOFError
                    continue
                self._lines_left -= 1
            writer.write(line)
            await writer.drain()


@pytest.fixture
def proxy(server: Redis) -> Iterator[LossyProxy]:
    proxy = LossyProxy(server.get_connection_kwargs()["port"])
    try:
        yield proxy
    finally:
        proxy.close()


@pytest.mark.parametrize("hang", [False, True], ids=["connection cut", "silence"])
def test_a_lost_reply_is_uncertain_and_the_intent_is_there_once(proxy: LossyProxy, server: Redis, hang: bool) -> None:
    with Client(proxy.url, timeout_s=0.3) as client:
        client.submit(LANE, **CANCEL)
        proxy.lose_after(0, hang=hang)
        with pytest.raises(Uncertain, match="send it again with the same id") as lost:
            client.submit(LANE, **CANCEL)
        assert [fields[b"id"].decode() for _, fields in inbox(server)][1:] == [lost.value.id]


def test_not_even_a_client_that_likes_to_repeat_sends_twice(proxy: LossyProxy, server: Redis) -> None:
    with Redis.from_url(proxy.url) as eager:
        client = Client(eager)
        client.submit(LANE, **CANCEL)
        proxy.lose_after(0)
        with pytest.raises(Uncertain):
            client.submit(LANE, **CANCEL)
    assert len(inbox(server)) == 2


def test_what_was_uncertain_is_sent_again_and_awaited(proxy: LossyProxy, server: Redis) -> None:
    with Client(proxy.url) as client:
        proxy.lose_after(0)
        with pytest.raises(Uncertain) as lost:
            client.submit(LANE, **CANCEL)
        settle(server, lost.value.id, status="filled")
        proxy.heal()
        ticket = client.submit(lost.value.lane, lost.value.fields)
        assert ticket.id == lost.value.id
        settle(server, ticket.id, status="duplicate", final="0")
        assert ticket.wait(10).status is Status.filled


def test_a_batch_cut_off_half_way_tells_which_are_confirmed(proxy: LossyProxy, server: Redis) -> None:
    with Client(proxy.url) as client:
        proxy.lose_after(512)
        with pytest.raises(BatchIncomplete) as incomplete:
            client.submit_many(LANE, [{"symbol": "BTCUSDT", "order_id": str(at)} for at in range(1200)])
        error = incomplete.value
        assert (len(error.queued), len(error.uncertain), len(error.not_queued)) == (512, 488, 200)
        queued = inbox(server)
        assert [ticket.entry_id.encode() for ticket in error.queued] == [entry_id for entry_id, _ in queued[:512]]
        proxy.heal()
        client.submit_many(error.lane, [*error.uncertain, *error.not_queued])
        ids = [fields[b"id"] for _, fields in inbox(server)]
        assert len(set(ids)) == 1200
        assert 1200 <= len(ids) <= 1200 + 488


@pytest.mark.parametrize("hang", [False, True], ids=["connection cut", "silence"])
async def test_a_lost_reply_is_uncertain_in_asyncio_too(proxy: LossyProxy, server: Redis, hang: bool) -> None:
    async with AsyncClient(proxy.url, timeout_s=0.3) as client:
        await client.submit(LANE, **CANCEL)
        proxy.lose_after(0, hang=hang)
        with pytest.raises(Uncertain) as lost:
            await client.submit(LANE, **CANCEL)
        assert [fields[b"id"].decode() for _, fields in inbox(server)][1:] == [lost.value.id]
        proxy.heal()
        assert (await client.submit(LANE, lost.value.fields)).id == lost.value.id


async def test_not_even_an_asyncio_client_that_likes_to_repeat_sends_twice(proxy: LossyProxy, server: Redis) -> None:
    async with redis_asyncio.Redis.from_url(proxy.url) as eager:
        client = AsyncClient(eager)
        await client.submit(LANE, **CANCEL)
        proxy.lose_after(0)
        with pytest.raises(Uncertain):
            await client.submit(LANE, **CANCEL)
    assert len(inbox(server)) == 2


async def test_an_asyncio_batch_cut_off_half_way_tells_which_are_confirmed(proxy: LossyProxy, server: Redis) -> None:
    async with AsyncClient(proxy.url) as client:
        proxy.lose_after(512)
        with pytest.raises(BatchIncomplete) as incomplete:
            await client.submit_many(LANE, [CANCEL] * 1200)
        error = incomplete.value
        assert (len(error.queued), len(error.uncertain), len(error.not_queued)) == (512, 488, 200)
        settle(server, *[ticket.id for ticket in error.queued])
        proxy.heal()
        assert len(await client.wait_all(error.queued, 10)) == 512


async def test_a_cancelled_submit_leaves_no_reply_to_the_next(proxy: LossyProxy, server: Redis) -> None:
    async with AsyncClient(proxy.url) as client:
        proxy.lose_after(0, hang=True)
        submitting = asyncio.ensure_future(client.submit(LANE, id="first", **CANCEL))
        await until(lambda: len(inbox(server)) == 1)
        submitting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await submitting
        proxy.heal()
        ticket = await client.submit(LANE, id="second", **CANCEL)
        assert [entry_id.decode() for entry_id, _ in inbox(server)][1] == ticket.entry_id


@pytest.mark.parametrize("steps", range(40))
async def test_a_submit_cancelled_at_any_step_ends_and_leaves_the_client_in_order(
    redis_url: str, server: Redis, steps: int
) -> None:
    async with AsyncClient(redis_url) as client:
        submitting = asyncio.ensure_future(client.submit(LANE, id="first", **CANCEL))
        for _ in range(steps):
            await asyncio.sleep(0)
        if submitting.cancel():
            with pytest.raises(asyncio.CancelledError):
                await submitting
        ticket = await client.submit(LANE, id="second", **CANCEL)
        assert inbox(server)[-1][0].decode() == ticket.entry_id


def in_uvloop(job: Coroutine[Any, Any, None]) -> None:
    uvloop = pytest.importorskip("uvloop")
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(job)


def test_a_connection_that_was_reset_meanwhile_is_a_lost_one_in_every_loop(proxy: LossyProxy, server: Redis) -> None:
    async def submit_twice() -> None:
        async with AsyncClient(proxy.url) as client:
            await client.submit(LANE, **CANCEL)
            (connection,) = client._redis.connection_pool._available_connections
            writer = connection._writer
            assert writer
            proxy.reset()
            await until(writer.is_closing)
            with pytest.raises(Uncertain) as lost:
                await client.submit(LANE, **CANCEL)
            assert (await client.submit(LANE, lost.value.fields)).id == lost.value.id

    in_uvloop(submit_twice())


def test_a_guard_is_kept_over_a_connection_that_was_reset_in_every_loop(proxy: LossyProxy, server: Redis) -> None:
    """Else it fires while its strategy lives, and everything that the account has open is cancelled."""

    async def keep() -> None:
        async with AsyncGuard(proxy.url, LANE, ttl_s=1) as guard:
            proxy.reset()
            await until(lambda: guard.trouble is not None)
            await until(lambda: guard.trouble is None)
            assert (server.exists(LANE.guard), guard.lapses) == (1, 0)
        assert not server.exists(LANE.guard)

    in_uvloop(keep())


class Elsewhere(Listener):
    """A cluster's node that holds no slot: it points to the node that does."""

    def __init__(self, home_port: int) -> None:
        self.home_port = home_port
        super().__init__()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while count := await reader.readline():
            words = []
            for _ in range(int(count[1:])):
                length = int((await reader.readline())[1:])
                words.append((await reader.readexactly(length + 2))[:length])
            writer.write(b"+OK\r\n" if words[0] == b"CLIENT" else b"-MOVED 1 127.0.0.1:%d\r\n" % self.home_port)
            await writer.drain()
        writer.close()


@pytest.fixture
def elsewhere(server: Redis) -> Iterator[Elsewhere]:
    node = Elsewhere(server.get_connection_kwargs()["port"])
    try:
        yield node
    finally:
        node.close()


def test_a_cluster_is_followed_to_the_lanes_node(elsewhere: Elsewhere, server: Redis) -> None:
    with Client(elsewhere.url) as client:
        tickets = [client.submit(LANE, **CANCEL), *client.submit_many(LANE, [CANCEL] * 3)]
        assert [ticket.entry_id.encode() for ticket in tickets] == [entry_id for entry_id, _ in inbox(server)]
        settle(server, *[ticket.id for ticket in tickets])
        assert len(client.wait_all(tickets, 10)) == 4


async def test_a_cluster_is_followed_in_asyncio_too(elsewhere: Elsewhere, server: Redis) -> None:
    async with AsyncClient(elsewhere.url) as client:
        tickets = [await client.submit(LANE, **CANCEL), *await client.submit_many(LANE, [CANCEL] * 3)]
        assert [ticket.entry_id.encode() for ticket in tickets] == [entry_id for entry_id, _ in inbox(server)]
        settle(server, *[ticket.id for ticket in tickets])
        assert len(await client.wait_all(tickets, 10)) == 4


def test_a_cluster_that_points_in_circles_is_left(elsewhere: Elsewhere) -> None:
    lost = Elsewhere(elsewhere.port)
    elsewhere.home_port = lost.port
    with Client(lost.url) as client, pytest.raises(BrokerRefused) as refused:
        client.submit(LANE, **CANCEL)
    assert refused.value.code == "MOVED"
    lost.close()
